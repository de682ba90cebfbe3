"""Something asked of the engine that ends later: a result, an error, and items on the way.

The engine changes an operation's state and appends an event; the shell that drains
`Engine.events()` wakes whoever waits. Nothing is called back from inside the engine.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dhtos.errors import Closed, DhtosError

T = TypeVar("T")


class Operation(Generic[T]):
    """A pending answer; `items` holds streamed parts that nobody has taken yet."""

    __slots__ = ("_events", "_on_cancel", "_outcome", "done", "error", "items")

    def __init__(self, events: "list[Event]", on_cancel: Callable[[float], None]) -> None:
        self._events = events
        self._on_cancel = on_cancel
        self._outcome: T | None = None
        self.error: DhtosError | None = None
        self.items: deque[Any] = deque()
        self.done = False

    def result(self) -> T:
        """The answer, or raise the error that ended the operation."""
        assert self.done, "the operation has not ended"
        if self.error is not None:
            raise self.error
        return self._outcome  # type: ignore[return-value]

    def push(self, items: list[Any]) -> None:
        """Stream a part of the answer."""
        assert not self.done
        if items:
            self.items.extend(items)
            self._events.append(Progressed(self))

    def finish(self, outcome: T) -> None:
        """End with an answer; a second end is ignored, as after a cancel."""
        if not self.done:
            self.done = True
            self._outcome = outcome
            self._events.append(Finished(self))

    def fail(self, error: DhtosError) -> None:
        """End with an error; a second end is ignored, as after a cancel."""
        if not self.done:
            self.done = True
            self.error = error
            self._events.append(Finished(self))

    def cancel(self, now: float) -> None:
        """Stop: open calls are forgotten and `result` raises Closed."""
        if not self.done:
            self.fail(Closed("the operation was cancelled"))
            self._on_cancel(now)


@dataclass(frozen=True, slots=True)
class Finished:
    """The operation ended."""

    operation: Operation[Any]


@dataclass(frozen=True, slots=True)
class Progressed:
    """The operation has new items."""

    operation: Operation[Any]


@dataclass(frozen=True, slots=True)
class MemberGone:
    """A hub member was declared dead or left."""

    key: bytes


Event = Finished | Progressed | MemberGone
