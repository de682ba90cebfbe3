"""What is known while a node runs: whom to ask for a hub, where somebody is, what was carried."""

from collections.abc import Iterable
from math import inf

from dhtos.core.coordinate import Coordinate
from dhtos.core.ids import Endpoint
from dhtos.protocol.engine import Engine
from dhtos.protocol.hub import Hub
from dhtos.protocol.peers import Capability
from dhtos.transport.udp import UdpSocket

GATEWAYS_MAX = 32


def gateways(engine: Engine, seeds: Iterable[Endpoint]) -> list[Endpoint]:
    """Peers that have shown to be dhtos nodes, those heard last first: who else answered lives too.

    A client that asks seldom meets nobody but by its questions, and its seeds may be long gone.
    """
    peers = engine.core.peers
    endpoints = [*seeds, *(contact.endpoint for contact in engine.base.contacts())]
    known = [peer for e in dict.fromkeys(endpoints) if (peer := peers.known(e)) is not None]
    heard = {peer.endpoint: peer.last_heard for peer in (*known, *peers.heard_last(GATEWAYS_MAX))}
    told = [e for e in heard if peers.of(e).capability is Capability.DHTOS]
    return sorted(told, key=lambda e: -(heard[e] or -inf))[:GATEWAYS_MAX]


def coordinate_of(hub: Hub, who: str) -> Coordinate | None:
    """Where `self`, or a node of the own group, is on the map of round-trip times."""
    if who == "self":
        return hub.coordinate if hub.settled or hub.locator.is_placed else None
    for member in hub.members():
        if member.record.node_id.hex() == who and member.record.packed is not None:
            return Coordinate.from_bytes(member.record.packed)
    return None


def socket_figures(sock: UdpSocket) -> dict[str, float]:
    """How many datagrams a socket carried, and how many it could not."""
    names = ("received", "sent", "dropped", "errors", "queued")
    return {f"socket_{name}": getattr(sock, name) for name in names}
