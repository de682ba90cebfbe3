"""The routing table of one overlay: which contacts a node keeps, and which are closest to an id.

Theory of operation (Maymounkov and Mazieres 2002, sections 2.2 to 2.4 and 4.1). Bucket i holds
the contacts that share exactly i leading bits with our own id; the last bucket holds all that
share more, and it alone splits, when it is full. A full bucket keeps who it knows: a newcomer
waits in the bucket's replacement cache, and the least recently seen contact is named so that the
caller may ping it. An answer keeps it (`seen`), a failure evicts it and promotes a replacement
(`failed`).

A contact is *verified* once it answered us from its endpoint. What only others told us, or what
a request (whose source can be forged) claimed, is unverified: it fills room but never displaces,
never moves a known id to another address, and yields its place to a verified newcomer. Addresses
of one subnet hold a bounded number of places, since they are cheap to one attacker; loopback and
private addresses are exempt.

`closest` is exact. All of a bucket is closer to, or farther from, a target than all of another
bucket, so buckets are visited in that order until k contacts are found and only those are sorted.

The table must not know clocks, the network, or what a contact is asked for.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from dhtos.core import limits
from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, ID_BYTES, Endpoint
from dhtos.kernels import k_closest

if TYPE_CHECKING:
    from random import Random


class Reason(Enum):
    """Why a contact was not taken into the table, nor kept as a replacement."""

    OWN_ID = "it has our own id"
    UNVERIFIED_MOVE = "a known id at another address has not answered from there yet"
    SUBNET_BUCKET = "its subnet holds its share of the bucket"
    SUBNET_TABLE = "its subnet holds its share of the table"


@dataclass(frozen=True, slots=True)
class Added:
    """The contact is in the table; `is_new` says it was not before.

    `evicted` is the unverified contact that lost its place to it, if one did.
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
_NEVER = float("-inf")


class _Entry:
    """What the table remembers about one contact beside its address."""

    __slots__ = ("failures", "seen", "subnet", "verified")

    def __init__(self, subnet: bytes | None, seen: float, *, verified: bool) -> None:
        self.subnet = subnet
        self.seen = seen
        self.failures = 0
        self.verified = verified


class _Waiting:
    """A contact in a replacement cache."""

    __slots__ = ("contact", "entry")

    def __init__(self, contact: Contact, entry: _Entry) -> None:
        self.contact = contact
        self.entry = entry


class _Bucket:
    """Contacts and, in the same order, their ids in one buffer for the kernel."""

    __slots__ = ("contacts", "ids", "touched", "waiting")

    def __init__(self, touched: float) -> None:
        self.contacts: list[Contact] = []
        self.ids = bytearray()
        self.waiting: dict[bytes, _Waiting] = {}  # longest waiting first
        self.touched = touched

    def append(self, contact: Contact) -> None:
        self.contacts.append(contact)
        self.ids += contact.id

    def index(self, contact_id: bytes) -> int:
        """Where `contact_id` is, O(k); it must be here."""
        at = self.ids.find(contact_id)
        while at % ID_BYTES:  # bytes of two neighbours may spell the id
            at = self.ids.find(contact_id, at + 1)
        assert at >= 0
        return at // ID_BYTES

    def pop(self, contact_id: bytes) -> Contact:
        at = self.index(contact_id)
        del self.ids[at * ID_BYTES : (at + 1) * ID_BYTES]
        return self.contacts.pop(at)


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

    __slots__ = ("_buckets", "_entries", "_own", "_own_id", "_subnets", "k")

    def __init__(self, own_id: bytes, k: int = limits.K) -> None:
        if len(own_id) != ID_BYTES:
            raise ValueError(f"an id has {ID_BYTES} bytes, got {len(own_id)}")
        if k < 1:
            raise ValueError(f"a bucket holds at least 1 contact, got k={k}")
        self.k = k
        self._own_id = own_id
        self._own = int.from_bytes(own_id)
        self._buckets = [_Bucket(_NEVER)]
        self._entries: dict[bytes, _Entry] = {}
        self._subnets: Counter[bytes] = Counter()

    # --- reading --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, contact_id: object) -> bool:
        return contact_id in self._entries

    def __iter__(self) -> Iterator[Contact]:
        for bucket in self._buckets:
            yield from bucket.contacts

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
        if contact_id not in self._entries:
            return None
        bucket = self._bucket(contact_id)
        return bucket.contacts[bucket.index(contact_id)]

    def is_verified(self, contact_id: bytes) -> bool:
        """Whether the table holds this id and it has answered from its address."""
        entry = self._entries.get(contact_id)
        return entry is not None and entry.verified

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

    def stale_buckets(self, now: float, interval: float, rng: "Random") -> list[bytes]:
        """A random id inside each bucket that saw no `touch` for `interval` seconds.

        A new bucket is stale until it is touched: looking up these ids is also how to join.
        """
        return [
            self._random_id(index, rng)
            for index, bucket in enumerate(self._buckets)
            if now - bucket.touched >= interval
        ]

    # --- changing -------------------------------------------------------------------------------

    def touch(self, target: bytes, now: float) -> None:
        """A lookup of `target` starts: its bucket needs no refresh for a while."""
        bucket = self._bucket(target)
        bucket.touched = max(bucket.touched, now)

    def add(self, contact: Contact, now: float, *, verified: bool) -> Added | Pending | Rejected:
        """Offer a contact; `verified` says that it answered us from this very endpoint.

        Raises ValueError for an id of another size than 20 bytes.
        """
        if len(contact.id) != ID_BYTES:
            raise ValueError(f"an id has {ID_BYTES} bytes, got {len(contact.id)}")
        if contact.id == self._own_id:
            return Rejected(Reason.OWN_ID)
        entry = self._entries.get(contact.id)
        if entry is not None:
            return self._meet_again(entry, contact, now, verified=verified)
        entry = _Entry(subnet_of(contact.endpoint[0]), now, verified=verified)
        while True:
            bucket = self._bucket(contact.id)
            reason = self._refusal(bucket, entry.subnet)
            if reason is not None:
                return Rejected(reason)
            if len(bucket.contacts) < self.k:
                self._insert(bucket, contact, entry)
                return _NEW
            if bucket is not self._buckets[-1]:
                return self._contend(bucket, contact, entry)
            self._split()

    def seen(self, contact_id: bytes, endpoint: Endpoint, now: float) -> bool:
        """An answer came from a contact at `endpoint`: it is fresh and verified.

        False, and nothing changes, unless the table holds this id at this endpoint.
        """
        entry = self._entries.get(contact_id)
        if entry is None:
            return False
        contact = self.get(contact_id)
        assert contact is not None
        if contact.endpoint != endpoint:
            return False
        self._refresh(entry, now)
        return True

    def failed(self, contact_id: bytes, now: float) -> Contact | None:
        """A call to a contact failed; returns the contact if that removed it.

        It goes at once if it was never verified or if a replacement waits, otherwise after
        `limits.CONTACT_FAILURES_MAX` failures in a row. A waiting replacement goes at once.
        """
        bucket = self._bucket(contact_id)
        bucket.waiting.pop(contact_id, None)
        entry = self._entries.get(contact_id)
        if entry is None or now < entry.seen:  # it has answered since
            return None
        entry.failures += 1
        is_lasting = entry.verified and not bucket.waiting
        if is_lasting and entry.failures < limits.CONTACT_FAILURES_MAX:
            return None
        return self._drop(bucket, contact_id)

    def remove(self, contact_id: bytes) -> Contact | None:
        """Forget a contact (also a waiting one); returns it if it was in the table."""
        bucket = self._bucket(contact_id)
        bucket.waiting.pop(contact_id, None)
        if contact_id not in self._entries:
            return None
        return self._drop(bucket, contact_id)

    # --- inside ---------------------------------------------------------------------------------

    def _bucket(self, contact_id: bytes) -> _Bucket:
        shared = ID_BITS - (int.from_bytes(contact_id) ^ self._own).bit_length()
        buckets = self._buckets
        return buckets[shared] if shared < len(buckets) else buckets[-1]

    def _nearest(self, target: bytes, k: int) -> list[Contact]:
        """`closest` without an exclusion: the visit of the module docstring."""
        buckets = self._buckets
        last = len(buckets) - 1
        way = int.from_bytes(target) ^ self._own
        home = ID_BITS - way.bit_length()
        bucket = buckets[min(home, last)]
        if len(bucket.contacts) >= k:
            contacts = bucket.contacts
            return [contacts[i] for i in k_closest(bucket.ids, target, k)]
        contacts = []
        ids = bytearray()
        for index in self._visit(way, home, last):
            bucket = buckets[index]
            contacts += bucket.contacts
            ids += bucket.ids
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
        self, entry: _Entry, contact: Contact, now: float, *, verified: bool
    ) -> Added | Rejected:
        """`add` of an id the table holds: a fresh sighting, or a move to another address."""
        bucket = self._bucket(contact.id)
        at = bucket.index(contact.id)
        if bucket.contacts[at].endpoint != contact.endpoint:
            if not verified:
                return Rejected(Reason.UNVERIFIED_MOVE)
            subnet = subnet_of(contact.endpoint[0])
            if subnet != entry.subnet:
                reason = self._refusal(bucket, subnet)
                if reason is not None:
                    return Rejected(reason)
                self._count(entry.subnet, -1)
                self._count(subnet, 1)
                entry.subnet = subnet
            bucket.contacts[at] = contact
        if verified:
            self._refresh(entry, now)
        return _KNOWN

    @staticmethod
    def _refresh(entry: _Entry, now: float) -> None:
        entry.seen = max(entry.seen, now)
        entry.failures = 0
        entry.verified = True

    def _contend(self, bucket: _Bucket, contact: Contact, entry: _Entry) -> Added | Pending:
        """A newcomer meets a full bucket: a verified one displaces an unverified, or it waits."""
        entries = self._entries
        oldest = min(bucket.contacts, key=lambda known: entries[known.id].seen)
        if entry.verified:
            weak = [known for known in bucket.contacts if not entries[known.id].verified]
            if weak:
                evicted = min(weak, key=lambda known: entries[known.id].seen)
                self._take_out(bucket, evicted.id)
                self._insert(bucket, contact, entry)
                return Added(is_new=True, evicted=evicted)
        self._wait(bucket, contact, entry)
        return Pending(oldest)

    @staticmethod
    def _wait(bucket: _Bucket, contact: Contact, entry: _Entry) -> None:
        """Put a contact last in the replacement cache; unverified ones leave it first."""
        waiting = bucket.waiting
        known = waiting.pop(contact.id, None)
        if known is not None and known.entry.verified and not entry.verified:
            waiting[contact.id] = known  # hearsay neither refreshes nor moves who answered
            return
        waiting[contact.id] = _Waiting(contact, entry)
        if len(waiting) > limits.BUCKET_REPLACEMENTS_MAX:
            longest = next((i for i, w in waiting.items() if not w.entry.verified), None)
            del waiting[next(iter(waiting)) if longest is None else longest]

    def _drop(self, bucket: _Bucket, contact_id: bytes) -> Contact:
        """Take a contact out and promote the latest replacement, a verified one if there is."""
        contact = self._take_out(bucket, contact_id)
        latest = sorted(bucket.waiting.values(), key=lambda w: w.entry.verified)
        while latest:
            waiting = latest.pop()
            if self._refusal(bucket, waiting.entry.subnet) is None:
                del bucket.waiting[waiting.contact.id]
                self._insert(bucket, waiting.contact, waiting.entry)
                break
        return contact

    def _insert(self, bucket: _Bucket, contact: Contact, entry: _Entry) -> None:
        assert contact.id not in self._entries
        assert len(bucket.contacts) < self.k
        bucket.append(contact)
        bucket.waiting.pop(contact.id, None)
        self._entries[contact.id] = entry
        self._count(entry.subnet, 1)

    def _take_out(self, bucket: _Bucket, contact_id: bytes) -> Contact:
        self._count(self._entries.pop(contact_id).subnet, -1)
        return bucket.pop(contact_id)

    def _count(self, subnet: bytes | None, change: int) -> None:
        if subnet is None:
            return
        self._subnets[subnet] += change
        assert self._subnets[subnet] >= 0
        if not self._subnets[subnet]:
            del self._subnets[subnet]

    def _refusal(self, bucket: _Bucket, subnet: bytes | None) -> Reason | None:
        """Which subnet cap one more contact of `subnet` in `bucket` would break."""
        held = 0 if subnet is None else self._subnets[subnet]
        if held >= limits.CONTACTS_PER_SUBNET_MAX:
            return Reason.SUBNET_TABLE
        if held >= limits.CONTACTS_PER_SUBNET_BUCKET_MAX:
            here = sum(self._entries[known.id].subnet == subnet for known in bucket.contacts)
            if here >= limits.CONTACTS_PER_SUBNET_BUCKET_MAX:
                return Reason.SUBNET_BUCKET
        return None

    def _split(self) -> None:
        """Divide the last bucket: contacts sharing one bit more with us go to a new last one."""
        old = self._buckets[-1]
        assert not old.waiting  # only a bucket that cannot split lets contacts wait
        depth = len(self._buckets)
        assert depth < ID_BITS  # a range of one foreign id is never too full
        self._buckets[-1] = apart = _Bucket(old.touched)
        nearer = _Bucket(old.touched)
        self._buckets.append(nearer)
        for contact in old.contacts:
            way = int.from_bytes(contact.id) ^ self._own
            (nearer if way.bit_length() <= ID_BITS - depth else apart).append(contact)

    def _random_id(self, index: int, rng: "Random") -> bytes:
        """A uniform id of the range of bucket `index`."""
        is_last = index == len(self._buckets) - 1
        free = ID_BITS - index if is_last else ID_BITS - 1 - index
        fixed = self._own if is_last else self._own ^ 1 << free
        return (fixed >> free << free | rng.getrandbits(free)).to_bytes(ID_BYTES)

    def check(self) -> None:
        """Assert every invariant. O(n)."""
        last = len(self._buckets) - 1
        assert last < ID_BITS
        assert self._own_id not in self._entries
        subnets: Counter[bytes] = Counter()
        ids: set[bytes] = set()
        for index, bucket in enumerate(self._buckets):
            assert len(bucket.contacts) <= self.k
            assert bytes(bucket.ids) == b"".join(contact.id for contact in bucket.contacts)
            assert len(bucket.waiting) <= limits.BUCKET_REPLACEMENTS_MAX
            assert index < last or not bucket.waiting
            here: Counter[bytes] = Counter()
            for contact in bucket.contacts:
                way = int.from_bytes(contact.id) ^ self._own
                assert min(ID_BITS - way.bit_length(), last) == index
                subnet = subnet_of(contact.endpoint[0])
                assert subnet == self._entries[contact.id].subnet
                if subnet is not None:
                    here[subnet] += 1
                ids.add(contact.id)
            for waiting_id, waiting in bucket.waiting.items():
                assert waiting_id == waiting.contact.id
                assert waiting_id not in self._entries
                assert self._bucket(waiting_id) is bucket
            assert all(n <= limits.CONTACTS_PER_SUBNET_BUCKET_MAX for n in here.values())
            subnets += here
        assert ids == self._entries.keys()
        assert subnets == self._subnets
        assert all(n <= limits.CONTACTS_PER_SUBNET_MAX for n in subnets.values())


def subnet_of(host: str) -> bytes | None:
    """The /24 (IPv4) or /56 (IPv6) of a public address, or None for one without a cap.

    A host that is not an address stands for itself.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host.encode()
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not address.is_global:
        return None
    return address.packed[: 3 if address.version == 4 else 7]
