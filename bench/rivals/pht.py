"""Prefix hash tree (Ramabhadran et al., PODC 2004) over Z-order on a Kademlia network.

A leaf holds at most 100 records and splits on the next bit; it lives under the hash of its prefix
on 20 nodes. A get is a `find_value`, 3.6 / 5.2 / 6.7 RPCs and 1.2 / 1.7 / 2.2 round trips at
N = 1k / 10k / 100k. The client's cache holds the prefix of every leaf that has records (`labels`,
one get a leaf), or their nodes as well (`holders`, one RPC a leaf: the kindest case), or nothing
(`nothing`: one get more for every inner node that meets the box and parts records). Gets run
alpha = 4 at once for a limit, from a leaf that depends on the client and none too many, and all at
once for all.
Relays of a get are spread evenly by its hash and do not count as asked: only the holders do.
"""

from functools import partial
from random import Random
from typing import Literal

import numpy as np

from bench.rivals.model import (
    ALPHA,
    PAGE_RECORDS,
    REPLICAS,
    Build,
    Cost,
    Flags,
    Floats,
    Ints,
    columns,
    enough,
    find_value,
    generator,
    matching,
)
from bench.rivals.zorder import Trie

Cache = Literal["labels", "holders", "nothing"]

_NAMES: dict[Cache, str] = {
    "labels": "PHT leaf 100, leaves cached",
    "holders": "PHT leaf 100, holders cached",
    "nothing": "PHT leaf 100, cold",
}


class PrefixHashTree:
    """The leaves in Z-order, each with the nodes that hold it."""

    def __init__(self, points: Floats, rng: Random, cache: Cache = "labels") -> None:
        records = columns(points)
        count = records.shape[1]
        self.name = _NAMES[cache]
        self._cache = cache
        self.trie = Trie(records, rng)
        self._records = np.ascontiguousarray(records[:, self.trie.order])
        held = self.trie.last - self.trie.first
        full = held > PAGE_RECORDS
        self._inner = np.flatnonzero(full)
        split_above = np.append(full, True)[self.trie.parent]  # the root has parent -1
        leaves = np.flatnonzero(~full & split_above)
        self.leaves: Ints = leaves[np.argsort(self.trie.first[leaves])]
        self.sizes: Ints = held[self.leaves]
        chance, copies = generator(rng), min(REPLICAS, count)
        self.holders: Ints = np.array(
            [chance.choice(count, copies, replace=False) for _ in self.leaves]
        )
        self.storage: Ints = np.bincount(
            self.holders.ravel(), np.repeat(self.sizes, self.holders.shape[1]), count
        ).astype(np.int64)
        self._rpc, self._rtt = (1.0, 1.0) if cache == "holders" else find_value(count)

    def query(self, low: Floats, high: Floats, limit: int, start: int) -> Cost:
        """Gets the leaves that meet the box."""
        touched = self.trie.touched(low, high)
        places = np.flatnonzero(touched[self.leaves])
        if len(places):
            places = np.roll(places, -(start % len(places)))
        inside = np.append(0, np.cumsum(matching(self._records, low, high)))
        nodes = self.leaves[places]
        hits = inside[self.trie.last[nodes]] - inside[self.trie.first[nodes]]
        asked = enough(hits, limit)
        rounds = -(-asked // ALPHA) if limit else min(asked, 1)
        gets = asked
        if self._cache == "nothing":
            inner, levels = self._above(touched, places[:asked])
            gets += inner
            rounds += levels
        served = self.holders[places[:asked], start % self.holders.shape[1]]
        hit_count = int(hits[:asked].sum())
        return Cost(gets * self._rpc, rounds * self._rtt, hit_count, np.unique(served))

    def _above(self, touched: Flags, places: Ints) -> tuple[int, int]:
        """Inner nodes over these leaves: how many, and how many on the longest way down."""
        wanted = np.zeros(self._records.shape[1] + 1, dtype=np.int64)
        wanted[self.trie.first[self.leaves[places]] + 1] = 1
        wanted = np.cumsum(wanted)
        inner = self._inner[touched[self._inner]]
        inner = inner[wanted[self.trie.last[inner]] > wanted[self.trie.first[inner]]]
        levels = np.zeros(self._records.shape[1] + 1, dtype=np.int64)
        np.add.at(levels, self.trie.first[inner], 1)
        np.add.at(levels, self.trie.last[inner], -1)
        return len(inner), int(np.cumsum(levels).max())


HOLDERS_CACHED: Build = partial(PrefixHashTree, cache="holders")
COLD: Build = partial(PrefixHashTree, cache="nothing")
