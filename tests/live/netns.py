"""Two network namespaces joined by a wire with a shaper, and a node in each."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack

HERE, THERE = "10.213.7.1", "10.213.7.2"
PORT = 7400
CHILD = """
import asyncio, json, sys
from dataclasses import asdict
from random import Random
from dhtos.node.bandwidth import Meter
from dhtos.protocol.engine import Engine
from dhtos.transport.driver import Driver
from dhtos.transport.udp import UdpSocket

async def main(host, port, peer):
    loop = asyncio.get_running_loop()
    socket = UdpSocket(host, port)
    engine = Engine(Random(port).randbytes(20), rng=Random(port), now=loop.time())
    driver = Driver(engine, socket, loop)
    meter = Meter(engine, driver)
    print("ready", flush=True)
    if peer:
        print(json.dumps(asdict(await meter.bandwidth(peer))), flush=True)
    else:
        await asyncio.to_thread(sys.stdin.readline)
    await driver.aclose()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
"""


class Unavailable(Exception):
    """Why this machine lets us make no namespaces."""


def ip(*words: str) -> None:
    """Run one command of iproute2; raises CalledProcessError."""
    subprocess.run(words, check=True, capture_output=True, text=True)


class Namespaces:
    """Both ends; everything goes with the stack. Raises Unavailable."""

    def __init__(self, stack: ExitStack) -> None:
        if os.name != "posix" or os.geteuid() != 0:
            raise Unavailable("network namespaces are made by root only")
        if not (shutil.which("ip") and shutil.which("tc")):
            raise Unavailable("iproute2 (ip, tc) is not installed")
        self.names = [f"dhtos-{os.getpid()}-{side}" for side in "ab"]
        try:
            self._make(stack)
            self.shape(100, 32_000)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"no namespaces, or no tbf: {error.stderr.strip()}") from error

    def _make(self, stack: ExitStack) -> None:
        for name in self.names:
            ip("ip", "netns", "add", name)
            stack.callback(ip, "ip", "netns", "del", name)
        a, b = self.names
        ip("ip", "link", "add", "wire", "netns", a, "type", "veth", "peer", "wire", "netns", b)
        for name, host in zip(self.names, (HERE, THERE), strict=True):
            ip("ip", "-n", name, "address", "add", f"{host}/24", "dev", "wire")
            ip("ip", "-n", name, "link", "set", "wire", "up")

    def shape(self, mbit: int, burst_bytes: int) -> None:
        """Hold back what leaves the first one: `tc-tbf(8)`."""
        words = f"root tbf rate {mbit}mbit burst {burst_bytes} latency 400ms"
        ip("tc", "-n", self.names[0], "qdisc", "replace", "dev", "wire", *words.split())

    def measure(self) -> str:
        """What the node in the first one measures of the way to the other, as JSON."""
        with ExitStack() as stack:
            self._run(stack, 1, THERE)
            asking = self._run(stack, 0, HERE, f"{THERE}:{PORT}")
            assert asking.stdout is not None
            return asking.stdout.readline()

    def _run(
        self, stack: ExitStack, side: int, host: str, peer: str = ""
    ) -> "subprocess.Popen[str]":
        inside = ["ip", "netns", "exec", self.names[side]]
        process = subprocess.Popen(
            [*inside, sys.executable, "-c", CHILD, host, str(PORT), peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process
