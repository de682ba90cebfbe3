"""What the live tests share: loops that may not block, and both kinds of loop."""

import asyncio

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture
def unblocked():
    """Fail a test whose event loop blocks in dhtos code."""
    with blockbuster_ctx(scanned_modules="dhtos"):
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
