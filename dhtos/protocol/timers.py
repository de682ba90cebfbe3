"""What is due when: one heap of callbacks on the engine's own clock.

Timers never read a clock: `run(now)` fires what is due and hands `now` on. A cancelled timer
stays in the heap until its time comes or until cancelled ones outnumber live ones.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf

Callback = Callable[[float], None]

_COMPACT_AT = 4096  # below this many entries a sweep costs more than it frees


class Timer:
    """One pending callback; `cancel()` is idempotent and safe inside the callback."""

    __slots__ = ("_timers", "callback", "queued", "when")

    def __init__(self, timers: "Timers", when: float, callback: Callback) -> None:
        self._timers = timers
        self.when = when
        self.callback: Callback | None = callback
        self.queued = True

    def cancel(self) -> None:
        """Forget the callback."""
        if self.callback is not None:
            self.callback = None
            if self.queued:
                self._timers.cancelled()


class Timers:
    """A heap of timers; O(log n) to set, O(1) to cancel."""

    __slots__ = ("_cancelled", "_heap", "_number")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        self._cancelled = 0

    def at(self, when: float, callback: Callback) -> Timer:
        """Call `callback(now)` at the first `run` not before `when`."""
        timer = Timer(self, when, callback)
        self._number += 1
        heappush(self._heap, (when, self._number, timer))
        return timer

    def cancelled(self) -> None:
        """A timer was cancelled: sweep when dead entries outnumber the living."""
        self._cancelled += 1
        if self._cancelled > _COMPACT_AT and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapify(self._heap)
            self._cancelled = 0

    def next_deadline(self) -> float:
        """When the next live timer is due; infinity when there is none."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heappop(heap)[2].queued = False
            self._cancelled -= 1
        return heap[0][0] if heap else inf

    def run(self, now: float) -> None:
        """Fire what is due, in order; timers set while running fire in a later `run`."""
        heap = self._heap
        due = []
        while heap and heap[0][0] <= now:
            timer = heappop(heap)[2]
            timer.queued = False
            if timer.callback is None:
                self._cancelled -= 1
            else:
                due.append(timer)
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is not None:  # an earlier one of this run may have cancelled it
                callback(now)

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def check(self) -> None:
        """Assert the invariants of the heap and its counts."""
        assert 0 <= self._cancelled <= len(self._heap)
        dead = sum(1 for entry in self._heap if entry[2].callback is None)
        assert dead == self._cancelled, (dead, self._cancelled)
