"""Rates: growth a second, and nothing where counters or clocks cannot be believed."""

import pytest

from dhtos.node.rates import ELAPSED_S_MAX, Rates


class Clocks:
    """A monotonic and a wall clock that are moved by hand."""

    def __init__(self):
        self.steady = 100.0
        self.wall = 1e9

    def pass_s(self, seconds, *, wall=None):
        self.steady += seconds
        self.wall += seconds if wall is None else wall


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def rates(clocks):
    return Rates(lambda: clocks.steady, lambda: clocks.wall)


def test_growth_a_second_of_all_devices(rates, clocks):
    assert rates.total({"eth0": (1000, 50), "eth1": (0, 0)}) is None
    clocks.pass_s(10)
    assert rates.total({"eth0": (3000, 50), "eth1": (500, 100)}) == (250.0, 10.0)
    clocks.pass_s(5)
    assert rates.total({"eth0": (3000, 50), "eth1": (500, 100)}) == (0.0, 0.0)


def test_each_device_for_itself(rates, clocks):
    rates.each({"a": (10.0,), "b": (0.0,)})
    clocks.pass_s(2)
    assert rates.each({"a": (11.0,), "b": (4.0,)}) == {"a": (0.5,), "b": (2.0,)}


@pytest.mark.parametrize("after", [(999, 60), (2000, 49), (0, 0)])
def test_a_counter_that_went_back_says_nothing_once(rates, clocks, after):
    rates.total({"eth0": (1000, 50)})
    clocks.pass_s(10)
    assert rates.total({"eth0": after}) is None
    clocks.pass_s(10)
    assert rates.total({"eth0": (after[0] + 20, after[1] + 10)}) == (2.0, 1.0)


def test_a_counter_that_wrapped_says_nothing_once(rates, clocks):
    rates.total({"eth0": (2**32 - 10, 0)})
    clocks.pass_s(1)
    assert rates.total({"eth0": (90, 0)}) is None
    clocks.pass_s(1)
    assert rates.total({"eth0": (190, 0)}) == (100.0, 0.0)


def test_devices_that_come_and_go(rates, clocks):
    rates.total({"eth0": (1000, 0)})
    clocks.pass_s(1)
    assert rates.total({"eth0": (1100, 0), "usb0": (10**9, 0)}) == (100.0, 0.0)
    clocks.pass_s(1)
    assert rates.total({"usb0": (10**9 + 7, 0)}) == (7.0, 0.0)
    clocks.pass_s(1)
    assert rates.total({}) is None
    clocks.pass_s(1)
    assert rates.total({"eth0": (0, 0)}) is None


def test_a_suspended_machine_says_nothing_once(rates, clocks):
    """The monotonic clock stood still for an hour, the wall clock did not."""
    rates.total({"eth0": (0, 0)})
    clocks.pass_s(10, wall=3610)
    assert rates.total({"eth0": (100, 0)}) is None
    clocks.pass_s(10)
    assert rates.total({"eth0": (200, 0)}) == (10.0, 0.0)


@pytest.mark.parametrize("step", [-3600, -5, 5, 3600])
def test_a_clock_that_was_set_says_nothing_once(rates, clocks, step):
    rates.total({"eth0": (0, 0)})
    clocks.pass_s(10, wall=10 + step)
    assert rates.total({"eth0": (100, 0)}) is None
    clocks.pass_s(10)
    assert rates.total({"eth0": (200, 0)}) == (10.0, 0.0)


def test_a_clock_that_is_slewed_is_believed(rates, clocks):
    rates.total({"eth0": (0, 0)})
    clocks.pass_s(60, wall=60.03)
    assert rates.total({"eth0": (600, 0)}) == (10.0, 0.0)


@pytest.mark.parametrize("elapsed", [0.0, -1.0, 0.01, ELAPSED_S_MAX + 1])
def test_too_soon_too_late_or_backwards_says_nothing(rates, clocks, elapsed):
    rates.total({"eth0": (0, 0)})
    clocks.pass_s(elapsed)
    assert rates.total({"eth0": (100, 0)}) is None
