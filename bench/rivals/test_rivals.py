"""Every model finds exactly the matches, adds up, and costs what its design is known to cost."""

from functools import partial
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.rivals import RIVALS
from bench.rivals.model import Build, Floats, Ints
from bench.rivals.pht import COLD

BUILDS: dict[str, Build] = {**RIVALS, "pht-cold": COLD}
EVERY_RIVAL = pytest.mark.parametrize("key", list(BUILDS))

# --- fleets and questions -------------------------------------------------------------------------

CORES = np.array([4, 4, 8, 8, 16, 16, 32, 32, 48, 64, 64, 96, 128])
GIB_PER_CORE = np.array([2, 4, 2, 4, 4, 8, 4, 8, 4, 4, 8, 4, 8])
AT_LEAST, AT_MOST, EITHER, AROUND = range(4)
SIDES = {
    "uniform": (EITHER,) * 8,
    "fleet": (AT_LEAST,) * 5 + (AT_MOST, AROUND, AT_LEAST),
}


def scaled(values: Floats) -> Floats:
    """Values on a scale that runs from the least to the greatest of them."""
    least, most = float(values.min()), float(values.max())
    return (values - least) / (most - least)


def zipf(count: int, size: int, chance: np.random.Generator) -> Ints:
    weights = 1 / np.arange(1, count + 1)
    return chance.choice(count, size, p=weights / weights.sum())


def fleet(size: int, chance: np.random.Generator) -> Floats:
    """13 shapes, 88 % without an accelerator, humps of free capacity, 16 regions, 8 disks."""
    shape = zipf(13, size, chance)
    cores, mem = CORES[shape], CORES[shape] * GIB_PER_CORE[shape]
    gpus = np.where(chance.random(size) < 0.88, 0, chance.choice([1, 2, 4, 8], size))
    busy = chance.random((2, size)) < 0.5
    free = np.where(busy, chance.beta(1.5, 8, (2, size)), chance.beta(8, 1.5, (2, size)))
    price, region = chance.lognormal(0, 0.4, size), zipf(16, size, chance)
    disk = chance.integers(0, 8, size)
    sizes = (cores, mem, 1 + gpus, 1 + free[0] * cores, 1 + free[1] * mem, price)
    columns = [*(np.log2(column) for column in sizes), region, disk]
    return np.column_stack([scaled(column.astype(float)) for column in columns])


def network(kind: str, size: int, seed: int) -> Floats:
    chance = np.random.default_rng(seed)
    return fleet(size, chance) if kind == "fleet" else chance.random((size, 8))


def questions(
    points: Floats, kind: str, share: float, count: int, rng: Random
) -> list[tuple[Floats, Floats]]:
    """Boxes that match about the share, on 1, 2, 3, 5 and 8 attributes in turn."""
    return [question(points, kind, share, (1, 2, 3, 5, 8)[n % 5], rng) for n in range(count)]


def question(
    points: Floats, kind: str, share: float, attributes: int, rng: Random
) -> tuple[Floats, Floats]:
    """A box whose quantiles are tightened together until it matches about the share."""
    while True:
        axes = rng.sample(range(8), attributes)
        at = {axis: rng.random() for axis in axes}
        side = {
            a: rng.choice((0, 1, 3)) if SIDES[kind][a] == EITHER else SIDES[kind][a] for a in axes
        }
        keep, step = 0.5, 0.25
        for _ in range(14):
            low, high = np.zeros(8), np.ones(8)
            for axis in axes:
                begin = {AT_LEAST: 1 - keep, AT_MOST: 0.0}.get(side[axis], at[axis] * (1 - keep))
                low[axis], high[axis] = np.quantile(points[:, axis], (begin, min(1, begin + keep)))
            found = truth(points, low, high) / len(points)
            if share / 1.5 < found < share * 1.5:
                return low, high
            keep += step if found < share else -step
            step /= 2


def truth(points: Floats, low: Floats, high: Floats) -> int:
    return int(((points >= low) & (points <= high)).all(axis=1).sum())


# --- exactness ------------------------------------------------------------------------------------


def check(key: str, points: Floats, low: Floats, high: Floats, start: int) -> None:
    """Asks with and without limits, and holds the costs against what must be so."""
    rival = BUILDS[key](points, Random(3))
    true = truth(points, low, high)
    rpc_all = rival.query(low, high, 0, start).rpc
    for limit in (0, 1, 5, 1000):
        cost = rival.query(low, high, limit, start)
        if limit in (0, 1000):
            assert cost.hits == true
        else:
            assert min(limit, true) <= cost.hits <= true
        assert 0 <= cost.rtt <= cost.rpc + 1e-9
        asked = np.asarray(cost.asked)
        assert len(set(asked.tolist())) == len(asked) <= cost.rpc
        assert set(asked.tolist()) <= set(range(len(points)))
        if key not in ("scrap", "murk", "cells"):  # lanes and random relays differ by a few
            assert cost.rpc <= rpc_all + 1e-9


@EVERY_RIVAL
@pytest.mark.parametrize("kind", ["uniform", "fleet"])
def test_all_matches_are_found(key: str, kind: str) -> None:
    points = network(kind, 300, seed=5)
    rng = Random(6)
    for share in (0.3, 0.1, 0.03):
        for low, high in questions(points, kind, share, 5, rng):
            check(key, points, low, high, rng.randrange(300))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Floats, Floats, int]:
    """Few records on a coarse grid, so that ties, empty boxes and exact bounds are common."""
    attributes = draw(st.integers(1, 8))
    count = draw(st.integers(attributes, 40))
    value = st.integers(0, draw(st.sampled_from((1, 3, 16)))).map(lambda n: n / 16)
    row = st.lists(value, min_size=attributes, max_size=attributes)
    points = np.array(draw(st.lists(row, min_size=count, max_size=count)))
    ends = np.sort(np.array([draw(row), draw(row)]), axis=0)
    free = np.array(draw(st.lists(st.booleans(), min_size=attributes, max_size=attributes)))
    low, high = np.where(free, 0.0, ends[0]), np.where(free, 1.0, ends[1])
    return points, low, high, draw(st.integers(0, count - 1))


@EVERY_RIVAL
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_all_matches_are_found_whatever_the_ties(
    key: str, case: tuple[Floats, Floats, Floats, int]
) -> None:
    check(key, *case)


@EVERY_RIVAL
def test_a_seed_replays_the_costs(key: str) -> None:
    points = network("fleet", 300, seed=1)
    low, high = question(points, "fleet", 0.1, 3, Random(2))
    first, second = (BUILDS[key](points, Random(8)) for _ in range(2))
    for limit in (0, 7):
        one, other = (rival.query(low, high, limit, start=9) for rival in (first, second))
        assert (one.rpc, one.rtt, one.hits) == (other.rpc, other.rtt, other.hits)
        assert one.asked.tolist() == other.asked.tolist()


@EVERY_RIVAL
def test_every_record_is_held_as_often_as_the_design_says(key: str) -> None:
    rival = BUILDS[key](network("fleet", 300, seed=1), Random(2))
    copies = {"mercury": 8, "pht": 20, "pht-holders": 20, "pht-cold": 20}.get(key, 1)
    assert rival.storage.shape == (300,)
    assert rival.storage.sum() == 300 * copies


@EVERY_RIVAL
@pytest.mark.parametrize("points", [[[0.5, np.nan]], [[0.5, 1.1]], [[-0.1, 0.0]], [0.5], [[]]])
def test_points_outside_the_space_are_refused(key: str, points: list[object]) -> None:
    with pytest.raises(ValueError, match="points must"):
        BUILDS[key](np.array(points, dtype=float), Random(1))


@EVERY_RIVAL
def test_names_are_said_once(key: str) -> None:
    names = {other: build(np.zeros((8, 8)), Random(1)).name for other, build in BUILDS.items()}
    assert list(names.values()).count(names[key]) == 1


# --- figures --------------------------------------------------------------------------------------

# Mean RPCs of an independent simulation of three designs with N = 1,000 and the fleet's make-up:
# limit 10 at 10 and 1 %, limit 100 at 10 and 1 %, all at 10 and 1 %.
# Where a design leaves the order of a limited walk open, it was chosen with such figures in view
# (the contacts of the cells, the end at which Mercury begins), so only the columns for all
# matches are a test of the models; the others guard against change.
STUDY = {
    "mercury": (8.9, 18.8, 36.0, 21.5, 37.6, 21.5),
    "pht": (14.9, 35.3, 61.8, 45.9, 68.6, 45.9),
    "cells": (22.7, 85.0, 225.0, 103.0, 246.0, 104.0),
}


@pytest.mark.parametrize("key", list(STUDY))
def test_costs_agree_with_an_independent_simulation(key: str) -> None:
    points, rng = network("fleet", 1000, seed=3), Random(4)
    rival = RIVALS[key](points, Random(5))
    asks = {share: questions(points, "fleet", share, 60, rng) for share in (0.1, 0.01)}
    means = [
        np.mean(
            [rival.query(low, high, limit, n * 7 % 1000).rpc for n, (low, high) in enumerate(ask)]
        )
        for limit in (10, 100, 0)
        for ask in asks.values()
    ]
    ratios = np.array(means) / STUDY[key]
    # The models take the choices best for the design, and scales that suit the data: they may
    # cost less, the tree up to half.
    assert ((ratios > 0.5) & (ratios < 1.5)).all(), ratios.round(2)


@pytest.mark.parametrize("kind", ["uniform", "fleet"])
def test_a_central_table_asks_least_and_a_flood_asks_everybody(kind: str) -> None:
    points, rng = network(kind, 300, seed=3), Random(4)
    rivals = {key: build(points, Random(5)) for key, build in RIVALS.items()}
    for low, high in questions(points, kind, 0.1, 5, rng):
        ask = partial(
            lambda key, low, high: rivals[key].query(low, high, 0, 1).rpc, low=low, high=high
        )
        assert ask("central") == 1
        assert ask("flood") == 299
        assert all(ask(key) >= 1 for key in rivals)
