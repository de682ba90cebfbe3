"""A certificate is made anew before it ends: or a fleet would lock itself out.

Past half of its life a node or a user asks an issuer, over a session that shows the old
certificate, for one with the same key, name, groups and capabilities, and a new term. No secret is
needed: the session has proved the key, or that its owner has lent something to whoever asks.
Whoever was revoked has no session, and so is renewed no more.

The certificate of an issuer is renewed where the root is. The serial number stays: whoever takes it
back takes back all terms.

    member                                 issuer
    dh_recertify []                    ->
                                       <-   [chain] or ["", reason, final]
"""

from collections.abc import Callable, Iterable
from typing import Any

from dhtos.core.ids import Endpoint
from dhtos.errors import MalformedMessage, NoPeers, Refused
from dhtos.protocol.calls import Call
from dhtos.protocol.enrol import declined, read_answer
from dhtos.protocol.operation import Operation
from dhtos.protocol.rpc import Core
from dhtos.trust.cert import Cert, Chain

NAME = "dh_recertify"
ANSWER_S = 5.0  # an issuer writes to its disk first, and may have to open the root


def is_due(cert: Cert, wall_s: float) -> bool:
    """Whether less than half of a certificate's life is left."""
    return wall_s > (cert.not_before + cert.expires) / 2


class Renewal:
    """Answers `dh_recertify` with what `renew(chain)` returns; None where nobody issues."""

    def __init__(self, core: Core, renew: Callable[[Chain], Any] | None) -> None:
        self._core = core
        self.renew = renew  # changes with whether this node issues
        core.register(NAME, self._on_renew, verb="query")

    def _on_renew(
        self, _args: list[Any], _source: Endpoint, _trailer: list[Any] | None, _now: float
    ) -> Any:
        if self.renew is None:
            return declined("this node renews nothing", final=False)
        sessions = self._core.sessions
        assert sessions is not None
        assert sessions.speaker is not None, "only whoever may query gets here"
        if sessions.speaker.home:
            return declined("a visitor is renewed in the cluster that it is of", final=True)
        return self.renew(sessions.speaker)


def ask_renewal(core: Core, issuers: Iterable[Endpoint], now: float) -> Operation[Chain]:
    """Ask these, one after the other, for a new certificate of whoever we speak for.

    Ends with Refused where an issuer says no, NoPeers where none answers.
    """
    return _Asking(core, issuers).begin(now)


class _Asking:
    def __init__(self, core: Core, issuers: Iterable[Endpoint]) -> None:
        self._core = core
        assert core.sessions is not None
        assert core.sessions.member.chain is not None
        self._subject = core.sessions.member.chain.principal.subject
        self._left = list(dict.fromkeys(issuers))
        self._call: Call | None = None
        self._why = "no issuer is known: give its address as a seed"
        self.operation: Operation[Chain] = core.operation(self._on_cancel)

    def begin(self, now: float) -> Operation[Chain]:
        self._next(now)
        return self.operation

    def _on_cancel(self, _now: float) -> None:
        if self._call is not None:
            self._core.calls.cancel(self._call)

    def _next(self, now: float) -> None:
        if self._left:
            first, wait_s = self._left.pop(0), ANSWER_S
            self._call = self._core.calls.send(first, NAME, [], self, now, deadline_s=wait_s)
        else:
            self.operation.fail(NoPeers(self._why))

    def on_late(self, call: Call, now: float) -> None:
        """Wait for this one: the next would sign another."""

    def on_failure(self, call: Call, now: float) -> None:
        """Silence: the next."""
        self._why = "no issuer answers"
        self._next(now)

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """A new chain, or why not."""
        sessions = self._core.sessions
        assert sessions is not None
        member = sessions.member
        try:
            wire, reason, final = read_answer(value)
            chain = member.read(wire) if wire else None
        except MalformedMessage as error:
            self._core.counters["malformed"] += 1
            chain, reason, final = None, str(error), False
        if chain is not None and chain.leaf.subject == self._subject:
            self.operation.finish(chain)
        elif final:
            self.operation.fail(Refused(reason))
        else:
            self._why = reason or self._why
            self._next(now)
