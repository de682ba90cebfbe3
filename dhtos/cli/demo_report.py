"""What the demo shows: every answer beside the truth, and what each column means."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dhtos.cli.demo_catalogue import Catalogue
from dhtos.cli.demo_queries import Query
from dhtos.cli.screen import Column, Screen
from dhtos.cli.wording import milliseconds, percent
from dhtos.core.coverage import Coverage

BROKEN_SHOWN_MAX = 5
UNMAPPED_SHOWN_MAX = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """One question, what came back, and what is wrong with it."""

    query: Query
    text: str
    found: int = 0
    true: int = 0
    stale: int = 0
    seconds: float = 0.0
    coverage: Coverage | None = None
    refusal: str = ""
    faults: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For programs: durations in milliseconds, as the columns."""
        coverage = self.coverage
        return {
            "title": self.query.title,
            "query": self.text,
            "limit": self.query.limit or None,
            "order_by": self.query.order_by or None,
            "matches": self.found,
            "true_matches": self.true,
            "stale": self.stale,
            "calls": coverage.asked if coverage else 0,
            "round_trips": coverage.rtt if coverage else 0,
            "ms": round(self.seconds * 1000, 3),
            "coverage": coverage_as_json(coverage) if coverage else None,
            "refusal": self.refusal or None,
            "faults": list(self.faults),
        }


def coverage_as_json(coverage: Coverage) -> dict[str, Any]:
    """A coverage with its prefixes as bit strings."""
    failed = [str(prefix) for prefix in coverage.failed_prefixes]
    return asdict(coverage) | {"failed_prefixes": failed}


def coverage_text(coverage: Coverage) -> str:
    """What an answer can say about its own completeness, in a word or two."""
    if coverage.complete:
        return "complete"
    if coverage.limited:
        return "limit met"
    return f"{percent(min(coverage.fraction, 0.999))}, gaps"


def show_catalogue(screen: Screen, catalogue: Catalogue) -> None:
    """Which columns are used, and what could not be."""
    used = ", ".join(c if c == a else f"{c} as {a}" for c, a in catalogue.columns.items())
    screen.say(f"{catalogue.source}: {len(catalogue.machines)} machines; columns {used}")
    if catalogue.unmapped:
        shown = ", ".join(f"{c} ({why})" for c, why in catalogue.unmapped[:UNMAPPED_SHOWN_MAX])
        more = len(catalogue.unmapped) - UNMAPPED_SHOWN_MAX
        screen.say(f"columns left out: {shown}{f' and {more} more' if more > 0 else ''}")
    for line, why in catalogue.broken[:BROKEN_SHOWN_MAX]:
        screen.warn(f"warning: {catalogue.source} line {line} left out: {why}")
    more = len(catalogue.broken) - BROKEN_SHOWN_MAX
    if more > 0:
        screen.warn(f"warning: {catalogue.source}: {more} more lines left out")


_COST = (
    Column("calls", right=True, doc="requests that the asking node sent"),
    Column(
        "round trips", right=True, doc="the longest chain of calls that waited for one another"
    ),
    Column("ms", right=True, doc="milliseconds from the question to the last byte of the answer"),
    Column(
        "coverage",
        doc='"complete": everybody who may match was heard; "limit met": stopped early, as asked',
    ),
    Column("right", doc="whether the answer is what brute force says"),
)
BEFORE = (
    Column("question"),
    Column("matches", right=True, doc="machines in the answer"),
    Column("true", right=True, doc="machines that match, by looking at every one of them"),
    *_COST,
)
AFTER = (
    Column("question"),
    Column("alive", right=True, doc="living machines in the answer"),
    Column("true", right=True, doc="living machines that match"),
    Column("dead", right=True, doc="machines in the answer that died a moment ago"),
    *_COST,
)


def show_answers(
    screen: Screen, title: str, answers: Sequence[Answer], *, after: bool = False
) -> None:
    """One table of answers."""
    columns = AFTER if after else BEFORE
    screen.table(columns, [_row(screen, answer, after=after) for answer in answers], title)


def show_legend(screen: Screen) -> None:
    """What the columns say."""
    explained = {column.name: column.doc for column in (*AFTER, *BEFORE) if column.doc}
    width = max(map(len, explained))
    order = ["matches", "true", "alive", "dead", *(column.name for column in _COST)]
    screen.say("What the columns say")
    for name in order:
        screen.say(f"  {name.ljust(width)}  {explained[name]}")


def _row(screen: Screen, answer: Answer, *, after: bool) -> list[str]:
    query = answer.query
    question = answer.text
    if query.order_by:
        question += f"  (order by {query.order_by}, limit {query.limit})"
    elif query.limit:
        question += f"  (limit {query.limit})"
    if screen.fancy:
        question = f"{query.title}\n  {question}"
    counts = [str(answer.found - answer.stale if after else answer.found), str(answer.true)]
    counts += [str(answer.stale)] if after else []
    right = "NO: " + "; ".join(answer.faults) if answer.faults else "yes"
    if answer.refusal:
        return [f"{question}\n  refused: {answer.refusal}", *("" for _ in counts), "", "", "", "", right]
    coverage = answer.coverage
    assert coverage is not None
    cost = [str(coverage.asked), str(coverage.rtt), milliseconds(answer.seconds)]
    return [question, *counts, *cost, coverage_text(coverage), right]
