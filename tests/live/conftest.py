"""What the live tests share: loops that may not block, and both kinds of loop."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

sys.path.insert(0, str(Path(__file__).parent))  # helpers, as `internet`, are known by this

from terminals import Shell


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


@pytest.fixture
def shell() -> Iterator[Shell]:
    # The path of a Unix socket has about a hundred characters: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="dhtos") as home:
        place = Shell(Path(home))
        try:
            yield place
        finally:
            place.close()
