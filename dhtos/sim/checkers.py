"""What must hold of any run, whatever the protocol: rules checked while the cluster runs.

A checker sees every batch a node sends and every datagram that arrives, and raises
AssertionError; the cluster turns it into a `SimulationError` with the seed. Give a cluster
`standard()` in tests. A cluster without checkers pays nothing for them.
"""

from collections.abc import Sequence
from typing import Generic

from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import REQUEST_PAYLOAD_BYTES_MAX, TRAILER_BYTES_MAX
from dhtos.sim.node import E, SimNode

_FRAME_BYTES = 1 + ID_BYTES
OUTBOX_MAX = 1024  # datagrams one engine may send at one moment
DATAGRAM_BYTES_MAX = _FRAME_BYTES + REQUEST_PAYLOAD_BYTES_MAX + TRAILER_BYTES_MAX
REPLY_AFTER_S = 60.0  # a reply this late answers nobody


class Checker(Generic[E]):
    """A rule: override what it needs to see. Times are virtual seconds of the cluster."""

    def sent(
        self, now: float, node: SimNode[E], outgoing: Sequence[tuple[bytes, Endpoint]]
    ) -> None:
        """A node sends a batch."""

    def delivered(self, now: float, node: SimNode[E], datagram: bytes, source: SimNode[E]) -> None:
        """A datagram is about to be received by a node that is up."""

    def inspect(self, now: float, nodes: Sequence[SimNode[E]]) -> None:
        """Look at the whole cluster; called every `check_every` moments."""


class EngineInvariants(Checker[E]):
    """Every engine's own `check()` passes."""

    def inspect(self, now: float, nodes: Sequence[SimNode[E]]) -> None:
        """Check every machine and its engine."""
        for node in nodes:
            try:
                node.check()
            except AssertionError as error:
                error.add_note(f"in {node!r}")
                raise


class BoundedOutbox(Checker[E]):
    """No engine sends more than a bounded burst at one moment."""

    def __init__(self, datagrams_max: int = OUTBOX_MAX) -> None:
        self.datagrams_max = datagrams_max

    def sent(
        self, now: float, node: SimNode[E], outgoing: Sequence[tuple[bytes, Endpoint]]
    ) -> None:
        """Count the batch."""
        assert len(outgoing) <= self.datagrams_max, (
            f"{node!r} sends {len(outgoing)} datagrams at once, at most {self.datagrams_max}"
        )


class BoundedDatagrams(Checker[E]):
    """Every datagram is `bytes`, and not too long."""

    def __init__(self, bytes_max: int = DATAGRAM_BYTES_MAX) -> None:
        self.bytes_max = bytes_max

    def sent(
        self, now: float, node: SimNode[E], outgoing: Sequence[tuple[bytes, Endpoint]]
    ) -> None:
        """Measure each datagram."""
        for datagram, endpoint in outgoing:
            assert type(datagram) is bytes, f"{node!r} sends a {type(datagram).__name__}"
            assert len(datagram) <= self.bytes_max, (
                f"{node!r} sends {len(datagram)} bytes to {endpoint}, at most {self.bytes_max}"
            )


class RepliesAnswerRequests(Checker[E]):
    """A node replies only to who asked it, with the id of the request, within a minute."""

    def __init__(self, within_s: float = REPLY_AFTER_S) -> None:
        self.within_s = within_s
        # Who was asked, by whom, under which id -> when; oldest first, since time only grows.
        self._asked: dict[tuple[int, Endpoint, bytes], float] = {}

    def sent(
        self, now: float, node: SimNode[E], outgoing: Sequence[tuple[bytes, Endpoint]]
    ) -> None:
        """Find the request of every reply."""
        for datagram, endpoint in outgoing:
            if datagram[:1] == b"\x01":
                asked_at = self._asked.get((node.index, endpoint, datagram[1:_FRAME_BYTES]))
                assert asked_at is not None, (
                    f"{node!r} sends {endpoint} a reply to nothing asked: {datagram[:48].hex()}"
                )

    def delivered(self, now: float, node: SimNode[E], datagram: bytes, source: SimNode[E]) -> None:
        """Remember a request, forget the old ones."""
        asked = self._asked
        while asked:
            oldest = next(iter(asked))
            if asked[oldest] >= now - self.within_s:
                break
            del asked[oldest]
        if datagram[:1] == b"\x00":
            key = (node.index, source.endpoint, datagram[1:_FRAME_BYTES])
            asked.pop(key, None)  # filed again, so that the order stays by time
            asked[key] = now


def standard() -> list[Checker[E]]:
    """The rules that every dhtos engine must keep."""
    return [EngineInvariants(), BoundedOutbox(), BoundedDatagrams(), RepliesAnswerRequests()]
