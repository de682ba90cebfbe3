"""The side of a claim that decides: a node asked for a part of itself.

    dh_claim    args   [cookie, token, resources, priority, price | nil, schema, where, preempt]
                reply  [1, epoch, hold_s, free] | [0, reason, free] | [2, cookie] | [3, wait_s]
    dh_confirm  args   [token, epoch, ttl_s]    reply  [1, fence, ttl_s] | [0, reason]
                                                in a cluster [1, fence, ttl_s, price | nil]
    dh_renew    args   [token, fence]           reply  [1, ttl_s] | [0, reason]
    dh_release  args   [token]                  reply  [1] | [0, reason]
    dh_revoke   args   [token, reason, grace_s] a notice to the owner, who answers with a release,
                                                within the grace; a lost one shows at renewal

A claim that may preempt and waits for what others give back is sent again after `wait_s`.
`resources` and `free` are [[name, amount], ...], the latter what is left of the former. `where` is
the predicate of the need as `dh_range` carries it, or empty, and `schema` its tag: all of the need
is judged again, by what the machine is now. A stranger is asked to come back with the cookie before
anything is set aside for it. The ledger decides; this reads, writes and keeps the own record true.

In a cluster a grant is of the key in whose name it was asked for: whoever else knows its token can
neither confirm, renew nor release it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    AWAIT_S,
    CLAIM_RESOURCES_MAX,
    HOLD_S,
    LEASE_S_MAX,
    LEASE_S_MIN,
    OFFER_DELAY_S,
    PREDICATE_WIRE_BYTES_MAX,
    PREEMPT_GRACE_S,
    PRIORITY_MAX,
    TAKEN_DELAY_S,
)
from dhtos.core.schema import FREE, NUMBER_MAX, PRICES
from dhtos.core.value import Value, is_number
from dhtos.protocol.hubwire import SEQ_MAX, as_bytes, as_int, as_list, bad, unpack
from dhtos.protocol.ledger import Grant, Ledger, Reason, State
from dhtos.protocol.timers import Timer
from dhtos.trust.cert import Cert

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

TOKEN_BYTES = 16
COOKIE_BYTES_MAX = 8
RESOURCE_BYTES_MAX = 32
_PRICE_DIGITS = 6  # behind the point, of a price an hour


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks for what, and what that is worth to him.

    `who` is the certificate in whose name he asks, None in open mode, and `groups` are those that
    his own names: of somebody who was lent something, those that were lent.
    """

    token: bytes
    owner: Endpoint
    resources: Mapping[str, float]
    priority: int
    price: float | None
    preempt: bool
    who: Cert | None = None
    groups: tuple[str, ...] = ()


class Grants:
    """Answers claims on this node out of its ledger, and says in its record what is left.

    `accept` is the word of the owner of this machine: only such claims are granted as he accepts.

    `on_end` is told of each lease that is released, over or taken back, and by when whatever runs
    under it must be gone; twice of one that is taken back and then given up. It may only note it.
    `on_bound` and `on_over` are told of each lease that begins, and that is set aside no more.

    With `price_load` what the machine costs now is its list price times 1 + `price_load` where all
    of it is granted, and less where less is.
    """

    def __init__(self, hub: "Hub", ledger: Ledger) -> None:
        self.hub = hub
        self.core = hub.core
        self.ledger = ledger
        self.accept: Callable[[Claim], bool] = lambda _claim: True
        self.on_end: Callable[[Grant, float], None] = lambda _grant, _gone_by: None
        self.price_load = 0.0
        self._list_price: float | None = None
        self.on_bound: Callable[[Grant, float], None] = lambda _grant, _now: None
        self.on_over: Callable[[Grant, float], None] = lambda _grant, _now: None
        self._expiry: Timer | None = None
        self._offering: Timer | None = None
        self._offered = -inf
        for name, handler in (
            ("dh_claim", self._on_claim),
            ("dh_confirm", self._on_confirm),
            ("dh_renew", self._on_renew),
            ("dh_release", self._on_release),
        ):
            self.core.register(name, handler, verb="claim")
        self._arm()

    def offer(self, attributes: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
        """Take what the machine has of the resources in `names`, and how much of it is idle.

        Returns what its record shall say is free.
        """
        capacity = _numbers(attributes, {name: name for name in names})
        measured = _numbers(attributes, {name: name + FREE for name in capacity})
        self.ledger.offer(capacity, measured)
        spot, listed = PRICES
        self._list_price = _numbers(attributes, {spot: listed}).get(spot)
        if spot in attributes:
            self._list_price = None  # it is what its owner says
        return self._now_said()

    def _now_said(self) -> dict[str, Value]:
        """What the record says of what is left, and of what it costs."""
        said: dict[str, Value] = {
            name + FREE: _whole(amount) for name, amount in self.ledger.free().items()
        }
        if self.price_load and self._list_price is not None:
            now_asked = self._list_price * (1 + self.price_load * self.ledger.load())
            said[PRICES[0]] = round(now_asked, _PRICE_DIGITS)
        return said

    def drain(self, now: float, *, revoke: bool = False) -> None:
        """Grant nothing more; with `revoke` also take back what is granted, and tell the owners."""
        self.ledger.draining = True
        if revoke:
            for grant in self.ledger.grants():
                self.revoke(grant.token, Reason.DRAINING, now)

    def undrain(self) -> None:
        """Grant again."""
        self.ledger.draining = False

    def runs(self, token: bytes, fence: int, now: float) -> Grant | None:
        """The lease of that token and fence if it stands now, and was granted by this start."""
        self._expire(now)
        return self.ledger.runs(token, fence)

    def revoke(self, token: bytes, reason: Reason, now: float, *, grace_s: float = 0.0) -> bool:
        """Take a grant back and tell its owner, who may take `grace_s`; False where there is none.

        What a lease had is free when its owner has given it up, or when its term is over.
        """
        grant = self.ledger.revoke(token)
        if grant is None:
            return False
        self.core.counters["grants_revoked"] += 1
        self.core.calls.notify(grant.owner, "dh_revoke", [token, int(reason), grace_s])
        self._ended(grant, now + grace_s)
        self._changed(now)
        return True

    # --- what is asked ----------------------------------------------------------------------------

    def _on_claim(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        cookie, token, resources, priority, price, tag, where, preempt = unpack(
            args,
            lambda v: as_bytes(v, COOKIE_BYTES_MAX),
            as_token,
            as_amounts,
            lambda v: as_int(v, -PRIORITY_MAX, PRIORITY_MAX),
            as_price,
            lambda v: as_int(v, 0, SEQ_MAX),
            lambda v: as_bytes(v, PREDICATE_WIRE_BYTES_MAX),
            as_flag,
        )
        if not self.core.proven(source, cookie):
            return [2, self.core.cookie(source)]
        self._expire(now)
        granted = self._known(token)
        if granted is None:
            speaker = self.core.speaker
            who = None if speaker is None else speaker.principal
            groups = () if speaker is None else speaker.leaf.groups
            claim = Claim(token, source, resources, priority, price, preempt, who, groups)
            granted = self._judge(claim, where, tag) or self._hold(claim, now)
        if isinstance(granted, Grant) and granted.state is State.AWAITED:
            self.ledger.arrived(granted, now)
            self._arm()
            if granted.state is State.AWAITED:
                return [3, AWAIT_S]
        left = self.ledger.free()
        free = [[name, left[name]] for name in resources if name in left]
        if isinstance(granted, Reason):
            self.core.counters["claims_refused"] += 1
            return [0, int(granted), free]
        self.core.counters["claims_held"] += 1
        return [1, self.ledger.epoch, max(granted.expires - now, 0.0), free]

    def _hold(self, claim: Claim, now: float) -> Grant | Reason:
        """Set it aside, or take back what is of less priority and await that."""
        token, resources, owner, who = claim.token, claim.resources, claim.owner, claim.who
        user, subject = ("", b"") if who is None else (who.name, who.subject)
        ledger, priority = self.ledger, claim.priority
        granted = ledger.hold(
            token, resources, owner, now, priority=priority, user=user, subject=subject
        )
        if granted is Reason.FULL and claim.preempt:
            victims = ledger.victims(resources, priority)
            if victims is not None:
                for victim in victims:
                    self.revoke(victim.token, Reason.PREEMPTED, now, grace_s=PREEMPT_GRACE_S)
                granted = ledger.wait(
                    token, resources, owner, now, priority=priority, user=user, subject=subject
                )
                self.core.counters["claims_awaited"] += 1
        if isinstance(granted, Grant):
            granted.price = self._quoted()
            self._changed(now, taken=True)
        return granted

    def _judge(self, claim: Claim, where: bytes, tag: int) -> Reason | None:
        """Why this machine, as it is now, is not what was asked for; None where it is."""
        own = self.hub.own
        if own is None or tag != self.hub.schema.tag:
            return Reason.SCHEMA
        if where and not self.hub.answering.bound(where).matches(own):
            return Reason.WHERE
        if claim.price is not None:
            now_asked = self._quoted()
            if now_asked is None or now_asked > claim.price:
                return Reason.PRICE
        return None if self.accept(claim) else Reason.POLICY

    def _quoted(self) -> float | None:
        """What this machine costs an hour, by its record; None where that does not say."""
        own = self.hub.own
        said = {} if own is None else own.attributes(self.hub.schema)
        price = next((said[name] for name in PRICES if name in said), None)
        return float(price) if is_number(price) else None

    def _on_confirm(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        token, epoch, ttl_s = unpack(args, as_token, lambda v: as_int(v, 0, SEQ_MAX), as_term)
        self._expire(now)
        if not self._is_speakers(token):
            return [0, int(Reason.OTHERS)]
        held, sessions = self.ledger.known(token), self.core.sessions
        is_new = isinstance(held, Grant) and not held.fence
        if isinstance(held, Grant) and is_new and sessions is not None:
            held.began = sessions.member.wall_s()
        granted = self.ledger.confirm(token, epoch, ttl_s, now)
        self._changed(now)
        if isinstance(granted, Reason):
            return [0, int(granted)]
        if is_new:
            self.on_bound(granted, now)
        told = [1, granted.fence, granted.ttl_s]
        return told if sessions is None else [*told, granted.price]

    def _on_renew(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        token, fence = unpack(args, as_token, lambda v: as_int(v, 0, SEQ_MAX))
        self._expire(now)
        if not self._is_speakers(token):
            return [0, int(Reason.OTHERS)]
        granted = self.ledger.renew(token, fence, now)
        self._arm()
        return [0, int(granted)] if isinstance(granted, Reason) else [1, granted.ttl_s]

    def _on_release(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        (token,) = unpack(args, as_token)
        if not self._is_speakers(token):
            return [0, int(Reason.OTHERS)]
        grant = self.ledger.release(token)
        if grant is not None:
            self._ended(grant, now)
            self._over(grant, now)
            self._changed(now)
        return [1]

    def _known(self, token: bytes) -> Grant | Reason | None:
        """As the ledger knows it, for who speaks."""
        return self.ledger.known(token) if self._is_speakers(token) else Reason.OTHERS

    def _is_speakers(self, token: bytes) -> bool:
        """Whether a token is new, or of a grant to who speaks; who steals one has nothing."""
        speaker = self.core.speaker
        subject = b"" if speaker is None else speaker.principal.subject
        if self.ledger.is_of(token, subject):
            return True
        self.core.counters["claims_of_others"] += 1
        return False

    # --- what follows -----------------------------------------------------------------------------

    def _changed(self, now: float, *, taken: bool = False) -> None:
        """Something was granted or ended: the record will say so, and the next end is awaited.

        What is taken is told almost at once, for others are about to claim it; what is free again
        can wait. Neither is told more often than every `OFFER_DELAY_S`.
        """
        self._arm()
        when = max(now + (TAKEN_DELAY_S if taken else OFFER_DELAY_S), self._offered + OFFER_DELAY_S)
        if self._offering is not None:
            if self._offering.when <= when:
                return
            self._offering.cancel()
        self._offering = self.core.timers.at(when, self._publish)

    def _expire(self, now: float) -> None:
        over = self.ledger.expire(now)
        for grant in over:
            self._ended(grant, now)
            self._over(grant, now)
        if over:
            self._changed(now)

    def _ended(self, grant: Grant, gone_by: float) -> None:
        """Nothing runs under a hold, so nobody hears of its end."""
        if grant.fence:
            self.on_end(grant, gone_by)

    def _over(self, grant: Grant, now: float) -> None:
        """What it had is free."""
        if grant.fence:
            self.on_over(grant, now)

    def _arm(self) -> None:
        when = self.ledger.next_deadline()
        if self._expiry is not None:
            if self._expiry.when == when:
                return
            self._expiry.cancel()
            self._expiry = None
        if isfinite(when):
            self._expiry = self.core.timers.at(when, self._on_expiry)

    def _on_expiry(self, now: float) -> None:
        self._expiry = None
        self._expire(now)
        self._arm()

    def _publish(self, now: float) -> None:
        """Tell the group what is left: whoever places next asks for it."""
        self._offering = None
        self._offered = now
        own, schema = self.hub.own, self.hub.schema
        if own is None:
            return
        dynamic = list(own.dynamic)
        for name, value in self._now_said().items():
            dynamic[schema.slots[schema.index(name)]] = value
        if tuple(dynamic) != own.dynamic:
            place = self.hub.locator.published.to_wire()
            self.hub.advertise(own.updated(own.seq + 1, tuple(dynamic), place), now, eager=True)

    def check(self) -> None:
        """Assert every invariant."""
        self.ledger.check()
        assert (self._expiry is None) == (len(self.ledger) == 0)


# --- the wire -------------------------------------------------------------------------------------


def as_token(value: object) -> bytes:
    """A token."""
    if type(value) is bytes and len(value) == TOKEN_BYTES:
        return value
    raise bad(f"a token has {TOKEN_BYTES} bytes")


def as_amounts(value: object) -> dict[str, float]:
    """Amounts of resources by name."""
    amounts: dict[str, float] = {}
    for pair in as_list(value, CLAIM_RESOURCES_MAX):
        name, amount = unpack(as_list(pair, 2), _as_name, as_amount)
        if name in amounts:
            raise bad("a resource is named once")
        amounts[name] = amount
    return amounts


def as_amount(value: object) -> float:
    """How much of a resource; never less than nothing."""
    if type(value) in (int, float) and 0 <= value <= NUMBER_MAX:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]  # checked in the line above
    raise bad("an amount is a number of 0 or more")


def as_price(value: object) -> float | None:
    """The most that may be paid, or nothing said."""
    return None if value is None else as_amount(value)


def as_flag(value: object) -> bool:
    """Yes or no."""
    if type(value) is bool:
        return value
    raise bad("a flag is true or false")


def as_grace(value: object) -> float:
    """How long the owner of a lease may take to give it back, in seconds."""
    return min(as_amount(value), LEASE_S_MAX)


def as_term(value: object) -> float:
    """The term of a lease, in seconds."""
    term = as_amount(value)
    if LEASE_S_MIN <= term <= LEASE_S_MAX:
        return term
    raise bad(f"a term is {LEASE_S_MIN:g}..{LEASE_S_MAX:g} s")


def as_hold(value: object) -> float:
    """How long a hold lasts."""
    return min(as_amount(value), HOLD_S)


def _as_name(value: object) -> str:
    if type(value) is str and 0 < len(value) <= RESOURCE_BYTES_MAX:
        return value
    raise bad("a resource has a name")


def _numbers(attributes: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, float]:
    said = {name: attributes.get(attribute) for name, attribute in names.items()}
    return {name: float(value) for name, value in said.items() if is_number(value)}


def _whole(amount: float) -> float:
    """The number a record carries: whole where it is."""
    return int(amount) if amount == int(amount) else amount


def refusal_of(reason: Reason) -> str:
    """What a reason says to people."""
    return _WORDS[reason]


_WORDS = {
    Reason.FULL: "full: others were faster",
    Reason.WHERE: "where: no longer what was asked for",
    Reason.PRICE: "price: above what may be paid",
    Reason.EPOCH: "restarted: the hold is gone",
    Reason.DRAINING: "draining: takes no more work",
    Reason.GONE: "gone: released, or its time is over",
    Reason.SCHEMA: "schema: of another version",
    Reason.RESOURCE: "resource: not offered there",
    Reason.CROWDED: "crowded: too many leases",
    Reason.DISK: "disk: a lease cannot be written down",
    Reason.REVOKED: "revoked: its machine took it back",
    Reason.POLICY: "policy: its owner does not accept such claims",
    Reason.OTHERS: "others: it was granted to somebody else",
    Reason.PREEMPTED: "preempted: something of a higher priority needs it",
}
