"""Counters that only grow, as figures a second since the last look.

A rate is said only where it can be true: not when a counter went back (it wrapped, or its device
was taken out and put in), and not across a time that the clocks do not agree on. The monotonic
clock stands still while a machine is suspended and the wall clock does not, so a suspension and a
clock that was set look alike: nothing is said, and the next look counts from here.
"""

import time
from collections.abc import Callable, Mapping

Counters = Mapping[str, tuple[float, ...]]
"""Per device: its counters, always the same ones in the same order."""

ELAPSED_S_MIN = 0.05
ELAPSED_S_MAX = 7200.0  # twice the longest interval between two samples
_DRIFT_S = 1.0  # by which two clocks may disagree, beside 5 % of the time
_DRIFT_SHARE = 0.05


class Rates:
    """What some devices count, and when they were looked at last."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._moment: tuple[float, float] | None = None
        self._counters: Counters = {}

    def each(self, counters: Counters) -> dict[str, tuple[float, ...]] | None:
        """Per device that was there before too: each counter's growth a second."""
        before, self._counters = self._counters, dict(counters)
        elapsed = self._elapsed()
        shared = {name: now for name, now in counters.items() if name in before}
        if elapsed is None or not shared:
            return None
        grown = {
            name: tuple(n - b for b, n in zip(before[name], now, strict=True))
            for name, now in shared.items()
        }
        if any(growth < 0 for device in grown.values() for growth in device):
            return None
        return {name: tuple(growth / elapsed for growth in g) for name, g in grown.items()}

    def total(self, counters: Counters) -> tuple[float, ...] | None:
        """Each counter's growth a second, of all these devices together."""
        rates = self.each(counters)
        return None if rates is None else tuple(map(sum, zip(*rates.values(), strict=True)))

    def _elapsed(self) -> float | None:
        """Seconds since the last call; None for the first, and where the clocks disagree."""
        before, self._moment = self._moment, (self._clock(), self._wall())
        if before is None:
            return None
        steady, wall = (now - then for now, then in zip(self._moment, before, strict=True))
        if not ELAPSED_S_MIN <= steady <= ELAPSED_S_MAX:
            return None
        return steady if abs(wall - steady) <= _DRIFT_S + _DRIFT_SHARE * steady else None
