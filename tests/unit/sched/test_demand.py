"""Demand: the shares of what was asked for, old needs fading, everything bounded."""

import math

import pytest

from dhtos.core.limits import DEMAND_NEEDS, DEMAND_TYPES_MAX
from dhtos.sched import Candidate, Demand, Need
from dhtos.sched.demand import AMOUNT_BITS, rounded

NODE = bytes(20)


def test_shares_of_what_was_asked_for():
    demand = Demand([Need(cores=4)] * 3 + [Need(cores=4, gpus=1)])
    demand.check()
    types = demand.types()
    assert list(types) == [(("cores", 4.0),), (("cores", 4.0), ("gpus", 1.0))]
    assert list(types.values()) == pytest.approx([0.75, 0.25], abs=0.001)
    assert len(demand) == 2


def test_nothing_asked_for():
    demand = Demand([Need(where="arch == 'arm64'")])
    demand.check()
    assert demand.types() == {}
    assert demand.fragmentation().names == ()


def test_where_and_price_make_no_type():
    demand = Demand([Need(cores=4, where="a", max_price=1), Need(cores=4, priority=3)])
    assert len(demand) == 1


def test_nearly_equal_amounts_are_one_type():
    demand = Demand([Need(cores=101), Need(cores=101.5), Need(cores=102), Need(cores=105)])
    assert list(demand.types()) == [(("cores", 102.0),), (("cores", 106.0),)]


def test_old_needs_fade():
    demand = Demand([Need(cores=1)] * DEMAND_NEEDS)
    for _ in range(DEMAND_NEEDS):
        demand.add(Need(cores=2))
    types = demand.types()
    # What came before the last thousand counts 1 / e of itself, so 1 in e + 1 of all.
    expected = (1 / math.e) * (1 - 1 / math.e) / (1 - math.e**-2)
    assert types[(("cores", 1.0),)] == pytest.approx(expected, rel=0.01)


def test_a_long_life_does_not_overflow(monkeypatch):
    monkeypatch.setattr("dhtos.sched.demand._LARGE", 2.0)
    scaled = Demand()
    for n in range(5 * DEMAND_NEEDS):
        scaled.add(Need(cores=1 + n % 3))
    scaled.check()
    assert max(scaled._weights.values()) < 2 * DEMAND_NEEDS
    monkeypatch.undo()
    plain = Demand(Need(cores=1 + n % 3) for n in range(5 * DEMAND_NEEDS))
    assert scaled.types() == pytest.approx(plain.types())


def test_the_rarest_types_are_forgotten():
    demand = Demand()
    for n in range(3 * DEMAND_TYPES_MAX):
        demand.add(Need(cores=1))
        demand.add(Need(slots=n + 1, cores=2 ** (n % 30)))
        demand.check()
    assert next(iter(demand.types())) == (("cores", 1.0),)
    assert len(demand) <= DEMAND_TYPES_MAX


def test_the_measure_follows_demand_but_not_with_every_need():
    demand = Demand([Need(cores=4)])
    first = demand.fragmentation()
    assert first.names == ("cores",)
    demand.add(Need(gpus=1))
    assert demand.fragmentation() is first
    for _ in range(20):
        demand.add(Need(gpus=1))
    second = demand.fragmentation()
    assert second is not first
    assert second.names == ("cores", "gpus")
    assert demand.fragmentation() is second


def test_a_busy_scheduler_makes_it_anew_every_few_hundred_needs():
    demand, made = Demand(), set()
    for n in range(4000):
        demand.add(Need(cores=1 + n % 4))
        made.add(id(demand.fragmentation()))
    kept = demand.fragmentation()
    for _ in range(255):
        demand.add(Need(cores=9))
        if demand.fragmentation() is not kept:
            break
    else:
        demand.add(Need(cores=9))
        assert demand.fragmentation() is not kept


def test_the_measure_is_that_of_the_types():
    demand = Demand([Need(cores=8)] * 9 + [Need(cores=2)])
    free = Candidate(NODE, {"cores": 8}, {"cores": 4})
    share = demand.types()[(("cores", 8.0),)]
    assert demand.fragmentation().lost("cores", free) == pytest.approx(4 * share)


@pytest.mark.parametrize("amount", [0.001, 0.25, 0.47, 1, 3, 17, 63, 64, 100, 12345, 2**40 + 1])
def test_amounts_are_rounded_up_by_a_few_per_cent(amount):
    assert amount <= rounded(amount) <= amount * (1 + 2 ** (1 - AMOUNT_BITS))
    assert rounded(rounded(amount)) == rounded(amount)


def test_small_whole_numbers_stay():
    assert all(rounded(n) == n for n in range(1, 65))
