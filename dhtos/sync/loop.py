"""An event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import TypeVar

from dhtos.errors import Closed

T = TypeVar("T")


class Loop:
    """An event loop in a thread; `run` is the only way in."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="dhtos", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work()` in the loop; an interrupted caller cancels it."""

        async def awaited() -> T:
            return await work()

        if not self._thread.is_alive():
            raise Closed("the node is closed")
        future: Future[T] = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise Closed("the node was closed") from error
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
