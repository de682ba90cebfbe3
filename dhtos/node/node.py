"""`Node`: a whole node on the running event loop, from its config to its last goodbye.

The composition root: it owns the engine, the driver, the state directory, the sampler and the
tasks that keep them going, and nothing of what they do. Life: start (state, identity, sample,
socket, bootstrap, address, record, join) - run (samples and state in the background) - close
(goodbye, state, socket last). Every method may be cancelled; closing cancels what still waits.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random, SystemRandom
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from dhtos.core.coordinate import Coordinate
from dhtos.core.hit import Hit
from dhtos.core.ids import Endpoint, NodeId, digest
from dhtos.core.limits import VALUE_TTL_S
from dhtos.core.predicate import EVERYTHING, Predicate
from dhtos.core.schema import Schema, Value
from dhtos.errors import Closed, ConfigError, NoPeers, Unreachable, UsageError
from dhtos.node.address import learn, resolve
from dhtos.node.advert import Advert
from dhtos.node.config import Config, format_endpoint
from dhtos.node.find import Count, Find, FindOptions
from dhtos.node.gateway import GatewayFile
from dhtos.node.sampler import Sampler, is_news
from dhtos.node.state import SEQ_RESERVE, Identity, StateDir, open_state
from dhtos.protocol.engine import Engine
from dhtos.protocol.frontier import FindResult, check_verify
from dhtos.protocol.operation import Operation
from dhtos.protocol.peers import Capability
from dhtos.protocol.put import PutResult
from dhtos.protocol.rows import Row
from dhtos.protocol.store import StoredValue
from dhtos.query import Expr, parse
from dhtos.transport.driver import Driver, clock_of
from dhtos.transport.udp import UdpSocket

if TYPE_CHECKING:
    from dhtos.node.control_server import ControlServer

UPKEEP_INTERVAL_S = 60.0
GATEWAYS_MAX = 32

Query = str | Expr | Predicate


class Node:
    """One member of the fleet, or with `client=True` one that only asks.

    >>> import asyncio, dhtos
    >>> async def main() -> int:
    ...     async with dhtos.Node(dhtos.Config(host="127.0.0.1", port=0)) as node:
    ...         return await node.count("cores >= 1")
    >>> asyncio.run(main())
    1
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        rng: Random | None = None,
        clock: Callable[[], float] | None = None,
        wall_clock: Callable[[], float] = time.time,
        open_socket: Callable[[str, int], UdpSocket] = UdpSocket,
        sampler: Sampler | None = None,
    ) -> None:
        self.config = config or Config()
        self.schema: Schema = self.config.schema_or_default
        self._rng = rng or Random(SystemRandom().getrandbits(64))
        self._clock = clock
        self._wall_clock = wall_clock
        self._open_socket = open_socket
        self._sampler = sampler or Sampler(self.config.state_dir)
        self.gateway = (
            None if self.config.gateway is None else GatewayFile(self.config.gateway, self.schema)
        )
        self.on_warning: Callable[[str], None] = lambda _: None
        self._advert: Advert | None = None
        self._state: StateDir | None = None
        self._identity: Identity | None = None
        self._engine: Engine | None = None
        self._driver: Driver | None = None
        self._control: ControlServer | None = None
        self._seeds: list[Endpoint] = []
        self._first_seq = 1
        self._seq_bound = 1
        self._put_seq = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, find the fleet, measure this machine, advertise it.

        Raises ConfigError for a busy port or an unusable state directory, NoPeers when no seed
        answers. Joining goes on in the background: `joined` waits for it.
        """
        assert self._engine is None, "a node starts once"
        try:
            await self._start()
        except BaseException:
            await self.aclose()
            raise

    async def _start(self) -> None:
        config = self.config
        if self.gateway is not None:
            await asyncio.to_thread(self.gateway.check)
        stored = await self._open_state()
        assert self._identity is not None
        loop = asyncio.get_running_loop()
        sock = self._open_socket(config.host, config.port)
        clock = self._clock or clock_of(loop)
        self._engine = Engine(
            self._identity.node_id,
            rng=self._rng,
            now=clock(),
            schema=self.schema,
            config=config.engine_config(),
        )
        self._driver = Driver(self._engine, sock, loop, clock)
        self._seeds = await resolve(config.seeds, sock)
        if config.client and not self._seeds and not stored:
            raise ConfigError("a client must know somebody to ask: give it a seed")
        await self._find_fleet(stored)
        endpoint = await learn(config.advertise_host, self._driver, self._engine.core, self._seeds)
        await self._describe(endpoint)
        self._take_place()
        if self.gateway is not None:
            self.gateway.own = self.engine.hub.own
            self._advertise_rows((await asyncio.to_thread(self.gateway.read)).rows)
            self._spawn(self.gateway.keep(self._advertise_rows, lambda w: self.on_warning(w)))
        if config.sample and not config.client:
            self._spawn(self._keep_sampling())
        self._spawn(self._keep_state())
        if config.control:
            await self._open_control()

    async def _open_state(self) -> list[Endpoint]:
        """Who we are, and whom we knew."""
        path = self.config.state_dir
        if path is None:
            self._identity = await asyncio.to_thread(Identity.generate)
            return []

        self._state, self._identity, contacts, self._first_seq = await asyncio.to_thread(
            open_state, path, self._wall_clock
        )
        self._seq_bound = self._first_seq + SEQ_RESERVE
        return contacts

    async def _find_fleet(self, stored: list[Endpoint]) -> None:
        """Join the base overlay; a node that was told no seed may be the first of all."""
        assert self._driver is not None
        known = [e for e in stored if self._driver.socket.reachable(*e)]
        endpoints = list(dict.fromkeys([*self._seeds, *known]))
        if not endpoints:
            return
        engine = self.engine
        try:
            await self._driver.wait(engine.base.bootstrap(endpoints, self._driver.clock()))
        except NoPeers:
            if self._seeds or self.config.client:
                raise
        self._seeds = endpoints

    async def _describe(self, endpoint: Endpoint) -> None:
        """Measure this machine, unless it only asks."""
        config = self.config
        assert self._identity is not None
        labels = {**({"name": config.name} if config.name is not None else {}), **config.labels}
        sampled: dict[str, Value] = {}
        if config.sample and not config.client:
            sampled = await asyncio.to_thread(self._sampler.sample, self.schema)
        self._advert = Advert(
            self.schema, self._identity, endpoint, config.advertise, labels, sampled
        )

    def _take_place(self) -> None:
        """Advertise the record and join the hub, or found it where no dhtos node is."""
        hub = self.engine.hub
        hub.gateways = self._gateways()
        if self.config.client:
            return
        self._publish(self.advert, eager=False)
        now = self.driver.clock()
        if hub.gateways:
            hub.join(hub.gateways, now)
        else:
            hub.found(now)
        self.driver.flush()

    async def joined(self) -> None:
        """Wait for the place in the hub, which a client has not; raises SchemaConflict."""
        driver = self.driver
        if not self.config.client:
            hub = self.engine.hub
            await driver.until(lambda: hub.settled or hub.conflict is not None)
            hub.check_conflict()

    async def aclose(self) -> None:
        """Say goodbye, cancel what waits, save the state, close the socket; may be called again."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._control is not None:
                await self._control.aclose()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._save_state()
        finally:
            if self._driver is not None:
                self.engine.hub.leave(self._driver.clock())
                await self._driver.aclose()
            if self._state is not None:
                self._state.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- who we are -----------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The engine of the started node; raises Closed before the start."""
        if self._engine is None:
            raise Closed("the node has not started: use `async with` or await start()")
        return self._engine

    @property
    def driver(self) -> Driver:
        """The driver of the running node; raises Closed before the start and after the end."""
        if self._driver is None or self._driver.closed:
            raise Closed("the node is not running")
        return self._driver

    @property
    def id(self) -> NodeId:
        """The node's id, which follows from its key."""
        return NodeId(self.engine.id)

    @property
    def advert(self) -> Advert:
        """What this node says of itself; raises Closed before the start."""
        if self._advert is None:
            raise Closed("the node has not started: use `async with` or await start()")
        return self._advert

    @property
    def endpoint(self) -> str:
        """Where others reach this node: `host:port`."""
        return format_endpoint(self.advert.endpoint)

    @property
    def port(self) -> int:
        """The UDP port the node listens on."""
        return self.driver.socket.endpoint[1]

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the own record."""
        return MappingProxyType(dict(self.advert.labels))

    @property
    def attributes(self) -> Mapping[str, Value]:
        """What the own record says: what was sampled, under what was told."""
        return MappingProxyType(self.advert.attributes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with state directory, gateway's file or peers, but did not stop us."""
        state = self._state.warnings if self._state is not None else []
        peers = self._engine.hub.versions.warnings if self._engine is not None else []
        return (*state, *peers, *(self.gateway.warnings if self.gateway is not None else []))

    # --- telling --------------------------------------------------------------------------------

    async def advertise(
        self, attributes: Mapping[str, Value | None] | None = None, /, **named: Value | None
    ) -> None:
        """Tell the fleet more about this machine; None withdraws a value told before.

        Returns when the node has its place again, which a static attribute may move. Raises
        UsageError for what the schema does not know.
        """
        await self._tell(self.advert.changed(told={**(attributes or {}), **named}))

    async def label(self, labels: Mapping[str, str | None]) -> None:
        """Set free-form labels; None removes one. Raises UsageError for what cannot be one."""
        await self._tell(self.advert.changed(labels=labels))

    async def _tell(self, advert: Advert) -> None:
        if self.config.client:
            raise UsageError("a client advertises nothing: start a node without client=True")
        self._publish(advert, eager=True)
        await self.joined()

    # --- asking ---------------------------------------------------------------------------------

    def find(
        self,
        query: Query = EVERYTHING,
        *,
        limit: int = 0,
        order_by: str | None = None,
        descending: bool = False,
        strict: bool = False,
        verify: int = 1,
        explain: bool = False,
        cursor: bytes | None = None,
    ) -> Find:
        """The machines that match, as they are found: `async for hit in node.find(...)`.

        `limit=0` is no limit, `cursor` continues an earlier result, `strict` distrusts young
        summaries, `verify` asks so many members about every subtree, `explain` keeps the steps of
        the walk. Leaving the loop early frees the query. Raises PredicateError and UsageError at
        once.
        """
        if type(limit) is not int or limit < 0:
            raise UsageError(f"limit must be 0 (none) or more, got {limit!r}")
        check_verify(verify)
        predicate = self.predicate(query)
        order = None if order_by is None else (self.config.vocabulary.index(order_by), descending)
        hub, driver = self.engine.hub, self.driver

        def ask() -> Operation[FindResult]:
            return hub.find(
                predicate,
                driver.clock(),
                limit=limit,
                order=order,
                strict=strict,
                verify=verify,
                explain=explain,
                cursor=cursor,
            )

        return Find(driver, self.joined, ask)

    async def find_all(
        self, query: Query = EVERYTHING, **options: Unpack[FindOptions]
    ) -> FindResult:
        """The whole answer of `find`: `.hits`, `.coverage`, `.matches` and `.cursor`."""
        return await self.find(query, **options).finish()

    async def count(
        self, query: Query = EVERYTHING, *, strict: bool = False, verify: int = 1
    ) -> Count:
        """How many machines match: a number that carries its `coverage`."""
        predicate = self.predicate(query)
        check_verify(verify)
        await self.joined()
        hub, now = self.engine.hub, self.driver.clock()
        operation = hub.find(predicate, now, count_only=True, strict=strict, verify=verify)
        result = await self.driver.wait(operation)
        return Count(result.matches, result.coverage)

    async def put(
        self,
        key: str | bytes,
        value: str | bytes | float | bool,
        *,
        ttl_s: float = VALUE_TTL_S,
        seq: int | None = None,
    ) -> PutResult:
        """Store a value under a name on the k closest nodes; a stock peer can read it too.

        `seq` orders versions; by default the wall clock in milliseconds does. Raises
        ValueTooLarge, Conflict when a newer version exists, Unreachable when nobody took it.
        """
        if seq is None:
            seq = self._put_seq = max(int(self._wall_clock() * 1000), self._put_seq + 1)
        driver = self.driver
        operation = self.engine.base.put(digest(key), value, driver.clock(), ttl_s=ttl_s, seq=seq)
        return await driver.wait(operation)

    async def get(self, key: str | bytes) -> StoredValue:
        """The newest value under a name; raises KeyNotFound."""
        driver = self.driver
        return await driver.wait(self.engine.base.get(digest(key), driver.clock()))

    def members(self) -> tuple[Hit, ...]:
        """The records of the own group, as this node believes them now; asks nobody."""
        now, hub = self.driver.clock(), self.engine.hub
        return tuple(hub.hit(m.record, max(now - m.born, 0.0)) for m in hub.members())

    def stats(self) -> Mapping[str, float]:
        """Counters and sizes of this node; asks nobody."""
        figures = dict(self.engine.stats())
        sock = self.driver.socket
        for name in ("received", "sent", "dropped", "errors", "queued"):
            figures[f"socket_{name}"] = getattr(sock, name)
        return figures | {f"probe_failed_{k}": v for k, v in self._sampler.counters.items()}

    def predicate(self, query: Query) -> Predicate:
        """The normal form of a query; raises PredicateError."""
        return parse(query, self.config.vocabulary, coordinate_of=self._coordinate_of)

    def _coordinate_of(self, who: str) -> Coordinate | None:
        """Where `self`, or a node of the own group, is on the map of round-trip times."""
        hub = self.engine.hub
        if who == "self":
            return hub.coordinate if hub.settled else None
        for member in hub.members():
            if member.record.node_id.hex() == who and member.record.coordinate is not None:
                return Coordinate.from_wire(member.record.coordinate)
        return None

    # --- inside ---------------------------------------------------------------------------------

    def _publish(self, advert: Advert, *, eager: bool) -> None:
        """Give the hub a new version of the own record; a refused one changes nothing."""
        hub, driver = self.engine.hub, self.driver
        now = driver.clock()
        record = advert.record(hub.own, self._first_seq, hub.coordinate.to_wire())
        self._advert = advert
        hub.advertise(record, now, eager=eager)
        driver.flush()

    def _advertise_rows(self, rows: Sequence[Row]) -> None:
        self.engine.hub.rows.advertise(rows, self.driver.clock(), seq=self._first_seq)
        self.driver.flush()

    def _gateways(self) -> list[Endpoint]:
        """Peers that have shown to be dhtos nodes: the seeds, then contacts."""
        engine = self.engine
        endpoints = [*self._seeds, *(contact.endpoint for contact in engine.base.contacts())]
        known = [(e, engine.core.peers.known(e)) for e in dict.fromkeys(endpoints)]
        return [e for e, p in known if p is not None and p.capability is Capability.DHTOS][
            :GATEWAYS_MAX
        ]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background until the node closes; a fault goes to the loop's handler."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "a background task of a dhtos node failed", "exception": error}
            task.get_loop().call_exception_handler(context)

    async def _keep_sampling(self) -> None:
        while True:
            await asyncio.sleep(self.config.sample_interval_s)
            sample = await asyncio.to_thread(self._sampler.sample, self.schema)
            if is_news(self.schema, self.advert.sampled, sample):
                self._publish(self.advert.changed(sampled=sample), eager=False)

    async def _keep_state(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_INTERVAL_S)
            if not len(self.engine.base.routing) and self._seeds:
                with contextlib.suppress(Unreachable):
                    operation = self.engine.base.bootstrap(self._seeds, self.driver.clock())
                    await self.driver.wait(operation)
            self.engine.hub.gateways = self._gateways()
            for line in self.engine.hub.versions.news():
                self.on_warning(line)
            await self._save_state()

    async def _save_state(self) -> None:
        state, engine = self._state, self._engine
        if state is None or engine is None:
            return
        contacts = engine.base.contacts()
        if contacts:
            await asyncio.to_thread(state.save_contacts, contacts)
        hub = engine.hub
        told = max(hub.own.seq if hub.own is not None else 0, hub.rows.seq_told)
        if told > self._seq_bound - SEQ_RESERVE // 2:
            self._seq_bound = SEQ_RESERVE + await asyncio.to_thread(state.reserve_seq, told + 1)

    async def _open_control(self) -> None:
        from dhtos.node.control import default_control_path
        from dhtos.node.control_server import ControlServer

        path = self.config.control_path or default_control_path(self.config.state_dir, self.port)
        self._control = ControlServer(self, path)
        await self._control.start()
