"""Demand: what is asked for these days, as the shares of the needs a scheduler has seen.

What free capacity is worth depends on what will be asked next, and the best guess of that is what
was asked last: the last thousand needs, older ones fading away. Amounts that are nearly alike are
one type, so that a fleet of free-form requests has types too.
"""

import math
from collections.abc import Iterable

from dhtos.core.limits import DEMAND_NEEDS, DEMAND_TYPES_MAX
from dhtos.sched.fragmentation import Amounts, Fragmentation
from dhtos.sched.need import Need

AMOUNT_BITS = 6
"""Amounts are rounded up to so many significant bits: whole numbers to 64 stay, others gain 3 %."""
_FADE = 1 - 1 / DEMAND_NEEDS
_LARGE = 1e100  # weights grow instead of old ones fading; they are scaled back from here
_REFRESH_MIN, _REFRESH_MAX = 16, 256


class Demand:
    """The types of needs seen and their shares; bounded memory, amortised O(1) a need."""

    def __init__(self, needs: Iterable[Need] = ()) -> None:
        self._weights: dict[Amounts, float] = {}
        self._weight = 1.0  # of the next need
        self._seen = 0
        self._seen_refreshed = 0
        self._fragmentation = Fragmentation({})
        for need in needs:
            self.add(need)

    def __len__(self) -> int:
        """How many types are remembered."""
        return len(self._weights)

    def add(self, need: Need) -> None:
        """One more need was seen."""
        if not need.resources:
            return
        kind = tuple((name, rounded(amount)) for name, amount in need.resources.items())
        self._seen += 1
        self._weights[kind] = self._weights.get(kind, 0.0) + self._weight
        self._weight /= _FADE
        if self._weight > _LARGE:
            self._scale_back()
        if len(self._weights) > DEMAND_TYPES_MAX:
            self._forget()

    def types(self) -> dict[Amounts, float]:
        """The share of each type, the most asked for first; together 1."""
        total = math.fsum(self._weights.values())
        ordered = sorted(self._weights.items(), key=lambda item: (-item[1], item[0]))
        return {kind: weight / total for kind, weight in ordered}

    def fragmentation(self) -> Fragmentation:
        """The measure for these types: made anew when the needs seen have grown by a quarter.

        It remembers machine states, so it must not change with every need.
        """
        new = self._seen - self._seen_refreshed
        if new and (not self._seen_refreshed or new >= self._patience()):
            self._fragmentation = Fragmentation(self.types())
            self._seen_refreshed = self._seen
        return self._fragmentation

    def _patience(self) -> int:
        return min(max(self._seen_refreshed // 4, _REFRESH_MIN), _REFRESH_MAX)

    def _scale_back(self) -> None:
        self._weights = {kind: weight / self._weight for kind, weight in self._weights.items()}
        self._weight = 1.0

    def _forget(self) -> None:
        """Let go of the least asked for quarter at once, so that it is seldom done."""
        kept = sorted(self._weights, key=lambda kind: -self._weights[kind])
        self._weights = {kind: self._weights[kind] for kind in kept[: DEMAND_TYPES_MAX * 3 // 4]}

    def check(self) -> None:
        """Assert the limits, and that shares are shares."""
        assert len(self._weights) <= DEMAND_TYPES_MAX
        assert all(weight >= 0 for weight in self._weights.values())
        assert not self._weights or math.isclose(math.fsum(self.types().values()), 1.0)


def rounded(amount: float) -> float:
    """The amount, up to the next number of `AMOUNT_BITS` significant bits.

    >>> rounded(12), rounded(0.47), rounded(12345)
    (12.0, 0.4765625, 12544.0)
    """
    mantissa, exponent = math.frexp(amount)
    return math.ldexp(math.ceil(math.ldexp(mantissa, AMOUNT_BITS)), exponent - AMOUNT_BITS)
