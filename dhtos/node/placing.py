"""What a running node does for those who place work: plan, claim, keep, explain. A base of `Node`.

    need --question--> a random sample of machines --rank--> bids in order --claim--> lease

A sample and not "the first sixteen": schedulers that ask alike must not be told alike, or they all
claim the same machine. What a machine says is some seconds old; it decides when it is claimed, and
the next one is asked without a new question. Placements of the same need share a sample for a
second, kept true by what every claim is answered (`dhtos.node.draws`).
"""

import asyncio
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

import msgspec

from dhtos.core.hit import Hit
from dhtos.core.limits import LEASE_S, LEASE_S_MAX, LEASE_S_MIN, SAMPLE_MAX
from dhtos.core.predicate import EVERYTHING, Predicate
from dhtos.core.schema import FREE
from dhtos.core.value import is_number
from dhtos.errors import ClaimsRefused, Closed, NoCandidates, UsageError
from dhtos.node.asking import Asking
from dhtos.node.draws import Draw, Draws
from dhtos.node.lease import Choice, Explanation, Lease, Placement, Plan
from dhtos.node.sealed_stream import MemberChannels
from dhtos.protocol.claims import Bid, Claiming, Granted, Outcome, Tenants
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.grants import Grants
from dhtos.protocol.ledger import Grant, Reason
from dhtos.query import Expr, F, parse_text
from dhtos.sched import Candidate, Demand, Need, Offers, Refused, Scorer, check, rank

CANDIDATES = 16  # as good as all of them: docs/explanation/placement.md
BIDS_MAX = 8  # machines asked before the question is asked anew
ROUNDS_MAX = 3
COMPARED_MIN = 2  # machines that a placement chooses from, however many others place as well
_COMPARED_STEP = 0.25  # more of them after each placement at which nobody was faster
DEADLINE_S = 10.0
REFUSALS_MAX = 1024  # machines remembered for having said no
REFUSAL_S = 60.0  # so long
BACKOFF_S = 0.25  # twice as long after each round
_FREED_S = 0.6  # records tell of what was given back within half a second


class Placing(Asking):
    """The placements of a node."""

    _rng: Random
    _tenants: Tenants | None = None
    _grants: Grants | None = None
    _channels: MemberChannels | None = None
    _demand: Demand
    _scorer: Scorer | None
    _refusals: dict[bytes, tuple[int, float]]  # how often, and when the last time
    _draws: Draws
    _compared = float(CANDIDATES)  # how many machines a placement chooses from

    @property
    @abstractmethod
    def grants(self) -> Grants:
        """What this node has promised; raises UsageError for one that only asks."""

    async def plan(
        self, need: Need, *, candidates: int = CANDIDATES, spread: str | None = None
    ) -> Plan:
        """Machines that can take a need, the best first; nothing is claimed.

        So many are drawn at random from all that match, and put in order by what the need prefers;
        `spread` names the attribute or label by which `prefer="spread"` tells places apart. Costs
        the calls of `sample`. Raises UsageError for a resource that the schema does not have,
        PredicateError for `where`.
        """
        _check_candidates(candidates)
        found, machines, gateways = await self._drawn(need, candidates)
        ranking = rank(
            need,
            [self._candidate(hit, need, spread) for hit in machines.values()],
            rng=self._rng,
            demand=self._demand,
            scorer=self._scorer,
        )
        choices = [
            Choice(machines[one.candidate.node_id], one.score, one.terms) for one in ranking.ranked
        ]
        return Plan(need, tuple(choices), (*ranking.refused, *gateways), found.coverage)

    async def _drawn(
        self, need: Need, count: int
    ) -> tuple[FindResult, dict[bytes, Hit], list[Refused]]:
        """A random sample for a need: by node, and those that no node grants on."""
        check(need, self.schema)
        found = await self.sample(count, self._able(need))
        machines = {hit.record.node_id: hit for hit in found.hits if not hit.gateway}
        gateways = [
            Refused(Candidate.of(hit, need), "gateway: no node there that grants")
            for hit in found.hits
            if hit.gateway
        ]
        return found, machines, gateways

    async def _draw(self, need: Need, count: int, spread: str | None) -> Draw:
        """A sample to place from; `spread` as in `plan`."""
        found, machines, gateways = await self._drawn(need, count)
        candidates = [self._candidate(hit, need, spread) for hit in machines.values()]
        offers = Offers(need, candidates, demand=self._demand, scorer=self._scorer)
        plan = Plan(need, (), (*offers.refused, *gateways), found.coverage)
        return Draw(plan, machines, offers, self.driver.clock(), self._bidding(need))

    def place(
        self,
        need: Need,
        *,
        ttl_s: float = LEASE_S,
        deadline_s: float | None = None,
        candidates: int = CANDIDATES,
    ) -> Placement[Lease]:
        """Claim what is needed on the best machine that grants it: `async with node.place(need)`.

        A need that may preempt is claimed where it is, and where nobody has room from machines that
        would have it without what they do of a lower priority; it waits for the end of that. The
        deadline is 10 s, 40 s for such a need.

        The lease is renewed until it is released; one that is not heard of for `ttl_s` ends. A
        machine that says no is followed by the next, and three questions are asked at most; other
        placements of the same need within a second share them. Where nobody has room and somebody
        is large enough, it is asked once more after half a second: what was just given back is not
        told sooner.
        Raises UsageError and PredicateError as `plan`, NoCandidates where no machine can take it,
        ClaimsRefused where none that can has granted it in time.
        """
        if deadline_s is None:
            deadline_s = DEADLINE_S + (LEASE_S if need.preempt else 0.0)
        check_term(ttl_s)
        check_deadline(deadline_s)
        _check_candidates(candidates)
        return Placement(lambda: self._place(need, ttl_s, deadline_s, candidates))

    async def _place(self, need: Need, ttl_s: float, deadline_s: float, candidates: int) -> Lease:
        self._require("claim")
        reasons: dict[str, int] = {}
        draw: Draw | None = None
        self._demand.add(need)
        try:
            async with asyncio.timeout(deadline_s):
                for turn in range(ROUNDS_MAX):
                    draw = await self._draws.of(need, candidates, self.driver.clock, after=draw)
                    lease = await self._claim(draw, candidates, ttl_s, reasons)
                    if lease is None and need.preempt:
                        lease = await self._preempt(need, candidates, ttl_s, reasons)
                    if lease is not None:
                        return lease
                    if not reasons:
                        await self._await_room(draw.plan, again=turn > 0)
                    elif turn + 1 < ROUNDS_MAX:
                        await asyncio.sleep(BACKOFF_S * 2**turn * self._rng.uniform(0.5, 1.5))
        except TimeoutError:
            reasons["time"] = 1
        raise ClaimsRefused(
            f"no machine that can take it has granted it: {counted(reasons)}", reasons
        )

    async def _claim(
        self, draw: Draw, candidates: int, ttl_s: float, reasons: dict[str, int]
    ) -> Lease | None:
        """Claim from the best machines of a sample; None where none of them grants it.

        How many are compared falls while others are faster: who looks at few finds another best.
        """
        few = max(min(round(self._compared), candidates), 1)
        chosen = draw.offers.choose(BIDS_MAX, few, rng=self._rng)
        if not chosen:
            return None
        draw.offers.expect(chosen[0].node_id)
        outcome = await self._ask_for([draw.bid_of(one.node_id) for one in chosen], ttl_s)
        draw.learn(outcome)
        tally(outcome, reasons)
        if any(declined.kind == "full" for declined in outcome.declined):
            self._compared = max(self._compared / 2, COMPARED_MIN)
        else:
            self._compared = min(self._compared + _COMPARED_STEP, CANDIDATES)
        granted = outcome.granted
        return None if granted is None else self._lease(granted, draw.hits[granted.node_id])

    async def _preempt(
        self, need: Need, candidates: int, ttl_s: float, reasons: dict[str, int]
    ) -> Lease | None:
        """Claim from machines that are large enough, whoever holds what they have."""
        found = await self.sample(candidates, self._able(need, ""))
        hits = {hit.record.node_id: hit for hit in found.hits if not hit.gateway}
        drawn = self._rng.sample(list(hits), min(BIDS_MAX, len(hits)))
        bid = self._bidding(need)
        outcome = await self._ask_for(
            [replace(bid(hits[one]), preempt=True) for one in drawn], ttl_s
        )
        tally(outcome, reasons)
        granted = outcome.granted
        return None if granted is None else self._lease(granted, hits[granted.node_id])

    async def _bid_for(self, hits: Sequence[Hit], need: Need, ttl_s: float) -> Outcome:
        """Ask these machines for a need, one after the other, until one has granted it."""
        return await self._ask_for([*map(self._bidding(need), hits)], ttl_s)

    async def _ask_for(self, bids: Sequence[Bid], ttl_s: float) -> Outcome:
        claiming = Claiming(
            self.engine.core, bids, float(ttl_s), self.driver.clock(), draw=os.urandom
        )
        try:
            outcome = await self.driver.wait(claiming.operation)
        except asyncio.CancelledError:
            claiming.give_back(self.driver.clock())
            raise
        for declined in outcome.declined:
            refused = self._refused(declined.node_id) + 1
            self._refusals.pop(declined.node_id, None)
            if len(self._refusals) >= REFUSALS_MAX:
                del self._refusals[next(iter(self._refusals))]
            self._refusals[declined.node_id] = (refused, self.driver.clock())
        return outcome

    def _lease(self, granted: Granted, hit: Hit) -> Lease:
        if self._tenants is None:
            raise Closed("the node has not started: use `async with` or await start()")
        self._refusals.pop(granted.node_id, None)
        tenancy = self._tenants.keep(granted, self.driver.clock())
        self.driver.flush()
        return Lease(self.driver, tenancy, hit, self.channels)

    @property
    def channels(self) -> MemberChannels | None:
        """What begins sealed connections in the name of this node; None in open mode."""
        sessions = self.engine.core.sessions
        if self._channels is None and sessions is not None:
            self._channels = MemberChannels(sessions.member)
        return self._channels

    async def _await_room(self, plan: Plan, *, again: bool) -> None:
        """Nobody has room: wait once where somebody is large enough; raises NoCandidates."""
        if again or not await self.count(self._able(plan.need, "")):
            raise await self._nobody(plan)
        await asyncio.sleep(_FREED_S)

    async def _nobody(self, plan: Plan) -> NoCandidates:
        why = await self.explain(plan.need)
        reasons = {**why.reasons, **plan.reasons}
        text = f"no machine can take it: {why.matching} of {why.machines} are what is asked for"
        if reasons:
            text += f", ruled out by {counted(reasons)}"
        return NoCandidates(text, reasons, complete=plan.coverage.complete)

    async def explain(self, need: Need) -> Explanation:
        """Why a need can be met or not: how many machines each resource rules out.

        Costs one `count` for each resource, and three more. Raises as `plan`.
        """
        check(need, self.schema)
        where = self._where(need)
        everything = await self.count()
        matching = everything if where is None else await self.count(where)
        able = await self.count(self._able(need))
        counts = [everything, matching, able]
        reasons = {}
        for name, amount in need.resources.items():
            alone = need.of({name: amount})
            counts.append(await self.count(self._able(alone)))
            lacking = int(matching) - int(counts[-1])
            if lacking > 0:
                reasons[name] = lacking
        worst = min((one.coverage for one in counts), key=lambda c: (c.complete, c.fraction))
        return Explanation(need, int(everything), int(matching), int(able), reasons, worst)

    # --- the side that grants ---------------------------------------------------------------------

    def leases(self) -> tuple[Grant, ...]:
        """What this node has promised to whom, the oldest first; asks nobody."""
        return self.grants.ledger.grants()

    async def drain(self, *, revoke: bool = False) -> None:
        """Grant nothing more; `revoke` also takes back what is granted, and tells the owners."""
        self.grants.drain(self.driver.clock(), revoke=revoke)
        self.driver.flush()

    async def undrain(self) -> None:
        """Grant again."""
        self.grants.undrain()

    async def revoke(self, token: str) -> None:
        """Take one lease back, and tell its owner. Raises UsageError where there is none."""
        try:
            raw = bytes.fromhex(token)
        except ValueError:
            raw = b""
        if not self.grants.revoke(raw, Reason.REVOKED, self.driver.clock()):
            raise UsageError(f"no lease has the token {token!r}: see `leases`")
        self.driver.flush()

    # --- inside -----------------------------------------------------------------------------------

    def _where(self, need: Need) -> Expr | None:
        where = need.where
        if where is None or isinstance(where, Expr):
            return where
        if isinstance(where, str):
            return parse_text(where) if where.strip() else None
        raise UsageError(f"where is a text or an F expression, got {where!r}")

    def _able(self, need: Need, part: str = FREE) -> Predicate:
        """Who matches `where` and has enough of everything free, as far as records know.

        With an empty `part`: who has enough of it, whoever may hold it now.
        """
        parts = [F[name + part] >= amount for name, amount in need.resources.items()]
        where = self._where(need)
        if where is not None:
            parts.insert(0, where)
        if not parts:
            return EVERYTHING
        whole = parts[0]
        for other in parts[1:]:
            whole = whole & other
        return self.predicate(whole)

    def _candidate(self, hit: Hit, need: Need, spread: str | None) -> Candidate:
        candidate = Candidate.of(hit, need, spread=spread)
        refused = self._refused(hit.record.node_id)
        return replace(candidate, refusals=refused) if refused else candidate

    def _refused(self, node_id: bytes) -> int:
        """How often a machine said no lately."""
        times, at = self._refusals.get(node_id, (0, 0.0))
        return times if self.driver.clock() - at < REFUSAL_S else 0

    def _bidding(self, need: Need) -> Callable[[Hit], Bid]:
        """How to ask a machine for a need, in the words of its schema."""
        where = self._where(need)
        asked = None if where is None else self.predicate(where)

        def bid(hit: Hit) -> Bid:
            wire = b""
            if asked is not None:
                translated = self.engine.hub.schemas.translated(asked, hit.schema)
                assert translated is not None, "it matched"
                wire = msgspec.msgpack.encode(translated.to_wire())
            return Bid(
                hit.record.node_id,
                hit.record.endpoint,
                need.resources,
                hit.schema.tag,
                wire,
                need.priority,
                need.max_price,
            )

        return bid


def _check_candidates(candidates: int) -> None:
    if type(candidates) is not int or not 1 <= candidates <= SAMPLE_MAX:
        raise UsageError(f"candidates must be 1..{SAMPLE_MAX}, got {candidates!r}")


def check_term(ttl_s: float) -> None:
    """Raise UsageError for what can be no term of a lease."""
    if not is_number(ttl_s) or not LEASE_S_MIN <= ttl_s <= LEASE_S_MAX:
        raise UsageError(f"ttl_s must be {LEASE_S_MIN:g}..{LEASE_S_MAX:g} s, got {ttl_s!r}")


def check_deadline(deadline_s: float) -> None:
    """Raise UsageError for what can be no deadline."""
    if not is_number(deadline_s) or deadline_s <= 0:
        raise UsageError(f"deadline_s must be above 0 s, got {deadline_s!r}")


def tally(outcome: Outcome, reasons: dict[str, int]) -> None:
    """Add up who declined, by the first word of why."""
    for declined in outcome.declined:
        reasons[declined.kind] = reasons.get(declined.kind, 0) + 1


def counted(reasons: Mapping[str, int]) -> str:
    """Reasons as a text."""
    return ", ".join(f"{name} ({count})" for name, count in reasons.items())
