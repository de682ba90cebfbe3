"""A random sample of all matches, for about the price of a limit: a few groups, found by lot.

"The first k" are those of the first groups asked: machines of one kind, the same for everybody who
asks. To draw each of k machines by itself would be even, and would ask up to k groups. Between them
lies cluster sampling. A few *lots* go down the tree; every member that is asked on their way also
says how many matches its own group has, and those count as well:

    lots at a subtree --ask a member--> its group (so many matches) + sibling subtrees (weights)
         ^                                   |                           |
         `---------- a lot goes on into one of these, or stops here -----'
                     the group is credited with its share, whichever way the lots go

Lots are dealt by systematic sampling in key order (Madow 1949), so they spread over the kinds of
machines. The weight of a subtree is a guess, and is put right when somebody there answers: its lots
then count for as much more or less as was found there than expected (Hansen and Hurwitz 1943). At
the end each group gives as many of its matches as its credit is worth; within a group the order is
that of a keyed hash, which is even. What is left uneven is what a few lots cannot put right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import ceil, sqrt
from typing import TYPE_CHECKING

from dhtos.core.contact import Contact
from dhtos.core.hit import Hit
from dhtos.core.limits import SAMPLE_MAX
from dhtos.core.predicate import Predicate
from dhtos.errors import UsageError
from dhtos.protocol.answer import Item, Question
from dhtos.protocol.frontier import FindResult, WalkItem
from dhtos.protocol.heard import Heard
from dhtos.protocol.operation import Operation
from dhtos.protocol.select import NONCE_BYTES, Shuffle
from dhtos.protocol.union import Wish
from dhtos.protocol.walk import Walk

if TYPE_CHECKING:
    from random import Random

    from dhtos.protocol.hub import Hub

LOTS = 2  # more ask more and are more even: docs/explanation/decisions.md has the figures
_LEAST = 1 / 64  # expected in a subtree that summaries do not rule out
_IMPORTANCE_MAX = 1e6  # of one lot, whatever members say


def sample(
    hub: "Hub", predicate: Predicate, count: int, now: float, *, strict: bool = False
) -> Operation[FindResult]:
    """Draw `count` matches at random, or take all where there are no more.

    Raises UsageError for a count that cannot be drawn, or a predicate that others would refuse.
    """
    check_size(count)
    question = Wish(predicate, count, strict=strict).question(hub, hub.schema)
    if question is None:
        raise UsageError("only machines of another schema version can match; use find")
    shuffle = Shuffle(hub.core.rng.randbytes(NONCE_BYTES))
    return Sampling(hub, replace(question, select=shuffle), now).operation


def check_size(count: int) -> None:
    """Raise UsageError for a number of machines that cannot be drawn at once."""
    if type(count) is not int or not 1 <= count <= SAMPLE_MAX:
        raise UsageError(f"a sample has 1..{SAMPLE_MAX} machines, got {count!r}")


@dataclass(slots=True)
class _Group:
    """An answered part: which of its matches came, in random order, and what they stand for."""

    keys: list[bytes]
    credit: float = 0.0


@dataclass(frozen=True, slots=True)
class _Lots:
    """The lots that lie in a subtree, and the importance of each."""

    number: int
    importance: float = 1.0


class Sampling(Walk):
    """One running sample: a walk that follows lots instead of the largest yield."""

    def __init__(self, hub: "Hub", question: Question, now: float) -> None:
        self._lots: dict[WalkItem, _Lots] = {}
        self._groups: list[_Group] = []
        self._named: list[WalkItem] = []  # subtrees that the last answer named
        self._weights: dict[WalkItem, float] = {}
        self._whole = 0.0  # weight of all that there is, as the first answer had it
        super().__init__(hub, question, now)

    def _begin(self, items: list[WalkItem], now: float, *, locally: bool) -> None:
        for item in items:
            self._lots[item] = _Lots(LOTS)
        super()._begin(items, now, locally=locally)

    # --- whom to ask ------------------------------------------------------------------------------

    def _next(self) -> WalkItem | None:
        drawn = [item for item in self._waiting if item in self._lots]
        return max(drawn, key=lambda item: self._lots[item].number, default=None)

    def _question(self, _item: WalkItem) -> Question:
        return self.question

    def _satisfied(self) -> bool:
        """Whether enough came; if not, lots are dealt again among what is left to be asked."""
        if self._active or any(item in self._lots for item in self._waiting):
            return False
        if self._harvest.full or not self._waiting:
            return True
        left = sum(self._weights[item] for item in self._waiting)
        share = left / self._whole if self._whole else 1.0
        self._deal(_Lots(LOTS, min(share, _IMPORTANCE_MAX)), 0, self._waiting)
        return False

    # --- answers ----------------------------------------------------------------------------------

    def _settle(self, item: WalkItem, heard: Heard, now: float) -> bool:
        """Keep all matches that came: which of them are drawn is decided at the end."""
        assert heard.covers is not None
        self._named = []
        if item.after is None:
            self._tally.add(item.voice, heard.covers, heard.matches)
        group = _Group([])
        for found in heard.hits:
            if found[0] not in self.found:
                group.keys.append(found[0])
            if not self._harvest.knows(found):
                self._harvest.keep(found, now)
        self._groups.append(group)
        return True

    def _add(self, told: Item, parent: WalkItem) -> None:
        """A subtree may be dealt lots.

        Its weight lies between what is expected there and how many machines there are: estimates
        that miss what they count on would leave some matches no chance at all (a defensive
        mixture, Hesterberg 1995).
        """
        before = len(self._waiting)
        super()._add(told, parent)
        for item in self._waiting[before:]:
            count = max(told.count, 1)
            self._weights[item] = sqrt(min(max(told.estimate, _LEAST), count) * count)
            self._named.append(item)

    def _go_on(self, item: WalkItem, heard: Heard, again: Contact | None) -> None:
        """Deal the lots of an answered subtree among its group and the subtrees it named."""
        lots = self._lots.pop(item)
        found = heard.matches + sum(self._weights[inner] for inner in self._named)
        if item not in self._weights:
            self._whole = found
        elif item.after is None:
            importance = lots.importance * found / self._weights[item]
            lots = replace(lots, importance=min(importance, _IMPORTANCE_MAX))
        if found:
            self._groups[-1].credit += lots.number * lots.importance * heard.matches / found
        self._deal(lots, heard.matches, self._named)
        if heard.after is not None and heard.covers is not None:
            contacts = [] if again is None else [again, *item.contacts]
            page = item.page(heard.covers, heard.after, contacts)
            self._weights[page] = max(heard.matches - len(heard.hits), _LEAST)
            self._waiting.append(page)

    def _deal(self, lots: _Lots, here: int, items: Sequence[WalkItem]) -> None:
        """Deal lots among an answered group with so many matches and some subtrees."""
        parts = sorted(items, key=lambda item: item.prefix.first)
        weights = [self._weights[item] for item in parts]
        dealt = shares(lots.number, [*weights, float(here)], self.core.rng)
        for part, number in zip(parts, dealt, strict=False):
            if number:
                self._lots[part] = replace(lots, number=number)

    # --- the end ----------------------------------------------------------------------------------

    def _hits(self) -> list[Hit]:
        """Of each group as many as it stands for, as far as they came."""
        limit = min(self.question.limit, len(self.found))
        taken = [0] * len(self._groups)
        while left := limit - sum(taken):
            rooms = [len(g.keys) - n for g, n in zip(self._groups, taken, strict=True)]
            worth = [g.credit * (room > 0) for g, room in zip(self._groups, rooms, strict=True)]
            dealt = shares(left, worth if any(worth) else rooms, self.core.rng)
            taken = [n + min(d, r) for n, d, r in zip(taken, dealt, rooms, strict=True)]
        drawn = [key for g, n in zip(self._groups, taken, strict=True) for key in g.keys[:n]]
        return [self.found[key][2] for key in sorted(drawn, key=self._harvest.place)]


def shares(count: int, weights: Sequence[float], rng: "Random") -> list[int]:
    """`count` things dealt in proportion to weights: each part its share, rounded down or up.

    Systematic sampling: one random start, then equal steps along the weights. Nothing is dealt
    where all weights are 0.

    >>> from random import Random
    >>> shares(4, [1.0, 0.0, 3.0], Random(1))
    [1, 0, 3]
    """
    reached = list(accumulate(weights))
    if not count or not any(weights):
        return [0] * len(weights)
    start, done, found = rng.random(), 0, []
    for place in reached:
        at_end = place == reached[-1]  # where rounding must not lose the last step
        upto = count if at_end else min(count, ceil(place / reached[-1] * count - start))
        found.append(upto - done)
        done = upto
    return found
