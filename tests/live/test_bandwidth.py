"""Bandwidth between network namespaces of our own making, behind a shaper; and on loopback."""

import asyncio
import contextlib
import importlib.util
import json
from contextlib import ExitStack
from pathlib import Path
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

_spec = importlib.util.spec_from_file_location("netns", Path(__file__).with_name("netns.py"))
netns = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(netns)


@pytest.fixture
def namespaces():
    with ExitStack() as stack:
        try:
            made = netns.Namespaces(stack)
        except netns.Unavailable as error:
            pytest.skip(str(error))
        yield made


@pytest.mark.parametrize(
    ("mbit", "burst_bytes"), [(5, 4_000), (5, 64_000), (20, 32_000), (50, 32_000), (50, 128_000)]
)
def test_bandwidth_behind_a_shaper(namespaces, mbit, burst_bytes):
    """A busy processor may cost a quarter; `bench/bandwidth.py` tells what a quiet one sees."""
    namespaces.shape(mbit, burst_bytes)
    estimate = json.loads(namespaces.measure())
    assert estimate["bytes_per_s"] * 8 / 1e6 == pytest.approx(mbit, rel=0.25)


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
            hit = engine.hub.hit(fleet.records[0], 0.0, 0.0)
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
                meter.endpoint_of(engine.hub.hit(record, 0.0, 0.0))

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
