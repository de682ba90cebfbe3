"""Which subtrees were answered for, by how many members, and how many matches they told of.

With `verify=r` a subtree is asked r times, each time of another member: the first is voice 1. What
one voice covers lies inside what the voice before it covered, because each is asked just that. A
subtree that was answered for twice by one voice counts once.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dhtos.core.ids import Prefix
from dhtos.protocol.aggregate import Partial


@dataclass(frozen=True, slots=True)
class _Told:
    """The matches of a subtree, and their aggregate where one was asked for."""

    matches: int
    partials: tuple[Partial, ...] = ()


class Tally:
    """What each voice covered, and the matches it told of."""

    __slots__ = ("_told",)

    def __init__(self, voices: int) -> None:
        self._told: list[dict[Prefix, _Told]] = [{} for _ in range(voices)]

    def add(self, voice: int, covers: Prefix, matches: int, partial: Partial | None = None) -> None:
        """A member answered for `covers`."""
        told = self._told[voice - 1]
        if covers not in told or told[covers].matches < matches:
            told[covers] = _Told(matches, () if partial is None else (partial,))

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
        return sum(told.matches for told in self._best(keys if len(self._told) > 1 else []))

    def partials(self) -> list[Partial]:
        """The aggregates of all subtrees, each once: of the voice that knew of most matches."""
        return [partial for told in self._best([]) for partial in told.partials]

    def _best(self, keys: list[bytes]) -> list[_Told]:
        """What is believed of each subtree; no two of them overlap."""
        came = sorted(keys)
        inside: dict[Prefix, _Told] = {}
        for told in reversed(self._told):
            deeper = _outermost(inside)
            starts = [prefix.first for prefix in deeper]
            best = {}
            for prefix in _outermost(told):
                low = bisect_left(starts, prefix.first)
                high = bisect_right(starts, prefix.last)
                parts = [inside[p] for p in deeper[low:high] if prefix.covers(p)]
                found = max(told[prefix], _together(parts), key=lambda one: one.matches)
                arrived = bisect_right(came, prefix.last) - bisect_left(came, prefix.first)
                best[prefix] = replace(found, matches=max(found.matches, arrived))
            inside = best
        return list(inside.values())


def _together(parts: list[_Told]) -> _Told:
    partials = [partial for part in parts for partial in part.partials]
    return _Told(sum(part.matches for part in parts), tuple(partials))


def _outermost(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Those that lie in no other, in key order."""
    found: list[Prefix] = []
    for prefix in sorted(prefixes, key=lambda p: (p.first, p.length)):
        if not found or not found[-1].covers(prefix):
            found.append(prefix)
    return found
