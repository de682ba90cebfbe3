"""The routing table of one overlay: which contacts a node keeps, and which are closest to an id.

Theory of operation (Maymounkov and Mazieres 2002, sections 2.2 to 2.4 and 4.1). Bucket i holds
the contacts that share exactly i leading bits with our own id; the last bucket holds all that
share more, and it alone splits, when it is full. A full bucket keeps who it knows: a newcomer
waits in the bucket's replacement cache, and the least recently seen contact is named so that the
caller may ping it. An answer keeps it (`seen`), a failure evicts it and promotes a replacement
(`failed`).

A contact is *verified* once it answered us from its endpoint. What only others told us, or what
a request (whose source can be forged) claimed, is unverified: it fills room but never displaces,
never moves a known id to another address, and yields its place to a verified newcomer.

Addresses of one subnet are cheap to one attacker, so a subnet has a *share*: so many places of a
bucket, and of the table. The share bites only where there is competition: a contact beyond it may
have a place that is free (a whole fleet may live in one subnet), but it is the first to give way,
without a ping, to a verified newcomer of a subnet that is within its own share, and it displaces
nobody of another subnet. Loopback and private addresses have no subnet and always are within.

`closest` is exact. All of a bucket is closer to, or farther from, a target than all of another
bucket, so buckets are visited in that order until k contacts are found and only those are sorted.

The table must not know clocks, the network, or what a contact is asked for.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from dhtos.core import limits
from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, ID_BYTES, Endpoint
from dhtos.core.shelf import VERIFIED, Shelf, Sighting, subnet_of
from dhtos.kernels import k_closest

__all__ = ["Added", "Pending", "Reason", "Rejected", "RoutingTable", "subnet_of"]


class Reason(Enum):
    """Why a contact was not taken into the table, nor kept as a replacement."""

    OWN_ID = "it has our own id"
    UNVERIFIED_MOVE = "a known id at another address has not answered from there yet"
    SUBNET_BUCKET = "its new subnet holds its share of the bucket, which is full"
    SUBNET_TABLE = "its new subnet holds its share of the table, and the bucket is full"


@dataclass(frozen=True, slots=True)
class Added:
    """The contact is in the table; `is_new` says it was not before.

    `evicted` is the contact that lost its place to it, if one did: one beyond its subnet's share
    or an unverified one.
    """

    is_new: bool = False
    evicted: Contact | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """The bucket is full and the contact waits: ping `candidate`, the least recently seen."""

    candidate: Contact


@dataclass(frozen=True, slots=True)
class Rejected:
    """The contact was refused."""

    reason: Reason


_KNOWN = Added()
_NEW = Added(is_new=True)


class _Bucket:
    """The contacts of one range of ids, and the replacements waiting, longest waiting first."""

    __slots__ = ("live", "waiting")

    def __init__(self) -> None:
        self.live = Shelf()
        self.waiting: Shelf | None = None

    def forget_waiting(self, contact_id: bytes) -> None:
        if self.waiting is not None:
            at = self.waiting.find(contact_id)
            if at >= 0:
                self.waiting.pop(at)
            if not self.waiting.contacts:
                self.waiting = None


class RoutingTable:
    """Contacts around `own_id` in buckets of `k`; iterating yields every contact.

    >>> table = RoutingTable(bytes(20), k=20)
    >>> near, far = bytes(19) + b"\\x07", b"\\xff" * 20
    >>> table.add(Contact(far, ("10.0.0.1", 7400)), 0.0, verified=True)
    Added(is_new=True, evicted=None)
    >>> table.add(Contact(near, ("10.0.0.2", 7400)), 0.0, verified=True)
    Added(is_new=True, evicted=None)
    >>> [contact.endpoint for contact in table.closest(bytes(20), 1)]
    [('10.0.0.2', 7400)]
    """

    __slots__ = ("_buckets", "_count", "_own", "_own_id", "_subnets", "k")

    def __init__(self, own_id: bytes, k: int = limits.K) -> None:
        if len(own_id) != ID_BYTES:
            raise ValueError(f"an id has {ID_BYTES} bytes, got {len(own_id)}")
        if k < 1:
            raise ValueError(f"a bucket holds at least 1 contact, got k={k}")
        self.k = k
        self._own_id = own_id
        self._own = int.from_bytes(own_id)
        self._buckets = [_Bucket()]
        self._count = 0
        self._subnets: Counter[bytes] = Counter()

    # --- reading --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    def __contains__(self, contact_id: object) -> bool:
        return isinstance(contact_id, bytes) and self.get(contact_id) is not None

    def __iter__(self) -> Iterator[Contact]:
        for bucket in self._buckets:
            yield from bucket.live.contacts

    @property
    def own_id(self) -> bytes:
        """The id the table is built around."""
        return self._own_id

    @property
    def bucket_count(self) -> int:
        """How many buckets there are, empty ones included."""
        return len(self._buckets)

    def get(self, contact_id: bytes) -> Contact | None:
        """The contact with this id, or None; replacements are not looked at. O(k)."""
        shelf = self._bucket(contact_id).live
        at = shelf.find(contact_id)
        return shelf.contacts[at] if at >= 0 else None

    def is_verified(self, contact_id: bytes) -> bool:
        """Whether the table holds this id and it has answered from its address."""
        shelf = self._bucket(contact_id).live
        at = shelf.find(contact_id)
        return at >= 0 and shelf.is_verified(at)

    def closest(
        self, target: bytes, k: int | None = None, *, exclude: Endpoint | None = None
    ) -> list[Contact]:
        """The exact `k` contacts closest to `target`, closest first; not those at `exclude`.

        The contact whose id is `target` comes first. O(k log k) for a table as Kademlia fills it.
        """
        if k is None:
            k = self.k
        if exclude is None:
            return self._nearest(target, k)
        wanted = k + 1
        while True:
            found = self._nearest(target, wanted)
            kept = [contact for contact in found if contact.endpoint != exclude]
            if len(kept) >= k or len(found) < wanted:
                return kept[:k]
            wanted += k - len(kept)

    def spares(self, target: bytes, k: int) -> list[Contact]:
        """The `k` closest verified contacts to `target` that wait for a place."""
        waiting = [bucket.waiting for bucket in self._buckets if bucket.waiting is not None]
        contacts = [
            contact
            for shelf in waiting
            for contact, mark in zip(shelf.contacts, shelf.marks, strict=True)
            if mark >= VERIFIED
        ]
        ids = b"".join(contact.id for contact in contacts)
        return [contacts[i] for i in k_closest(ids, target, k)]

    def has_room(self, contact: Contact) -> bool:
        """Whether the contact would have a place at once, if it answered; O(k)."""
        bucket = self._bucket(contact.id)
        contacts = bucket.live.contacts
        if len(contacts) < self.k:
            return True
        if bucket is self._buckets[-1]:  # splits make room, unless all go the same way
            share = self._share(contact.id)
            if any(self._share(other.id) != share for other in contacts):
                return True
        return self._yielding(bucket, subnet_of(contact.endpoint[0])) >= 0

    def shares(self) -> set[int]:
        """How many leading bits the contacts have in common with our own id."""
        *apart, last = self._buckets
        known = {index for index, bucket in enumerate(apart) if bucket.live.contacts}
        return known | {self._share(contact.id) for contact in last.live.contacts}

    # --- changing -------------------------------------------------------------------------------

    def add(self, contact: Contact, now: float, *, verified: bool) -> Added | Pending | Rejected:
        """Offer a contact; `verified` says that it answered us from this very endpoint.

        Raises ValueError for an id of another size than 20 bytes.
        """
        if len(contact.id) != ID_BYTES:
            raise ValueError(f"an id has {ID_BYTES} bytes, got {len(contact.id)}")
        if contact.id == self._own_id:
            return Rejected(Reason.OWN_ID)
        bucket = self._bucket(contact.id)
        at = bucket.live.find(contact.id)
        if at >= 0:
            return self._meet_again(bucket, at, contact, now, verified=verified)
        while len(bucket.live.contacts) >= self.k and bucket is self._buckets[-1]:
            self._split()
            bucket = self._bucket(contact.id)
        sighting = Sighting(contact, now, verified, subnet_of(contact.endpoint[0]))
        if len(bucket.live.contacts) >= self.k:
            return self._contend(bucket, sighting)
        self._insert(bucket, sighting)
        return _NEW

    def seen(self, contact_id: bytes, endpoint: Endpoint, now: float) -> bool:
        """An answer came from a contact at `endpoint`: it is fresh and verified.

        False, and nothing changes, unless the table holds this id at this endpoint.
        """
        shelf = self._bucket(contact_id).live
        at = shelf.find(contact_id)
        if at < 0 or shelf.contacts[at].endpoint != endpoint:
            return False
        shelf.refresh(at, now)
        return True

    def failed(self, contact_id: bytes, now: float) -> Contact | None:
        """A call to a contact failed; returns the contact if that removed it.

        It goes at once if it was never verified or if a replacement waits, otherwise after
        `limits.CONTACT_FAILURES_MAX` failures in a row. A waiting replacement goes at once.
        """
        bucket = self._bucket(contact_id)
        bucket.forget_waiting(contact_id)
        shelf = bucket.live
        at = shelf.find(contact_id)
        if at < 0 or now < shelf.seen[at]:  # unknown, or it has answered since
            return None
        shelf.marks[at] += 1
        failures = shelf.marks[at] - VERIFIED
        if 0 <= failures < limits.CONTACT_FAILURES_MAX and bucket.waiting is None:
            return None
        return self._drop(bucket, at)

    def remove(self, contact_id: bytes) -> Contact | None:
        """Forget a contact (also a waiting one); returns it if it was in the table."""
        bucket = self._bucket(contact_id)
        bucket.forget_waiting(contact_id)
        at = bucket.live.find(contact_id)
        return self._drop(bucket, at) if at >= 0 else None

    # --- inside ---------------------------------------------------------------------------------

    def _share(self, contact_id: bytes) -> int:
        """How many leading bits an id has in common with our own."""
        return ID_BITS - (int.from_bytes(contact_id) ^ self._own).bit_length()

    def _bucket(self, contact_id: bytes) -> _Bucket:
        shared = self._share(contact_id)
        buckets = self._buckets
        return buckets[shared] if shared < len(buckets) else buckets[-1]

    def _nearest(self, target: bytes, k: int) -> list[Contact]:
        """`closest` without an exclusion: the visit of the module docstring."""
        buckets = self._buckets
        last = len(buckets) - 1
        way = int.from_bytes(target) ^ self._own
        home = ID_BITS - way.bit_length()
        shelf = buckets[min(home, last)].live
        contacts = shelf.contacts
        if len(contacts) >= k:
            return [contacts[i] for i in k_closest(shelf.ids, target, k)]
        contacts = []
        ids = bytearray()
        for index in self._visit(way, home, last):
            shelf = buckets[index].live
            contacts += shelf.contacts
            ids += shelf.ids
            if len(contacts) >= k:
                break
        return [contacts[i] for i in k_closest(ids, target, k)]

    @staticmethod
    def _visit(way: int, home: int, last: int) -> Iterator[int]:
        """Indexes of all buckets, closest to the target first; `way` is target XOR own id.

        All of bucket i differs from our id in bit i, hence from the target there if that bit of
        `way` is 0. So beyond `home`, a bucket whose bit is 1 is closer than everything after it,
        one whose bit is 0 is farther; the buckets before `home` are farthest, the first most.
        """
        if home >= last:
            yield from range(last, -1, -1)
            return
        yield home
        farther = []
        for index in range(home + 1, last):
            if way >> ID_BITS - 1 - index & 1:
                yield index
            else:
                farther.append(index)
        yield last
        yield from reversed(farther)
        yield from range(home - 1, -1, -1)

    def _meet_again(
        self, bucket: _Bucket, at: int, contact: Contact, now: float, *, verified: bool
    ) -> Added | Rejected:
        """`add` of an id the table holds: a fresh sighting, or a move to another address."""
        shelf = bucket.live
        if shelf.contacts[at].endpoint != contact.endpoint:
            if not verified:
                return Rejected(Reason.UNVERIFIED_MOVE)
            subnet = subnet_of(contact.endpoint[0])
            if subnet != shelf.subnets[at]:
                reason = self._excess(bucket, subnet, 1)
                if reason is not None and len(shelf.contacts) >= self.k:
                    return Rejected(reason)
                self._tally(shelf.subnets[at], -1)
                self._tally(subnet, 1)
                shelf.subnets[at] = subnet
            shelf.contacts[at] = contact
        if verified:
            shelf.refresh(at, now)
        return _KNOWN

    def _contend(self, bucket: _Bucket, sighting: Sighting) -> Added | Pending:
        """A newcomer meets a full bucket: if it is verified somebody may yield, else it waits."""
        if sighting.verified:
            at = self._yielding(bucket, sighting.subnet)
            if at >= 0:
                evicted = self._take_out(bucket, at)
                self._insert(bucket, sighting)
                return Added(is_new=True, evicted=evicted)
        self._wait(bucket, sighting)
        return Pending(bucket.live.contacts[bucket.live.oldest()])

    def _yielding(self, bucket: _Bucket, subnet: bytes | None) -> int:
        """Who gives its place to a verified newcomer of `subnet`, or -1.

        To a newcomer within its share: whoever is beyond his own, else an unverified contact. To
        one beyond its share: an unverified contact of the same subnet.
        """
        shelf = bucket.live
        places = range(len(shelf.contacts))
        unverified = [at for at in places if not shelf.is_verified(at)]
        if self._excess(bucket, subnet, 1) is not None:
            return shelf.oldest([at for at in unverified if shelf.subnets[at] == subnet])
        beyond = {at for at in places if self._excess(bucket, shelf.subnets[at]) is not None}
        return shelf.oldest(beyond.intersection(unverified) or beyond or unverified)

    @staticmethod
    def _wait(bucket: _Bucket, sighting: Sighting) -> None:
        """Put a contact last in the replacement cache.

        Over the limit, unverified ones leave first, then those of a subnet that has more here
        than its share of a bucket, and of equals the longest waiting.
        """
        if bucket.waiting is None:
            bucket.waiting = Shelf()
        shelf = bucket.waiting
        at = shelf.find(sighting.contact.id)
        if at >= 0:
            if shelf.is_verified(at) and not sighting.verified:
                return  # hearsay neither refreshes nor moves who answered
            shelf.pop(at)
        shelf.append(sighting)
        if len(shelf.contacts) > limits.BUCKET_REPLACEMENTS_MAX:
            crowds = Counter(shelf.subnets)
            crowds[None] = 0
            places = range(len(shelf.contacts))
            cap = limits.CONTACTS_PER_SUBNET_BUCKET_MAX
            shelf.pop(
                min(places, key=lambda at: (shelf.marks[at], crowds[shelf.subnets[at]] <= cap))
            )

    def _drop(self, bucket: _Bucket, at: int) -> Contact:
        """Take a contact out and promote a replacement.

        A verified one if there is, of those one within its subnet's share, of those the latest.
        """
        contact = self._take_out(bucket, at)
        shelf = bucket.waiting
        if shelf is not None:
            place = max(
                range(len(shelf.contacts)),
                key=lambda at: (
                    shelf.is_verified(at),
                    self._excess(bucket, shelf.subnets[at], 1) is None,
                    at,
                ),
            )
            self._insert(bucket, shelf.sighting(place))
        return contact

    def _insert(self, bucket: _Bucket, sighting: Sighting) -> None:
        assert bucket.live.find(sighting.contact.id) < 0
        assert len(bucket.live.contacts) < self.k
        bucket.forget_waiting(sighting.contact.id)
        bucket.live.append(sighting)
        self._count += 1
        self._tally(sighting.subnet, 1)

    def _take_out(self, bucket: _Bucket, at: int) -> Contact:
        self._tally(bucket.live.subnets[at], -1)
        self._count -= 1
        return bucket.live.pop(at)

    def _tally(self, subnet: bytes | None, change: int) -> None:
        """Count places held by a subnet."""
        if subnet is None:
            return
        self._subnets[subnet] += change
        assert self._subnets[subnet] >= 0
        if not self._subnets[subnet]:
            del self._subnets[subnet]

    def _excess(self, bucket: _Bucket, subnet: bytes | None, more: int = 0) -> Reason | None:
        """Which share `subnet` exceeds if it has `more` contacts in `bucket` than now."""
        if subnet is None:
            return None
        here = bucket.live.subnets.count(subnet) + more
        if here > limits.CONTACTS_PER_SUBNET_BUCKET_MAX:
            return Reason.SUBNET_BUCKET
        if self._subnets[subnet] + more > limits.CONTACTS_PER_SUBNET_MAX:
            return Reason.SUBNET_TABLE
        return None

    def _split(self) -> None:
        """Divide the last bucket: contacts sharing one bit more with us go to a new last one."""
        old = self._buckets[-1]
        assert old.waiting is None  # only a bucket that cannot split lets contacts wait
        depth = len(self._buckets)
        assert depth < ID_BITS  # a range of one foreign id is never too full
        self._buckets[-1] = apart = _Bucket()
        nearer = _Bucket()
        self._buckets.append(nearer)
        for at, contact in enumerate(old.live.contacts):
            way = int.from_bytes(contact.id) ^ self._own
            half = nearer if way.bit_length() <= ID_BITS - depth else apart
            half.live.append(old.live.sighting(at))
            half.live.marks[-1] = old.live.marks[at]

    def check(self) -> None:
        """Assert every invariant. O(n)."""
        last = len(self._buckets) - 1
        assert last < ID_BITS
        subnets: Counter[bytes] = Counter()
        ids: list[bytes] = [self._own_id]
        for index, bucket in enumerate(self._buckets):
            assert len(bucket.live.contacts) <= self.k
            assert bucket.waiting is None or index < last
            for shelf in (bucket.live, bucket.waiting):
                if shelf is None:
                    continue
                shelf.check()
                for contact in shelf.contacts:
                    way = int.from_bytes(contact.id) ^ self._own
                    assert min(ID_BITS - way.bit_length(), last) == index
                    ids.append(contact.id)
            here = Counter(subnet for subnet in bucket.live.subnets if subnet is not None)
            subnets += here
            if bucket.waiting is not None:
                assert len(bucket.live.contacts) == self.k  # nobody waits beside a free place
                self._check_waiting(bucket.waiting, max(here.values(), default=0))
        assert len(ids) == len(set(ids))
        assert self._count == sum(1 for _ in self)
        assert subnets == self._subnets

    @staticmethod
    def _check_waiting(shelf: Shelf, crowd: int) -> None:
        """Assert the bound, and that no subnet beyond its share keeps out who has no subnet."""
        assert 0 < len(shelf.contacts) <= limits.BUCKET_REPLACEMENTS_MAX
        if crowd > limits.CONTACTS_PER_SUBNET_BUCKET_MAX:
            for at, subnet in enumerate(shelf.subnets):
                assert subnet is not None or not shelf.is_verified(at)
