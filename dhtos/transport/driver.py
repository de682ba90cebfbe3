"""Drives one engine on a running asyncio loop.

Theory of operation. There is one step, `_step`: drain the socket, tick the engine, send its
outbox, wake whoever waits for its events, set the one timer. It runs when the socket is
readable, when the timer fires, and after every verb somebody calls on the engine (`flush`).

Before a tick that has something due, the socket is drained once more beyond the batch: after a
stall of the loop the replies of live peers are already waiting in the kernel, and an engine
that looked at its deadlines first would declare those peers late.

While wake-ups bring one datagram each, most of them read one and do not ask the kernel for a
second in vain; what is left in the socket wakes the loop again at once, and the first wake-up that
finds more goes back to whole batches.

The timer is lazy: it is moved only when the engine's deadline comes nearer. One that fires
early costs a step that finds nothing to do; moving it at every datagram would cost more.
"""

import asyncio
import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    DRAIN_DATAGRAMS_MAX,
    DRAINS_BEFORE_TICK_MAX,
    TIMER_GRANULARITY_S,
)
from dhtos.errors import Closed
from dhtos.protocol.operation import Event, Finished, MemberGone, Operation, Progressed
from dhtos.transport.udp import UdpSocket

T = TypeVar("T")

_SPARSE_AFTER = 8  # wake-ups in a row that brought one datagram each: the traffic is sparse
_PROBE_EVERY = 4  # of sparse wake-ups, those that look for more all the same


class Engine(Protocol):
    """The five verbs a driver needs; `dhtos.protocol.engine.Engine` has them."""

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        """Take one datagram."""

    def tick(self, now: float) -> None:
        """Do what is due."""

    def next_deadline(self) -> float:
        """When to tick next; infinity for never."""
        ...

    def outbox(self) -> list[tuple[bytes, Endpoint]]:
        """Take the datagrams to send."""
        ...

    def events(self) -> list[Event]:
        """Take what happened."""
        ...


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The clock to give an engine on this loop: the loop's own, if it is fine enough.

    uvloop keeps whole milliseconds, and keeps them still for the length of a wake-up: round trips
    on one machine or in one rack would measure as 0 or 1 ms.
    """
    return time.monotonic if type(loop).__module__.partition(".")[0] == "uvloop" else loop.time


class Driver:
    """The shell around one engine: its socket, its clock, and futures for its operations."""

    def __init__(
        self,
        engine: Engine,
        socket: UdpSocket,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] | None = None,
        *,
        on_event: Callable[[MemberGone], None] | None = None,
    ) -> None:
        self.engine = engine
        self.socket = socket
        self.clock = clock or clock_of(loop)
        self.closed = False
        # The verbs of every wake-up, bound once.
        self._receive = engine.receive
        self._outbox = engine.outbox
        self._events = engine.events
        self._next_deadline = engine.next_deadline
        self._singles = 0  # wake-ups in a row that brought exactly one datagram
        self._loop = loop
        self._on_event = on_event
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._waiters: dict[Operation[Any], list[asyncio.Future[None]]] = {}
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        socket.attach(loop, self._on_readable)
        self._rearm(self.clock())

    async def wait(self, operation: Operation[T]) -> T:
        """The operation's result; cancelling the caller cancels the operation.

        Raises the error that ended the operation, or Closed when the driver is closed first.
        """
        self.flush()
        try:
            while not operation.done:
                await self._changed(operation)
        except asyncio.CancelledError:
            self.cancel(operation)
            raise
        return operation.result()

    async def ended(self, operation: Operation[T]) -> T:
        """The operation's result, as `wait`; cancelling the caller leaves the operation running."""
        self.flush()
        while not operation.done:
            await self._changed(operation)
        return operation.result()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds; it is looked at after every step of the engine.

        Raises Closed when the driver is closed first.
        """
        self.flush()
        if condition():
            return
        future: asyncio.Future[None] = self._loop.create_future()
        entry = (condition, future)
        self._conditions.append(entry)
        try:
            await future
        finally:
            if entry in self._conditions:
                self._conditions.remove(entry)

    def stream(self, operation: Operation[Any]) -> "Stream[Any]":
        """The operation's items as they come, as an iterator that is a context manager."""
        self.flush()
        return Stream(self, operation)

    def cancel(self, operation: Operation[Any]) -> None:
        """End an operation that nobody wants any more."""
        if not operation.done:
            operation.cancel(self.clock())
        if not self.closed:
            self.flush()

    def abandon(self, operation: Operation[Any]) -> None:
        """Cancel soon, from whatever thread."""
        if not self.closed and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.cancel, operation)

    def flush(self) -> None:
        """Send and dispatch what a verb just called on the engine has left."""
        if self.closed:
            raise Closed("the node is closed")
        self._settle(self.clock())

    async def aclose(self) -> None:
        """Cancel what is pending, send what is left, close the socket; may be called again."""
        if self.closed:
            return
        self.closed = True
        now = self.clock()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for operation in list(self._waiters):
            operation.cancel(now)
        self._dispatch(self._events())
        for _, future in self._conditions:
            if not future.done():
                future.set_exception(Closed("the node was closed"))
        self.socket.send_all(self._outbox())
        self.socket.close()
        assert not self._waiters

    async def _changed(self, operation: Operation[Any]) -> None:
        """Return once the operation has news."""
        if self.closed:
            raise Closed("the node is closed")
        future: asyncio.Future[None] = self._loop.create_future()
        waiters = self._waiters.setdefault(operation, [])
        waiters.append(future)
        try:
            await future
        finally:
            if not future.done() or future.cancelled():
                self._forget(operation, future)

    def _forget(self, operation: Operation[Any], future: "asyncio.Future[None]") -> None:
        waiters = self._waiters.get(operation)
        if waiters is not None and future in waiters:
            waiters.remove(future)
            if not waiters:
                del self._waiters[operation]

    def _on_readable(self) -> None:
        now = self.clock()
        singles = self._singles
        sparse = singles >= _SPARSE_AFTER and singles % _PROBE_EVERY
        limit = 1 if sparse else DRAIN_DATAGRAMS_MAX
        count = self.socket.receive_into(self._receive, now, limit)
        self._singles = singles + 1 if count == 1 else 0
        if self._next_deadline() <= now:
            self._step(now, exhausted=count < limit)
        else:
            self._settle(now)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        self._step(self.clock(), exhausted=False)

    def _step(self, now: float, *, exhausted: bool) -> None:
        """Tick if something is due, but only after everything that already arrived was read."""
        try:
            if self._next_deadline() <= now:
                if not exhausted:
                    self._drain(now)
                self.engine.tick(now)
        finally:
            self._settle(now)

    def _drain(self, now: float) -> None:
        for _ in range(DRAINS_BEFORE_TICK_MAX):
            if self.socket.receive_into(self._receive, now) < DRAIN_DATAGRAMS_MAX:
                return

    def _settle(self, now: float) -> None:
        """Send the outbox, wake the waiters, set the timer."""
        outbox = self._outbox()
        if outbox:
            self.socket.send_all(outbox)
        events = self._events()
        if events or self._conditions:
            self._dispatch(events)
        if self._next_deadline() < self._timer_at:
            self._rearm(now)

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Finished(operation) | Progressed(operation):
                    for future in self._waiters.pop(operation, ()):
                        if not future.done():
                            future.set_result(None)
                case _:
                    if self._on_event is not None:
                        self._on_event(event)
        for condition, future in self._conditions:
            if not future.done() and condition():
                future.set_result(None)

    def _rearm(self, now: float) -> None:
        deadline = self._next_deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = deadline
        if deadline < math.inf and not self.closed:
            delay = max(TIMER_GRANULARITY_S, deadline - now)
            self._timer = self._loop.call_later(delay, self._on_timer)


class Stream(Generic[T]):
    """The items of one operation in the order they came; leaving it frees the operation."""

    def __init__(self, driver: Driver, operation: Operation[Any]) -> None:
        self._driver = driver
        self.operation = operation

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next item; raises the operation's error after its last item."""
        operation = self.operation
        try:
            while True:
                if operation.items:
                    item: T = operation.items.popleft()
                    return item
                if operation.done:
                    operation.result()
                    raise StopAsyncIteration
                await self._driver._changed(operation)  # noqa: SLF001 - one module, one owner
        except asyncio.CancelledError:
            await self.aclose()
            raise

    def __del__(self) -> None:
        # Whoever breaks out of a loop without closing wants no more items. The collector may
        # run in any thread, so the loop itself does the work.
        if not self.operation.done:
            self._driver.abandon(self.operation)

    async def aclose(self) -> None:
        """Cancel what is left of the operation; may be called again."""
        self._driver.cancel(self.operation)
        self.operation.items.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
