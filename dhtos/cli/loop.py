"""Which event loop runs a command, and what becomes of a fault in its background.

uvloop where it is installed, asyncio elsewhere. A fault that nobody awaits is one line on stderr,
the same fault once: a node goes on without it, and a log must not drown in it.
"""

import asyncio
import sys
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

FAULTS_MAX = 20


def run_loop(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end on the fastest loop there is."""

    async def guarded() -> T:
        asyncio.get_running_loop().set_exception_handler(FaultReport())
        return await work

    try:
        import uvloop
    except ImportError:
        return asyncio.run(guarded())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(guarded())


class FaultReport:
    """An exception handler of a loop: each kind of fault is told once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Tell a fault in one line."""
        error = context.get("exception")
        what = context.get("message", "a fault in the background")
        fault = str(what) if error is None else f"{type(error).__name__}: {error}{_place(error)}"
        if fault in self._told or len(self._told) >= FAULTS_MAX:
            return
        self._told.add(fault)
        sys.stderr.write(f"warning: a fault of dhtos itself: {' '.join(fault.split())}\n")
        sys.stderr.flush()


def _place(error: BaseException) -> str:
    """Where it happened: the innermost line, for a report that helps."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
