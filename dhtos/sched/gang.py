"""The members of a gang, put on machines one by one: each sees what those before it have taken.

Greedy, as schedulers of clusters do it: the best machine for the next member, given the others. A
machine may take several members, up to `at_most` in one domain.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from dhtos.sched.candidate import TOLERANCE, Candidate
from dhtos.sched.demand import Demand
from dhtos.sched.need import GPUS, Need
from dhtos.sched.rank import rank

if TYPE_CHECKING:
    from random import Random


def assign(
    need: Need,
    candidates: Iterable[Candidate],
    count: int,
    *,
    rng: "Random",
    demand: Demand | None = None,
    placed: Iterable[str] = (),
    at_most: int | None = None,
) -> list[Candidate]:
    """A machine for each of `count` members, or for as many as there is room.

    `placed` are the domains of members that have their machine already. O(count * n log n).
    """
    taken = Counter(placed)
    left = {candidate.node_id: candidate for candidate in candidates}
    members: list[Candidate] = []
    while left and len(members) < count:
        open_ = [c for c in left.values() if at_most is None or taken[c.domain] < at_most]
        ranking = rank(need, open_, rng=rng, demand=demand, placed=taken)
        for refused in ranking.refused:
            del left[refused.candidate.node_id]
        if not ranking.ranked:
            break
        best = ranking.ranked[0].candidate
        members.append(best)
        taken[best.domain] += 1
        left[best.node_id] = after(best, need)
    return members


def after(candidate: Candidate, need: Need) -> Candidate:
    """The machine once it holds the need too, which it can."""
    asked = need.resources
    free = {name: has - asked.get(name, 0.0) for name, has in candidate.free.items()}
    devices = candidate.devices
    if devices and GPUS in asked:
        devices = _devices_after(devices, asked[GPUS])
    return replace(candidate, free=free, devices=devices)


def _devices_after(devices: tuple[float, ...], gpus: float) -> tuple[float, ...]:
    """A share comes from the device with the least room for it, whole ones from those unused."""
    left = sorted(devices)
    if gpus < 1:
        n = next(n for n, share in enumerate(left) if share >= gpus - TOLERANCE)
        left[n] -= gpus
    else:
        left[len(left) - int(gpus) :] = [0.0] * int(gpus)
    return tuple(left)
