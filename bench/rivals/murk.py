"""MURK (Ganesan, Yang, Garcia-Molina, WebDB 2004): the attribute space cut up as a kd-tree.

Each node owns one zone with one record; cuts go between the two different values nearest to the
median, attribute after attribute, and through equal records where they must. A node has a link
to a random zone across every cut above its own, as good as MURK's long links get, so it reaches a
zone of the box in O(log N) RPCs. From there the box is flooded with one RPC for each zone that
meets it and none twice: a zone hands the pieces of the box to its neighbours along the cuts. A
query for all needs as many rounds as the best such hand-over; one with a limit takes alpha = 4
zones at a time, those with the largest share inside the box first, as if all extents were known.
"""

from random import Random

import numpy as np

from bench.rivals.model import (
    ALPHA,
    Cost,
    Flags,
    Floats,
    Ints,
    columns,
    enough,
    generator,
    matching,
    others,
    overlapping,
)

_HEIGHT_MAX = 60
"""Cuts above a zone: many more than a balanced tree has, few enough for a path of one number."""


def delegation_rounds(codes: Ints) -> int:
    """Rounds to reach all of these leaves when each half of a subtree is handed on at once.

    `codes` are the sorted paths of the leaves from the root, as numbers. Whoever has to cover
    two halves keeps the slower one.
    """
    rounds = np.zeros(len(codes), dtype=np.int64)
    while len(codes) > 1:
        codes = codes >> 1
        first = np.append(True, codes[1:] != codes[:-1])
        paired = np.flatnonzero(~first)
        one, other = rounds[paired - 1], rounds[paired]
        rounds[paired - 1] = np.maximum(np.maximum(one, other), np.minimum(one, other) + 1)
        codes, rounds = codes[first], rounds[first]
    return int(rounds[0])


def _axis(inside: Floats, depth: int) -> int:
    """The next attribute, in turn, on which the records of a zone differ."""
    differs = np.roll(inside.min(axis=1) < inside.max(axis=1), -(depth % len(inside)))
    return (depth + int(differs.argmax())) % len(inside)


def _half(values: Floats, room: int) -> int:
    """Where to cut sorted values: between different ones, as near to the middle as can be.

    Neither half may have more than `room` records; where ties would make one, they are split.
    """
    middle = len(values) // 2
    tied = float(values[middle])
    ends = (int(np.searchsorted(values, tied)), int(np.searchsorted(values, tied, "right")))
    cuts = [cut for cut in ends if 0 < cut < len(values)]
    best = min(cuts, key=lambda cut: abs(cut - middle), default=middle)
    return best if max(best, len(values) - best) <= room else middle


class Murk:
    """Zones in the order of the tree's leaves; a node's index is its place among them."""

    name = "MURK, kd-tree zones"

    def __init__(self, points: Floats, rng: Random) -> None:
        records = columns(points)
        self._chance = generator(rng)
        count = records.shape[1]
        order = self._chance.permutation(count)
        self.zone_low, self.zone_high = np.zeros_like(records), np.ones_like(records)
        self._code = np.zeros(count, dtype=np.int64)
        self._cut(records, order)
        self.records = np.ascontiguousarray(records[:, order])
        self.storage: Ints = np.ones(count, dtype=np.int64)

    def _cut(self, records: Floats, order: Ints) -> None:
        """Cuts the space until each zone holds one record; sorts `order` by zone."""
        height = _HEIGHT_MAX
        parts = [(0, len(order), 0)]
        while parts:
            begin, end, depth = parts.pop()
            if end - begin == 1:
                continue
            inside = records[:, order[begin:end]]
            axis = _axis(inside, depth)
            place = np.argsort(inside[axis], kind="stable")
            order[begin:end] = order[begin:end][place]
            values = inside[axis, place]
            half = _half(values, room=1 << (height - depth - 1))
            middle = begin + half
            cut = (values[half - 1] + values[half]) / 2
            self.zone_high[axis, begin:middle] = self.zone_low[axis, middle:end] = cut
            self._code[middle:end] |= 1 << (height - 1 - depth)
            parts += [(begin, middle, depth + 1), (middle, end, depth + 1)]

    def touched(self, low: Floats, high: Floats) -> Flags:
        """Which zones meet the box."""
        return overlapping(self.zone_low, self.zone_high, low, high)

    def _route(self, start: int, zones: Flags) -> list[int]:
        """The zones passed on the way to the first one that meets the box, it included."""
        passed: list[int] = []
        at = start
        inside = np.flatnonzero(zones)
        target = int(inside[(self._code[inside] ^ self._code[start]).argmin()])
        while not zones[at]:
            bit = int(self._code[at] ^ self._code[target]).bit_length() - 1
            base = int(self._code[target]) >> bit << bit
            begin, end = np.searchsorted(self._code, (base, base + (1 << bit)))
            at = int(self._chance.integers(begin, end))
            passed.append(at)
        return passed

    def _shares(self, zones: Ints, low: Floats, high: Floats) -> Floats:
        """How much of each of these zones lies in the box, 0..1."""
        shares = np.ones(len(zones))
        for axis in np.flatnonzero((low > 0) | (high < 1)):
            bottom, top = self.zone_low[axis, zones], self.zone_high[axis, zones]
            inside = np.minimum(top, high[axis]) - np.maximum(bottom, low[axis])
            shares *= np.divide(inside, top - bottom, where=top > bottom, out=np.ones(len(zones)))
        return shares

    def query(self, low: Floats, high: Floats, limit: int, start: int) -> Cost:
        """Routes to the nearest zone of the box and floods from there."""
        touched = self.touched(low, high)
        route = self._route(start, touched)
        entry = route[-1] if route else start
        zones = np.flatnonzero(touched)
        if limit:
            shares = np.where(zones == entry, np.inf, self._shares(zones, low, high))
            zones = zones[np.lexsort((self._code[zones] ^ self._code[entry], -shares))]
        hits = matching(self.records[:, zones], low, high).astype(np.int64)
        more = enough(hits, limit) - 1
        zones, hits = zones[: 1 + more], hits[: 1 + more]
        rounds = -(-more // ALPHA) if limit else delegation_rounds(np.sort(self._code[zones]))
        asked = others(np.append(zones, np.array(route, dtype=np.int64)), start)
        return Cost(len(route) + more, len(route) + rounds, int(hits.sum()), asked)
