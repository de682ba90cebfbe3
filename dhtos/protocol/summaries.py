"""What nodes tell each other about the subtrees they are not in.

    dh_summary  args   [hub, cookie, key of the asker, [bucket...], [[bucket, stamp]...]]
                reply  parts [index, part count, key, depth, inhabited, [entry...], neighbours]
                entry  [bucket, summary | nil, age, hearsay...]

Two nodes fork at the first bit in which their keys differ. Beyond the fork each tells of its own
side, which is one bucket of the other: what lives there (its group and its deeper buckets) and
whom to ask. Above the fork their buckets are the same subtrees, so either may pass on what it
knows of them. `inhabited` says which are inhabited at all, and in four bytes where static values
occur in them; when that differs the younger description wins. So news of a first inhabitant, or
of a first machine of its kind, spreads with every exchange, in seconds, though each node asks
about a bucket only once in SUMMARY_INTERVAL_S (more often while it is young itself). Replies are
also what a node knows of distances beyond its group (`place`): where there are few buckets, a node
that has lately come asks more often, until all groups are on one map.
`neighbours` are nodes on the asker's own side: two that started there at once meet in this way.

Above the version bits of a key the subtrees belong to machines of other schemas. Of those only the
count is told, since the rest could not be read; and as their records cannot be read either, nodes
of two versions know each other by asking for summaries.
"""

from math import inf
from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.curve import VERSION_BITS
from dhtos.core.group import State
from dhtos.core.ids import Endpoint, common_prefix_bits
from dhtos.core.limits import (
    HUB_BUCKET_CONTACTS_MAX,
    SUMMARY_INTERVAL_S,
    VOUCHED_S,
)
from dhtos.core.record import Record
from dhtos.core.summary import Summary
from dhtos.protocol.calls import Call
from dhtos.protocol.hubwire import (
    as_age,
    as_bytes,
    as_contact,
    as_int,
    as_key,
    as_list,
    bad,
    unpack,
)
from dhtos.protocol.rpc import NO_REPLY, Parts

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

_OWN_SUMMARY_S = 30.0  # how long a summary may miss what only changed dynamically
_ASK_BITS_S = 5.0  # between two questions about one bucket that others say is inhabited
_ASK_STAMPS_S = 3.0  # between two questions about what others describe otherwise
_YOUNG_INTERVAL_S = 5.0  # of a node that has settled lately: those around it may have, too
_LEARNING_S = 600.0  # so long one bucket or another is asked as often, for the sake of coordinates
_DIFFERING = -2  # the bucket index that asks for all whose stamp differs
_ENTRIES_MAX = 160
_STAMPS_MAX = 64
_NEIGHBOURS = 4


class Summaries:
    """Both sides of `dh_summary` for one hub node."""

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.core = hub.core
        self._own_summary: tuple[int, float, Summary] | None = None
        self._bits_asked: dict[int, float] = {}
        self._stamps_asked = -inf
        hub.core.register("dh_summary", self._on_summary, verb="query", placed=True)

    # --- asking -----------------------------------------------------------------------------------

    def pull(self, now: float) -> None:
        """Ask one contact each of the subtrees whose summaries are oldest."""
        young = self.hub.is_young(now)
        buckets = list(self.hub.buckets.inhabited())
        interval = _YOUNG_INTERVAL_S if young else 0.9 * SUMMARY_INTERVAL_S
        if now - self.hub.settled_at < _LEARNING_S:
            interval = min(interval, _YOUNG_INTERVAL_S * len(buckets))
        due = [
            (bucket.pulled, index, bucket)
            for index, bucket in buckets
            if now - bucket.pulled > interval
        ]
        for _, index, bucket in sorted(due, key=lambda entry: entry[:2])[: 4 if young else 1]:
            bucket.pulled = now
            for contact in self.hub.buckets.choose(index, self.core.rng, 1):
                self._ask(contact.endpoint, [], now)

    def greet(self, endpoints: list[Endpoint], now: float) -> None:
        """Show ourselves to nodes of another version, and hear how many they are."""
        for endpoint in endpoints:
            self._ask(endpoint, [], now)

    def inhabited(self, depth: int) -> bytes:
        """What to tell others: a digest of the buckets below `depth`, and which there are."""
        buckets = self.hub.buckets
        bits = buckets.bits(depth)
        return buckets.digest(depth).to_bytes(4) + bits.to_bytes((bits.bit_length() + 7) // 8)

    def met(self, key: bytes, record: Record, now: float) -> None:
        """A machine of another subtree showed its record: a first of its kind is news."""
        hub = self.hub
        index = hub.buckets.index_of(key)
        bucket = hub.buckets.get(index)
        if bucket is not None and bucket.summary is not None:
            seen = bucket.summary.widened(Summary.of(hub.schema, [record]))
            if seen.occupancy(hub.schema) != bucket.stamp:
                hub.buckets.summarise(index, seen, now, hub.schema)

    def compare(self, key: bytes, depth: int, inhabited: bytes, now: float) -> None:
        """A member told what it believes of the other subtrees."""
        member = self.hub.group.members.get(key)
        if member is not None:
            shared = min(depth, common_prefix_bits(self.hub.key, key))
            self._ask_missing(member.record.endpoint, inhabited, shared, now)
            if depth == self.hub.group.depth == shared:
                self._ask_differing(member.record.endpoint, inhabited, shared, now)

    def _ask_missing(self, endpoint: Endpoint, inhabited: bytes, shared: int, now: float) -> None:
        """Ask about inhabited subtrees that we believe to be empty."""
        hub = self.hub
        if hub.settled:
            bits = int.from_bytes(inhabited[4:])
            shared = min(shared, hub.group.depth)
            missing = bits & ((1 << shared) - 1) & ~hub.buckets.bits(shared)
            wanted = [i for i in range(shared) if missing >> i & 1 and self._may_ask_bit(i, now)]
            if wanted:
                self._ask(endpoint, wanted[:4], now)

    def _ask_differing(self, endpoint: Endpoint, inhabited: bytes, shared: int, now: float) -> None:
        """Ask how others describe shared subtrees if it is not as we do."""
        hub = self.hub
        if not hub.settled or now - self._stamps_asked < _ASK_STAMPS_S:
            return
        if int.from_bytes(inhabited[:4]) != hub.buckets.digest(shared):
            self._stamps_asked = now
            held = [[i, b.stamp] for i, b in hub.buckets.inhabited() if i < shared]
            self._ask(endpoint, [_DIFFERING], now, held[:_STAMPS_MAX])

    def _may_ask_bit(self, index: int, now: float) -> bool:
        if now - self._bits_asked.get(index, -inf) < _ASK_BITS_S:
            return False
        self._bits_asked[index] = now
        return True

    def _ask(
        self,
        endpoint: Endpoint,
        indexes: list[int],
        now: float,
        held: list[list[int]] | None = None,
    ) -> None:
        cookie = self.core.cookies.get(endpoint, b"")
        args = [self.hub.number, cookie, self.hub.key, indexes, held or []]
        self.core.calls.send(endpoint, "dh_summary", args, self, now, tag=set(), stream=True)

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """One datagram of a summary answer."""
        part = as_list(value, 8)
        call.tag.add(as_int(part[0] if part else None, 0, _ENTRIES_MAX))
        self.take(value, call.endpoint, now)
        if len(call.tag) >= part[1]:
            self.core.calls.cancel(call)

    def on_late(self, call: Call, now: float) -> None:
        """The retransmission is out; a summary is not urgent."""

    def on_failure(self, call: Call, now: float) -> None:
        """A contact is gone; the next upkeep asks another."""
        if call.answered:
            return
        for _, bucket in self.hub.buckets.inhabited():
            for key, known in list(bucket.contacts.items()):
                if known.contact.endpoint == call.endpoint:
                    self.hub.buckets.silent(key)

    def take(self, value: Any, endpoint: Endpoint, now: float) -> None:
        """Learn what a node told about subtrees: its own side of the fork, and shared ones."""
        part, count, key, _, inhabited, entries, neighbours = unpack(
            as_list(value, 8),
            lambda v: as_int(v, 0, _ENTRIES_MAX),
            lambda v: as_int(v, 1, _ENTRIES_MAX + 1),
            as_key,
            lambda v: as_int(v, 0, 160),
            as_inhabited,
            lambda v: as_list(v, 8),
            lambda v: as_list(v, HUB_BUCKET_CONTACTS_MAX),
        )
        if part >= count or key == self.hub.key:
            raise bad("a summary part out of range")
        fork = common_prefix_bits(self.hub.key, key)
        if not self.hub.group.prefix.holds(key):
            self.hub.buckets.heard(Contact(key, endpoint), now, now)
        for entry in entries:
            self._take_entry(as_list(entry, 8), fork, now)
        if self.hub.settled:
            for told in neighbours:
                self.hub.gossip.repair.introduce(as_contact(told), now)
        self._ask_missing(endpoint, inhabited, fork, now)
        if fork < self.hub.group.depth:
            self._ask_differing(endpoint, inhabited, fork, now)

    def _take_entry(self, entry: list[Any], fork: int, now: float) -> None:
        index, summary, age, hearsay = unpack(
            entry,
            lambda v: as_int(v, 0, fork),
            lambda v: v,
            as_age,
            lambda v: as_list(v, 2 * HUB_BUCKET_CONTACTS_MAX),
        )
        if index >= self.hub.group.depth:
            return
        prefix = self.hub.buckets.prefix(index)
        for told in hearsay:
            contact = as_contact(told)
            heard = now - as_age(told[3] if len(told) > 3 else 0)
            if prefix.holds(contact.id):
                self.hub.buckets.heard(contact, heard, now)
        schema = self.hub.schema
        if summary is not None and index < VERSION_BITS:
            counted = Summary.count_from_bytes(as_bytes(summary, 2000))
            self.hub.buckets.summarise(index, counted, now - age, schema)
        elif summary is not None:
            parsed = Summary.from_bytes(as_bytes(summary, 2000), schema)
            self.hub.buckets.summarise(index, parsed, now - age, schema)
        elif index == fork:
            self.hub.buckets.summarise(index, None, now, schema)

    # --- answering --------------------------------------------------------------------------------

    def _on_summary(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        number, cookie, key, indexes, held = unpack(
            args,
            lambda v: v,
            lambda v: as_bytes(v, 8),
            as_key,
            lambda v: as_list(v, 8),
            lambda v: dict(map(_as_stamp, as_list(v, _STAMPS_MAX))),
        )
        if not self.hub.serves(number) or not self.hub.settled or key == self.hub.key:
            return NO_REPLY
        if self.hub.group.prefix.holds(key) and key not in self.hub.group.members:
            # It has split deeper than we: nobody of its own group might ever tell us of it.
            self.hub.gossip.liveness.heard(key, source, now)
            self.hub.gossip.repair.fetch(source, now)
        fork = common_prefix_bits(self.hub.key, key)
        if fork < VERSION_BITS:  # no record will tell us of it
            self.hub.met(Contact(key, source), now, now, proven=False)
        wanted = {as_int(index, _DIFFERING, 160) for index in indexes}
        entries = []
        if not self.hub.group.prefix.holds(key) and (not wanted or wanted & {-1, fork}):
            entries.append(self._own_side(fork, now))
        for index, bucket in self.hub.buckets.inhabited():
            if index < fork and (
                wanted & {-1, index}
                or (_DIFFERING in wanted and bucket.stamp not in (0, held.get(index, 0)))
            ):
                entries.append(self._bucket_entry(index, now))
        if not self.core.proven(source, cookie):
            entries = entries[:1]
        head = [self.hub.key, self.hub.group.depth, self.inhabited(min(fork, self.hub.group.depth))]
        count = max(len(entries), 1)
        # Whom we know on the asker's side: two that started there at once may not have met.
        near = self.hub.buckets.choose(fork, self.core.rng, _NEIGHBOURS)
        side = [c.to_wire() for c in near if c.id != key]
        return Parts(
            [i, count, *head, entries[i : i + 1], side if i == 0 else []] for i in range(count)
        )

    def _own_side(self, fork: int, now: float) -> list[Any]:
        """Our subtree below the fork with the asker, as an entry of the asker's bucket."""
        summary: Summary | None = self._group_summary(now)
        group = self.hub.group
        members = [m for m in group.members.values() if m.serves and m.state is State.ALIVE]
        rng = self.core.rng
        told = [
            [m.key, *m.record.endpoint, min(now - m.born, VOUCHED_S)]
            for m in (members if len(members) <= 5 else rng.sample(members, 5))
        ]
        for index, bucket in self.hub.buckets.inhabited():
            if index > fork:
                if summary is not None and fork >= VERSION_BITS:
                    # Without one of its parts the whole would be a lie.
                    summary = bucket.summary and summary.merge(bucket.summary)
                told += [
                    [*c.to_wire(), now - bucket.contacts[c.id].heard]
                    for c in self.hub.buckets.choose(index, rng, 1)
                ]
        if fork < VERSION_BITS:
            beyond = [b.count for i, b in self.hub.buckets.inhabited() if i > fork]
            summary = Summary.of_count(len(group) + sum(beyond))
        packed = summary and summary.to_bytes(self.hub.schema)
        return [fork, packed, 0.0, told[:HUB_BUCKET_CONTACTS_MAX]]

    def _bucket_entry(self, index: int, now: float) -> list[Any]:
        bucket = self.hub.buckets.get(index)
        assert bucket is not None
        told = [[*k.contact.to_wire(), now - k.heard] for k in bucket.contacts.values()]
        if bucket.summary is None:
            return [index, None, 0.0, told]
        return [index, bucket.summary.to_bytes(self.hub.schema), now - bucket.summary_born, told]

    def _group_summary(self, now: float) -> Summary:
        group = self.hub.group
        held = self._own_summary
        if held is not None and held[0] == group.version and now - held[1] < _OWN_SUMMARY_S:
            return held[2]
        summary = Summary.of(self.hub.schema, [m.record for m in group.members.values()])
        self._own_summary = (group.version, now, summary)
        return summary


def as_inhabited(value: object) -> bytes:
    """A digest of four bytes and a bit set of at most 160."""
    inhabited = as_bytes(value, 24)
    if len(inhabited) < 4:
        raise bad("what is inhabited begins with a digest of 4 bytes")
    return inhabited


def _as_stamp(value: object) -> tuple[int, int]:
    pair = as_list(value, 2)
    if len(pair) != 2:
        raise bad("expected [bucket index, stamp]")
    return as_int(pair[0], 0, 160), as_int(pair[1], 0, 2**32 - 1)
