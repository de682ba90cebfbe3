"""The ledger of one node: what it has promised of its resources, to whom, and until when.

Capacity is decided here and nowhere else, so that schedulers which know nothing of each other race
without overselling: what a query found is advice, a claim is asked of the node itself (Raman, Livny
and Solomon, "Matchmaking", HPDC 1998).

    claim --> HELD --confirm--> BOUND --renew--> BOUND --revoke--> REVOKED
      |        ^ |                |                                   |
      v        | |                |                                   |
    AWAITED ---' '-------- release, or its time is over --------------'--> gone

* The client draws the token before it sends anything: a claim that comes twice is granted once.
* What is gone stays gone, also where a release overtakes its claim: its token is remembered.
* Who is told that a lease was taken back may not hear it. What was his is granted to others when he
  has given it up, or when his term is over.
* A claim that may *preempt* takes leases of a lower priority back where nothing else helps: the
  lowest first, then the youngest, and none that it does not need. It awaits their end: what it asks
  for is promised to nobody else meanwhile.
* The epoch counts the starts of a node. A hold dies with its epoch; a lease was written down before
  it was told, and outlives a restart by one more term.
* A fence is larger than all before it, across restarts too: whatever a lease guards can refuse
  those who come with a smaller one.
* Time is a monotonic clock; a step of the wall clock ends nothing.

Amounts are kept as whole millionths, so that ten times a tenth is one and nothing is lost by
adding up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from math import inf
from typing import Protocol

from dhtos.core.ids import Endpoint
from dhtos.core.limits import GRANTS_MAX, HOLD_S, TOKENS_GONE_MAX

_UNITS = 1_000_000
_FENCES = 1 << 32  # of one epoch


class State(Enum):
    """How far a grant has come."""

    AWAITED = "awaited"  # set aside from what others still have
    HELD = "held"
    BOUND = "bound"
    REVOKED = "revoked"  # its owner may not know yet


class Reason(IntEnum):
    """Why a node says no; the numbers travel."""

    FULL = 1
    WHERE = 2
    PRICE = 3
    EPOCH = 4
    DRAINING = 5
    GONE = 6
    SCHEMA = 7
    RESOURCE = 8
    CROWDED = 9
    DISK = 10
    REVOKED = 11
    PREEMPTED = 12
    POLICY = 13
    OTHERS = 14


@dataclass(slots=True)
class Grant:
    """One promise; `expires` is by the clock of this node, `fence` is 0 until it is bound.

    `user` is the name of who asked for it and `subject` its public key, by its certificate: empty
    in open mode.
    """

    token: bytes
    resources: Mapping[str, float]
    owner: Endpoint
    priority: int
    expires: float
    state: State = State.HELD
    ttl_s: float = 0.0
    fence: int = 0
    user: str = ""
    subject: bytes = b""
    price: float | None = None  # an hour, as the record said when it was claimed
    began: float = 0.0  # when it was bound, in seconds since 1970; 0 in open mode


class NotWritten(Exception):
    """A journal could not keep what it was given."""


class Journal(Protocol):
    """Where leases outlive their node."""

    def bound(self, grant: Grant) -> None:
        """Keep a lease, in place of what was kept for its token; raises NotWritten."""

    def ended(self, token: bytes) -> None:
        """Forget a lease; raises NotWritten."""


class Ledger:
    """The promises of one node, and what is left of its resources."""

    def __init__(
        self, *, epoch: int = 1, bound: Iterable[Grant] = (), journal: Journal | None = None
    ) -> None:
        self.epoch = epoch
        self.draining = False
        self._journal = journal
        self._grants: dict[bytes, Grant] = {}
        self._gone: dict[bytes, None] = {}
        self._capacity: dict[str, int] = {}
        self._measured: dict[str, int] = {}
        self._granted: dict[str, int] = {}
        self._fence = epoch * _FENCES
        for grant in bound:
            self._enter(grant)
            self._fence = max(self._fence, grant.fence)

    # --- what there is ----------------------------------------------------------------------------

    def offer(self, capacity: Mapping[str, float], measured: Mapping[str, float]) -> None:
        """How much there is of each resource, and how much of it is idle as far as one can see.

        Less than what is granted revokes nothing: nothing more is granted until it is free again.
        """
        self._capacity = {name: _units(amount) for name, amount in capacity.items()}
        self._measured = {name: _units(amount) for name, amount in measured.items()}

    def free(self) -> dict[str, float]:
        """What a claim may have of each resource: what is neither granted nor in use."""
        return {name: self._free(name) / _UNITS for name in self._capacity}

    def load(self) -> float:
        """How much of what there is has been granted, of the resource with the least left: 0..1."""
        had = [self._granted.get(name, 0) / most for name, most in self._capacity.items() if most]
        return min(max(had, default=0.0), 1.0)

    def _free(self, name: str) -> int:
        return max(min(self._room(name), self._measured.get(name, self._capacity[name])), 0)

    def _room(self, name: str) -> int:
        """What is not granted; below nothing where more is than there is."""
        return self._capacity.get(name, 0) - self._granted.get(name, 0)

    # --- verbs ------------------------------------------------------------------------------------

    def known(self, token: bytes) -> Grant | Reason | None:
        """The grant of a token, GONE where it has ended, None where it was never heard of."""
        grant = self._grants.get(token)
        if token in self._gone or (grant is not None and grant.state is State.REVOKED):
            return Reason.GONE
        return grant

    def is_of(self, token: bytes, subject: bytes) -> bool:
        """Whether a token is new, or of what was granted to the holder of this key."""
        grant = self._grants.get(token)
        return grant is None or grant.subject == subject

    def runs(self, token: bytes, fence: int) -> Grant | None:
        """The lease of that token and fence; None where it does not stand, or is not of this start.

        Whatever an earlier start has begun under its leases may be about to end.
        """
        grant = self.known(token)
        if not isinstance(grant, Grant) or grant.state is not State.BOUND or grant.fence != fence:
            return None
        return grant if fence > self.epoch * _FENCES else None

    def hold(
        self,
        token: bytes,
        resources: Mapping[str, float],
        owner: Endpoint,
        now: float,
        *,
        priority: int = 0,
        user: str = "",
        subject: bytes = b"",
    ) -> Grant | Reason:
        """Set so much aside for HOLD_S, all of it or nothing; the same again for a known token."""
        known = self.known(token)
        if known is not None:
            return known
        if self.draining:
            return Reason.DRAINING
        if len(self._grants) >= GRANTS_MAX:
            return Reason.CROWDED
        if any(name not in self._capacity for name in resources):
            return Reason.RESOURCE
        if any(_units(amount) > self._free(name) for name, amount in resources.items()):
            return Reason.FULL
        grant = Grant(
            token, dict(resources), owner, priority, now + HOLD_S, user=user, subject=subject
        )
        self._enter(grant)
        return grant

    # --- preemption -------------------------------------------------------------------------------

    def victims(self, resources: Mapping[str, float], priority: int) -> list[Grant] | None:
        """What must be taken back before so much is free; None where that does not help.

        Only what is of a lower priority: the lowest first, of equals the youngest, which has least
        to lose. What was taken back before is on its way out already.
        """
        short = {name: _units(amount) - self._room(name) for name, amount in resources.items()}
        if all(lack <= 0 for lack in short.values()):
            return None  # it is not granted, and yet in use
        below = []
        for grant in self._grants.values():
            if grant.state is State.REVOKED:
                _add(short, grant, -1)
            elif grant.priority < priority:
                below.append(grant)
        below.sort(key=lambda grant: (-grant.priority, grant.fence or inf))
        chosen: list[Grant] = []
        while below and any(lack > 0 for lack in short.values()):
            grant = below.pop()
            if any(short.get(name, 0) > 0 for name in grant.resources):
                chosen.append(grant)
                _add(short, grant, -1)
        if any(lack > 0 for lack in short.values()):
            return None
        for grant in tuple(chosen):  # those after it may have made it needless
            _add(short, grant, 1)
            if any(lack > 0 for lack in short.values()):
                _add(short, grant, -1)
            else:
                chosen.remove(grant)
        return chosen

    def wait(
        self,
        token: bytes,
        resources: Mapping[str, float],
        owner: Endpoint,
        now: float,
        *,
        priority: int,
        user: str = "",
        subject: bytes = b"",
    ) -> Grant:
        """Set aside what others have been told to give back, for HOLD_S after each claim of it."""
        grant = Grant(
            token, dict(resources), owner, priority, now + HOLD_S, State.AWAITED,
            user=user, subject=subject,
        )  # fmt: skip
        self._enter(grant)
        self.arrived(grant, now)
        return grant

    def arrived(self, grant: Grant, now: float) -> None:
        """Hold what is awaited if it is there now; who awaits longest comes first."""
        assert grant.state is State.AWAITED
        grant.expires = now + HOLD_S
        later: dict[str, int] = {}
        for other in reversed(self._grants.values()):
            if other is grant:
                break
            if other.state is State.AWAITED:
                _add(later, other, 1)
        if all(self._room(name) + later.get(name, 0) >= 0 for name in grant.resources):
            grant.state = State.HELD

    def confirm(self, token: bytes, epoch: int, ttl_s: float, now: float) -> Grant | Reason:
        """Make a hold a lease of `ttl_s`; the same lease again where it is one already."""
        grant = self.known(token)
        if isinstance(grant, Grant) and grant.state is State.BOUND:
            return grant
        if epoch != self.epoch:
            return Reason.EPOCH
        if not isinstance(grant, Grant) or grant.state is State.AWAITED:
            return Reason.GONE
        self._fence += 1  # also where it cannot be written: nobody knows what reached the disk
        bound = replace(
            grant, expires=now + ttl_s, state=State.BOUND, ttl_s=ttl_s, fence=self._fence
        )
        if not self._write(bound):
            return Reason.DISK
        self._grants[token] = bound
        return bound

    def renew(self, token: bytes, fence: int, now: float) -> Grant | Reason:
        """Another term for a lease, from now on."""
        grant = self.known(token)
        if not isinstance(grant, Grant) or grant.fence != fence or grant.state is not State.BOUND:
            return Reason.GONE
        grant.expires = max(grant.expires, now + grant.ttl_s)
        return grant

    def release(self, token: bytes) -> Grant | None:
        """End a grant, and never grant that token again; None where there was none."""
        grant = self._grants.pop(token, None)
        if grant is not None:
            for name, amount in grant.resources.items():
                self._granted[name] -= _units(amount)
            if grant.fence:
                self._strike(token)
        self._gone[token] = None
        if len(self._gone) > TOKENS_GONE_MAX:
            del self._gone[next(iter(self._gone))]
        return grant

    def revoke(self, token: bytes) -> Grant | None:
        """Take a grant back; None where there is none, or it was taken back before.

        A lease stays set aside until it is released or over. One that cannot be written down is
        what it was after a restart.
        """
        grant = self._grants.get(token)
        if grant is None or grant.state is State.REVOKED:
            return None
        if not grant.fence:
            return self.release(token)
        revoked = replace(grant, state=State.REVOKED)
        self._write(revoked)
        self._grants[token] = revoked
        return revoked

    def expire(self, now: float) -> list[Grant]:
        """End what has run out; returns it."""
        over = [grant for grant in self._grants.values() if grant.expires <= now]
        for grant in over:
            self.release(grant.token)
        return over

    def next_deadline(self) -> float:
        """When the next grant runs out; infinity where there is none."""
        return min((grant.expires for grant in self._grants.values()), default=inf)

    # --- inside -----------------------------------------------------------------------------------

    def _enter(self, grant: Grant) -> None:
        self._grants[grant.token] = grant
        for name, amount in grant.resources.items():
            self._granted[name] = self._granted.get(name, 0) + _units(amount)

    def _write(self, grant: Grant) -> bool:
        if self._journal is not None:
            try:
                self._journal.bound(grant)
            except NotWritten:
                return False
        return True

    def _strike(self, token: bytes) -> None:
        """A lease that cannot be struck out comes back with a restart, for one term."""
        if self._journal is not None:
            try:
                self._journal.ended(token)
            except NotWritten:
                return

    def grants(self) -> tuple[Grant, ...]:
        """All promises that stand, the oldest first."""
        return tuple(g for g in self._grants.values() if g.state is not State.REVOKED)

    def __len__(self) -> int:
        return len(self._grants)

    def check(self) -> None:
        """Assert every invariant; a capacity that has shrunk since may be exceeded."""
        assert len(self._grants) <= GRANTS_MAX
        assert len(self._gone) <= TOKENS_GONE_MAX
        assert not self._gone.keys() & self._grants.keys()
        sums: dict[str, int] = {}
        for token, grant in self._grants.items():
            assert token == grant.token
            assert (grant.state in (State.HELD, State.AWAITED)) == (grant.fence == 0)
            for name, amount in grant.resources.items():
                sums[name] = sums.get(name, 0) + _units(amount)
        for name in sums.keys() | self._granted.keys():
            assert sums.get(name, 0) == self._granted.get(name, 0)
        fences = [grant.fence for grant in self._grants.values() if grant.fence]
        assert len(set(fences)) == len(fences)
        assert max(fences, default=0) <= self._fence


def _add(sums: dict[str, int], grant: Grant, sign: int) -> None:
    for name, amount in grant.resources.items():
        sums[name] = sums.get(name, 0) + sign * _units(amount)


def _units(amount: float) -> int:
    """Exact for whole amounts however large: a product of floats is not beyond 2**53."""
    whole = int(amount)
    return whole * _UNITS + round((amount - whole) * _UNITS)
