"""The child's half of a benchmark process: one JSON command a line in, one JSON answer a line out.

The loop goes on between two commands, as in a program that does other things too.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Command = Callable[..., Awaitable[Any]]


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The constructor of the loop called `asyncio` or `uvloop`."""
    if name == "asyncio":
        return asyncio.new_event_loop
    assert name == "uvloop", name
    import uvloop

    return uvloop.new_event_loop


def serve(start: Callable[..., Awaitable[dict[str, Command]]]) -> None:
    """Answer the commands that `start(*arguments)` offers until standard input ends.

    The first argument of the process names the loop; the others are handed to `start`.
    """

    async def main() -> None:
        commands = await start(*sys.argv[2:])
        while line := await asyncio.to_thread(sys.stdin.readline):
            request = json.loads(line)
            answer = await commands[request.pop("do")](**request)
            print(json.dumps(answer), flush=True)

    with asyncio.Runner(loop_factory=loop_factory(sys.argv[1])) as runner:
        runner.run(main())
