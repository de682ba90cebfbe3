"""What `Node.closest`, `within` and `central` find, which ask nobody else's memory.

Who asks orders all machines by coordinates and takes so many for each ping, puts them in the order
of what it has measured before, and pings the first. So a machine that coordinates rank too far
behind is missed, though it may be in the memory of who asks: CANDIDATES_PER_PROBE bounds that. A
border in milliseconds has the same weakness: REACH is how far beyond it predictions are looked at.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from bench.coordinates.closest import FLOOR_S
from bench.coordinates.world import World
from bench.rivals.model import Floats
from dhtos.core.centre import centre
from dhtos.core.coordinate import predict
from dhtos.node.nearby import CANDIDATES_PER_PROBE

FACTORS = (1, 2, 3, 5, 10, 1000)  # the last is everybody
WANTED = (1, 5)
REACHES = (1.0, 1.25, 1.5, 2.0, 3.0)
BORDERS_S = (0.02, 0.05, 0.1)
PROBES = 8
OTHERS = (2, 3, 5)
DRAWS = 100

Shares = dict[str, float]


def candidates(world: World, who: int, estimates: Floats) -> tuple[Floats, Floats]:
    """All others by prediction, the nearest first, and what `who` believes of their round trips."""
    row, memory = world.rtt_s[who], world.nodes[who].memory
    able = np.flatnonzero((row > 0) & (np.arange(world.size) != who))
    order = able[np.argsort(estimates[able], kind="stable")]
    known = [memory.rtt_s(("", int(other))) for other in order]
    guesses = [estimates[i] if s is None else s for i, s in zip(order, known, strict=True)]
    return order, np.array(guesses)


def penalties(world: World, factor: int, k: int) -> list[float]:
    """How many times as far as the k nearest the k found are, in the mean of each search."""
    found, estimates = [], world.estimates()
    for who in range(world.size):
        row = world.rtt_s[who]
        order, guesses = candidates(world, who, estimates[who])
        first = slice(factor * (k + PROBES))
        pinged = order[first][np.argsort(guesses[first], kind="stable")][: k + PROBES]
        got, best = np.sort(row[pinged])[:k], np.sort(row[order])[:k]
        found.append(max(got.mean(), FLOOR_S) / max(best.mean(), FLOOR_S))
    return found


def border(worlds: Iterable[World], seconds: float, reach: float) -> Shares:
    """How many of those within a border are found, and how many of the found are within it."""
    right = found = there = looked = asked = 0
    for world in worlds:
        estimates = world.estimates()
        for who in range(world.size):
            row, memory = world.rtt_s[who], world.nodes[who].memory
            order, guesses = candidates(world, who, estimates[who])
            near = estimates[who][order] <= reach * seconds
            strange = np.array([("", int(other)) not in memory for other in order], dtype=bool)
            unsure = np.flatnonzero(near & strange)
            pinged = unsure[np.argsort(np.abs(guesses[unsure] - seconds))][:PROBES]
            guesses[pinged] = row[order[pinged]]
            inside, truth = near & (guesses <= seconds), row[order] <= seconds
            right += int((inside & truth).sum())
            found += int(inside.sum())
            there += int(truth.sum())
            looked += int(near.sum())
            asked += 1
    return {"precision": right / found, "recall": right / there, "looked": looked / asked}


def between(worlds: Sequence[World], others: int, seed: int) -> Shares:
    """The most central machine: as good as of all by prediction? How far from the best in truth?"""
    rng, exact, ratios = np.random.default_rng(seed), [], []
    for world in worlds:
        estimates, places = world.estimates(), [node.coordinate for node in world.nodes]
        for _ in range(DRAWS):
            named = rng.choice(world.size, others, replace=False)
            middle = centre([places[i] for i in named])
            away = np.array([predict(middle, place) for place in places])
            worst = estimates[named].max(axis=0)
            away[named] = worst[named] = np.inf
            seen = np.argsort(away, kind="stable")[: CANDIDATES_PER_PROBE * (1 + PROBES)]
            chosen = int(seen[np.argmin(worst[seen])])
            exact.append(worst[chosen] <= worst.min() * 1.0001)
            legs = world.rtt_s[named]
            truth = np.where((legs > 0).all(axis=0), legs.max(axis=0), np.inf)
            if np.isfinite(truth[chosen]):
                ratios.append(truth[chosen] / truth.min())
    high = float(np.percentile(ratios, 90))
    return {"exact": float(np.mean(exact)), "median": float(np.median(ratios)), "p90": high}


def measured(worlds: Sequence[World], seed: int = 1) -> dict[str, dict[str, Shares]]:
    """Everything on this page about one table, over all seeds."""
    closest: dict[str, Shares] = {}
    for factor in FACTORS:
        closest[str(factor)] = {}
        for k in WANTED:
            ratios = [ratio for world in worlds for ratio in penalties(world, factor, k)]
            closest[str(factor)][str(k)] = float(np.percentile(ratios, 90))
    return {
        "closest": closest,
        "within": {
            f"{reach:g} {1000 * seconds:g}": border(worlds, seconds, reach)
            for reach in REACHES
            for seconds in BORDERS_S
        },
        "central": {str(others): between(worlds, others, seed) for others in OTHERS},
    }
