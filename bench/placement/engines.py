"""How fast does one client get work a place: from dhtos, from Ray, from Dask, and from two at once?

    python -m bench.placement.engines [--machines 4] [--count 500] [--rounds 5]

Needs the group `engines`. Every engine has as many machines, all on this one, and is asked by one
client: one request after the other for the time of one, and 64 at once for the rate. Rounds of all
kinds take turns, so that a machine that is busy for a while slows all of them alike.

They do not do the same thing. dhtos finds a machine, claims a part of it and gives it back, and no
server is involved; nothing runs. A task of Ray or Dask goes to a queue and runs, which does
nothing. A placement group of Ray is nearest to a lease: a part of a machine, reserved and freed.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import dhtos
from bench.placement.live import fleet
from bench.report import figure, machine, words
from dhtos import Need
from dhtos.adapters import dask as dask_adapter
from dhtos.adapters import ray as ray_adapter

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "engines.json"
PAGE = ROOT / "docs" / "explanation" / "placement.md"
BEGIN, END = "<!-- engines: begin -->", "<!-- engines: end -->"

IN_FLIGHT = 64
CORES = 64
MANY = 200
RAY_IP = "127.0.0.2"  # Ray takes 127.0.0.1 for another address of the machine
START_S = 120.0
LEASE, LEASE_MANY = "dhtos: a lease", f"dhtos: a lease, {MANY} machines"
RAY_TASK, RAY_THERE = "Ray: a task", "Ray: a task, machine given"
RAY_GROUP, RAY_BOTH = "Ray: a placement group", "dhtos and Ray: a lease, a task there"
DASK_TASK, DASK_THERE = "Dask: a task", "Dask: a task, machine given"
DASK_BOTH = "dhtos and Dask: a lease, a task there"
DOES = {
    LEASE: "asks, claims from the machine, gives back",
    LEASE_MANY: "the same",
    RAY_TASK: "runs nothing, where Ray likes",
    RAY_THERE: "runs nothing, with `ray_options`",
    RAY_GROUP: "reserves a slot on a machine, waits for it, frees it",
    RAY_BOTH: "`ray.run`",
    DASK_TASK: "runs nothing, where Dask likes",
    DASK_THERE: "runs nothing, with `dask_kwargs`",
    DASK_BOTH: "`dask.run`",
}
Work = Callable[[], Awaitable[Any]]


async def paced(work: Work, count: int) -> dict[str, float]:
    """The median of one after the other, and how many a second with 64 in flight."""
    alone = []
    for _ in range(max(10, count // 10)):
        began = time.perf_counter()
        await work()
        alone.append(time.perf_counter() - began)
    left = count

    async def some() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await work()

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
    return {"p50_ms": 1000 * median(alone), "rate": count / (time.perf_counter() - began)}


@contextlib.asynccontextmanager
async def client_of(nodes: int) -> AsyncIterator[dhtos.Node]:
    """A light client of so many nodes in two other processes."""
    with contextlib.ExitStack() as stack:
        seeds = await asyncio.to_thread(fleet, stack, nodes, 2)
        config = dhtos.Config(host="127.0.0.1", port=0, seeds=seeds, client=True, sample=False)
        async with dhtos.Node(config) as client:
            while await client.count("cores_free >= 1") != nodes:  # noqa: ASYNC110 - asks others
                await asyncio.sleep(0.1)
            yield client


@contextlib.asynccontextmanager
async def registered(label: str, names: list[str]) -> AsyncIterator[dhtos.Node]:
    """A light client of one node for each of these names of an engine, in this process."""
    async with contextlib.AsyncExitStack() as stack:
        endpoints: list[str] = []
        for name in names:
            config = dhtos.Config(
                host="127.0.0.1", port=0, seeds=endpoints[:3], sample=False, labels={label: name},
                advertise={"cores": CORES},
            )  # fmt: skip
            node = await stack.enter_async_context(dhtos.Node(config))
            await node.joined()
            endpoints.append(node.endpoint)
        asking = dhtos.Config(host="127.0.0.1", port=0, seeds=endpoints[:3], client=True)
        client = await stack.enter_async_context(dhtos.Node(asking))
        while await client.count(f'label("{label}").exists()') != len(names):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        yield client


async def leased(client: dhtos.Node) -> None:
    """One placement, given back at once."""
    await (await client.place(Need(cores=1))).release()


@contextlib.asynccontextmanager
async def ray_kinds(machines: int) -> AsyncIterator[dict[str, Work]]:
    """Raylets, and what is asked of them."""
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.placement_group import placement_group, remove_placement_group

    room = {"node_ip_address": RAY_IP, "object_store_memory": 80 * 2**20}
    head = {**room, "num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        # Two workers each: more would only wait for one another on a few cores.
        rich = {**room, "num_cpus": 2, "resources": {"slot": CORES}}
        raylets = [cluster.add_node(**rich).node_id for _ in range(machines)]
        ray.init(cluster.address, _node_ip_address=RAY_IP, log_to_driver=False)
        nothing = ray.remote(_nothing)
        async with registered(ray_adapter.ENGINE.label, raylets) as client:
            plan = await client.plan(Need(cores=1))
            there = ray_adapter.ray_options(plan)

            waiting = ThreadPoolExecutor(IN_FLIGHT)  # ready() would run a task in each group

            async def group() -> None:
                made = placement_group([{"slot": 1}])
                loop = asyncio.get_running_loop()
                assert await loop.run_in_executor(waiting, made.wait, START_S)
                remove_placement_group(made)

            async def both() -> None:
                submit = lambda options: nothing.options(**options).remote()  # noqa: E731
                await ray_adapter.run(client, Need(cores=1), submit)

            yield {
                RAY_TASK: nothing.remote,
                RAY_THERE: lambda: nothing.options(**there).remote(),
                RAY_GROUP: group,
                RAY_BOTH: both,
            }
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextlib.asynccontextmanager
async def dask_kinds(machines: int) -> AsyncIterator[dict[str, Work]]:
    """A scheduler and workers, and what is asked of them."""
    from distributed import Client

    names = [f"w{n}" for n in range(machines)]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file = f"{folder}/scheduler.json"
        _dask(stack, folder, "scheduler", "--port", "0", "--scheduler-file", file)
        for name in names:
            options = ["--name", name, "--nthreads", "2", "--no-nanny", "--scheduler-file", file]
            _dask(stack, folder, "worker", *options)
        async with (
            Client(scheduler_file=file, asynchronous=True, timeout=START_S) as asked,
            registered(dask_adapter.ENGINE.label, names) as client,
        ):
            await asked.wait_for_workers(machines, START_S)
            there = dask_adapter.dask_kwargs(await client.plan(Need(cores=1)))
            submit = functools.partial(asked.submit, _nothing, pure=False)
            yield {
                DASK_TASK: submit,
                DASK_THERE: functools.partial(submit, **there),
                DASK_BOTH: lambda: dask_adapter.run(
                    client, Need(cores=1), asked, lambda where: submit(**where)
                ),
            }


def _dask(stack: contextlib.ExitStack, folder: str, kind: str, *options: str) -> None:
    command = [sys.executable, "-m", "dask", kind, "--host", "127.0.0.1", *options]
    process = subprocess.Popen(
        [*command, "--no-dashboard"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)


def _nothing() -> None:
    """What the tasks do."""


async def measure(machines: int, count: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """By kind: the figures of each round."""
    async with contextlib.AsyncExitStack() as stack:
        few = await stack.enter_async_context(client_of(machines))
        many = await stack.enter_async_context(client_of(MANY))
        kinds: dict[str, Work] = {
            LEASE: lambda: leased(few),
            LEASE_MANY: lambda: leased(many),
            **await stack.enter_async_context(ray_kinds(machines)),
            **await stack.enter_async_context(dask_kinds(machines)),
        }
        found: dict[str, dict[str, list[float]]] = {
            name: {"p50_ms": [], "rate": []} for name in kinds
        }
        for turn in range(rounds + 1):
            for name, work in kinds.items():
                once = await paced(work, count if turn else IN_FLIGHT)
                if turn:  # the first starts workers and opens connections
                    for figure_name, value in once.items():
                        found[name][figure_name].append(value)
                    sys.stderr.write(f"{name}: {once}\n")
    return found


def text(results: dict[str, Any]) -> str:
    """Everything between the marks of the page."""
    head = (
        f"{results['words']} {results['machines']} machines each, "
        f"{results['count']:,} placements in each of {results['rounds']} rounds; medians of the "
        "rounds, the extremes in brackets."
    )
    rows = ["| what | does | p50, ms | a second, 64 in flight |", "|---|---|---|---|"]
    for name, found in results["kinds"].items():
        cells = [_spread(found["p50_ms"]), _spread(found["rate"])]
        rows.append(f"| {name} | {DOES[name]} | {' | '.join(cells)} |")
    return "\n\n".join([head, "\n".join(rows)])


def _spread(figures: list[float]) -> str:
    shown = figure(median(figures))
    if len(figures) == 1:
        return shown
    return f"{shown} ({figure(min(figures))} - {figure(max(figures))})"


def with_figures(page: str, between: str) -> str:
    """The page with this text between the marks of the engines."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin, "the page has no mark for engines"
    assert end, "the page's mark for engines does not end"
    return f"{head}{BEGIN}\n{between}\n{END}{tail}"


def main() -> None:
    """Measure, print, and write the JSON and the table of the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.placement.engines", description=__doc__)
    parser.add_argument("--machines", type=int, default=4)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few of each; writes nothing")
    given = parser.parse_args()
    count, rounds = (100, 1) if given.quick else (given.count, given.rounds)
    load = os.getloadavg()[0]
    kinds = asyncio.run(measure(given.machines, count, rounds))
    where = machine()
    where["packages"] |= {name: version(name) for name in ("ray", "distributed")}
    sentence = words(where, (load, load)).partition("; load average")[0]
    results = {
        "machine": where,
        "words": f"{sentence}; load average {load:.1f} before.",
        "machines": given.machines,
        "count": count,
        "rounds": rounds,
        "kinds": kinds,
    }
    sys.stdout.write(text(results) + "\n")
    if not given.quick:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        PAGE.write_text(with_figures(PAGE.read_text(), text(results)))


if __name__ == "__main__":
    main()
