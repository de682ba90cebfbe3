"""How dhtos chooses, by the code that runs in a node: `rank` over a sample, or all the scores."""

import time
from random import Random

import numpy as np
from numpy.typing import NDArray

from bench.placement.fill import Cluster, Machine
from bench.placement.trace import MILLI, Pod, Trace
from dhtos.sched import PROFILES, Candidate, Demand, Need, StandardScorer, rank
from dhtos.sched.rank import context_of

MIB = 2**20


def need_of(pod: Pod) -> Need:
    """What a pod asks for."""
    asked = {"cores": pod.cpu / MILLI, "mem": pod.mem * MIB, "gpus": pod.gpu_milli / MILLI}
    return Need(**{name: amount for name, amount in asked.items() if amount})


def candidate_of(machine: Machine) -> Candidate:
    """A machine as its record would tell it, at once."""
    shape = machine.shape
    return Candidate(
        machine.index.to_bytes(4),
        {"cores": shape.cpu / MILLI, "mem": shape.mem * MIB, "gpus": shape.gpus},
        {"cores": machine.cpu / MILLI, "mem": machine.mem * MIB},
        tuple([free / MILLI for free in machine.devices]),
    )


class Everybody:
    """The same score for all machines, and demand known beforehand: what a central one could do."""

    name = "dhtos, all machines"

    def __init__(self, trace: Trace, cluster: Cluster) -> None:
        self.needs = {pod: need_of(pod) for pod in set(trace.pods)}
        demand = Demand(self.needs[pod] for pod in trace.pods)
        empty = [candidate_of(machine) for machine in cluster.machines]
        self.context = context_of(empty, demand=demand)
        self.measure = demand.fragmentation()
        self.factors = PROFILES["pack"].factors
        self.scorer = StandardScorer()

    def cost(self, machine: Machine, pod: Pod) -> float:
        """The score."""
        terms = self.scorer.terms(self.needs[pod], candidate_of(machine), self.context)
        return sum(self.factors[name] * cost for name, cost in terms.items())

    def device(self, machine: Machine, pod: Pod) -> int | None:
        """The GPU where fragmentation grows least."""
        return self.measure.device(self.needs[pod], candidate_of(machine))


class Sampled:
    """A few random machines that can take the pod, and demand learned as it comes."""

    def __init__(self, candidates: int, rng: Random) -> None:
        self.candidates, self.rng = candidates, rng
        self.demand = Demand()
        self.cpu_s: list[float] = []  # of each decision
        self.wall_s: list[float] = []

    def choose(self, cluster: Cluster, pod: Pod, able: NDArray[np.intp]) -> tuple[int, int | None]:
        """The best of the sample."""
        drawn = self.rng.sample(able.tolist(), min(self.candidates, len(able)))
        hand = [candidate_of(cluster.machines[n]) for n in drawn]
        need = need_of(pod)
        cpu_s, wall_s = time.thread_time(), time.perf_counter()
        self.demand.add(need)
        ranking = rank(need, hand, demand=self.demand, rng=self.rng)
        self.cpu_s.append(time.thread_time() - cpu_s)
        self.wall_s.append(time.perf_counter() - wall_s)
        assert not ranking.refused
        best = ranking.ranked[0].candidate
        device = self.demand.fragmentation().device(need, best)
        return int.from_bytes(best.node_id), device
