"""A contact: a remote node as an overlay knows it, an id and where to send."""

from dataclasses import dataclass

from dhtos.core.ids import Endpoint


@dataclass(frozen=True, slots=True)
class Contact:
    """A remote node in one overlay: `id` is its base id, or its key in a hub.

    What is measured about the machine behind it (round-trip time, capabilities) is shared by
    all overlays and lives in `dhtos.protocol.peers`, keyed by the endpoint.
    """

    id: bytes
    endpoint: Endpoint

    def to_wire(self) -> list[bytes | str | int]:
        """`[id, host, port]`, the triple of the stock `find_node` reply."""
        return [self.id, self.endpoint[0], self.endpoint[1]]
