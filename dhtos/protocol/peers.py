"""What is known of the machine behind an endpoint, shared by all overlays.

Round-trip times follow Jacobson and Karn (RFC 6298): a retransmitted call gives no sample, and
once it is answered the next one waits for twice as long, or a peer that is farther than the
time-out would never be measured. Silence teaches nothing: the dead do not get slower. The time-out
has a floor: on a busy event loop a live peer looks silent for tens of milliseconds.

Nothing is known of a stranger. Where everybody measured is near, a stranger probably is too, and
a dead one should not cost much more than a dead neighbour: `Peers.guess` allows twice the
longest round trip of those met last, never less than twice the floor, and no less than
RTO_UNKNOWN_S unless enough were measured.
"""

from enum import Enum
from itertools import islice

from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    PEERS_MAX,
    RTO_CEILING_S,
    RTO_FLOOR_S,
    RTO_SAMPLES_MAX,
    RTO_SAMPLES_MIN,
    RTO_SLACK_S,
    RTO_UNKNOWN_S,
)

_PATIENCE_MAX = 64  # beyond it even the floor is over the ceiling


class Capability(Enum):
    """Which wire a peer has shown to speak."""

    UNKNOWN = "unknown"
    STOCK = "stock"
    DHTOS = "dhtos"


class Peer:
    """Measurements of one endpoint; until the first sample `srtt` is 0 and `guess` stands in."""

    __slots__ = (
        "calls", "capability", "endpoint", "failures", "guess", "last_heard", "patience", "rttvar",
        "srtt",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.calls = 0  # that it has not answered yet
        self.srtt = 0.0
        self.rttvar = 0.0
        self.capability = Capability.UNKNOWN
        self.last_heard: float | None = None
        self.failures = 0
        self.guess = RTO_UNKNOWN_S
        self.patience = 1

    def rto(self) -> float:
        """Seconds after which a reply counts as late."""
        rto = self.guess
        if self.srtt:
            rto = max(self.srtt + max(4 * self.rttvar, RTO_SLACK_S), RTO_FLOOR_S)
        return min(self.patience * rto, RTO_CEILING_S)

    def sample(self, rtt_s: float) -> None:
        """Learn one round-trip time (RFC 6298, section 2)."""
        self.patience = 1
        if self.srtt:
            self.rttvar += (abs(rtt_s - self.srtt) - self.rttvar) / 4
            self.srtt += (rtt_s - self.srtt) / 8
        else:
            self.srtt = max(rtt_s, 1e-9)
            self.rttvar = rtt_s / 2

    def was_late(self) -> None:
        """It answered, but too late to be measured: wait twice as long (RFC 6298, section 5.5)."""
        self.patience = min(2 * self.patience, _PATIENCE_MAX)


class Peers:
    """A bounded memory of endpoints: over the limit the longest known is forgotten."""

    __slots__ = ("_peers",)

    def __init__(self) -> None:
        self._peers: dict[Endpoint, Peer] = {}

    def of(self, endpoint: Endpoint) -> Peer:
        """The peer at `endpoint`, remembered from now on."""
        peer = self._peers.get(endpoint)
        if peer is None:
            if len(self._peers) >= PEERS_MAX:
                del self._peers[next(iter(self._peers))]
            peer = self._peers[endpoint] = Peer(endpoint)
        return peer

    def known(self, endpoint: Endpoint) -> Peer | None:
        """The peer at `endpoint` if it is remembered; remembers nothing."""
        return self._peers.get(endpoint)

    def guess(self) -> float:
        """The time-out of a peer that was never measured, judged by those met last."""
        latest = islice(reversed(self._peers.values()), RTO_SAMPLES_MAX)
        samples = [peer.srtt for peer in latest if peer.srtt]
        if len(samples) < RTO_SAMPLES_MIN:
            return RTO_UNKNOWN_S
        return min(max(2 * max(samples), 2 * RTO_FLOOR_S), RTO_UNKNOWN_S)

    def __len__(self) -> int:
        return len(self._peers)

    def check(self) -> None:
        """Assert the bound and that every peer is filed under its own endpoint."""
        assert len(self._peers) <= PEERS_MAX
        for endpoint, peer in self._peers.items():
            assert endpoint == peer.endpoint
            assert peer.srtt >= 0
            assert peer.rttvar >= 0
            assert 2 * RTO_FLOOR_S <= peer.guess <= RTO_UNKNOWN_S
