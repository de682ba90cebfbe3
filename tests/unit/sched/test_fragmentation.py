"""Fragmentation: the measure on machines that can be reckoned by hand, and its memory."""

import pytest

from dhtos.core.limits import FRAGMENT_STATES_MAX
from dhtos.sched import Candidate, Fragmentation, Need
from dhtos.sched.fragmentation import BESIDE_GPUS

NODE = bytes(20)
HALF = (("cores", 4.0), ("gpus", 0.5))
ONE = (("cores", 4.0), ("gpus", 1.0))
TWO = (("cores", 8.0), ("gpus", 2.0))
PLAIN = (("cores", 16.0),)


def machine(cores, *devices, gpus=None, **more):
    """A machine with that many cores and devices free."""
    capacity = {"cores": 64, "gpus": len(devices) if gpus is None else gpus, **more}
    return Candidate(NODE, capacity, {"cores": cores, **more}, devices)


# --- what is lost ---------------------------------------------------------------------------------


def test_nothing_is_lost_where_everything_fits():
    measure = Fragmentation({HALF: 0.5, ONE: 0.5})
    assert measure.lost("gpus", machine(64, 1.0, 1.0)) == 0
    assert measure.lost("cores", machine(64, 1.0, 1.0)) == 0


def test_a_type_that_does_not_fit_loses_all():
    measure = Fragmentation({HALF: 0.25, ONE: 0.75})
    assert measure.lost("gpus", machine(3, 1.0, 0.5)) == pytest.approx(1.5)
    assert measure.lost("cores", machine(3, 1.0, 0.5)) == pytest.approx(3)


def test_a_gpu_too_full_for_a_piece_is_lost_to_it():
    measure = Fragmentation({HALF: 0.25, ONE: 0.75})
    # 0.4 is of use to nobody; 0.5 to the quarter that wants half of one.
    assert measure.lost("gpus", machine(64, 1.0, 0.4, 0.5)) == pytest.approx(0.4 + 0.75 * 0.5)


def test_whole_gpus_are_counted():
    measure = Fragmentation({TWO: 1.0})
    assert measure.lost("gpus", machine(64, 1.0, 0.9, 0.0)) == pytest.approx(1.9)
    assert measure.lost("gpus", machine(64, 1.0, 1.0, 0.9)) == pytest.approx(0.9)


def test_a_machine_that_gives_gpus_out_whole_has_none_for_shares():
    whole = Candidate(NODE, {"cores": 64, "gpus": 3}, {"cores": 64, "gpus": 3})
    assert Fragmentation({HALF: 1.0}).lost("gpus", whole) == 3
    assert Fragmentation({TWO: 1.0}).lost("gpus", whole) == 0
    assert Fragmentation({HALF: 0.5, TWO: 0.5}).lost("gpus", whole) == pytest.approx(1.5)


def test_types_that_ask_for_none_say_nothing():
    alone = Fragmentation({ONE: 1.0})
    among = Fragmentation({ONE: 0.25, PLAIN: 0.75})
    for free in (machine(64, 0.5, 1.0), machine(2, 1.0, 1.0), machine(8, 0.2, 0.2)):
        assert among.lost("gpus", free) == pytest.approx(alone.lost("gpus", free))


def test_any_resource_can_be_lost():
    measure = Fragmentation({(("cores", 8.0), ("mem", 32.0)): 0.5, (("cores", 2.0),): 0.5})
    assert measure.lost("cores", machine(6, mem=64)) == pytest.approx(3)
    assert measure.lost("mem", machine(6, mem=64)) == pytest.approx(64)
    assert measure.lost("cores", machine(16, mem=16)) == pytest.approx(8)


def test_nobody_asks_nothing_is_lost():
    empty = Fragmentation({})
    assert empty.lost("gpus", machine(1, 1.0)) == 0
    assert empty.growth(Need(gpus=0.5), machine(1, 1.0)) == 0
    assert empty.device(Need(cores=1), machine(1, 1.0)) is None
    assert Fragmentation({PLAIN: 1.0}).lost("gpus", machine(64, 1.0)) == 0


# --- what a need adds -----------------------------------------------------------------------------


def test_growth_is_counted_in_usual_needs():
    measure = Fragmentation({(("mem", 4.0),): 1.0})
    before = Candidate(NODE, {"mem": 16}, {"mem": 10})
    assert measure.growth(Need(mem=5), before) == 0
    assert measure.growth(Need(mem=7), before) == pytest.approx(3 / 4)
    assert measure.growth(Need(cores=7), before) == 0


def test_growth_is_negative_where_a_fragment_is_used():
    measure = Fragmentation({ONE: 0.5, HALF: 0.5})
    assert measure.growth(Need(cores=1, gpus=0.5), machine(64, 0.5, 1.0)) < 0
    assert measure.growth(Need(cores=1, gpus=0.5), machine(64, 1.0, 1.0)) > 0


def test_a_share_takes_the_device_that_suffers_least():
    measure = Fragmentation({ONE: 0.5, HALF: 0.5})
    assert measure.device(Need(gpus=0.5), machine(64, 1.0, 0.8, 0.5)) == 2
    assert measure.device(Need(gpus=0.3), machine(64, 1.0, 0.8, 0.5)) == 1  # 0.5 is left for a half
    assert measure.device(Need(gpus=0.9), machine(64, 0.5, 1.0, 1.0)) == 1
    assert measure.device(Need(gpus=1), machine(64, 1.0)) is None
    assert measure.device(Need(cores=1), machine(64, 1.0)) is None


def test_whole_gpus_are_taken_from_idle_devices():
    measure = Fragmentation({ONE: 1.0}, {"gpus": 1.0})
    grown = measure.growth(Need(cores=4, gpus=1), machine(64, 0.5, 1.0))
    assert grown == pytest.approx(0)  # the half was lost before and still is
    assert measure.growth(Need(cores=62, gpus=1), machine(64, 1.0, 1.0)) == 1


def test_gpus_count_more_than_the_others():
    types = {ONE: 1.0}
    free, need = machine(8, 1.0, 1.0), Need(cores=6)
    by_default = Fragmentation(types).growth(need, free)
    assert by_default == pytest.approx(2 + BESIDE_GPUS * 2 / 4)
    assert Fragmentation(types, {"gpus": 1.0}).growth(need, free) == pytest.approx(2)
    assert Fragmentation(types, {"cores": 2.0}).growth(need, free) == pytest.approx(2 * 2 / 4)


def test_without_gpus_all_count_alike():
    types = {(("cores", 4.0), ("mem", 8.0)): 1.0}
    free = Candidate(NODE, {"cores": 64, "mem": 64}, {"cores": 8, "mem": 64})
    assert Fragmentation(types).growth(Need(cores=6), free) == pytest.approx(2 / 4 + 64 / 8)


# --- memory ---------------------------------------------------------------------------------------


def test_states_are_remembered_whatever_the_order_of_devices():
    measure = Fragmentation({ONE: 0.5, HALF: 0.5})
    first = measure.growth(Need(cores=4), machine(64, 0.5, 1.0))
    states = len(measure._states)
    assert measure.growth(Need(cores=4), machine(64, 1.0, 0.5)) == first
    assert len(measure._states) == states == 2


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("dhtos.sched.fragmentation.FRAGMENT_STATES_MAX", 8)
    assert FRAGMENT_STATES_MAX > 8
    types = {(("cores", float(n)), ("gpus", 1 / n)): 1 / 60 for n in range(1, 61)}
    measure, fresh = Fragmentation(types), Fragmentation(types)
    monkeypatch.setattr("dhtos.sched.fragmentation.FRAGMENT_STATES_MAX", FRAGMENT_STATES_MAX)
    expected = [fresh.growth(Need(cores=1), machine(n, 1.0, n / 100)) for n in range(1, 60)]
    monkeypatch.setattr("dhtos.sched.fragmentation.FRAGMENT_STATES_MAX", 8)
    for cores, grown in zip(range(1, 60), expected, strict=True):
        assert measure.growth(Need(cores=1), machine(cores, 1.0, cores / 100)) == grown
        assert len(measure._states) <= 8
        assert len(measure._choices) <= 8
        assert len(measure._sums) <= 8


def test_hundreds_of_types():
    """Masks are summed byte by byte: every place of every byte must count."""
    types = {(("cores", float(n)),): 1 / 300 for n in range(1, 301)}
    measure = Fragmentation(types)
    for free in (0, 1, 7, 8, 9, 64, 255, 256, 299, 300):
        found = measure.lost("cores", Candidate(NODE, {"cores": 1000}, {"cores": free}))
        assert found == pytest.approx(free * (300 - min(free, 300)) / 300)
