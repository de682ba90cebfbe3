"""What the demo shows: every answer beside the truth, and what each column means."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dhtos.cli.demo_catalogue import Catalogue
from dhtos.cli.demo_queries import Query
from dhtos.cli.screen import Column, Screen
from dhtos.cli.wording import coverage_text, milliseconds
from dhtos.core.coverage import Coverage
from dhtos.node.plain import coverage_to_plain

BROKEN_SHOWN_MAX = 5
UNMAPPED_SHOWN_MAX = 6


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
            "coverage": coverage_to_plain(coverage) if coverage else None,
            "refusal": self.refusal or None,
            "faults": list(self.faults),
        }


@dataclass(slots=True)
class Report:
    """One run of the demo."""

    seed: int
    nodes: int
    group_size: int
    catalogue: Catalogue
    killed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    before: list[Answer] = field(default_factory=list)
    after: list[Answer] = field(default_factory=list)

    @property
    def answers(self) -> list[Answer]:
        """All answers in the order they came."""
        return self.before + self.after

    @property
    def wrong(self) -> list[Answer]:
        """The answers that are not what brute force says."""
        return [answer for answer in self.answers if answer.faults]

    def as_json(self) -> dict[str, Any]:
        """The one document of `--json`."""
        catalogue = self.catalogue
        return {
            "seed": self.seed,
            "nodes": self.nodes,
            "group_size": self.group_size,
            "killed": self.killed,
            "right": not self.wrong,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "catalogue": {
                "source": catalogue.source,
                "machines": len(catalogue.machines),
                "columns": catalogue.columns,
                "left_out": [{"column": c, "why": why} for c, why in catalogue.unmapped],
                "broken": [{"line": line, "why": why} for line, why in catalogue.broken],
            },
            "before": [answer.as_json() for answer in self.before],
            "after": [answer.as_json() for answer in self.after],
        }


def show_catalogue(screen: Screen, report: Report) -> None:
    """What is about to happen, which columns are used, and what could not be."""
    catalogue = report.catalogue
    used = ", ".join(c if c == a else f"{c} as {a}" for c, a in catalogue.columns.items())
    screen.paragraph(
        f"{report.nodes} real nodes on this machine, none of them a server. Each advertises one of "
        f"the {len(catalogue.machines):,} machines in {catalogue.source} ({used}). How busy a "
        f"machine is and what it costs is drawn from seed {report.seed}. A node holds the records "
        f"of at most {report.group_size} machines and knows where to ask for the rest."
    )
    if catalogue.unmapped:
        shown = ", ".join(f"{c} ({why})" for c, why in catalogue.unmapped[:UNMAPPED_SHOWN_MAX])
        more = len(catalogue.unmapped) - UNMAPPED_SHOWN_MAX
        screen.paragraph(f"Columns left out: {shown}{f' and {more} more' if more > 0 else ''}.")
    for line, why in catalogue.broken[:BROKEN_SHOWN_MAX]:
        screen.warn(f"warning: {catalogue.source} line {line} is left out: {why}")
    more = len(catalogue.broken) - BROKEN_SHOWN_MAX
    if more > 0:
        screen.warn(f"warning: {catalogue.source}: {more} more lines are left out")
    screen.say()


_COST = (
    Column("calls", right=True, doc="requests that the asking node sent"),
    Column("trips", right=True, doc="round trips: the longest chain of calls that had to wait"),
    Column("ms", right=True, doc="milliseconds from the question to the end of the answer"),
    Column("coverage", doc="complete: all who may match were heard; limit met: it had enough"),
    Column("right", doc="whether brute force over all machines says the same"),
)
BEFORE = (
    Column("question"),
    Column("matches", right=True, doc="machines in the answer"),
    Column("true", right=True, doc="machines that match, by brute force"),
    *_COST,
)
AFTER = (
    Column("question"),
    Column("alive", right=True, doc="living machines in the answer"),
    Column("true", right=True, doc="living machines that match, by brute force"),
    Column("dead", right=True, doc="machines in the answer that died a moment ago"),
    *_COST,
)


def show_answers(
    screen: Screen, answers: Sequence[Answer], *, killed: int = 0, nodes: int = 0
) -> None:
    """One table of answers, before or after the sudden death."""
    if killed:
        title = f"The same, at once after {killed} of {nodes} nodes lost power without a word"
    else:
        title = "Eight questions over UDP, by one more node that has 16 addresses to begin with"
    after = killed > 0
    rows = [_row(screen, answer, after=after) for answer in answers]
    screen.say()
    screen.table(AFTER if after else BEFORE, rows, title)


def show_legend(screen: Screen) -> None:
    """What the columns say."""
    explained = {column.name: column.doc for column in (*AFTER, *BEFORE) if column.doc}
    order = ["matches", "true", "alive", "dead", *(column.name for column in _COST)]
    screen.say()
    for name in order:
        screen.say(f"{name:>9}  {explained[name]}")


def show_verdict(screen: Screen, report: Report) -> None:
    """The last line."""
    total = len(report.answers)
    screen.say()
    screen.say(
        f"{total - len(report.wrong)} of {total} answers are right. "
        f"{report.seconds['all']:.0f} s in all; the same fleet again with --seed {report.seed}."
    )


def _row(screen: Screen, answer: Answer, *, after: bool) -> list[str]:
    question = _question(screen, answer)
    counts = [str(answer.found - answer.stale if after else answer.found), str(answer.true)]
    counts += [str(answer.stale)] if after else []
    right = "NO: " + "; ".join(answer.faults) if answer.faults else "yes"
    coverage = answer.coverage
    if coverage is None:
        return [question, *("" for _ in counts), "", "", "", "refused", right]
    cost = [str(coverage.asked), str(coverage.rtt), milliseconds(answer.seconds)]
    return [question, *counts, *cost, coverage_text(coverage_to_plain(coverage)), right]


def _question(screen: Screen, answer: Answer) -> str:
    """The question in a cell: on a terminal with its title above and a refusal below."""
    query = answer.query
    text = answer.text
    if query.order_by:
        text += f"  (order by {query.order_by}, limit {query.limit})"
    elif query.limit:
        text += f"  (limit {query.limit})"
    if not screen.fancy:
        return f"{text}: {answer.refusal}" if answer.refusal else text
    refusal = f"\n{answer.refusal}" if answer.refusal else ""
    return f"{query.title}\n{text}{refusal}"
