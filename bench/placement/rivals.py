"""The policies FGD was published against, and FGD itself, as their simulator computes them.

Costs are 100 minus the scores of hkust-adsl/kubernetes-scheduler-simulator, which are whole numbers
as Kubernetes wants them, so nearly equal machines are equal. The first of them is taken: on the
trace that suits each of these policies better than chance.

best fit      the least left over of CPUs and GPUs, each of the largest machine there is
dot product   Tetris (SIGCOMM 2014): the need and what is free point the same way the least
packing       a GPU in use, else an idle GPU of a machine in use, else an idle machine
FGD           the least growth of fragmentation, of GPUs alone and by CPUs and GPUs alone
"""

import math

from bench.placement.fill import Machine, tightest
from bench.placement.trace import MILLI, Pod, Trace
from dhtos.sched import Candidate, Fragmentation, Need

CPU_MAX, GPU_MAX = 128_000, 8 * MILLI
"""The largest machine of the trace, as the published policies take it."""


class BestFit:
    """The tightest machine."""

    name = "BestFit"

    def cost(self, machine: Machine, pod: Pod) -> float:
        """What is left over."""
        cpu = (machine.cpu - pod.cpu) / CPU_MAX
        gpu = (sum(machine.devices) - pod.gpu_milli) / GPU_MAX
        return -math.floor(100 * (1 - (cpu + gpu) / 2))

    def device(self, machine: Machine, pod: Pod) -> int | None:
        """The tightest GPU."""
        return tightest(machine, pod)


class DotProduct:
    """Need times free, each of the largest machine."""

    name = "DotProd"

    def cost(self, machine: Machine, pod: Pod) -> float:
        """The product."""
        cpu = machine.cpu * pod.cpu / CPU_MAX**2
        gpu = sum(machine.devices) * pod.gpu_milli / GPU_MAX**2
        return -math.floor(100 * (1 - (cpu + gpu) / 2))

    def device(self, machine: Machine, pod: Pod) -> int | None:
        """The tightest GPU."""
        return tightest(machine, pod)


class Packing:
    """GPUs in use first."""

    name = "GpuPacking"

    def cost(self, machine: Machine, pod: Pod) -> float:
        """By what would have to be begun."""
        if not pod.gpus:
            return 0
        idle = machine.devices.count(MILLI)
        if idle == len(machine.devices):
            return -max(100 // 3 - idle, idle)
        taken = sorted(free for free in machine.devices if free >= pod.piece)[: pod.gpus]
        begun = taken.count(MILLI)
        if begun:
            return -max(100 // 2 - begun, 100 // 3)
        return -max(100 - sum(free * 100 // MILLI for free in taken) // 10, 100 // 2)

    def device(self, machine: Machine, pod: Pod) -> int | None:
        """The tightest GPU."""
        return tightest(machine, pod)


class Fgd:
    """As published; the measure is that of `dhtos.sched`, which tests hold to its definition."""

    name = "FGD"

    def __init__(self, trace: Trace) -> None:
        self.needs = {pod: _need(pod) for pod in set(trace.pods)}
        shares: dict[tuple[tuple[str, float], ...], float] = {}
        for pod in trace.pods:
            kind = tuple(self.needs[pod].resources.items())
            shares[kind] = shares.get(kind, 0.0) + 1 / len(trace.pods)
        self.measure = Fragmentation(shares, {"gpus": 1.0})
        self.usual = sum(pod.gpu_milli for pod in trace.pods) / MILLI / len(trace.pods)
        self.without = sum(not pod.gpus for pod in trace.pods) / len(trace.pods)

    def cost(self, machine: Machine, pod: Pod) -> float:
        """The growth, in GPUs, through a sigmoid, as a whole number.

        To a pod without GPUs all that are free are fragments, and the new pod takes some of them.
        """
        grown = self.usual * self.measure.growth(self.needs[pod], _candidate(machine))
        grown -= self.without * pod.gpu_milli / MILLI
        return -math.floor(100 / (1 + math.exp(min(grown, 700.0))))

    def device(self, machine: Machine, pod: Pod) -> int | None:
        """The GPU where it grows least."""
        return self.measure.device(self.needs[pod], _candidate(machine))


def _need(pod: Pod) -> Need:
    if pod.gpus:
        return Need(cores=pod.cpu / MILLI, gpus=pod.gpu_milli / MILLI)
    return Need(cores=pod.cpu / MILLI)


def _candidate(machine: Machine) -> Candidate:
    cores = {"cores": machine.cpu / MILLI, "gpus": float(len(machine.devices))}
    return Candidate(b"", cores, cores, tuple([free / MILLI for free in machine.devices]))
