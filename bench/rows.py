"""The rows of the report: each answers one question, against a named baseline of the same run.

A row returns figures only after it has checked that both sides did the work. Rounds of the two
sides alternate, so that a change of load meets both; medians are reported.
"""

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, TypeVar

from kademlia.network import Server
from tables import TARGETS, Tables
from worker import Worker

from dhtos.adapters.kademlia import Server as FastServer
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import make_record
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.sim import Cluster
from dhtos.sim.engines import engines, hub_truth
from dhtos.transport.driver import Driver
from dhtos.transport.udp import UdpSocket

HOST = "127.0.0.1"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report; `ratio` is reached over baseline, both in `unit`."""

    question: str
    unit: str
    reached: float
    baseline: float | None
    target: str
    met: bool

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def closest(rounds: int = 60) -> list[Row]:
    """How long do the 20 closest of 1,000 held contacts take, exactly?"""
    tables = Tables("held")
    tables.check()
    ours, theirs = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        tables.ask_ours()
        middle = time.perf_counter()
        tables.ask_stock()
        ours.append((middle - began) / TARGETS * 1e6)
        theirs.append((time.perf_counter() - middle) / TARGETS * 1e6)
    mine, base = median(ours), median(theirs)
    question = "20 closest of 1,000 contacts, exact (stock `find_neighbors`: inexact)"
    return [Row(question, "us", mine, base, "at most 0.5x", mine * 2 <= base)]


def rpc(rounds: int = 5, seconds: float = 0.6) -> list[Row]:
    """How many pings a second between two processes, 64 and 1 in flight?"""
    sides = [("stock", "asyncio", "ask"), ("dhtos", "asyncio", "call"), ("dhtos", "uvloop", "call")]
    rows = []
    rates: dict[tuple[str, str, int], list[float]] = {}
    for _ in range(rounds):
        for contender, loop, do in sides:
            with (
                Worker("rpc.py", loop, contender) as server,
                Worker("rpc.py", loop, contender) as c,
            ):
                port = server.ask("listen", server=True)
                c.ask("listen", server=False)
                for flight in (64, 1):
                    rate = c.ask(do, port=port, flight=flight, seconds=seconds)
                    assert rate > 0
                    rates.setdefault((contender, loop, flight), []).append(rate)
    for flight, least in ((64, 4.0), (1, 2.5)):
        base = median(rates["stock", "asyncio", flight])
        for loop in ("asyncio", "uvloop"):
            mine = median(rates["dhtos", loop, flight])
            question = f"ping between two processes, {flight} in flight, {loop} (rpcudp: asyncio)"
            target = f"at least {least:g}x"
            rows.append(Row(question, "RPC/s", mine, base, target, mine >= least * base))
    return rows


class Swarm:
    """N nodes of one kind in this process, on loopback."""

    def __init__(self, stock: bool, count: int, k: int) -> None:
        self.stock = stock
        self.count = count
        self.k = k
        self.servers: list[Any] = []

    async def start(self) -> None:
        """Start and join all through the first."""
        kind = Server if self.stock else FastServer
        first = 0
        for _ in range(self.count):
            server = kind(ksize=self.k)
            await server.listen(0, HOST)
            if first:
                await server.bootstrap([(HOST, first)])
            elif self.stock:
                first = server.transport.get_extra_info("sockname")[1]
            else:
                first = server.transport.endpoint[1]
            self.servers.append(server)

    def kill(self, share: float, rng: Random) -> None:
        """Let a share of the nodes fall silent without a word."""
        dying = rng.sample(self.servers[1:], int(share * self.count))
        for server in dying:
            server.stop()
        self.servers = [server for server in self.servers if server not in dying]


async def timed(work: Awaitable[T]) -> tuple[float, T]:
    """Milliseconds and result."""
    began = time.perf_counter()
    result = await work
    return (time.perf_counter() - began) * 1000, result


async def _swarm(stock: bool, count: int, operations: int, after: int) -> dict[str, float]:
    rng = Random(6)
    swarm = Swarm(stock, count, 8)
    await swarm.start()
    sets, gets, late_sets, late_gets = [], [], [], []
    for n in range(operations):
        ms, ok = await timed(rng.choice(swarm.servers).set(f"key-{n}", f"value-{n}"))
        assert ok
        sets.append(ms)
    for n in range(operations):
        ms, value = await timed(rng.choice(swarm.servers).get(f"key-{n}"))
        assert value == f"value-{n}"
        gets.append(ms)
    swarm.kill(0.3, rng)
    for n in range(after):
        ms, value = await timed(rng.choice(swarm.servers).get(f"key-{n % operations}"))
        assert value == f"value-{n % operations}"
        late_gets.append(ms)
    for n in range(max(after // 4, 2)):
        ms, _ = await timed(rng.choice(swarm.servers).set(f"late-{n}", "x"))
        late_sets.append(ms)
    for server in swarm.servers:
        server.stop()
    return {
        "set": median(sets),
        "get": median(gets),
        "late_get": sum(late_gets) / len(late_gets),
        "late_set": sum(late_sets) / len(late_sets),
    }


def swarm(rounds: int = 3, count: int = 64, operations: int = 100) -> list[Row]:
    """How long do `set` and `get` take, N=64, k=8, one process, also after sudden deaths?"""
    ours, theirs = [], []
    for n in range(rounds):
        theirs.append(asyncio.run(_swarm(True, count, operations, 6 if n == 0 else 2)))
        ours.append(asyncio.run(_swarm(False, count, operations, 60)))

    def row(name: str, what: str, target: str, least: Callable[[float, float], bool]) -> Row:
        mine, base = median(r[name] for r in ours), median(r[name] for r in theirs)
        question = f"{what}, {count} nodes, k=8, one process"
        return Row(question, "ms", mine, base, target, least(mine, base))

    return [
        row("get", "get, p50", "at most 0.4x", lambda a, b: a <= 0.4 * b),
        row("set", "set, p50", "at most 0.4x", lambda a, b: a <= 0.4 * b),
        row("late_get", "get after 30 % died, mean", "at most 50 ms", lambda a, _: a <= 50),
        row("late_set", "set after 30 % died, mean", "at most 300 ms", lambda a, _: a <= 300),
    ]


def rss_kib(pid: int | str = "self") -> int:
    """Resident memory of a process, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def daemon(settle_s: float = 8.0) -> list[Row]:
    """How much memory does `dhtos-node run` take?"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dhtos.cli.main", "run", "--host", HOST, "--port", "0"]
        path = os.pathsep.join(filter(None, sys.path))
        process = subprocess.Popen(
            [*command, "--state-dir", folder],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("ready")
            deadline = time.monotonic() + settle_s
            peak = 0
            while time.monotonic() < deadline:
                peak = max(peak, rss_kib(process.pid))
                assert process.poll() is None
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()
    mib = peak / 1024
    return [Row("a daemon with the default extras, RSS", "MiB", mib, None, "at most 35", mib <= 35)]


def _machine(rng: Random) -> dict[str, Any]:
    cores = rng.choice([2, 4, 8, 16, 32, 64, 96, 128])
    return {
        "cores": cores,
        "mem": cores * rng.choice([2, 4, 8]) * 2**30,
        "gpus": rng.choice([0] * 9 + [1]),
        "arch": rng.choice(["x86_64", "arm64"]),
        "price": round(0.02 * cores * rng.lognormvariate(0.0, 0.3) + 0.003, 4),
        "provider": rng.choice(["aws", "azure"]),
        "type": f"type-{rng.randrange(300)}",
        "mem_free": rng.randrange(2**30, 64 * 2**30),
        "load1": round(rng.random() * cores, 2),
    }


async def _many(count: int) -> float:
    rng = Random(8)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        first: tuple[str, int] | None = None
        nodes = []

        async def add() -> None:
            nonlocal first
            socket = UdpSocket(HOST, 0)
            engine = Engine(
                rng.randbytes(20), rng=Random(rng.random()), now=loop.time(), schema=MACHINE_SCHEMA
            )
            driver = Driver(engine, socket, loop)
            stack.push_async_callback(driver.aclose)
            record = make_record(
                MACHINE_SCHEMA,
                _machine(rng),
                {},
                node_id=engine.id,
                endpoint=socket.endpoint,
                seq=1,
                identity=rng.randbytes(32),
            )
            engine.hub.advertise(record, loop.time())
            if first is None:
                first = socket.endpoint
                engine.hub.found(loop.time())
            else:
                await driver.wait(engine.base.bootstrap([first], loop.time()))
                await driver.wait(engine.hub.join([first], loop.time()))
            nodes.append(engine)

        await add()
        gc.collect()
        before = rss_kib()
        for _ in range(count - 1):
            await add()
        for _ in range(200):
            if all(len(engine.hub.group) == count for engine in nodes):
                break
            await asyncio.sleep(0.2)
        assert all(len(engine.hub.group) == count for engine in nodes)
        gc.collect()
        return (rss_kib() - before) / (count - 1)


def nodes(count: int = 200) -> list[Row]:
    """How much memory does one more node take, when each holds everybody's record?"""
    kib = asyncio.run(_many(count))
    question = f"one more node in a process of {count}, every record held, RSS"
    return [Row(question, "KiB", kib, None, "at most 250", kib <= 250)]


def simulator(count: int = 1000, virtual_s: float = 60.0) -> list[Row]:
    """How long does a virtual minute of normal life of 1,000 whole nodes take?"""
    rng = Random(9)
    config = EngineConfig()
    cluster = Cluster(engines(schema=MACHINE_SCHEMA, config=config), seed=9, delay=0.01)
    everyone = cluster.add(count)
    machines = [_machine(rng) for _ in everyone]
    cluster.warm_start(
        hub_truth(
            lambda node: make_record(
                MACHINE_SCHEMA,
                machines[node.index],
                {},
                node_id=node.id,
                endpoint=node.endpoint,
                seq=1,
                identity=node.rng.randbytes(32),
            )
        )
    )
    began, delivered = time.process_time(), cluster.trace.deliveries
    cluster.run_for(virtual_s)
    took = time.process_time() - began
    assert cluster.trace.deliveries - delivered > count
    assert all(node.engine.hub.settled for node in everyone)
    question = f"simulator: {virtual_s:.0f} virtual seconds of {count:,} whole nodes, CPU"
    return [Row(question, "s", took, None, "at most 30", took <= 30)]
