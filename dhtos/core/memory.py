"""Gossip memory: the peers that a node has measured and places itself by.

Up to 96 peers: the 16 nearest always stay, 80 others are a changing sample of the rest. Both are
needed: without near ones a place is right about continents and wrong about neighbours, without
far ones it is the reverse. Near peers are worth more than any estimate, too: their round trip is
known, and who looks for the closest machine asks them first.

A round trip is the median of a peer's last 5 samples (the lower one of two), because a process
that was stopped for a second says nothing of the path (Ledlie, Gardner and Seltzer, NSDI 2007).

This module must not know how places follow from measurements.
"""

from array import array
from heapq import nsmallest
from typing import TYPE_CHECKING

from dhtos.core import limits
from dhtos.core.coordinate import DIMENSIONS, Coordinate
from dhtos.core.ids import Endpoint

if TYPE_CHECKING:
    from random import Random


class _Entry:
    """One peer: where it stands in `rows`, its last samples, when it was heard."""

    __slots__ = ("heard", "rtt_s", "samples", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.samples: list[float] = []
        self.rtt_s = 0.0
        self.heard = 0.0


class GossipMemory:
    """Measured peers by endpoint, with the numbers of all of them in one array for the kernels.

    `rows` has one row a peer: position, height, error, round trip.
    """

    __slots__ = ("_entries", "_peers", "dimensions", "rows")

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        self.dimensions = dimensions
        self.rows = array("d")
        self._entries: dict[Endpoint, _Entry] = {}  # who was heard longest ago comes first
        self._peers: list[Endpoint] = []  # by slot

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, peer: Endpoint) -> bool:
        return peer in self._entries

    def peers(self) -> list[Endpoint]:
        """All of them, in the order of `rows`."""
        return list(self._peers)

    def rtt_s(self, peer: Endpoint) -> float | None:
        """The measured round trip to a peer, or None for a stranger."""
        entry = self._entries.get(peer)
        return None if entry is None else entry.rtt_s

    def nearest(self, count: int) -> list[tuple[float, Endpoint]]:
        """The nearest peers with their round trips, nearest first; O(n log count)."""
        return nsmallest(count, [(entry.rtt_s, peer) for peer, entry in self._entries.items()])

    def add(
        self, peer: Endpoint, coordinate: Coordinate, rtt_s: float, now: float, rng: "Random"
    ) -> None:
        """Remember a sample that `coordinate.sample_fault` has let pass."""
        assert len(coordinate.position) == self.dimensions
        self._expire(now)
        entry = self._entries.pop(peer, None)
        if entry is None:
            if len(self._peers) >= limits.MEMORY_PEERS_MAX:
                self.forget(self._dispensable(rng))
            entry = _Entry(len(self._peers))
            self._peers.append(peer)
        self._entries[peer] = entry
        entry.heard = now
        samples = entry.samples
        samples.append(rtt_s)
        del samples[: -limits.MEMORY_SAMPLES_MAX]
        entry.rtt_s = sorted(samples)[(len(samples) - 1) // 2]
        width = self.dimensions + 3
        self.rows[entry.slot * width : (entry.slot + 1) * width] = array(
            "d", (*coordinate.position, coordinate.height, coordinate.error, entry.rtt_s)
        )  # of a new peer this is the end, and the array grows

    def forget(self, peer: Endpoint) -> None:
        """Remove a peer; a stranger is no matter. O(1): the last row takes its place."""
        entry = self._entries.pop(peer, None)
        if entry is None:
            return
        width = self.dimensions + 3
        last, row = self._peers.pop(), self.rows[-width:]
        del self.rows[-width:]
        if last != peer:
            self.rows[entry.slot * width : (entry.slot + 1) * width] = row
            self._peers[entry.slot] = last
            self._entries[last].slot = entry.slot

    def check(self) -> None:
        """Assert what must always hold."""
        assert len(self._entries) == len(self._peers) <= limits.MEMORY_PEERS_MAX
        assert len(self.rows) == len(self._peers) * (self.dimensions + 3)
        for peer, entry in self._entries.items():
            assert self._peers[entry.slot] == peer
            assert self.rows[(entry.slot + 1) * (self.dimensions + 3) - 1] == entry.rtt_s
            assert 1 <= len(entry.samples) <= limits.MEMORY_SAMPLES_MAX

    def _expire(self, now: float) -> None:
        """Forget those that nobody has measured for long: they may have moved or died."""
        while self._entries:
            peer, entry = next(iter(self._entries.items()))
            if now - entry.heard <= limits.MEMORY_S:
                return
            self.forget(peer)

    def _dispensable(self, rng: "Random") -> Endpoint:
        """Who makes room for a newcomer: any far one, so that distance plays no part."""
        near = {peer for _, peer in self.nearest(limits.MEMORY_NEAR)}
        far = [peer for peer in self._peers if peer not in near]
        return rng.choice(far)
