"""How wrong are forecasts of load, beside "it stays as it is", on machines of several kinds?

`load.txt` was recorded on a virtual machine with two cores that built, tested and measured this
project: how many tasks ran or waited, once a second, 60 to a line. The other series are made:
jobs that come and go, a job each minute, and requests around a level that drifts. All are fed to
the same watch that a node runs; a forecast counts where a node would have said it. A round of a
series that is made is one seed; the recorded one is one round.
"""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from math import sqrt
from pathlib import Path
from random import Random
from statistics import fmean

from report import Row

from dhtos.core.forecast import HISTORY_MAX, ORDER, fit
from dhtos.node.load import HORIZONS_S, LoadWatch

SEEDS = (3, 4, 5, 6, 7)
BUDGET_MS = 1.0  # for a fit and its forecasts
RECORDED = Path(__file__).with_name("load.txt")


def recorded(_: Random) -> Iterator[float]:
    """What a real machine did."""
    return map(float, RECORDED.read_text(encoding="utf-8").split())


def bursts(rng: Random) -> Iterator[float]:
    """Up to four jobs of 4, 8 or 60 s that come at any time."""
    now = 0
    ends: list[int] = []
    while True:
        now += 1
        ends = [end for end in ends if end > now]
        if rng.random() < 0.06 and len(ends) < 4:
            ends.append(now + rng.choice([4, 8, 60]))
        yield float(len(ends))


def minutes(rng: Random) -> Iterator[float]:
    """Three tasks in the first dozen seconds of each minute, and a little else."""
    now = 0
    while True:
        now += 1
        yield 3.0 * (now % 60 < rng.choice([12, 13, 14])) + (rng.random() < 0.2)


def requests(rng: Random) -> Iterator[float]:
    """Eight workers, each as busy as a level that wanders around a quarter."""
    level = 2.0
    while True:
        level = max(level + 0.02 * (2.0 - level) + rng.gauss(0, 0.15), 0.0)
        yield float(sum(rng.random() < level / 8 for _ in range(8)))


SERIES: dict[str, Callable[[Random], Iterator[float]]] = {
    "recorded": recorded,
    "bursts": bursts,
    "minutes": minutes,
    "requests": requests,
}


class Followed:
    """One series through one watch: the load as it is averaged, and what was said of it."""

    def __init__(self, series: Iterator[float], length: int) -> None:
        self.loads: list[float] = []
        self.said: list[dict[int, float]] = []
        self._load = self._now = 0.0
        watch = LoadWatch(lambda: self._load, lambda: self._now)
        add = watch._forecaster.add  # the averaged load passes here

        def noted(value: float) -> None:
            self.loads.append(value)
            add(value)

        watch._forecaster.add = noted  # type: ignore[method-assign]
        for self._load in islice(series, length):
            self._now += 1.0
            assert watch.look()
            self.said.append({ahead: f.value for ahead, f in watch.forecasts.items()})

    def errors(self, ahead: int) -> tuple[float, float, float] | None:
        """Root mean square of ours and of the last value's error where ours was said; its share."""
        told = [at for at in range(len(self.loads) - ahead) if ahead in self.said[at]]
        if not told:
            return None
        ours = fmean((self.said[at][ahead] - self.loads[at + ahead]) ** 2 for at in told)
        last = fmean((self.loads[at] - self.loads[at + ahead]) ** 2 for at in told)
        return sqrt(ours), sqrt(last), len(told) / len(self.loads)


def forecast(length: int = 3600, rounds: int = len(SEEDS), fits: int = 200) -> list[Row]:
    """How wrong are forecasts where they are said, and what does one cost?"""
    made = []
    for name, series in SERIES.items():
        seeds = SEEDS[: 1 if series is recorded else rounds]
        followed = [Followed(series(Random(seed)), length) for seed in seeds]
        for ahead in HORIZONS_S:
            found = [errors for each in followed if (errors := each.errors(ahead)) is not None]
            if found:
                ours, lasts, shares = map(tuple, zip(*found, strict=True))
                question = f"error of load {ahead} s ahead, {name}, where it is said"
                note = f"Said {fmean(shares):.0%} of the time; the baseline is the last value."
                made.append(
                    Row(question, "tasks", ours, lasts, 1.0, True, note=note, headline=False)
                )
    question = "fit AR(16) to 600 s, forecast 5 and 15 s"
    made.append(Row(question, "ms", cost(fits), target=BUDGET_MS, headline=False))
    return made


def cost(fits: int) -> tuple[float, ...]:
    """Milliseconds of a fit with its forecasts."""
    loads = Followed(bursts(Random(SEEDS[0])), HISTORY_MAX).loads
    latest = loads[: -ORDER - 1 : -1]
    taken = []
    for _ in range(fits):
        began = time.perf_counter()
        model = fit(loads)
        assert model is not None
        for ahead in HORIZONS_S:
            model.ahead(ahead).expect(latest)
        taken.append((time.perf_counter() - began) * 1000)
    return tuple(taken)
