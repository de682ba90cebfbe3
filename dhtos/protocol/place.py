"""Where this node is, as calls show it: every timed reply that tells a coordinate is a sample.

Replies to `dh_summary` and `dh_range` end with a trailer of `[capabilities, coordinate]`, those of
`dh_gossip` carry theirs inside. Gossip alone would not do: it meets only the own group, and each
group would find places that agree among themselves and with nobody else's. Summaries are asked of
all other subtrees all the time, so they hold the groups together.

Samples draw from a copy of the engine's randomness: whether a reply tells a coordinate changes
nothing else a node does.
"""

from collections import Counter
from copy import copy
from typing import TYPE_CHECKING, Any

from dhtos.core.coordinate import Coordinate
from dhtos.core.ids import Endpoint
from dhtos.core.locator import Locator
from dhtos.errors import MalformedMessage
from dhtos.protocol.hubwire import as_packed_coordinate
from dhtos.protocol.wire import encode_trailer

if TYPE_CHECKING:
    from random import Random

_UNKNOWN_PLACE = Coordinate()


class Place:
    """The locator of one engine, shared by all places it has in hubs."""

    __slots__ = ("_capabilities", "_counters", "_footer", "_rng", "_source", "_told", "locator")

    def __init__(self, rng: "Random", counters: Counter[str], capabilities: int) -> None:
        self.locator = Locator()
        self._source = rng
        self._rng: Random | None = None  # a copy is 2.5 kB: who is never asked needs none
        self._counters = counters
        self._capabilities = capabilities
        self._told = _UNKNOWN_PLACE
        self._footer = b""

    def footer(self) -> bytes:
        """The trailer that says where we are; empty as long as we do not know."""
        own = self.locator.coordinate
        if own is not self._told and own != _UNKNOWN_PLACE:
            self._told = own
            self._footer = encode_trailer([self._capabilities, own.to_bytes()])
        return self._footer

    def told(self, endpoint: Endpoint, packed: Any, rtt_s: float, now: float) -> None:
        """A reply came after `rtt_s` and says where its sender is; nonsense is counted."""
        try:
            remote = as_packed_coordinate(packed)
        except MalformedMessage:
            self._counters["coordinates_malformed"] += 1
            return
        if remote is not None:
            self.measured(endpoint, remote, rtt_s, now)

    def measured(self, endpoint: Endpoint, remote: Coordinate, rtt_s: float, now: float) -> None:
        """A round trip was timed; what is no sample is counted."""
        if self._rng is None:
            self._rng = copy(self._source)
        fault = self.locator.sample(endpoint, remote, rtt_s, now=now, rng=self._rng)
        if fault is not None:
            self._counters[f"samples_refused_{fault.name.lower()}"] += 1
