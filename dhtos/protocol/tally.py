"""Which subtrees were answered for, by how many members, and how many matches they told of.

With `verify=r` a subtree is asked r times, each time of another member: the first is voice 1. What
one voice covers lies inside what the voice before it covered, because each is asked just that.
"""

from bisect import bisect_left, bisect_right

from dhtos.core.ids import Prefix


class Tally:
    """What each voice covered, and the matches it told of."""

    __slots__ = ("_told",)

    def __init__(self, voices: int) -> None:
        self._told: list[dict[Prefix, int]] = [{} for _ in range(voices)]

    def add(self, voice: int, covers: Prefix, matches: int) -> None:
        """A member answered for `covers`."""
        told = self._told[voice - 1]
        told[covers] = max(matches, told.get(covers, 0))

    def holds(self, voice: int, prefix: Prefix) -> bool:
        """Whether a voice answered for all of `prefix` at once."""
        told = self._told[voice - 1]
        lengths = {p.length for p in told if p.length <= prefix.length}
        return any(Prefix(prefix.value >> (prefix.length - n), n) in told for n in lengths)

    def total(self, keys: list[bytes]) -> int:
        """How many machines match, as all voices together know; `keys` are those that came.

        A subtree has as many as the voice that knew of most, or as many as came from all of
        them: two members that each miss another record are both right about what they hold.
        """
        first = self._told[0]
        if len(self._told) == 1:
            return sum(first.values())
        came = sorted(keys)
        inside: dict[Prefix, int] = {}
        for told in reversed(self._told):
            deeper = sorted(inside, key=lambda prefix: prefix.first)
            starts = [prefix.first for prefix in deeper]
            best = {}
            for prefix, matches in told.items():
                low = bisect_left(starts, prefix.first)
                high = bisect_right(starts, prefix.last)
                summed = sum(inside[p] for p in deeper[low:high] if prefix.covers(p))
                arrived = bisect_right(came, prefix.last) - bisect_left(came, prefix.first)
                best[prefix] = max(matches, summed, arrived)
            inside = best
        return sum(inside.values())
