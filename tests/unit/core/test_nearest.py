"""The order by predicted round trips."""

from math import inf

import pytest

from dhtos.core.coordinate import Coordinate, predict
from dhtos.core.nearest import Nearest
from dhtos.errors import MalformedMessage

HERE = Coordinate((0.01, 0.02, 0.0, 0.0, 0.0), 0.002, 0.1)


def test_it_is_what_coordinates_predict() -> None:
    there = Coordinate((0.03, 0.02, 0.01, 0.0, -0.01), 0.001, 0.2)
    told = there.to_bytes()
    order = Nearest.to(HERE)
    assert order.rtt_s(told) == predict(order.place, Coordinate.from_bytes(told))
    assert order.rtt_s(told) == pytest.approx(predict(HERE, there), rel=0.01)


def test_the_place_is_as_exact_as_it_travels() -> None:
    order = Nearest.to(HERE)
    assert Nearest.to(order.place) == order
    assert order.place.to_bytes() == HERE.to_bytes()


def test_who_tells_no_place_that_can_be_compared_is_last() -> None:
    order = Nearest.to(HERE)
    assert order.rtt_s(None) == inf
    assert order.rtt_s(Coordinate((0.01, 0.02), 0.002, 0.1).to_bytes()) == inf


def test_bytes_that_are_no_coordinate_are_refused() -> None:
    with pytest.raises(MalformedMessage):
        Nearest.to(HERE).rtt_s(b"\x05nothing")
