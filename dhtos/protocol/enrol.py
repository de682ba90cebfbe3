"""How somebody is admitted: one RPC that also guests may call, and who asks it.

    guest                                   issuer
    dh_enrol []                        ->
                                       <-   ["", "" or why it admits nobody, false, [[host, port]]]
    dh_enrol [secret, public, name]    ->   (the session has proved the key)
                                       <-   [chain] or ["", reason, final]

A user whose key is in an agent, which takes part in no session, sends two things more: the key of
the session, and a signature of the key that is to be certified over that and the secret.

The first question makes the session, in which the answerer shows its chain: the cluster's root is
the one that the token names, or there is no session. The secret is told only to whom that chain
lets issue, so no other member learns it. A refusal that is not `final` is of an issuer that does
not know the invite: another one may.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    ENROL_REASON_BYTES_MAX,
    OPERATION_DEADLINE_S,
    SEED_ROUNDS,
    TOKEN_SEEDS_MAX,
)
from dhtos.core.value import is_printable
from dhtos.errors import DhtosError, MalformedMessage, NoPeers, Refused
from dhtos.protocol.calls import Call
from dhtos.protocol.hubwire import as_endpoint, as_list
from dhtos.protocol.operation import Operation
from dhtos.protocol.rpc import Core
from dhtos.trust.cert import CHAIN_BYTES_MAX, KEY_BYTES, NAME_BYTES_MAX, Chain
from dhtos.trust.keys import SIGNATURE_BYTES, Signer, exchange_public, verify
from dhtos.trust.member import Member
from dhtos.trust.token import SECRET_BYTES, domain

NAME = "dh_enrol"
_KIND = b"enrol"
_ASKED_MAX = 3 * TOKEN_SEEDS_MAX
_SILENCE = "nobody whom the token names answers: try again, or give a newer token"


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody says who wants to be admitted; the issuer may give another name."""

    secret: bytes = field(repr=False)
    public: bytes
    name: str
    session: bytes = b""  # the key of our sessions where it is another
    proof: bytes = b""  # then, that the owner of `public` asks

    def words(self) -> list[Any]:
        """As it travels."""
        words: list[Any] = [self.secret, self.public, self.name]
        return [*words, self.session, self.proof] if self.session else words

    def is_proved(self, remote: bytes, cluster: bytes) -> bool:
        """Whether it comes, over a session with `remote`, from whoever holds the key."""
        if not self.session:
            return exchange_public(self.public) == remote
        if exchange_public(self.session) != remote:
            return False
        text = self.session + self.secret
        return verify(self.public, self.proof, domain(_KIND, cluster), text)


def request_of(
    session: Signer, cluster: bytes, secret: bytes, name: str, *, holder: Signer | None = None
) -> Request:
    """What the owner of a session's key says, or `holder` over it; raises what `holder` raises."""
    if holder is None:
        return Request(secret, session.public, name)
    proof = holder.sign(domain(_KIND, cluster), session.public + secret)
    return Request(secret, holder.public, name, session.public, proof)


Admit = Callable[[Request], Any]
"""`admit(request)` returns the reply to it, made by `admitted` or `declined`, or a `Deferred`."""


def admitted(chain: Chain) -> list[Any]:
    """The reply that admits."""
    return [chain.wire]


def declined(reason: str, *, final: bool) -> list[Any]:
    """The reply that does not; where it is not `final` another issuer may."""
    return [b"", reason.encode()[:ENROL_REASON_BYTES_MAX].decode(errors="ignore"), final]


class Enrolment:
    """Answers `dh_enrol`; without `admit` with the reason why this node admits nobody."""

    def __init__(self, core: Core, admit: Admit | None) -> None:
        self._core = core
        self.admit = admit  # changes with whether this node issues
        core.register(NAME, self._on_enrol, verb=None)

    def _on_enrol(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, _now: float
    ) -> Any:
        sessions = self._core.sessions
        assert sessions is not None, "only members of a cluster admit"
        if self.admit is None:
            why = "this node admits nobody: use the token of one that does"
            return [*declined(why, final=False), sessions.issuers()[:TOKEN_SEEDS_MAX]]
        if not args:
            return declined("", final=False)
        request = _request(args)
        assert sessions.heard is not None, "what is handled came over a session"
        if not request.is_proved(sessions.heard.remote, sessions.member.root):
            raise MalformedMessage("whoever asks holds the key that is to be certified")
        self._core.counters["enrolments_asked"] += 1
        return self.admit(request)


def enrol(core: Core, seeds: Iterable[Endpoint], request: Request, now: float) -> Operation[Chain]:
    """Ask these seeds, as a guest, to be admitted.

    Ends with Refused where an issuer says no or nobody can be believed, NoPeers in silence.
    """
    assert core.sessions is not None, "who asks has a key"
    return Enrolling(core, core.sessions.member, request, now).begin(seeds, now)


class Enrolling:
    """One attempt: all seeds are asked who they are, and those who issue, one by one, for us."""

    def __init__(self, core: Core, member: Member, request: Request, now: float) -> None:
        self._core = core
        self._member = member
        self._request = request
        self._open: set[Call] = set()
        self._issuers: list[Endpoint] = []
        self._reasons: list[str] = []
        self._seeds: list[Endpoint] = []
        self._asked: set[Endpoint] = set()
        self._rounds = 0
        self._heard = False
        self._telling = False  # an issuer has our secret, and has not answered
        self.operation: Operation[Chain] = core.operation(self._on_cancel)
        self._timer = core.timers.at(now + OPERATION_DEADLINE_S, self._on_deadline)

    def begin(self, seeds: Iterable[Endpoint], now: float) -> Operation[Chain]:
        """Ask every seed who it is."""
        self._seeds = list(dict.fromkeys(seeds))[:TOKEN_SEEDS_MAX]
        self._step(now)
        return self.operation

    def _send(self, endpoint: Endpoint, args: list[Any], now: float) -> None:
        self._asked.add(endpoint)
        self._open.add(self._core.calls.send(endpoint, NAME, args, self, now, tag=bool(args)))

    def _on_cancel(self, _now: float) -> None:
        self._timer.cancel()
        for call in self._open:
            self._core.calls.cancel(call)
        self._open.clear()

    def _on_deadline(self, now: float) -> None:
        self._fail(NoPeers(_SILENCE), now)

    def _fail(self, error: DhtosError, now: float) -> None:
        self.operation.fail(error)
        self._on_cancel(now)

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """Somebody said who it is, or what an issuer thinks of us."""
        self._ended(call)
        self._heard = True
        try:
            chain, reason, final = read_answer(value)
            if not call.tag:
                self._met(call.endpoint, reason)
                self._ask_further(value, now)
            elif chain:
                self._finish(self._member.read(chain), now)
            elif final:
                self._fail(Refused(reason), now)
            else:
                self._reasons.append(reason)
        except MalformedMessage as error:
            self._core.counters["malformed"] += 1
            self._reasons.append(f"{call.endpoint[0]} answers what cannot be used: {error}")
        self._step(now)

    def on_late(self, call: Call, now: float) -> None:
        """Do not wait for whoever refused a session, or was refused one."""
        if self._refusal(call.endpoint) is not None:
            self._core.calls.cancel(call)
            self.on_failure(call, now)

    def on_failure(self, call: Call, now: float) -> None:
        """Silence, or no session."""
        self._ended(call)
        host, port = call.endpoint
        refusal = self._refusal(call.endpoint)
        if refusal is not None:
            self._reasons.append(f"{host}:{port} and we do not speak: {refusal}")
        self._step(now)

    def _ended(self, call: Call) -> None:
        self._open.discard(call)
        if call.tag:
            self._telling = False

    def _refusal(self, endpoint: Endpoint) -> str | None:
        sessions = self._core.sessions
        assert sessions is not None
        return sessions.refusals.get(endpoint)

    def _met(self, endpoint: Endpoint, reason: str) -> None:
        """Keep whoever may issue, and is who we would send to."""
        sessions = self._core.sessions
        assert sessions is not None
        shown = sessions.speaker
        own = shown is not None and shown.leaf.is_node and shown.leaf.may("issue")
        if own and shown is not None and sessions.node_id(endpoint) == shown.node_id():
            self._issuers.append(endpoint)
        else:
            self._reasons.append(reason or "that node admits nobody")

    def _ask_further(self, value: list[Any], now: float) -> None:
        """Ask those whom a member names as issuers; what they show decides."""
        for endpoint in _issuers(value):
            if endpoint not in self._asked and len(self._asked) < _ASKED_MAX:
                self._send(endpoint, [], now)

    def _finish(self, chain: Chain, now: float) -> None:
        if chain.leaf.subject != self._request.public:
            raise MalformedMessage("a certificate for another key")
        self.operation.finish(chain)
        self._on_cancel(now)

    def _step(self, now: float) -> None:
        if self.operation.done or self._telling:
            return
        if self._issuers:
            self._telling = True
            self._send(self._issuers.pop(0), self._request.words(), now)
        elif self._open:
            return
        elif self._reasons:
            self._fail(Refused(self._reasons[-1]), now)
        elif self._seeds and (self._heard or self._rounds < SEED_ROUNDS):
            self._rounds += 1  # a seed may be starting; where one was heard, an answer was lost
            for seed in self._seeds:
                self._send(seed, [], now)
        else:
            self._fail(NoPeers(_SILENCE), now)


def _request(args: list[Any]) -> Request:
    match args:
        case [bytes() as secret, bytes() as public, str() as name, *more]:
            if (len(secret), len(public)) == (SECRET_BYTES, KEY_BYTES) and is_printable(
                name, NAME_BYTES_MAX
            ):
                return Request(secret, public, name, *_held_elsewhere(more))
    raise MalformedMessage("to be admitted takes a secret, a key and a name")


def _held_elsewhere(more: list[Any]) -> tuple[bytes, bytes]:
    match more:
        case []:
            return b"", b""
        case [bytes() as session, bytes() as proof, *_]:
            if (len(session), len(proof)) == (KEY_BYTES, SIGNATURE_BYTES):
                return session, proof
    raise MalformedMessage("a key held elsewhere comes with the session's and a signature")


def _issuers(value: list[Any]) -> list[Endpoint]:
    """Whom a member names that admits nobody itself; others name none."""
    found = []
    for one in as_list(value[3], TOKEN_SEEDS_MAX) if len(value) > 3 else []:
        match one:
            case [host, port]:
                found.append(as_endpoint(host, port))
            case _:
                raise MalformedMessage("an issuer is named by host and port")
    return found


def read_answer(value: Any) -> tuple[bytes, str, bool]:
    """The chain, or why not and whether others cannot either."""
    match value:
        case [bytes() as chain] if 0 < len(chain) <= CHAIN_BYTES_MAX:
            return chain, "", True
        case [b"", str() as reason, bool() as final, *_]:
            if is_printable(reason, ENROL_REASON_BYTES_MAX):
                return b"", reason, final
    raise MalformedMessage("an answer is [chain] or [nothing, reason, final]")
