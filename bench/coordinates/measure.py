"""What is measured of coordinates on one table: accuracy, joining, drift, liars, closest nodes."""

import copy
import time
from array import array
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np

from bench.coordinates import closest, nearby
from bench.coordinates.lies import LIES
from bench.coordinates.world import World, relative_errors, summary
from bench.rivals.meridian import Meridian
from bench.rivals.model import Floats
from bench.rivals.pyxida import ForceLocator
from bench.rivals.vivaldi import Serf, Vivaldi
from dhtos.core.limits import MEMORY_PEERS_MAX
from dhtos.kernels import batch_rtt, refit, vivaldi_update

ROUNDS = 512
LIE_ROUNDS = 192
DRIFT_ROUNDS = 20
LIARS = 0.3
NEWCOMERS = 0.1
JOIN_SAMPLES = (4, 8, 16, 32)
ASKED = PROBES = 8
RINGS = ((8, 0.5), (16, 0.5), (16, 0.75), (32, 0.5))
OURS = "dhtos"

Pair = tuple[float, float]
"""Median and 90th percentile."""


def mean(pairs: Sequence[Pair]) -> Pair:
    """Over seeds."""
    return (
        sum(pair[0] for pair in pairs) / len(pairs),
        sum(pair[1] for pair in pairs) / len(pairs),
    )


def rivals(rtt_s: Floats, seeds: Sequence[int], rounds: int) -> dict[str, tuple[Pair, Floats]]:
    """By name: the relative error, and the estimates of the first seed."""
    found = {}
    for kind in (Vivaldi, Serf):
        pairs, first = [], None
        for seed in seeds:
            # A hole of the table is a pair that never meets; its 0.1 ms pulls nobody far.
            network = kind(np.maximum(rtt_s, 1e-4), seed)
            for _ in range(rounds):
                network.round()
            estimates = network.estimates()
            first = estimates if first is None else first
            pairs.append(summary(relative_errors(estimates, rtt_s)))
        assert first is not None
        found[kind.name] = (mean(pairs), first)
    return found


def joining(rtt_s: Floats, seed: int, rounds: int) -> dict[int, float]:
    """The median error of newcomers to a settled net, after so many samples each."""
    world = World(rtt_s, seed)
    new = world.rng.sample(range(world.size), max(1, int(NEWCOMERS * world.size)))
    old = [i for i in range(world.size) if i not in set(new)]
    world.only(old)
    world.run(rounds)
    world.only(range(world.size))
    found, taken = {}, 0
    measured = rtt_s[np.ix_(new, old)]
    for samples in JOIN_SAMPLES:
        world.run(samples - taken, new)
        taken = samples
        predicted = world.estimates()[np.ix_(new, old)]
        known = measured > 0
        errors = np.abs(predicted - measured)[known] / measured[known]
        found[samples] = float(np.median(errors))
    return found


def drift(settled: World) -> float:
    """Milliseconds that a settled node moves with a sample."""
    world, moved = copy.deepcopy(settled), []
    for _ in range(DRIFT_ROUNDS):
        before = np.array([node.coordinate.position for node in world.nodes])
        world.run(1)
        after = np.array([node.coordinate.position for node in world.nodes])
        moved.append(float(np.sqrt(((after - before) ** 2).sum(axis=1)).mean()))
    return 1000 * sum(moved) / len(moved)


def lied_to(settled: World, rounds: int) -> dict[str, dict[str, Pair]]:
    """Errors among the honest before and after 30 % of a settled net begin to lie."""
    found = {}
    for name, lie in LIES.items():
        world = copy.deepcopy(settled)
        liars = world.rng.sample(range(world.size), int(LIARS * world.size))
        honest = np.ones(world.size, dtype=bool)
        honest[liars] = False
        before = summary(relative_errors(world.estimates(), world.rtt_s, honest))
        world.liars = dict.fromkeys(liars, lie)
        world.run(rounds)
        after = summary(relative_errors(world.estimates(), world.rtt_s, honest))
        found[name] = {"before": before, "after": after}
    return found


def searches(find: Callable[[int], closest.Found], size: int) -> dict[str, float]:
    """The closest node to every node in turn."""
    results = [find(target) for target in range(size)]
    ratios = np.array([one.penalty for one in results])
    return {
        "median": float(np.median(ratios)),
        "p90": float(np.percentile(ratios, 90)),
        "p90_ms": float(1000 * np.percentile([one.excess_s for one in results], 90)),
        "probes": float(np.mean([one.probes for one in results])),
    }


def closest_nodes(
    world: World, others: dict[str, Floats], seed: int
) -> dict[str, dict[str, float]]:
    """Ours with and without memories and probes; rivals by coordinates; Meridian."""
    rtt_s, size, own = world.rtt_s, world.size, world.estimates()
    found = {}
    for asked, probes in ((0, PROBES), (ASKED, 0), (ASKED, ASKED // 2), (ASKED, PROBES)):
        name = f"{OURS}, {asked} asked, {probes} probes"
        found[name] = searches(
            lambda t, a=asked, p=probes: closest.hybrid(world, t, own, asked=a, probes=p), size
        )
    for name, estimates in others.items():
        found[f"{name}, {PROBES} probes"] = searches(
            lambda t, e=estimates: closest.by_coordinates(rtt_s, e, t, PROBES), size
        )
    for k, beta in RINGS:
        rings = Meridian(rtt_s, k, beta, seed)
        found[rings.name] = searches(lambda t, r=rings: closest.by_rings(rtt_s, r, t), size)
    return found


def of_table(rtt_s: Floats, seeds: Sequence[int], rounds: int = ROUNDS) -> dict[str, Any]:
    """Everything measured on one table; what takes a settled net uses that of the first seed."""
    worlds = []
    for seed in seeds:
        worlds.append(World(rtt_s, seed))
        worlds[-1].run(rounds)
    settled = worlds[0]
    pairs = [summary(relative_errors(world.estimates(), rtt_s)) for world in worlds]
    force = World(rtt_s, seeds[0], ForceLocator)
    force.run(rounds)
    others = rivals(rtt_s, seeds, rounds)
    errors = {OURS: mean(pairs)} | {name: pair for name, (pair, _) in others.items()}
    errors["a force over the same memory"] = summary(relative_errors(force.estimates(), rtt_s))
    return {
        "nodes": len(rtt_s),
        "median_ms": float(1000 * np.median(rtt_s[rtt_s > 0])),
        "rounds": rounds,
        "errors": errors,
        "seeds": pairs,
        "joining": joining(rtt_s, seeds[0], rounds),
        "drift_ms": drift(settled),
        "liars": lied_to(settled, max(LIE_ROUNDS * rounds // ROUNDS, 1)),
        "closest": closest_nodes(
            settled, {name: estimates for name, (_, estimates) in others.items()}, seeds[0]
        ),
        "nearby": nearby.measured(worlds),
    }


def kernels(seed: int = 1, places: int = 10**6) -> dict[str, float]:
    """Microseconds of a re-fit to a full memory, milliseconds of a million estimates."""
    rng, dimensions = Random(seed), 5
    rows = array("d")
    for _ in range(MEMORY_PEERS_MAX):
        rows.extend([rng.gauss(0, 0.05) for _ in range(dimensions)])
        rows.extend((0.002, 0.1, rng.uniform(0.01, 0.2)))
    own = (0.0,) * dimensions + (0.001,)
    table = np.random.default_rng(seed).normal(0, 0.05, (dimensions + 1, places)).astype("f4")
    columns, here = array("f", table.tobytes()), np.array(own, dtype="f4")

    def by_numpy() -> Floats:
        total = np.zeros(places, dtype="f4")
        for i in range(dimensions):
            part = table[i] - here[i]
            part *= part
            total += part
        np.sqrt(total, out=total)
        return total + table[dimensions] + here[dimensions]

    sample = ((0.1, 0.1), 0.01, 0.3, (0.2, 0.1), 0.01, 0.3, 0.1, 0.25, 0.25, (1.0, 0.0))
    assert np.allclose(batch_rtt(own, columns), by_numpy(), atol=1e-5)
    batch_s = fastest(lambda: batch_rtt(own, columns), 20)
    moved = 4 * places * (dimensions + 2)  # every column is read, the estimates are written
    copied = fastest(lambda: table.copy(), 20)
    return {
        "refit_us": 1e6 * fastest(
            lambda: [refit(own, rows, MEMORY_PEERS_MAX, 1, 1e-5, 0.05) for _ in range(1000)], 20
        ) / 1000,
        "update_us": 1e6 * fastest(
            lambda: [vivaldi_update(*sample) for _ in range(1000)], 20
        ) / 1000,
        "batch_ms": 1e3 * batch_s,
        "numpy_ms": 1e3 * fastest(by_numpy, 20),
        "batch_gb_s": moved / batch_s / 1e9,
        "copy_gb_s": 2 * table.nbytes / copied / 1e9,
    }  # fmt: skip


def fastest(work: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best
