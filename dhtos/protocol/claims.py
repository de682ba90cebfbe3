"""The side of a claim that asks: node after node until one has granted it, and then keeping it.

    for each bid:  dh_claim --HELD--> dh_confirm --BOUND--> granted
                      |  no, or silence   |  no, or silence
                      v                   v
                   dh_release, and the next bid, without a new query

A bid has a token of its own, drawn before anything is sent. Whoever fell silent is sent a release
in its name: it may have heard the claim and not been heard. A bid that may preempt can be told to
wait for what others give back: it is sent again, with its token, until they have.

A lease is renewed at a third of its term and counts from when the renewal was sent, less a margin
for clocks of different speed and for loops that read the time before they read the socket. So its
owner never believes in it for longer than the node does (Gray and Cheriton, "Leases", SOSP 1989,
section 5). Who loses a lease gives it back too: the node may think that it still stands. Who is
preempted has some time for that. `dhtos.protocol.grants` is the other side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from dhtos.core.ids import Endpoint
from dhtos.core.limits import AWAIT_S, LEASE_MARGIN
from dhtos.errors import LeaseLost, MalformedMessage, Preempted
from dhtos.protocol.calls import Call
from dhtos.protocol.grants import (
    COOKIE_BYTES_MAX,
    TOKEN_BYTES,
    as_amounts,
    as_grace,
    as_hold,
    as_price,
    as_term,
    refusal_of,
)
from dhtos.protocol.hubwire import SEQ_MAX, as_bytes, as_int, as_list, bad, unpack
from dhtos.protocol.ledger import Reason
from dhtos.protocol.operation import Operation
from dhtos.protocol.rpc import NO_REPLY
from dhtos.protocol.timers import Timer

if TYPE_CHECKING:
    from dhtos.protocol.rpc import Core

_REPLY_FIELDS = 8
RENEWALS = 3  # a lease is renewed when so large a part of its term is over
_RETRIES = 4 * RENEWALS  # and so large a part after a renewal that was not answered


@dataclass(frozen=True, slots=True)
class Bid:
    """What is asked of one node; `where` is a predicate as it travels, in the schema of the tag."""

    node_id: bytes
    endpoint: Endpoint
    resources: Mapping[str, float]
    schema_tag: int
    where: bytes = b""
    priority: int = 0
    price: float | None = None
    preempt: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease; `expires` is by the clock of the owner, and earlier than by that of the node."""

    node_id: bytes
    endpoint: Endpoint
    resources: Mapping[str, float]
    token: bytes
    fence: int
    ttl_s: float
    expires: float
    free: Mapping[str, float]
    """What the node has left of these resources, by its own word."""
    price: float | None = None
    """What it costs an hour; only known in a cluster."""


@dataclass(frozen=True, slots=True)
class Declined:
    """A node that granted nothing, why, and what it said it has left."""

    node_id: bytes
    reason: str
    free: Mapping[str, float]

    @property
    def kind(self) -> str:
        """The reason in one word."""
        return self.reason.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some bids: at most one lease, and who declined before."""

    granted: Granted | None
    declined: tuple[Declined, ...]


class Claiming:
    """Bids in their order, one at a time; `operation` ends with an `Outcome`."""

    def __init__(
        self,
        core: "Core",
        bids: Sequence[Bid],
        ttl_s: float,
        now: float,
        *,
        draw: Callable[[int], bytes] | None = None,
    ) -> None:
        self.core = core
        self.operation: Operation[Outcome] = core.operation(self._on_cancel)
        self._bids = list(reversed(bids))
        self._ttl_s = ttl_s
        self._draw = draw or core.rng.randbytes
        self._declined: list[Declined] = []
        self._bid: Bid | None = None
        self._token = b""
        self._free: Mapping[str, float] = {}
        self._proved = False
        self._call: Call | None = None
        self._timer: Timer | None = None  # until it is claimed again
        self._next(now)

    def _next(self, now: float) -> None:
        """The next bid, or the end."""
        if not self._bids:
            self.operation.finish(Outcome(None, tuple(self._declined)))
            return
        self._bid = self._bids.pop()
        self._token = self._draw(TOKEN_BYTES)
        self._proved = False
        self._claim(self._bid, now)

    def _claim(self, bid: Bid, now: float) -> None:
        self._timer = None
        cookie = self.core.cookies.get(bid.endpoint, b"")
        resources = [[name, amount] for name, amount in bid.resources.items()]
        args = [
            cookie, self._token, resources, bid.priority, bid.price, bid.schema_tag, bid.where,
            bid.preempt,
        ]  # fmt: skip
        self._call = self.core.calls.send(bid.endpoint, "dh_claim", args, self, now)

    # --- answers ----------------------------------------------------------------------------------

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """Held, bound, no, or a cookie to come back with."""
        assert self._bid is not None
        self._call = None
        try:
            fields = as_list(value, _REPLY_FIELDS)
            kind = as_int(fields[0] if fields else None, 0, 3)
            if call.name == "dh_confirm":
                self._confirmed(self._bid, call, kind, fields, now)
            elif kind == 2:
                self._prove(self._bid, fields, now)
            elif kind == 1:
                self._held(self._bid, fields, now)
            elif kind == 3:
                self._await(self._bid, fields, now)
            else:
                self._refused(fields, now)
        except MalformedMessage:
            self.core.counters["malformed"] += 1
            self._drop("malformed: not what a node answers", now)

    def on_late(self, call: Call, now: float) -> None:
        """It was sent once more: the token makes that the same claim."""

    def on_failure(self, call: Call, now: float) -> None:
        """Nobody knows whether it was heard: nothing may stay set aside."""
        self._call = None
        self._drop("silent: no answer", now)

    def _prove(self, bid: Bid, fields: list[Any], now: float) -> None:
        (cookie,) = unpack(fields[1:], lambda v: as_bytes(v, COOKIE_BYTES_MAX))
        if self._proved:
            raise bad("a cookie was asked for twice")
        self._proved = True
        self.core.remember_cookie(bid.endpoint, cookie)
        self._claim(bid, now)

    def _await(self, bid: Bid, fields: list[Any], now: float) -> None:
        """Others have been told to give it back: it is claimed again until they have."""
        (wait_s,) = unpack(fields[1:], as_hold)
        if not bid.preempt:
            raise bad("nothing is awaited for who does not preempt")
        when = now + max(wait_s, AWAIT_S)
        self._timer = self.core.timers.at(when, lambda at: self._claim(bid, at))

    def _held(self, bid: Bid, fields: list[Any], now: float) -> None:
        epoch, _, self._free = unpack(
            fields[1:], lambda v: as_int(v, 0, SEQ_MAX), as_hold, as_amounts
        )
        args = [self._token, epoch, self._ttl_s]
        self._call = self.core.calls.send(bid.endpoint, "dh_confirm", args, self, now)

    def _refused(self, fields: list[Any], now: float) -> None:
        reason, free = unpack(fields[1:], as_reason, as_amounts)
        assert self._bid is not None
        self._declined.append(Declined(self._bid.node_id, refusal_of(reason), free))
        self._next(now)

    def _confirmed(self, bid: Bid, call: Call, kind: int, fields: list[Any], now: float) -> None:
        if kind != 1:
            (reason,) = unpack(fields[1:], as_reason)
            self._drop(refusal_of(reason), now)
            return
        told, price = fields[1:], None
        if self.core.sessions is not None:
            (price,) = unpack(told[2:], as_price)
        fence, ttl_s = unpack(told[:2], lambda v: as_int(v, 1, SEQ_MAX), as_term)
        granted = Granted(
            bid.node_id, bid.endpoint, bid.resources, self._token, fence, ttl_s,
            _until(call.sent_at, ttl_s), self._free, price,
        )  # fmt: skip
        self.operation.finish(Outcome(granted, tuple(self._declined)))

    def _drop(self, reason: str, now: float) -> None:
        """Give up on the node at hand: whatever it may have set aside is released."""
        assert self._bid is not None
        _release(self.core, self._bid.endpoint, self._token, now)
        self._declined.append(Declined(self._bid.node_id, reason, {}))
        self._next(now)

    def give_back(self, now: float) -> None:
        """What was granted while the one who asked was leaving: nobody will keep it."""
        if self.operation.done and self.operation.error is None:
            granted = self.operation.result().granted
            if granted is not None:
                _release(self.core, granted.endpoint, granted.token, now)

    def _on_cancel(self, now: float) -> None:
        assert self._bid is not None
        assert (self._call is None) != (self._timer is None), "somebody is asked, or waited for"
        if self._call is not None:
            self.core.calls.cancel(self._call)
            self._call = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _release(self.core, self._bid.endpoint, self._token, now)


class Tenancy:
    """One lease that is kept; `operation` ends when it is released, or fails with LeaseLost."""

    def __init__(self, tenants: "Tenants", granted: Granted, now: float) -> None:
        self.tenants = tenants
        self.core = tenants.core
        self.granted = granted
        self.expires = granted.expires
        self.released_at: float | None = None
        self.operation: Operation[None] = self.core.operation(self.release)
        self._call: Call | None = None
        self._timer: Timer | None = None
        self._await(now)

    def release(self, now: float) -> None:
        """Give it back; what is lost, or was given back, stays so."""
        if self.granted.token in self.tenants.kept:
            self.released_at = now
            _release(self.core, self.granted.endpoint, self.granted.token, now)
            self._forget()
            self.operation.finish(None)

    def lose(self, why: str) -> None:
        """The node takes it back, or has not been heard for a whole term."""
        self.core.calls.notify(self.granted.endpoint, "dh_release", [self.granted.token])
        self._forget()
        self.operation.fail(LeaseLost(f"the lease was lost: {why}"))

    def wind_up(self, why: str, grace_s: float, now: float) -> None:
        """The node wants it back, and gives us some time until it must be given back."""
        if self.operation.done:
            return  # it is being given back
        self._quiet()
        self.expires = min(self.expires, now + grace_s)
        self._timer = self.core.timers.at(self.expires, self.release)
        grace_s = max(self.expires - now, 0.0)
        self.operation.fail(Preempted(f"the lease was lost: {why}", grace_s))

    def _await(self, now: float, parts: int = RENEWALS) -> None:
        if self._timer is not None:
            self._timer.cancel()
        when = min(now + self.granted.ttl_s / parts, self.expires)
        self._timer = self.core.timers.at(when, self._on_timer)

    def _on_timer(self, now: float) -> None:
        self._timer = None
        if now >= self.expires:
            self.lose("its node has not answered for a whole term")
            return
        self._await(now)
        if self._call is None:
            args = [self.granted.token, self.granted.fence]
            self._call = self.core.calls.send(self.granted.endpoint, "dh_renew", args, self, now)

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, _now: float) -> None:
        """Another term, or the end."""
        self._call = None
        try:
            fields = as_list(value, _REPLY_FIELDS)
            if as_int(fields[0] if fields else None, 0, 1) == 0:
                (reason,) = unpack(fields[1:], as_reason)
                self.lose(refusal_of(reason))
                return
            (ttl_s,) = unpack(fields[1:], as_term)
        except MalformedMessage:
            self.core.counters["malformed"] += 1
            return
        until = _until(call.sent_at, min(ttl_s, self.granted.ttl_s))
        self.expires = max(self.expires, until)

    def on_late(self, call: Call, now: float) -> None:
        """It was sent once more."""

    def on_failure(self, call: Call, now: float) -> None:
        """Its node may be about to start again: it is asked more often while the term runs out."""
        self._call = None
        self._await(now, _RETRIES)

    def check(self) -> None:
        """Assert that it is renewed, or given back in time."""
        assert self._timer is not None

    def _forget(self) -> None:
        self.tenants.kept.pop(self.granted.token, None)
        self.expires = -inf
        self._quiet()

    def _quiet(self) -> None:
        """Ask for no other term."""
        if self._call is not None:
            self.core.calls.cancel(self._call)
            self._call = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Tenants:
    """The leases that one node keeps on others, and the ear for those who take them back."""

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.kept: dict[bytes, Tenancy] = {}
        self.on_keep: Callable[[Tenancy, float], None] = lambda _tenancy, _now: None
        core.register("dh_revoke", self._on_revoke, verb="publish")

    def keep(self, granted: Granted, now: float) -> Tenancy:
        """Renew a lease from now on."""
        tenancy = Tenancy(self, granted, now)
        self.kept[granted.token] = tenancy
        self.on_keep(tenancy, now)
        return tenancy

    def release(self, now: float) -> None:
        """Give everything back."""
        for tenancy in tuple(self.kept.values()):
            tenancy.release(now)

    def _on_revoke(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        token, reason, grace_s = unpack(
            args, lambda v: as_bytes(v, TOKEN_BYTES), as_reason, as_grace
        )
        tenancy = self.kept.get(token)
        if tenancy is not None and tenancy.granted.endpoint == source:
            if grace_s > 0:
                tenancy.wind_up(refusal_of(reason), grace_s, now)
            else:
                tenancy.lose(refusal_of(reason))
        return NO_REPLY

    def check(self) -> None:
        """Assert every invariant."""
        for token, tenancy in self.kept.items():
            assert tenancy.granted.token == token
            tenancy.check()


class _Unheard:
    """The owner of a call whose answer changes nothing: it is only sent again if it was lost."""

    def on_reply(self, call: Call, value: Any, trailer: list[Any] | None, now: float) -> None:
        """Released."""

    def on_late(self, call: Call, now: float) -> None:
        """Sent again."""

    def on_failure(self, call: Call, now: float) -> None:
        """The lease will run out by itself."""


def _until(sent_at: float, ttl_s: float) -> float:
    """How long an owner believes in a term that it asked for at `sent_at`."""
    return sent_at + ttl_s * (1 - LEASE_MARGIN)


def _release(core: "Core", endpoint: Endpoint, token: bytes, now: float) -> None:
    """Give back; sent once more if it is lost, since a lease could stand for an hour."""
    core.calls.send(endpoint, "dh_release", [token], _Unheard(), now)


def as_reason(value: object) -> Reason:
    """Why a node says no; one of a later version is read as refusal of any kind."""
    number = as_int(value, 1, 255)
    try:
        return Reason(number)
    except ValueError:
        return Reason.GONE
