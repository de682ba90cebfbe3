"""A ledger and its journal under any sequence of messages, late ones, restarts and full disks.

Two models run beside it. One is the ledger in words: exact fractions, no sharing of code. The other
is what owners believe, who know no more than the replies that reached them: whatever happens, what
an owner believes is his is set aside for him.
"""

from dataclasses import dataclass, field, replace
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dhtos.core.limits import HOLD_S, LEASE_MARGIN
from dhtos.protocol.ledger import Grant, Ledger, NotWritten, Reason, State

OWNER = ("10.0.0.9", 7400)
MILLIONTHS = 1_000_000

amounts = st.integers(0, 4 * MILLIONTHS)
needs = st.dictionaries(st.sampled_from(["cores", "mem"]), amounts, max_size=2)
terms = st.sampled_from([1.0, 5.0, 30.0])


class Paper:
    """A journal in memory, whose disk may be full, and may lie about it."""

    def __init__(self) -> None:
        self.leases: dict[bytes, Grant] = {}
        self.full = False
        self.lying = False

    def bound(self, grant: Grant) -> None:
        if not self.full or self.lying:
            self.leases[grant.token] = grant
        if self.full:
            raise NotWritten("disk full")

    def ended(self, token: bytes) -> None:
        if not self.full or self.lying:
            self.leases.pop(token, None)
        if self.full:
            raise NotWritten("disk full")


@dataclass
class Promise:
    """What the model knows of one grant."""

    need: dict[str, int]  # in millionths
    expires: float
    state: State = State.HELD
    ttl_s: float = 0.0
    fence: int = 0


@dataclass
class Party:
    """One token and the owner who drew it; he knows only what he was told."""

    need: dict[str, int]
    ttl_s: float
    epoch: int | None = None  # once he was told of a hold
    asked_at: float | None = None  # his confirm
    fence: int = 0
    until: float | None = None  # how long he believes in his lease
    done: bool = False
    sent: list[tuple[object, ...]] = field(default_factory=list)


class LedgerMachine(RuleBasedStateMachine):
    """Random messages in any order; replies may be lost, requests may come again at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.epoch = 1
        self.paper = Paper()
        self.capacity = {"cores": 8 * MILLIONTHS, "mem": 10 * MILLIONTHS}
        self.measured: dict[str, int] = {}
        self.draining = False
        self.parties: list[Party] = []
        self.promised: dict[int, Promise] = {}
        self.gone: set[int] = set()
        self.ended: set[int] = set()  # leases that are over, and were struck out
        self.last_fence = 0
        self.start()

    def start(self) -> None:
        bound = [replace(one, expires=self.now + one.ttl_s) for one in self.paper.leases.values()]
        self.ledger = Ledger(epoch=self.epoch, bound=bound, journal=self.paper)
        self.offer()

    def offer(self) -> None:
        self.ledger.offer(_floats(self.capacity), _floats(self.measured))

    # --- the world ----------------------------------------------------------------------------

    @rule(step=st.sampled_from([0.0, 0.01, 0.3, 0.99, 1.0, 5.0, HOLD_S, 29.7, 30.0]))
    def wait(self, step: float) -> None:
        self.now += step
        for party in self.parties:
            if party.until is not None and self.now >= party.until:
                party.until, party.done = None, True

    @rule(cores=amounts, idle=st.none() | amounts)
    def change_machine(self, cores: int, idle: int | None) -> None:
        self.capacity["cores"] = cores
        self.measured = {} if idle is None else {"cores": idle}
        self.offer()

    @rule()
    def drain(self) -> None:
        self.draining = self.ledger.draining = not self.draining

    @rule(full=st.booleans(), lying=st.booleans())
    def fill_disk(self, full: bool, lying: bool) -> None:
        self.paper.full, self.paper.lying = full, full and lying

    @rule()
    def restart(self) -> None:
        """Holds and tombstones are gone; what is on the disk stands for one more term."""
        self.epoch += 1
        self.draining = False
        self.promised = {
            int.from_bytes(token): Promise(
                {name: round(amount * MILLIONTHS) for name, amount in one.resources.items()},
                self.now + one.ttl_s, one.state, one.ttl_s, one.fence,
            )
            for token, one in self.paper.leases.items()
        }  # fmt: skip
        self.gone = set()
        self.start()

    # --- owners -------------------------------------------------------------------------------

    @rule(need=needs, ttl_s=terms, answered=st.booleans())
    def claim(self, need: dict[str, int], ttl_s: float, answered: bool) -> None:
        self.parties.append(Party(need, ttl_s))
        self.send(len(self.parties) - 1, ("claim",), answered)

    @rule(need=needs, ttl_s=terms, lag_s=st.sampled_from([0.0, 0.2, 3.0]))
    def become_owner(self, need: dict[str, int], ttl_s: float, lag_s: float) -> None:
        """Claim and confirm, and both are answered; the confirm is under way for a while."""
        self.claim(need, ttl_s, answered=True)
        party = self.parties[-1]
        if party.epoch is None:
            return
        party.asked_at = self.now
        self.wait(lag_s)
        self.send(len(self.parties) - 1, ("confirm", party.epoch), answered=True)

    def _some(self, data: st.DataObject, *, held: bool | None = None) -> int | None:
        """A party that is not done: in the middle of a claim, or with a lease."""
        able = [
            number
            for number, one in enumerate(self.parties)
            if not one.done and (held is None or (one.until is not None) == held)
        ]
        return data.draw(st.sampled_from(able)) if able else None

    @rule(data=st.data(), answered=st.booleans())
    def confirm(self, data: st.DataObject, answered: bool) -> None:
        number = self._some(data, held=False)
        if number is None or self.parties[number].epoch is None:
            return
        party = self.parties[number]
        if party.asked_at is None:
            party.asked_at = self.now
        self.send(number, ("confirm", party.epoch), answered)

    @rule(data=st.data(), answered=st.booleans())
    def renew(self, data: st.DataObject, answered: bool) -> None:
        number = self._some(data, held=True)
        if number is not None:
            self.send(number, ("renew", self.parties[number].fence, self.now), answered)

    @rule(data=st.data(), arrives=st.booleans())
    def give_up(self, data: st.DataObject, arrives: bool) -> None:
        number = self._some(data)
        if number is None:
            return
        party = self.parties[number]
        party.until, party.done = None, True
        party.sent.append(("release",))
        if arrives:
            self.deliver(number, ("release",), answered=False)

    @precondition(lambda self: self.parties)
    @rule(data=st.data(), answered=st.booleans())
    def come_again(self, data: st.DataObject, answered: bool) -> None:
        """A copy of any request ever sent arrives now."""
        number = data.draw(st.integers(0, len(self.parties) - 1))
        message = data.draw(st.sampled_from(self.parties[number].sent))
        self.deliver(number, message, answered)

    @precondition(lambda self: self.promised)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        """The owner is not told: the notice is lost."""
        number = data.draw(st.sampled_from(sorted(self.promised)))
        promise = self.promised[number]
        revoked = self.ledger.revoke(_token(number))
        assert (revoked is None) == (promise.state is State.REVOKED)
        if promise.state is State.HELD:
            self.end(number)
        promise.state = State.REVOKED

    def send(self, number: int, message: tuple[object, ...], answered: bool) -> None:
        self.parties[number].sent.append(message)
        self.deliver(number, message, answered)

    # --- the node, and what it should say -----------------------------------------------------

    def deliver(self, number: int, message: tuple[object, ...], answered: bool) -> None:
        """Hand a message to the node, which ends what is over before it decides."""
        over = {n for n, promise in self.promised.items() if promise.expires <= self.now}
        found = self.ledger.expire(self.now)
        assert {int.from_bytes(grant.token) for grant in found} == over
        for one in over:
            self.end(one)
        verb, *rest = message
        handler = getattr(self, f"_on_{verb}")
        handler(number, self.parties[number], *rest, answered)

    def _on_claim(self, number: int, party: Party, answered: bool) -> None:
        wanted = self._expected(number, party.need)
        said = self.ledger.hold(_token(number), _floats(party.need), OWNER, self.now)
        if isinstance(wanted, Reason):
            assert said is wanted
            return
        assert isinstance(said, Grant)
        self.promised[number] = wanted
        if answered and not party.done and party.epoch is None:
            party.epoch = self.epoch

    def _expected(self, number: int, need: dict[str, int]) -> Promise | Reason:
        """What a claim should come to; never more than there is."""
        known = self.promised.get(number)
        if number in self.gone or (known is not None and known.state is State.REVOKED):
            return Reason.GONE
        if known is not None:
            return known
        if self.draining:
            return Reason.DRAINING
        if any(amount > self._free(name) for name, amount in need.items()):
            return Reason.FULL
        promise = Promise(need, self.now + HOLD_S)
        everything = [*self.promised.values(), promise]
        for name, amount in need.items():
            granted = sum(Fraction(one.need.get(name, 0), MILLIONTHS) for one in everything)
            assert amount == 0 or granted <= Fraction(self.capacity[name], MILLIONTHS)
        return promise

    def _free(self, name: str) -> int:
        left = self.capacity[name] - sum(p.need.get(name, 0) for p in self.promised.values())
        return max(0, min(left, self.measured.get(name, left)))

    def _on_confirm(self, number: int, party: Party, epoch: int, answered: bool) -> None:
        promise = self.promised.get(number)
        fence_before = self.last_fence
        said = self.ledger.confirm(_token(number), epoch, party.ttl_s, self.now)
        if promise is not None and promise.state is State.BOUND:
            assert isinstance(said, Grant)
            assert said.fence == promise.fence
        elif epoch != self.epoch:
            assert said is Reason.EPOCH
        elif promise is None or promise.state is State.REVOKED:
            assert said is Reason.GONE
        elif self.paper.full:
            assert said is Reason.DISK
        else:
            assert isinstance(said, Grant)
            assert said.fence > fence_before, "a fence came twice"
            assert number not in self.ended, "a token was revived"
            self.last_fence = said.fence
            promise.state, promise.ttl_s, promise.fence = State.BOUND, party.ttl_s, said.fence
            promise.expires = self.now + party.ttl_s
        if answered and not party.done:
            self._hear(party, said)

    def _hear(self, party: Party, said: Grant | Reason) -> None:
        if isinstance(said, Reason):
            party.until, party.done = None, True
        elif party.until is None:
            assert party.asked_at is not None
            party.fence = said.fence
            party.until = party.asked_at + said.ttl_s * (1 - LEASE_MARGIN)
            if self.now >= party.until:
                party.until, party.done = None, True

    def _on_renew(
        self, number: int, party: Party, fence: int, asked_at: float, answered: bool
    ) -> None:
        promise = self.promised.get(number)
        said = self.ledger.renew(_token(number), fence, self.now)
        stands = promise is not None and promise.state is State.BOUND and promise.fence == fence
        assert isinstance(said, Grant) == stands
        if promise is not None and stands:
            promise.expires = max(promise.expires, self.now + promise.ttl_s)
        if answered and not party.done:
            if isinstance(said, Reason):
                party.until, party.done = None, True
            elif party.until is not None:
                party.until = max(party.until, asked_at + party.ttl_s * (1 - LEASE_MARGIN))

    def _on_release(self, number: int, _party: Party, _answered: bool) -> None:
        assert (self.ledger.release(_token(number)) is not None) == (number in self.promised)
        self.end(number)

    def end(self, number: int) -> None:
        promise = self.promised.pop(number, None)
        self.gone.add(number)
        if promise is not None and promise.fence and _token(number) not in self.paper.leases:
            self.ended.add(number)

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def the_ledger_is_as_the_model_says(self) -> None:
        self.ledger.check()
        stand = {n for n, promise in self.promised.items() if promise.state is not State.REVOKED}
        assert {int.from_bytes(grant.token) for grant in self.ledger.grants()} == stand
        assert len(self.ledger) == len(self.promised)
        for grant in self.ledger.grants():
            promise = self.promised[int.from_bytes(grant.token)]
            assert (grant.state, grant.fence) == (promise.state, promise.fence)
            assert grant.expires == promise.expires
        free = {name: self._free(name) / MILLIONTHS for name in self.capacity}
        assert self.ledger.free() == free
        ends = [promise.expires for promise in self.promised.values()]
        assert self.ledger.next_deadline() == min(ends, default=float("inf"))

    @invariant()
    def what_an_owner_believes_is_set_aside_for_him(self) -> None:
        """Hence no two owners ever believe in the same part of the machine."""
        for number, party in enumerate(self.parties):
            if party.until is not None:
                promise = self.promised.get(number)
                assert promise is not None, "an owner believes in what is gone"
                assert promise.need == party.need
                assert promise.fence == party.fence
                assert promise.expires > party.until

    @invariant()
    def what_was_told_is_written(self) -> None:
        for number, party in enumerate(self.parties):
            if party.until is not None:
                assert self.paper.leases[_token(number)].fence == party.fence


def _token(number: int) -> bytes:
    return number.to_bytes(16)


def _floats(millionths: dict[str, int]) -> dict[str, float]:
    return {name: amount / MILLIONTHS for name, amount in millionths.items()}


LedgerMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestLedger = LedgerMachine.TestCase
