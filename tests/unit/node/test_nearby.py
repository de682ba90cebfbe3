"""Round trips as values: numbers that say how they are known."""

import copy
import pickle

import pytest

from dhtos import Central, Rtt
from dhtos.core.coordinate import Coordinate
from dhtos.core.ids import NodeId
from dhtos.core.predicate import EVERYTHING, Box, Exists, Near, Predicate
from dhtos.errors import UsageError
from dhtos.node.distance import id_of
from dhtos.node.nearby import _and_near


def test_a_round_trip_is_a_number_that_says_how_it_is_known():
    measured, predicted = Rtt(0.02), Rtt(0.03, error=0.1)
    assert (measured.measured, measured.error) == (True, 0.0)
    assert (predicted.measured, predicted.error) == (False, 0.1)
    assert measured + predicted == pytest.approx(0.05)
    assert sorted([predicted, measured]) == [measured, predicted]
    assert f"{1000 * predicted:.1f} ms" == "30.0 ms"


@pytest.mark.parametrize("rtt", [Rtt(0.02), Rtt(0.03, error=0.1)])
def test_copies_say_the_same(rtt):
    for other in (pickle.loads(pickle.dumps(rtt)), copy.copy(rtt), copy.deepcopy(rtt)):
        assert type(other) is Rtt
        assert (other, other.measured, other.error) == (rtt, rtt.measured, rtt.error)


def test_a_central_machine_is_as_far_as_its_farthest():
    central = Central(None, (Rtt(0.02, error=0.1), Rtt(0.04), Rtt(0.03, error=0.2)))
    assert central.worst_s == 0.04
    assert central.mean_s == pytest.approx(0.03)


def test_an_id_is_bytes_digits_or_itself():
    raw = bytes(range(20))
    assert id_of(raw) == id_of(raw.hex()) == id_of(raw.hex().upper()) == id_of(NodeId(raw)) == raw
    for wrong in ("abc", b"short", "x" * 40, ""):
        with pytest.raises(UsageError, match="a node id"):
            id_of(wrong)
    for wrong in (7, None, 0.5, ("10.0.0.1", 7400)):
        with pytest.raises(UsageError, match="a machine is named by a hit"):
            id_of(wrong)


def test_every_box_gets_the_border_unless_it_is_full():
    place = Coordinate((0.1, 0.0, 0.0, 0.0, 0.0), 0.002, 0.1)
    (box,) = _and_near(EVERYTHING, place, 0.03).boxes
    (near,) = box.terms
    assert isinstance(near, Near)
    assert near.coordinate == (0.1, 0.0, 0.0, 0.0, 0.0, 0.002)
    assert near.high == 0.03
    full = Box(tuple(Exists(index) for index in range(32)))
    both = _and_near(Predicate((full, Box((Exists(1),)))), place, 0.03)
    assert both.boxes[0] == full
    assert len(both.boxes[1].terms) == 2
