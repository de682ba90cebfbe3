"""Sessions over UDP: what the engine sends is sealed, what it receives was sealed by a member.

Theory of operation. Between the engine and its socket, keyed by endpoint. `seal` takes what the
engine sends: sealed at once where there are keys, else it waits for a handshake. `receive` takes
what arrives and gives the engine's datagram back; `speaker` is the chain of whoever sent it.

    initiator                              responder
    PROBE   nonce                    ->
                                     <-    WHO     cookie: nothing is remembered
    HELLO   cookie, e, s, chain      ->            (verify; both keys are known here)
                                     <-    READY   e, chain
    DATA                             ->            (only now the responder prefers these keys)

Who receives DATA for keys it does not have (it was restarted) answers WHO too, with the first
bytes of that datagram as the nonce: the other side knows them, begins anew at once, and no call
waits for a time-out. Both sides may begin at the same time: both sessions stand, and each side
sends on the newest that it has. A step that gets no answer is sent again, the same bytes; so a
HELLO that came twice is answered twice and makes one session.

Somebody without a chain is a *guest*: its session exists so that it can ask to be admitted.

What is refused is counted; `refusals` says why, by endpoint, for people.
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    COOKIE_S,
    OPENING_QUEUE_MAX,
    OPENING_RETRY_S,
    OPENINGS_MAX,
    SESSION_GUESTS_MAX,
    SESSION_IDLE_S,
    SESSION_REKEY_S,
    SESSIONS_MAX,
)
from dhtos.core.record import Record
from dhtos.errors import MalformedMessage
from dhtos.protocol.handshakes import (
    DATA,
    DATA_AT,
    DATA_BYTES_MIN,
    HELLO,
    HELLO_AT,
    NONCE_BYTES,
    PROBE,
    PROBE_BYTES,
    READY,
    READY_AT,
    WHO,
    WHO_BYTES,
    Doorkeeper,
    Session,
    data_head,
    hello_head,
    probe,
    read_ready,
    ready_head,
    write_ready,
)
from dhtos.protocol.shares import Shares
from dhtos.protocol.timers import Timer, Timers
from dhtos.trust.cert import Chain, Verb
from dhtos.trust.keys import exchange_public
from dhtos.trust.member import Member
from dhtos.trust.noise import Handshake, seal_after, unseal_after
from dhtos.trust.proof import check_proof, proved

if TYPE_CHECKING:
    from collections.abc import Iterable

_SWEEP_S = 30.0
_COUNTER_MAX = 2**48
_REFUSALS_MAX = 64
_ANSWERED_MAX = 4096  # HELLOs of the last minutes whose READY is kept
_PROLOGUE = b"dhtos/1"
_ANOTHER_KEY = "a certificate is of another key"


class _Opening:
    """A handshake of ours: what is asked now, and what waits for its end."""

    __slots__ = (
        "endpoint", "handshake", "index", "lost", "nonce", "queue", "step", "timer", "tries",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, nonce: bytes) -> None:
        self.endpoint = endpoint
        self.nonce = nonce
        self.lost = False  # the other side has forgotten the keys we had
        self.queue: list[bytes] = []
        self.step = probe(nonce)
        self.tries = 0
        self.index = 0
        self.handshake: Handshake | None = None
        self.timer: Timer | None = None


class Sessions:
    """All sessions of one node; `on_open(endpoint, now, lost)` hears of keys, and of lost ones."""

    def __init__(
        self,
        member: Member,
        timers: Timers,
        outbox: list[tuple[bytes, Endpoint]],
        counters: Counter[str],
    ) -> None:
        self.member = member
        self.shares = Shares()
        self.heard: Session | None = None  # over which the last datagram came
        self.refusals: dict[Endpoint, str] = {}
        self.awaits: Callable[[Endpoint], bool] = lambda _endpoint: False
        self.on_open: Callable[[Endpoint, float, bool], None] = lambda _endpoint, _now, _lost: None
        self._timers = timers
        self._sealed = outbox
        self._counters = counters
        self._door = Doorkeeper(member.entropy(32), member.key.public)
        self._by_index: dict[int, Session] = {}
        self._current: dict[Endpoint, Session] = {}
        self._openings: dict[Endpoint, _Opening] = {}
        self._answered: dict[tuple[bytes, Endpoint], tuple[bytes, float]] = {}
        self._now = 0.0
        self._sweeping = False

    # --- what the engine sends --------------------------------------------------------------------

    def seal(self, datagrams: "Iterable[tuple[bytes, Endpoint]]") -> None:
        """Put datagrams of the engine into the outbox, sealed; some wait for a handshake."""
        current, sealed = self._current, self._sealed
        for datagram, endpoint in datagrams:
            session = current.get(endpoint)
            if session is None:
                self._wait(datagram, endpoint)
            else:
                sealed.append((self._data(session, datagram), endpoint))

    def _data(self, session: Session, datagram: bytes) -> bytes:
        counter = session.sent
        session.sent = counter + 1
        head = data_head.pack(DATA, session.peer_index, counter)
        session.last = sealed = seal_after(session.send_key, counter, datagram, head)
        session.used = self._now
        worn = self._now - session.born > SESSION_REKEY_S or counter > _COUNTER_MAX
        if worn and session.endpoint not in self._openings:
            self._open(session.endpoint, self.member.entropy(NONCE_BYTES))
        return sealed

    def _wait(self, datagram: bytes, endpoint: Endpoint) -> None:
        opening = self._openings.get(endpoint)
        if opening is None:
            opening = self._open(endpoint, self.member.entropy(NONCE_BYTES))
        if opening is None or len(opening.queue) >= OPENING_QUEUE_MAX:
            self._counters["sessions_overfull"] += 1
        elif datagram not in opening.queue:  # a call that was late is sent twice
            opening.queue.append(datagram)

    # --- what arrives -----------------------------------------------------------------------------

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> bytes | None:
        """The datagram of a peer, if this one carries one; what is strange is counted and dropped.

        `heard` is the session over which it came.
        """
        self._now = now
        kind = datagram[0] if datagram else 0
        if kind == DATA:
            return self._on_data(datagram, source, now)
        try:
            if kind == PROBE and len(datagram) == PROBE_BYTES:
                self._on_probe(datagram[1 : 1 + NONCE_BYTES], source, now)
            elif kind == WHO and len(datagram) == WHO_BYTES:
                self._on_who(datagram, source, now)
            elif kind == HELLO and len(datagram) > HELLO_AT:
                self._on_hello(datagram, source, now)
            elif kind == READY and len(datagram) > READY_AT:
                self._on_ready(datagram, source, now)
            else:
                self._counters["datagrams_open" if kind < 2 else "malformed"] += 1
        except MalformedMessage:
            self._counters["handshakes_malformed"] += 1
        return None

    def _on_data(self, datagram: bytes, source: Endpoint, now: float) -> bytes | None:
        if len(datagram) < DATA_BYTES_MIN:
            self._counters["malformed"] += 1
            return None
        _, index, counter = data_head.unpack_from(datagram)
        session = self._by_index.get(index)
        if session is None or session.endpoint != source:
            self._counters["sessions_unknown"] += 1
            if len(datagram) >= PROBE_BYTES:  # the answer is shorter
                self._on_probe(datagram[1 : 1 + NONCE_BYTES], source, now)
            return None
        if self.shares.refuses(session.principal, now) and not self.awaits(source):
            self._counters["requests_over_share"] += 1
            return None
        if not session.window.fresh(counter):
            self._counters["replays"] += 1
            return None
        plain = unseal_after(session.receive_key, counter, datagram, DATA_AT)
        if plain is None:
            self._counters["forgeries"] += 1
            return None
        session.window.add(counter)
        session.used = now
        if not session.confirmed:
            session.confirmed = True
            self._prefer(session)
        self.heard = session
        return plain

    def _on_probe(self, nonce: bytes, source: Endpoint, now: float) -> None:
        self._sealed.append((self._door.who(nonce, source, now), source))

    def _on_who(self, datagram: bytes, source: Endpoint, now: float) -> None:
        nonce, cookie, public = datagram[1:17], datagram[17:33], datagram[33:]
        opening = self._openings.get(source)
        if opening is None:
            session = self._current.get(source)
            if session is None or session.last[1 : 1 + NONCE_BYTES] != nonce:
                self._counters["replies_unasked"] += 1
                return
            opening = self._open(source, nonce)
            if opening is not None:
                opening.lost = True  # it was restarted
        if opening is None or opening.nonce != nonce or opening.handshake is not None:
            self._counters["replies_unasked"] += 1
            return
        remote = exchange_public(public)
        if remote is None:
            raise MalformedMessage("that is no key")
        member = self.member
        opening.index = self._new_index()
        head = hello_head.pack(HELLO, opening.index, nonce, cookie)
        handshake = Handshake.initiator(
            member.key.exchange_secret, remote, member.entropy(32), _PROLOGUE + head
        )
        chain = b"" if member.chain is None else member.chain.wire
        opening.step = head + handshake.write(chain)
        opening.handshake = handshake
        opening.tries = 0
        self._send_step(opening, now)

    def _on_hello(self, datagram: bytes, source: Endpoint, now: float) -> None:
        _, peer_index, nonce, cookie = hello_head.unpack_from(datagram)
        answered = self._answered.get((datagram, source))
        if answered is not None:  # the same bytes once more: our answer was lost
            self._sealed.append((answered[0], source))
            return
        if not self._door.admits(nonce, cookie, source, now):
            self._counters["handshakes_unproven"] += 1
            return
        member = self.member
        handshake = Handshake.responder(
            member.key.exchange_secret, member.entropy(32), _PROLOGUE + datagram[:HELLO_AT]
        )
        wire = handshake.read(datagram[HELLO_AT:])
        chain, refusal = self._admit(wire, handshake.remote)
        own = b"" if member.chain is None else member.chain.wire
        index = self._new_index()
        head = ready_head.pack(READY, peer_index, index)
        ready = head + handshake.write(write_ready(own, refusal))
        while len(self._answered) >= _ANSWERED_MAX:
            del self._answered[next(iter(self._answered))]
        self._answered[datagram, source] = (ready, now)
        self._sealed.append((ready, source))
        if refusal:
            self._refuse(source, refusal)
            return
        session = Session(source, index, peer_index, now)
        session.agree(handshake, chain)
        self._file(session)
        self._counters["sessions_in"] += 1
        if source not in self._current:
            self._prefer(session)

    def _admit(self, wire: bytes, remote: bytes) -> tuple[Chain | None, str]:
        """The chain of whoever begins, or None for a guest; and why it gets no session."""
        if not wire:
            if sum(s.chain is None for s in self._by_index.values()) >= SESSION_GUESTS_MAX:
                return None, "too many wait to be admitted: try again in a minute"
            return None, "" if self.member.chain is not None else "neither of us is admitted"
        try:
            chain = self.member.admit(wire)
        except MalformedMessage as error:
            return None, str(error)
        if exchange_public(chain.leaf.subject) != remote:
            return None, _ANOTHER_KEY
        return chain, ""

    def _on_ready(self, datagram: bytes, source: Endpoint, now: float) -> None:
        _, index, peer_index = ready_head.unpack_from(datagram)
        opening = self._openings.get(source)
        if opening is None or opening.index != index or opening.handshake is None:
            self._counters["replies_unasked"] += 1
            return
        ready = read_ready(opening.handshake.read(datagram[READY_AT:]))
        refusal = ready.refusal and f"it refuses us: {ready.refusal}"
        chain = None
        if not refusal:
            try:
                chain = self.member.admit(ready.chain)
            except MalformedMessage as error:
                refusal = str(error)
        if chain is not None and exchange_public(chain.leaf.subject) != opening.handshake.remote:
            chain, refusal = None, _ANOTHER_KEY  # a chain is no secret: everybody can show it
        self._close(opening)
        if chain is None:
            self._refuse(source, refusal)
            return
        session = Session(source, index, peer_index, now)
        session.agree(opening.handshake, chain)
        session.confirmed = True
        self._file(session)
        self._prefer(session)
        self.refusals.pop(source, None)
        self._counters["sessions_out"] += 1
        self.seal((datagram, source) for datagram in opening.queue)
        self.on_open(source, now, opening.lost)

    # --- handshakes of ours -----------------------------------------------------------------------

    def _open(self, endpoint: Endpoint, nonce: bytes) -> _Opening | None:
        """Begin; the first step leaves at the next tick, which knows the time."""
        if len(self._openings) >= OPENINGS_MAX:
            return None
        opening = self._openings[endpoint] = _Opening(endpoint, nonce)
        opening.timer = self._timers.at(self._now, lambda at: self._send_step(opening, at))
        return opening

    def _send_step(self, opening: _Opening, now: float) -> None:
        self._now = now
        if opening.timer is not None:
            opening.timer.cancel()
        if opening.tries >= len(OPENING_RETRY_S):
            self._close(opening)
            self._counters["handshakes_unanswered"] += 1
            return
        self._sealed.append((opening.step, opening.endpoint))
        pause = OPENING_RETRY_S[opening.tries]
        opening.tries += 1
        opening.timer = self._timers.at(now + pause, lambda at: self._send_step(opening, at))

    def _close(self, opening: _Opening) -> None:
        if opening.timer is not None:
            opening.timer.cancel()
            opening.timer = None
        del self._openings[opening.endpoint]

    # --- who may --------------------------------------------------------------------------------

    @property
    def speaker(self) -> Chain | None:
        """What the sender of the last datagram has shown; None of a guest."""
        return None if self.heard is None else self.heard.chain

    def allows(self, verb: Verb | None) -> bool:
        """Whether the one who sent the last datagram may do this here."""
        if verb is None:
            return True
        heard = self.heard
        if heard is None or heard.chain is None:
            return False
        allowed = heard.verbs.get(verb)
        if allowed is None:
            allowed = heard.verbs[verb] = heard.chain.leaf.may(verb, self.member.groups)
        return allowed

    def refusal(self, verb: Verb | None, cost_s: float, now: float) -> str | None:
        """Why no work is done for the one who sent the last datagram, as it is counted."""
        if not self.allows(verb):
            return "requests_denied"
        heard = self.heard
        if not self.shares.admits(b"" if heard is None else heard.principal, cost_s, now):
            return "requests_over_share"
        return None

    def prove(self, record: Record) -> Record:
        """A record of ours, signed; raises ValueTooLarge."""
        return proved(self.member, record)

    def believes(self, record: Record) -> bool:
        """Whether an admitted node has signed this record; what is not believed is counted."""
        try:
            check_proof(self.member, record)
        except MalformedMessage:
            self._counters["records_forged"] += 1
            return False
        return True

    # --- the table --------------------------------------------------------------------------------

    def keyless(self, endpoint: Endpoint) -> bool:
        """Whether we share no keys with an endpoint yet."""
        return endpoint not in self._current

    def members(self) -> list[Endpoint]:
        """Where we share keys with nodes of the cluster."""
        return [endpoint for endpoint, one in self._current.items() if one.node_id is not None]

    def issuers(self) -> list[Endpoint]:
        """Where we share keys with members that admit others, also since the keys were made."""
        member = self.member
        shown = {e: chain.leaf.subject for e, chain in self.shown().items()}
        found = [e for e, subject in shown.items() if subject in member.issuers]
        return sorted(found, key=lambda e: -member.rank_of(shown[e]))  # the last root's first

    def shown(self) -> dict[Endpoint, Chain]:
        """What those have shown whom we share keys with."""
        return {e: one.chain for e, one in self._current.items() if one.chain is not None}

    def node_id(self, endpoint: Endpoint) -> bytes | None:
        """The id of the member that we share keys with at an endpoint, if it is one."""
        session = self._current.get(endpoint)
        return None if session is None else session.node_id

    def forget_revoked(self) -> list[Session]:
        """Drop the sessions with whom is believed no more; returns them."""
        gone = [session for session in self._by_index.values() if not self._holds(session)]
        for session in gone:
            self._drop(session)
        return gone

    def _file(self, session: Session) -> None:
        while len(self._by_index) >= SESSIONS_MAX:
            self._drop(next(iter(self._by_index.values())))
        self._by_index[session.index] = session
        if not self._sweeping:
            self._sweeping = True
            self._timers.at(self._now + _SWEEP_S, self._sweep)

    def _prefer(self, session: Session) -> None:
        """Send on these keys from now on; those before are kept for what is under way."""
        known = self._current.get(session.endpoint)
        if known is None or known.born <= session.born:
            self._current[session.endpoint] = session

    def _drop(self, session: Session) -> None:
        self._by_index.pop(session.index, None)
        if self._current.get(session.endpoint) is session:
            del self._current[session.endpoint]

    def _sweep(self, now: float) -> None:
        """Forget what is idle, worn, or believed no more."""
        self._now = now
        for session in list(self._by_index.values()):
            worn = now - session.born > SESSION_REKEY_S + SESSION_IDLE_S
            if worn or now - session.used > SESSION_IDLE_S or not self._holds(session):
                self._drop(session)
        answered = self._answered
        while answered and now - next(iter(answered.values()))[1] > 2 * COOKIE_S:
            del answered[next(iter(answered))]
        self._sweeping = bool(self._by_index)
        if self._sweeping:
            self._timers.at(now + _SWEEP_S, self._sweep)

    def _holds(self, session: Session) -> bool:
        if session.chain is None:
            return self._now - session.born < _SWEEP_S  # a guest asks once
        try:
            self.member.check(session.chain)
        except MalformedMessage:
            return False
        return True

    def _refuse(self, endpoint: Endpoint, why: str) -> None:
        self._counters["handshakes_refused"] += 1
        self.refusals.pop(endpoint, None)
        while len(self.refusals) >= _REFUSALS_MAX:
            del self.refusals[next(iter(self.refusals))]
        self.refusals[endpoint] = why

    def _new_index(self) -> int:
        while True:
            index = int.from_bytes(self.member.entropy(4), "little")
            if index not in self._by_index:
                return index

    def __len__(self) -> int:
        return len(self._by_index)

    def check(self) -> None:
        """Assert that the tables agree and are bounded."""
        self.shares.check()
        assert len(self._by_index) <= SESSIONS_MAX
        assert len(self._openings) <= OPENINGS_MAX
        assert len(self._answered) <= _ANSWERED_MAX
        for endpoint, session in self._current.items():
            assert session.endpoint == endpoint
            assert self._by_index[session.index] is session
        for endpoint, opening in self._openings.items():
            assert opening.endpoint == endpoint
            assert len(opening.queue) <= OPENING_QUEUE_MAX
