"""A central index: one table of all records on one server, and no network to speak of.

This is the sober baseline, and it wins on messages and round trips for as long as one machine is
enough, can be reached by all, and may fail: a query is one RPC, plus one per further page of 100
records, alpha = 4 pages at a time. All the storage and all the load are that machine's.
"""

from random import Random

import numpy as np

from bench.rivals.model import ALPHA, PAGE_RECORDS, Cost, Floats, Ints, columns, matching

_SERVER = 0


class Central:
    """Every record, on the first node."""

    name = "central table, one server"

    def __init__(self, points: Floats, rng: Random) -> None:
        self._records = columns(points)
        self.storage: Ints = np.zeros(self._records.shape[1], dtype=np.int64)
        self.storage[_SERVER] = self._records.shape[1]

    def query(self, low: Floats, high: Floats, limit: int, start: int) -> Cost:
        """Asks the server, which stops at the limit."""
        hits = int(matching(self._records, low, high).sum())
        hits = min(hits, limit) if limit else hits
        further = max(0, -(-hits // PAGE_RECORDS) - 1)
        return Cost(1 + further, 1 + -(-further // ALPHA), hits, np.array([_SERVER]))
