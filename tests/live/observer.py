"""A program: ask a member for all machines until so many of them say where they are.

Arguments: the address to ask from, the member, how many. It prints their coordinates by endpoint,
as JSON, and on its error output how many there are so far.
"""

import asyncio
import json
import sys

import dhtos
from dhtos.core.coordinate import Coordinate

PLACED_ERROR = 0.3
PAUSE_S = 0.5


async def observe(host: str, seed: str, count: int) -> dict[str, tuple[float, ...]]:
    """The coordinates of `count` placed machines, as their records tell them to a client."""
    config = dhtos.Config(host=host, port=0, seeds=[seed], client=True, sample=False)
    seen = -1
    async with dhtos.Node(config) as node:
        while True:
            hits = (await node.find_all()).hits
            told = {hit.endpoint: hit.record.packed for hit in hits if hit.record.packed}
            found = {end: Coordinate.from_bytes(packed) for end, packed in told.items()}
            placed = {end: at.to_wire() for end, at in found.items() if at.error <= PLACED_ERROR}
            if len(placed) != seen:
                seen = len(placed)
                sys.stderr.write(f"{len(hits)} machines, {seen} have a place\n")
            if seen >= count:
                return placed
            await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(observe(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
