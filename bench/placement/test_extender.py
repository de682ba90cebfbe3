"""A few calls of the extender with few names, and the figures that come of them."""

from bench.placement.extender import CALLS, CASES, measure


def test_calls_are_timed():
    times = measure(60, 2)
    assert list(times) == list(CASES)
    for found in times.values():
        assert list(found) == ["ours", "echo"]
        for one in found.values():
            assert list(one.wall) == list(CALLS)
            assert all(len(took) == 2 and min(took) > 0 for took in one.wall.values())
            assert one.cpu >= 0
