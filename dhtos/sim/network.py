"""The simulated network: what becomes of a datagram between two machines.

A datagram takes the one-way delay of its two places (a latency matrix, or a function of two node
indexes), stretched by jitter. On the way it may be lost, sent twice, or held back so that later
ones overtake it, each with its own probability; it is never altered, since UDP's checksum turns
damage into loss. A cut stops what is sent while it stands: what was already under way arrives.
Nobody at the address, or a machine that is down, means silence, as on a real network.

All chances are drawn from one generator in the order of sending, so a run is a function of its
seed. A network without weather draws nothing.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from heapq import heappush
from math import isfinite
from random import Random
from typing import Generic

from dhtos.core.ids import Endpoint
from dhtos.errors import ConfigError, UsageError
from dhtos.sim.clock import Clock
from dhtos.sim.matrix import LatencyMatrix
from dhtos.sim.node import E, NodeState, SimNode

DelayFunction = Callable[[int, int], float]
"""One-way seconds from node index to node index."""

SOCKET_BUFFER_MAX = 256  # datagrams that wait at a paused machine; the rest are lost
ONE_WAY_S = 0.025  # the default network: every two machines 50 ms apart


@dataclass(frozen=True, slots=True)
class Weather:
    """How badly the network treats a datagram; all zero is a perfect network.

    `loss`, `duplication` and `reordering` are probabilities; `jitter` is the largest extra delay
    as a share of the base delay; a reordered datagram is held back up to `held_back_s` longer.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    jitter: float = 0.0
    held_back_s: float = 0.2

    def __post_init__(self) -> None:
        for name in ("loss", "duplication", "reordering"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must be 0..1, got {getattr(self, name)}")
        for name in ("jitter", "held_back_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0.0):
                raise ConfigError(f"{name} must be a number >= 0, got {getattr(self, name)}")

    @property
    def is_clear(self) -> bool:
        """Whether every datagram arrives once, on time."""
        return not (self.loss or self.duplication or self.reordering or self.jitter)


CLEAR = Weather()


@dataclass(frozen=True, slots=True)
class _Sides:
    """A cut between named sides; who is on none is on side 0, the rest."""

    side: dict[int, int]

    def blocks(self, source: int, target: int) -> bool:
        """Whether the two nodes stand on different sides."""
        return self.side.get(source, 0) != self.side.get(target, 0)


@dataclass(frozen=True, slots=True)
class _OneWay:
    """A cut in one direction: `sources` can hear `targets` but not be heard by them."""

    sources: frozenset[int]
    targets: frozenset[int]

    def blocks(self, source: int, target: int) -> bool:
        """Whether this direction is cut."""
        return source in self.sources and target in self.targets


class Network(Generic[E]):
    """Routes datagrams between the nodes of one cluster; `sent` and `fates` count them."""

    __slots__ = (
        "_clock", "_cuts", "_delay", "_nodes", "_rng", "_rough", "_rows", "_weather", "fates",
        "sent",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock[E],
        rng: Random,
        *,
        delay: LatencyMatrix | DelayFunction | float = ONE_WAY_S,
        weather: Weather = CLEAR,
    ) -> None:
        if isinstance(delay, int | float):
            delay = LatencyMatrix.constant(delay)
        self._clock = clock
        self._rng = rng
        self._rows = delay.one_way_s if isinstance(delay, LatencyMatrix) else None
        self._delay = None if isinstance(delay, LatencyMatrix) else delay
        self._weather = weather
        self._nodes: dict[Endpoint, SimNode[E]] = {}
        self._cuts: dict[str, _Sides | _OneWay] = {}
        self._rough = not weather.is_clear  # a cut stands, or the weather is not clear
        self.sent = 0
        self.fates: Counter[str] = Counter()

    @property
    def weather(self) -> Weather:
        """What the network does to datagrams now; may be set at any time."""
        return self._weather

    @weather.setter
    def weather(self, weather: Weather) -> None:
        self._weather = weather
        self._rough = bool(self._cuts) or not weather.is_clear

    @property
    def places(self) -> int:
        """How many places the latency matrix has; one without a matrix."""
        return len(self._rows) if self._rows is not None else 1

    def attach(self, node: SimNode[E]) -> None:
        """Give a node its address."""
        if node.endpoint in self._nodes:
            raise UsageError(f"the endpoint {node.endpoint} is taken: choose another")
        assert node.place < self.places
        self._nodes[node.endpoint] = node

    def detach(self, node: SimNode[E]) -> None:
        """Free the address of a node; what is under way to it is lost."""
        assert self._nodes[node.endpoint] is node
        del self._nodes[node.endpoint]

    def at(self, endpoint: Endpoint) -> SimNode[E] | None:
        """The node at an address."""
        return self._nodes.get(endpoint)

    # --- partitions ---------------------------------------------------------------------------

    def cut(self, name: str, *groups: Iterable[SimNode[E]]) -> None:
        """Cut the groups from one another and from everybody else, until `heal(name)`."""
        side = {node.index: number for number, group in enumerate(groups, 1) for node in group}
        self._add_cut(name, _Sides(side), side)

    def cut_one_way(
        self, name: str, sources: Iterable[SimNode[E]], targets: Iterable[SimNode[E]]
    ) -> None:
        """Lose what `sources` send to `targets`, but not the other way, until `heal(name)`."""
        silent = frozenset(node.index for node in sources)
        deaf = frozenset(node.index for node in targets)
        self._add_cut(name, _OneWay(silent, deaf), silent and deaf)

    def _add_cut(self, name: str, cut: _Sides | _OneWay, members: Collection[int]) -> None:
        if name in self._cuts:
            raise UsageError(f"the cut {name!r} already stands: heal it first or rename this one")
        if not members:
            raise UsageError(f"the cut {name!r} separates nobody: name at least one node")
        self._cuts[name] = cut
        self._rough = True

    def heal(self, name: str) -> None:
        """Undo a cut."""
        if name not in self._cuts:
            raise UsageError(f"no cut {name!r} stands, only {sorted(self._cuts)}")
        del self._cuts[name]
        self._rough = bool(self._cuts) or not self._weather.is_clear

    @property
    def cuts(self) -> tuple[str, ...]:
        """The names of the cuts that stand."""
        return tuple(self._cuts)

    # --- the way of a datagram ----------------------------------------------------------------

    def send(self, source: SimNode[E], outgoing: list[tuple[bytes, Endpoint]]) -> None:
        """Take what a node sends at the present moment and plan the deliveries."""
        nodes, rows, rough = self._nodes, self._rows, self._rough
        clock = self._clock
        self.sent += len(outgoing)
        for datagram, endpoint in outgoing:
            target = nodes.get(endpoint)
            if target is None:
                self.fates["nobody there"] += 1
                continue
            if rows is not None:
                delay = rows[source.place][target.place]
            else:
                delay = self._asked_delay(source, target)
            if rough:
                self._brave(source, target, datagram, delay)
            else:
                heappush(clock.heap, (clock.now + delay, clock.ticket(), target, datagram, source))

    def _asked_delay(self, source: SimNode[E], target: SimNode[E]) -> float:
        assert self._delay is not None
        delay = self._delay(source.index, target.index)
        assert delay > 0, f"a delay must be positive, got {delay}"
        return delay

    def _brave(self, source: SimNode[E], target: SimNode[E], datagram: bytes, delay: float) -> None:
        """Send one datagram through cuts and weather."""
        for cut in self._cuts.values():
            if cut.blocks(source.index, target.index):
                self.fates["cut"] += 1
                return
        weather, chance = self._weather, self._rng.random
        if weather.loss and chance() < weather.loss:
            self.fates["lost"] += 1
            return
        copies = 1
        if weather.duplication and chance() < weather.duplication:
            self.fates["duplicated"] += 1
            copies = 2
        clock = self._clock
        for _ in range(copies):
            when = clock.now + delay * (1 + weather.jitter * chance())
            if weather.reordering and chance() < weather.reordering:
                self.fates["held back"] += 1
                when += weather.held_back_s * chance()
            heappush(clock.heap, (when, clock.ticket(), target, datagram, source))

    def hold(self, node: SimNode[E], datagram: bytes, source: SimNode[E]) -> None:
        """A datagram arrived at a node that does not run: buffered if paused, else lost."""
        if node.state is NodeState.DOWN:
            self.fates["node down"] += 1
        elif len(node.inbox) >= SOCKET_BUFFER_MAX:
            self.fates["buffer full"] += 1
        else:
            node.inbox.append((datagram, source))

    def check(self) -> None:
        """Assert that every node is filed under its address and its buffer is bounded."""
        assert self._rough == (bool(self._cuts) or not self._weather.is_clear)
        for endpoint, node in self._nodes.items():
            assert node.endpoint == endpoint
            assert len(node.inbox) <= SOCKET_BUFFER_MAX
