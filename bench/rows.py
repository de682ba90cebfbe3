"""The rows of the report: each answers one question, against a named baseline of the same run.

A row returns figures only after it has checked that both sides did the work. Rounds of the two
sides alternate, so that a change of load meets both; medians are reported.
"""

import asyncio
import gc
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any, TypeVar

from bandwidth import available, bandwidth
from forecasts import forecast
from kademlia.network import Server
from report import Row
from secured import secured
from tables import TARGETS, Tables
from worker import Worker

from dhtos.adapters.kademlia import Server as FastServer
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import make_record
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.sim import Cluster
from dhtos.sim.engines import engines
from dhtos.sim.truth import hub_truth
from dhtos.transport.driver import Driver
from dhtos.transport.udp import UdpSocket

HOST = "127.0.0.1"
T = TypeVar("T")


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
    question = "20 closest of 1,000 contacts, exact (stock `find_neighbors`: inexact)"
    return [Row(question, "us", tuple(ours), tuple(theirs), target=0.5, relative=True)]


def pin(*pids: int, together: bool) -> None:
    """Keep processes on one core, or let them go; only where the system can."""
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        for pid in pids:
            os.sched_setaffinity(pid, {max(cores)} if together else cores)


RPC_LEAST = {64: 4.0, 1: 2.5}  # by calls in flight: how often as many as rpcudp
ASKERS = (("asyncio", "call"), ("asyncio", "ask"), ("uvloop", "call"), ("uvloop", "ask"))
HOW = {"call": "engine's own way", "ask": "each reply awaited"}


def rpc(rounds: int = 11, seconds: float = 0.3) -> list[Row]:
    """How many pings a second between two processes, 64 and 1 in flight, beside rpcudp?

    rpcudp runs on asyncio and awaits a future for each reply, as stock lookups do. dhtos runs on
    both loops, with its own callbacks (as its lookups do) and with a future for each reply too.
    With one call in flight only one end works at a time: both are then kept on one core, or the
    figure would tell how long the machine takes to wake a sleeping one.
    """
    loops = ("asyncio", "uvloop") if importlib.util.find_spec("uvloop") else ("asyncio",)
    kinds = [("stock", loop) for loop in loops] + [("dhtos", loop) for loop in loops]
    runs = [("stock", loop, "ask") for loop in loops]
    runs += [("dhtos", loop, do) for loop, do in ASKERS if loop in loops]
    rates: dict[tuple[str, str, str, int], list[float]] = {}
    with ExitStack() as stack:
        pairs = {}
        for contender, loop in kinds:
            server, client = (
                stack.enter_context(Worker("rpc.py", loop, contender)) for _ in range(2)
            )
            port = server.ask("listen", server=True)
            client.ask("listen", server=False)
            client.ask("ask", port=port, flight=8, seconds=seconds / 3)  # warm-up
            pairs[contender, loop] = (client, server, port)
        for flight in RPC_LEAST:
            for client, server, _ in pairs.values():
                pin(client.pid, server.pid, together=flight == 1)
            for _ in range(rounds):
                for contender, loop, do in runs:
                    client, _, port = pairs[contender, loop]
                    rate = client.ask(do, port=port, flight=flight, seconds=seconds)
                    rates.setdefault((contender, loop, do, flight), []).append(rate)
    made = []
    for flight, least in RPC_LEAST.items():
        base = tuple(rates["stock", "asyncio", "ask", flight])
        ping = f"ping between two processes, {flight} in flight"
        for contender, loop, do in runs[1:]:
            name = "rpcudp itself" if contender == "stock" else HOW[do]
            target = None if contender == "stock" else least
            mine = tuple(rates[contender, loop, do, flight])
            question = f"{ping}: {name}, {loop}"
            made.append(
                Row(question, "RPC/s", mine, base, target=target, relative=True, at_least=True)
            )
    return made


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


Average = Callable[[list[float]], float]
Lived = dict[str, list[float]]
"""Milliseconds of each operation, by kind; `failed` counts."""


async def _swarm(stock: bool, count: int, operations: int, after: int) -> Lived:
    """The life of one swarm. Ours may not fail once; what stock loses is counted."""
    rng = Random(6)
    swarm = Swarm(stock, count, 8)
    lived: Lived = {"set": [], "get": [], "late_get": [], "late_set": [], "failed": []}

    def note(kind: str, ms: float, right: bool) -> None:
        assert right or stock, f"{kind} went wrong"
        lived[kind].append(ms)
        if not right:
            lived["failed"].append(ms)

    await swarm.start()
    for n in range(operations):
        note("set", *await timed(rng.choice(swarm.servers).set(f"key-{n}", f"value-{n}")))
    for n in range(operations):
        ms, value = await timed(rng.choice(swarm.servers).get(f"key-{n}"))
        note("get", ms, value == f"value-{n}")
    swarm.kill(0.3, rng)
    for n in range(after):
        ms, value = await timed(rng.choice(swarm.servers).get(f"key-{n % operations}"))
        note("late_get", ms, value == f"value-{n % operations}")
    for n in range((after + 3) // 4):
        note("late_set", *await timed(rng.choice(swarm.servers).set(f"late-{n}", "x")))
    for server in swarm.servers:
        server.stop()
    return lived


def swarm(rounds: int = 3, count: int = 64, operations: int = 100, late: int = 60) -> list[Row]:
    """How long do `set` and `get` take, N=64, k=8, one process, also after sudden deaths?

    Stock needs seconds for each operation after the deaths, so it does few, in the first round.
    """
    ours: list[Lived] = []
    theirs: list[Lived] = []
    for n in range(rounds):
        theirs.append(
            asyncio.run(_swarm(True, count, operations, min(5, late // 2) if n == 0 else 0))
        )
        ours.append(asyncio.run(_swarm(False, count, operations, late)))

    def each(
        lives: list[Lived], kind: str, of: Callable[[list[float]], float]
    ) -> tuple[float, ...]:
        return tuple(of(life[kind]) for life in lives if life[kind])

    def row(kind: str, what: str, of: Average, target: float) -> Row:
        question = f"{what}, {count} nodes, k=8, one process"
        mine, base = each(ours, kind, of), each(theirs, kind, of)
        return Row(question, "ms", mine, base, target=target, relative=target < 1, note=notes[kind])

    failed = sum(len(life["failed"]) for life in theirs)
    done = sum(len(times) for life in theirs for kind, times in life.items() if kind != "failed")
    notes = dict.fromkeys(ours[0], "")
    if failed:
        notes["get"] = f"{failed} of all {done} stock operations failed; of ours none may."
    return [
        row("get", "get, p50", median, 0.4),
        row("set", "set, p50", median, 0.4),
        row("late_get", "get after 30 % died, mean", fmean, 50),
        row("late_set", "set after 30 % died, mean", fmean, 300),
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
    return [Row("a daemon with the default extras, RSS", "MiB", (mib,), target=35)]


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


def _memory(count: int) -> float:
    return asyncio.run(_many(count))


def nodes(count: int = 200) -> list[Row]:
    """How much memory does one more node take, when each holds everybody's record?"""
    # In a fresh process: memory that earlier work has freed would hold the new nodes.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        kib = fresh.submit(_memory, count).result()
    question = f"one more node in a process of {count}, every record held, RSS"
    return [Row(question, "KiB", (kib,), target=250)]


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
    start, delivered = time.process_time(), cluster.trace.deliveries
    cluster.run_for(virtual_s)
    took = time.process_time() - start
    deliveries = cluster.trace.deliveries - delivered
    assert deliveries > count
    assert all(node.engine.hub.settled for node in everyone)
    question = f"simulator: {virtual_s:.0f} virtual seconds of {count:,} whole nodes, CPU"
    note = f"{deliveries:,} datagrams delivered, {deliveries / took:,.0f} a second of CPU."
    return [Row(question, "s", (took,), target=30, note=note)]


FULL: dict[str, Callable[[], list[Row]]] = {
    "closest": closest,
    "rpc": rpc,
    "swarm": swarm,
    "daemon": daemon,
    "nodes": nodes,
    "simulator": simulator,
    "forecast": forecast,
    "secured": secured,
    **({"bandwidth": bandwidth} if available() else {}),
}
QUICK: dict[str, Callable[[], list[Row]]] = {
    "closest": partial(closest, 3),
    "rpc": partial(rpc, 1, 0.1),
    "swarm": partial(swarm, 1, 12, 6, 6),
    "daemon": partial(daemon, 0.5),
    "nodes": partial(nodes, 12),
    "simulator": partial(simulator, 60, 5.0),
    "forecast": partial(forecast, 1200, 1, 3),
    "secured": partial(secured, 1, 0.1, 60, 5000),
    **({"bandwidth": partial(bandwidth, 1, 1)} if "bandwidth" in FULL else {}),
}
"""Small sizes: they show that a row works, and nothing else."""
