"""Joining: ping the seeds, then look up our own id through those that answered.

The walk starts when every seed has answered or is late, and at least one answered; later answers
only add contacts. Where nobody answers all are pinged again, for about three seconds: a seed may
be starting, or too busy. Then it is NoPeers.
"""

from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import SEED_ROUNDS, SEEDS_MAX
from dhtos.errors import NoPeers
from dhtos.protocol.calls import Call
from dhtos.protocol.operation import Operation
from dhtos.protocol.paths import Walk

if TYPE_CHECKING:
    from dhtos.protocol.base import BaseOverlay


class Bootstrap:
    """One join; `operation` ends with the number of contacts then known."""

    __slots__ = (
        "_calls", "_contacts", "_heard", "_lookup", "_operation", "_overlay", "_rounds", "_seeds",
        "_waiting",
    )  # fmt: skip

    def __init__(self, overlay: "BaseOverlay", operation: Operation[int]) -> None:
        self._overlay = overlay
        self._operation = operation
        self._calls: set[Call] = set()
        self._contacts: list[Contact] = []
        self._lookup: Walk | None = None
        self._seeds: list[Endpoint] = []
        self._waiting = 0  # seeds that have neither answered nor are late
        self._rounds = 0
        self._heard = False  # somebody answered, be it nonsense

    def start(self, seeds: list[Endpoint], now: float) -> None:
        """Ping every seed, at most SEEDS_MAX of them."""
        self._seeds = list(dict.fromkeys(seeds))[:SEEDS_MAX]
        self._ping(now)
        self._step(now)

    def _ping(self, now: float) -> None:
        overlay = self._overlay
        self._rounds += 1
        self._waiting = len(self._seeds)
        for seed in self._seeds:
            self._calls.add(overlay.core.calls.send(seed, "ping", [overlay.id], self, now))

    def cancel(self) -> None:
        """Drop the pings and the walk."""
        for call in self._calls:
            self._overlay.core.calls.cancel(call)
        self._calls.clear()
        if self._lookup is not None:
            self._overlay.forget(self._lookup)

    def on_reply(self, call: Call, value: object, _trailer: list[Any] | None, now: float) -> None:
        """A seed named its id."""
        self._ended(call)
        self._heard = True
        if type(value) is not bytes or len(value) != ID_BYTES:
            self._overlay.core.counters["replies_malformed"] += 1
        elif value != self._overlay.id:
            contact = Contact(value, call.endpoint)
            self._contacts.append(contact)
            self._overlay.answered(contact, now)
        self._step(now)

    def on_late(self, _call: Call, now: float) -> None:
        """A seed is late: go on without it if another answered."""
        self._waiting -= 1
        self._step(now)

    def on_failure(self, call: Call, now: float) -> None:
        """A seed does not answer."""
        self._ended(call)
        self._step(now)

    def _ended(self, call: Call) -> None:
        self._calls.discard(call)
        if not call.late:
            self._waiting -= 1

    def _step(self, now: float) -> None:
        if self._operation.done or self._lookup is not None or self._waiting:
            return
        overlay = self._overlay
        if self._contacts:
            self._lookup = overlay.lookup(
                overlay.id, self._arrived, now, contacts=tuple(self._contacts)
            )
        elif self._calls:
            return
        elif self._seeds and not self._heard and self._rounds < SEED_ROUNDS:
            self._ping(now)
        else:
            names = ", ".join(f"{host}:{port}" for host, port in self._seeds) or "none given"
            self._operation.fail(NoPeers(f"no seed answered: {names}"))

    def _arrived(self, _lookup: Walk, now: float) -> None:
        self._operation.finish(len(self._overlay.routing))
        self._overlay.joined(now)
