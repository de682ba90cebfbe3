"""Mercury (Bharambe et al., SIGCOMM 2004): one ring of nodes ("hub") per attribute.

The N nodes are dealt out to A hubs; every hub holds every record, in order of its attribute and
in equal parts, so a node holds about A records. Ties are split perfectly, which pure value
ranges cannot do. A query goes to the hub with the fewest records in its range, known for free:
one RPC into the hub when the asking node is in another, greedy routing to one end of the range,
then one RPC per node along the ring, strictly one after the other, until the range or the limit
ends. With a limit it begins at the end that is better, which is known for free too.
"""

from random import Random

import numpy as np

from bench.rivals import ring
from bench.rivals.model import (
    Cost,
    Floats,
    Ints,
    columns,
    enough,
    extra_pages,
    generator,
    matching,
    others,
)


class Mercury:
    """Hubs over the records; node `_first[h] + p` has position `p` in hub `h`."""

    name = "Mercury, ring per attribute"

    def __init__(self, points: Floats, rng: Random) -> None:
        self._records = columns(points)
        attributes, count = self._records.shape
        if count < attributes:
            raise ValueError(f"a hub per attribute needs {attributes} nodes, got {count}")
        chance = generator(rng)
        tie = chance.permutation(count)
        self.order = np.array([np.lexsort((tie, values)) for values in self._records])
        self._values = np.sort(self._records, axis=1)
        self._first = np.arange(attributes + 1) * count // attributes
        sizes = np.diff(self._first)
        self._doors = chance.integers(0, sizes, size=(count, attributes))
        self.storage: Ints = np.concatenate(
            [np.bincount(self._holders(hub, 0, count)) for hub in range(attributes)]
        )

    def _size(self, hub: int) -> int:
        return int(self._first[hub + 1] - self._first[hub])

    def _holders(self, hub: int, begin: int, end: int) -> Ints:
        """The positions in the hub that hold the ranks begin..end of its order."""
        holders: Ints = np.arange(begin, end) * self._size(hub) // self.order.shape[1]
        return holders

    def _range(self, hub: int, low: float, high: float) -> tuple[int, int]:
        """The ranks of the hub's order whose values lie in the closed range."""
        values = self._values[hub]
        return int(np.searchsorted(values, low)), int(np.searchsorted(values, high, "right"))

    def query(self, low: Floats, high: Floats, limit: int, start: int) -> Cost:
        """Walks the most selective hub."""
        ranges = [self._range(hub, low[hub], high[hub]) for hub in range(len(low))]
        hub = min(range(len(low)), key=lambda h: ranges[h][1] - ranges[h][0])
        begin, end = ranges[hub]
        size, count = self._size(hub), self.order.shape[1]
        found = matching(self._records[:, self.order[hub, begin:end]], low, high)
        holders = self._holders(hub, begin, end)
        first = min(begin, count - 1) * size // count
        hits = np.bincount(holders - first, weights=found, minlength=1).astype(np.int64)
        nodes = np.arange(first, first + len(hits))
        if enough(hits[::-1], limit) < enough(hits, limit):
            hits, nodes = hits[::-1], nodes[::-1]
        hits = hits[: enough(hits, limit)]

        at_home = self._first[hub] <= start < self._first[hub + 1]
        door = start - int(self._first[hub]) if at_home else int(self._doors[start, hub])
        way = np.array([(nodes[0] - door) % size])
        walked = len(hits) - 1
        rpc = int(not at_home) + int(ring.hops(way)[0]) + walked + extra_pages(hits)
        route = ring.relays(np.array([door]), way, size)
        asked = np.concatenate(([door], route, nodes[: len(hits)]))
        return Cost(rpc, rpc, int(hits.sum()), others(asked + self._first[hub], start))
