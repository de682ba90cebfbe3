"""The centre of several places: the farthest is as near as can be."""

from math import dist, sqrt
from random import Random

import pytest

from dhtos.core.centre import centre
from dhtos.core.coordinate import Coordinate


def place(*parts, height=0.001, error=0.1):
    return Coordinate((*parts, *(0.0,) * (5 - len(parts))), height, error)


def radius(at, places):
    return max(dist(at, there.position) + there.height for there in places)


def test_of_one_it_is_the_place_itself():
    there = place(0.3, -0.1)
    assert centre([there]).position == there.position


def test_of_two_it_is_half_way():
    assert centre([place(0.0), place(0.04)]).position[0] == pytest.approx(0.02, abs=0.0004)


def test_a_high_one_pulls():
    """Its height is paid in any case: 0.02 of 0.06 in all, so the centre is 0.03 from each."""
    found = centre([place(0.0, height=0.0), place(0.04, height=0.02)])
    assert found.position[0] == pytest.approx(0.03, abs=0.0006)


def test_one_that_is_higher_than_all_are_far_is_the_centre():
    far = place(0.01, height=0.5)
    found = centre([place(0.0), far, place(0.02)])
    assert radius(found.position, [far]) == pytest.approx(0.5, rel=0.01)


def test_who_stands_on_the_same_spot_counts_once():
    places = [place(0.0)] * 9 + [place(0.04)]
    assert centre(places).position[0] == pytest.approx(0.02, abs=0.0004)


@pytest.mark.parametrize("count", [2, 3, 8, 64])
def test_it_is_within_a_hundredth_of_the_best(count):
    """Of corners of a simplex, and points inside of it, the best radius is known."""
    print(f"seed {count}")
    rng, corners = Random(count), min(count, 5)
    places = [
        Coordinate(tuple(0.1 * (i == j) for j in range(5)), 0.001, 0.1) for i in range(corners)
    ]
    for _ in range(count - corners):
        weights = [rng.random() for _ in range(corners)]
        total = sum(weights)
        inside = (*(0.09 * w / total for w in weights), *(0.0,) * (5 - corners))
        places.append(Coordinate(inside, 0.0005, 0.1))
    best = 0.1 * sqrt(1 - 1 / corners) + 0.001
    found = centre(places)
    assert best * 0.9999 <= radius(found.position, places) <= best * 1.01


def test_no_step_makes_it_worse():
    rng = Random(3)
    print("seed 3")
    for _ in range(50):
        places = [
            place(*(rng.uniform(-0.1, 0.1) for _ in range(5)), height=rng.uniform(0, 0.05))
            for _ in range(rng.randrange(1, 12))
        ]
        found = centre(places)
        assert all(
            radius(found.position, places) <= radius(there.position, places) + 1e-12
            for there in places[:1]
        )
        assert found.error == 0.1
        assert found.height == 1e-5
