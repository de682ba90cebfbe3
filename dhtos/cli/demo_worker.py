"""A worker process of the demo: many nodes on one loop, told what to do by lines of JSON.

Commands come on stdin and answers go to stdout, one JSON document a line. The process ends when
stdin does, so that no node outlives the demo, however the demo ends.

    {"do": "join", "seed", "group_size", "seeds", "machines": [{"id", "attributes", "badge"}]}
        -> {"joined": n}...  {"ready": [[host, port], ...]}
    {"do": "kill", "ids": [...]}  -> {"killed": n}
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from dhtos.cli.demo_cluster import Badge
from dhtos.cli.demo_node import DemoNode
from dhtos.cli.loop import run_loop
from dhtos.core.schema import default_schema
from dhtos.errors import DhtosError
from dhtos.protocol.engine import EngineConfig

JOINING_MAX = 6  # nodes of one worker that join at the same time
LINE_BYTES_MAX = 2**26


class Worker:
    """The nodes of one process."""

    def __init__(self) -> None:
        self.nodes: dict[str, DemoNode] = {}
        self._joined = 0

    async def obey(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Do one command; the answer is what the parent waits for."""
        match command["do"]:
            case "join":
                return {"ready": await self._join(command)}
            case "kill":
                dying = [self.nodes.pop(id_) for id_ in command["ids"]]
                for node in dying:
                    node.die()
                for node in dying:
                    await node.aclose()
                return {"killed": len(dying)}
        raise ValueError(f"no such command: {command['do']!r}")

    async def _join(self, command: Mapping[str, Any]) -> list[tuple[str, int]]:
        config = EngineConfig(group_size=command["group_size"])
        seeds = [(host, port) for host, port in command["seeds"]]
        gate = asyncio.Semaphore(JOINING_MAX)

        async def enter(machine: Mapping[str, Any]) -> None:
            id_ = machine["id"]
            async with gate:
                shown = machine.get("badge")
                node = DemoNode(
                    bytes.fromhex(id_),
                    default_schema(),
                    config,
                    f"{command['seed']}/{id_}",
                    badge=None if shown is None else Badge.from_wire(shown),
                )
                self.nodes[id_] = node
                await node.join(machine["attributes"], seeds)
            self._joined += 1
            tell({"joined": self._joined})

        async with asyncio.TaskGroup() as group:
            for machine in command["machines"]:
                group.create_task(enter(machine))
        return [self.nodes[machine["id"]].endpoint for machine in command["machines"]]


def tell(answer: Mapping[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def work() -> None:
    """Obey until stdin ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    worker = Worker()
    while line := await reader.readline():
        try:
            tell(await worker.obey(json.loads(line)))
        except* DhtosError as errors:
            tell({"failed": str(errors.exceptions[0])})


def main() -> None:
    """Obey until the parent is gone."""
    run_loop(work())


if __name__ == "__main__":
    main()
