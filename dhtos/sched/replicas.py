"""Machines for replicas: apart from one another, and away from where one was lost.

Greedy, each seeing those before it. What comes first decides: not on a machine where one was lost
lately, not in its domain, in the domain with the fewest, on the machine with the fewest, and last
the score of the need. All of it is preference but `at_most`: where nothing better is left, replicas
share a machine, or come back to the one that lost them.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dhtos.sched.candidate import Candidate, after
from dhtos.sched.demand import Demand
from dhtos.sched.need import Need
from dhtos.sched.rank import rank
from dhtos.sched.score import Scorer

if TYPE_CHECKING:
    from random import Random

Place = tuple[bytes, str]
"""A machine and its domain."""


def elect(
    need: Need,
    candidates: Iterable[Candidate],
    count: int,
    *,
    rng: "Random",
    demand: Demand | None = None,
    scorer: Scorer | None = None,
    standing: Iterable[Place] = (),
    shunned: Iterable[Place] = (),
    at_most: int | None = None,
) -> list[Candidate]:
    """A machine for each of `count` replicas, or for as many as there is room.

    `standing` is where replicas are already, `shunned` where some were lost lately; at most
    `at_most` stand in one domain. O(n log n + count * n).
    """
    standing, shunned = list(standing), list(shunned)
    machines = Counter(node_id for node_id, _ in standing)
    domains = Counter(domain for _, domain in standing)
    bad_machines, bad_domains = {node_id for node_id, _ in shunned}, {name for _, name in shunned}

    def cost(place: tuple[int, Candidate]) -> tuple[bool, bool, int, int, int]:
        position, one = place
        return (
            one.node_id in bad_machines,
            one.domain in bad_domains,
            domains[one.domain],
            machines[one.node_id],
            position,
        )

    ranking = rank(need, candidates, rng=rng, demand=demand, scorer=scorer, placed=domains)
    left = {position: scored.candidate for position, scored in enumerate(ranking.ranked)}
    elected: list[Candidate] = []
    while len(elected) < count:
        open_ = [
            item for item in left.items() if at_most is None or domains[item[1].domain] < at_most
        ]
        if not open_:
            break
        position, best = min(open_, key=cost)
        elected.append(best)
        machines[best.node_id] += 1
        domains[best.domain] += 1
        left[position] = after(best, need)
        if left[position].refusal(need) is not None:
            del left[position]
    return elected
