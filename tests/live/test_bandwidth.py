"""Bandwidth between network namespaces of our own making, behind a shaper; and on loopback."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from random import Random

import pytest

from dhtos.core.ids import NodeId
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import make_record, row_id
from dhtos.errors import LookupExpired, UsageError
from dhtos.node.bandwidth import Meter
from dhtos.protocol.engine import Engine
from dhtos.transport.driver import Driver
from dhtos.transport.udp import UdpSocket

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


def ip(*words):
    """Run one command of iproute2; raises CalledProcessError."""
    subprocess.run(words, check=True, capture_output=True, text=True)


class Namespaces:
    """Two network namespaces, joined by a wire."""

    def __init__(self, stack):
        self.names = [f"dhtos-{os.getpid()}-{side}" for side in "ab"]
        for name in self.names:
            ip("ip", "netns", "add", name)
            stack.callback(ip, "ip", "netns", "del", name)
        a, b = self.names
        ip("ip", "link", "add", "wire", "netns", a, "type", "veth", "peer", "wire", "netns", b)
        for name, host in zip(self.names, (HERE, THERE), strict=True):
            ip("ip", "-n", name, "address", "add", f"{host}/24", "dev", "wire")
            ip("ip", "-n", name, "link", "set", "wire", "up")

    def shape(self, mbit, burst_bytes):
        """Hold back what leaves the first one: `tc-tbf(8)`."""
        words = f"root tbf rate {mbit}mbit burst {burst_bytes} latency 400ms"
        ip("tc", "-n", self.names[0], "qdisc", "replace", "dev", "wire", *words.split())

    def run(self, stack, side, host, peer=""):
        """Start a node in a namespace; it ends with the test."""
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
        assert process.stdout.readline() == "ready\n"
        return process


@pytest.fixture
def namespaces():
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("network namespaces are made by root only")
    if not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("iproute2 (ip, tc) is not installed")
    with ExitStack() as stack:
        try:
            made = Namespaces(stack)
            made.shape(100, 32_000)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"namespaces or tbf cannot be used here: {error.stderr.strip()}")
        yield made


@pytest.mark.parametrize(
    ("mbit", "burst_bytes"), [(5, 4_000), (5, 64_000), (20, 32_000), (50, 32_000), (50, 128_000)]
)
def test_bandwidth_behind_a_shaper(namespaces, mbit, burst_bytes):
    namespaces.shape(mbit, burst_bytes)
    with ExitStack() as stack:
        namespaces.run(stack, 1, THERE)
        asking = namespaces.run(stack, 0, HERE, f"{THERE}:{PORT}")
        estimate = json.loads(asking.stdout.readline())
    assert estimate["bytes_per_s"] * 8 / 1e6 == pytest.approx(mbit, rel=0.1)


# --- the meter of a node, on loopback -------------------------------------------------------------


class Fleet:
    """Nodes on loopback, without tasks of their own."""

    def __init__(self, stack):
        self._stack = stack
        self.records = []

    def add(self):
        loop = asyncio.get_running_loop()
        rng = Random(len(self.records))
        engine = Engine(rng.randbytes(20), rng=rng, now=loop.time(), schema=MACHINE_SCHEMA)
        driver = Driver(engine, UdpSocket("127.0.0.1", 0), loop)
        self._stack.push_async_callback(driver.aclose)
        record = make_record(
            MACHINE_SCHEMA,
            {"cores": 4},
            {},
            node_id=engine.id,
            endpoint=driver.socket.endpoint,
            seq=1,
            identity=rng.randbytes(32),
        )
        self.records.append(record)
        engine.hub.advertise(record, loop.time())
        engine.hub.found(loop.time())
        return engine, driver, Meter(engine, driver)


def text_of(driver):
    host, port = driver.socket.endpoint
    return f"{host}:{port}"


def test_a_meter_measures_once_and_remembers(run):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            fleet = Fleet(stack)
            _, asking, meter = fleet.add()
            _, other, _ = fleet.add()
            peer = text_of(other)
            assert meter.known(peer) is None
            first = await meter.bandwidth(peer)
            assert first.bytes_per_s > 10**6
            sent = asking.socket.sent
            again = await meter.bandwidth(peer)
            assert asking.socket.sent == sent
            assert again.bytes_per_s == first.bytes_per_s == meter.known(peer).bytes_per_s
            assert again.age_s > 0
            await meter.bandwidth(peer, max_age_s=0)
            assert asking.socket.sent > sent

    run(main)


def test_measuring_ourselves_by_id_and_strangers_not(run):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            fleet = Fleet(stack)
            engine, driver, meter = fleet.add()
            own = NodeId(engine.id)
            assert meter.endpoint_of(own) == driver.socket.endpoint
            hit = engine.hub.hit(fleet.records[0], 0.0)
            assert meter.endpoint_of(hit) == driver.socket.endpoint
            with pytest.raises(UsageError, match="no member of this node's group"):
                meter.endpoint_of(NodeId(bytes(20)))
            for odd in ("localhost:7400", "10.0.0.1:99999", "224.0.0.1:7400", "10.0.0.1"):
                with pytest.raises(UsageError):
                    meter.endpoint_of(odd)
            for age in (-1.0, float("nan"), float("inf")):
                with pytest.raises(UsageError, match="max_age_s"):
                    await meter.bandwidth(text_of(driver), max_age_s=age)

    run(main)


def test_a_machine_behind_a_gateway_is_not_measured(run):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            fleet = Fleet(stack)
            engine, _, meter = fleet.add()
            record = make_record(
                MACHINE_SCHEMA,
                {"cores": 4},
                {},
                node_id=row_id(bytes(32), "r1"),
                endpoint=("127.0.0.1", 7400),
                seq=1,
                identity=bytes(32),
                row="r1",
            )
            with pytest.raises(UsageError, match="gateway"):
                meter.endpoint_of(engine.hub.hit(record, 0.0))

    run(main)


def test_a_cancelled_measurement_leaves_nothing(run):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            fleet = Fleet(stack)
            engine, _, meter = fleet.add()
            silent = UdpSocket("127.0.0.1", 0)
            stack.callback(silent.close)
            host, port = silent.endpoint
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await meter.bandwidth(f"{host}:{port}")
            assert len(engine.core.calls) == 0
            with pytest.raises(LookupExpired, match="does not answer trains"):
                await meter.bandwidth(f"{host}:{port}")

    run(main)
