"""Requests in flight: ids, time-outs, one retransmission, replies matched to their peers.

A call lives through three moments: sent; late (the peer's own time-out passed: it is sent once
more and its owner is told, so that it may ask somebody else meanwhile); ended, by a reply from
the very endpoint that was asked, by its deadline, or by `cancel`. A lookup therefore waits for a
dead peer one time-out, never a fixed five seconds.

The deadline of a call adapts too: four time-outs, between a quarter of a second and
`CALL_DEADLINE_S`; of a peer that was never measured, and may be far away, no guess makes it
shorter. A timer that fires late says that our own loop was busy, not that the peer was
silent, so the call gets one more short wait.
"""

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import (
    CALL_DEADLINE_S,
    CALLS_OUTSTANDING_MAX,
    RTO_FLOOR_S,
    RTO_UNKNOWN_S,
)
from dhtos.protocol.peers import Capability, Peer, Peers
from dhtos.protocol.place import Place
from dhtos.protocol.timers import Timer, Timers
from dhtos.protocol.wire import Response, encode_request, encode_trailer

if TYPE_CHECKING:
    from random import Random

_ID_BATCH = 128  # message ids drawn at once
_DEADLINE_FLOOR_S = 0.25
_LAG_S = RTO_FLOOR_S / 2  # a timer later than this was held up by our own loop
_UNKNOWN, _STOCK, _DHTOS = Capability.UNKNOWN, Capability.STOCK, Capability.DHTOS
OWN_CAPABILITIES = 1  # bit 0: hub overlay, sequenced values


class Owner(Protocol):
    """Who is told how a call went."""

    def on_reply(self, call: "Call", value: Any, trailer: list[Any] | None, now: float) -> None:
        """The peer answered."""

    def on_late(self, call: "Call", now: float) -> None:
        """The peer's time-out passed; the call was sent once more and stays open."""

    def on_failure(self, call: "Call", now: float) -> None:
        """The deadline passed without an answer."""


class Call:
    """One request in flight; `tag` belongs to the owner."""

    __slots__ = (
        "answered", "datagram", "deadline", "endpoint", "extended", "late", "msg_id", "name",
        "owner", "peer", "sent_at", "stream", "tag", "timer",
    )  # fmt: skip

    def __init__(self, peer: Peer, name: str, owner: Owner, tag: Any) -> None:
        self.peer = peer
        self.endpoint = peer.endpoint
        self.name = name
        self.owner = owner
        self.tag = tag
        self.stream = False
        self.answered = False
        self.late = False
        self.extended = False
        self.msg_id = b""
        self.datagram = b""
        self.sent_at = 0.0
        self.deadline = 0.0
        self.timer: Timer | None = None


class Calls:
    """The table of open calls; every entry ends by itself at its deadline."""

    def __init__(
        self,
        outbox: list[tuple[bytes, Endpoint]],
        timers: Timers,
        peers: Peers,
        rng: "Random",
        counters: Counter[str],
        *,
        place: Place,
    ) -> None:
        self._outbox = outbox
        self._timers = timers
        self._peers = peers
        self._rng = rng
        self._counters = counters
        self._place = place
        self._open: dict[bytes, Call] = {}
        self._ids: list[bytes] = []  # drawn ahead, the next one last
        self._greeting = encode_trailer([OWN_CAPABILITIES])
        self.keyless: Callable[[Endpoint], bool] | None = None  # whether keys must be made first

    def send(
        self,
        endpoint: Endpoint,
        name: str,
        args: list[Any],
        owner: Owner,
        now: float,
        *,
        tag: Any = None,
        trailer: list[Any] | None = None,
        deadline_s: float | None = None,
        stream: bool = False,
    ) -> Call:
        """Ask `endpoint`; `owner` hears of the reply, the first time-out, or the deadline.

        A `stream` call stays open after a reply, for the other datagrams of a long answer, until
        its owner cancels it.
        `trailer` adds items after our capabilities; a peer that never answered is sent the bare
        greeting, so that one call tells whether it is a dhtos node.
        """
        peer = self._peers.of(endpoint)
        call = Call(peer, name, owner, tag)
        call.stream = stream
        msg_id = call.msg_id = self._new_id()
        datagram = encode_request(msg_id, name, args)
        capability = peer.capability
        if capability is not _STOCK:
            if trailer is not None:
                datagram += encode_trailer([OWN_CAPABILITIES, *trailer])
            elif capability is _UNKNOWN:
                datagram += self._greeting
        call.datagram = datagram
        call.sent_at = now
        rto = peer.rto()
        if self.keyless is not None and self.keyless(endpoint):
            rto *= 3  # two round trips of a handshake go before
        if deadline_s is None:
            deadline_s = _deadline_of(rto if peer.srtt else RTO_UNKNOWN_S)
        call.deadline = now + deadline_s
        if len(self._open) >= CALLS_OUTSTANDING_MAX:
            self._counters["calls_refused"] += 1
            call.timer = self._timers.at(now, lambda at: self._expire(call, at))
            return call
        self._open[msg_id] = call
        peer.calls += 1
        late_at = now + rto
        if late_at > call.deadline:
            late_at = call.deadline
        call.timer = self._timers.at(late_at, lambda at: self._on_timer(call, at))
        self._outbox.append((datagram, endpoint))
        self._counters["requests_out"] += 1
        return call

    def notify(self, endpoint: Endpoint, name: str, args: list[Any]) -> None:
        """Tell `endpoint` something that needs no answer."""
        self._outbox.append((encode_request(self._new_id(), name, args), endpoint))
        self._counters["notices_out"] += 1

    def departed(self, endpoint: Endpoint, now: float, lost: bool) -> None:
        """What waited for keys has left only now: time it from here.

        What was sealed for keys that are `lost` could not be read: it is sent again.
        """
        for call in self._open.values():
            if call.endpoint != endpoint:
                continue
            call.deadline += now - call.sent_at
            call.sent_at = now
            if lost and not call.answered:
                self._outbox.append((call.datagram, endpoint))
                assert call.timer is not None
                call.timer.cancel()
                rto = inf if call.late else call.peer.rto()
                self._rearm(call, min(now + rto, call.deadline))

    def name_of(self, msg_id: bytes) -> str:
        """What an open call asks, or nothing."""
        call = self._open.get(msg_id)
        return "" if call is None else call.name

    def awaits(self, endpoint: Endpoint) -> bool:
        """Whether a reply may come from there."""
        peer = self._peers.known(endpoint)
        return peer is not None and peer.calls > 0

    def cancel(self, call: Call) -> None:
        """Forget a call: its owner hears nothing more."""
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if self._open.pop(call.msg_id, None) is not None:
            call.peer.calls -= 1

    def resolve(self, response: Response, source: Endpoint, now: float) -> None:
        """Match a reply to its call; one from another address or without a call is dropped."""
        msg_id = response.msg_id
        call = self._open.get(msg_id)
        if call is None:
            self._counters["replies_unasked"] += 1
            return
        if call.endpoint != source:
            self._counters["replies_foreign"] += 1
            return
        if not call.stream:
            del self._open[msg_id]
            call.peer.calls -= 1
            if call.timer is not None:
                call.timer.cancel()
                call.timer = None
        peer = call.peer
        peer.last_heard = now
        peer.failures = 0
        trailer = response.trailer
        if not call.late and not call.answered:
            peer.sample(now - call.sent_at)
            if trailer is not None and len(trailer) > 1:
                self._place.told(source, trailer[1], now - call.sent_at, now)
        elif not call.answered:
            peer.was_late()
        call.answered = True
        if trailer is not None:
            peer.capability = _DHTOS
        elif peer.capability is _UNKNOWN:
            peer.capability = _STOCK
        call.owner.on_reply(call, response.value, trailer, now)

    def _new_id(self) -> bytes:
        ids = self._ids
        if not ids:
            drawn = self._rng.randbytes(ID_BYTES * _ID_BATCH)
            ids += [drawn[at : at + ID_BYTES] for at in range(0, len(drawn), ID_BYTES)]
            ids.reverse()
        return ids.pop()

    def _on_timer(self, call: Call, now: float) -> None:
        assert call.timer is not None
        held_up = now - call.timer.when > _LAG_S
        if held_up and not call.extended:
            call.extended = True
            self._rearm(call, now + RTO_FLOOR_S)
            call.deadline = max(call.deadline, now + RTO_FLOOR_S)
        elif now >= call.deadline:
            self._expire(call, now)
        elif not call.late:
            call.late = True
            self._outbox.append((call.datagram, call.endpoint))
            self._counters["retransmits"] += 1
            self._rearm(call, call.deadline)
            call.owner.on_late(call, now)
        else:
            self._rearm(call, call.deadline)

    def _rearm(self, call: Call, when: float) -> None:
        call.timer = self._timers.at(when, lambda at: self._on_timer(call, at))

    def _expire(self, call: Call, now: float) -> None:
        self.cancel(call)
        call.peer.failures += 1
        self._counters["calls_failed"] += 1
        call.owner.on_failure(call, now)

    def __len__(self) -> int:
        return len(self._open)

    def check(self) -> None:
        """Assert that every open call is filed, bounded and has a live timer."""
        assert len(self._open) <= CALLS_OUTSTANDING_MAX
        for msg_id, call in self._open.items():
            assert call.msg_id == msg_id
            assert call.timer is not None
            assert call.timer.callback is not None
            assert call.peer.calls > 0


def _deadline_of(rto: float) -> float:
    """How long a call to a peer with this time-out may take, unless its sender knows better."""
    deadline_s = 4 * rto
    if deadline_s < _DEADLINE_FLOOR_S:
        return _DEADLINE_FLOOR_S
    if deadline_s > CALL_DEADLINE_S:
        return CALL_DEADLINE_S
    return deadline_s
