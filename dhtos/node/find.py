"""A running range query as its user holds it, and a count that knows its coverage."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypedDict

from dhtos.core.coverage import Coverage
from dhtos.core.hit import Hit
from dhtos.errors import UsageError
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.operation import Operation
from dhtos.transport.driver import Driver, Stream


class FindOptions(TypedDict, total=False):
    """How to ask: the keyword arguments of `Node.find`, which explains them."""

    limit: int
    order_by: str | None
    descending: bool
    strict: bool
    verify: int
    explain: bool
    cursor: bytes | None


class Find:
    """Hits as they come: an async iterator that is also an async context manager.

    The question is asked at the first `async for` or `async with`. `result` is there once the
    iteration has ended by itself. Leaving either early frees the query.
    """

    def __init__(
        self,
        driver: Driver,
        ready: Callable[[], Awaitable[None]],
        ask: Callable[[], Operation[FindResult]],
    ) -> None:
        self._driver = driver
        self._ready = ready
        self._ask = ask
        self._stream: Stream[Hit] | None = None
        self._closed = False

    @property
    def result(self) -> FindResult:
        """The end of the query: coverage, cursor, all hits; raises UsageError before it."""
        if self._stream is None or not self._stream.operation.done:
            raise UsageError("the query has not ended: iterate to its end, or use find_all")
        result: FindResult = self._stream.operation.result()
        return result

    async def finish(self) -> FindResult:
        """Wait for the end of the query and take its result."""
        stream = await self._begin()
        result: FindResult = await self._driver.wait(stream.operation)
        return result

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Hit:
        """The next hit; after the last one, raises the error that ended the query, if any."""
        if self._closed:
            raise StopAsyncIteration
        stream = await self._begin()
        return await stream.__anext__()

    async def aclose(self) -> None:
        """Free the query; may be called again."""
        self._closed = True
        if self._stream is not None:
            await self._stream.aclose()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _begin(self) -> "Stream[Hit]":
        if self._stream is None:
            await self._ready()
            if self._stream is None:
                self._stream = self._driver.stream(self._ask())
        return self._stream


class Count(int):
    """How many machines match, with the coverage that says whether these are all.

    >>> Count(3, Coverage(1.0, True, False, (), 0.0, 0, 0)) + 1
    4
    """

    coverage: Coverage

    def __new__(cls, matches: int, coverage: Coverage) -> Self:
        count = super().__new__(cls, matches)
        count.coverage = coverage
        return count
