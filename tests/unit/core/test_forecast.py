"""Forecasts: the fit, how far they are from the best that can be, and when they are said."""

import math
from random import Random

import pytest

from dhtos.core.forecast import (
    EVIDENCE_MAX,
    EVIDENCE_MIN,
    FIT_MIN,
    HISTORY_MAX,
    ORDER,
    Forecaster,
    Model,
    fit,
)

SEED = 20


def autoregression(weights, count, *, mean=50.0, noise=1.0, seed=SEED):
    """A series whose best forecast is known, after it has forgotten its start."""
    rng = Random(seed)
    series = [0.0] * len(weights)
    for _ in range(count + 500):
        expected = sum(w * x for w, x in zip(weights, series[::-1], strict=False))
        series.append(expected + rng.gauss(0, noise))
    return [mean + x for x in series[-count:]]


def least_error(weights, steps):
    """The mean squared error of the best forecast, for noise of variance 1 (Box and Jenkins)."""
    psi = [1.0]
    for n in range(1, steps):
        psi.append(sum(w * psi[n - 1 - i] for i, w in enumerate(weights) if n - 1 - i >= 0))
    return sum(value * value for value in psi)


WAVE = (1.6, -0.8)  # swings with a period of about 14 steps
CALM = (0.9,)


# --- the fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [CALM, WAVE, (0.5, 0.2, 0.2), (-0.7,)])
def test_a_fit_finds_the_weights(weights):
    model = fit(autoregression(weights, 6000), order=4)
    assert model is not None
    padded = (*weights, *[0.0] * (4 - len(weights)))
    assert model.weights == pytest.approx(padded, abs=0.08), f"seed {SEED}"
    assert model.mean == pytest.approx(50, abs=2)


def test_a_fit_solves_the_yule_walker_equations():
    series = autoregression(WAVE, 400)
    model = fit(series)
    assert model is not None
    mean = sum(series) / len(series)
    centred = [x - mean for x in series]
    covariance = [
        sum(a * b for a, b in zip(centred[lag:], centred, strict=False)) for lag in range(ORDER + 1)
    ]
    for row in range(1, ORDER + 1):
        left = sum(w * covariance[abs(row - 1 - i)] for i, w in enumerate(model.weights))
        assert left == pytest.approx(covariance[row], abs=1e-6 * covariance[0])


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0, 1e9 + 0.1])
def test_what_does_not_vary_has_no_model(value):
    assert fit([value] * 200) is None


def test_what_is_fully_determined_is_continued():
    series = [math.sin(n) for n in range(600)]
    model = fit(series)
    assert model is not None
    assert model.expect(series[: -ORDER - 1 : -1]) == pytest.approx(math.sin(600), abs=0.05)


def test_many_steps_at_once_are_as_many_single_ones():
    model = fit(autoregression(WAVE, 500))
    assert model is not None
    latest = [51.0, 49.5, 50.0, 52.0] * 4
    far = model.ahead(15).expect(latest)
    for _ in range(15):
        latest = [model.expect(latest), *latest[:-1]]
    assert far == pytest.approx(latest[0])


def test_far_ahead_only_the_mean_is_left():
    model = Model(50.0, (0.9,))
    assert model.ahead(1) == model
    assert model.ahead(200).expect([90.0]) == pytest.approx(50, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_a_fit_is_always_stable(seed):
    """However odd the series, a forecast of a forecast does not run away."""
    rng = Random(seed)
    series = [rng.choice([0.0, 0.0, 1.0, 64.0]) * rng.random() for _ in range(FIT_MIN)]
    model = fit(series)
    assert model is not None
    assert abs(model.ahead(2000).expect(series[:ORDER]) - model.mean) < 1


@pytest.mark.parametrize(
    "series",
    [
        [0.0] * 300 + [1.0] + [0.0] * 299,
        [float(n) for n in range(600)],
        [float(n % 2) for n in range(600)],
        [0.0] * 300 + [1e9] * 300,
        [1e9 + n % 3 for n in range(600)],
        [1.0] * 599 + [1e-6],
        [math.exp(-n / 5) for n in range(600)],
    ],
)
def test_series_without_noise_have_a_model_that_stays_within_them(series):
    model = fit(series)
    assert model is not None
    low, high = min(series), max(series)
    expected = model.ahead(15).expect(series[: -ORDER - 1 : -1])
    assert low - (high - low) <= expected <= high + (high - low)


# --- what is said ---------------------------------------------------------------------------------


def follow(series, horizons=(5, 15)):
    forecaster = Forecaster(horizons)
    for value in series:
        forecaster.add(value)
    return forecaster


@pytest.mark.parametrize(("weights", "steps"), [(CALM, 5), (CALM, 15), (WAVE, 5)])
def test_errors_come_near_the_least_there_can_be(weights, steps):
    """Within 20 % of the best possible, weights and mean being learnt from 600 steps."""
    series = autoregression(weights, 6000)
    forecaster = Forecaster((steps,))
    ours, lasts = [], []
    for at, value in enumerate(series):
        forecaster.add(value)
        if at > HISTORY_MAX and at % EVIDENCE_MAX == 0:
            errors = forecaster.horizons[steps].squared_errors()
            ours.append(errors[0])
            lasts.append(errors[1])
    best = least_error(weights, steps)
    assert sum(ours) / len(ours) == pytest.approx(best, rel=0.2), f"seed {SEED}"
    assert sum(ours) < 0.85 * sum(lasts)


def test_an_error_bar_is_what_forecasts_were_wrong_by():
    series = autoregression(CALM, 3000)
    said = follow(series).forecasts()
    assert set(said) == {5, 15}
    for steps, forecast in said.items():
        assert forecast.error == pytest.approx(math.sqrt(least_error(CALM, steps)), rel=0.3)
    assert said[5].error < said[15].error


def test_a_random_walk_is_not_forecast():
    """Its last value is the best forecast: nothing beats it but by chance, and not for long."""
    said = 0
    for seed in range(10):
        rng = Random(seed)
        walk, at = [], 1000.0
        for _ in range(1500):
            at += rng.gauss(0, 1)
            walk.append(at)
        said += len(follow(walk).forecasts())
    assert said <= 7  # of 20


def test_a_constant_load_is_not_forecast():
    assert follow([2.0] * 1000).forecasts() == {}


def test_nothing_is_said_before_there_is_evidence():
    forecaster = Forecaster((5,))
    first = None
    for at, value in enumerate(autoregression(WAVE, 600)):
        forecaster.add(value)
        if forecaster.forecasts() and first is None:
            first = at + 1
    assert first is not None
    assert first >= FIT_MIN + 5 + EVIDENCE_MIN - 1


def test_a_forecast_that_stops_winning_is_withdrawn():
    rng = Random(SEED)
    forecaster = follow(autoregression(WAVE, 1000), (5,))
    assert forecaster.forecasts()
    at, withdrawn = 50.0, False
    for _ in range(HISTORY_MAX + EVIDENCE_MAX):
        at = max(at + rng.choice([-20.0, 20.0]), 0.0)
        forecaster.add(at)
        withdrawn = withdrawn or not forecaster.forecasts()
    assert withdrawn


def test_a_forecast_is_never_below_zero():
    rng = Random(SEED)
    forecaster = Forecaster((5, 15))
    made = []
    for at in range(3000):
        burst = 4.0 if at % 40 < 8 else 0.0
        forecaster.add(max(burst + rng.gauss(0, 0.2), 0.0))
        made += [forecast.value for forecast in forecaster.forecasts().values()]
    assert made
    assert min(made) >= 0


def test_a_gap_is_not_bridged():
    """Steps before it are not compared with what comes after, nor fitted together with it."""
    forecaster = follow(autoregression(CALM, 1000))
    before = {steps: h.squared_errors() for steps, h in forecaster.horizons.items()}
    forecaster.interrupt()
    assert forecaster.forecasts() == {}
    for _ in range(5):
        forecaster.add(1e6)
    after = {steps: h.squared_errors() for steps, h in forecaster.horizons.items()}
    assert after == before
