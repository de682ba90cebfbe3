"""The members of a gang, put on machines one by one: each sees what those before it have taken.

Greedy, as schedulers of clusters do it: the best machine for the next member, given the others. A
machine may take several members, up to `at_most` in one domain.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dhtos.sched.candidate import Candidate, after
from dhtos.sched.demand import Demand
from dhtos.sched.need import Need
from dhtos.sched.offers import Offers
from dhtos.sched.rank import rank
from dhtos.sched.score import Scorer

if TYPE_CHECKING:
    from random import Random


def assign(
    need: Need,
    candidates: Iterable[Candidate],
    count: int,
    *,
    rng: "Random",
    demand: Demand | None = None,
    scorer: Scorer | None = None,
    placed: Iterable[str] = (),
    at_most: int | None = None,
) -> list[Candidate]:
    """A machine for each of `count` members, or for as many as there is room.

    `placed` are the domains of members that have their machine already. O(count * n log n); a
    machine is scored again when it is taken, all of them where domains have a say.
    """
    candidates = list(candidates)
    if at_most is None and not any(candidate.domain for candidate in candidates):
        return _tightly(Offers(need, candidates, demand=demand, scorer=scorer), count, rng=rng)
    taken = Counter(placed)
    left = {candidate.node_id: candidate for candidate in candidates}
    members: list[Candidate] = []
    while left and len(members) < count:
        open_ = [c for c in left.values() if at_most is None or taken[c.domain] < at_most]
        ranking = rank(need, open_, rng=rng, demand=demand, scorer=scorer, placed=taken)
        for refused in ranking.refused:
            del left[refused.candidate.node_id]
        if not ranking.ranked:
            break
        best = ranking.ranked[0].candidate
        members.append(best)
        taken[best.domain] += 1
        left[best.node_id] = after(best, need)
    return members


def _tightly(offers: Offers, count: int, *, rng: "Random") -> list[Candidate]:
    """The best for each, wherever that is."""
    members: list[Candidate] = []
    while len(members) < count and len(offers):
        (best,) = offers.choose(1, len(offers), rng=rng)
        members.append(best)
        offers.expect(best.node_id)
    return members
