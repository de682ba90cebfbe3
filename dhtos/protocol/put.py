"""Storing one value: find the k closest nodes, store with each, tell how many did.

We count among the k closest ourselves when we are: then our own store is one of them. The put
ends when every holder has answered or is late; a late one is sent the value once more and left
behind. Without any acknowledgement it waits for the last call to end instead, so that it never
reports failure while a store may still succeed.

In a cluster a value travels with its owner's proof, verbatim, and a holder that has another one
shows it: then the put knows that a newer version is out, or whose the key is. A word without a
proof counts as no room.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.ids import distance
from dhtos.core.limits import CALL_DEADLINE_S, VALUE_TTL_S
from dhtos.errors import Conflict, MalformedMessage, Refused
from dhtos.protocol.calls import Call, Owner
from dhtos.protocol.paths import Walk
from dhtos.protocol.store import Held, ValueOwner, Verdict

if TYPE_CHECKING:
    from dhtos.protocol.base import BaseOverlay


@dataclass(frozen=True, slots=True)
class PutResult:
    """How many nodes hold the value now; `wanted` is k, whatever the size of the network.

    `here` says that our own store is one of `stored_on`; `owner` is who signed the value, None in
    open mode.
    """

    stored_on: int
    wanted: int
    seq: int
    here: bool = False
    owner: ValueOwner | None = None


class Put:
    """One value on its way; `finish(put, now)` is called once, unless cancelled."""

    __slots__ = (
        "_calls", "_finish", "_held", "_key", "_overlay", "_paths", "_waiting", "acknowledged",
        "declined", "done", "here", "lookup", "superseded", "taken",
    )  # fmt: skip

    def __init__(
        self,
        overlay: "BaseOverlay",
        key: bytes,
        held: Held,
        finish: Callable[["Put", float], None],
        paths: int = 1,
    ) -> None:
        self._overlay = overlay
        self._key = key
        self._held = held
        self._finish = finish
        self._paths = paths
        self._calls: set[Call] = set()
        self._waiting = 0  # calls neither ended nor late
        self.acknowledged = 0
        self.superseded = 0
        self.declined = 0
        self.taken: list[ValueOwner] = []  # by whom, as its holders showed
        self.here = False
        self.done = False
        self.lookup: Walk | None = None

    def start(self, now: float) -> None:
        """Look for the holders."""
        self.lookup = self._overlay.lookup(self._key, self._found, now, paths=self._paths)

    def cancel(self) -> None:
        """Drop the lookup and every open call."""
        self.done = True
        if self.lookup is not None:
            self._overlay.forget(self.lookup)
        for call in self._calls:
            self._overlay.core.calls.cancel(call)
        self._calls.clear()

    def on_reply(self, call: Call, value: object, _trailer: list[Any] | None, now: float) -> None:
        """A holder answered: whatever a stock peer says means yes."""
        self._ended(call)
        if self._held.said is not None:
            self._heard(value, now)
        elif value is Verdict.SUPERSEDED.value:
            self.superseded += 1
        elif value is Verdict.NO_ROOM.value:
            self.declined += 1
        else:
            self.acknowledged += 1
        self._step(now)

    def _heard(self, value: object, now: float) -> None:
        """A holder in a cluster: it has the value, or shows the one that it has instead."""
        if value is Verdict.HELD.value:
            self.acknowledged += 1
            return
        self.declined += 1
        if isinstance(value, dict):
            try:
                other = self._overlay.believed(self._key, value.get("value"), value.get("p"), now)
            except MalformedMessage:
                return
            self._give_way(other)

    def _give_way(self, other: Held) -> None:
        held = self._held
        if other.owner == held.owner:
            self.superseded += other.wins(held)
        elif not held.is_owned and other.signer is not None:
            self.taken.append(other.signer)

    def on_late(self, _call: Call, now: float) -> None:
        """A holder is late: the call runs on, the put need not wait."""
        self._waiting -= 1
        self._step(now)

    def on_failure(self, call: Call, now: float) -> None:
        """A holder did not answer."""
        self._ended(call)
        self._overlay.failed(call.tag, now)
        self._step(now)

    def result(self) -> PutResult:
        """What the put has reached so far."""
        stored_on = self.acknowledged + self.here
        return PutResult(stored_on, self._overlay.k, self._held.seq, self.here, self._held.signer)

    def refusal(self) -> Conflict | Refused | None:
        """Why readers will not see the value; None if they will, or if nobody answered."""
        if self.superseded:
            return Conflict("a newer value is stored under this key")
        stored_on = self.acknowledged + self.here
        if len(self.taken) > stored_on:
            owner = self.taken[0]
            return Conflict(
                f"{owner.name!r} has a value under this key: use another, or one of your own"
                " (owned)"
            )
        if self.declined and not stored_on:
            return Refused("no node has room for the value")
        return None

    def _found(self, lookup: Walk, now: float) -> None:
        overlay = self._overlay
        holders = lookup.closest()
        held = self._held
        if held.expires > now:
            if self._is_mine(holders):
                holders = holders[: overlay.k - 1]
                verdict = overlay.keep(self._key, held, now)
                self.here = verdict is Verdict.HELD
                if verdict is Verdict.SUPERSEDED:
                    self._behind(now)
            for contact in holders:
                self._calls.add(send_value(overlay, contact, self._key, held, now, owner=self))
        self._waiting = len(self._calls)
        self._step(now)

    def _behind(self, now: float) -> None:
        """We hold another value ourselves."""
        other = self._overlay.store.get(self._key, now)
        if self._held.said is None or other is None:
            self.superseded += 1
        else:
            self._give_way(other)

    def _is_mine(self, holders: list[Contact]) -> bool:
        overlay = self._overlay
        if overlay.client:
            return False
        if len(holders) < overlay.k:
            return True
        return distance(overlay.id, self._key) < distance(holders[-1].id, self._key)

    def _ended(self, call: Call) -> None:
        self._calls.discard(call)
        if not call.late:
            self._waiting -= 1

    def _step(self, now: float) -> None:
        if self.done or self._waiting or (self._calls and not self.acknowledged):
            return
        self.done = True
        self._finish(self, now)


def send_value(
    overlay: "BaseOverlay", contact: Contact, key: bytes, held: Held, now: float, *, owner: Owner
) -> Call:
    """Ask a contact to keep a value for the life it has left; a stock peer keeps it a week."""
    args: list[Any] = [overlay.id, key, held.value]
    trailer: list[Any] = []
    if held.said is None:
        ttl_s = min(held.expires - now, VALUE_TTL_S)
        trailer = [held.seq, max(int(ttl_s * 1000), 1)]
    else:
        args.append(held.said.proof)  # which says both
    return overlay.core.calls.send(
        contact.endpoint, "store", args, owner, now, tag=contact, trailer=trailer
    )


def copy_of(held: Held) -> Held:
    """A value with the life a copy may have: less the longest time a call may be under way."""
    return Held(held.value, held.seq, held.expires - CALL_DEADLINE_S, held.said)
