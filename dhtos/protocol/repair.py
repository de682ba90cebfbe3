"""Repair of what rumours lost: version vectors over the part of the space that two members share.

    1  a hash of the view rides on every exchange; every few ticks a mismatch is answered with a
       vector of two bytes a member (`Group.bins`)
    2  dh_sync   the versions in the bins that differ -> what is newer there, and what is wanted:
                 first so many records in full, then what changed in others
    3  dh_push   what was wanted;  dh_fetch  whole records that somebody told of

Members may have split to different depths: they compare the narrower of two nested prefixes.
"""

from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.group import BIN_COUNT_MAX, State, bin_count, differing_bins
from dhtos.core.ids import Endpoint, Prefix
from dhtos.protocol.calls import Call
from dhtos.protocol.hubwire import (
    SEQ_MAX,
    as_bytes,
    as_int,
    as_key,
    as_list,
    as_news,
    as_prefix,
    bad,
    pack,
    unpack,
)
from dhtos.protocol.rpc import NO_REPLY

if TYPE_CHECKING:
    from dhtos.protocol.gossip import Gossip

_BINS_MAX = 128  # bins compared at once; the next repair does the rest
_VERSIONS_MAX = 200  # [key, seq] pairs in one request: both together fit in a datagram
_WANTS_MAX = 20
_FETCH_MAX = 64
_WANT_BYTES = 24


class Repair:
    """Both sides of the repair of one hub node."""

    def __init__(self, gossip: "Gossip", room: int) -> None:
        self.gossip = gossip
        self.hub = gossip.hub
        self.core = gossip.core
        self.unfinished = False  # the last repair did not fit in a datagram: go on next tick
        self.wanted: set[bytes] = set()  # keys somebody told of, whose records we lack
        self._room = room
        self.core.register("dh_sync", self._on_sync, verb="publish")
        self.core.register("dh_fetch", self._on_fetch, verb="publish")

    def vector(self, theirs: Prefix, view: int) -> list[Any]:
        """What to add to an answer when the views differ: `[shared prefix, version vector]`."""
        group = self.hub.group
        shared = _shared(group.prefix, theirs)
        if shared is None or group.view_hash(shared) == view:
            return []
        return [shared.to_wire(), group.bins(shared, bin_count(len(group)))]

    def compare(self, endpoint: Endpoint, shared: Any, vector: Any, now: float) -> None:
        """Compare version vectors over the part of the space that both sides hold."""
        hub = self.hub
        prefix = as_prefix(shared)
        theirs = as_bytes(vector, 2 * BIN_COUNT_MAX)
        count = len(theirs) // 2
        if count < 1 or count & (count - 1) or len(theirs) % 2:
            raise bad("a version vector has a power of two of bins")
        if not hub.group.prefix.covers(prefix):
            return  # we have split since
        differing = sorted(differing_bins(hub.group.bins(prefix, count), theirs))[:_BINS_MAX]
        if not differing:
            return
        ours = hub.group.in_bins(prefix, count, set(differing))
        versions = [[m.key, m.record.seq] for m in ours[:_VERSIONS_MAX]]
        self.core.calls.send(
            endpoint,
            "dh_sync",
            [hub.number, prefix.to_wire(), count, differing, versions],
            self,
            now,
        )

    def _on_sync(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        hub = self.hub
        number, prefix, count, bins, versions = unpack(
            args,
            lambda v: v,
            as_prefix,
            lambda v: as_int(v, 1, BIN_COUNT_MAX),
            lambda v: as_list(v, BIN_COUNT_MAX),
            lambda v: as_list(v, 256),
        )
        if not hub.serves(number) or count & (count - 1):
            return NO_REPLY
        theirs = {as_key(k): as_int(s, 0, SEQ_MAX) for k, s in map(_as_pair, versions)}
        if not hub.group.prefix.covers(prefix):
            return [[], [], 0, 0]  # we have split since
        wanted_bins = {as_int(b, 0, count - 1) for b in bins}
        news: list[list[Any] | None] = []
        older, lacking = [], []
        for member in hub.group.in_bins(prefix, count, wanted_bins):
            seq = theirs.pop(member.key, None)
            if seq is None or seq < member.record.seq:
                news.append(self.gossip.tell(member.key, now, whole=seq is None))
            elif seq > member.record.seq:
                older.append(member.key)
        for their_key, seq in theirs.items():
            if hub.lacks(their_key, seq):
                if prefix.holds(their_key):
                    lacking.append(their_key)
            elif their_key in hub.group.tombstones:
                news.append(self.gossip.tell(their_key, now))
        wants = [*lacking, *older][:_WANTS_MAX]
        told = [words for words in news if words is not None]
        packed, _ = pack(told, self._room - _WANT_BYTES * len(wants))
        return [packed, wants, int(len(packed) < len(told)), len(lacking)]

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """An answer to `dh_sync` or `dh_fetch`."""
        if call.name == "dh_sync":
            self._on_synced(call, value, now)
        else:
            for news in as_list(value, _FETCH_MAX):
                self.gossip.take(as_news(news, self.hub.schema), now)
        self.gossip.answer_refuted(call.endpoint, now)

    def on_late(self, call: Call, now: float) -> None:
        """The retransmission is out; repair is not urgent."""

    def on_failure(self, call: Call, now: float) -> None:
        """The next tick repairs with somebody else."""

    def _on_synced(self, call: Call, value: Any, now: float) -> None:
        fields = as_list(value, 8)
        if len(fields) < 4:
            raise bad("a sync answer is [rumours, wants, more, in full]")
        for rumour in as_list(fields[0], 256):
            self.gossip.take(as_news(rumour, self.hub.schema), now)
        wants = [as_key(key) for key in as_list(fields[1], _FETCH_MAX)]
        whole = as_int(fields[3], 0, BIN_COUNT_MAX)
        words = [self.gossip.tell(key, now, whole=n < whole) for n, key in enumerate(wants)]
        self.gossip.push_words([w for w in words if w is not None], 0, [call.endpoint])
        self.fetch(call.endpoint, now)
        self.unfinished = bool(fields[2])

    def fetch(self, endpoint: Endpoint, now: float) -> None:
        """Ask whoever told of unknown keys for their whole records."""
        if self.wanted:
            keys = list(self.wanted)[:_FETCH_MAX]
            self.wanted.clear()
            self.core.calls.send(endpoint, "dh_fetch", [self.hub.number, keys], self, now)

    def introduce(self, contact: Contact, now: float) -> None:
        """Somebody told of a node that should be a member: ask it for its record.

        If we hold it for dead, we may be the two sides of a partition that has healed: tell it
        so, and who says it. If it lives it will answer with a newer version.
        """
        group = self.hub.group
        if contact.id in group.members or not group.prefix.holds(contact.id):
            return
        tombstone = group.tombstones.get(contact.id)
        if tombstone is None:
            args = [self.hub.number, [contact.id]]
            self.core.calls.send(contact.endpoint, "dh_fetch", args, self, now)
        elif tombstone.state is State.DEAD:
            self.gossip.push([contact.id, self.hub.key], 0, [contact.endpoint], now)

    def _on_fetch(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        number, keys = unpack(args, lambda v: v, lambda v: as_list(v, _FETCH_MAX))
        if not self.hub.serves(number):
            return NO_REPLY
        told = (self.gossip.tell(as_key(key), now, whole=True) for key in keys)
        return pack([words for words in told if words is not None], self._room)[0]


def _shared(one: Prefix, other: Prefix) -> Prefix | None:
    """What two groups both hold: the narrower of nested prefixes."""
    if one.covers(other):
        return other
    return one if other.covers(one) else None


def _as_pair(value: object) -> list[Any]:
    pair = as_list(value, 2)
    if len(pair) != 2:
        raise bad("expected [key, seq]")
    return pair
