"""SCRAP (Ganesan, Yang, Garcia-Molina, WebDB 2004): one Hilbert curve, range-partitioned.

The curve runs over all attributes; each node owns the stretch from its record to the next one,
so everybody holds one record, and equal positions are split perfectly. A query must ask every
node whose stretch meets the box: the client knows the clusters of the box, and clusters with no
other node between them are one. Each cluster costs a routing in the skip graph from the end of
the one before, d nodes behind it, and one RPC per node walked along the ring. A query with a limit
begins at the first cluster after the asking node and goes on in one line; a query for all
is split into alpha = 4 such lines, each routed from the asking node, which run at once.
"""

from random import Random

import numpy as np

from bench.rivals import hilbert, ring
from bench.rivals.model import (
    ALPHA,
    Cost,
    Flags,
    Floats,
    Ints,
    cells,
    columns,
    enough,
    generator,
    matching,
    others,
    overlapping,
)
from dhtos.kernels import hilbert_encode

_KEY_BITS_MAX = 48
_CELL_BITS_MAX = 16


class Scrap:
    """Nodes in the order of the curve; a node's index is its place on the ring."""

    name = "SCRAP, one Hilbert curve"

    def __init__(self, points: Floats, rng: Random) -> None:
        records = columns(points)
        self._dimensions, count = records.shape
        self._bits = max(1, min(_CELL_BITS_MAX, _KEY_BITS_MAX // self._dimensions))
        found = cells(records, self._bits)
        keys = [hilbert_encode(row, self._bits) for row in found.T.tolist()]
        key = np.array(keys, dtype=np.int64)
        order = np.lexsort((generator(rng).permutation(count), key))
        self._records = np.ascontiguousarray(records[:, order])
        self._key = key[order]
        self._own = np.ascontiguousarray(found[:, order])
        self._gap_owner, self._gap_low, self._gap_high = self._gaps()
        self.storage: Ints = np.ones(count, dtype=np.int64)

    def _gaps(self) -> tuple[Ints, hilbert.Cells, hilbert.Cells]:
        """The empty stretch after each node's record as boxes, with their owners."""
        width = self._dimensions * self._bits
        begin = np.append(self._key + 1, 0)  # before the first record the last node owns
        end = np.append(self._key[1:], [1 << width, self._key[0]])
        order, owner, first = hilbert.aligned_blocks(begin, end, width)
        owner[owner == len(self._key)] = len(self._key) - 1
        return owner, *hilbert.block_boxes(order, first, self._dimensions, self._bits)

    def touched(self, low: Floats, high: Floats) -> Flags:
        """Which nodes own a part of the curve inside the box."""
        bottom, top = cells(low, self._bits), cells(high, self._bits)
        last = (1 << self._bits) - 1
        nodes = overlapping(self._own, self._own, bottom, top, last)
        gaps = overlapping(self._gap_low, self._gap_high, bottom, top, last)
        nodes[self._gap_owner[gaps]] = True
        return nodes

    def query(self, low: Floats, high: Floats, limit: int, start: int) -> Cost:
        """Follows the curve from the asking node, cluster after cluster."""
        count = len(self._key)
        nodes = np.flatnonzero(self.touched(low, high))
        nodes = np.roll(nodes, -int(np.searchsorted(nodes, start)))
        hits = matching(self._records[:, nodes], low, high).astype(np.int64)
        asked = enough(hits, limit)
        nodes, hits = nodes[:asked], hits[:asked]
        origin = np.append(start, nodes[:-1])[: len(nodes)]
        lanes = self._lanes(ring.hops((nodes - origin) % count), limit)
        origin[lanes] = start
        distance = (nodes - origin) % count
        hops = ring.hops(distance)
        served = others(ring.relays(origin, distance, count), start)
        rounds = np.add.reduceat(hops, lanes).max() if len(hops) else 0
        return Cost(int(hops.sum()), int(rounds), int(hits.sum()), served)

    @staticmethod
    def _lanes(hops: Ints, limit: int) -> Ints:
        """Where the lines that run at once begin, so that they are about equally long."""
        count = ALPHA if limit == 0 and len(hops) >= ALPHA else min(1, len(hops))
        if count == 0:
            return np.empty(0, dtype=np.int64)
        ends = np.cumsum(hops)
        begins = np.searchsorted(ends, ends[-1] * np.arange(count) // count, "right")
        return np.unique(np.append(0, np.minimum(begins[1:], len(hops) - 1)))
