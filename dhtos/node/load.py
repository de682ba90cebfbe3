"""Forecasts of this machine's load, from a look at it each second in a thread of its own.

What is looked at is the number of tasks that run or wait, averaged over 5 seconds as the load is
in the study behind `dhtos.core.forecast`; the system's own averages are over a minute and change
each 5 seconds, so they say nothing at this grain. One thread is the only one that touches the
series; others read its latest result.

The thread ends with `close`, or as soon as nobody holds the watch any more.
"""

import math
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType

from dhtos.core.forecast import Forecast, Forecaster
from dhtos.node.probes import runnable

HORIZONS_S = (5, 15)
STEP_S = 1.0
GAP_S = 2.5  # a look so late leaves out another: the machine was suspended, or starved
AVERAGED_S = 5.0
FAILURES_MAX = 5  # looks in a row that failed: this system does not tell

_KEPT = math.exp(-STEP_S / AVERAGED_S)
_NOTHING: Mapping[int, Forecast] = MappingProxyType({})


class LoadWatch:
    """Looks at the load each second once it was started; `forecasts` is the latest result.

    `read` and `clock` may be replaced, and `look` called instead of `start`, by a program under
    test.
    """

    def __init__(
        self,
        read: Callable[[], float] = runnable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failures = 0  # looks that failed, ever
        self.forecasts: Mapping[int, Forecast] = _NOTHING
        self._failed = 0  # and in a row
        self._read = read
        self._clock = clock
        self._forecaster = Forecaster([round(s / STEP_S) for s in HORIZONS_S])
        self._average: float | None = None
        self._looked: float | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look; may be called again."""
        if self._thread is None and not self._done.is_set():
            done = self._done
            watched = weakref.ref(self, lambda _: done.set())
            self._thread = threading.Thread(
                target=_keep_looking, args=(watched, done), name="dhtos-load", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Look no more; may be called again. Returns when the thread is gone."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def look(self) -> bool:
        """Take one sample; False when it is time to give up."""
        now = self._clock()
        try:
            load = float(self._read())
        except (OSError, ValueError, IndexError):
            self.failures += 1
            self._failed += 1
            self.forecasts = _NOTHING
            return self._failed < FAILURES_MAX
        self._failed = 0
        if self._looked is not None and not 0 < now - self._looked < GAP_S:
            self._forecaster.interrupt()
            self._average = None
        self._looked = now
        before = load if self._average is None else self._average
        self._average = _KEPT * before + (1 - _KEPT) * load
        self._forecaster.add(self._average)
        self.forecasts = MappingProxyType(
            {round(n * STEP_S): f for n, f in self._forecaster.forecasts().items()}
        )
        return True


def _keep_looking(watched: "weakref.ref[LoadWatch]", done: threading.Event) -> None:
    """The thread: holds the watch only while it looks, so that it can be collected."""
    while not done.wait(STEP_S):
        watch = watched()
        if watch is None or not watch.look():
            return
        del watch
