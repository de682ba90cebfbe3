"""Values: what fits an attribute, from this machine or from a stranger."""

import pytest

from dhtos.core.limits import TEXT_BYTES_MAX
from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2, Log2p1
from dhtos.core.value import NUMBER_MAX, is_number, is_printable, is_whole, value_test

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [0, -1, 2.5, -0.0, NUMBER_MAX, -NUMBER_MAX, 1e308, 5e-324])
def test_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize(
    "value", [True, False, NAN, INF, -INF, NUMBER_MAX + 1, -(2**70), "1", None, [1], 1j]
)
def test_not_numbers(value):
    assert not is_number(value)


@pytest.mark.parametrize(
    ("text", "bytes_max", "fits"),
    [
        ("", 4, True),
        ("abcd", 4, True),
        ("abcde", 4, False),
        ("éé", 4, True),
        ("ééé", 4, False),
        ("\N{SNOWMAN}\N{SNOWMAN}", 5, False),
        ("a\nb", 4, False),
        ("\x1b[2J", 8, False),
        ("a\u202eb", 8, False),
        ("\ud800", 8, False),
        ("\x00", 8, False),
    ],
)
def test_printable_text_fits_its_bytes_and_a_terminal(text, bytes_max, fits):
    assert is_printable(text, bytes_max) is fits


def test_whole_numbers_fit_an_integer():
    assert is_whole(8.0)
    assert is_whole(-0.0)
    assert is_whole(2.0**62)
    assert not is_whole(0.5)
    assert not is_whole(2.0**64)


@pytest.mark.parametrize("scale", [Log2(1, 8), Log2p1(0, 8)], ids=repr)
def test_counts_are_not_negative(scale):
    fits = value_test(scale)
    assert all(map(fits, [0, 0.0, 1, 0.5, NUMBER_MAX, 1e308]))
    assert not any(map(fits, [-1, -0.5, NUMBER_MAX + 1, INF, -INF, NAN, True, "1", b"1", None]))


def test_linear_numbers_may_be_negative():
    fits = value_test(Linear(-40, 85))
    assert fits(-10)
    assert fits(-1e9)
    assert not fits(NAN)
    assert not fits(True)


def test_texts():
    fits = value_test(Hashed())
    assert fits("x" * TEXT_BYTES_MAX)
    assert not any(map(fits, ["", "x" * (TEXT_BYTES_MAX + 1), "\n", b"x", 1, None, ["x"]]))


def test_closed_lists_take_their_words_only():
    fits = value_test(Codes(("arm64", "x86_64")))
    assert fits("arm64")
    assert not any(map(fits, ["amd64", "", b"arm64", 1, ["arm64"], {}]))


def test_open_lists_take_any_text():
    fits = value_test(Codes(("arm64",), open=True))
    assert fits("amd64")
    assert not fits("")


def test_flags():
    fits = value_test(Flag())
    assert fits(True)
    assert fits(False)
    assert not any(map(fits, [0, 1, None, "true"]))
