"""What a walk has brought home, and what it may truthfully say of it at its end.

The walk decides whom to ask; here is what came: the hits, the newest version of each once, how many
matches the answered subtrees have, and the coverage that follows from what was left unanswered.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dhtos.core.coverage import Coverage
from dhtos.core.hit import Hit
from dhtos.core.record import Record
from dhtos.protocol.answer import Question
from dhtos.protocol.frontier import FindResult, WalkItem, write_cursor
from dhtos.protocol.tally import Tally

if TYPE_CHECKING:
    from dhtos.protocol.explain import Step
    from dhtos.protocol.heard import Found
    from dhtos.protocol.hub import Hub


@dataclass(slots=True)
class Effort:
    """What a walk has cost: requests, the longest chain of them, subtrees passed over unasked."""

    asked: int = 0
    rounds: int = 0
    pruned: int = 0


@dataclass(slots=True)
class Unanswered:
    """What a walk ends without: what it did not want any more, what failed, pages held back."""

    left: list[WalkItem]
    failed: list[WalkItem]
    resume: list[WalkItem] = field(default_factory=list)

    @property
    def missing(self) -> list[WalkItem]:
        """The subtrees that nobody answered for, though somebody should."""
        return [item for item in self.failed if item.voice == 1]


class Harvest:
    """The hits and figures of one walk."""

    def __init__(self, hub: "Hub", question: Question, given: Collection[bytes]) -> None:
        self.question = question
        self.found: dict[bytes, tuple[Record, float, Hit]] = {}
        self.tally = Tally(question.voices)
        self.given = frozenset(given)  # hits of earlier pages that may come again
        self.effort = Effort()
        self._hub = hub
        self._max_age = 0.0

    # --- hits -------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the limit is met; an order may want others all the same."""
        return 0 < self.question.limit <= len(self.found)

    def knows(self, found: "Found") -> bool:
        """Whether this version of a record, or a newer one, came before."""
        key, record, _ = found
        held = self.found.get(key)
        return key in self.given or (held is not None and held[0].seq >= record.seq)

    def keep(self, found: "Found", now: float) -> Hit:
        """Take a hit, or a newer version of one."""
        key, record, born = found
        hit = self._hub.hit(record, born, now)
        self.found[key] = (record, born, hit)
        self._max_age = max(self._max_age, now - born)
        return hit

    def place(self, key: bytes) -> list[Any]:
        """Where a hit stands in the order that was asked for."""
        return self.question.place(key, self.found[key][0], self.question.bound.schema)

    def worst(self) -> list[Any]:
        """The place of the last hit that an ordered answer would have now."""
        return sorted(self.place(key) for key in self.found)[self.question.limit - 1]

    def ordered(self) -> list[Hit]:
        """The best hits, as many as were asked for."""
        best = sorted(self.found, key=self.place)[: self.question.limit or None]
        return [self.found[key][2] for key in best]

    # --- the end ----------------------------------------------------------------------------------

    def result(
        self, hits: list[Hit], unanswered: Unanswered, steps: "tuple[Step, ...]" = ()
    ) -> FindResult:
        """The end of the query with these hits."""
        matches = self.tally.total(list(self.found))
        last = self.worst() if self.question.order is not None and self.full else None
        cursor = None
        if self.question.select is None:
            cursor = write_cursor(
                unanswered.left + unanswered.missing + unanswered.resume,
                last,
                self.question.voices,
                self.given.union(self.found),
            )
        measure = self.question.measure
        partial = None if measure is None else measure.merged(self.tally.partials())
        coverage = self._coverage(unanswered, matches)
        return FindResult(tuple(hits), coverage, matches, cursor, steps, partial)

    def _coverage(self, unanswered: Unanswered, matches: int) -> Coverage:
        left, failed, resume = unanswered.left, unanswered.missing, unanswered.resume
        missed = sum(item.weight for item in left + failed if item.voice == 1)
        voices = [self.question.voices, *(item.voice - 1 for item in unanswered.failed)]
        if self.question.order is None:  # else what is left was proved not to matter
            voices += [item.voice - 1 for item in left if item.voice > 1]
            voices += [item.voice for item in resume]
        return Coverage(
            fraction=matches / (matches + missed) if missed else 1.0,
            complete=not left and not failed and not resume,
            limited=bool(left or resume) and not failed,
            failed_prefixes=tuple(item.prefix for item in failed),
            max_age_s=self._max_age,
            asked=self.effort.asked,
            rtt=self.effort.rounds,
            pruned=self.effort.pruned,
            verified=min(voices),
        )
