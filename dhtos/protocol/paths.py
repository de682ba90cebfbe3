"""One lookup over several disjoint paths, so that a liar on one of them decides little.

Theory of operation (Baumgart and Mies 2007, S/Kademlia, section 4.4). The k closest contacts we
know are dealt to d lookups, which share whom they have asked: nobody is asked on two paths, so
whoever misleads one of them is not asked by the others. What counts is what all of them found: the
contacts that are closest, and the best of the values that are believed. Under a shared key of a
cluster, where every liar can sign a value of its own, all of the k closest are heard: only their
number tells who was first.

It ends when all paths have ended; once more than half of them have a value, the others have as much
time again as has passed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.ids import Endpoint
from dhtos.core.limits import PATHS_MAX, VALUE_PATIENCE_S
from dhtos.errors import UsageError
from dhtos.protocol.ballot import Ballot
from dhtos.protocol.candidate import Candidate
from dhtos.protocol.lookup import Lookup, Watcher
from dhtos.protocol.replies import Reader, read_value
from dhtos.protocol.store import Held
from dhtos.protocol.timers import Timer

if TYPE_CHECKING:
    from dhtos.protocol.rpc import Core


@dataclass(frozen=True, slots=True)
class Way:
    """How lookups of one overlay go; a `reader` makes them lookups for a value.

    Over several paths they are thorough where that is said.
    """

    core: "Core"
    own_id: bytes
    watcher: Watcher
    k: int
    alpha: int
    reader: Reader | None
    thorough: bool = False

    def lookup(
        self,
        target: bytes,
        finish: Callable[[Any, float], None],
        asked: dict[Endpoint, Candidate] | None = None,
    ) -> Lookup:
        """A lookup that shares with others whom they have `asked`."""
        return Lookup(
            self.core,
            self.own_id,
            target,
            finish,
            self.watcher,
            k=self.k,
            alpha=self.alpha,
            value=self.reader is not None,
            reader=self.reader or read_value,
            asked=asked,
            thorough=self.thorough and asked is not None,
        )


class Paths:
    """Lookups towards one target; `finish(paths, now)` is called once, unless cancelled."""

    __slots__ = (
        "_finish", "_found", "_k", "_lookups", "_open", "_patience", "_timers", "done", "local",
        "started", "target",
    )  # fmt: skip

    def __init__(
        self, way: Way, target: bytes, finish: Callable[["Paths", float], None], count: int
    ) -> None:
        self.target = target
        self.done = False
        self.local: Held | None = None
        self.started = 0.0
        self._finish = finish
        self._k = way.k
        self._timers = way.core.timers
        asked: dict[Endpoint, Candidate] = {}
        self._lookups = [way.lookup(target, self._ended, asked) for _ in range(count)]
        self._open = count
        self._found = 0
        self._patience: Timer | None = None

    def start(self, contacts: list[Contact], now: float, local: Held | None = None) -> None:
        """Begin from `contacts`; `local` is our own copy of the value, one voice among others."""
        self.started = now
        self.local = local
        count = len(self._lookups)
        for number, lookup in enumerate(self._lookups):
            lookup.start(contacts[number::count], now)

    def cancel(self) -> None:
        """Forget everything: open calls are dropped and `finish` is never called."""
        self.done = True
        if self._patience is not None:
            self._patience.cancel()
        for lookup in self._lookups:
            lookup.cancel()

    def closest(self) -> list[Contact]:
        """The k closest contacts that answered on any path, closest first."""
        found = {candidate.contact.id: candidate.contact for candidate in self.answers()}
        return list(found.values())[: self._k]

    def answers(self) -> list[Candidate]:
        """Every candidate that answered on any path, closest first."""
        found = [candidate for lookup in self._lookups for candidate in lookup.answers()]
        return sorted(found, key=lambda candidate: candidate.distance)

    @property
    def best(self) -> Held | None:
        """The value that leads, if any was found."""
        helds = [candidate.held for candidate in self.answers()]
        return Ballot(held for held in [self.local, *helds] if held is not None).best

    def _ended(self, lookup: Lookup, now: float) -> None:
        self._open -= 1
        self._found += lookup.best is not None
        if not self._open:
            self._end(now)
        elif self._patience is None and 2 * self._found > len(self._lookups):
            wait = max(now - self.started, VALUE_PATIENCE_S)
            self._patience = self._timers.at(now + wait, self._end)

    def _end(self, now: float) -> None:
        if not self.done:
            self.done = True
            if self._patience is not None:
                self._patience.cancel()
            for lookup in self._lookups:
                if not lookup.done:
                    lookup.cancel()
            self._finish(self, now)

    def check(self) -> None:
        """Assert that no node was asked on two paths, and the invariants of each."""
        asked = [c.contact.endpoint for lookup in self._lookups for c in lookup.tried()]
        assert len(asked) == len(set(asked))
        assert self._open == sum(not lookup.done for lookup in self._lookups)
        for lookup in self._lookups:
            lookup.check()


Walk = Lookup | Paths


def check_paths(paths: int) -> None:
    """Raise UsageError unless so many paths can be walked."""
    if type(paths) is not int or not 1 <= paths <= PATHS_MAX:
        raise UsageError(f"paths must be 1..{PATHS_MAX}, got {paths!r}")
