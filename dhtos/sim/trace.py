"""A fingerprint of a run: every delivery, hashed in order.

Two runs took the same course exactly when their digests are equal: BLAKE2b over the time,
source, destination and bytes of every datagram that arrived. Comparing digests of one seed finds
any use of real time, foreign randomness or set order in an engine.

Hashing one delivery costs more in calls than in hashing, so deliveries are collected and packed
a batch at a time: all times, all sources, all destinations, all lengths, all bytes. The batch is
cut by count alone and `digest` works on a copy, so that looking at a digest never changes a later
one.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Generic

from dhtos.sim.clock import Event
from dhtos.sim.node import E

BATCH = 4096
_DIGEST_BYTES = 16


class Trace(Generic[E]):
    """The rolling hash; `add` is O(1) and the packing amortised."""

    __slots__ = ("_hash", "_last", "_packed", "_packed_bytes", "pending")

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._packed = 0
        self._packed_bytes = 0
        self._last: list[Event[E]] = []
        self.pending: list[Event[E]] = []

    def add(self, event: Event[E]) -> None:
        """Record one delivery."""
        self.pending.append(event)
        if len(self.pending) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Hash full batches away; the delivery loop calls it, having appended to `pending`."""
        while len(self.pending) >= BATCH:
            full = self.pending[:BATCH]
            del self.pending[:BATCH]
            self._hash.update(_packed(full))
            self._packed += BATCH
            self._packed_bytes += _size(full)
            self._last = full

    @property
    def deliveries(self) -> int:
        """How many deliveries the run had."""
        return self._packed + len(self.pending)

    @property
    def bytes(self) -> int:
        """How many bytes were delivered."""
        return self._packed_bytes + _size(self.pending)

    @property
    def digest(self) -> str:
        """The fingerprint of the run so far, as 32 hexadecimal digits."""
        rolling = self._hash.copy()
        for start in range(0, len(self.pending), BATCH):
            rolling.update(_packed(self.pending[start : start + BATCH]))
        return rolling.hexdigest()

    def recent(self, count: int) -> list[str]:
        """The last deliveries as text, oldest first, for a failure report."""
        events = (self._last + self.pending)[-count:] if count else []
        return [_line(event) for event in events]


def _size(events: Sequence[Event[E]]) -> int:
    return sum(len(event[3] or b"") for event in events)


def _packed(events: Sequence[Event[E]]) -> bytes:
    size = len(events)
    datagrams = [event[3] or b"" for event in events]
    return b"".join(
        (
            struct.pack(f"<{size}d", *[event[0] for event in events]),
            struct.pack(f"<{size}q", *[event[4].index for event in events]),
            struct.pack(f"<{size}q", *[event[2].index for event in events]),
            struct.pack(f"<{size}I", *map(len, datagrams)),
            *datagrams,
        )
    )


def _line(event: Event[E]) -> str:
    when, _, target, datagram, source = event
    assert datagram is not None
    shown = datagram[:32].hex() + ("…" if len(datagram) > 32 else "")
    return f"{when:.6f} {source.index}->{target.index} {len(datagram)} B {shown}"
