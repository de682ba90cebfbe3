"""One iterative lookup: walk towards a target id, asking the closest known contacts.

Theory of operation (Maymounkov and Mazieres 2002, section 2.3, with rolling parallelism instead
of rounds). Candidates stand in a list ordered by XOR distance; each is in one state:

    QUEUED -> ASKED -> ANSWERED          the reply was valid; its contacts joined the list
                    -> LATE              its time-out passed; sent once more, still waited for
                    -> LEFT              late for a while more: nobody waits any longer
                    -> FAILED            the deadline passed, or the reply was malformed

A step asks the closest QUEUED candidates within the *front*, that is the k closest that are
neither LATE, LEFT nor FAILED, while fewer than `alpha` are ASKED. A LATE candidate makes room at
once (the hedge). While replies bring nothing closer, the whole front is asked instead of alpha at
a time: the walk has arrived and only waits cost time. A LATE candidate is
LEFT after one more time-out of its own. A stranger, of whom no round trip is known, has the
time-out that `Peers.guess` allows: who leaves the living behind finds the wrong nodes, so only a
node that has measured many, all of them near, expects strangers to be near. One whose previous
call failed starts as LATE, for one time-out of its own, or for RTO_FLOOR_S if it never answered
at all: it has been waited for once. An answer that comes after all counts until the lookup ends.
When somebody is LEFT or FAILED, more contacts of our own join the list, also those that wait for
a place in the table: the k closest we know being dead or cut off must not hide who lives.

The lookup ends when all of the front has ANSWERED and nobody closer than its end is LATE. It
never ends without any answer while a call is open; its own deadline ends it whatever its peers
do. Calls still open at the end run on, so that the routing table learns who failed.

A value lookup also ends with values. It opens with a majority of alpha and goes on with alpha: a
get whose holders are known costs two calls instead of three. The first answer with a value stops
the asking, and the calls in flight get one chance to show a newer one: the lookup ends when they
are done or late, when a majority of alpha tells the same, or when as much time has passed as the
first value took (at least VALUE_PATIENCE_S). Waiting for one value only would let one stale
holder win; waiting for all would let one dead peer decide how long a `get` takes.

Replies are checked here: one malformed peer is a failed candidate, not a failed lookup. Every
endpoint is asked at most once, and at most LOOKUP_PEERS_MAX are remembered. In a cluster a
candidate that answers is who its certificate says, and what it tells is taken as `hearsay` has it.

A *thorough* lookup for a value does not end with values: it hears all of the front.

Lookups that share whom they have `asked` (`paths`) ask nobody twice: a candidate of another one
holds its place in the front while it may answer there.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from dhtos.core.contact import Contact
from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    LOOKUP_PEERS_MAX,
    OPERATION_DEADLINE_S,
    RTO_FLOOR_S,
    VALUE_PATIENCE_S,
)
from dhtos.errors import MalformedMessage
from dhtos.protocol.ballot import Ballot
from dhtos.protocol.calls import Call
from dhtos.protocol.candidate import Candidate, State
from dhtos.protocol.hearsay import Hearsay
from dhtos.protocol.replies import Reader, read_contacts, read_value
from dhtos.protocol.store import Held
from dhtos.protocol.timers import Timer

if TYPE_CHECKING:
    from dhtos.protocol.rpc import Core

_QUIET_REPLIES = 2  # in a row without news near the target: the walk has arrived

_QUEUED, _ASKED, _LATE = State.QUEUED, State.ASKED, State.LATE
_LEFT, _ANSWERED, _FAILED = State.LEFT, State.ANSWERED, State.FAILED


class Watcher(Protocol):
    """Who is told what a lookup learns about contacts: the overlay with its routing table."""

    def answered(self, contact: Contact, now: float) -> None:
        """The contact answered from its endpoint."""

    def failed(self, contact: Contact, now: float) -> None:
        """The contact did not answer before the deadline of the call."""

    def spares(self, target: bytes) -> list[Contact]:
        """More contacts to try when some of the k closest to `target` are silent."""
        ...


Finish = Callable[["Lookup", float], None]


class Lookup:
    """A walk towards `target`; `finish(lookup, now)` is called once, unless cancelled."""

    __slots__ = (
        "_alpha", "_args", "_asked", "_ballot", "_candidates", "_core", "_deadline", "_distances",
        "_endpoints", "_finish", "_guess", "_hearsay", "_majority", "_own_id", "_patience",
        "_quiet", "_reader", "_refilled", "_shared", "_target", "_thorough", "_trailer", "_watcher",
        "_width",
        "done", "k", "local", "name", "open", "started", "target",
    )  # fmt: skip

    def __init__(
        self,
        core: "Core",
        own_id: bytes,
        target: bytes,
        finish: Finish,
        watcher: Watcher,
        *,
        k: int,
        alpha: int,
        value: bool = False,
        reader: Reader = read_value,
        asked: "dict[Endpoint, Candidate] | None" = None,
        thorough: bool = False,
    ) -> None:
        self.target = target
        self.k = k
        self.name = "find_value" if value else "find_node"
        self.done = False
        self.local: Held | None = None
        self.open = 0  # calls without an end yet
        self.started = 0.0
        self._core = core
        self._own_id = own_id
        self._target = int.from_bytes(target)
        self._finish = finish
        self._watcher = watcher
        self._alpha = alpha
        self._majority = alpha // 2 + 1
        self._width = self._majority if value else alpha
        self._args = [own_id, target]
        self._reader = reader
        # A holder that has forgotten us tells a value's number only to who shows its capabilities.
        self._trailer: list[Any] | None = [] if value else None
        self._asked = 0  # candidates in state ASKED
        self._guess = 0.0  # the time-out of strangers, once one is asked
        self._refilled = False  # with the spares of the watcher
        self._quiet = 0  # replies in a row that told of nobody near
        self._candidates: list[Candidate] = []
        self._distances: list[int] = []
        self._endpoints: set[Endpoint] = set()
        self._ballot = Ballot()
        self._shared = asked
        self._thorough = thorough
        self._hearsay = None if core.sessions is None else Hearsay(core.sessions)
        self._patience: Timer | None = None
        self._deadline: Timer | None = None

    # --- reading --------------------------------------------------------------------------------

    def closest(self) -> list[Contact]:
        """The k closest contacts that answered, closest first."""
        answered = [c.contact for c in self._candidates if c.state is _ANSWERED]
        return answered[: self.k]

    def answers(self) -> list[Candidate]:
        """Every candidate that answered, closest first."""
        return [c for c in self._candidates if c.state is _ANSWERED]

    def tried(self) -> list[Candidate]:
        """Every candidate that was asked."""
        return [c for c in self._candidates if c.state is not _QUEUED]

    @property
    def best(self) -> Held | None:
        """The value that leads, if any was found."""
        return self._ballot.best

    # --- driving --------------------------------------------------------------------------------

    def start(self, contacts: list[Contact], now: float, local: Held | None = None) -> None:
        """Begin from `contacts`; `local` is our own copy of the value, one voice among others."""
        self.started = now
        self._deadline = self._core.timers.at(now + OPERATION_DEADLINE_S, self._end)
        self._begin(contacts)
        if local is not None:
            self._ask_front(now)
            self.local = local
            self._ballot.vote(local)
        self._step(now)

    def cancel(self) -> None:
        """Forget everything: open calls are dropped and `finish` is never called."""
        self._close()
        for candidate in self._candidates:
            if candidate.call is not None:
                self._core.calls.cancel(candidate.call)
                candidate.call = None
                candidate.state = _FAILED
            if candidate.timer is not None:
                candidate.timer.cancel()
        self.open = 0
        self._asked = 0

    def on_reply(self, call: Call, value: object, _trailer: list[Any] | None, now: float) -> None:
        """A candidate answered: learn its contacts or its value, and go on."""
        candidate: Candidate = call.tag
        self._ended(candidate)
        try:
            self._identify(candidate)
            found = self._read(value, now)
        except MalformedMessage:
            self._core.counters["replies_malformed"] += 1
            candidate.state = _FAILED
            self._step(now)
            return
        candidate.state = _ANSWERED
        if call.late and not call.peer.srtt:
            call.peer.sample(now - call.sent_at)  # never too short: it may answer the first call
        self._watcher.answered(candidate.contact, now)
        if self.done:
            return
        if isinstance(found, Held):
            candidate.held = found
            self._ballot.vote(found)
            if self._patience is None and not self._thorough:
                wait = max(now - self.started, VALUE_PATIENCE_S)
                self._patience = self._core.timers.at(now + wait, self._end)
        else:
            self._width = self._alpha
            self._learn(found, candidate)
        self._step(now)

    def on_late(self, call: Call, now: float) -> None:
        """A candidate is late: ask somebody else meanwhile, and wait one time-out more."""
        candidate: Candidate = call.tag
        if candidate.state is _ASKED:
            self._asked -= 1
            self._width = self._alpha
            candidate.state = _LATE
            self._doubt(candidate)
            if not self.done:
                self._leave_after(call.peer.rto(), candidate, now)
                self._step(now)

    def on_failure(self, call: Call, now: float) -> None:
        """A candidate did not answer at all."""
        candidate: Candidate = call.tag
        self._ended(candidate)
        candidate.state = _FAILED
        self._doubt(candidate)
        self._watcher.failed(candidate.contact, now)
        if not self.done:
            self._refill()
            self._step(now)

    # --- inside ---------------------------------------------------------------------------------

    def _ended(self, candidate: Candidate) -> None:
        if candidate.state is _ASKED:
            self._asked -= 1
        if candidate.timer is not None:
            candidate.timer.cancel()
            candidate.timer = None
        candidate.call = None
        self.open -= 1

    def _leave_after(self, grace: float, candidate: Candidate, now: float) -> None:
        candidate.timer = self._core.timers.at(now + grace, lambda at: self._leave(candidate, at))

    def _leave(self, candidate: Candidate, now: float) -> None:
        if candidate.state is _LATE:
            candidate.state = _LEFT
            self._doubt(candidate)
            if not self.done:
                self._refill()
                self._step(now)

    def _identify(self, candidate: Candidate) -> None:
        """In a cluster it is whom its certificate names: file it so, if it was told otherwise."""
        if self._hearsay is None:
            return
        contact = candidate.contact
        identity = self._hearsay.identity(contact)
        if identity == contact.id:
            self._hearsay.found(candidate, true=True)
            return
        self._core.counters["ids_false"] += 1
        self._doubt(candidate)
        if identity is None or identity == self._own_id:
            raise MalformedMessage("somebody answers who has no id")
        distance = int.from_bytes(identity) ^ self._target
        at = bisect_left(self._distances, distance)
        if at < len(self._distances) and self._distances[at] == distance:
            raise MalformedMessage("a node has answered at another address")
        self._remove(candidate)
        candidate.contact, candidate.distance = Contact(identity, contact.endpoint), distance
        self._insert(candidate)

    def _doubt(self, candidate: Candidate) -> None:
        """It is silent or false: whoever told of it may be believed no more."""
        if self._hearsay is not None and self._hearsay.found(candidate, true=False):
            told = [one for one in self._candidates if one.teller is candidate.teller]
            for one in told:
                if one.state is _QUEUED:
                    self._remove(one)
                    self._core.counters["contacts_doubted"] += 1

    def _refill(self) -> None:
        """Somebody is silent: take in, once, more contacts of our own."""
        if not self._refilled:
            self._refilled = True
            for contact in self._watcher.spares(self.target):
                self._add(contact)

    def _begin(self, contacts: list[Contact]) -> None:
        """File the first contacts at once."""
        target = self._target
        first: dict[int, Candidate] = {}
        for contact in contacts:
            distance = int.from_bytes(contact.id) ^ target
            if contact.id == self._own_id or distance in first:
                continue
            if contact.endpoint not in self._endpoints:
                self._endpoints.add(contact.endpoint)
                first[distance] = Candidate(contact, distance)
        self._distances = sorted(first)
        self._candidates = [first[distance] for distance in self._distances]

    def _add(self, contact: Contact, teller: Candidate | None = None) -> int:
        """File a contact that is new to this lookup; its place in the order, or -1."""
        endpoint = contact.endpoint
        if endpoint in self._endpoints or contact.id == self._own_id:
            return -1
        distance = int.from_bytes(contact.id) ^ self._target
        at = bisect_left(self._distances, distance)
        if at < len(self._distances) and self._distances[at] == distance:
            return -1
        if len(self._endpoints) >= LOOKUP_PEERS_MAX and not self._make_room(teller):
            return -1
        return self._insert(Candidate(contact, distance, teller))

    def _insert(self, candidate: Candidate) -> int:
        at = bisect_left(self._distances, candidate.distance)
        self._endpoints.add(candidate.contact.endpoint)
        self._distances.insert(at, candidate.distance)
        self._candidates.insert(at, candidate)
        return at

    def _remove(self, candidate: Candidate) -> None:
        at = bisect_left(self._distances, candidate.distance)
        assert self._candidates[at] is candidate
        self._endpoints.discard(candidate.contact.endpoint)
        del self._distances[at], self._candidates[at]

    def _make_room(self, teller: Candidate | None) -> bool:
        """In a cluster who told most makes room: nobody's words fill all there is."""
        if self._hearsay is None:
            return False
        queued = [one for one in self._candidates if one.state is _QUEUED]
        counts = Counter(one.teller for one in queued if one.teller is not None)
        most = max(counts, key=lambda one: counts[one], default=None)
        if most is None or teller is None or counts[most] <= counts[teller] + 1:
            return False
        self._remove(next(one for one in reversed(queued) if one.teller is most))
        return True

    def _read(self, value: object, now: float) -> Held | list[Contact]:
        """The value or the contacts of a reply; raises MalformedMessage for anything else."""
        if isinstance(value, dict) and self.name == "find_value":
            return self._reader(value, now) or []
        return read_contacts(value, self._endpoints)

    def _learn(self, found: list[Contact], teller: Candidate | None = None) -> None:
        """Queue the contacts of a reply; without news near the target the walk has arrived."""
        if self._hearsay is not None:
            found = self._hearsay.credible(found, self.k)
        arrived = True
        for contact in found:
            if 0 <= self._add(contact, teller) < self.k:
                arrived = False
        self._quiet = self._quiet + 1 if arrived else 0

    def _step(self, now: float) -> None:
        """Ask whom to ask next, or end."""
        if self.done:
            return
        leader = None if self._thorough else self._ballot.leader
        if leader is not None:
            if not self._asked or leader.count >= self._majority:
                self._end(now)
        elif self._ask_front(now):
            self._end(now)

    def _ask_front(self, now: float) -> bool:
        """Ask what the front still needs; True when there is nothing left to wait for."""
        room = (self.k if self._quiet >= _QUIET_REPLIES else self._width) - self._asked
        shared, hearsay = self._shared, self._hearsay
        front = 0
        late = answered = False
        complete = True
        for candidate in self._candidates:
            state = candidate.state
            if state is _ANSWERED:
                answered = True
                front += 1
            elif state is _ASKED:
                complete = False
                front += 1
            elif state is _QUEUED:
                if shared and (other := shared.get(candidate.contact.endpoint)):  # another path's
                    front += other.state is _ASKED or other.state is _ANSWERED
                elif hearsay is not None and not hearsay.may_ask(candidate):
                    complete = False
                elif room <= 0:
                    complete = False
                    break
                elif self._ask(candidate, now):
                    complete = False
                    room -= 1
                    front += 1
                else:
                    late = True
            elif state is _LATE:
                late = True
            if front >= self.k:
                break
        if not complete or late:
            return False
        return answered or not self.open

    def _ask(self, candidate: Candidate, now: float) -> bool:
        """Send the call; False when the candidate is suspect and takes nobody's place."""
        core = self._core
        endpoint = candidate.contact.endpoint
        peer = core.peers.of(endpoint)
        if not peer.srtt:
            if not self._guess:
                self._guess = core.peers.guess()
            peer.guess = self._guess
        call = core.calls.send(
            endpoint,
            self.name,
            self._args,
            self,
            now,
            tag=candidate,
            trailer=self._trailer,
        )
        candidate.call = call
        self.open += 1
        if self._shared is not None:
            self._shared[endpoint] = candidate
        doubtful = self._hearsay is not None and self._hearsay.asks(candidate)
        if doubtful or peer.failures:
            candidate.state = _LATE
            grace = peer.rto() if peer.srtt else RTO_FLOOR_S
            self._leave_after(3 * peer.rto() if doubtful else grace, candidate, now)
            return False
        candidate.state = _ASKED
        self._asked += 1
        return True

    def _close(self) -> None:
        self.done = True
        for timer in (self._patience, self._deadline):
            if timer is not None:
                timer.cancel()
        self._patience = self._deadline = None

    def _end(self, now: float) -> None:
        if not self.done:
            self._close()
            self._finish(self, now)

    def check(self) -> None:
        """Assert the order of the candidates and the counts of calls."""
        assert self._distances == sorted(set(self._distances))
        assert self._distances == [c.distance for c in self._candidates]
        assert len(self._endpoints) == len(self._candidates) <= LOOKUP_PEERS_MAX
        assert self._asked == sum(1 for c in self._candidates if c.state is _ASKED)
        assert self.open == sum(1 for c in self._candidates if c.call is not None)
        for candidate in self._candidates:
            is_open = candidate.state in (_ASKED, _LATE, _LEFT)
            assert is_open == (candidate.call is not None), candidate.state
