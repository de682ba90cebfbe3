"""Placement, the pure part: which of the machines in hand takes a need, why not the others."""

from dhtos.sched.candidate import Candidate
from dhtos.sched.demand import Demand
from dhtos.sched.fragmentation import Fragmentation
from dhtos.sched.gang import assign
from dhtos.sched.need import Need, check
from dhtos.sched.offers import Offers
from dhtos.sched.rank import Ranking, Refused, Scored, rank, why
from dhtos.sched.replicas import elect
from dhtos.sched.score import Context, Scorer, StandardScorer
from dhtos.sched.weights import PROFILES, Weights

__all__ = [
    "Need",
    "check",
    "Candidate",
    "Demand",
    "Fragmentation",
    "PROFILES",
    "Weights",
    "Context",
    "Scorer",
    "StandardScorer",
    "Offers",
    "assign",
    "elect",
    "rank",
    "why",
    "Ranking",
    "Scored",
    "Refused",
]
