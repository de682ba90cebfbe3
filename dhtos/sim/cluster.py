"""A cluster of real engines on one heap: the world a test or an experiment runs in.

Theory of operation. The cluster repeats one step, a *moment*: take every event planned for the
earliest time; hand each datagram to its engine's `receive`; then, once per engine touched, `tick`
it, carry its outbox to the network and read its next deadline. A deadline is read only after the
engine was touched, since nothing else can change it. A wake-up that comes before the engine's
deadline (the deadline moved away since) is planned again and does not tick, so an engine that
forgets to announce a deadline fails here as it would on a real loop.

Everything random comes from the seed, each consumer from its own stream (`seed/network`,
`seed/node/3/1`, ...), so that adding a node does not change the chances of the others. The
digest of the trace tells whether two runs took the same course.

Invariants: time never goes back; a node that is not up is never ticked; an engine is never
entered while it runs; after each moment every engine's outbox is empty.

>>> from dhtos.sim.testing import EchoEngine
>>> cluster = Cluster(lambda node, now: EchoEngine(), seed=7)
>>> one, two = cluster.add(2)
>>> cluster.begin(one, lambda engine, now: engine.send(b"hello", two.endpoint))
>>> cluster.run_for(1.0)
>>> two.engine.received, cluster.trace.deliveries
(1, 2)
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from math import inf
from random import Random
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from dhtos.core.ids import Endpoint, random_id
from dhtos.errors import DhtosError, UsageError
from dhtos.sim.checkers import Checker
from dhtos.sim.clock import Action, Clock
from dhtos.sim.failure import SimulationError
from dhtos.sim.matrix import LatencyMatrix
from dhtos.sim.network import CLEAR, ONE_WAY_S, DelayFunction, Network, Weather
from dhtos.sim.node import E, Joining, NodeState, SimEngine, SimNode, SimOperation
from dhtos.sim.trace import BATCH, Trace
from dhtos.sim.traffic import Traffic

T = TypeVar("T")
Factory = Callable[[SimNode[E], float], E]
"""Builds the engine of a node at its local time; `node.previous` is the one before a restart."""

Bootstrap = Callable[[E, list[Endpoint], float], SimOperation[object]]
"""Lets an engine join through seeds; the default calls its `bootstrap(seeds, now)`."""

STEP_S = 1e-6  # an engine that is due again at once is woken this much later
SPINS_MAX = 1000  # and this often in a row before it counts as spinning
OFFSET_MAX_S = 100_000.0  # clocks of two machines differ by up to this much
PORT = 7400
NODES_MAX = 2**24 - 2  # addresses in 10.0.0.0/8
LIMIT_S = 60.0  # virtual seconds that an operation may take
_TAIL = 8  # deliveries shown in a failure


class Cluster(Generic[E]):
    """Nodes, their network and their clock; every method returns at once in real time."""

    def __init__(
        self,
        factory: Factory[E],
        *,
        seed: int,
        delay: LatencyMatrix | DelayFunction | float = ONE_WAY_S,
        weather: Weather = CLEAR,
        checkers: Iterable[Checker[E]] = (),
        check_every: int = 1,
        accounting: bool = False,
        bootstrap: "Bootstrap[E] | None" = None,
        on_restart: "Callable[[Cluster[E], SimNode[E]], None] | None" = None,
        replay: str | None = None,
    ) -> None:
        self.seed = seed
        self.clock: Clock[E] = Clock()
        self.trace: Trace[E] = Trace()
        self.nodes: list[SimNode[E]] = []
        self.network: Network[E] = Network(
            self.clock, self.stream("network"), delay=delay, weather=weather
        )
        self.traffic = Traffic() if accounting else None
        self.moments = 0
        self.on_event: Callable[[SimNode[E], object], None] | None = None
        self._factory = factory
        self._checkers = tuple(checkers)
        self._check_every = check_every
        self._bootstrap = bootstrap or _own_bootstrap
        self._on_restart = on_restart
        self._ids = self.stream("ids")
        self._replay = replay or f"run the same program with seed={seed}"
        self._running = False

    def stream(self, name: str) -> Random:
        """An independent generator of this cluster's seed, the same for the same name."""
        return Random(f"{self.seed}/{name}")

    @property
    def now(self) -> float:
        """Virtual seconds since the cluster began."""
        return self.clock.now

    def local(self, node: SimNode[E] | int) -> float:
        """What a node's own clock reads now."""
        return self.clock.now + self._node(node).offset_s

    # --- nodes --------------------------------------------------------------------------------

    def add(self, count: int = 1, *, ids: Sequence[bytes] | None = None) -> list[SimNode[E]]:
        """Start nodes, with the given ids or uniform ones; they know nobody yet."""
        if ids is not None:
            count = len(ids)
        first = len(self.nodes)
        if first + count > NODES_MAX:
            raise UsageError(f"a cluster has at most {NODES_MAX} nodes, asked for {first + count}")
        for index in range(first, first + count):
            node_id = ids[index - first] if ids is not None else random_id(self._ids)
            self._boot(self._place(node_id, endpoint_of(index)))
        return self.nodes[first:]

    def add_guest(self, engine: E, host: str | None, port: int) -> SimNode[E]:
        """Plug in an engine that somebody else owns; no host: the next address, no port: PORT."""
        endpoint = host or endpoint_of(len(self.nodes))[0], port or PORT
        guest = self._place(random_id(self._ids), endpoint)
        guest.boot(engine)
        return guest

    def remove_guest(self, guest: SimNode[E]) -> None:
        """Unplug it for good; its address is free again."""
        self.network.detach(guest)
        if guest.state is not NodeState.DOWN:
            guest.stop()

    def _place(self, node_id: bytes, endpoint: Endpoint) -> SimNode[E]:
        """A new machine on the network, not yet running."""
        index = len(self.nodes)
        rng = self.stream(f"node/{index}/0")
        node: SimNode[E] = SimNode(
            index,
            node_id,
            endpoint,
            rng=rng,
            offset_s=rng.uniform(0.0, OFFSET_MAX_S),
            place=index % self.network.places,
        )
        self.network.attach(node)
        self.nodes.append(node)
        return node

    def up(self) -> list[SimNode[E]]:
        """The nodes that run."""
        return [node for node in self.nodes if node.up]

    def crash(self, nodes: Iterable[SimNode[E] | int]) -> None:
        """Take the power from nodes at once: their state and their socket buffers are gone."""
        for node in map(self._node, nodes):
            if node.state is NodeState.DOWN:
                raise UsageError(f"{node!r} is already down")
            node.stop()

    def restart(self, nodes: Iterable[SimNode[E] | int]) -> None:
        """Start crashed nodes again at their old address, each with a new engine."""
        for node in map(self._node, nodes):
            if node.state is not NodeState.DOWN:
                raise UsageError(f"{node!r} runs: crash it first")
            node.rng = self.stream(f"node/{node.index}/{node.incarnation}")
            self._boot(node)
            if self._on_restart is not None:
                self._on_restart(self, node)

    def pause(self, nodes: Iterable[SimNode[E] | int]) -> None:
        """Let nodes stand still: what arrives waits in a bounded buffer."""
        for node in map(self._node, nodes):
            if not node.up:
                raise UsageError(f"{node!r} does not run")
            node.pause()

    def unpause(self, nodes: Iterable[SimNode[E] | int]) -> None:
        """Let paused nodes go on: they read their buffers now."""
        clock = self.clock
        for node in map(self._node, nodes):
            if node.state is not NodeState.PAUSED:
                raise UsageError(f"{node!r} is not paused")
            for datagram, source in node.unpause():
                heappush(clock.heap, (clock.now, clock.ticket(), node, datagram, source))
            self._flush(node, clock.now)

    # --- asking engines -----------------------------------------------------------------------

    def begin(self, node: SimNode[E] | int, action: Callable[[E, float], T]) -> T:
        """Call `action(engine, now)` on a node and send what it causes; returns its result."""
        node = self._node(node)
        if not node.up:
            raise UsageError(f"{node!r} does not run, so nothing can be asked of it")
        result = action(node.engine, self.local(node))
        self._flush(node, self.clock.now)
        return result

    def do(
        self,
        node: SimNode[E] | int,
        action: Callable[[E, float], SimOperation[T]],
        *,
        limit_s: float = LIMIT_S,
    ) -> T:
        """Start an operation, run the cluster until it ends, and return or raise its outcome."""
        operation = self.begin(node, action)
        self.wait([operation], limit_s=limit_s)
        return operation.result()

    def wait(self, operations: Sequence[SimOperation[object]], *, limit_s: float = LIMIT_S) -> None:
        """Run until all these operations have ended, well or badly."""
        open_ones = list(operations)

        def ended() -> bool:
            while open_ones and open_ones[-1].done:
                open_ones.pop()
            return not open_ones

        self.run_until(ended, limit_s, f"{len(open_ones)} operations have ended")

    def join(
        self,
        nodes: Iterable[SimNode[E] | int] | None = None,
        *,
        seeds: Iterable[SimNode[E] | int] = (0,),
        spacing_s: float = 0.0,
        limit_s: float = LIMIT_S,
    ) -> None:
        """Let nodes (default: all that run) join, one every `spacing_s`; fails if one cannot."""
        known = [self._node(seed) for seed in seeds]
        endpoints = [seed.endpoint for seed in known]
        joining = self.up() if nodes is None else [self._node(node) for node in nodes]
        joining = [node for node in joining if node not in known]
        started: dict[SimNode[E], SimOperation[object]] = {}

        def start(node: SimNode[E]) -> None:
            started[node] = self.begin(node, lambda e, at: self._bootstrap(e, endpoints, at))

        for number, node in enumerate(joining):
            self.call_at(self.now + number * spacing_s, lambda node=node: start(node))  # type: ignore[misc]
        self.run_for(max(0, len(joining) - 1) * spacing_s)
        self.wait(list(started.values()), limit_s=limit_s)
        for node, operation in started.items():
            try:
                operation.result()
            except DhtosError as error:
                raise self.failure(f"{node!r} did not join: {error}") from error

    def rejoin(self, node: SimNode[E]) -> None:
        """Let one node join through a random node that runs; fits `on_restart`."""
        others = [other for other in self.nodes if other.up and other is not node]
        if others:
            seed = node.rng.choice(others).endpoint
            self.begin(node, lambda engine, now: self._bootstrap(engine, [seed], now))

    def warm_start(self, fill: Callable[[E, Sequence[SimNode[E]], float], None]) -> None:
        """Call `fill(engine, nodes, now)` for each running node: its tables from the truth."""
        nodes = self.up()
        for node in nodes:
            fill(node.engine, nodes, self.local(node))
            self._flush(node, self.clock.now)

    # --- time ---------------------------------------------------------------------------------

    def call_at(self, when: float, action: Action) -> int:
        """Do something at a virtual moment; returns a ticket for `clock.cancel`."""
        return self.clock.call_at(when, action)

    def run_for(self, seconds: float) -> None:
        """Let that much virtual time pass."""
        if not 0 <= seconds < inf:
            raise UsageError(f"a cluster runs for 0 seconds or more, got {seconds}")
        until = self.clock.now + seconds
        self._guarded_run(until, None)
        self.clock.advance(until)

    def step(self, until: float = inf) -> bool:
        """Live through the next moment unless it is after `until`; says whether there was one."""
        return self._guarded_run(until, lambda: True)

    def run_until(
        self, predicate: Callable[[], bool], limit_s: float, what: str = "the predicate holds"
    ) -> None:
        """Run until `predicate()` holds, asked after each moment; fails after `limit_s`."""
        until = self.clock.now + limit_s
        if predicate() or self._guarded_run(until, predicate):
            return
        self.clock.advance(until)
        raise self.failure(f"expected within {limit_s} s that {what}; it did not come")

    def _guarded_run(self, until: float, stop: Callable[[], bool] | None) -> bool:
        if self._running:
            raise UsageError("the cluster is already running: an action may not run it again")
        self._running = True
        try:
            return self._run(until, stop)
        except SimulationError:
            raise
        except Exception as error:
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
            raise self.failure(f"{type(error).__name__}: {error}{notes}") from error
        finally:
            self._running = False

    def _run(self, until: float, stop: Callable[[], bool] | None) -> bool:
        """Live through all moments up to `until`, or up to one where `stop()` holds.

        This is the hot loop of the simulator: names are local and nothing is called per
        datagram that could be called per moment or per batch.
        """
        clock, heap, network, flush = self.clock, self.clock.heap, self.network, self._flush
        pending, pack = self.trace.pending, self.trace.flush
        checkers = self._checkers
        touched: list[SimNode[E]] = []
        while heap and heap[0][0] <= until:
            now = clock.now = heap[0][0]
            while True:
                event = heappop(heap)
                _, ticket, node, datagram, source = event
                if datagram is None:
                    live = self._is_due(node, ticket, now)
                elif node.up:
                    live = True
                    pending.append(event)
                    for checker in checkers:
                        checker.delivered(now, node, datagram, source)
                    node.engine.receive(datagram, source.endpoint, now + node.offset_s)
                else:
                    live = False
                    network.hold(node, datagram, source)
                if live and not node.touched:
                    node.touched = True
                    touched.append(node)
                if not heap or heap[0][0] != now:
                    break
            for node in touched:
                node.touched = False
                if node.up:
                    node.engine.tick(now + node.offset_s)
                    flush(node, now + STEP_S)
            touched.clear()
            self.moments += 1
            if len(pending) >= BATCH:
                pack()
            if checkers and self.moments % self._check_every == 0:
                self._inspect()
            if stop is not None and stop():
                return True
        return False

    def _is_due(self, node: SimNode[E], ticket: int, now: float) -> bool:
        """Whether a node must be ticked; an action is done, a stale or early wake-up is not."""
        clock = self.clock
        if node is clock.nobody:
            clock.act(ticket)
            return False
        if node.wake_at != now:
            return False
        node.wake_at = inf
        deadline = node.engine.next_deadline() - node.offset_s
        if deadline > now:
            if deadline < inf:
                clock.wake(node, deadline)
            return False
        return True

    def _flush(self, node: SimNode[E], floor: float) -> None:
        """Carry away what an engine produced, and plan its next wake-up, not before `floor`."""
        engine = node.engine
        outgoing = engine.outbox()
        if outgoing:
            if self._checkers or self.traffic is not None:
                self._watch(node, outgoing)
            self.network.send(node, outgoing)
        events = engine.events()
        if events and self.on_event is not None:
            for event in events:
                self.on_event(node, event)
        deadline = engine.next_deadline() - node.offset_s
        if deadline < node.wake_at:
            if deadline > floor:
                node.spins = 0
                self.clock.wake(node, deadline)
            elif floor < node.wake_at:
                node.spins += 1
                assert node.spins <= SPINS_MAX, f"{node!r} is due again after every tick: it spins"
                self.clock.wake(node, floor)

    # --- watching -----------------------------------------------------------------------------

    def _watch(self, node: SimNode[E], outgoing: list[tuple[bytes, Endpoint]]) -> None:
        for checker in self._checkers:
            checker.sent(self.clock.now, node, outgoing)
        if self.traffic is not None:
            for datagram, _ in outgoing:
                self.traffic.note(datagram)

    def _inspect(self) -> None:
        for checker in self._checkers:
            checker.inspect(self.clock.now, self.nodes)

    def failure(self, what: str) -> SimulationError:
        """An error that says what is wrong here, with the seed, the time and the trace."""
        return SimulationError(
            what,
            seed=self.seed,
            time_s=self.now,
            trace=self.trace.digest,
            replay=self._replay,
            tail=self.trace.recent(_TAIL),
        )

    def expect(self, condition: object, what: str) -> None:
        """Fail with the seed unless the condition holds."""
        if not condition:
            raise self.failure(what)

    def check(self) -> None:
        """Assert the invariants of the cluster and of every engine in it."""
        self.clock.check()
        self.network.check()
        for index, node in enumerate(self.nodes):
            assert node.index == index
            assert not node.touched
            node.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Note the seed, time and trace on an error that leaves the block."""
        if error is not None and not isinstance(error, SimulationError):
            error.add_note(str(self.failure("the simulated cluster at that moment:")))

    def _boot(self, node: SimNode[E]) -> None:
        node.boot(self._factory(node, self.local(node)))
        self._flush(node, self.clock.now)

    def _node(self, node: SimNode[E] | int) -> SimNode[E]:
        return self.nodes[node] if isinstance(node, int) else node


def endpoint_of(index: int) -> Endpoint:
    """The address of the node with this index: 10.0.0.1 for the first."""
    number = index + 1
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", PORT


def _own_bootstrap(engine: SimEngine, seeds: list[Endpoint], now: float) -> SimOperation[object]:
    return cast("Joining", engine).bootstrap(seeds, now)
