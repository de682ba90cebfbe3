"""The rest of a hub beyond the own group: one bucket for each sibling subtree.

Bucket i is the subtree that shares exactly i bits with the own key. Only subtrees that somebody
lives in have a bucket. A bucket knows a few contacts to send a query to, and a summary of what
lives there, which prunes and ranks but never decides: a subtree is passed over without asking
only where its summary proves that nothing matches.

All members of a group share their buckets' subtrees, and a contact in bucket j shares buckets
0..j-1, so contacts and summaries travel by hearsay. Hearsay is bounded by age: a contact nobody
has heard for `RECORD_TTL_S` is forgotten, however often it is repeated.
"""

from typing import TYPE_CHECKING
from zlib import crc32

from dhtos.core.contact import Contact
from dhtos.core.ids import Endpoint, Prefix, common_prefix_bits
from dhtos.core.limits import HUB_BUCKET_CONTACTS_MAX, RECORD_TTL_S
from dhtos.core.schema import Schema
from dhtos.core.summary import Summary

if TYPE_CHECKING:
    from random import Random


STICKY_S = 90.0  # how long news of a first machine of its kind outlives younger summaries


class Known:
    """A contact of a bucket and when anybody last heard it, on our clock."""

    __slots__ = ("contact", "heard")

    def __init__(self, contact: Contact, heard: float) -> None:
        self.contact = contact
        self.heard = heard


class Bucket:
    """One sibling subtree: contacts by key, and its last summary with the time it was true."""

    __slots__ = ("contacts", "grown", "mark", "pulled", "stamp", "summary", "summary_born")

    def __init__(self) -> None:
        self.contacts: dict[bytes, Known] = {}
        self.summary: Summary | None = None
        self.summary_born = 0.0
        self.grown = float("-inf")  # when the summary last said something lives where none did
        self.stamp = 0  # the summary's occupancy; 0 without one
        self.mark = 0  # a hash of the index and the stamp; 0 without one
        self.pulled = float("-inf")

    @property
    def count(self) -> int:
        """Best guess at how many nodes live in the subtree."""
        return max(self.summary.count if self.summary else 0, len(self.contacts))


class Buckets:
    """The non-empty sibling subtrees of one key, by shared prefix length."""

    def __init__(self, own_key: bytes) -> None:
        self.own_key = own_key
        self._buckets: dict[int, Bucket] = {}

    def index_of(self, key: bytes) -> int:
        """The bucket a key belongs to."""
        return common_prefix_bits(self.own_key, key)

    def prefix(self, index: int) -> Prefix:
        """The subtree of bucket `index`."""
        return Prefix.of(self.own_key, index + 1).sibling()

    def get(self, index: int) -> Bucket | None:
        """The bucket, if its subtree is known to be inhabited."""
        return self._buckets.get(index)

    def inhabited(self) -> list[tuple[int, Bucket]]:
        """Every bucket, widest subtree first."""
        return sorted(self._buckets.items())

    def bits(self, depth: int) -> int:
        """Which buckets below `depth` are inhabited: bit i stands for bucket i."""
        return sum([1 << index for index in self._buckets if index < depth])

    def heard(self, contact: Contact, heard: float, now: float, *, proven: bool = True) -> bool:
        """Learn that a contact was alive at `heard`; True when its bucket was empty before.

        Without proof (it asked us, but has answered nobody we trust) it never displaces another.
        """
        if now - heard > RECORD_TTL_S or contact.id == self.own_key:
            return False
        index = self.index_of(contact.id)
        bucket = self._buckets.get(index)
        if bucket is None:
            self._buckets[index] = bucket = Bucket()
            bucket.contacts[contact.id] = Known(contact, heard)
            return True
        known = bucket.contacts.get(contact.id)
        if known is not None:
            if heard > known.heard and (proven or contact == known.contact):
                known.heard = heard
                known.contact = contact
        elif len(bucket.contacts) < HUB_BUCKET_CONTACTS_MAX:
            bucket.contacts[contact.id] = Known(contact, heard)
        elif proven:
            oldest = min(bucket.contacts.values(), key=lambda k: k.heard)
            if heard > oldest.heard:
                del bucket.contacts[oldest.contact.id]
                bucket.contacts[contact.id] = Known(contact, heard)
        return False

    def silent(self, key: bytes) -> None:
        """A contact did not answer a call: drop it.

        The last of its bucket stays for its life: with it goes the memory that somebody lives
        there, and a query would pass over the subtree and call itself complete.
        """
        bucket = self._buckets.get(self.index_of(key))
        if bucket is not None and len(bucket.contacts) > 1:
            self.forget(key)

    def forget(self, key: bytes) -> None:
        """Drop a contact that has left."""
        index = self.index_of(key)
        bucket = self._buckets.get(index)
        if bucket is not None and key in bucket.contacts:
            del bucket.contacts[key]
            if not bucket.contacts:
                del self._buckets[index]

    def departed(self, key: bytes, endpoint: Endpoint) -> None:
        """Somebody says from its own address that it leaves."""
        bucket = self.get(self.index_of(key))
        known = None if bucket is None else bucket.contacts.get(key)
        if known is not None and known.contact.endpoint == endpoint:
            self.forget(key)

    def summarise(self, index: int, summary: Summary | None, born: float, schema: Schema) -> None:
        """Learn what lives in a subtree; an older summary than the held one is ignored.

        Summaries are put together from parts of different ages, so a younger one may not have
        heard yet of what the held one has: news of where machines are is kept for STICKY_S, at
        the price of asking in vain. None takes the held one back: something lives there that
        nobody has described yet.
        """
        bucket = self._buckets.get(index)
        if bucket is None or (bucket.summary is not None and born < bucket.summary_born):
            return
        held = bucket.summary
        bucket.summary_born = born
        if summary is None:
            bucket.summary, bucket.stamp, bucket.mark = None, 0, 0
            return
        stamp = summary.occupancy(schema)
        if held is not None and stamp != bucket.stamp:
            wide = summary.widened(held)
            union = wide.occupancy(schema)
            if union != bucket.stamp:
                bucket.grown = born
            if born - bucket.grown < STICKY_S:
                summary, stamp = wide, union
        bucket.summary = summary
        if stamp != bucket.stamp:
            bucket.stamp = stamp
            bucket.mark = crc32(bytes((index,)) + stamp.to_bytes(4))

    def digest(self, depth: int) -> int:
        """32 bits that agree when two nodes describe the buckets below `depth` alike."""
        total = 0
        for index, bucket in self._buckets.items():
            if index < depth:
                total ^= bucket.mark
        return total

    def absorb(self, index: int) -> None:
        """The subtree of bucket `index` joined the group: the bucket is no more."""
        self._buckets.pop(index, None)

    def choose(self, index: int, rng: "Random", count: int) -> list[Contact]:
        """Up to `count` random contacts of a bucket."""
        bucket = self._buckets.get(index)
        if bucket is None:
            return []
        everyone = [known.contact for known in bucket.contacts.values()]
        return everyone if len(everyone) <= count else rng.sample(everyone, count)

    def expire(self, now: float) -> None:
        """Forget contacts nobody heard for a record's life."""
        for index, bucket in list(self._buckets.items()):
            for key, known in list(bucket.contacts.items()):
                if now - known.heard > RECORD_TTL_S:
                    del bucket.contacts[key]
            if not bucket.contacts:
                del self._buckets[index]

    def check(self, depth: int) -> None:
        """Assert every invariant against the group's depth."""
        for index, bucket in self._buckets.items():
            assert 0 <= index < depth, (index, depth)
            assert 0 < len(bucket.contacts) <= HUB_BUCKET_CONTACTS_MAX
            prefix = self.prefix(index)
            for key, known in bucket.contacts.items():
                assert known.contact.id == key
                assert prefix.holds(key)
