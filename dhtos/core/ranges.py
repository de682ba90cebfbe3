"""Which ranges of ids deserve a lookup: those not looked into for long, those without anybody.

A range is all ids that share exactly i leading bits with our own. Refreshing goes by ranges, not
by buckets, as far as our nearest contact (Maymounkov and Mazieres 2002, section 2.3: u "refreshes
all of its k-buckets further away than its closest neighbor"): a table of few contacts is one
bucket that is not split yet, and a single lookup for it could go to our own half of the space
and never learn that there is another. All that is nearer than our nearest contact is one range,
for which our own id stands.

This module must not know who the contacts are; `RoutingTable.shares` tells where they are.
"""

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from dhtos.core.ids import ID_BITS, ID_BYTES

if TYPE_CHECKING:
    from random import Random

_NEVER = float("-inf")


class Ranges:
    """When a lookup went last into each range around `own_id`.

    `shares` is, in all methods, the set of the ranges in which somebody is known.
    """

    __slots__ = ("_own", "_own_id", "_touched")

    def __init__(self, own_id: bytes) -> None:
        assert len(own_id) == ID_BYTES
        self._own_id = own_id
        self._own = int.from_bytes(own_id)
        self._touched: dict[int, float] = {}

    def touch(self, target: bytes, now: float) -> None:
        """A lookup of `target` starts: its range needs no refresh for a while."""
        share = ID_BITS - (int.from_bytes(target) ^ self._own).bit_length()
        self._touched[share] = max(self._touched.get(share, _NEVER), now)

    def stale(
        self, shares: AbstractSet[int], now: float, *, interval_s: float, rng: "Random"
    ) -> list[bytes]:
        """A random id of each range that saw no `touch` for so long, the farthest range first.

        A range is stale until it is touched: looking up these ids is also how to join.
        """
        touched = self._touched
        nearest = max(shares, default=-1)
        targets = [
            self._random_id(share, rng)
            for share in range(nearest + 1)
            if now - touched.get(share, _NEVER) >= interval_s
        ]
        near = max((at for share, at in touched.items() if share > nearest), default=_NEVER)
        if now - near >= interval_s:
            targets.append(self._own_id)
        return targets

    def empty(self, shares: AbstractSet[int], rng: "Random") -> list[bytes]:
        """A random id of each range farther than our nearest contact in which nobody is known."""
        return [
            self._random_id(share, rng)
            for share in range(max(shares, default=0))
            if share not in shares
        ]

    def _random_id(self, share: int, rng: "Random") -> bytes:
        """A uniform id of those that share exactly `share` bits with ours."""
        free = ID_BITS - 1 - share
        fixed = self._own >> free ^ 1
        return (fixed << free | rng.getrandbits(free)).to_bytes(ID_BYTES)

    def check(self) -> None:
        """Assert the bound."""
        assert all(0 <= share <= ID_BITS for share in self._touched)
