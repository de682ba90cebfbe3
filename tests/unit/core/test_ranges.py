"""Which ranges of ids are stale or empty, and the ids that stand for them."""

import random

import pytest

from dhtos.core.ids import ID_BITS, common_prefix_bits, random_id
from dhtos.core.ranges import Ranges

OWN = bytes.fromhex("5a" * 20)


def beside(share: int) -> bytes:
    """An id that shares exactly `share` bits with OWN."""
    return (int.from_bytes(OWN) ^ 1 << ID_BITS - 1 - share).to_bytes(20)


def stale(ranges: Ranges, shares: set[int], now: float, seed: int = 1) -> list[int]:
    """The ranges that are stale after 60 s; 160 stands for all nearer than the nearest contact."""
    targets = ranges.stale(shares, now, interval_s=60.0, rng=random.Random(seed))
    ranges.check()
    return [common_prefix_bits(target, OWN) for target in targets]


def test_who_knows_nobody_looks_for_itself() -> None:
    assert Ranges(OWN).stale(set(), 0.0, interval_s=60.0, rng=random.Random(1)) == [OWN]


def test_every_range_as_far_as_the_nearest_contact_has_a_target() -> None:
    assert stale(Ranges(OWN), {5}, 0.0) == [0, 1, 2, 3, 4, 5, ID_BITS]
    assert stale(Ranges(OWN), {0, 2}, 0.0) == [0, 1, 2, ID_BITS]
    assert stale(Ranges(OWN), {ID_BITS - 1}, 0.0) == list(range(ID_BITS + 1))


def test_a_lookup_postpones_the_refresh_of_its_range() -> None:
    ranges = Ranges(OWN)
    for share in range(4):
        ranges.touch(beside(share), 10.0)
    assert stale(ranges, {3}, 69.9) == [ID_BITS]
    ranges.touch(OWN, 10.0)
    assert stale(ranges, {3}, 69.9) == []
    ranges.touch(beside(2), 20.0)
    ranges.touch(beside(2), 15.0)  # a clock that goes back changes nothing
    assert stale(ranges, {3}, 70.0) == [0, 1, 3, ID_BITS]
    assert stale(ranges, {3}, 80.0) == [0, 1, 2, 3, ID_BITS]


def test_any_lookup_nearer_than_the_nearest_contact_counts_as_one_for_ourselves() -> None:
    ranges = Ranges(OWN)
    ranges.touch(beside(9), 0.0)
    assert stale(ranges, {2}, 1.0) == [0, 1, 2]
    assert stale(ranges, {12}, 1.0) == [*range(9), 10, 11, 12, ID_BITS]


def test_empty_ranges_are_those_without_anybody() -> None:
    ranges = Ranges(OWN)
    rng = random.Random(3)
    assert ranges.empty(set(), rng) == []
    assert ranges.empty({0}, rng) == []
    targets = ranges.empty({1, 4}, rng)
    assert [common_prefix_bits(target, OWN) for target in targets] == [0, 2, 3]


def test_targets_differ_from_time_to_time() -> None:
    ranges = Ranges(OWN)
    rng = random.Random(4)
    first, second = (ranges.empty({9}, rng) for _ in range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_looking_up_what_is_stale_leaves_nothing_stale(seed: int) -> None:
    rng = random.Random(seed)
    ranges = Ranges(random_id(rng))
    shares = set(rng.sample(range(ID_BITS), 8))
    for target in ranges.stale(shares, 5.0, interval_s=60.0, rng=rng):
        ranges.touch(target, 5.0)
    assert ranges.stale(shares, 64.0, interval_s=60.0, rng=rng) == [], seed
