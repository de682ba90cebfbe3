"""Questions of a wanted selectivity: capacity at least, price at most, one of some regions.

A question of n attributes constrains n of the fleet's columns, each at the quantile that makes
the whole match the wanted share of the fleet. It stands in three forms: a predicate for the
engine, intervals of ranks for rivals, and the true matches.
"""

from dataclasses import dataclass
from math import inf
from random import Random

import numpy as np
from numpy.typing import NDArray

from bench.search.fleets import Fleet
from dhtos.core.predicate import Box, OneOf, Predicate, Range

COUNTS = (1, 2, 3, 5, 8)
_AT_MOST = frozenset({"price"})
_TOLERANCE = 2.0  # a question may match this much more or less than wanted: values are tied


@dataclass(frozen=True)
class Interval:
    """The values of one column that a question allows, both ends included."""

    column: str
    low: float
    high: float


@dataclass(frozen=True)
class Ask:
    """One question and its truth: `true` are indexes of the machines that match."""

    intervals: tuple[Interval, ...]
    predicate: Predicate
    true: frozenset[int]

    def box(self, fleet: Fleet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The intervals as ranks in 0..1, for every column of the fleet."""
        low, high = np.zeros(len(fleet.columns)), np.ones(len(fleet.columns))
        for place, (name, column) in enumerate(fleet.columns.items()):
            for interval in self.intervals:
                if interval.column == name:
                    ordered = np.sort(column)
                    low[place] = np.searchsorted(ordered, interval.low, "left") / len(column)
                    # The largest rank that a value within the interval has.
                    inside = ordered[ordered <= interval.high]
                    last = inside[-1] if len(inside) else -inf
                    high[place] = np.searchsorted(ordered, last, "left") / len(column)
        return low, high


def make(fleet: Fleet, share: float, count: int, rng: Random) -> list[Ask]:
    """`count` questions that match about `share` of the fleet, of 1 to 8 attributes in turn."""
    asks: list[Ask] = []
    tries = 0
    while len(asks) < count:
        tries += 1
        if tries > 200 * count:
            raise ValueError(f"{fleet.name}: found {len(asks)} questions that match {share:.1%}")
        ask = _draw(fleet, share, COUNTS[len(asks) % len(COUNTS)], rng)
        if ask is not None:
            asks.append(ask)
    return asks


def _draw(fleet: Fleet, share: float, attributes: int, rng: Random) -> Ask | None:
    """Tighten randomly weighted quantiles together until the share is met, if it can be."""
    chosen = rng.sample(sorted(fleet.columns), min(attributes, len(fleet.columns)))
    weights = {name: rng.uniform(0.3, 1.0) for name in chosen}
    uppers = {name: fleet.name == "uniform" and rng.random() < 0.5 for name in chosen}
    size = len(fleet.machines)
    low, high = 0.0, 60.0
    best: tuple[float, tuple[Interval, ...], NDArray[np.bool_]] | None = None
    for _ in range(24):
        middle = (low + high) / 2
        intervals = tuple(
            _interval(fleet, name, 2.0 ** (-middle * weight), upper=uppers[name])
            for name, weight in weights.items()
        )
        mask = matching(fleet, intervals)
        got = mask.sum() / size
        error = abs(np.log(got / share)) if got else inf
        if best is None or error < best[0]:
            best = (error, intervals, mask)
        low, high = (middle, high) if got > share else (low, middle)
    assert best is not None
    error, intervals, mask = best
    if error > np.log(_TOLERANCE):
        return None
    true = frozenset(np.flatnonzero(mask).tolist())
    return Ask(intervals, _predicate(fleet, intervals), true)


def _interval(fleet: Fleet, name: str, keep: float, *, upper: bool) -> Interval:
    """The values that keep about a share of the fleet: the most, the least, or some words."""
    column = np.sort(fleet.columns[name])
    from_below = float(column[min(len(column) - 1, int((1 - keep) * len(column)))])
    if name in fleet.words:  # the rarest words that hold the share
        return Interval(name, from_below, float(column[-1]))
    if name in _AT_MOST or upper:
        return Interval(name, -inf, float(column[min(len(column) - 1, int(keep * len(column)))]))
    return Interval(name, from_below, inf)


def matching(fleet: Fleet, intervals: tuple[Interval, ...]) -> NDArray[np.bool_]:
    """Which machines lie in every interval: brute force."""
    mask = np.ones(len(fleet.machines), dtype=bool)
    for interval in intervals:
        column = fleet.columns[interval.column]
        mask &= (column >= interval.low) & (column <= interval.high)
    return mask


def _predicate(fleet: Fleet, intervals: tuple[Interval, ...]) -> Predicate:
    terms: list[Range | OneOf] = []
    for interval in intervals:
        index = fleet.schema.index(interval.column)
        words = fleet.words.get(interval.column)
        if words is None:
            low, high = (_checked(fleet, interval, e) for e in (interval.low, interval.high))
            terms.append(Range(index, low, high))
        else:
            chosen = words[int(interval.low) : int(interval.high) + 1]
            terms.append(OneOf(index, tuple(chosen)))
    return Predicate((Box(tuple(terms)),))


def _checked(fleet: Fleet, interval: Interval, end: float) -> float:
    """A bound as predicates spell it: whole numbers are integers, infinity stays."""
    if end in (-inf, inf):
        return end
    value = fleet.schema.check(interval.column, end)
    assert isinstance(value, int | float)
    return value
