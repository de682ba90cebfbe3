"""The score of a machine for a need: a sum of costs, each of which says what it is.

    score = sum over terms of  weight * cost          the lowest wins

    fragmentation  what the need would strand there, in needs of the usual size (FGD)
    fit            what stays free there beside the need, of the largest of the candidates, the mean
                   over all resources: 0 is a tight fit
    spread         share of what is placed already that shares the machine's domain
    near           round trip, of the longest among the candidates; 1 where it is not known
    cheap          price, of the highest among the candidates; 1 where none is said
    age            of what is known of the machine, of the time after which nodes repeat themselves
    refused        1 - 2^-n after n recent refusals: who said no is asked last

A program may bring a `Scorer` of its own; its terms are weighted by the weights of the same name,
and count as they are where there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dhtos.core.limits import NODE_HEARTBEAT_S
from dhtos.sched.candidate import Candidate
from dhtos.sched.fragmentation import Fragmentation
from dhtos.sched.need import Need


@dataclass(frozen=True, slots=True)
class Context:
    """What a score depends on beside the machine and the need: the same for all candidates."""

    fragmentation: Fragmentation | None = None
    largest: Mapping[str, float] = field(default_factory=dict)  # capacity, by resource
    rtt_s_max: float = 0.0
    price_max: float = 0.0
    placed: Mapping[str, int] = field(default_factory=dict)  # by domain


class Scorer(Protocol):
    """Names the costs of a machine; lower is better."""

    def terms(self, need: Need, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """The costs before they are weighted; the candidate can take the need."""
        ...


class StandardScorer:
    """The terms above."""

    __slots__ = ()

    def terms(self, need: Need, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """The costs before they are weighted; the candidate can take the need."""
        grown = 0.0
        if context.fragmentation is not None:
            grown = context.fragmentation.growth(need, candidate)
        placed = sum(context.placed.values())
        return {
            "fragmentation": grown,
            "fit": left_over(need, candidate, context.largest),
            "spread": context.placed.get(candidate.domain, 0) / placed if placed else 0.0,
            "near": _of(candidate.rtt_s, context.rtt_s_max),
            "cheap": _of(candidate.price, context.price_max),
            "age": min(1.0, candidate.age_s / NODE_HEARTBEAT_S),
            "refused": 1.0 - 0.5**candidate.refusals,
        }


def left_over(need: Need, candidate: Candidate, largest: Mapping[str, float]) -> float:
    """What stays free beside the need, of the largest machine there is: mean over resources."""
    free, asked, total = candidate.free, need.resources, 0.0
    for name, most in largest.items():
        left = free.get(name, 0.0) - asked.get(name, 0.0)
        if left > 0:
            total += left / most
    return total / len(largest) if largest else 0.0


def _of(value: float | None, most: float) -> float:
    if value is None:
        return 1.0
    return value / most if most > 0 else 0.0
