"""A few calls of the extender with few names, and the figures that come of them."""

from bench.placement.extender import CALLS, CASES, measure


def test_calls_are_timed():
    times = measure(60, 2)
    assert list(times) == [f"{case}: {name}" for case in CASES for name in CALLS]
    for found in times.values():
        assert list(found) == ["ours", "echo"]
        for one in found.values():
            assert len(one.wall) == 2
            assert min(one.wall) > 0
            assert one.cpu >= 0
