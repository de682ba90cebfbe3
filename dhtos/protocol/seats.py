"""Seats: places in the hub that a gateway takes for its rows, where too few nodes are.

A record lives with the nodes around its key. Where nobody is (the only machines of their kind
run no node) there would be nobody to hold it and nobody to ask. There the gateway takes a *seat*:
one of its rows becomes a member, a whole `Hub` of its own that joins, answers, gossips and
splits like any node, at the gateway's endpoint. So a subtree is inhabited exactly if somebody
serves there, and queries need no second rule. When enough nodes have come, the seat is given up
and its row is a plain foreign record again.

Several hubs then share one address. Requests do not name whom they mean, so each goes to the hub
that is nearest to what it speaks of: the asked prefix, the keys it carries, or the key of who
sends it (members talk to members of their own group).
"""

from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from dhtos.core.ids import Endpoint, Prefix, common_prefix_bits
from dhtos.core.limits import FOREIGN_COPIES, GATEWAY_SEATS_MAX, RECORD_TTL_S
from dhtos.core.record import Record
from dhtos.protocol.hubwire import as_key, as_news, as_prefix, bad
from dhtos.protocol.rpc import NO_REPLY, Handler, Parts

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

_LOOK_S = 10.0  # between two looks around for others in the same empty subtree
_SUMMARIES_MAX = 4  # hubs that describe themselves in one answer
_NAMES = (
    "dh_range", "dh_summary", "dh_gossip", "dh_sync", "dh_fetch", "dh_push", "dh_probe", "dh_put",
)  # fmt: skip


class Seats:
    """The seats of one gateway, and who of them a request is for."""

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.core = hub.core
        self.hubs: dict[bytes, Hub] = {}  # by the key of the row
        self._own: dict[str, Handler] = {}
        self._left: dict[Prefix, float] = {}  # where we had a seat until then
        self._looked = -inf

    @property
    def joining(self) -> bool:
        """Whether a seat has no place yet."""
        return any(not seat.settled for seat in self.hubs.values())

    def holder(self, key: bytes) -> "Hub | None":
        """The hub at this address whose group owns a key."""
        for hub in self._settled():
            if hub.group.prefix.holds(key):
                return hub
        return None

    def nearest(self, key: bytes) -> "Hub":
        """The hub at this address that is nearest to a key."""
        return max(self._settled(), key=lambda hub: common_prefix_bits(hub.key, key))

    def _settled(self) -> "list[Hub]":
        """Our own place first."""
        return [self.hub, *(seat for seat in self.hubs.values() if seat.settled)]

    # --- taking and giving up -------------------------------------------------------------------

    def take(self, record: Record, now: float) -> bool:
        """Take a seat for a row; False while another is being taken, or when there are too many."""
        if self.joining or len(self.hubs) >= GATEWAY_SEATS_MAX:
            return False
        if not self._own:
            self._divert()
        hub = self.hub
        seat = type(hub)(
            self.core.twin(), hub.node_id, hub.schema, number=hub.number, group_size=hub.group_size
        )
        seat.gateways = hub.known_endpoints()
        seat.advertise(_seated(record, record.seq + 1, serves=True), now)
        self.hubs[seat.key] = seat
        self.core.counters["seats_taken"] += 1
        seat.join(seat.gateways, now)
        return True

    def give_up(self, key: bytes, now: float) -> Record:
        """Stop being a member for a row; the next version of its record, which nobody serves."""
        seat = self.hubs.pop(key)
        seat.close(now)
        assert seat.own is not None
        return _seated(seat.own, seat.own.seq + 1, serves=False)

    def leave(self, key: bytes, now: float) -> None:
        """The row of a seat is gone: say so and stop."""
        seat = self.hubs.pop(key)
        self._left[seat.group.prefix] = now
        seat.leave(now)

    def look_around(self, now: float) -> None:
        """Let lonely seats ask the hub who else is there: others may have come at once."""
        if now < self._looked + _LOOK_S:
            return
        self._looked = now
        for seat in self.hubs.values():
            if seat.settled and seat.group.serving < FOREIGN_COPIES:
                seat.gateways = self.hub.known_endpoints()
                seat.reseed(now)

    def superfluous(self) -> list[bytes]:
        """Seats among enough nodes, or in a group where we have a place already."""
        found = []
        for key, seat in self.hubs.items():
            elsewhere = [self.hub, *(s for k, s in self.hubs.items() if k < key)]
            twice = any(hub.settled and seat.group.prefix.holds(hub.key) for hub in elsewhere)
            if seat.settled and (twice or seat.group.serving > FOREIGN_COPIES + 1):
                found.append(key)
        return found

    # --- whom a request is for ------------------------------------------------------------------

    def _divert(self) -> None:
        """From now on requests to this address are given to the hub they are for."""
        self._own = {name: self.core.handler(name) for name in _NAMES}
        for name in _NAMES:
            self.core.replace(name, self._handler_of(name))

    def _handler_of(self, name: str) -> Handler:
        def handle(args: list[Any], source: Endpoint, trailer: list[Any] | None, now: float) -> Any:
            if name == "dh_push":
                for hub in self._settled():
                    self._of(hub, name)(args, source, trailer, now)
                return NO_REPLY
            if name == "dh_summary":
                return self._summaries(args, source, trailer, now)
            hub = self._meant(name, args)
            if name == "dh_range" and self._has_left(hub, as_prefix(args[2]), now):
                return NO_REPLY
            return self._of(hub, name)(args, source, trailer, now)

        return handle

    def _of(self, hub: "Hub", name: str) -> Handler:
        return self._own[name] if hub is self.hub else hub.core.handler(name)

    def _meant(self, name: str, args: list[Any]) -> "Hub":
        match name, args:
            case "dh_range", [_, _, prefix, *_]:
                return self._around(as_prefix(prefix))
            case "dh_sync", [_, prefix, *_]:
                return self._around(as_prefix(prefix))
            case "dh_gossip", [_, key, *_]:  # from a member of a group of ours, maybe ourselves
                sender = as_key(key)
                hubs = [hub for hub in self._settled() if hub.key != sender] or [self.hub]
                return max(hubs, key=lambda hub: common_prefix_bits(hub.key, sender))
            case "dh_probe", [_, key, *_]:
                return self.nearest(as_key(key))
            case "dh_fetch", [_, [key, *_], *_]:
                return self.nearest(as_key(key))
            case "dh_put", [_, _, [rumour, *_], *_]:
                return self.nearest(as_news(rumour, self.hub.schema).key)
        raise bad("nothing says whom it is for")

    def _around(self, prefix: Prefix) -> "Hub":
        """Who holds all of a prefix, else a part of it, else who is nearest."""

        def rank(hub: "Hub") -> tuple[bool, bool, int]:
            own = hub.group.prefix
            near = common_prefix_bits(hub.key, prefix.first)
            return own.covers(prefix), prefix.covers(own), 0 if prefix.covers(own) else near

        return max(self._settled(), key=rank)

    def _has_left(self, hub: "Hub", prefix: Prefix, now: float) -> bool:
        """Whether the asker means a seat that is no more: silence lets it forget that."""
        self._left = {p: at for p, at in self._left.items() if now - at < RECORD_TTL_S}
        own = hub.group.prefix
        if own.covers(prefix) or prefix.covers(own):
            return False
        return any(p.covers(prefix) or prefix.covers(p) for p in self._left)

    def _summaries(
        self, args: list[Any], source: Endpoint, trailer: list[Any] | None, now: float
    ) -> Any:
        """Which of us the asker knows cannot be seen: all tell of themselves, in one answer."""
        hubs = self._settled()
        cookie = args[1] if len(args) > 1 else None
        proven = type(cookie) is bytes and self.core.proven(source, cookie)
        most = _SUMMARIES_MAX if proven else 1
        if len(hubs) > most:
            hubs = self.core.rng.sample(hubs, most)
        parts: list[list[Any]] = []
        for hub in hubs:
            told = self._of(hub, "dh_summary")(args, source, trailer, now)
            parts += told if type(told) is Parts else []
        if not parts:
            return NO_REPLY
        return Parts([i, len(parts), *part[2:]] for i, part in enumerate(parts))


def _seated(record: Record, seq: int, *, serves: bool) -> Record:
    return msgspec.structs.replace(record, serves=serves, seq=seq, rev=seq, proof=b"")
