"""How a member becomes an issuer: whoever has a chain for it hands it over.

    anybody of the cluster                 member
    dh_promote []                      ->
                                       <-   []                     and the session says who it is
    dh_promote [chain]                 ->
                                       <-   [] or ["", reason, true]

The chain is believed for itself, whoever brings it: it is of the member's own key and id, signed by
the root, and lets it issue. So it may also be kept, repeated, or handed on.
"""

from collections.abc import Callable
from typing import Any

from dhtos.core.ids import Endpoint
from dhtos.core.limits import OPERATION_DEADLINE_S
from dhtos.errors import MalformedMessage, NoPeers, Refused
from dhtos.protocol.calls import Call
from dhtos.protocol.enrol import declined, read_answer
from dhtos.protocol.hubwire import as_bytes
from dhtos.protocol.operation import Operation
from dhtos.protocol.rpc import Core
from dhtos.trust.cert import CHAIN_BYTES_MAX, Chain
from dhtos.trust.member import Member

NAME = "dh_promote"


class Promotion:
    """Answers `dh_promote`; `take(chain)` keeps what is believed, and returns the reply."""

    def __init__(self, core: Core, take: Callable[[Chain], Any]) -> None:
        self._core = core
        self._take = take
        core.register(NAME, self._on_promote, verb="query")

    def _on_promote(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, _now: float
    ) -> Any:
        if not args:
            return []
        wire = as_bytes(args[0], CHAIN_BYTES_MAX)
        sessions = self._core.sessions
        assert sessions is not None, "only members are promoted"
        member = sessions.member
        assert member.chain is not None, "only members answer"
        try:
            chain = promotion(member, wire)
        except MalformedMessage as error:
            self._core.counters["promotions_refused"] += 1
            return declined(str(error), final=True)
        known = member.chain
        if known.leaf.may("issue") and not is_later(chain, known):
            return []
        return self._take(chain)


def is_later(one: Chain, other: Chain) -> bool:
    """Which of two chains of one issuer holds: by a later root, or until later."""
    return (len(one.heirs), one.expires) > (len(other.heirs), other.expires)


def promotion(member: Member, wire: bytes) -> Chain:
    """The chain that makes a member an issuer; raises MalformedMessage that says why not."""
    assert member.chain is not None
    own, chain = member.chain.leaf, member.read(wire)
    if (chain.leaf.subject, chain.leaf.nonce) != (own.subject, own.nonce):
        raise MalformedMessage("a certificate is of another node")
    if len(chain.certs) != 1 or not chain.leaf.may("issue"):
        raise MalformedMessage("a certificate makes no issuer, which only the root does")
    return chain


def hand_over(core: Core, endpoint: Endpoint, wire: bytes, now: float) -> Operation[Chain]:
    """Give a member a chain; without one ask only who it is.

    Ends with the chain that it has shown so far, Refused where it does not take this one, NoPeers
    in silence.
    """
    return _Handing(core).begin(endpoint, wire, now)


class _Handing:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._call: Call | None = None
        self.operation: Operation[Chain] = core.operation(self._on_cancel)

    def begin(self, endpoint: Endpoint, wire: bytes, now: float) -> Operation[Chain]:
        args, wait_s = [wire] if wire else [], OPERATION_DEADLINE_S  # its disk may be slow
        self._call = self._core.calls.send(endpoint, NAME, args, self, now, deadline_s=wait_s)
        return self.operation

    def _on_cancel(self, _now: float) -> None:
        if self._call is not None:
            self._core.calls.cancel(self._call)

    def on_late(self, call: Call, now: float) -> None:
        """Do not wait for whoever refuses a session."""
        if self._refusal(call):
            self._core.calls.cancel(call)
            self.on_failure(call, now)

    def on_failure(self, call: Call, now: float) -> None:
        """Silence, or no session."""
        host, port = call.endpoint
        why = self._refusal(call) or "is it running?"
        self.operation.fail(NoPeers(f"{host}:{port} does not answer: {why}"))

    def _refusal(self, call: Call) -> str:
        sessions = self._core.sessions
        assert sessions is not None, "who hands over is a member"
        return sessions.refusals.get(call.endpoint, "")

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """It took the chain, or says why not."""
        shown = self._core.speaker
        try:
            reason = "" if value == [] else read_answer(value)[1]
        except MalformedMessage:
            self._core.counters["malformed"] += 1
            reason = "its answer cannot be read"
        if reason or shown is None:
            self.operation.fail(Refused(f"it takes no such certificate: {reason}"))
        else:
            self.operation.finish(shown)
