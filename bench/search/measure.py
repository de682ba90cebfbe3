"""The figures of range search: what the real engine needs, and what rivals need for the same.

A *cell* is a fleet of N machines, a share of it that questions match, and a limit. Every design
is asked the same questions, from nodes drawn by the same seed. RPCs are requests with their
reply; the engine's replies may be several datagrams, which are counted beside.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from statistics import fmean
from typing import Any

from bench.rivals import RIVALS
from bench.search import fleets, questions
from bench.search.crowd import Cost, Crowd
from bench.search.questions import Ask
from dhtos.core.ids import Prefix

OURS = "dhtos"
SHARES = (0.1, 0.01, 0.001)
LIMITS = (20, 0)
FEWEST_MATCHES = 5  # on average; cells below it are left out


@dataclass(frozen=True)
class Cell:
    """One design in one cell: means over its questions."""

    design: str
    fleet: str
    nodes: int
    share: float
    limit: int
    rpc: float
    rpc_p95: float
    rtt: float
    recall: float
    datagrams: float = 0.0
    kilobytes: float = 0.0

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def p95(figures: Sequence[float]) -> float:
    """The figure that one in twenty exceeds."""
    return sorted(figures)[int(0.95 * len(figures))]


def recall(ask: Ask, hits: int, limit: int) -> float:
    """The share of what should have been found; a true match each, as the caller has checked."""
    wanted = min(limit, len(ask.true)) if limit else len(ask.true)
    return min(1.0, hits / wanted)


def ours(crowd: Crowd, asks: list[Ask], share: float, limit: int, **options: Any) -> Cell:
    """The real engine in one cell; every hit is checked against brute force."""
    costs = [crowd.ask(ask, limit=limit, **options) for ask in asks]
    dead = {crowd.index[endpoint] for endpoint in crowd.dead}
    recalls = []
    for ask, cost in zip(asks, costs, strict=True):
        assert cost.hits <= ask.true, "a hit that does not match"
        living = Ask(ask.intervals, ask.predicate, ask.true - dead)
        recalls.append(recall(living, len(cost.hits - dead), limit) if living.true else 1.0)
    rpcs = [cost.rpc for cost in costs]
    return Cell(
        OURS,
        crowd.fleet.name,
        len(crowd.fleet.machines),
        share,
        limit,
        fmean(rpcs),
        p95(rpcs),
        fmean(cost.rtt for cost in costs),
        fmean(recalls),
        fmean(cost.datagrams for cost in costs),
        fmean(cost.sent_bytes for cost in costs) / 1000,
    )


def rivals(fleet: fleets.Fleet, asked: dict[float, list[Ask]], seed: int) -> list[Cell]:
    """Every rival in every cell of a fleet."""
    points = fleet.points()
    cells = []
    for key, build in RIVALS.items():
        rival = build(points, Random(f"{key} {seed}"))
        rng = Random(seed)
        for share, asks in asked.items():
            boxes = [ask.box(fleet) for ask in asks]
            for limit in LIMITS:
                costs = [
                    rival.query(low, high, limit, rng.randrange(len(points))) for low, high in boxes
                ]
                found = [recall(a, c.hits, limit) for a, c in zip(asks, costs, strict=True)]
                rpcs = [cost.rpc for cost in costs]
                rtt = fmean(cost.rtt for cost in costs)
                cells.append(
                    Cell(
                        rival.name, fleet.name, len(points), share, limit,
                        fmean(rpcs), p95(rpcs), rtt, fmean(found),
                    )
                )  # fmt: skip
    return cells


def asked_of(fleet: fleets.Fleet, count: int, seed: int) -> dict[float, list[Ask]]:
    """The questions of each share that matches enough machines to speak of."""
    rng = Random(f"questions {seed}")
    return {
        share: questions.make(fleet, share, count, rng)
        for share in SHARES
        if share * len(fleet.machines) >= FEWEST_MATCHES
    }


@dataclass(frozen=True)
class Balance:
    """How evenly records and questions are spread."""

    groups: int
    stored_mean: float
    stored_over_mean: float
    hottest_share: float
    questions: int


def balance(crowd: Crowd, asks: list[Ask]) -> Balance:
    """Records a node holds, and the share of LIMIT 20 questions that the hottest node serves."""
    sizes = [len(crowd.truth.places(prefix)) for prefix in groups(crowd)]
    mean = sum(size * size for size in sizes) / sum(sizes)
    served: Counter[int] = Counter()
    for ask in asks:
        served.update(crowd.ask(ask, limit=20).served.keys())
    hottest = max(served.values()) / len(asks)
    return Balance(len(sizes), mean, max(sizes) / mean, hottest, len(asks))


def groups(crowd: Crowd) -> list[Prefix]:
    """The groups of a settled fleet: the widest prefixes of at most G machines."""
    found = []
    open_ = [Prefix(0, 0)]
    while open_:
        prefix = open_.pop()
        count = len(crowd.truth.places(prefix))
        if count > crowd.config.group_size:
            open_ += [prefix.child(0), prefix.child(1)]
        elif count:
            found.append(prefix)
    return found


def groups_asked(crowd: Crowd, asks: list[Ask]) -> tuple[float, float]:
    """In how many groups matches of a question lie, and in how many a summary allows for some.

    Nobody can ask fewer than the former for all matches, nor fewer than the latter if it knows
    the summary of every group.
    """
    prefixes = groups(crowd)
    summaries = [crowd.truth.summary(prefix) for prefix in prefixes]
    inside = [
        {crowd.index[record.endpoint] for _, record in crowd.truth.under(prefix)}
        for prefix in prefixes
    ]
    least, allowed = [], []
    for ask in asks:
        bound = ask.predicate.bind(crowd.fleet.schema)
        least.append(sum(not ask.true.isdisjoint(group) for group in inside))
        allowed.append(
            sum(
                bound.intersects(prefix) and bound.may_match(summary)
                for prefix, summary in zip(prefixes, summaries, strict=True)
            )
        )
    return fmean(least), fmean(allowed)


def cheapest(crowd: Crowd, asks: list[Ask]) -> tuple[float, float, float]:
    """RPCs, round trips and the share of exact answers for the cheapest 20 of a conjunction."""
    schema = crowd.fleet.schema
    column = crowd.fleet.columns["price"]
    costs: list[Cost] = []
    exact = 0
    for ask in asks:
        cost = crowd.ask(ask, limit=20, order=(schema.index("price"), False))
        best = sorted(column[index] for index in ask.true)[:20]
        exact += sorted(column[index] for index in cost.hits) == best
        costs.append(cost)
    return (
        fmean(cost.rpc for cost in costs),
        fmean(cost.rtt for cost in costs),
        exact / len(asks),
    )


@dataclass(frozen=True)
class Honesty:
    """Coverage that was reported against coverage that was true, with part of the fleet dead."""

    recall: float
    overstated: float
    rpc: float


def honesty(crowd: Crowd, asks: list[Ask]) -> Honesty:
    """Recall of the living, and the share of answers that claim over 1 % more than is true."""
    dead = {crowd.index[endpoint] for endpoint in crowd.dead}
    over = 0
    recalls = []
    rpcs = []
    for ask in asks:
        cost = crowd.ask(ask)
        living = ask.true - dead
        true = len(cost.hits & living) / len(living) if living else 1.0
        recalls.append(true)
        over += cost.result.coverage.fraction > true + 0.01
        rpcs.append(cost.rpc)
    return Honesty(fmean(recalls), over / len(asks), fmean(rpcs))
