"""A prefix group as one of its members holds it: everybody's record, and who has gone.

The group of a node is the largest prefix around its key with at most G members (DESIGN section
4). Each member decides that alone from what it knows: above G it splits, well below it merges.
Two members may disagree for a while; every answer states the prefix it covers, so disagreement
costs duplicates and never holes.

Versions decide between copies: a higher `seq` wins, at equal `seq` the larger content hash wins,
and a tombstone beats the version it buries. Ages are relative to the receiver: a copy is as old
as its sender said plus the time it was held here, so clocks are never compared.

Foreign records (of machines without a node, see `record`) are held, told and matched like all
others, but nobody answers for them, so they cannot hold records themselves. Therefore a group
crowded by them splits only while each half keeps GROUP_SERVING_MIN members that serve; above G
serving members it splits in any case, as without gateways. What falls into a half where nobody
serves belongs to no group until its gateway takes a seat there (`protocol.seats`).

This module holds state and answers questions. It sends nothing and knows no time of its own.
"""

from collections import Counter
from collections.abc import Iterator
from enum import IntEnum
from hashlib import blake2b

import msgspec
from sortedcontainers import SortedDict

from dhtos.core.ids import ID_BITS, Endpoint, Prefix
from dhtos.core.limits import (
    FOREIGN_PER_GATEWAY_MAX,
    FOREIGN_PER_GROUP_MAX,
    GROUP_SERVING_MIN,
    GROUP_SIZE_MAX,
    NODE_TTL_S,
    RECORD_TTL_S,
)
from dhtos.core.record import Record

_MASK = (1 << 64) - 1
BIN_COUNT_MAX = 1024


class State(IntEnum):
    """What is believed of a member; at equal `seq` the higher value wins."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


class Member:
    """One record of the group; `born` is when its version was made, on our clock.

    `mark` is the hash of the version: views are compared by it many times a version.
    """

    __slots__ = ("born", "key", "mark", "record", "state")

    def __init__(self, key: bytes, record: Record, born: float) -> None:
        self.key = key
        self.record = record
        self.born = born
        self.state = State.ALIVE
        self.mark = version_hash(key, record.seq)

    @property
    def serves(self) -> bool:
        """Whether anybody may send to it as a member: false for a machine without a node."""
        return self.record.serves


class Tombstone:
    """A version that is gone for good; kept until copies of it would have expired.

    `proof` shows others of a cluster that it has left.
    """

    __slots__ = ("proof", "seq", "since", "state")

    def __init__(self, seq: int, state: State, since: float, proof: bytes = b"") -> None:
        self.seq = seq
        self.state = state
        self.since = since
        self.proof = proof


def ttl_s(record: Record) -> float:
    """How old a version may get: who serves is probed as well, a row lives by its renewals."""
    return NODE_TTL_S if record.serves else RECORD_TTL_S


def version_hash(key: bytes, seq: int) -> int:
    """64 bits that stand for one version of one key (the key's tail is a hash already)."""
    mixed = int.from_bytes(key[12:]) ^ (seq * 0x9E3779B97F4A7C15 & _MASK)
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    return (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK


def bin_count(member_count: int) -> int:
    """How many bins a version vector over so many members has: a power of two."""
    return min(1 << max(member_count - 1, 0).bit_length(), BIN_COUNT_MAX)


class Group:
    """The members of one prefix, sorted by key; the own record is always among them.

    It never gets wider than `depth_min` bits.
    """

    def __init__(self, own_key: bytes, size: int, depth_min: int = 0) -> None:
        self.own_key = own_key
        self.size = size
        self.depth_min = depth_min
        self.prefix = Prefix.of(own_key, depth_min)
        self.members: SortedDict[bytes, Member] = SortedDict()
        self.tombstones: dict[bytes, Tombstone] = {}
        self.hash = 0
        self.version = 0  # grows with every change of membership or of a static part
        self.serving = 0  # members that are nodes
        self._rows: Counter[Endpoint] = Counter()  # foreign records by their gateway

    @property
    def depth(self) -> int:
        """Length of the group's prefix."""
        return self.prefix.length

    def __len__(self) -> int:
        return len(self.members)

    def under(self, prefix: Prefix) -> Iterator[Member]:
        """Members below `prefix`, in key order; O(log n + matches)."""
        if prefix.covers(self.prefix):
            return iter(self.members.values())
        members = self.members
        return (members[key] for key in members.irange(prefix.first, prefix.last))

    def put(self, key: bytes, record: Record, born: float, now: float) -> bool:
        """Take a copy of a record; True when it is news.  O(log n)."""
        if not self.prefix.holds(key) or now - born > ttl_s(record):
            return False
        tombstone = self.tombstones.get(key)
        if tombstone is not None:
            if record.seq <= tombstone.seq:
                return False
            del self.tombstones[key]
        member = self.members.get(key)
        if member is None:
            if not self._has_room(record):
                return False
            member = self.members[key] = Member(key, record, born)
            self._count(record, 1)
            self.hash ^= member.mark
            self.version += 1
            return True
        held = member.record
        if record.seq < held.seq or (record.seq == held.seq and not _wins_tie(record, held)):
            return False
        mark = version_hash(key, record.seq)
        self.hash ^= member.mark ^ mark
        member.mark = mark
        self.version += record.rev != held.rev
        self._count(held, -1)
        self._count(record, 1)
        member.record = record
        member.born = born
        member.state = State.ALIVE
        return True

    def _has_room(self, record: Record) -> bool:
        if record.serves:
            return self.serving <= 2 * GROUP_SIZE_MAX
        if len(self.members) - self.serving >= FOREIGN_PER_GROUP_MAX:
            return False
        return self._rows[record.endpoint] < FOREIGN_PER_GATEWAY_MAX

    def _count(self, record: Record, change: int) -> None:
        if record.serves:
            self.serving += change
            return
        endpoint = record.endpoint
        self._rows[endpoint] += change
        if not self._rows[endpoint]:
            del self._rows[endpoint]

    def bury(self, key: bytes, seq: int, state: State, now: float, *, proof: bytes = b"") -> bool:
        """A member died or left at `seq`; True when that is news."""
        assert state in (State.DEAD, State.LEFT)
        assert key != self.own_key
        tombstone = self.tombstones.get(key)
        if tombstone is not None and (tombstone.seq, tombstone.state) >= (seq, state):
            return False
        member = self.members.get(key)
        if member is not None:
            if member.record.seq > seq:
                return False
            self._drop(key)
        elif tombstone is None and not self.prefix.holds(key):
            return False
        self.tombstones[key] = Tombstone(seq, state, now, proof)
        while len(self.tombstones) > 4 * GROUP_SIZE_MAX:
            del self.tombstones[next(iter(self.tombstones))]
        return True

    def suspect(self, key: bytes, seq: int) -> bool:
        """Somebody could not reach this version of a member; True when that is news.

        Never of ourselves, whatever others make us ask our own address.
        """
        if key == self.own_key:
            return False
        member = self.members.get(key)
        if member is None or member.state is State.SUSPECT or member.record.seq > seq:
            return False
        if not member.serves:  # it lives by its gateway's word, and nobody could refute
            return False
        member.state = State.SUSPECT
        return True

    def is_crowded(self, size: int) -> bool:
        """Whether the group should split if `size` records were its limit."""
        if self.serving > size:
            return True
        if len(self.members) <= size or self.serving < 2 * GROUP_SERVING_MIN:
            return False
        other = Prefix.of(self.own_key, self.depth + 1).sibling()
        beyond = sum(member.serves for member in self.under(other))
        return GROUP_SERVING_MIN <= beyond <= self.serving - GROUP_SERVING_MIN

    def next_fork(self, depth: int) -> int:
        """The depth, at most `depth`, of the next split that some member who serves is beyond.

        In a group without foreign records that is just one bit more.
        """
        deeper = self.depth + 1
        while deeper < depth and self.serving < len(self.members):
            other = Prefix.of(self.own_key, deeper).sibling()
            if any(member.serves for member in self.under(other)):
                break
            deeper += 1
        return deeper

    def nodes(self) -> list[Member]:
        """The other members that may be sent to, in key order."""
        return [m for key, m in self.members.items() if m.serves and key != self.own_key]

    def narrow(self, depth: int = 0) -> list[Member]:
        """Split while the group is crowded, and at least to `depth` bits.

        Returns the members that fell outside.
        """
        outside: list[Member] = []
        while self.depth < depth or (self.depth < ID_BITS and self.is_crowded(self.size)):
            other = Prefix.of(self.own_key, self.depth + 1).sibling()
            for key in list(self.members.irange(other.first, other.last)):
                outside.append(self.members[key])
                self._drop(key)
            self.prefix = other.sibling()
            self.version += 1
        self.tombstones = {
            key: tombstone for key, tombstone in self.tombstones.items() if self.prefix.holds(key)
        }
        return outside

    def widen(self) -> None:
        """Take in the sibling subtree; the caller has its records at hand."""
        assert self.depth > self.depth_min
        self.prefix = self.prefix.parent()
        self.version += 1

    def expire(self, now: float) -> list[Member]:
        """Drop records nobody renewed and tombstones that outlived every copy."""
        stale = [
            member
            for key, member in self.members.items()
            if now - member.born > ttl_s(member.record) and key != self.own_key
        ]
        for member in stale:
            self._drop(member.key)
        self.tombstones = {
            key: tombstone
            for key, tombstone in self.tombstones.items()
            if now - tombstone.since <= NODE_TTL_S
        }
        return stale

    def view_hash(self, prefix: Prefix) -> int:
        """64 bits that agree when two members hold the same versions below `prefix`."""
        if prefix.covers(self.prefix):
            return self.hash
        total = 0
        for member in self.under(prefix):
            total ^= member.mark
        return total

    def bins(self, prefix: Prefix, count: int) -> bytes:
        """The version vector: two bytes for each of `count` bins of members below `prefix`."""
        digests = [0] * count
        from_bytes, mask = int.from_bytes, count - 1  # as _bin_of, without 128 calls
        for member in self.under(prefix):
            digests[from_bytes(member.key[18:]) & mask] ^= member.mark >> 48
        return b"".join(digest.to_bytes(2) for digest in digests)

    def in_bins(self, prefix: Prefix, count: int, wanted: set[int]) -> list[Member]:
        """Members below `prefix` whose bin is wanted."""
        return [m for m in self.under(prefix) if _bin_of(m.key, count) in wanted]

    def _drop(self, key: bytes) -> None:
        member = self.members.pop(key)
        self._count(member.record, -1)
        self.hash ^= member.mark
        self.version += 1

    def check(self) -> None:
        """Assert every invariant; O(n)."""
        total = 0
        rows: Counter[Endpoint] = Counter()
        for key, member in self.members.items():
            assert member.key == key
            assert self.prefix.holds(key)
            assert key not in self.tombstones
            assert member.state in (State.ALIVE, State.SUSPECT)
            assert member.mark == version_hash(key, member.record.seq)
            total ^= member.mark
            if not member.serves:
                assert member.state is State.ALIVE
                rows[member.record.endpoint] += 1
        assert self.depth >= self.depth_min
        assert total == self.hash
        assert rows == self._rows
        assert self.serving == len(self.members) - rows.total()
        assert self.prefix.holds(self.own_key)
        assert self.own_key not in self.tombstones


def differing_bins(ours: bytes, theirs: bytes) -> set[int]:
    """Indexes at which two version vectors of equal length differ."""
    assert len(ours) == len(theirs)
    return {i // 2 for i in range(0, len(ours), 2) if ours[i : i + 2] != theirs[i : i + 2]}


def _bin_of(key: bytes, count: int) -> int:
    return int.from_bytes(key[18:]) & (count - 1)


def _wins_tie(record: Record, held: Record) -> bool:
    if record == held:
        return False
    return _content_hash(record) > _content_hash(held)


def _content_hash(record: Record) -> bytes:
    return blake2b(msgspec.msgpack.encode(record), digest_size=16).digest()
