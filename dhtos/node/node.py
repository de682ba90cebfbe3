"""`Node`: a whole node on the running event loop, from its config to its last goodbye.

The composition root: it owns the engine, the driver, the state directory, the sampler and the
tasks that keep them going, and nothing of what they do. Life: start (state, identity, sample,
socket, bootstrap, address, record, join) - run (samples and state in the background) - close
(goodbye, state, socket last). Every method may be cancelled; closing cancels what still waits.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random, SystemRandom
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from dhtos.core.hit import Hit
from dhtos.core.ids import Endpoint, NodeId, digest
from dhtos.core.limits import VALUE_TTL_S
from dhtos.core.predicate import EVERYTHING, Predicate
from dhtos.core.schema import Schema, Value
from dhtos.errors import Closed, ConfigError, NoPeers, Unreachable, UsageError
from dhtos.node.address import learn, resolve
from dhtos.node.advert import Advert
from dhtos.node.background import Background
from dhtos.node.config import Config, format_endpoint
from dhtos.node.figures import Aggregate, Histogram
from dhtos.node.find import Count, Find, FindOptions
from dhtos.node.gateway import GatewayFile
from dhtos.node.keeper import Keeper
from dhtos.node.known import coordinate_of, gateways, socket_figures
from dhtos.node.sampler import Sampler, is_news
from dhtos.protocol.aggregate import Measure, check_edges, default_edges, measured
from dhtos.protocol.engine import Engine
from dhtos.protocol.frontier import FindResult, check_verify
from dhtos.protocol.hub import Hub
from dhtos.protocol.operation import Operation
from dhtos.protocol.put import PutResult
from dhtos.protocol.rows import Row
from dhtos.protocol.sample import check_size, sample
from dhtos.protocol.store import StoredValue
from dhtos.protocol.totals import aggregate
from dhtos.query import Expr, parse
from dhtos.transport.driver import Driver, clock_of
from dhtos.transport.udp import UdpSocket

if TYPE_CHECKING:
    from dhtos.node.control_server import ControlServer

UPKEEP_INTERVAL_S = 60.0

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
        self._keeper: Keeper | None = None
        self._engine: Engine | None = None
        self._driver: Driver | None = None
        self._control: ControlServer | None = None
        self._seeds: list[Endpoint] = []
        self._put_seq = 0
        self._background = Background()
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
        self._keeper = await Keeper.open(config.state_dir, self._wall_clock)
        stored = self._keeper.contacts
        loop = asyncio.get_running_loop()
        sock = self._open_socket(config.host, config.port)
        clock = self._clock or clock_of(loop)
        self._engine = Engine(
            self._keeper.identity.node_id,
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
            keep = self.gateway.keep(self._advertise_rows, lambda w: self.on_warning(w))
            self._background.spawn(keep)
        if config.sample and not config.client:
            self._background.spawn(self._keep_sampling())
        self._background.spawn(self._keep_state())
        if config.control:
            from dhtos.node.control_server import open_control

            self._control = await open_control(self)

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
        labels = {**({"name": config.name} if config.name is not None else {}), **config.labels}
        sampled: dict[str, Value] = {}
        if config.sample and not config.client:
            sampled = await asyncio.to_thread(self._sampler.sample, self.schema)
        self._advert = Advert(
            self.schema, self._kept.identity, endpoint, config.advertise, labels, sampled
        )

    def _take_place(self) -> None:
        """Advertise the record and join the hub, or found it where no dhtos node is."""
        hub = self.engine.hub
        hub.gateways = gateways(self.engine, self._seeds)
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
        driver, hub = self.driver, self.engine.hub
        if not self.config.client:
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
            await self._background.aclose()
            if self._engine is not None:
                await self._kept.save(self._engine)
        finally:
            if self._driver is not None:
                self.engine.hub.leave(self._driver.clock())
                await self._driver.aclose()
            if self._keeper is not None:
                self._keeper.close()

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
    def _kept(self) -> Keeper:
        assert self._keeper is not None, "the start opens it before all else"
        return self._keeper

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
        kept = self._keeper.warnings if self._keeper is not None else []
        peers = self._engine.hub.versions.warnings if self._engine is not None else []
        return (*kept, *peers, *(self.gateway.warnings if self.gateway is not None else []))

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
        result = await self._answer(
            lambda hub, now: hub.find(predicate, now, count_only=True, strict=strict, verify=verify)
        )
        return Count(result.matches, result.coverage)

    async def sum(
        self, attribute: str, query: Query = EVERYTHING, *, strict: bool = False, verify: int = 1
    ) -> Aggregate:
        """Sum, mean, minimum and maximum of a number attribute over all matches.

        Exact where `coverage.complete`. Raises UsageError for an attribute that is no number.
        """
        measure = Measure(measured(self.schema, attribute))
        result = await self._aggregate(query, measure, strict=strict, verify=verify)
        return Aggregate.of(attribute, result)

    async def histogram(
        self,
        attribute: str,
        query: Query = EVERYTHING,
        *,
        edges: Sequence[float] | None = None,
        strict: bool = False,
        verify: int = 1,
    ) -> Histogram:
        """How many matches lie below the first edge, between any two, and from the last one on.

        Without `edges` they cut the scale of the attribute into sixteen equal steps. Exact where
        `coverage.complete`. Raises UsageError for an attribute that is no number, or edges that
        do not rise.
        """
        index = measured(self.schema, attribute)
        if edges is None:
            edges = default_edges(self.schema.attributes[index])
        measure = Measure(index, check_edges(edges))
        result = await self._aggregate(query, measure, strict=strict, verify=verify)
        return Histogram.of(attribute, measure.edges, result)

    async def _aggregate(
        self, query: Query, measure: Measure, *, strict: bool, verify: int
    ) -> FindResult:
        predicate = self.predicate(query)
        check_verify(verify)
        return await self._answer(
            lambda hub, now: aggregate(hub, predicate, measure, now, strict=strict, verify=verify)
        )

    async def sample(
        self, k: int, query: Query = EVERYTHING, *, strict: bool = False
    ) -> FindResult:
        """`k` machines drawn at random from all matches, or all of them where there are no more.

        Even and without a call within one group. Beyond, a few groups are asked, in about twice
        the calls of `find` with that limit, and each match has the same chance up to what
        summaries misjudge; machines of one group come together more often than apart. There is
        no cursor: sample again. Raises UsageError unless k is 1..256.
        """
        predicate = self.predicate(query)
        check_size(k)
        return await self._answer(lambda hub, now: sample(hub, predicate, k, now, strict=strict))

    async def _answer(self, begin: Callable[[Hub, float], Operation[FindResult]]) -> FindResult:
        await self.joined()
        return await self.driver.wait(begin(self.engine.hub, self.driver.clock()))

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
        now = self.driver.clock()
        operation = self.engine.base.put(digest(key), value, now, ttl_s=ttl_s, seq=seq)
        return await self.driver.wait(operation)

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
        figures = {**self.engine.stats(), **socket_figures(self.driver.socket)}
        return figures | {f"probe_failed_{k}": v for k, v in self._sampler.counters.items()}

    def predicate(self, query: Query) -> Predicate:
        """The normal form of a query; raises PredicateError."""
        where = partial(coordinate_of, self.engine.hub)
        return parse(query, self.config.vocabulary, coordinate_of=where)

    # --- inside ---------------------------------------------------------------------------------

    def _publish(self, advert: Advert, *, eager: bool) -> None:
        """Give the hub a new version of the own record; a refused one changes nothing."""
        hub, driver = self.engine.hub, self.driver
        now = driver.clock()
        record = advert.record(hub.own, self._kept.first_seq, hub.locator.published.to_wire())
        self._advert = advert
        hub.advertise(record, now, eager=eager)
        driver.flush()

    def _advertise_rows(self, rows: Sequence[Row]) -> None:
        self.engine.hub.rows.advertise(rows, self.driver.clock(), seq=self._kept.first_seq)
        self.driver.flush()

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
            self.engine.hub.gateways = gateways(self.engine, self._seeds)
            for line in self.engine.hub.versions.news():
                self.on_warning(line)
            await self._kept.save(self.engine)
