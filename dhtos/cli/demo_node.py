"""One node of the demo: a real engine on a real socket, without sampler and state directory.

The machine it advertises is told, not measured, and it forgets everything when it ends. With a
badge it is a member of a cluster, without one in open mode. All else is what `dhtos.Node` runs.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from random import Random

from dhtos.cli.demo_cluster import Badge
from dhtos.core.ids import Endpoint
from dhtos.core.record import make_record
from dhtos.core.schema import Schema, Value
from dhtos.errors import NoPeers
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.frontier import FindResult
from dhtos.query import parse
from dhtos.transport.driver import Driver
from dhtos.transport.udp import UdpSocket

HOST = "127.0.0.1"
JOIN_ATTEMPTS_MAX = 5


class DemoNode:
    """An engine, its socket and its driver on the running loop."""

    def __init__(
        self,
        node_id: bytes,
        schema: Schema,
        config: EngineConfig,
        seed: str,
        *,
        badge: Badge | None = None,
    ) -> None:
        self.engine = Engine(
            node_id,
            rng=Random(seed),
            now=time.monotonic(),
            schema=schema,
            config=config,
            member=None if badge is None else badge.member(),
        )
        self._identity = b"" if badge is None else badge.key.public
        self._schema = schema
        self._socket = UdpSocket(HOST, 0)
        self._driver = Driver(self.engine, self._socket, asyncio.get_running_loop(), time.monotonic)

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return self._socket.endpoint

    async def join(self, attributes: Mapping[str, Value], seeds: Sequence[Endpoint]) -> None:
        """Advertise a machine and take a place; without seeds, be the first of all.

        Raises NoPeers when no seed lets it in.
        """
        record = make_record(
            self._schema,
            attributes,
            {},
            node_id=self.engine.id,
            endpoint=self.endpoint,
            seq=1,
            identity=self._identity,
        )
        hub = self.engine.hub
        hub.advertise(record, time.monotonic())
        if not seeds:
            hub.found(time.monotonic())
            self._driver.flush()
            return
        self.meet(seeds)
        await self._driver.wait(self.engine.base.bootstrap(list(seeds), time.monotonic()))
        for attempt in range(JOIN_ATTEMPTS_MAX):
            try:
                await self._driver.wait(hub.join(list(seeds), time.monotonic()))
            except NoPeers:
                if attempt + 1 == JOIN_ATTEMPTS_MAX:
                    raise
            else:
                return

    def meet(self, gateways: Sequence[Endpoint]) -> None:
        """Know whom to ask without having a place."""
        self.engine.hub.gateways = list(gateways)

    async def ask(
        self, text: str, *, limit: int = 0, order_by: str = "", count_only: bool = False
    ) -> FindResult:
        """The answer to a predicate; raises PredicateError for one that cannot be read."""
        predicate = parse(text, self._schema)
        order = (self._schema.index(order_by), False) if order_by else None
        operation = self.engine.hub.find(
            predicate, time.monotonic(), limit=limit, order=order, count_only=count_only
        )
        return await self._driver.wait(operation)

    def die(self) -> None:
        """Close the socket without a word: what a machine does that loses power."""
        self._socket.close()

    async def aclose(self) -> None:
        """Stop the clockwork too."""
        await self._driver.aclose()
