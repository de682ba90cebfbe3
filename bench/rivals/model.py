"""What a model of a rival design answers with, and the sums that all models share.

A model is built from the records of the network, one a node, and then asked queries: closed boxes
in [0, 1] per attribute. It runs no protocol: it finds which nodes the design would ask, in which
order, and counts. The asking node is a member of the network, so what it does by itself is free.
Every request with its reply is one RPC, and a reply carries up to 100 records: more cost an RPC
per page. Where a design leaves something open, the model takes the choice that is best for it,
and the network is always healthy and settled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64] | npt.NDArray[np.uint16]

PAGE_RECORDS = 100
"""Records that fit in one reply."""
ALPHA = 4
"""Requests in flight at once, where a design can have several."""
REPLICAS = 20
"""Nodes that hold a value in Kademlia (its k)."""

# A `find_value` of a Kademlia network of 10 ** x nodes (k = 20, alpha = 3), simulated.
_FIND_VALUE_NODES = (3.0, 4.0, 5.0)
_FIND_VALUE_RPC = (3.6, 5.2, 6.7)
_FIND_VALUE_RTT = (1.2, 1.7, 2.2)


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """What one query took; `asked` are the distinct nodes that others sent a request to."""

    rpc: float
    rtt: float
    hits: int
    asked: Ints


class Rival(Protocol):
    """A design, laid out over the records of a network."""

    name: str
    storage: Ints
    """Records held by each node."""

    def query(self, low: Floats, high: Floats, limit: int, start: int) -> Cost:
        """Cost of the matches within the closed box; at least `limit` of them, all when 0."""
        ...


Build = Callable[[npt.NDArray[np.float64], Random], Rival]


def columns(points: Floats) -> Floats:
    """The attributes of the records, one contiguous row each; checks their bounds."""
    if points.ndim != 2 or min(points.shape) < 1:
        raise ValueError(f"points must be records x attributes, got shape {points.shape}")
    if not ((points >= 0) & (points <= 1)).all():  # false for NaN too
        raise ValueError("points must lie in 0..1")
    return np.ascontiguousarray(points.T, dtype=np.float64)


def generator(rng: Random) -> np.random.Generator:
    """A numpy generator that continues the seed of `rng`."""
    return np.random.default_rng(rng.getrandbits(64))


def matching(records: Floats, low: Floats, high: Floats) -> Flags:
    """Which records, given as columns, lie in the closed box."""
    return overlapping(records, records, low, high)


def overlapping(
    box_low: Numbers, box_high: Numbers, low: Numbers, high: Numbers, top: float = 1
) -> Flags:
    """Which closed boxes, given as columns of corners within 0..top, meet the query's box."""
    found = np.ones(box_low.shape[1], dtype=np.bool_)
    for axis in range(len(low)):
        if low[axis] > 0:
            found &= box_high[axis] >= low[axis]
        if high[axis] < top:
            found &= box_low[axis] <= high[axis]
    return found


def cells(values: Floats, bits: int) -> npt.NDArray[np.uint16]:
    """The cells of 0..1 cut into 2 ** bits equal parts."""
    assert 1 <= bits <= 16
    size = 1 << bits
    return np.minimum(values * size, size - 1).astype(np.uint16)


def enough(hits: Ints, limit: int) -> int:
    """How many of the nodes, asked in this order, until their hits reach the limit (0: all)."""
    if limit == 0 or len(hits) == 0:
        return len(hits)
    return min(len(hits), int(np.searchsorted(np.cumsum(hits), limit)) + 1)


def others(nodes: Ints, start: int) -> Ints:
    """The distinct nodes among these, without the asking one."""
    return np.unique(nodes[nodes != start])


def extra_pages(hits: Ints) -> int:
    """Pages beyond the first of each reply."""
    return int(np.maximum(0, -(-hits // PAGE_RECORDS) - 1).sum())


def find_value(nodes: int) -> tuple[float, float]:
    """Mean RPCs and round trips of a Kademlia `find_value` among so many nodes."""
    size = np.log10(max(nodes, 1))
    rpc = float(np.interp(size, _FIND_VALUE_NODES, _FIND_VALUE_RPC))
    return rpc, float(np.interp(size, _FIND_VALUE_NODES, _FIND_VALUE_RTT))
