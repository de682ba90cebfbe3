"""The smallest engine there is: it answers, nothing more.

`EchoEngine` tests the simulator alone and measures what the simulator itself costs.
"""

from math import inf

from dhtos.core.ids import Endpoint


class EchoEngine:
    """Answers every datagram that starts with `h` once, with the same bytes after an `r`."""

    __slots__ = ("_due", "_outbox", "beat_s", "received", "ticks")

    def __init__(self, beat_s: float = inf, now: float = 0.0) -> None:
        self.beat_s = beat_s
        self.received = 0
        self.ticks = 0
        self._due = now + beat_s
        self._outbox: list[tuple[bytes, Endpoint]] = []

    def send(self, datagram: bytes, target: Endpoint) -> None:
        """Say something to somebody."""
        self._outbox.append((datagram, target))

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        """Count a datagram, and answer a greeting."""
        self.received += 1
        if datagram[:1] == b"h":
            self._outbox.append((b"r" + datagram, source))

    def tick(self, now: float) -> None:
        """Count the beats that are due."""
        if now >= self._due:
            self.ticks += 1
            self._due = now + self.beat_s

    def next_deadline(self) -> float:
        """The next beat."""
        return self._due

    def outbox(self) -> list[tuple[bytes, Endpoint]]:
        """Take the answers."""
        taken, self._outbox = self._outbox, []
        return taken

    def events(self) -> list[object]:
        """Nothing ever happens here."""
        return []

    def check(self) -> None:
        """Assert that the counts make sense."""
        assert self.received >= 0
        assert self.ticks >= 0
