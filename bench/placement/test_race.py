"""A short race, and the sum of beliefs by hand."""

from bench.placement.race import Belief, most_believed, race


def test_beliefs_add_up_while_they_overlap():
    found = [
        Belief("a", 2, 0.0, 2.0),
        Belief("a", 1, 2.0, 3.0),  # begins where the other ends: not at the same time
        Belief("a", 1, 1.0, 2.5),
        Belief("b", 3, 0.0, 1.0),
        Belief("b", 4, 5.0, 5.0),  # believed for no time at all
    ]
    assert most_believed(found) == {"a": 3.0, "b": 3.0}
    assert most_believed([]) == {}


def test_nobody_is_oversold_while_all_are_killed():
    figures = race(3, 6, 2, 5.0, kill_every_s=1.0, seed=3)
    assert figures["oversold"] == 0, figures
    assert figures["leases"] > 0
    assert figures["killed daemons"] + figures["killed schedulers"] > 0
