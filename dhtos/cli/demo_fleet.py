"""The demo's fleet as its parent process sees it: machines, worker processes, life and death.

The parent decides everything that is random (which machines, their figures, their ids, who
dies), so that it knows the truth about every machine, and one seed is one fleet.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from random import Random
from typing import Any, Self

from dhtos.cli.demo_catalogue import Catalogue
from dhtos.cli.demo_cluster import Badge
from dhtos.cli.demo_worker import LINE_BYTES_MAX
from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.schema import Schema, Value
from dhtos.errors import DhtosError

Attributes = Mapping[str, Value]
END_S = 5.0  # a worker that was told to end gets this time
_GIB = 2**30


class WorkerFailed(DhtosError):
    """A worker process of the demo ended or could not do what it was told."""


def draw_fleet(
    catalogue: Catalogue, count: int, schema: Schema, rng: Random
) -> dict[str, Attributes]:
    """`count` machines of the catalogue by their new node ids, with figures drawn for today."""
    machines = catalogue.machines
    if count <= len(machines):
        chosen = rng.sample(machines, count)
    else:
        chosen = list(islice(cycle(machines), count))
    return {
        rng.randbytes(ID_BYTES).hex(): dict(machine.attributes)
        | {k: v for k, v in draw_today(machine.attributes, rng).items() if k in schema}
        | ({"price": machine.attributes["price"]} if "price" in machine.attributes else {})
        for machine in chosen
    }


def draw_today(machine: Attributes, rng: Random) -> dict[str, Value]:
    """What a catalogue cannot know: how busy the machine is, and what it costs an hour."""
    cores, mem = _number(machine, "cores", 4), _number(machine, "mem", 16 * _GIB)
    gpus = int(_number(machine, "gpus", 0))
    busy = rng.betavariate(1.2, 2.0)
    list_price = 0.02 * cores + 0.003 * mem / _GIB + 0.9 * gpus
    price = round(max(0.002, list_price * rng.lognormvariate(0, 0.25)), 4)
    today: dict[str, Value] = {
        "cpu_free": round(100 * (1 - busy), 1),
        "load1": round(cores * busy * rng.uniform(0.8, 1.2), 2),
        "price": price,
        "price_spot": round(price * rng.uniform(0.25, 0.9), 4),
    }
    if "mem" in machine:
        today["mem_free"] = int(mem * rng.uniform(0.1, 0.95))
    if "disk" in machine:
        today["disk_free"] = int(_number(machine, "disk", 0) * rng.uniform(0.05, 0.95))
    if "gpus" in machine:
        today["gpus_free"] = rng.randint(0, gpus)
    return today


def _number(machine: Attributes, name: str, otherwise: float) -> float:
    value = machine.get(name, otherwise)
    assert not isinstance(value, str)
    return float(value)


class Fleet:
    """Worker processes and the machines that live in them."""

    def __init__(
        self,
        machines: Mapping[str, Attributes],
        *,
        seed: int,
        group_size: int,
        badges: Mapping[str, Badge] | None = None,
    ) -> None:
        self.machines = dict(machines)
        self._badges = dict(badges or {})
        self.dead: frozenset[str] = frozenset()
        self.endpoints: list[Endpoint] = []
        self._seed = seed
        self._group_size = group_size
        self._processes: list[asyncio.subprocess.Process] = []
        self._home: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self, processes: int, on_joined: Callable[[int], None]) -> None:
        """Start the workers, then the first node, then all others through it."""
        for _ in range(processes):
            self._processes.append(await _spawn())
        ids = list(self.machines)
        for number, id_ in enumerate(ids):
            self._home[id_] = number % processes
        first = await self._tell(0, self._joining(ids[:1], []), lambda _: None)
        seeds = [tuple(endpoint) for endpoint in first["ready"]]
        joined = [1] + [0] * (processes - 1)

        async def fill(worker: int) -> list[Endpoint]:
            def progress(count: int) -> None:
                joined[worker] = count
                on_joined(sum(joined))

            mine = [id_ for id_ in ids[1:] if self._home[id_] == worker]
            answer = await self._tell(worker, self._joining(mine, seeds), progress)
            return [(host, port) for host, port in answer["ready"]]

        filled = await self._each(fill)
        self.endpoints = [(host, port) for host, port in seeds]
        self.endpoints += [endpoint for part in filled for endpoint in part]

    async def kill(self, ids: Sequence[str]) -> None:
        """Take the power from these machines, in all workers at once."""
        self.dead |= frozenset(ids)

        async def strike(worker: int) -> None:
            mine = [id_ for id_ in ids if self._home[id_] == worker]
            await self._tell(worker, {"do": "kill", "ids": mine}, lambda _: None)

        await self._each(strike)

    async def aclose(self) -> None:
        """End the workers; what does not end by itself is ended."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._processes.clear()

    def _joining(self, ids: Sequence[str], seeds: Sequence[Sequence[Any]]) -> dict[str, Any]:
        return {
            "do": "join",
            "seed": self._seed,
            "group_size": self._group_size,
            "seeds": list(seeds),
            "machines": [self._machine(id_) for id_ in ids],
        }

    def _machine(self, id_: str) -> dict[str, Any]:
        badge = self._badges.get(id_)
        shown = None if badge is None else badge.to_wire()
        return {"id": id_, "attributes": self.machines[id_], "badge": shown}

    async def _each(self, task: Callable[[int], Any]) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(task(n)) for n in range(len(self._processes))]
        return [task.result() for task in tasks]

    async def _tell(
        self, worker: int, command: Mapping[str, Any], on_joined: Callable[[int], None]
    ) -> dict[str, Any]:
        process = self._processes[worker]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        await process.stdin.drain()
        while line := await process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if "joined" in answer:
                on_joined(answer["joined"])
            elif "failed" in answer:
                raise WorkerFailed(f"a node could not join: {answer['failed']}")
            else:
                return answer
        raise WorkerFailed(f"a worker process ended with code {await process.wait()}")


async def _spawn() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dhtos.cli.demo_worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
