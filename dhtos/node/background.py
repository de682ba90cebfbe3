"""What a node does beside answering: tasks that end with it."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Tasks of one owner; a fault of one goes to the loop's handler."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background until `aclose`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def aclose(self) -> None:
        """Cancel all and wait for their end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "a background task of a dhtos node failed", "exception": error}
            task.get_loop().call_exception_handler(context)
