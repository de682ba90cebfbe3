"""Scales: where values fall on the axis, and what a position says about its values."""

import math

import pytest

from dhtos.core.scale import (
    MISSING,
    POSITION_MAX,
    Codes,
    Flag,
    Hashed,
    Linear,
    Log2,
    Log2p1,
)

NUMBER_SCALES = [Log2(1, 1024), Log2(0.001, 256), Log2p1(0, 31), Linear(0, 100), Linear(-40, 85)]
FLOORS = [1, 2, 16, 4096, 32768]


def probes(scale):
    """Values across the axis and beyond both ends."""
    width = scale.high - scale.low
    inside = [scale.low + width * step / 97 for step in range(98)]
    return [scale.low - width, *inside, scale.high + width, scale.high * 2**20]


@pytest.mark.parametrize("scale", NUMBER_SCALES, ids=repr)
@pytest.mark.parametrize("floor", FLOORS)
def test_positions_are_monotone_and_never_missing(scale, floor):
    positions = [scale.placer(floor)(value) for value in probes(scale)]
    assert positions == sorted(positions)
    assert positions[0] == floor > MISSING
    assert positions[-1] == POSITION_MAX


@pytest.mark.parametrize("scale", NUMBER_SCALES, ids=repr)
@pytest.mark.parametrize("floor", FLOORS)
def test_a_position_bounds_the_values_that_have_it(scale, floor):
    for value in probes(scale):
        position = scale.placer(floor)(value)
        assert scale.least(position, floor) <= value <= scale.greatest(position, floor)


@pytest.mark.parametrize("scale", NUMBER_SCALES, ids=repr)
def test_clamped_ends_say_nothing(scale):
    assert scale.least(16, 16) == -math.inf
    assert scale.least(MISSING, 16) == -math.inf
    assert scale.greatest(POSITION_MAX, 16) == math.inf


@pytest.mark.parametrize("scale", NUMBER_SCALES, ids=repr)
def test_bounds_of_a_position_are_tight(scale):
    for position in range(20, POSITION_MAX, 1999):
        least, greatest = scale.least(position, 1), scale.greatest(position, 1)
        assert scale.placer(1)(least) >= position - 1
        assert scale.placer(1)(greatest) <= position + 1


def test_log2_is_linear_in_the_logarithm():
    scale = Log2(1, 1024)
    steps = [scale.placer(0)(2**power) for power in range(10)]
    assert steps == [int(power * 65536 / 10) for power in range(10)]


def test_log2p1_keeps_zero_apart_from_one():
    scale = Log2p1(0, 31)
    assert [scale.placer(0)(n) for n in (0, 1, 3, 7, 15)] == [int(k * 65536 / 5) for k in range(5)]


def test_linear_is_linear():
    scale = Linear(0, 100)
    assert scale.placer(0)(50) == 32768
    assert scale.placer(0)(25) == 16384


def test_values_that_logarithms_cannot_take_sit_at_the_low_end():
    for value in (0, 0.0, -1, -1e300):
        assert Log2(1, 1024).placer(16)(value) == 16
        assert Log2p1(0, 31).placer(16)(value) == 16


def test_huge_integers_have_a_place():
    assert Log2(1, 1024).placer(1)(2**63 - 1) == POSITION_MAX
    assert Linear(0, 2**62).placer(0)(2**61) == 32768


@pytest.mark.parametrize(("bits", "count"), [(1, 1), (2, 3), (4, 12), (4, 15), (8, 255), (16, 999)])
def test_declared_words_have_different_cells_while_cells_last(bits, count):
    words = tuple(f"w{n}" for n in range(count))
    scale, floor = Codes(words), 1 << (16 - bits)
    cells = [scale.placer(floor)(word) >> (16 - bits) for word in words]
    assert len(set(cells)) == count
    assert cells == sorted(cells)
    assert min(cells) >= 1


def test_words_spread_over_the_whole_axis():
    scale = Codes(("a", "b", "c", "d"))
    bins = [scale.placer(1)(word) >> 14 for word in scale.words]
    assert bins == [0, 1, 2, 3]


def test_an_unknown_word_of_an_open_list_is_hashed():
    scale = Codes(("a", "b"), open=True)
    assert scale.placer(16)("zebra") == Hashed().placer(16)("zebra")


def test_hashes_are_the_same_on_every_machine():
    assert Hashed().placer(1)("grenoble") == 25916
    assert Hashed().placer(1)("é") == Hashed().placer(1)("\u00e9")


def test_hashes_stay_above_the_floor_and_spread():
    positions = [Hashed().placer(4096)(f"text {n}") for n in range(2000)]
    assert min(positions) >= 4096
    assert max(positions) <= POSITION_MAX
    bins = {position >> 12 for position in positions}
    assert bins == set(range(1, 16))


def test_a_flag_takes_one_half_for_each_answer():
    assert Flag().placer(1)(False) == 1
    assert Flag().placer(1)(True) >> 15 == 1
    assert Flag().placer(16384)(False) >> 14 == 1
    assert Flag().placer(16384)(True) >> 14 == 2


def test_scales_are_values():
    assert Log2(1, 8) == Log2(1, 8) != Log2(1, 16)
    assert hash(Codes(("a",))) == hash(Codes(("a",)))
    assert Linear(0, 8) != Log2p1(0, 8)
