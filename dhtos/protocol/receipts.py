"""Receipts over the wire: a machine offers one, the owner of the lease signs or declines.

    dh_receipt  args [receipt, signature of the machine]   reply [1, signature] | [0, why not]

Theory of operation. When a lease is over its machine writes down what it came to, signs that and
sends it to the address of the owner. The owner knows each lease it has kept for a while after its
end. It signs what is no more than that: the lease and the amounts, from the machine that granted
them, at the price that was agreed, and for no longer than it was his. Signed once, a lease is
settled: the same receipt is answered the same again, since an answer may be lost, another never.
Whoever cannot be reached signs nothing: then there is a receipt by the machine alone.

Only in a cluster, where everybody has a key that others know.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dhtos.core.ids import Endpoint
from dhtos.core.limits import RECEIPT_BYTES_MAX, RECEIPT_SLACK_S, RECEIPTS_OWED_MAX
from dhtos.core.value import is_printable
from dhtos.errors import MalformedMessage
from dhtos.protocol.calls import Call
from dhtos.protocol.claims import Tenancy
from dhtos.protocol.hubwire import as_bytes, as_int, as_list, bad, unpack
from dhtos.protocol.operation import Operation
from dhtos.trust.cert import CLOCK_SKEW_S
from dhtos.trust.keys import SIGNATURE_BYTES
from dhtos.trust.receipt import (
    Receipt,
    amounts,
    is_signed_by_host,
    is_signed_by_owner,
    lease_hash,
    read_receipt,
    sign_as_host,
    sign_as_owner,
    write_receipt,
)

if TYPE_CHECKING:
    from dhtos.protocol.rpc import Core
    from dhtos.protocol.sessions import Sessions

NAME = "dh_receipt"
REASON_BYTES_MAX = 100
_OWED_S = 2.0  # after a release: whose receipt has not come by then comes late


@dataclass(frozen=True, slots=True)
class Settled:
    """A receipt and who has signed it; `owner` is empty where that is the machine alone."""

    receipt: Receipt
    host_key: bytes
    host: bytes
    owner_key: bytes = b""  # of the owner, or of somebody to whom he lent what it takes
    owner: bytes = b""
    declined: str = ""


class _Due:
    """A lease of ours whose receipt may come."""

    __slots__ = ("answer", "kept_at", "tenancy", "wire")

    def __init__(self, tenancy: Tenancy, now: float) -> None:
        self.tenancy = tenancy
        self.kept_at = now
        self.wire = b""
        self.answer: list[Any] = []


class _Offer:
    """One receipt on its way to the owner of a lease."""

    def __init__(self, receipts: "Receipts", settled: Settled, to: Endpoint, now: float) -> None:
        self._receipts = receipts
        self._settled = settled
        core = receipts.core
        self.operation: Operation[Settled] = core.operation(self._on_cancel)
        args = [write_receipt(settled.receipt), settled.host]
        self._call = core.calls.send(to, NAME, args, self, now)

    def on_reply(self, _call: Call, value: Any, _trailer: list[Any] | None, _now: float) -> None:
        """Signed, or not."""
        try:
            self.operation.finish(self._receipts.signed(self._settled, value))
        except MalformedMessage:
            self._receipts.core.counters["receipts_malformed"] += 1
            self.operation.finish(replace(self._settled, declined="what came back is no signature"))

    def on_late(self, call: Call, now: float) -> None:
        """It was sent once more."""

    def on_failure(self, _call: Call, _now: float) -> None:
        """Its owner is gone."""
        self.operation.finish(replace(self._settled, declined="no answer"))

    def _on_cancel(self, _now: float) -> None:
        self._receipts.core.calls.cancel(self._call)


class Receipts:
    """Both sides of one node. `on_signed` is told of each receipt that we have signed as owner."""

    def __init__(self, core: "Core") -> None:
        assert core.sessions is not None, "a receipt is signed with the key of a member"
        self.core = core
        self.sessions: Sessions = core.sessions
        self.on_signed: Callable[[Settled], None] = lambda _settled: None
        self._due: dict[bytes, _Due] = {}  # by the hash of their token, the oldest first
        core.register(NAME, self._on_offer, verb="publish")

    # --- the machine ------------------------------------------------------------------------------

    def alone(self, receipt: Receipt) -> Settled:
        """A receipt signed by us as the machine, and by nobody else."""
        member = self.sessions.member
        signature = sign_as_host(member.key, member.root, write_receipt(receipt))
        return Settled(receipt, member.key.public, signature)

    def offer(self, settled: Settled, to: Endpoint, now: float) -> Operation[Settled]:
        """Ask the owner of the lease to sign, too; ends by itself, and never with an error."""
        return _Offer(self, settled, to, now).operation

    def signed(self, settled: Settled, value: Any) -> Settled:
        """What the owner has answered; raises MalformedMessage if nobody has signed it for him."""
        fields = as_list(value, 4)
        if as_int(fields[0] if fields else None, 0, 1) == 0:
            (why,) = unpack(fields[1:], _as_reason)
            return replace(settled, declined=why)
        (signature,) = unpack(fields[1:], lambda v: as_bytes(v, SIGNATURE_BYTES))
        chain, member = self.sessions.speaker, self.sessions.member
        wire = write_receipt(settled.receipt)
        if chain is None or chain.principal.subject != settled.receipt.subject:
            raise bad("it is not the owner of the lease who answers")
        if not is_signed_by_owner(chain.leaf.subject, member.root, wire, signature):
            raise bad("that is no signature of the owner")
        return replace(settled, owner_key=chain.leaf.subject, owner=signature)

    # --- the owner --------------------------------------------------------------------------------

    def expect(self, tenancy: Tenancy, now: float) -> None:
        """A lease is ours from now on: its receipt will come."""
        while len(self._due) >= RECEIPTS_OWED_MAX:
            del self._due[next(iter(self._due))]
        self._due[lease_hash(tenancy.granted.token)] = _Due(tenancy, now)

    def owed(self, now: float) -> int:
        """Of how many leases that were given up just now the receipt has not come."""
        ended = (due.tenancy.released_at for due in self._due.values() if not due.answer)
        return sum(at is not None and now - at < _OWED_S for at in ended)

    def _on_offer(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        wire, host = unpack(
            args,
            lambda v: as_bytes(v, RECEIPT_BYTES_MAX),
            lambda v: as_bytes(v, SIGNATURE_BYTES),
        )
        receipt = read_receipt(wire)
        due = self._due.get(receipt.lease)
        if due is None:
            return self._decline("no lease of ours, or one of long ago")
        if due.answer:
            if due.wire == wire:
                return due.answer
            return self._decline("another receipt of this lease is signed")
        chain, member = self.sessions.speaker, self.sessions.member
        assert chain is not None, "a guest may not call this"
        why = self._wrong(receipt, due, source, now)
        if not why and not is_signed_by_host(chain.leaf.subject, member.root, wire, host):
            why = "not signed by who sends it"
        if why:
            return self._decline(why)
        signature = sign_as_owner(member.key, member.root, wire)
        due.wire, due.answer = wire, [1, signature]
        self.core.counters["receipts_signed"] += 1
        key = member.key.public
        self.on_signed(Settled(receipt, chain.leaf.subject, host, key, signature))
        return due.answer

    def _wrong(self, receipt: Receipt, due: _Due, source: Endpoint, now: float) -> str:
        """What of a receipt is not as we know it; empty where all is."""
        granted, member = due.tenancy.granted, self.sessions.member
        assert member.chain is not None
        heard = self.sessions.heard
        node_id = None if heard is None else heard.node_id
        if source != granted.endpoint or not node_id == granted.node_id == receipt.node_id:
            return "not from the machine that granted it"
        principal = member.chain.principal
        if (receipt.subject, receipt.user) != (principal.subject, member.known_as(principal)):
            return "of another user"
        if receipt.resources != amounts(granted.resources):
            return "of other amounts"
        if receipt.price != granted.price:
            return "at another price"
        released_at = due.tenancy.released_at
        ended = now if released_at is None else released_at
        if receipt.seconds > ended - due.kept_at + RECEIPT_SLACK_S:
            return "for longer than it was ours"
        early = member.wall_s() - (now - due.kept_at) - CLOCK_SKEW_S - RECEIPT_SLACK_S
        if receipt.began < early or receipt.ended > member.wall_s() + CLOCK_SKEW_S:
            return "of another time: is a clock wrong?"
        return ""

    def _decline(self, why: str) -> list[Any]:
        self.core.counters["receipts_declined"] += 1
        return [0, why]

    def check(self) -> None:
        """Assert that the table is bounded, and that what is settled is answered."""
        assert len(self._due) <= RECEIPTS_OWED_MAX
        assert all(bool(due.wire) == bool(due.answer) for due in self._due.values())


def _as_reason(value: object) -> str:
    """Why an owner does not sign."""
    if isinstance(value, str) and is_printable(value, REASON_BYTES_MAX):
        return value
    raise bad("a reason is a short line")
