"""Hosts in network namespaces, as far from each other as a table of round trips says.

The forwarder (`forwarder.py`) runs in a namespace of its own and opens a TUN device a host there;
each is then moved into the namespace of its host. When the forwarder ends, the devices are gone.
"""

import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from forwarder import address
from netns import Unavailable, ip

TUN = Path("/dev/net/tun")
NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_SO_TIMESTAMPNS = 35  # the kernel's time of arrival, time(7)
_ECHO = 8
_PATIENCE_S = 5.0


class Internet:
    """One namespace a host; everything goes with the stack. Raises Unavailable."""

    def __init__(self, stack: ExitStack, rtt_ms: Sequence[Sequence[float]]) -> None:
        if os.name != "posix" or os.geteuid() != 0:
            raise Unavailable("network namespaces are made by root only")
        if shutil.which("ip") is None:
            raise Unavailable("iproute2 (ip) is not installed")
        if not TUN.exists():
            raise Unavailable(f"there is no {TUN}: this kernel has no TUN devices")
        self.rtt_ms = rtt_ms
        self.hosts = range(len(rtt_ms))
        self._hub = f"dhtos-{os.getpid()}-hub"
        try:
            self._make(stack)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"no namespaces: {error.stderr.strip()}") from error

    def name(self, host: int) -> str:
        """The namespace of a host."""
        return f"dhtos-{os.getpid()}-{host}"

    def _make(self, stack: ExitStack) -> None:
        for name in (self._hub, *map(self.name, self.hosts)):
            ip("ip", "netns", "add", name)
            stack.callback(ip, "ip", "netns", "del", name)
        program = str(Path(__file__).with_name("forwarder.py"))
        self._forwarder = subprocess.Popen(
            ["ip", "netns", "exec", self._hub, sys.executable, program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.enter_context(self._forwarder)
        stack.callback(self._forwarder.kill)
        assert self._forwarder.stdin is not None
        assert self._forwarder.stdout is not None
        assert self._forwarder.stderr is not None
        self._forwarder.stdin.write(json.dumps(list(map(list, self.rtt_ms))) + "\n")
        self._forwarder.stdin.flush()
        if self._forwarder.stdout.readline() != "ready\n":
            raise Unavailable(f"no forwarder: {self._forwarder.stderr.read().strip()[-200:]}")
        for host in self.hosts:
            wire, name = f"wire{host}", self.name(host)
            ip("ip", "-n", self._hub, "link", "set", wire, "netns", name)
            ip("ip", "-n", name, "address", "add", f"{address(host)}/24", "dev", wire)
            ip("ip", "-n", name, "link", "set", wire, "up")
            ip("ip", "-n", name, "link", "set", "lo", "up")

    def inside(self, host: int, *words: str) -> list[str]:
        """The command that runs a command on a host."""
        return ["ip", "netns", "exec", self.name(host), *words]

    def report(self) -> dict[str, float]:
        """Stop the forwarder and hear how late it was."""
        out, _ = self._forwarder.communicate(timeout=_PATIENCE_S)
        return json.loads(out)

    def ping_ms(self, host: int, *, rounds: int = 5) -> dict[int, float]:
        """The shortest of some round trips from a host to each other one, by ICMP."""
        found: dict[int, float] = {}
        others = [other for other in self.hosts if other != host]
        with self._icmp_socket(host) as sock:
            for number in range(rounds):
                for other, rtt_ms in _echo(sock, others, number).items():
                    found[other] = min(rtt_ms, found.get(other, rtt_ms))
        return found

    def _icmp_socket(self, host: int) -> socket.socket:
        """A socket stays in the namespace it was made in: a thread of its own visits that one."""
        made: list[socket.socket] = []
        libc = ctypes.CDLL(None, use_errno=True)

        def visit() -> None:
            with (NAMESPACES / self.name(host)).open() as namespace:
                if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))

        visitor = Thread(target=visit)
        visitor.start()
        visitor.join()
        (sock,) = made
        return sock


def _echo(sock: socket.socket, hosts: Sequence[int], number: int) -> dict[int, float]:
    """One echo request to each host, RFC 792, and the milliseconds until each answered."""
    sent = {}
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)  # we may be slow to look
    for host in hosts:
        body = struct.pack(">BBHHH", _ECHO, 0, 0, host, number)
        body = body[:2] + struct.pack(">H", _checksum(body)) + body[4:]
        sent[host] = time.time()
        sock.sendto(body, (address(host), 0))
    found: dict[int, float] = {}
    deadline = time.monotonic() + _PATIENCE_S
    while len(found) < len(sent) and (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            packet, (stamp,), _, _ = sock.recvmsg(1500, 64)
        except TimeoutError:
            return found
        seconds, nanoseconds = struct.unpack("@ll", stamp[2])
        kind, _, _, host, which = struct.unpack_from(">BBHHH", packet, 4 * (packet[0] & 15))
        if kind == 0 and which == number and host in sent:
            found[host] = 1000 * (seconds + nanoseconds / 1e9 - sent[host])
    return found


def _checksum(body: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f">{len(body) // 2}H", body))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
