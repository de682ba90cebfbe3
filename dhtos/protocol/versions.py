"""Questions about machines of another schema, as a member meets them.

Whoever asks says in whose words: the first five bytes of a request's padding are the version and
the tag of its schema (a tag of 0 says nothing). The asked prefix tells which version is meant, or,
where it is wider than a version's subtree, those words do. A member answers

    for its own version, in its own words   as always
    for another version                     nothing but contacts nearer to it: what lives there is
                                            theirs to tell. Where it knows of nobody there it says
                                            that the subtree is empty, and which others are not
    for its own version, in other words     its own tag: a *conflict*. Two schemas share a version
                                            number, so their keys and indexes mean different
                                            things, and no answer could be right

A conflict is a mistake of who runs the fleet: it is counted, kept for `warnings`, and ends a join.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from dhtos.core.buckets import Bucket
from dhtos.core.contact import Contact
from dhtos.core.curve import VERSION_BITS, version_of, version_prefix
from dhtos.core.ids import Endpoint, Prefix, common_prefix_bits
from dhtos.core.limits import CONFLICTS_MAX, NODE_TTL_S, REPLY_BYTES_MAX
from dhtos.core.schema import SCHEMA_VERSION_MAX, Schema
from dhtos.errors import SchemaConflict
from dhtos.protocol import bundle
from dhtos.protocol.answer import Item
from dhtos.protocol.hubwire import as_bytes, as_int, as_list, bad
from dhtos.protocol.rpc import Parts

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

MARK_BYTES = 5
_SPEAKERS = 3  # members of our own that are named beside ourselves

_encode = msgspec.msgpack.Encoder().encode


class Versions:
    """What one hub node does about other versions, and whom it found in conflict with itself."""

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self._conflicts: dict[Endpoint, tuple[int, float]] = {}  # a peer's tag, and when it spoke
        self._told: list[str] = []

    # --- questions ------------------------------------------------------------------------------

    def answer(self, padding: Any, prefix: Prefix, source: Endpoint, now: float) -> Parts | None:
        """The answer to a question that is not in our words; None where it is."""
        own = self.hub.schema
        mark = as_bytes(padding, REPLY_BYTES_MAX)[:MARK_BYTES]
        if not any(mark[1:]):  # it does not say
            mark = own.mark
        version, tag = as_int(mark[0], 0, SCHEMA_VERSION_MAX), int.from_bytes(mark[1:])
        target = prefix if prefix.length >= VERSION_BITS else version_prefix(version)
        if version_of(target.first) != own.version:
            return _cut(self._of_others(prefix, target, source))
        if mark == own.mark:
            return None
        if version != own.version:
            raise bad("a question about one version is asked in the words of another")
        self.note(source, tag, now)
        return _cut([None, [], [], own.tag])

    def _of_others(self, prefix: Prefix, target: Prefix, source: Endpoint) -> list[Any]:
        hub = self.hub
        bucket = hub.buckets.get(hub.buckets.index_of(target.first))
        covers: list[Prefix] = []
        items: list[Item] = []
        if bucket is not None:
            items = [_item(target, bucket, _nearest(bucket, target))]
        elif prefix.length < VERSION_BITS:
            covers = [target]
            items = [self._own_item(), *self.items()]
        told = [prefix.to_wire() for prefix in covers]
        head = [hub.key, hub.group.depth, hub.core.cookie(source), told, 0, None, 0]
        return [head, [item.to_wire() for item in items], []]

    def items(self) -> list[Item]:
        """The inhabited subtrees of other versions, as items of an answer."""
        buckets = self.hub.buckets
        return [
            _item(buckets.prefix(index), bucket, _everybody(bucket))
            for index, bucket in buckets.inhabited()
            if index < VERSION_BITS
        ]

    def _own_item(self) -> Item:
        hub = self.hub
        assert hub.own is not None
        alike = sum(b.count for i, b in hub.buckets.inhabited() if i >= VERSION_BITS)
        count = len(hub.group) + alike
        members = hub.group.nodes()
        some = hub.core.rng.sample(members, min(_SPEAKERS, len(members)))
        told = [Contact(hub.key, hub.own.endpoint)]
        told += [Contact(member.key, member.record.endpoint) for member in some]
        return Item(version_prefix(hub.schema.version), count, float(count), None, told)

    # --- conflicts ------------------------------------------------------------------------------

    def hear(self, peer: Endpoint, body: Any, now: float) -> SchemaConflict | None:
        """What a peer answers that does not answer: the conflict, if it says that it is one."""
        tag = read_conflict(body)
        return None if tag is None else self.note(peer, tag, now)

    def note(self, peer: Endpoint, tag: int, now: float) -> SchemaConflict:
        """A peer runs another schema under our version number."""
        self.hub.core.counters["schema_conflicts"] += 1
        self._conflicts.pop(peer, None)
        while len(self._conflicts) >= CONFLICTS_MAX:
            del self._conflicts[next(iter(self._conflicts))]
        self._conflicts[peer] = (tag, now)
        return SchemaConflict(conflict_text(self.hub.schema, peer, tag))

    def expire(self, now: float) -> None:
        """Forget who has not been in conflict for the life of a record."""
        self._conflicts = {
            peer: (tag, at) for peer, (tag, at) in self._conflicts.items() if now - at < NODE_TTL_S
        }

    @property
    def conflict(self) -> SchemaConflict | None:
        """The latest conflict that is remembered."""
        if not self._conflicts:
            return None
        peer, (tag, _) = next(reversed(self._conflicts.items()))
        return SchemaConflict(conflict_text(self.hub.schema, peer, tag))

    @property
    def warnings(self) -> list[str]:
        """What is wrong, a line for each peer."""
        own = self.hub.schema
        return [conflict_text(own, peer, tag) for peer, (tag, _) in self._conflicts.items()]

    def news(self) -> list[str]:
        """The warnings that were not there at the last call."""
        told, self._told = self._told, self.warnings
        return [line for line in self._told if line not in told]


def _cut(body: list[Any]) -> Parts:
    return Parts(bundle.cut(*bundle.pack(_encode(body))))


def conflict_text(own: Schema, peer: Endpoint, tag: int) -> str:
    """What is wrong, and what to do.

    >>> from dhtos.core.schema import default_schema
    >>> conflict_text(default_schema(), ("10.0.0.1", 7400), 1).partition(", ours")[0]
    'schema conflict: peer 10.0.0.1:7400 runs another schema as version 0 (tag 00000001)'
    """
    host, port = peer
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return (
        f"schema conflict: peer {where} runs another schema as version {own.version} "
        f"(tag {tag:08x}), ours is {own.name!r} version {own.version} (tag {own.tag:08x}): "
        "give the changed schema the next version"
    )


def read_conflict(body: Any) -> int | None:
    """The tag of a member that answered with a conflict; None for any other answer."""
    fields = as_list(body, 8)
    if len(fields) < 4 or fields[0] is not None:
        return None
    return as_int(fields[3], 0, 2**32 - 1)


def _everybody(bucket: Bucket) -> list[Contact]:
    return [known.contact for known in bucket.contacts.values()]


def _nearest(bucket: Bucket, target: Prefix) -> list[Contact]:
    """Contacts of the subtree, or, where none is known, whoever is nearest to it."""
    known = sorted(_everybody(bucket), key=lambda c: -common_prefix_bits(c.id, target.first))
    return [contact for contact in known if target.holds(contact.id)] or known


def _item(prefix: Prefix, bucket: Bucket, contacts: list[Contact]) -> Item:
    return Item(prefix, bucket.count, float(bucket.count), None, contacts)
