"""What goes wrong, and when: a plan of faults, written down or drawn from a seed.

A plan is data. `plan.install(cluster)` schedules it; its `repr` is Python that rebuilds it, so a
plan that a random search found can be pasted into a test. Every fault ends by itself after
`for_s` seconds (infinity: never), counted from its start; times are relative to the install.

Overlapping faults are normal in random plans: a fault hits only nodes that run when its time
comes, and its end brings back only those that it stopped itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from random import Random
from typing import assert_never

from dhtos.errors import ConfigError
from dhtos.sim.clock import Action
from dhtos.sim.cluster import Cluster
from dhtos.sim.network import Weather
from dhtos.sim.node import E, NodeState, SimNode


@dataclass(frozen=True, slots=True)
class Crash:
    """The nodes lose power at `at_s` and restart, empty, after `for_s`."""

    at_s: float
    nodes: tuple[int, ...]
    for_s: float = inf


@dataclass(frozen=True, slots=True)
class Pause:
    """The nodes stand still for `for_s`: a long collection, a suspended laptop."""

    at_s: float
    nodes: tuple[int, ...]
    for_s: float


@dataclass(frozen=True, slots=True)
class Partition:
    """The nodes are cut from the rest for `for_s`."""

    at_s: float
    nodes: tuple[int, ...]
    for_s: float


@dataclass(frozen=True, slots=True)
class Storm:
    """The network has this weather for `for_s`, then the one it had before."""

    at_s: float
    weather: Weather
    for_s: float


Fault = Crash | Pause | Partition | Storm


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Faults in the order of their start."""

    faults: tuple[Fault, ...]

    def __post_init__(self) -> None:
        for fault in self.faults:
            if not (isfinite(fault.at_s) and fault.at_s >= 0 and fault.for_s > 0):
                raise ConfigError(f"a fault starts at 0 or later and lasts, got {fault}")

    @classmethod
    def drawn(
        cls, rng: Random, *, nodes: int, duration_s: float, count: int = 10, share: float = 0.2
    ) -> "FaultPlan":
        """Draw faults that all end before `duration_s`; each hits up to `share` of the nodes."""
        faults = [_drawn_fault(rng, nodes, duration_s, share) for _ in range(count)]
        return cls(tuple(sorted(faults, key=lambda fault: fault.at_s)))

    @classmethod
    def churn(
        cls,
        rng: Random,
        *,
        nodes: Sequence[int],
        duration_s: float,
        session_s: float,
        downtime_s: float,
    ) -> "FaultPlan":
        """Every node alternates between exponential sessions and downtimes of these means."""
        faults: list[Crash] = []
        for node in nodes:
            at_s = rng.expovariate(1 / session_s)
            while at_s < duration_s:
                away_s = rng.expovariate(1 / downtime_s)
                faults.append(Crash(at_s, (node,), away_s))
                at_s += away_s + rng.expovariate(1 / session_s)
        faults.sort(key=lambda crash: (crash.at_s, crash.nodes))
        return cls(tuple(faults))

    @property
    def end_s(self) -> float:
        """When the last fault that ends has ended."""
        ends = [fault.at_s + fault.for_s for fault in self.faults]
        return max((end for end in ends if end < inf), default=0.0)

    def install(self, cluster: Cluster[E]) -> None:
        """Schedule every fault from the cluster's present moment on."""
        for number, fault in enumerate(self.faults):
            _install(cluster, fault, f"fault {number}")


def _drawn_fault(rng: Random, nodes: int, duration_s: float, share: float) -> Fault:
    at_s = rng.uniform(0, duration_s * 0.8)
    for_s = rng.uniform(duration_s * 0.02, duration_s * 0.98 - at_s)
    hit = tuple(sorted(rng.sample(range(nodes), rng.randint(1, max(1, int(nodes * share))))))
    match rng.randrange(4):
        case 0:
            return Crash(at_s, hit, for_s)
        case 1:
            return Pause(at_s, hit, min(for_s, 10.0))
        case 2:
            return Partition(at_s, hit, for_s)
        case _:
            weather = Weather(
                loss=round(rng.uniform(0, 0.3), 3),
                duplication=round(rng.uniform(0, 0.1), 3),
                reordering=round(rng.uniform(0, 0.3), 3),
                jitter=round(rng.uniform(0, 2), 3),
            )
            return Storm(at_s, weather, for_s)


def _install(cluster: Cluster[E], fault: Fault, name: str) -> None:
    begin_s = cluster.now + fault.at_s
    end_s = begin_s + fault.for_s
    begin: Action
    end: Action
    match fault:
        case Crash() | Pause():
            begin, end = _outage(cluster, fault)
        case Partition():
            group = [cluster.nodes[index] for index in fault.nodes]
            begin = partial(cluster.network.cut, name, group)
            end = partial(cluster.network.heal, name)
        case Storm():
            begin, end = _storm(cluster, fault)
        case _:
            assert_never(fault)
    cluster.call_at(begin_s, begin)
    if end_s < inf:
        cluster.call_at(end_s, end)


def _outage(cluster: Cluster[E], fault: Crash | Pause) -> tuple[Action, Action]:
    """Stop the nodes that run, and bring back those that this fault stopped."""
    hit: list[tuple[SimNode[E], int]] = []
    stop = cluster.crash if isinstance(fault, Crash) else cluster.pause
    resume = cluster.restart if isinstance(fault, Crash) else cluster.unpause
    stopped = NodeState.DOWN if isinstance(fault, Crash) else NodeState.PAUSED

    def begin() -> None:
        nodes = [cluster.nodes[index] for index in fault.nodes]
        running = [node for node in nodes if node.state is NodeState.UP]
        stop(running)
        hit.extend((node, node.incarnation) for node in running)

    def end() -> None:
        resume(
            [
                node
                for node, incarnation in hit
                if node.state is stopped and node.incarnation == incarnation
            ]
        )

    return begin, end


def _storm(cluster: Cluster[E], storm: Storm) -> tuple[Action, Action]:
    network = cluster.network
    before = network.weather

    def begin() -> None:
        network.weather = storm.weather

    def end() -> None:
        if network.weather is storm.weather:  # else a later storm took over and ends by itself
            network.weather = before

    return begin, end
