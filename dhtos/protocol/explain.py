"""What a walk did, step by step, for who wants to know why an answer cost what it cost.

A walk that is not to be explained keeps nothing: its `Silence` takes the same words and forgets
them. A step is one request, or the answer out of the own view. It is written down when it is
asked, and completed when its answer has come or is given up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING

from dhtos.core.bound import Bound
from dhtos.core.curve import cells_of
from dhtos.core.ids import Endpoint, Prefix
from dhtos.core.scale import POSITION_BITS, Codes, Linear, Log2, Log2p1
from dhtos.core.schema import Attribute, Schema
from dhtos.protocol.calls import Call

if TYPE_CHECKING:
    from dhtos.protocol.answer import Answer, Item
    from dhtos.protocol.frontier import WalkItem


class Outcome(StrEnum):
    """How a step ended."""

    ANSWERED = "answered"
    HANDED_ON = "handed on"  # covers nothing of it, and named nearer contacts
    PROVE = "asked for proof"  # of our address; the same is asked again with its cookie
    JOINING = "no place yet"  # or it has spoken for this subtree before
    UNREADABLE = "unreadable"
    SILENT = "no answer"
    DROPPED = "not awaited"  # another answer came first, or the walk ended


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a walk; `asked` is None for what the own view answered.

    `expected` and `bound` are why it was its turn: the matches that summaries let expect, and the
    best value under the order. `voice` 2 is a second member for the same subtree. `start_s` counts
    from the beginning of the walk. `found` are subtrees to be asked next with what they promise;
    `cut` those in which no key can match; `pruned` counts those that a summary ruled out. `schema`
    says what the bits of the prefix mean.
    """

    prefix: Prefix
    asked: Endpoint | None
    start_s: float
    round: int
    voice: int = 1
    page: bool = False
    hedge: bool = False
    expected: float = 1.0
    bound: float | None = None
    outcome: Outcome = Outcome.DROPPED
    took_s: float | None = None
    late: bool = False
    covers: Prefix | None = None
    matches: int = 0
    hits: int = 0
    found: tuple[tuple[Prefix, float], ...] = ()
    cut: tuple[Prefix, ...] = ()
    pruned: int = 0
    schema: Schema | None = field(default=None, repr=False, compare=False)


class Silence:
    """Takes what a walk says and keeps nothing of it."""

    __slots__ = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """What was kept, in the order of asking."""
        return ()

    def local(self, item: "WalkItem", found: "Answer", now: float) -> None:
        """The own view answered."""

    def asked(self, call: Call) -> None:
        """A request was sent."""

    def ended(self, call: Call, outcome: Outcome, now: float) -> None:
        """It came to this."""

    def answered(self, call: Call, covers: Prefix, told: "Told", now: float) -> None:
        """It was answered."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer brought."""

    matches: int
    hits: int
    items: "Sequence[Item]"
    pruned: int


class Trace(Silence):
    """Keeps the steps of one walk."""

    __slots__ = ("_bound", "_places", "_started", "_steps")

    def __init__(self, bound: Bound, now: float) -> None:
        self._bound = bound
        self._started = now
        self._steps: list[Step] = []
        self._places: dict[Call, int] = {}

    @property
    def steps(self) -> tuple[Step, ...]:
        """What was kept, in the order of asking."""
        return tuple(self._steps)

    def local(self, item: "WalkItem", found: "Answer", now: float) -> None:
        """The own view answered."""
        step = self._begun(item, None, now, 0)
        told = Told(found.matches, len(found.hits), found.items, found.pruned)
        self._steps.append(self._completed(step, found.covers[0], told))

    def asked(self, call: Call) -> None:
        """A request was sent."""
        item = call.tag[0]
        self._places[call] = len(self._steps)
        step = self._begun(item, call.endpoint, call.sent_at, item.round + 1)
        self._steps.append(replace(step, hedge=bool(item.open)))

    def ended(self, call: Call, outcome: Outcome, now: float) -> None:
        """It came to this."""
        place = self._places[call]
        self._steps[place] = replace(
            self._steps[place], outcome=outcome, took_s=now - call.sent_at, late=call.late
        )

    def answered(self, call: Call, covers: Prefix, told: Told, now: float) -> None:
        """It was answered."""
        place = self._places[call]
        self.ended(call, Outcome.ANSWERED, now)
        self._steps[place] = self._completed(self._steps[place], covers, told)

    def _begun(self, item: "WalkItem", endpoint: Endpoint | None, now: float, round_: int) -> Step:
        bound = item.bound if isfinite(item.bound) else None
        return Step(
            item.prefix,
            endpoint,
            now - self._started,
            round_,
            item.voice,
            page=item.after is not None,
            expected=item.estimate,
            bound=bound,
            schema=self._bound.schema,
        )

    def _completed(self, step: Step, covers: Prefix, told: Told) -> Step:
        inner = [item for item in told.items if step.prefix.covers(item.prefix)]
        lengths = range(step.prefix.length + 1, covers.length + 1)
        siblings = [Prefix.of(covers.first, length).sibling() for length in lengths]
        return replace(
            step,
            outcome=Outcome.ANSWERED,
            covers=covers,
            matches=told.matches,
            hits=told.hits,
            found=tuple((item.prefix, item.estimate) for item in inner),
            cut=tuple(p for p in siblings if self._is_cut(p, inner)),
            pruned=told.pruned,
        )

    def _is_cut(self, prefix: Prefix, inner: "list[Item]") -> bool:
        """Whether no key there can match, and nobody of another schema version lives there."""
        named = not self._bound.speaks_of(prefix) and any(i.prefix == prefix for i in inner)
        return not named and not self._bound.intersects(prefix)


Meaning = tuple[float | None, float | None] | tuple[str, ...] | None


def narrowed(schema: Schema, prefix: Prefix) -> dict[str, Meaning]:
    """What the machines below a prefix have in common, for each attribute that it narrows.

    Numbers lie between two ends, of which None is open; words are those that are left; a text
    that is hashed is in one of so many parts. None stands for an attribute that no machine below
    the prefix has. An open lower end lets in machines that do not say.
    """
    found: dict[str, Meaning] = {}
    for attribute, (low, high) in zip(schema.keyed, cells_of(schema, prefix), strict=True):
        last = (1 << attribute.keyed_bits) - 1
        if (low, high) == (0, last):
            continue
        found[attribute.name] = None if high == 0 else _meaning(attribute, low, high)
    return found


def _meaning(attribute: Attribute, low: int, high: int) -> Meaning:
    scale = attribute.scale
    if isinstance(scale, Log2 | Log2p1 | Linear):
        shift = POSITION_BITS - attribute.keyed_bits
        least, most = attribute.value_bounds(low << shift, ((high + 1) << shift) - 1)
        return (least if isfinite(least) else None), (most if isfinite(most) else None)
    if isinstance(scale, Codes) and not scale.open:
        cells = [(word, attribute.cell(attribute.position(word))) for word in scale.words]
        return tuple(word for word, cell in cells if low <= cell <= high)
    return (f"1 in {(1 << attribute.keyed_bits) // (high - low + 1)}",)
