"""What a base overlay does unasked: meet newcomers, hand keys over, refresh, republish.

All of it is started by strangers or by the clock, so all of it is metered. An unknown requester
is pinged once per GREETING_INTERVAL_S before it may enter the table: beside its own reply, that
one ping (and its one retransmission) is all a forged source address can make us send. A newcomer
is handed keys only after it answered that ping or another call of ours.

Refreshing goes by ranges of ids (`core.ranges`). A range in which we know nobody may be empty, or
all we could ask may know as little as we do, as in a network that has just started: it is looked
into again after EMPTY_RANGE_RETRY_S and then ever less often, each time at another random id.
"""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, ID_BYTES, Endpoint, distance
from dhtos.core.limits import (
    CONTACT_FRESH_S,
    EMPTY_RANGE_RETRY_S,
    GREETING_INTERVAL_S,
    GREETINGS_MAX,
    GREETINGS_PER_S_MAX,
    HANDOFF_PER_S_MAX,
    HANDOFF_QUEUE_MAX,
    HANDOFF_SCAN_PER_S_MAX,
    REFRESH_INTERVAL_S,
    REPUBLISH_INTERVAL_S,
    UPKEEP_INTERVAL_S,
)
from dhtos.protocol.calls import Call
from dhtos.protocol.lookup import Lookup
from dhtos.protocol.put import Put, copy_of, send_value
from dhtos.protocol.timers import Timer

if TYPE_CHECKING:
    from dhtos.protocol.base import BaseOverlay

_HANDOFF_STEP_S = 0.1
_HANDOFF_SENDS = max(1, int(HANDOFF_PER_S_MAX * _HANDOFF_STEP_S))
_HANDOFF_SCANS = max(1, int(HANDOFF_SCAN_PER_S_MAX * _HANDOFF_STEP_S))


class Allowance:
    """A token bucket: at most `per_s` in a second, and as many at once."""

    __slots__ = ("_at", "_left", "_per_s")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = per_s
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more is allowed at `now`."""
        if self._at is not None:
            self._left = min(self._per_s, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Greeter:
    """Pings who is not known to live: requesters that want in, contacts whose place is wanted."""

    __slots__ = ("_allowance", "_overlay", "_recent")

    def __init__(self, overlay: "BaseOverlay") -> None:
        self._overlay = overlay
        self._allowance = Allowance(GREETINGS_PER_S_MAX)
        self._recent: dict[Endpoint, float] = {}  # longest ago first

    def consider(self, contact: Contact, now: float) -> None:
        """Ping `contact`, unless its endpoint was pinged a moment ago or the rate is used up."""
        recent = self._recent
        endpoint = contact.endpoint
        last = recent.get(endpoint)
        if last is not None and now - last < GREETING_INTERVAL_S:
            return
        if not self._allowance.take(now):
            self._overlay.core.counters["greetings_skipped"] += 1
            return
        recent.pop(endpoint, None)
        if len(recent) >= GREETINGS_MAX:
            del recent[next(iter(recent))]
        recent[endpoint] = now
        overlay = self._overlay
        overlay.core.calls.send(endpoint, "ping", [overlay.id], self, now, tag=contact)

    def challenge(self, contact: Contact, now: float) -> None:
        """A newcomer waits for the place of `contact`: see whether it still lives."""
        peer = self._overlay.core.peers.known(contact.endpoint)
        heard = None if peer is None else peer.last_heard
        if heard is None or now - heard > CONTACT_FRESH_S:
            self.consider(contact, now)

    def on_reply(self, call: Call, value: object, _trailer: list[Any] | None, now: float) -> None:
        """It lives, under the id it names itself."""
        if type(value) is bytes and len(value) == ID_BYTES:
            contact: Contact = call.tag
            if value != contact.id:
                self._overlay.failed(contact, now)
                contact = Contact(value, contact.endpoint)
            self._overlay.answered(contact, now)
        else:
            self._overlay.core.counters["replies_malformed"] += 1

    def on_late(self, call: Call, now: float) -> None:
        """Nobody waits for it."""

    def on_failure(self, call: Call, now: float) -> None:
        """It does not live."""
        self._overlay.failed(call.tag, now)

    def check(self) -> None:
        """Assert the bound."""
        assert len(self._recent) <= GREETINGS_MAX


class Handoff:
    """Gives newcomers the values they should hold (the paper's section 2.5), at a metered pace.

    A value goes to a newcomer that is among its k closest nodes, from the one holder that is
    closest to it.
    """

    __slots__ = ("_overlay", "_queue", "_timer")

    def __init__(self, overlay: "BaseOverlay") -> None:
        self._overlay = overlay
        self._queue: deque[tuple[Contact, Iterator[bytes]]] = deque()
        self._timer: Timer | None = None

    def welcome(self, newcomer: Contact, now: float) -> None:
        """A contact has just entered the table and answered: look through the store for it."""
        overlay = self._overlay
        if not len(overlay.store):
            return
        if len(self._queue) >= HANDOFF_QUEUE_MAX:
            overlay.core.counters["handoffs_skipped"] += 1
            return
        self._queue.append((newcomer, iter(overlay.store.keys())))
        if self._timer is None:
            self._timer = overlay.core.timers.at(now, self._step)

    def _step(self, now: float) -> None:
        overlay = self._overlay
        sends = _HANDOFF_SENDS
        for _ in range(_HANDOFF_SCANS):
            newcomer, keys = self._queue[0]
            key = next(keys, None)
            if key is None:
                self._queue.popleft()
                if not self._queue:
                    self._timer = None
                    return
                continue
            held = overlay.store.get(key, now)
            copy = None if held is None else copy_of(held)
            if copy is not None and copy.expires > now and self._belongs(key, newcomer):
                send_value(overlay, newcomer, key, copy, now, owner=self)
                overlay.core.counters["handoffs"] += 1
                sends -= 1
                if not sends:
                    break
        self._timer = overlay.core.timers.at(now + _HANDOFF_STEP_S, self._step)

    def _belongs(self, key: bytes, newcomer: Contact) -> bool:
        overlay = self._overlay
        own = distance(overlay.id, key)
        far = distance(newcomer.id, key)
        nearer = int(own < far)
        for contact in overlay.routing.closest(key, overlay.k):
            if contact.id == newcomer.id:
                return nearer < overlay.k
            between = distance(contact.id, key)
            if between < own:
                return False
            nearer += between < far
        return False

    def on_reply(self, call: Call, value: object, trailer: list[Any] | None, now: float) -> None:
        """The newcomer has answered; what it did with the value is its own affair."""

    def on_late(self, call: Call, now: float) -> None:
        """Nobody waits for it."""

    def on_failure(self, call: Call, now: float) -> None:
        """The newcomer is gone."""
        self._overlay.failed(call.tag, now)

    def check(self) -> None:
        """Assert the bound, and that a queue is being worked on."""
        assert len(self._queue) <= HANDOFF_QUEUE_MAX
        assert (self._timer is not None) == bool(self._queue)


class Upkeep:
    """Refreshes stale and empty ranges and republishes old values, one at a time.

    A republished value carries the life it has left, less the longest time a call may be under
    way: a copy never outlives its original.
    """

    __slots__ = ("_busy", "_keys", "_overlay", "_seeking", "_targets", "_wait_s")

    def __init__(self, overlay: "BaseOverlay", now: float) -> None:
        self._overlay = overlay
        self._targets: deque[bytes] = deque()
        self._keys: deque[bytes] = deque()
        self._busy = False
        self._seeking: Timer | None = None
        self._wait_s = EMPTY_RANGE_RETRY_S
        self._schedule(now)

    def refresh(self, now: float) -> None:
        """Look up an id in every range that nobody looked into for an hour."""
        if not self._targets:
            overlay = self._overlay
            self._targets.extend(
                overlay.ranges.stale(
                    overlay.routing.shares(),
                    now,
                    interval_s=REFRESH_INTERVAL_S,
                    rng=overlay.core.rng,
                )
            )
        self._next(now)

    def seek(self, now: float, *, again: bool = False) -> None:
        """What we know has changed: look soon into the ranges where we know nobody.

        `again` starts over with short waits: such a range has just lost its last contact.
        """
        if again:
            self._wait_s = EMPTY_RANGE_RETRY_S
            if self._seeking is not None:
                self._seeking.cancel()
                self._seeking = None
        if self._seeking is None:
            core = self._overlay.core
            wait = self._wait_s * (0.5 + core.rng.random())
            self._seeking = core.timers.at(now + wait, self._seek)

    def _seek(self, now: float) -> None:
        self._seeking = None
        overlay = self._overlay
        empty = overlay.ranges.empty(overlay.routing.shares(), overlay.core.rng)
        if not empty:
            self._wait_s = EMPTY_RANGE_RETRY_S
            return
        if not self._targets:
            self._targets.extend(empty)
        self._wait_s = min(2 * self._wait_s, REFRESH_INTERVAL_S)
        self.seek(now)
        self._next(now)

    def _schedule(self, now: float) -> None:
        wait = UPKEEP_INTERVAL_S * (0.5 + self._overlay.core.rng.random())
        self._overlay.core.timers.at(now + wait, self._tick)

    def _tick(self, now: float) -> None:
        self._schedule(now)
        if not self._overlay.client and not self._keys:
            self._keys.extend(self._overlay.store.due(now, REPUBLISH_INTERVAL_S))
        self.refresh(now)

    def _next(self, now: float) -> None:
        overlay = self._overlay
        if self._busy or not len(overlay.routing):
            return
        if self._targets:
            self._busy = True
            overlay.lookup(self._targets.popleft(), self._refreshed, now)
            return
        while self._keys:
            key = self._keys.popleft()
            held = overlay.store.get(key, now)
            if held is None or now - held.heard < REPUBLISH_INTERVAL_S:
                continue  # expired, or another holder has just republished it
            overlay.store.republished(key, now)
            overlay.core.counters["republished"] += 1
            self._busy = True
            Put(overlay, key, copy_of(held), self._republished).start(now)
            return

    def _refreshed(self, _lookup: Lookup, now: float) -> None:
        self._busy = False
        self._next(now)

    def _republished(self, _put: Put, now: float) -> None:
        self._busy = False
        self._next(now)

    def check(self) -> None:
        """Assert the bounds."""
        assert EMPTY_RANGE_RETRY_S <= self._wait_s <= REFRESH_INTERVAL_S
        assert len(self._targets) <= ID_BITS + 1
