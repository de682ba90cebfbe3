"""`Node`: a whole node on the running event loop, from its config to its last goodbye.

The composition root: it owns the engine, the driver, the state directory, the sampler and the
tasks that keep them going, and nothing of what they do. Life: start (state, identity, sample,
socket, bootstrap, address, record, join) - run (samples and state in the background) - close
(goodbye, state, socket last). Every method may be cancelled; closing cancels what still waits.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random, SystemRandom
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from dhtos.core.ids import Endpoint, NodeId
from dhtos.core.schema import Schema, Value
from dhtos.errors import Closed, ConfigError, NoPeers, Unreachable, UsageError
from dhtos.node.accept import Accept
from dhtos.node.address import LOOPBACK, learn, outward, resolve
from dhtos.node.advert import Advert
from dhtos.node.background import Background
from dhtos.node.bandwidth import Meter
from dhtos.node.command import COMMANDS, LABEL, Executor
from dhtos.node.command_server import CommandServer, open_commands, open_sockets
from dhtos.node.config import Config, format_endpoint
from dhtos.node.draws import Draws
from dhtos.node.gateway import GatewayFile
from dhtos.node.journal import LeaseJournal
from dhtos.node.keeper import Keeper
from dhtos.node.known import gateways, refusals, silence
from dhtos.node.membership import Membership
from dhtos.node.nearby import Nearby
from dhtos.node.replicating import Replicating
from dhtos.node.sampler import Sampler, is_news
from dhtos.node.usage import UsageRow
from dhtos.protocol.claims import Tenants
from dhtos.protocol.engine import Engine
from dhtos.protocol.grants import Grants
from dhtos.protocol.ledger import Ledger
from dhtos.protocol.rows import Row
from dhtos.sched import Demand, Scorer
from dhtos.transport.driver import Driver, clock_of
from dhtos.transport.udp import UdpSocket

if TYPE_CHECKING:
    from dhtos.node.control_server import ControlServer
    from dhtos.node.enrolling import Admission
    from dhtos.node.kept import Kept
    from dhtos.node.receipts import ReceiptKeeper
    from dhtos.trust.cert import Chain
    from dhtos.trust.revocation import Revocation

UPKEEP_FIRST_S, UPKEEP_INTERVAL_S = 4.0, 60.0


class Node(Nearby, Replicating):
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
        scorer: Scorer | None = None,
        executor: Executor | None = None,
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
        self._executor = executor
        self._listener: socket.socket | None = None
        self._commands: CommandServer | None = None
        self._seeds: list[Endpoint] = []
        self._background = Background()
        self._journal: LeaseJournal | None = None
        self.admission: Admission | None = None
        self.kept_values: Kept | None = None
        self._demand = Demand()
        self._scorer = scorer
        self._refusals = {}
        self._draws = Draws(self._draw)
        self._receipts: ReceiptKeeper | None = None
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
        keeper = await Keeper.open(config.state_dir, self._wall_clock, config.credentials)
        keeper.visit(config)
        self._keeper = keeper
        stored = keeper.contacts if config.seeds else [*keeper.contacts, *keeper.seeds]
        member = keeper.member(self._wall_clock)
        loop = asyncio.get_running_loop()
        sock, self._listener = open_sockets(config, self._open_socket)
        clock = self._clock or clock_of(loop)
        self._engine = Engine(
            keeper.identity.node_id,
            rng=self._rng,
            now=clock(),
            schema=self.schema,
            config=config.engine_config(),
            member=member,
        )
        self._driver = Driver(self._engine, sock, loop, clock)
        self._meter = Meter(self._engine, self._driver)
        self._tenants = Tenants(self._engine.core)
        if member is not None:
            await self._open_receipts()
        if keeper.membership is not None:
            from dhtos.node import enrolling, promoting, users  # with what open mode has no use for

            home, driver, wall_clock = config.state_dir, self._driver, self._wall_clock
            if not config.client:
                self.admission = await enrolling.open_admission(keeper, home, driver, wall_clock)
                await promoting.open_promotion(self, wall_clock)
                self.kept_values = await users.open_kept(self, keeper, wall_clock)
            self._background.spawn(enrolling.keep_certificate(self, wall_clock))
        if not config.client:
            await self._open_ledger()
        self._seeds = await resolve(config.seeds, sock)
        if config.client and not self._seeds and not stored:
            raise ConfigError("a client must know somebody to ask: give it a seed")
        await self._find_fleet(stored)
        await self._describe(await self._learn_address())
        self._take_place()
        if self.gateway is not None:
            self.gateway.own = self.engine.hub.own
            self._advertise_rows((await asyncio.to_thread(self.gateway.read)).rows)
            keep = self.gateway.keep(self._advertise_rows, lambda w: self.on_warning(w))
            self._background.spawn(keep)
        if config.sample and not config.client:
            self._background.spawn(self._keep_sampling())
        self._background.spawn(self._keep_state())
        if self.kept_values is not None:
            self._background.spawn(self.kept_values.run())
        if config.control:
            from dhtos.node.control_server import open_control

            self._control = await open_control(self)

    async def _open_receipts(self) -> None:
        """Sign for the leases we have, and have others sign for those we grant."""
        from dhtos.node.receipts import ReceiptBook, ReceiptKeeper  # of no use in open mode

        directory = self.config.state_dir or self.config.credentials
        book = ReceiptBook(directory, self._wall_clock)
        self._receipts = ReceiptKeeper(self, book, self._wall_clock)
        assert self._tenants is not None
        self._tenants.on_keep = self._receipts.receipts.expect
        await book.open()

    async def _open_ledger(self) -> None:
        """Take over what an earlier run has promised; let leases be used where commands are run."""
        directory = self.config.state_dir
        if directory is not None:
            now = self.driver.clock()
            self._journal = await asyncio.to_thread(LeaseJournal.open, directory, now)
        journal = self._journal
        ledger = (
            Ledger()
            if journal is None
            else Ledger(epoch=journal.epoch, bound=journal.leases, journal=journal)
        )
        self._grants = Grants(self.engine.hub, ledger)
        if self.config.accept is not None:
            self._grants.accept = Accept(self.config.accept, self.schema)
        self._grants.price_load = self.config.price_load
        if self._receipts is not None:
            self._receipts.follow()
        if self._listener is not None:
            self._commands = await open_commands(
                self, self._listener, self._executor, wall_clock=self._wall_clock
            )

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
        except NoPeers as error:
            if self._seeds or self.config.client:
                raise silence(engine, endpoints, error) from error
        self._seeds = endpoints

    async def _learn_address(self) -> Endpoint:
        alone = LOOPBACK if self.membership is None else outward()
        core, configured = self.engine.core, self.config.advertise_host
        return await learn(configured, self.driver, core, self._seeds, alone=alone)

    async def _describe(self, endpoint: Endpoint) -> None:
        """Measure this machine, unless it only asks."""
        config = self.config
        labels = {**({"name": config.name} if config.name is not None else {}), **config.labels}
        if config.commands:
            labels[LABEL] = COMMANDS
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
            if self._commands is not None:
                await self._commands.aclose()
            elif self._listener is not None:
                self._listener.close()
            await self._background.aclose()
            if self.admission is not None:
                await self.admission.aclose()
            await asyncio.to_thread(self._sampler.close)
            if self._engine is not None:
                await self._kept.save(self._engine)
        finally:
            if self._driver is not None:
                if self._tenants is not None:
                    self._tenants.release(self._driver.clock())
                if self._receipts is not None:
                    await self._receipts.aclose()
                self.engine.hub.leave(self._driver.clock())
                await self._driver.aclose()
            if self._journal is not None:
                await asyncio.to_thread(self._journal.close)
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
    def grants(self) -> Grants:
        """What this node has promised; raises UsageError for one that only asks."""
        if self._grants is None:
            raise UsageError("a client grants nothing: ask a node that was started without client")
        return self._grants

    @property
    def membership(self) -> Membership | None:
        """Which cluster the started node is of, and as what; None in open mode."""
        return self._kept.membership

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
        peers: list[str] = []
        if self._engine is not None:
            peers = [*self._engine.hub.versions.warnings, *refusals(self._engine)]
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

    async def revoke_members(self, revocations: "Iterable[Revocation]") -> None:
        """Tell the cluster of certificates that an issuer takes back, and keep it in mind."""
        self.engine.revocations.add(revocations, self.driver.clock())
        self.driver.flush()
        await self.save()
        if self.kept_values is not None:
            self.kept_values.sift()

    async def save(self) -> None:
        """Write down now what is to outlive this run."""
        await self._kept.save(self.engine)

    async def user(self, name: str) -> "Chain | None":
        """The certificates of a user of our cluster, None where nobody of that name has any now.

        Asks the network, and believes what an issuer has signed. Raises UsageError in open mode,
        Unreachable when nobody answers.
        """
        from dhtos.node.users import find_user

        return await find_user(self, name)

    async def renewed(self, chain: "Chain") -> None:
        """Go on under a new certificate for the same key, and keep it."""
        sessions, hub = self.engine.core.sessions, self.engine.hub
        assert sessions is not None
        sessions.member.renew(chain)
        if hub.own is not None:
            hub.advertise(hub.own.anew(), self.driver.clock())
            self.driver.flush()
        await self._kept.renewed(chain)

    async def command_gone(self, token: bytes) -> None:
        """Wait until no command runs under a lease that this node has granted."""
        if self._commands is not None:
            await self._commands.gone(token)

    def usage(self) -> tuple[UsageRow, ...]:
        """What the last commands that ended on this machine have used, the oldest first."""
        return () if self._commands is None else self._commands.usage.rows()

    def stats(self) -> Mapping[str, float]:
        """Counters and sizes of this node; asks nobody."""
        failed = {f"probe_failed_{k}": v for k, v in self._sampler.counters.items()}
        unwritten = 0 if self._receipts is None else self._receipts.book.failures
        lost = {"receipts_unwritten": unwritten} if unwritten else {}
        return {**super().stats(), **failed, **lost}

    # --- inside ---------------------------------------------------------------------------------

    def _publish(self, advert: Advert, *, eager: bool) -> None:
        """Give the hub a new version of the own record; a refused one changes nothing."""
        hub, driver = self.engine.hub, self.driver
        now = driver.clock()
        if self._grants is not None:
            own = {**advert.sampled, **advert.told}
            advert = replace(advert, offered=self._grants.offer(own, self.schema.resources))
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
        pause_s = min(UPKEEP_FIRST_S, UPKEEP_INTERVAL_S)  # who is killed soon must know somebody
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, UPKEEP_INTERVAL_S)
            if not len(self.engine.base.routing) and self._seeds:
                with contextlib.suppress(Unreachable):
                    operation = self.engine.base.bootstrap(self._seeds, self.driver.clock())
                    await self.driver.wait(operation)
            self.engine.hub.gateways = gateways(self.engine, self._seeds)
            for line in self.engine.hub.versions.news():
                self.on_warning(line)
            await self._kept.save(self.engine)
