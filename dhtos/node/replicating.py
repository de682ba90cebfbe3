"""What a running node does for those who want replicas: finds machines for the missing ones.

A base of `Node`. One question draws machines for all that are missing, and more than hold one
already; `elect` puts the replicas apart on them, and each machine is asked for its own, all at the
same time. Whoever says no is left out and the rest is put on the others, without a new question.
`dhtos.node.replicas` says when.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from dhtos.core.limits import LEASE_S, LEASE_S_MAX, SAMPLE_MAX
from dhtos.core.value import is_number
from dhtos.errors import ClaimsRefused, Closed, DhtosError, UsageError
from dhtos.node.ganging import CANDIDATES_PER_MEMBER, Ganging, Spread, read_spread
from dhtos.node.lease import Lease, Plan
from dhtos.node.placing import BIDS_MAX, CANDIDATES, DEADLINE_S, check_term, counted, tally
from dhtos.node.replicas import COOL_DOWN_S, Opening, Replicas
from dhtos.sched import Candidate, Need, check, elect
from dhtos.sched.candidate import after


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What each replica is, and how they shall stand."""

    need: Need
    domain: str | None
    at_most: int | None
    ttl_s: float


class Replicating(Ganging):
    """The replicas of a node."""

    def replicas(
        self,
        need: Need,
        count: int,
        *,
        spread: Spread = None,
        ttl_s: float = LEASE_S,
        cool_down_s: float = COOL_DOWN_S,
    ) -> Replicas:
        """Keep `count` leases of a need alive: `async with node.replicas(need, 3) as replicas`.

        They stand on different machines as far as there are any among those drawn, with
        `spread="site"` on different sites; `spread={"site": 1}` never has two there. One that is
        lost is placed again at once, first where none was for `cool_down_s`, which is also about
        the longest pause between attempts that fail. A machine or network that fails is noticed
        within `ttl_s`. Raises UsageError for a count that is not 0..256 and as `plan`.
        """
        self._require("claim")
        wanted = self._wanted(need, spread, ttl_s)
        if not is_number(cool_down_s) or not 0 <= cool_down_s <= LEASE_S_MAX:
            raise UsageError(f"cool_down_s must be 0..{LEASE_S_MAX:g} s, got {cool_down_s!r}")
        return Replicas(
            partial(self._fill, wanted),
            count,
            cool_down_s=cool_down_s,
            clock=self.driver.clock,
            rng=self._rng,
        )

    def _wanted(self, need: Need, spread: Spread, ttl_s: float) -> _Wanted:
        check(need, self.schema)
        self._able(need)
        if need.preempt:
            raise UsageError("replicas do not preempt: leave preempt out of their need")
        check_term(ttl_s)
        domain, at_most = read_spread(spread)
        return _Wanted(need, domain, at_most, ttl_s)

    async def _fill(self, wanted: _Wanted, opening: Opening) -> DhtosError | None:
        """Place what is missing; returns why not all of it was."""
        reasons: dict[str, int] = {}
        self._demand.add(wanted.need)
        try:
            async with asyncio.timeout(DEADLINE_S):
                held = len({lease.node for lease in opening.standing})
                asked = max(CANDIDATES, CANDIDATES_PER_MEMBER * opening.missing) + held
                plan = await self.plan(
                    wanted.need, candidates=min(SAMPLE_MAX, asked), spread=wanted.domain
                )
                if not plan.choices:
                    return await self._nobody(plan)
                if await self._recruit(wanted, opening, plan, reasons):
                    return None
        except TimeoutError:
            reasons["time"] = 1
        except Closed:
            raise
        except DhtosError as error:
            return error
        return ClaimsRefused(
            f"no machine that can take more has granted it: {counted(reasons)}", reasons
        )

    async def _recruit(
        self, wanted: _Wanted, opening: Opening, plan: Plan, reasons: dict[str, int]
    ) -> bool:
        """Claim from the machines of one plan, in rounds; whether nothing is missing any more."""
        need, domain = wanted.need, wanted.domain
        hits = {choice.hit.record.node_id: choice.hit for choice in plan.choices}
        left = {node_id: self._candidate(hit, need, domain) for node_id, hit in hits.items()}
        standing = _places(opening.standing, need, domain)
        shunned = _places(opening.shunned, need, domain)
        missing = opening.missing

        async def enlist(chosen: Candidate) -> None:
            hit = hits[chosen.node_id]
            outcome = await self._bid_for([hit], need, wanted.ttl_s)
            tally(outcome, reasons)
            if outcome.granted is None:
                left.pop(chosen.node_id, None)
            else:
                standing.append((chosen.node_id, chosen.domain))
                if chosen.node_id in left:
                    left[chosen.node_id] = after(left[chosen.node_id], need)
                await opening.take(self._lease(outcome.granted, hit))

        for _ in range(BIDS_MAX):
            chosen = elect(
                need,
                left.values(),
                missing - (len(standing) - len(opening.standing)),
                rng=self._rng,
                demand=self._demand,
                scorer=self._scorer,
                standing=standing,
                shunned=shunned,
                at_most=wanted.at_most,
            )
            if not chosen:
                break
            await asyncio.gather(*map(enlist, chosen))
        open_ = missing - (len(standing) - len(opening.standing))
        if open_ and not reasons:
            reasons["room"] = open_
        return not open_


def _places(leases: Sequence[Lease], need: Need, domain: str | None) -> list[tuple[bytes, str]]:
    """Where leases are: their machines and domains."""
    found = [Candidate.of(lease.hit, need, spread=domain) for lease in leases]
    return [(one.node_id, one.domain) for one in found]
