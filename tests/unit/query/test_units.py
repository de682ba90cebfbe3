"""Units: exact in, exact out."""

import pytest

from dhtos.query import GB, MB, TB, GiB, KiB, MiB, TiB, kB, ms, us
from dhtos.query.units import UNITS, in_base, nearest, spell, words


def test_constants_are_plain_numbers():
    assert [KiB, MiB, GiB, TiB] == [2**10, 2**20, 2**30, 2**40]
    assert [kB, MB, GB, TB] == [10**3, 10**6, 10**9, 10**12]
    assert (20 * ms, us) == (0.02, 1e-6)


@pytest.mark.parametrize(
    ("value", "word", "expected"),
    [
        (32, "GiB", 32 * GiB),
        (0.5, "KiB", 512),
        (1.5, "TB", 1_500_000_000_000),
        (20, "ms", 0.02),
        (0.1, "ms", 0.0001),
        (3, "us", 3e-6),
        (2.0, "s", 2),
        (5, "%", 5),
        (2.5, "GHz", 2_500_000_000),
        (-1, "kB", -1000),
    ],
)
def test_a_number_in_its_base_unit(value, word, expected):
    found = in_base(value, UNITS[word])
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "base", "text"),
    [
        (32 * GiB, "B", "32GiB"),
        (1000, "B", "1kB"),
        (1, "B", "1B"),
        (0, "B", "0B"),
        (1536, "B", "1.5KiB"),
        (0.02, "s", "20ms"),
        (1, "s", "1s"),
        (50, "%", "50%"),
        (0.1, "/h", "0.1"),
        (8, "", "8"),
        (8.0, "", "8"),
        (2.5e9, "Hz", "2.5GHz"),
    ],
)
def test_the_short_spelling(value, base, text):
    assert spell(value, base) == text


@pytest.mark.parametrize("base", ["B", "s", "%", "Hz", ""])
@pytest.mark.parametrize("value", [1 / 3, 123456789, 2**62 + 1, 1e-9, 0.1 + 0.2, 7, 1e15, 5e-324])
def test_a_spelling_means_the_same_number(value, base):
    text = spell(value, base)
    word = next((w for w in words(base) if text.endswith(w) and text[: -len(w)][-1:].isdigit()), "")
    number = text[: len(text) - len(word)]
    parsed = float(number) if any(c in number for c in ".e") else int(number)
    assert (in_base(parsed, UNITS[word]) if word else parsed) == value


def test_words_are_of_one_base():
    assert words("s") == ["s", "ms", "us"]
    assert words("%") == ["%"]
    assert words("/h") == words("") == []


@pytest.mark.parametrize(
    ("word", "choices", "found"),
    [
        ("coers", ["mem", "cores"], "cores"),
        ("GIB", ["KiB", "GiB"], "GiB"),
        ("Cores", ["cores"], "cores"),
        ("zzz", ["cores"], None),
        ("x", [], None),
    ],
)
def test_the_nearest_word(word, choices, found):
    assert nearest(word, choices) == found
