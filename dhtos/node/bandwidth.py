"""Trains to a chosen peer: `Meter` is what a running node offers of `dhtos.protocol.bandwidth`.

A node makes one meter when it starts, whether it will ever measure or not: the meter is also what
answers the trains of others. Estimates are kept with their age, and a younger one than was asked
for is returned without sending anything.
"""

import math

from dhtos.core.hit import Hit
from dhtos.core.ids import Endpoint, NodeId
from dhtos.errors import UsageError
from dhtos.node.config import parse_endpoint
from dhtos.protocol.bandwidth import Bandwidth, Trains
from dhtos.protocol.engine import Engine
from dhtos.transport.driver import Driver

__all__ = ["AGE_S_MAX", "Bandwidth", "Meter", "Peer"]

AGE_S_MAX = 600.0  # an older estimate says little about a path

Peer = str | NodeId | Hit
"""`host:port`, the id of a member of the own group, or a hit."""


class Meter:
    """Measures the paths from one node, and answers those who measure the path to it."""

    def __init__(self, engine: Engine, driver: Driver) -> None:
        self._engine = engine
        self._driver = driver
        self._trains = Trains(engine.core)

    async def bandwidth(self, peer: Peer, *, max_age_s: float = AGE_S_MAX) -> Bandwidth:
        """What the path to a peer carries, in bytes a second; sends up to 4 MB to find out.

        An estimate of at most `max_age_s` is returned as it is; 0 always measures. One path is
        measured at a time. Raises Unreachable where the peer does not answer, UsageError where
        the hourly budget is used up, or for somebody who cannot be measured.
        """
        if not 0 <= max_age_s < math.inf:
            raise UsageError(f"max_age_s must be 0 or more seconds, got {max_age_s!r}")
        endpoint = self.endpoint_of(peer)
        now = self._driver.clock()
        known = self._trains.known(endpoint, now)
        if known is not None and known.age_s < max_age_s:
            return known
        return await self._driver.wait(self._trains.measure(endpoint, now))

    def known(self, peer: Peer) -> Bandwidth | None:
        """The latest estimate with its age, however old; sends nothing."""
        return self._trains.known(self.endpoint_of(peer), self._driver.clock())

    def endpoint_of(self, peer: Peer) -> Endpoint:
        """Where trains to a peer go; raises UsageError for somebody without an address."""
        if isinstance(peer, Hit):
            if peer.gateway:
                raise UsageError(
                    "a machine behind a gateway answers no trains: measure its gateway"
                )
            endpoint = parse_endpoint(peer.endpoint)
        elif isinstance(peer, NodeId):
            endpoint = self._member(peer)
        else:
            endpoint = parse_endpoint(peer)
        if self._driver.socket.reachable(*endpoint) is None:
            raise UsageError(f"a peer to measure is a numeric address and a port, got {peer!r}")
        return endpoint

    def _member(self, node_id: NodeId) -> Endpoint:
        for member in self._engine.hub.members():
            if member.record.node_id == bytes(node_id) and not member.record.is_foreign:
                return member.record.endpoint
        raise UsageError(f"{node_id} is no member of this node's group: pass a hit, or host:port")
