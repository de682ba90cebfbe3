"""What a running node does for those who place gangs: all members get a place, or none.

A base of `Node`. One question draws machines for all members, `assign` puts them on these one by
one, and all machines are asked at the same time. What was granted is kept while the rest is asked
for again: from more machines, at once where only room was missing among those that were drawn.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from dhtos.core.limits import LEASE_S, SAMPLE_MAX
from dhtos.errors import ClaimsRefused, UsageError
from dhtos.node.draws import Draw
from dhtos.node.lease import Gang, Lease, Placement
from dhtos.node.placing import (
    BACKOFF_S,
    CANDIDATES,
    Placing,
    check_deadline,
    check_term,
    counted,
    tally,
)
from dhtos.sched import Candidate, Need, assign

GANG_DEADLINE_S = 30.0
SPARES = 2  # members asked for beyond those that are missing
CANDIDATES_PER_MEMBER = 4


Spread = str | Mapping[str, int] | None
"""The attribute or label that makes a domain, and perhaps how many may share one."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a gang must be: its size, at most so many in one domain, and the term of its leases."""

    size: int
    domain: str | None
    at_most: int | None
    ttl_s: float


class Ganging(Placing):
    """The gangs of a node."""

    def place_gang(
        self,
        need: Need,
        size: int,
        *,
        spread: Spread = None,
        ttl_s: float = LEASE_S,
        deadline_s: float = GANG_DEADLINE_S,
    ) -> Placement[Gang]:
        """Claim a need for each of `size` members, all of them or none.

        `spread={"site": 2}` puts at most two members where that attribute or label is the same;
        `spread="site"` tells `prefer="spread"` what to keep apart. A machine may take several. What
        was granted is kept while the rest is asked for again, with two to spare, until the
        deadline; then all is given back. Raises as `place`, and UsageError unless size is 1..256.
        """
        check_term(ttl_s)
        check_deadline(deadline_s)
        if need.preempt:
            raise UsageError("a gang does not preempt: leave preempt out of its need")
        if type(size) is not int or not 1 <= size <= SAMPLE_MAX:
            raise UsageError(f"size must be 1..{SAMPLE_MAX}, got {size!r}")
        domain, at_most = read_spread(spread)
        rules = _Rules(size, domain, at_most, ttl_s)
        return Placement(lambda: self._place_gang(need, rules, deadline_s))

    async def _place_gang(self, need: Need, rules: _Rules, deadline_s: float) -> Gang:
        self._require("claim")
        won: list[Lease] = []
        reasons: dict[str, int] = {}
        draw: Draw | None = None
        self._demand.add(need)
        try:
            async with asyncio.timeout(deadline_s):
                for turn in count():
                    draw = await self._drawn_for(need, rules, rules.size - len(won), turn, draw)
                    if not (len(draw.offers) or won or reasons):
                        await self._await_room(draw.plan, again=turn > 0)
                        continue
                    refused = await self._enlarge(need, rules, draw, won, reasons)
                    if len(won) >= rules.size:
                        break
                    if refused or draw.is_all:
                        pause_s = BACKOFF_S * 2 ** min(turn, 3)
                        await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.5))
        except BaseException as error:
            for lease in won:
                await lease.release()
            if isinstance(error, TimeoutError):
                told = f": {counted(reasons)}" if reasons else ""
                raise ClaimsRefused(
                    f"only {len(won)} of {rules.size} were granted in time{told}", reasons
                ) from error
            raise
        for lease in won[rules.size :]:
            await lease.release()
        return Gang(won[: rules.size])

    async def _drawn_for(
        self, need: Need, rules: _Rules, missing: int, turn: int, tried: Draw | None
    ) -> Draw:
        """Machines for the members that are missing, more of them each turn."""
        asked = max(CANDIDATES, CANDIDATES_PER_MEMBER * missing) * 2 ** min(turn, 8)
        size, clock = min(SAMPLE_MAX, asked), self.driver.clock
        return await self._draws.of(need, size, clock, spread=rules.domain, after=tried)

    async def _enlarge(
        self, need: Need, rules: _Rules, draw: Draw, won: list[Lease], reasons: dict[str, int]
    ) -> bool:
        """Ask once for the members that are missing, all at the same time; whether one said no."""
        missing = rules.size - len(won)
        members = assign(
            need,
            draw.offers.candidates(),
            missing + SPARES,
            rng=self._rng,
            demand=self._demand,
            scorer=self._scorer,
            placed=[Candidate.of(lease.hit, need, spread=rules.domain).domain for lease in won],
            at_most=rules.at_most,
        )
        if not members:
            reasons["room"] = reasons.get("room", 0) + missing

        async def enlist(node_id: bytes) -> bool:
            draw.offers.expect(node_id)
            outcome = await self._ask_for([draw.bid_of(node_id)], rules.ttl_s)
            draw.learn(outcome)
            tally(outcome, reasons)
            if outcome.granted is not None:
                won.append(self._lease(outcome.granted, draw.hits[node_id]))
            return outcome.granted is None

        return any(await asyncio.gather(*(enlist(member.node_id) for member in members)))


def read_spread(spread: Spread) -> tuple[str | None, int | None]:
    """What makes a domain, and how many may share one if that is a rule; raises UsageError."""
    if spread is None or (isinstance(spread, str) and spread):
        return spread, None
    if isinstance(spread, Mapping) and len(spread) == 1:
        ((domain, at_most),) = spread.items()
        if type(domain) is str and domain and type(at_most) is int and at_most >= 1:
            return domain, at_most
    raise UsageError(
        f'spread is an attribute or label, as "site", or how many may share one, as '
        f'{{"site": 2}}, got {spread!r}'
    )
