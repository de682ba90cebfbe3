"""Which address to tell the fleet: how others see us, learned in the order of what is surest.

A configured host; the one address we are bound to; what a seed says it sees (`stun`, which also
sees through a NAT); the interface towards the first seed; of a machine on its own the loopback, or,
where it is the first of a cluster that others are to join, the interface towards all others.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from dhtos.core.ids import Endpoint
from dhtos.errors import NoPeers, Unreachable
from dhtos.node.config import parse_endpoint
from dhtos.protocol.calls import Call
from dhtos.protocol.operation import Operation
from dhtos.protocol.rpc import Core
from dhtos.transport.driver import Driver
from dhtos.transport.udp import UdpSocket

STUN_SEEDS_MAX = 3
LOOPBACK = "127.0.0.1"
_ELSEWHERE: Sequence[Endpoint] = (("192.0.2.1", 9), ("2001:db8::1", 9))  # RFC 5737, RFC 3849


async def resolve(texts: Sequence[str], sock: UdpSocket) -> list[Endpoint]:
    """The endpoints of these seeds that the socket can send to; names go through a thread.

    Raises NoPeers when there are seeds and none of them has an address.
    """
    loop = asyncio.get_running_loop()
    found: list[Endpoint] = []
    failures = []
    for text in texts:
        host, port = parse_endpoint(text)
        try:
            answers = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            failures.append(f"{text} ({error})")
            continue
        usable = [
            endpoint for answer in answers if (endpoint := sock.reachable(str(answer[4][0]), port))
        ]
        if usable:
            found.append(usable[0])
        else:
            failures.append(f"{text} (not reachable from {sock.endpoint[0]})")
    if failures and not found:
        raise NoPeers(f"no seed has an address: {', '.join(failures)}")
    return found


async def learn(
    configured: str | None,
    driver: Driver,
    core: Core,
    seeds: Sequence[Endpoint],
    *,
    alone: str = LOOPBACK,
) -> Endpoint:
    """The endpoint to advertise; with the host `alone` where there is nobody to ask."""
    host, port = driver.socket.endpoint
    if configured is not None:
        return configured, port
    if not ipaddress.ip_address(host).is_unspecified:
        return host, port
    for seed in seeds[:STUN_SEEDS_MAX]:
        try:
            return await driver.wait(stun(core, seed, driver.clock()))
        except Unreachable:
            continue
    if seeds:
        return _towards(seeds[0]) or LOOPBACK, port
    return alone, port


def outward() -> str:
    """The address of this machine on its way to all others; the loopback's where there is none."""
    return next(filter(None, map(_towards, _ELSEWHERE)), LOOPBACK)


def stun(core: Core, seed: Endpoint, now: float) -> Operation[Endpoint]:
    """Ask a node which address our datagrams come from; ends with NoPeers if it is silent."""
    asking = _Stun(core)
    asking.call = core.calls.send(seed, "stun", [], asking, now)
    return asking.operation


class _Stun:
    """The owner of one `stun` call."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.call: Call | None = None
        self.operation: Operation[Endpoint] = core.operation(self._on_cancel)

    def _on_cancel(self, _now: float) -> None:
        if self.call is not None:
            self._core.calls.cancel(self.call)

    def on_reply(self, call: Call, value: object, _trailer: list[Any] | None, _now: float) -> None:
        """The peer says where we are; an address nobody can send to is no answer."""
        endpoint = _endpoint(value)
        if endpoint is None:
            self._core.counters["replies_malformed"] += 1
            self.operation.fail(NoPeers(f"{call.endpoint[0]} gave no usable address"))
        else:
            self.operation.finish(endpoint)

    def on_late(self, call: Call, now: float) -> None:
        """Sent once more: nothing to do."""

    def on_failure(self, call: Call, _now: float) -> None:
        """Silence."""
        self.operation.fail(NoPeers(f"{call.endpoint[0]} does not answer"))


def _endpoint(value: object) -> Endpoint | None:
    match value:
        case [str() as host, int() as port] if type(port) is int and 0 < port < 65536:
            try:
                address = ipaddress.ip_address(host)
            except ValueError:
                return None
            if not address.is_unspecified and not address.is_multicast:
                return str(address), port
    return None


def _towards(seed: Endpoint) -> str | None:
    """Our address on the way to a seed: connecting a UDP socket sends nothing."""
    family = socket.AF_INET6 if ":" in seed[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(seed)
        except OSError:
            return None
        return str(probe.getsockname()[0])
