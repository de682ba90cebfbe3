"""A small crowd in virtual time: everything is counted, and one seed is one story."""

from bench.placement.crowd import Crowd
from bench.placement.trace import made


def crowd(seed=1, load=0.9, gang=1):
    return Crowd(made(12, 1), 12, seed, load, gang).measure(200.0)


def test_placements_of_a_crowd_are_counted():
    figures = crowd()
    assert figures["placements"] > 5
    assert 0.8 < figures["load"] <= 1
    assert 0.5 < figures["success"] <= 1
    assert 1 <= figures["claims"] < 3
    assert 0 < figures["first try"] <= 1
    assert 0 < figures["p50 ms"] <= figures["p99 ms"]


def test_one_seed_is_one_crowd():
    assert crowd(2) == crowd(2)


def test_gangs_of_a_crowd_are_counted():
    figures = crowd(3, 0.5, 4)
    assert figures["placements"] > 0
    assert figures["success"] > 0.5
    assert figures["claims"] >= 4
