"""One UDP socket of our own, read in batches.

asyncio's datagram transport reads one datagram per wake-up of the loop, which costs a node
three to five times its throughput and leaves it deaf under a flood. Here `receive_into` drains
what waits, up to a bound, and the driver decides what happens between two drains.

The module knows sockets and addresses; it must not know what a datagram means. Nothing a peer
sends or names may block the loop: a destination that is not a numeric unicast address is
dropped and counted, never looked up.
"""

import asyncio
import errno
import ipaddress
import socket
from collections import deque
from collections.abc import Callable

from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    DATAGRAM_BYTES_MAX,
    DRAIN_DATAGRAMS_MAX,
    RECEIVE_BUFFER_BYTES,
    SEND_ADDRESSES_MAX,
    SEND_QUEUE_DATAGRAMS_MAX,
)
from dhtos.errors import ConfigError

Sink = Callable[[bytes, Endpoint, float], None]
"""`sink(datagram, source, now)` takes one datagram."""

_MAPPED = "::ffff:"


class UdpSocket:
    """A bound, non-blocking UDP socket; IPv4-mapped addresses never leave it.

    Raises ConfigError when `host` is not a numeric address of this machine or the port is taken.
    """

    def __init__(self, host: str, port: int) -> None:
        address = parse_host(host)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._six = family == socket.AF_INET6
        # Only the IPv6 wildcard serves both families: a single address has one.
        self._dual = self._six and address.is_unspecified
        self._socket = _bound(family, host, port, dual=self._dual)
        name = self._socket.getsockname()
        self.endpoint: Endpoint = (name[0], name[1])
        self.received = 0
        self.sent = 0
        self.dropped = 0
        self.errors = 0
        self._queue: deque[tuple[bytes, Endpoint]] = deque()
        self._addresses: dict[Endpoint, Endpoint | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing = False
        self.closed = False

    @property
    def queued(self) -> int:
        """Datagrams that wait for the kernel to take more."""
        return len(self._queue)

    def reachable(self, host: str, port: int) -> Endpoint | None:
        """The endpoint in the form this socket uses, or None if it cannot send there."""
        return None if self._sendable((host, port)) is None else (host, port)

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` on `loop` whenever datagrams wait."""
        assert self._loop is None
        self._loop = loop
        loop.add_reader(self._socket.fileno(), on_readable)

    def receive_into(self, sink: Sink, now: float, limit: int = DRAIN_DATAGRAMS_MAX) -> int:
        """Hand up to `limit` waiting datagrams to `sink`; says how many there were."""
        if self.closed:
            return 0
        receive = self._socket.recvfrom
        six = self._six
        count = 0
        for _ in range(limit):
            try:
                datagram, source = receive(DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error of something sent earlier: it says nothing about this read.
                self.errors += 1
                continue
            count += 1
            sink(datagram, _unmapped(source) if six else source, now)
        self.received += count
        return count

    def send_all(self, outbox: list[tuple[bytes, Endpoint]]) -> None:
        """Send in order; what the kernel cannot take now waits, what exceeds the queue drops."""
        if self.closed:
            return
        if self._queue:
            self._enqueue(outbox)
            return
        addresses, send = self._addresses, self._socket.sendto
        sent = 0
        for index, (datagram, endpoint) in enumerate(outbox):
            try:
                address = addresses[endpoint]
            except KeyError:
                address = self._remember(endpoint)
            if address is None:
                self.dropped += 1
                continue
            try:
                send(datagram, address)
            except BlockingIOError:
                self._enqueue(outbox[index:])
                break
            except OSError:
                # Refused by ICMP, unroutable, too long or out of buffers: to the engine all of
                # these are a lost datagram, which it handles anyway.
                self.errors += 1
                continue
            sent += 1
        self.sent += sent

    def close(self) -> None:
        """Close at once; what still waits is dropped and counted."""
        if self.closed:
            return
        self.closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            if self._writing:
                self._loop.remove_writer(self._socket.fileno())
        self.dropped += len(self._queue)
        self._queue.clear()
        self._socket.close()

    def _enqueue(self, outbox: list[tuple[bytes, Endpoint]]) -> None:
        room = SEND_QUEUE_DATAGRAMS_MAX - len(self._queue)
        self._queue.extend(outbox[:room])
        self.dropped += max(0, len(outbox) - room)
        assert len(self._queue) <= SEND_QUEUE_DATAGRAMS_MAX
        if self._loop is not None and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        waiting = list(self._queue)
        self._queue.clear()
        self.send_all(waiting)
        if not self._queue and self._loop is not None:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    def _remember(self, endpoint: Endpoint) -> Endpoint | None:
        """The form of `endpoint` this socket can send to; None when there is none."""
        if len(self._addresses) >= SEND_ADDRESSES_MAX:
            self._addresses.clear()
        address = self._sendable(endpoint)
        self._addresses[endpoint] = address
        return address

    def _sendable(self, endpoint: Endpoint) -> Endpoint | None:
        host, port = endpoint
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None
        if not 0 < port < 65536 or address.is_multicast or address.is_unspecified:
            return None
        if address.version == 6:
            return endpoint if self._six else None
        if not self._six:
            return endpoint
        return (_MAPPED + host, port) if self._dual else None


def parse_host(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The numeric address to bind; raises ConfigError for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(
            f'host must be a numeric address like "0.0.0.0" or "::", got {host!r}'
        ) from None


def _unmapped(source: tuple[str, int, int, int]) -> Endpoint:
    return source[0].removeprefix(_MAPPED), source[1]


def _bound(family: socket.AddressFamily, host: str, port: int, *, dual: bool) -> socket.socket:
    """A non-blocking socket bound to the endpoint, with a large receive buffer."""
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise ConfigError(f"host {host}: this machine has no {family.name}") from error
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(_bind_failure(error, host, port)) from error
    except OverflowError as error:
        sock.close()
        raise ConfigError(f"port must be 0..65535, got {port}") from error
    return sock


def _bind_failure(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: choose another with --port, or 0 for any"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} needs privileges: choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host {host} is not an address of this machine: use 0.0.0.0 or :: for all"
    return f"cannot listen on {host} port {port}: {error.strerror}"
