"""A forecast of a series of even steps, said only while it beats "as it is now".

P. A. Dinda and D. R. O'Hallaron ("Host load prediction using linear models", Cluster Computing 3,
2000) looked at 38 machines and many linear models: load sampled once a second is best forecast,
1 to 30 s ahead and for the price, by an autoregression of order 16 or more,

    x[t+1] - m = phi[1] (x[t] - m) + ... + phi[16] (x[t-15] - m) + noise.

It is fitted to the recent past by the Yule-Walker equations (Levinson and Durbin's recursion, which
always gives a stable model). A forecast h steps ahead is linear in the same 16 values, so its
weights are found once a fit and a forecast is one product of 16.

Not every machine at every time is predictable. Each forecast is therefore kept until its time has
come, beside the last value at the time it was made; both errors over a bounded past decide whether
the next one is worth saying, and the model's is its error bar: measured, not derived.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import mul

ORDER = 16
HISTORY_MAX = 600  # steps a model is fitted to
FIT_MIN = 120  # steps before the first fit: fewer tell 16 weights nothing
REFIT_STEPS = 30
EVIDENCE_MIN = 60  # forecasts whose time has come, before any is said
EVIDENCE_MAX = 120  # a machine that begins to do something else is noticed in time
_BETTER = 0.95  # of the squared error of the last value: below it forecasts are said,
_WORSE = 1.0  # and said until it is this


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected, and by how much such forecasts were wrong lately (root mean square)."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Model:
    """An autoregression: the mean, and the weights of the latest values, the latest first."""

    mean: float
    weights: tuple[float, ...]

    def ahead(self, steps: int) -> "Model":
        """The model that goes `steps` steps at once from the same values; O(steps x order)."""
        one = self.weights
        many = list(one)
        for _ in range(steps - 1):
            first = many[0]
            many = [first * w + m for w, m in zip(one, [*many[1:], 0.0], strict=True)]
        return Model(self.mean, tuple(many))

    def expect(self, latest: Iterable[float]) -> float:
        """What comes after these values, the latest first."""
        mean = self.mean
        return mean + math.fsum(w * (x - mean) for w, x in zip(self.weights, latest, strict=False))


def fit(series: Sequence[float], order: int = ORDER) -> Model | None:
    """The autoregression of a series; None where it does not vary. O(length x order)."""
    assert len(series) > order > 0
    mean = math.fsum(series) / len(series)
    centred = [x - mean for x in series]
    covariances = [sum(map(mul, centred[lag:], centred)) for lag in range(order + 1)]
    # Less than rounding leaves of the values themselves is no variation.
    if covariances[0] <= 1e-26 * len(series) * (1 + mean * mean):
        return None
    weights: list[float] = []
    noise = covariances[0]
    for lag in range(1, order + 1):
        known = sum(map(mul, weights, covariances[lag - 1 : 0 : -1]))
        reflection = (covariances[lag] - known) / noise
        weights = [w - reflection * v for w, v in zip(weights, weights[::-1], strict=True)]
        weights.append(reflection)
        noise *= 1 - reflection * reflection
    return Model(mean, tuple(weights))


class Horizon:
    """One distance ahead: its forecasts that wait for their time, and how earlier ones did."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.model: Model | None = None
        self._waiting: deque[tuple[float, float] | None] = deque(maxlen=steps)
        self._ours: deque[float] = deque(maxlen=EVIDENCE_MAX)  # squared errors
        self._lasts: deque[float] = deque(maxlen=EVIDENCE_MAX)
        self._trusted = False

    def compare(self, value: float) -> None:
        """The forecast made `steps` ago meets what came."""
        if len(self._waiting) == self.steps and (made := self._waiting[0]) is not None:
            expected, last = made
            self._ours.append((value - expected) ** 2)
            self._lasts.append((value - last) ** 2)
            ours, lasts = self.squared_errors()
            limit = _WORSE if self._trusted else _BETTER
            self._trusted = len(self._ours) >= EVIDENCE_MIN and ours < limit * lasts

    def expect(self, latest: deque[float]) -> None:
        """Make the forecast from here, the latest value first."""
        if self.model is None or len(latest) < len(self.model.weights):
            self._waiting.append(None)
        else:
            self._waiting.append((max(self.model.expect(latest), 0.0), latest[0]))

    def squared_errors(self) -> tuple[float, float]:
        """The mean squared error of the forecasts, and that of the last value."""
        count = max(len(self._ours), 1)
        return sum(self._ours) / count, sum(self._lasts) / count

    def forecast(self) -> Forecast | None:
        """The latest forecast, where earlier ones beat the last value."""
        made = self._waiting[-1] if self._waiting else None
        if made is None or not self._trusted:
            return None
        return Forecast(made[0], math.sqrt(self.squared_errors()[0]))

    def interrupt(self) -> None:
        """The series broke off: what was forecast has no time that comes."""
        self._waiting.clear()


class Forecaster:
    """Follows one series that is never negative; bounded memory, O(order) a step beside the fits.

    >>> forecaster = Forecaster((1,))
    >>> for step in range(400):
    ...     forecaster.add(step % 2)
    >>> round(forecaster.forecasts()[1].value, 1)
    0.0
    """

    def __init__(self, horizons: Sequence[int]) -> None:
        self.horizons = {steps: Horizon(steps) for steps in horizons}
        self._history: deque[float] = deque(maxlen=HISTORY_MAX)
        self._latest: deque[float] = deque(maxlen=ORDER)  # the latest first
        self._steps_fitted = 0

    def add(self, value: float) -> None:
        """The next step of the series."""
        self._history.append(value)
        self._latest.appendleft(value)
        self._steps_fitted += 1
        if len(self._history) >= FIT_MIN and self._steps_fitted >= REFIT_STEPS:
            self._fit()
        for horizon in self.horizons.values():
            horizon.compare(value)
            horizon.expect(self._latest)

    def forecasts(self) -> dict[int, Forecast]:
        """By steps ahead; only those worth saying."""
        made = ((steps, horizon.forecast()) for steps, horizon in self.horizons.items())
        return {steps: forecast for steps, forecast in made if forecast is not None}

    def interrupt(self) -> None:
        """The series broke off and goes on elsewhere: its steps do not join, its lessons stay."""
        self._history.clear()
        self._latest.clear()
        self._steps_fitted = 0
        for horizon in self.horizons.values():
            horizon.interrupt()

    def _fit(self) -> None:
        self._steps_fitted = 0
        model = fit(list(self._history))
        for steps, horizon in self.horizons.items():
            horizon.model = None if model is None else model.ahead(steps)
