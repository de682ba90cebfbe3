"""A socket on the simulated network, for a program that brings its own event loop and engine.

`dhtos.Node(..., open_socket=sockets(cluster))` on a `dhtos.sim.loop.VirtualLoop` talks to the
nodes of the cluster and to other embedded nodes, under the same delays, weather and cuts. For the
cluster the program is a guest: a node whose engine is a mailbox.
"""

import asyncio
import ipaddress
from collections import deque
from collections.abc import Callable
from math import inf

from dhtos.core.ids import Endpoint
from dhtos.core.limits import DRAIN_DATAGRAMS_MAX
from dhtos.sim.cluster import Cluster
from dhtos.sim.network import SOCKET_BUFFER_MAX
from dhtos.sim.node import SimEngine
from dhtos.transport.udp import Sink, UdpSocket


class Mailbox:
    """The engine of a guest: keeps what arrives until the program reads it."""

    __slots__ = ("inbox", "on_arrival", "outgoing", "overflowed")

    def __init__(self) -> None:
        self.inbox: deque[tuple[bytes, Endpoint]] = deque()
        self.outgoing: list[tuple[bytes, Endpoint]] = []
        self.overflowed = 0
        self.on_arrival: Callable[[], None] | None = None

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        """Keep one datagram, or lose it when the buffer is full."""
        if len(self.inbox) < SOCKET_BUFFER_MAX:
            self.inbox.append((datagram, source))
        else:
            self.overflowed += 1

    def tick(self, now: float) -> None:
        """Tell the program that it has mail."""
        if self.inbox and self.on_arrival is not None:
            self.on_arrival()

    def next_deadline(self) -> float:
        """A mailbox has no timers."""
        return inf

    def outbox(self) -> list[tuple[bytes, Endpoint]]:
        """Take what the program sends."""
        taken, self.outgoing = self.outgoing, []
        return taken

    def events(self) -> list[object]:
        """A mailbox has no events."""
        return []

    def check(self) -> None:
        """Assert that the buffer is bounded."""
        assert len(self.inbox) <= SOCKET_BUFFER_MAX


class SimSocket(UdpSocket):
    """`UdpSocket` without a kernel; every public method of it is replaced here."""

    def __init__(self, cluster: Cluster[SimEngine], host: str, port: int) -> None:
        # UdpSocket.__init__ is not called: it would open a real socket.
        self._cluster = cluster
        self._mailbox = Mailbox()
        wild = ipaddress.ip_address(host).is_unspecified
        self._guest = cluster.add_guest(self._mailbox, None if wild else host, port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_readable: Callable[[], None] | None = None
        self._announced = False
        self.endpoint = self._guest.endpoint
        self.received = 0
        self.sent = 0
        self.dropped = 0
        self.errors = 0
        self.closed = False

    @property
    def queued(self) -> int:
        """Nothing ever waits: the simulated network takes all at once."""
        return 0

    def reachable(self, host: str, port: int) -> Endpoint | None:
        """The endpoint itself, if it is a numeric address."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return None
        return host, port

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` on `loop` whenever datagrams wait."""
        assert self._loop is None
        self._loop = loop
        self._on_readable = on_readable
        self._mailbox.on_arrival = self._announce
        if self._mailbox.inbox:
            self._announce()

    def receive_into(self, sink: Sink, now: float, limit: int = DRAIN_DATAGRAMS_MAX) -> int:
        """Hand up to `limit` waiting datagrams to `sink`; says how many there were."""
        inbox = self._mailbox.inbox
        count = 0 if self.closed else min(limit, len(inbox))
        for _ in range(count):
            datagram, source = inbox.popleft()
            sink(datagram, source, now)
        self.received += count
        return count

    def send_all(self, outbox: list[tuple[bytes, Endpoint]]) -> None:
        """Send in order, at the present virtual moment."""
        if self.closed or not outbox:
            return
        self.sent += len(outbox)
        mailbox = self._mailbox
        if self._guest.up:
            self._cluster.begin(self._guest, lambda _engine, _now: mailbox.outgoing.extend(outbox))
        else:
            self.dropped += len(outbox)  # the cluster took this machine down

    def close(self) -> None:
        """Leave the network; the address is free again."""
        if not self.closed:
            self.closed = True
            self._mailbox.on_arrival = None
            self._cluster.remove_guest(self._guest)

    def _announce(self) -> None:
        if self._loop is not None and not self._announced and not self.closed:
            self._announced = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._announced = False
        if self.closed or self._on_readable is None:
            return
        self._on_readable()
        if self._mailbox.inbox:
            self._announce()  # as a real loop: what was not read is readable still


def sockets(cluster: Cluster[SimEngine]) -> Callable[[str, int], UdpSocket]:
    """What to pass as `dhtos.Node(open_socket=...)`.

    A wildcard host is given the next free address of the cluster, port 0 the usual port.
    """
    return lambda host, port: SimSocket(cluster, host, port)
