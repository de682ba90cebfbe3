"""The values a node holds for others: what is kept, what replaces what, and until when.

A value is *sequenced* when it came with a sequence number above 0, as dhtos nodes send it, and
unsequenced when a stock peer stored it. The order is

    sequenced before unsequenced, then the higher number, then the larger hash of the value;

two unsequenced values have no order but time, so the one that expires later wins: a fresh store
of a stock peer (a full life ahead) replaces, and the republication of an old copy, which carries
only the life that is left, does not. A live sequenced value is never replaced by an unsequenced
one, whatever a stock peer republishes.

A copy of the very value that is held changes nothing but the hour of its republication (another
holder has just done it); in particular it never moves the expiry of a sequenced value, so
neither republication nor hand-off can lengthen a life.

In a cluster every value is signed (`dhtos.trust.value`) and has an owner. Who came first keeps a
shared key while its value lives, and an owned value is replaced by its owner alone, by a higher
number. A value whose owner was revoked is no longer there.

Everything is bounded: values, their bytes, and the share of one source, which in a cluster is the
owner, whoever brought the value. Over a bound a new value is refused; nothing live is thrown out
for a stranger.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from itertools import takewhile
from typing import Any

from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    VALUE_TTL_S,
    VALUES_BYTES_MAX,
    VALUES_BYTES_PER_OWNER_MAX,
    VALUES_MAX,
    VALUES_PER_SOURCE_MAX,
)
from dhtos.core.routing import subnet_of
from dhtos.protocol.wire import encode_value
from dhtos.trust.value import Said

Value = str | bytes | int | float | bool
"""What the base overlay stores, as stock Kademlia."""

VALUE_TYPES = frozenset({str, bytes, int, float, bool})

_OVERHEAD_BYTES = 300  # what one entry costs beside its value
_HEAP_SLACK = 64


class Verdict(Enum):
    """What became of a value offered to the store; its value is the stock reply to `store`.

    Stock peers take any reply for success; dhtos peers tell the three apart. In a cluster who has
    another value shows it instead.
    """

    HELD = True
    SUPERSEDED = False
    NO_ROOM = None


@dataclass(frozen=True, slots=True)
class ValueOwner:
    """Who signed a value, as its certificate says: the public key, the name, the groups."""

    key: bytes
    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value as `get` returns it, with the seconds it has left to live.

    `owner` is who signed it; None in open mode, where nobody can say.
    """

    value: Value
    seq: int
    expires_s: float
    owner: ValueOwner | None = None


class Held:
    """One entry: the value, its place in the order, its expiry, who brought it.

    What only some uses need (the hash, the size) is worked out when it is first asked for.
    """

    __slots__ = ("_rank", "bytes", "expires", "heard", "said", "seq", "source", "value")

    def __init__(self, value: Value, seq: int, expires: float, said: Said | None = None) -> None:
        self.value = value
        self.said = said  # by its owner; None in open mode
        self.seq = seq
        self.expires = expires
        self.heard = 0.0
        self.source: Endpoint | bytes | None = None
        self.bytes = 0
        self._rank = b""

    @property
    def rank(self) -> bytes:
        """The hash that orders values of one sequence number."""
        if not self._rank:
            encoded = encode_value(self.value)
            self.bytes = len(encoded) + _OVERHEAD_BYTES
            if self.said is not None:
                self.bytes += len(self.said.proof)
            self._rank = blake2b(encoded, digest_size=16).digest()
        return self._rank

    @property
    def owner(self) -> bytes:
        """The public key of whoever signed it; empty in open mode."""
        return b"" if self.said is None else self.said.owner.subject

    @property
    def signer(self) -> ValueOwner | None:
        """Who signed it, for people."""
        if self.said is None:
            return None
        cert = self.said.owner
        return ValueOwner(cert.subject, cert.name, cert.groups)

    @property
    def is_owned(self) -> bool:
        """Whether nobody else could write under its key."""
        return self.said is not None and self.said.salt is not None

    @property
    def is_gone(self) -> bool:
        """Whether it only says that there was a value."""
        return self.said is not None and self.said.gone

    def wins(self, other: "Held") -> bool:
        """Whether this value replaces `other`."""
        if self.owner != other.owner:
            return self.is_owned and not other.is_owned  # else who came first stays
        if self.seq == other.seq == 0:
            return self.expires > other.expires
        return (self.seq, self.rank) > (other.seq, other.rank)


class Store:
    """Bounded values by key; every method is O(log n) or better, `put` amortised."""

    __slots__ = ("_bytes", "_expiries", "_owned", "_sources", "_values", "believes")

    def __init__(self) -> None:
        # In the order of `heard`, so that what is due for republication stands in front.
        self._values: dict[bytes, Held] = {}
        self._expiries: list[tuple[float, bytes]] = []
        self._sources: Counter[Endpoint | bytes] = Counter()
        self._owned: Counter[bytes] = Counter()  # bytes by owner
        self._bytes = 0
        self.believes: Callable[[Said], bool] = lambda _said: True

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[bytes]:
        """A copy of the keys, the longest unheard first; some may have expired."""
        return list(self._values)

    def items(self, now: float) -> Iterator[tuple[bytes, StoredValue]]:
        """Every live value."""
        for key, held in self._values.items():
            if held.expires > now:
                yield key, StoredValue(held.value, held.seq, held.expires - now)

    def get(self, key: bytes, now: float) -> Held | None:
        """The live value under `key`."""
        held = self._values.get(key)
        if held is None or held.expires <= now:
            return None
        if held.said is not None and not self.believes(held.said):
            self.drop(key)
            return None
        return held

    def put(
        self,
        key: bytes,
        value: Value,
        now: float,
        *,
        seq: int = 0,
        ttl_s: float = VALUE_TTL_S,
        source: Endpoint | None = None,
    ) -> Verdict:
        """Offer a value; `source` is the peer that brought it, None for ourselves."""
        assert seq >= 0
        assert 0 < ttl_s <= VALUE_TTL_S
        return self.offer(key, Held(value, seq, now + ttl_s), now, source)

    def offer(self, key: bytes, new: Held, now: float, source: Endpoint | None = None) -> Verdict:
        """As `put`; a signed value counts against its owner, whoever is its `source`."""
        self._expire(now)
        old = Store.get(self, key, now)
        rank = new.rank
        if old is not None and old.seq == new.seq and old.rank == rank and old.owner == new.owner:
            self._hear(key, old, now)
            if new.seq == 0 and new.expires > old.expires:
                old.expires = new.expires
                self._watch(old.expires, key)
            return Verdict.HELD
        if old is not None and not new.wins(old):
            return Verdict.SUPERSEDED
        # A place was granted to whoever opened it; what is signed counts against its owner.
        new.source = new.owner or (_account(source) if old is None else old.source)
        if not self._has_room(new, old):
            return Verdict.NO_ROOM
        if old is not None:
            self._forget(key, old)
        self._bytes += new.bytes
        if new.source is not None:
            self._sources[new.source] += 1
        if new.said is not None:
            self._owned[new.owner] += new.bytes
        self._hear(key, new, now)
        self._watch(new.expires, key)
        return Verdict.HELD

    def drop(self, key: bytes) -> None:
        """Forget what is under `key`."""
        held = self._values.get(key)
        if held is not None:
            self._forget(key, held)
            self._tidy()

    def due(self, now: float, interval_s: float) -> list[bytes]:
        """The keys nobody stored with us for `interval_s`, longest unheard first."""
        self._expire(now)
        unheard = takewhile(lambda item: now - item[1].heard >= interval_s, self._values.items())
        return [key for key, _ in unheard]

    def republished(self, key: bytes, now: float) -> None:
        """We have just stored the value of `key` with others ourselves."""
        held = self._values.get(key)
        if held is not None:
            self._hear(key, held, now)

    def _hear(self, key: bytes, held: Held, now: float) -> None:
        """File `held` as the most recently heard."""
        self._values.pop(key, None)
        held.heard = now
        self._values[key] = held

    def _has_room(self, new: Held, old: Held | None) -> bool:
        """Whether `new` fits, in the place of `old`."""
        freed = 0 if old is None else old.bytes
        if self._bytes - freed + new.bytes > VALUES_BYTES_MAX:
            return False
        if new.said is not None:
            freed = freed if old is not None and old.owner == new.owner else 0
            if self._owned[new.owner] - freed + new.bytes > VALUES_BYTES_PER_OWNER_MAX:
                return False
        if old is not None and old.source == new.source:
            return True
        if old is None and len(self._values) >= VALUES_MAX:
            return False
        return new.source is None or self._sources[new.source] < VALUES_PER_SOURCE_MAX

    def _forget(self, key: bytes, held: Held) -> None:
        """Take a value out of all counts."""
        del self._values[key]
        self._bytes -= held.bytes
        if held.source is not None:
            _less(self._sources, held.source, 1)
        if held.said is not None:
            _less(self._owned, held.owner, held.bytes)

    def _watch(self, expires: float, key: bytes) -> None:
        heappush(self._expiries, (expires, key))
        self._tidy()

    def _tidy(self) -> None:
        """Leave out of the heap what tells no expiry any more, once that is most of it."""
        if len(self._expiries) > 2 * len(self._values) + _HEAP_SLACK:
            self._expiries = [(held.expires, key) for key, held in self._values.items()]
            heapify(self._expiries)

    def _expire(self, now: float) -> None:
        """Forget what has expired; a heap entry that no longer tells the expiry is skipped."""
        expiries = self._expiries
        while expiries and expiries[0][0] <= now:
            _, key = heappop(expiries)
            held = self._values.get(key)
            if held is not None and held.expires <= now:
                self._forget(key, held)

    def check(self) -> None:
        """Assert the bounds, the counts, and that every value will be seen to expire."""
        assert len(self._values) <= VALUES_MAX
        assert self._bytes <= VALUES_BYTES_MAX
        assert self._bytes == sum(held.bytes for held in self._values.values())
        assert len(self._expiries) <= 2 * len(self._values) + 2 * _HEAP_SLACK
        watched = set(self._expiries)
        sources: Counter[Endpoint | bytes] = Counter()
        last_heard = float("-inf")
        for key, held in self._values.items():
            assert (held.expires, key) in watched
            assert held.heard >= last_heard
            last_heard = held.heard
            if held.source is not None:
                sources[held.source] += 1
        assert sources == self._sources
        assert sum(self._owned.values()) == sum(
            held.bytes for held in self._values.values() if held.said is not None
        )


def _less(counter: Counter[Any], name: object, by: int) -> None:
    counter[name] -= by
    if not counter[name]:
        del counter[name]


def _account(source: Endpoint | None) -> Endpoint | bytes | None:
    """Whose share a value counts against: a public subnet, or else the very endpoint."""
    return None if source is None else subnet_of(source[0]) or source
