"""How far are a few nodes really? One ping each, all at once.

A prediction says whom to measure, a measurement who is closest (Wong, Slivkins and Sirer, Meridian,
SIGCOMM 2005).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dhtos.core.coordinate import Coordinate
from dhtos.core.ids import Endpoint
from dhtos.protocol.calls import Call
from dhtos.protocol.operation import Operation

if TYPE_CHECKING:
    from dhtos.protocol.rpc import Core


class Probing:
    """Pings in flight; `operation` ends with the round trips, in seconds, of those that answered.

    Nobody knows whether a late reply is to the ping or to its retransmission (Karn's rule, RFC
    6298); it counts from the first, so that nobody seems closer than it is, and is no sample. The
    other replies place us better, where `asked` says where whoever answers is. `found` is what has
    come so far.
    """

    def __init__(
        self, core: "Core", sender: bytes, asked: Mapping[Endpoint, Coordinate | None], now: float
    ) -> None:
        self.operation: Operation[dict[Endpoint, float]] = core.operation(self._on_cancel)
        self._calls = core.calls
        self._place = core.place
        self._asked = asked
        self.found: dict[Endpoint, float] = {}
        self._late: set[Endpoint] = set()
        self._open = {core.calls.send(endpoint, "ping", [sender], self, now) for endpoint in asked}
        self._end()

    def on_reply(self, call: Call, _value: object, _trailer: list[Any] | None, now: float) -> None:
        """Somebody is there."""
        endpoint, rtt_s = call.endpoint, now - call.sent_at
        self.found[endpoint] = rtt_s
        there = self._asked[endpoint]
        if there is not None and endpoint not in self._late:
            self._place.measured(endpoint, there, rtt_s, now)
        self._ended(call)

    def on_late(self, call: Call, now: float) -> None:
        """It was asked once more and may still answer."""
        self._late.add(call.endpoint)

    def on_failure(self, call: Call, _now: float) -> None:
        """Nobody is there."""
        self._ended(call)

    def _ended(self, call: Call) -> None:
        self._open.discard(call)
        self._end()

    def _end(self) -> None:
        if not self._open:
            self.operation.finish(self.found)

    def _on_cancel(self, _now: float) -> None:
        for call in self._open:
            self._calls.cancel(call)
        self._open.clear()
