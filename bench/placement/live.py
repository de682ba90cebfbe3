"""From a need to a confirmed lease, with real nodes over UDP on this machine.

    python -m bench.placement.live [--nodes 200] [--processes 2] [--placements 1000]

The nodes are those of the library, each with a ledger, many to a process. A light client places
one after the other (question, ranking, claim, confirmation), then as many at once as it can, then
gangs of 8. Every lease is released at once, so that the fleet stays as it is.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from statistics import median

import uvloop

import dhtos
from bench.search.measure import p95
from dhtos import Need

CORES = 64
IN_FLIGHT = 64
GANG = 8


async def serve(count: int, seeds: list[str]) -> None:
    """`count` nodes in this process; says when all have joined, ends with its standard input."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            config = dhtos.Config(
                host="127.0.0.1", port=0, seeds=seeds[:3], sample=False, advertise={"cores": CORES}
            )
            node = await stack.enter_async_context(dhtos.Node(config))
            await node.joined()
            seeds = [*seeds, node.endpoint]
        sys.stdout.write(json.dumps(seeds[:3]) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


async def timed(placement: dhtos.Placement) -> float:
    """Milliseconds until it is granted; it is given back at once."""
    began = time.perf_counter()
    held = await placement
    took = time.perf_counter() - began
    await held.release()
    return 1000 * took


async def measure(seeds: list[str], nodes: int, placements: int) -> dict[str, float]:
    """The figures, from a light client."""
    need = Need(cores=1)
    config = dhtos.Config(host="127.0.0.1", port=0, seeds=seeds, client=True, sample=False)
    async with dhtos.Node(config) as client:
        while await client.count("cores_free >= 1") != nodes:  # noqa: ASYNC110 - asks others
            await asyncio.sleep(0.5)
        alone = [await timed(client.place(need)) for _ in range(placements)]
        left = placements
        crowded: list[float] = []

        async def one_after_the_other() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                crowded.append(await timed(client.place(need)))

        began = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
        rate = len(crowded) / (time.perf_counter() - began)
        gangs = [await timed(client.place_gang(need, GANG)) for _ in range(placements // 10)]
    return {
        "placement p50 ms": median(alone),
        "placement p99 ms": sorted(alone)[int(0.99 * len(alone))],
        f"placements a second, {IN_FLIGHT} in flight": rate,
        f"gang of {GANG} p50 ms": median(gangs),
        f"gang of {GANG} p95 ms": p95(gangs),
    }


def fleet(stack: contextlib.ExitStack, nodes: int, processes: int) -> list[str]:
    """Start the nodes; some of their endpoints."""
    seeds: list[str] = []
    for n in range(processes):
        share = nodes // processes + (n < nodes % processes)
        command = [sys.executable, "-m", "bench.placement.live", "--serve", str(share)]
        command += [part for seed in seeds for part in ("--seed", seed)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        seeds = json.loads(process.stdout.readline())
    return seeds


def main() -> None:
    """Measure and print, or serve."""
    parser = argparse.ArgumentParser(prog="python -m bench.placement.live", description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--placements", type=int, default=1000)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", action="append", default=[], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        uvloop.run(serve(given.serve, given.seed))
        return
    with contextlib.ExitStack() as stack:
        seeds = fleet(stack, given.nodes, given.processes)
        figures = uvloop.run(measure(seeds, given.nodes, given.placements))
    for name, figure in figures.items():
        sys.stdout.write(f"{name:40} {figure:10.2f}\n")


if __name__ == "__main__":
    main()
