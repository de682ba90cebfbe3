"""How long do the first 20 matches take over real UDP, with 500 nodes on this machine?

`python -m bench.search.udp [--nodes 500] [--group 128]` starts the nodes of the demo in one
process a core, waits until a count of all of them is right, and asks one question after the
other from a light client: at least some cores, at most some price, as machines of the fleet have.
Every answer is compared with brute force.
"""

import argparse
import asyncio
import os
import sys
import time
from random import Random

import uvloop

from bench.search.measure import p95
from dhtos.cli.demo_catalogue import shipped_catalogue
from dhtos.cli.demo_fleet import Attributes, Fleet, draw_fleet
from dhtos.cli.demo_node import DemoNode
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.protocol.engine import EngineConfig

SETTLE_S = 40.0  # subtrees tell each other what lives in them every 30 s
STEADY = 3
LIMIT = 20


async def measure(nodes: int, group: int, questions: int, seed: int) -> list[float]:
    """Milliseconds of each question."""
    rng = Random(seed)
    machines = draw_fleet(shipped_catalogue(MACHINE_SCHEMA), nodes, MACHINE_SCHEMA, rng)
    async with Fleet(machines, seed=seed, group_size=group) as fleet:
        await fleet.start(os.cpu_count() or 1, lambda _: None)
        config = EngineConfig(group_size=group, client=True)
        asker = DemoNode(rng.randbytes(20), MACHINE_SCHEMA, config, f"{seed}/asker")
        asker.meet(rng.sample(fleet.endpoints, 3))
        try:
            await _settle(asker, nodes)
            return [await _ask(asker, machines, rng) for _ in range(questions)]
        finally:
            await asker.aclose()


async def _settle(asker: DemoNode, nodes: int) -> None:
    deadline = time.monotonic() + 2 * SETTLE_S
    steady = 0
    while steady < STEADY:
        assert time.monotonic() < deadline, "the nodes still count differently"
        counted = await asker.ask("true", count_only=True)
        steady = steady + 1 if counted.matches == nodes else 0
        await asyncio.sleep(0.5)
    await asyncio.sleep(SETTLE_S)


async def _ask(asker: DemoNode, machines: dict[str, Attributes], rng: Random) -> float:
    model = machines[rng.choice(sorted(machines))]
    cores, price = model["cores"], model["price"]
    began = time.perf_counter()
    result = await asker.ask(f"cores >= {cores} and price <= {price}", limit=LIMIT)
    took = time.perf_counter() - began
    true = {
        name
        for name, machine in machines.items()
        if machine["cores"] >= cores and machine["price"] <= price  # type: ignore[operator]
    }
    got = {str(hit.id) for hit in result.hits}
    assert got <= true, "a machine that does not match"
    assert len(got) == min(LIMIT, len(true)), f"{len(got)} of {len(true)}"
    return took * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.search.udp", description=__doc__)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    took = uvloop.run(measure(options.nodes, options.group, options.questions, options.seed))
    ordered = sorted(took)
    sys.stdout.write(
        f"{options.nodes} nodes, G = {options.group}, {len(took)} questions, first {LIMIT}: "
        f"p50 {ordered[len(took) // 2]:.2f} ms, p95 {p95(took):.2f} ms, "
        f"p99 {ordered[int(0.99 * len(took))]:.2f} ms, longest {ordered[-1]:.2f} ms\n"
    )


if __name__ == "__main__":
    main()
