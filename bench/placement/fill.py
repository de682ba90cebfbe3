"""Filling a cluster: pods arrive one by one and never leave, so each choice decides what fits.

A policy gives each machine that can take a pod a cost; the lowest is chosen. Costs of machines that
did not change since are kept, so that policies with full knowledge look at everything anew only
where something is new.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.placement.trace import MILLI, Pod, Shape, Trace


@dataclass(slots=True)
class Machine:
    """A machine as it fills up."""

    index: int
    shape: Shape
    cpu: int
    mem: int
    devices: list[int]  # milli free of each GPU

    def take(self, pod: Pod, device: int | None) -> None:
        """Give a pod what it asks for: of `device` where it is a share, else of idle GPUs."""
        assert pod.cpu <= self.cpu
        assert pod.mem <= self.mem
        self.cpu -= pod.cpu
        self.mem -= pod.mem
        if pod.gpus and pod.piece < MILLI:
            assert device is not None
            self.devices[device] -= pod.piece
            assert self.devices[device] >= 0
        elif pod.gpus:
            idle = [n for n, free in enumerate(self.devices) if free == MILLI][: pod.gpus]
            assert len(idle) == pod.gpus
            for n in idle:
                self.devices[n] = 0


def tightest(machine: Machine, pod: Pod) -> int | None:
    """The fullest GPU that still has room for a share."""
    if not pod.gpus or pod.piece == MILLI:
        return None
    able = [(free, n) for n, free in enumerate(machine.devices) if free >= pod.piece]
    return min(able)[1]


class Policy(Protocol):
    """How machines compare; lower is better."""

    name: str

    def cost(self, machine: Machine, pod: Pod) -> float:
        """For a machine that can take the pod."""
        ...

    def device(self, machine: Machine, pod: Pod) -> int | None:
        """The GPU that a share is taken from."""
        ...


class Chooser(Protocol):
    """Picks one of the machines that can take a pod, and the GPU if it wants a share of one."""

    def choose(
        self, cluster: "Cluster", pod: Pod, able: NDArray[np.intp]
    ) -> tuple[int, int | None]:
        """The index of the machine, and of its GPU."""
        ...


class Cluster:
    """All machines, and what can be said about all of them at once."""

    def __init__(self, trace: Trace) -> None:
        self.machines = [
            Machine(n, shape, shape.cpu, shape.mem, [MILLI] * shape.gpus)
            for n, shape in enumerate(trace.shapes)
        ]
        self.cpu = np.array([machine.cpu for machine in self.machines])
        self.mem = np.array([machine.mem for machine in self.machines])
        self.whole = np.array([len(machine.devices) for machine in self.machines])
        self.most = np.where(self.whole > 0, MILLI, 0)
        self.versions = np.zeros(len(self.machines), dtype=np.int64)

    def able(self, pod: Pod) -> NDArray[np.bool_]:
        """Which machines can take a pod."""
        able = (self.cpu >= pod.cpu) & (self.mem >= pod.mem)
        if pod.gpus:
            able &= self.most >= pod.piece if pod.piece < MILLI else self.whole >= pod.gpus
        return able

    def place(self, index: int, pod: Pod, device: int | None) -> None:
        """Put the pod there."""
        machine = self.machines[index]
        machine.take(pod, device)
        self.cpu[index], self.mem[index] = machine.cpu, machine.mem
        self.whole[index] = machine.devices.count(MILLI)
        self.most[index] = max(machine.devices, default=0)
        self.versions[index] += 1


class FullKnowledge:
    """Compares all machines; of equal ones it takes the first, or any where it is given chance."""

    def __init__(self, policy: Policy, cluster: Cluster, rng: Random | None = None) -> None:
        self.policy, self.rng = policy, rng
        self._costs: dict[Pod, NDArray[np.float64]] = {}
        self._seen: dict[Pod, NDArray[np.int64]] = {}
        self._size = len(cluster.machines)

    def choose(self, cluster: Cluster, pod: Pod, able: NDArray[np.intp]) -> tuple[int, int | None]:
        """The machine of least cost."""
        costs = self._costs.setdefault(pod, np.zeros(self._size))
        seen = self._seen.setdefault(pod, np.full(self._size, -1, dtype=np.int64))
        for n in able[seen[able] != cluster.versions[able]].tolist():
            costs[n] = self.policy.cost(cluster.machines[n], pod)
        seen[able] = cluster.versions[able]
        found = costs[able]
        best = able[found <= found.min() + 1e-9].tolist()
        index = best[0] if self.rng is None else self.rng.choice(best)
        return index, self.policy.device(cluster.machines[index], pod)


class AtRandom:
    """Takes any machine that can, and any of its GPUs that can."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def choose(self, cluster: Cluster, pod: Pod, able: NDArray[np.intp]) -> tuple[int, int | None]:
        """Any of them."""
        index = int(self.rng.choice(able.tolist()))
        if not pod.gpus or pod.piece == MILLI:
            return index, None
        devices = cluster.machines[index].devices
        return index, self.rng.choice([n for n, free in enumerate(devices) if free >= pod.piece])


@dataclass(slots=True)
class Filled:
    """What came of it: per cent of all GPUs handed out when so much had been asked for."""

    allocated: dict[int, float] = field(default_factory=dict)
    refused: int = 0


def fill(cluster: Cluster, pods: Sequence[Pod], chooser: Chooser, at: Sequence[int]) -> Filled:
    """Place all pods in turn; `at` are the demands in per cent of all GPUs to note."""
    total = MILLI * sum(machine.shape.gpus for machine in cluster.machines)
    asked = given = 0
    filled, marks = Filled(), sorted(at)
    for pod in pods:
        asked += pod.gpu_milli
        able = np.flatnonzero(cluster.able(pod))
        if len(able):
            index, device = chooser.choose(cluster, pod, able)
            cluster.place(index, pod, device)
            given += pod.gpu_milli
        else:
            filled.refused += 1
        while marks and 100 * asked >= marks[0] * total:
            filled.allocated[marks.pop(0)] = 100 * given / total
    for mark in marks:
        filled.allocated[mark] = 100 * given / total
    return filled
