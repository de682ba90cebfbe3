"""Tasks that end with their owner."""

import asyncio
from typing import Any

from dhtos.node.background import Background


async def test_closing_cancels_and_waits() -> None:
    background = Background()
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    background.spawn(work("a"))
    background.spawn(work("b"))
    await asyncio.sleep(0)
    await background.aclose()
    assert sorted(ended) == ["a", "b"]
    await background.aclose()


async def test_a_fault_goes_to_the_handler_of_the_loop_and_ends_nothing_else() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    background = Background()
    alive = asyncio.Event()

    async def fault() -> None:
        raise ValueError("odd")

    async def work() -> None:
        alive.set()

    background.spawn(fault())
    background.spawn(work())
    await alive.wait()
    await asyncio.sleep(0)
    (context,) = told
    assert "background task" in context["message"]
    assert isinstance(context["exception"], ValueError)
    await background.aclose()
