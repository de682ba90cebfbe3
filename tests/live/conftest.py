"""What the live tests share: loops that may not block, and both kinds of loop."""

import asyncio
import sys
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

sys.path.insert(0, str(Path(__file__).parent))  # helpers, as `internet`, are known by this


@pytest.fixture
def unblocked():
    """Fail a test whose event loop blocks in dhtos code.

    A lease is written down before it is told, by whoever answers: some ten microseconds.
    """
    with blockbuster_ctx(scanned_modules="dhtos") as guard:
        for function in guard.functions.values():
            function.can_block_in("dhtos/node/journal.py", {"_write"})
        yield


def loop_factories():
    """Every loop that is installed."""
    factories = [pytest.param(asyncio.new_event_loop, id="asyncio")]
    try:
        import uvloop
    except ImportError:
        return factories
    return [*factories, pytest.param(uvloop.new_event_loop, id="uvloop")]


@pytest.fixture(params=loop_factories())
def run(request, unblocked):
    """Run a coroutine function to its end on each kind of loop, within 20 s."""

    def runner(main):
        async def bounded():
            async with asyncio.timeout(20):
                return await main()

        with asyncio.Runner(loop_factory=request.param, debug=True) as own:
            return own.run(bounded())

    return runner
