"""Greedy routing on a ring of nodes whose long links reach 1, 2, 4, ... nodes ahead.

This is the best that the links of Mercury (harmonic distances) and of a skip graph (random
levels) approach: a node `d` ahead is reached in as many hops as `d` has one bits, so in half of
log2 N on average and in log2 N at most.
"""

import numpy as np

from bench.rivals.model import Ints


def hops(distance: Ints) -> Ints:
    """RPCs to the nodes so far ahead."""
    return np.bitwise_count(distance).astype(np.int64)


def relays(origin: Ints, distance: Ints, size: int) -> Ints:
    """The positions passed on the ways from each origin, each end included, with repeats."""
    passed = [np.empty(0, dtype=np.int64)]
    at = origin.copy()
    for bit in range(size.bit_length() - 1, -1, -1):
        moves = (distance >> bit & 1).astype(np.bool_)
        at = np.where(moves, (at + (1 << bit)) % size, at)
        passed.append(at[moves])
    return np.concatenate(passed)
