"""The decision: which candidates can take a need, the best first, and why the others cannot.

Pure: the same candidates, demand and random numbers give the same ranking. Equal scores are put in
random order, since schedulers that agree on the first of equals would all claim that one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dhtos.sched.candidate import Candidate
from dhtos.sched.demand import Demand
from dhtos.sched.need import Need
from dhtos.sched.score import Context, Scorer, StandardScorer
from dhtos.sched.weights import Weights

if TYPE_CHECKING:
    from random import Random

_SCORE_DIGITS = 9  # what differs by less was summed in another order


@dataclass(frozen=True, slots=True)
class Scored:
    """A machine that can take the need; `terms` are the weighted costs that make the score."""

    candidate: Candidate
    score: float
    terms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Refused:
    """A machine that cannot, and why: `what: how`."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """All candidates of one decision: the best first, and those ruled out."""

    ranked: tuple[Scored, ...]
    refused: tuple[Refused, ...]


def rank(
    need: Need,
    candidates: Iterable[Candidate],
    *,
    rng: "Random",
    demand: Demand | None = None,
    weights: Weights | None = None,
    scorer: Scorer | None = None,
    placed: Mapping[str, int] | None = None,
) -> Ranking:
    """Filter, score and order candidates; O(n log n) for n of them.

    `demand` is what fragmentation is measured against, without it that term is 0; `weights` win
    over what the need prefers; `placed` counts by domain the members that a gang already has.
    """
    able, refused = sift(need, candidates)
    scorer = StandardScorer() if scorer is None else scorer
    context = context_of(able, demand=demand, placed=placed)
    factors = (need.weights if weights is None else weights).factors
    scored = [
        score_of(candidate, factors, scorer.terms(need, candidate, context)) for candidate in able
    ]
    order = sorted((one.score, rng.random(), n) for n, one in enumerate(scored))
    return Ranking(tuple([scored[n] for *_, n in order]), tuple(refused))


def sift(need: Need, candidates: Iterable[Candidate]) -> tuple[list[Candidate], list[Refused]]:
    """Those that can take a need, and those that cannot."""
    able: list[Candidate] = []
    refused: list[Refused] = []
    for candidate in candidates:
        reason = candidate.refusal(need)
        if reason is None:
            able.append(candidate)
        else:
            refused.append(Refused(candidate, reason))
    return able, refused


def context_of(
    able: Sequence[Candidate],
    *,
    demand: Demand | None = None,
    placed: Mapping[str, int] | None = None,
) -> Context:
    """What the scores of these candidates are relative to."""
    largest: dict[str, float] = {}
    for candidate in able:
        for name, has in candidate.capacity.items():
            if has > largest.get(name, 0.0):
                largest[name] = has
    return Context(
        fragmentation=demand.fragmentation() if demand is not None else None,
        largest=largest,
        rtt_s_max=max([c.rtt_s for c in able if c.rtt_s is not None], default=0.0),
        price_max=max([c.price for c in able if c.price is not None], default=0.0),
        placed=placed or {},
    )


def score_of(
    candidate: Candidate, factors: Mapping[str, float], terms: Mapping[str, float]
) -> Scored:
    weighted = {
        name: factor * cost for name, cost in terms.items() if (factor := factors.get(name, 1.0))
    }
    return Scored(candidate, round(sum(weighted.values()), _SCORE_DIGITS), weighted)


def why(refusals: Ranking | Iterable[Refused]) -> dict[str, int]:
    """How many machines each kind of reason ruled out, the most common first."""
    refused = refusals.refused if isinstance(refusals, Ranking) else refusals
    counts = Counter(one.reason.partition(":")[0] for one in refused)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
