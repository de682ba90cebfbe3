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

Everything is bounded: values, their bytes, and the share of one source. Over a bound a new value
is refused; nothing live is thrown out for a stranger.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from itertools import takewhile

from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    VALUE_TTL_S,
    VALUES_BYTES_MAX,
    VALUES_MAX,
    VALUES_PER_SOURCE_MAX,
)
from dhtos.core.routing import subnet_of
from dhtos.protocol.wire import encode_value

Value = str | bytes | int | float | bool
"""What the base overlay stores, as stock Kademlia."""

VALUE_TYPES = frozenset({str, bytes, int, float, bool})

_OVERHEAD_BYTES = 300  # what one entry costs beside its value
_HEAP_SLACK = 64


class Verdict(Enum):
    """What became of a value offered to the store; its value is the stock reply to `store`.

    Stock peers take any reply for success; dhtos peers tell the three apart.
    """

    HELD = True
    SUPERSEDED = False
    NO_ROOM = None


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value as `get` returns it, with the seconds it has left to live."""

    value: Value
    seq: int
    expires_s: float


class Held:
    """One entry: the value, its place in the order, its expiry, who brought it.

    What only some uses need (the hash, the size) is worked out when it is first asked for.
    """

    __slots__ = ("_rank", "bytes", "expires", "heard", "seq", "source", "value")

    def __init__(self, value: Value, seq: int, expires: float) -> None:
        self.value = value
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
            self._rank = blake2b(encoded, digest_size=16).digest()
        return self._rank

    def wins(self, other: "Held") -> bool:
        """Whether this value replaces `other`."""
        if self.seq == other.seq == 0:
            return self.expires > other.expires
        return (self.seq, self.rank) > (other.seq, other.rank)


class Store:
    """Bounded values by key; every method is O(log n) or better, `put` amortised."""

    __slots__ = ("_bytes", "_expiries", "_sources", "_values")

    def __init__(self) -> None:
        # In the order of `heard`, so that what is due for republication stands in front.
        self._values: dict[bytes, Held] = {}
        self._expiries: list[tuple[float, bytes]] = []
        self._sources: Counter[Endpoint | bytes] = Counter()
        self._bytes = 0

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
        self._expire(now)
        old = self._values.get(key)
        new = Held(value, seq, now + ttl_s)
        rank = new.rank
        if old is not None:
            if old.seq == seq and old.rank == rank:
                self._hear(key, old, now)
                if seq == 0 and new.expires > old.expires:
                    old.expires = new.expires
                    self._watch(old.expires, key)
                return Verdict.HELD
            if not new.wins(old):
                return Verdict.SUPERSEDED
            if self._bytes - old.bytes + new.bytes > VALUES_BYTES_MAX:
                return Verdict.NO_ROOM
            new.source = old.source  # the place was granted to whoever opened it
            self._bytes += new.bytes - old.bytes
        else:
            new.source = _account(source)
            if not self._has_room(new):
                return Verdict.NO_ROOM
            self._bytes += new.bytes
            if new.source is not None:
                self._sources[new.source] += 1
        self._hear(key, new, now)
        self._watch(new.expires, key)
        return Verdict.HELD

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

    def _has_room(self, new: Held) -> bool:
        return (
            len(self._values) < VALUES_MAX
            and self._bytes + new.bytes <= VALUES_BYTES_MAX
            and (new.source is None or self._sources[new.source] < VALUES_PER_SOURCE_MAX)
        )

    def _watch(self, expires: float, key: bytes) -> None:
        heappush(self._expiries, (expires, key))
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
                del self._values[key]
                self._bytes -= held.bytes
                if held.source is not None:
                    self._sources[held.source] -= 1
                    if not self._sources[held.source]:
                        del self._sources[held.source]

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


def _account(source: Endpoint | None) -> Endpoint | bytes | None:
    """Whose share a value counts against: a public subnet, or else the very endpoint."""
    return None if source is None else subnet_of(source[0]) or source
