"""Broadcast over a Kademlia network: no index at all, everybody looks at its own record.

The asking node hands each of its buckets to one node in it, which hands on the buckets of that
subtree, so everybody is asked once: N - 1 RPCs for all matches, in 1 + log2 of the largest
subtree rounds. With a limit the buckets are taken one after the other, the nearest and smallest
first, each broadcast to its end, and delegation stops after the one that brings enough.
"""

from random import Random

import numpy as np

from bench.rivals.model import Cost, Floats, Ints, columns, enough, generator, matching

_ID_BITS = 62


class Flood:
    """Nodes in the order of their random ids; a node's index is its record's."""

    name = "flood, Kademlia broadcast"

    def __init__(self, points: Floats, rng: Random) -> None:
        records = columns(points)
        chance = generator(rng)
        count = records.shape[1]
        ids = chance.integers(0, 1 << _ID_BITS, size=count)
        self.order = np.argsort(ids)
        self.ids: Ints = np.sort(ids)
        self._place = np.argsort(self.order)
        self._records = np.ascontiguousarray(records[:, self.order])
        self.storage: Ints = np.ones(count, dtype=np.int64)

    def buckets(self, place: int) -> tuple[Ints, Ints]:
        """The non-empty buckets of a node, nearest first, as begin and end in order of id."""
        bits = np.arange(_ID_BITS)
        base = ((int(self.ids[place]) >> bits) ^ 1) << bits
        begin = np.searchsorted(self.ids, base)
        end = np.searchsorted(self.ids, base + (1 << bits))
        return begin[begin < end], end[begin < end]

    def query(self, low: Floats, high: Floats, limit: int, start: int) -> Cost:
        """Broadcasts bucket after bucket, or to all at once."""
        place = int(self._place[start])
        found = matching(self._records, low, high)
        below = np.append(0, np.cumsum(found))
        begin, end = self.buckets(place)
        hits = below[end] - below[begin]
        own = int(found[place])
        taken = 0 if limit and own >= limit else enough(hits, limit and limit - own)
        begin, end = begin[:taken], end[:taken]
        sizes = end - begin
        rounds = 1 + np.ceil(np.log2(np.maximum(sizes, 1)))
        rtt = float(rounds.sum() if limit else rounds.max(initial=0))
        reached = np.zeros(len(found) + 1, dtype=np.int64)
        reached[begin] += 1
        reached[end] -= 1
        asked = self.order[np.flatnonzero(np.cumsum(reached[:-1]))]
        return Cost(int(sizes.sum()), rtt, own + int(hits[:taken].sum()), asked)
