"""What is measured: GPUs handed out by policies on the same arrivals, and the time of a choice."""

import gc
from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from typing import Any

from bench.placement.fill import AtRandom, Chooser, Cluster, Filled, FullKnowledge, fill
from bench.placement.ours import Everybody, Sampled
from bench.placement.rivals import BestFit, DotProduct, Fgd, Packing
from bench.placement.trace import Trace

DEMAND = 1.3
AT = (100, 130)
CANDIDATES = (4, 8, 16)
OURS, SAMPLED = Everybody.name, "dhtos, {} at random"
FULL = ("DotProd", "GpuPacking", "BestFit", "FGD", OURS)
"""The policies that look at all machines."""


def choosers(trace: Trace) -> dict[str, Callable[[Cluster, Random], Chooser]]:
    """By name, how to make the chooser of one run."""
    made: dict[str, Callable[[Cluster, Random], Chooser]] = {
        "Random": lambda _, rng: AtRandom(rng),
        "DotProd": lambda cluster, _: FullKnowledge(DotProduct(), cluster),
        "GpuPacking": lambda cluster, _: FullKnowledge(Packing(), cluster),
        "BestFit": lambda cluster, _: FullKnowledge(BestFit(), cluster),
        "FGD": lambda cluster, _: FullKnowledge(Fgd(trace), cluster),
        OURS: lambda cluster, rng: FullKnowledge(Everybody(trace, cluster), cluster, rng),
    }
    for count in CANDIDATES:
        made[SAMPLED.format(count)] = lambda _, rng, count=count: Sampled(count, rng)
    return made


def run(trace: Trace, name: str, seed: int) -> tuple[Filled, Chooser]:
    """One policy on the arrivals of one seed; chance within the policy has a stream of its own.

    What stands before it starts is frozen, as in a long-lived process: the collector runs during
    decisions, but does not look through traces again.
    """
    gc.collect()
    gc.freeze()
    pods = trace.arrivals(Random(f"arrivals {seed}"), DEMAND)
    cluster = Cluster(trace)
    chooser = choosers(trace)[name](cluster, Random(f"{name} {seed}"))
    return fill(cluster, pods, chooser, AT), chooser


def measure(trace: Trace, seeds: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """All policies on all seeds: allocation in per cent by policy and demand, one figure a seed."""
    policies: dict[str, Any] = {}
    decisions: dict[str, Any] = {}
    for name in choosers(trace):
        found = {str(at): [] for at in AT}
        cpu_s: list[float] = []
        wall_s: list[float] = []
        for seed in seeds:
            filled, chooser = run(trace, name, seed)
            for at in AT:
                found[str(at)].append(round(filled.allocated[at], 3))
            if isinstance(chooser, Sampled):
                cpu_s += chooser.cpu_s
                wall_s += chooser.wall_s
        policies[name] = found
        if cpu_s:
            decisions[name] = {"cpu": spread_ms(cpu_s), "wall": spread_ms(wall_s)}
        say(f"{name}: {found}")
    return {"policies": policies, "decisions": decisions}


def spread_ms(times_s: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and count of some times."""
    ordered = sorted(times_s)
    return {
        "p50": 1000 * median(ordered),
        "p99": 1000 * ordered[int(0.99 * (len(ordered) - 1))],
        "count": len(ordered),
    }
