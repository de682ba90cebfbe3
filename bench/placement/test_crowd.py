"""A small crowd in virtual time: everything is counted, and one seed is one story."""

from bench.placement.crowd import Crowd
from bench.placement.trace import made


def crowd(seed=1, load=0.9, gang=1):
    return Crowd(made(24, 1), 24, seed, load, gang).measure(300.0)


def test_placements_of_a_crowd_are_counted():
    figures = crowd()
    assert figures["placements"] > 10
    assert 0.5 < figures["load"] <= 1
    assert 0.5 < figures["success"] <= 1
    assert 1 <= figures["claims"] < 3
    assert 0 < figures["first try"] <= 1
    assert 0 < figures["p50 ms"] <= figures["p99 ms"]


def test_one_seed_is_one_crowd():
    assert crowd(2, 0.6) == crowd(2, 0.6)


def test_gangs_of_a_crowd_are_counted():
    figures = crowd(3, 0.6, 2)
    assert figures["placements"] > 2
    assert figures["success"] > 0.5
    assert figures["claims"] >= 2
