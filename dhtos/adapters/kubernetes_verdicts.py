"""What the machines of a snapshot say to a need: yes, or the reason why not.

What a need is compared with are columns that know who has the least, so whom an amount rules out is
the front of a column: a need costs as much as it rules out, whether it is like others or not.

A machine that many reasons rule out has one: they are marked in turn, and the last one counts.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import itemgetter
from typing import Protocol, TypeVar

import msgspec

from dhtos.core.hit import Hit
from dhtos.sched import Candidate, Need
from dhtos.sched.candidate import TOLERANCE

UNKNOWN = "dhtos: no machine of the fleet has this name"
TWICE = "dhtos: is the name of several machines"
FOREIGN = "dhtos: runs no node that grants"
ELSEWHERE = "dhtos: is not what dhtos.io/where asks for"
DEAR = "dhtos: costs more than dhtos.io/max-price, or says no price"
RESTS = "dhtos: has not granted a claim just now"
_IS = tuple([bytes(code == one for one in range(256)) for code in range(256)])
"""By code, the table that makes it 1 and all others 0."""
_DEL = "\x7f"
_NOWHERE = -1  # the place of a name that has none: behind the last
_Key = TypeVar("_Key", contravariant=True)


class Column:
    """A number of each machine, and the machines in its order."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self._order = sorted(range(len(values)), key=values.__getitem__)
        self._sorted = True

    def below(self, limit: float) -> list[int]:
        """The places of those that have less; O(found), and O(n) after a change."""
        value = self.values.__getitem__
        if not self._sorted:
            self._order.sort(key=value)
            self._sorted = True
        return self._order[: bisect_left(self._order, limit, key=value)]

    def put(self, at: int, value: float) -> None:
        """Change one."""
        self.values[at] = value
        self._sorted = False


@dataclass(slots=True, eq=False)
class Snapshot:
    """All machines with a name, as they were at `born`; `complete` if nobody was missed.

    `names` are in the order of the other lists. `elsewhere` are by predicate the places of those
    that do not match it. The rest is made of those.
    """

    born: float
    names: list[str]
    hits: list[Hit]
    candidates: list[Candidate]
    complete: bool
    twice: frozenset[str] = frozenset()
    index: dict[str, int] = field(init=False)
    foreign: list[int] = field(init=False)
    elsewhere: dict[str, list[int]] = field(default_factory=dict)
    _amounts: dict[str, tuple[Column, Column]] = field(default_factory=dict)
    _rebates: Column | None = None

    def __post_init__(self) -> None:
        # Copies, since what lies side by side is found faster than what is scattered over records.
        names = [name.encode().decode() for name in self.names]
        self.index = dict(zip(names, range(len(names)), strict=True))
        self.foreign = [at for at, hit in enumerate(self.hits) if hit.record.is_foreign]

    @property
    def asked(self) -> list[str]:
        """The resources that were asked for."""
        return list(self._amounts)

    def amounts(self, name: str) -> tuple[Column, Column]:
        """What is free of a resource, and what there is of it; -1 where that is not said.

        O(n log n) for the first to ask.
        """
        found = self._amounts.get(name)
        if found is None:
            free = Column([one.free.get(name, -1.0) for one in self.candidates])
            capacity = Column([one.capacity.get(name, -1.0) for one in self.candidates])
            found = self._amounts[name] = free, capacity
        return found

    def rebates(self) -> Column:
        """Prices below zero, so that the dear have least, as have those that say none."""
        if self._rebates is None:
            prices = [one.price for one in self.candidates]
            self._rebates = Column([-float("inf") if price is None else -price for price in prices])
        return self._rebates

    def take(self, at: int, need: Need) -> None:
        """A need was granted there: so much less is free."""
        candidate = self.candidates[at]
        left = {name: has - need.resources.get(name, 0.0) for name, has in candidate.free.items()}
        self.candidates[at] = replace(candidate, free=left)
        for name, (free, _) in self._amounts.items():
            free.put(at, self.candidates[at].free.get(name, -1.0))


class Verdicts:
    """What each machine of a snapshot says to one need: the code of a reason, 0 for yes."""

    def __init__(self, index: dict[str, int]) -> None:
        self._index = index
        self._codes = bytearray(len(index) + 1)  # the last one is that of unknown names
        self._reasons = [""]
        self._hopeless: set[int] = set()  # what nothing that ends elsewhere will change
        self.mark([_NOWHERE], UNKNOWN, hopeless=True)

    def mark(self, places: Iterable[int], reason: str, *, hopeless: bool) -> None:
        """Rule machines out, whatever was said of them before."""
        code = len(self._reasons)
        self._reasons.append(reason)
        if hopeless:
            self._hopeless.add(code)
        codes = self._codes
        for at in places:
            codes[at] = code

    def able(self, names: Sequence[str]) -> list[str]:
        """Those that can."""
        return list(compress(names, self._of(names).translate(_IS[0])))

    def sort(self, names: Sequence[str]) -> tuple[list[str], list[bytes], list[bytes]]:
        """Those that can; the others with their reasons, as pieces of JSON; those that never will.

        What is in both is written once.
        """
        codes = self._of(names)
        failed: list[bytes] = []
        never: list[bytes] = []
        for code, reason in enumerate(self._reasons[1:], 1):
            if code in codes:
                pieces = _members(compress(names, codes.translate(_IS[code])), reason)
                for found in (failed, never) if code in self._hopeless else (failed,):
                    found += (b",", *pieces) if found else pieces
        return list(compress(names, codes.translate(_IS[0]))), failed, never

    def _of(self, names: Sequence[str]) -> bytes:
        try:
            places = _each(self._index, names)
        except KeyError:
            places = [self._index.get(name, _NOWHERE) for name in names]
        return bytes(_each(self._codes, places))


class _Items(Protocol[_Key]):
    def __getitem__(self, key: _Key, /) -> int: ...


def _each(items: _Items[_Key], keys: Sequence[_Key]) -> Sequence[int]:
    """Several items; one subscript for all is twice as fast as a loop."""
    if len(keys) < 2:
        return [items[key] for key in keys]
    found: tuple[int, ...] = itemgetter(*keys)(items)
    return found


def _members(names: Iterable[str], reason: str) -> tuple[bytes, bytes]:
    """What says the same of all names: escaped at once, DEL between them has no name."""
    value = b":" + msgspec.json.encode(reason)
    keys = msgspec.json.encode(_DEL.join(names))
    return keys.replace(_DEL.encode(), b'"' + value + b',"'), value


def judge(
    snapshot: Snapshot, need: Need, *, elsewhere: Iterable[int] = (), resting: Iterable[int] = ()
) -> Verdicts:
    """What all machines say to a need; `elsewhere` are those that its `where` does not match.

    As `Candidate.refusal` says of one machine; the reasons that count most come last.
    """
    found = Verdicts(snapshot.index)
    found.mark(resting, RESTS, hopeless=False)
    if need.max_price is not None:
        found.mark(snapshot.rebates().below(-need.max_price), DEAR, hopeless=True)
    for name, amount in reversed(list(need.resources.items())):
        least = amount - TOLERANCE
        free, capacity = snapshot.amounts(name)
        found.mark(free.below(least), f"dhtos: not enough {name} free", hopeless=False)
        found.mark(capacity.below(least), f"dhtos: not enough {name} in all", hopeless=True)
        found.mark(capacity.below(0), f"dhtos: does not say its {name}", hopeless=True)
    found.mark(elsewhere, ELSEWHERE, hopeless=True)
    found.mark(snapshot.foreign, FOREIGN, hopeless=True)
    found.mark([snapshot.index[name] for name in snapshot.twice], TWICE, hopeless=True)
    return found
