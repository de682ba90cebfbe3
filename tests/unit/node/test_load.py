"""The watch over the load: what it makes of its looks, and how its thread ends."""

import gc
import math
import threading
import weakref
from random import Random

import pytest

from dhtos.node.load import AVERAGED_S, FAILURES_MAX, GAP_S, HORIZONS_S, LoadWatch

SEED = 5


class Machine:
    """A load and a clock that are moved by hand."""

    def __init__(self):
        self.now = 1000.0
        self.load = 0.0
        self.error = None

    def read(self):
        if self.error is not None:
            raise self.error
        return self.load

    def watch(self):
        return LoadWatch(self.read, lambda: self.now)


@pytest.fixture
def machine():
    return Machine()


def bursts(rng, count):
    """Tasks that come and go: 0 to 4 of them, some for seconds, some for a minute."""
    ends = []
    for now in range(count):
        ends = [end for end in ends if end > now]
        if rng.random() < 0.06 and len(ends) < 4:
            ends.append(now + rng.choice([4, 8, 60]))
        yield float(len(ends))


def follow(machine, watch, loads):
    for load in loads:
        machine.load = load
        machine.now += 1.0
        assert watch.look()


def test_bursts_are_forecast_with_an_error_bar(machine):
    watch = machine.watch()
    follow(machine, watch, bursts(Random(SEED), 1500))
    assert set(watch.forecasts) == set(HORIZONS_S), f"seed {SEED}"
    for forecast in watch.forecasts.values():
        assert 0 <= forecast.value < 6
        assert 0 < forecast.error < 3


def test_the_load_is_averaged_over_seconds(machine):
    """A burst of one look is not the load; one of many is."""
    watch = machine.watch()
    seen = []
    watch._forecaster.add = seen.append
    follow(machine, watch, [0.0] * 3 + [1.0] * 20)
    assert seen[:3] == [0.0] * 3
    assert seen[3] == pytest.approx(1 - math.exp(-1 / AVERAGED_S))
    assert seen[-1] == pytest.approx(1.0, abs=0.02)


def test_a_steady_load_is_not_forecast(machine):
    watch = machine.watch()
    follow(machine, watch, [2.0] * 600)
    assert watch.forecasts == {}


@pytest.mark.parametrize("step", [GAP_S, 3600.0, 0.0, -5.0])
def test_a_gap_or_a_clock_that_stands_starts_over(machine, step):
    watch = machine.watch()
    follow(machine, watch, bursts(Random(SEED), 1500))
    assert watch.forecasts
    machine.now += step
    machine.load = 50.0
    assert watch.look()
    assert watch.forecasts == {}


def test_a_look_that_fails_is_counted_and_says_nothing(machine):
    watch = machine.watch()
    follow(machine, watch, bursts(Random(SEED), 1500))
    machine.error = OSError("gone")
    assert watch.look()
    assert watch.forecasts == {}
    assert watch.failures == 1


@pytest.mark.parametrize("error", [FileNotFoundError(), ValueError("words"), IndexError()])
def test_a_system_that_never_tells_is_given_up(machine, error):
    watch = machine.watch()
    machine.error = error
    assert [watch.look() for _ in range(FAILURES_MAX)] == [True] * (FAILURES_MAX - 1) + [False]
    assert watch.failures == FAILURES_MAX


def test_failures_with_successes_between_are_not_given_up(machine):
    watch = machine.watch()
    for at in range(4 * FAILURES_MAX):
        machine.error = OSError() if at % 2 else None
        machine.now += 1.0
        assert watch.look()


# --- the thread -----------------------------------------------------------------------------------


def running():
    return [thread for thread in threading.enumerate() if thread.name == "dhtos-load"]


def test_the_thread_ends_with_close():
    before = running()
    watch = LoadWatch()
    watch.start()
    watch.start()
    assert len(running()) == len(before) + 1
    watch.close()
    watch.close()
    assert running() == before
    watch.start()
    assert running() == before


def test_a_watch_that_never_started_closes():
    LoadWatch().close()


def test_the_thread_ends_when_nobody_holds_the_watch():
    watch = LoadWatch()
    watch.start()
    thread = watch._thread
    held = weakref.ref(watch)
    del watch
    gc.collect()
    assert held() is None
    thread.join(10)
    assert not thread.is_alive()


def test_the_thread_looks(monkeypatch):
    """With steps of nothing: the thread itself, without waiting for seconds."""
    looked = threading.Event()
    times = iter(range(10**9))

    def read():
        looked.set()
        return 1.0

    watch = LoadWatch(read, lambda: float(next(times)))
    monkeypatch.setattr("dhtos.node.load.STEP_S", 0.0)
    watch.start()
    assert looked.wait(10)
    watch.close()
