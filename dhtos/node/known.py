"""What is known while a node runs: whom to ask for a hub, where somebody is, what was carried."""

from collections.abc import Iterable

from dhtos.core.coordinate import Coordinate
from dhtos.core.ids import Endpoint
from dhtos.errors import NoPeers
from dhtos.protocol.engine import Engine
from dhtos.protocol.hub import Hub
from dhtos.protocol.peers import Capability
from dhtos.transport.udp import UdpSocket

GATEWAYS_MAX = 32


def gateways(engine: Engine, seeds: Iterable[Endpoint]) -> list[Endpoint]:
    """Peers that have shown to be dhtos nodes: the seeds, then contacts."""
    endpoints = [*seeds, *(contact.endpoint for contact in engine.base.contacts())]
    known = [(e, engine.core.peers.known(e)) for e in dict.fromkeys(endpoints)]
    told = [e for e, p in known if p is not None and p.capability is Capability.DHTOS]
    return told[:GATEWAYS_MAX]


def silence(engine: Engine, endpoints: Iterable[Endpoint], error: NoPeers) -> NoPeers:
    """The same error, with what is known of why nobody answered."""
    sessions = engine.core.sessions
    if sessions is None:
        return NoPeers(
            f"{error}; try the address, and UDP; a node of a cluster answers only those who have "
            "joined it with dhtos-node join"
        )
    told = [sessions.refusals[e] for e in endpoints if e in sessions.refusals]
    if told and sessions.member.home:
        home = sessions.member.home.hex()
        return NoPeers(f"{error} ({told[0]}); ask there for dhtos-node guests add {home}")
    if told:
        return NoPeers(f"{error} ({told[0]}); try a member of the cluster that this machine joined")
    return NoPeers(
        f"{error}; try the address, and UDP; a node in open mode does not answer members of a "
        "cluster"
    )


def refusals(engine: Engine) -> list[str]:
    """Why members refuse to speak with us, each reason once and by whom it was told last."""
    sessions = engine.core.sessions
    if sessions is None:
        return []
    told = {why: endpoint for endpoint, why in sessions.refusals.items()}
    return [f"{host}:{port} and we do not speak: {why}" for why, (host, port) in told.items()]


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
