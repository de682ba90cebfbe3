"""Facts about one subject: what their conjunction is, and when there is none."""

import math

import pytest

from dhtos.core.limits import PREDICATE_SET_MAX
from dhtos.core.predicate import Exists, Label, LabelExists, Near, OneOf, Range, StartsWith
from dhtos.query.facts import MISSING, THERE, Fact, conjoin, simplify, terms


def within(low=-math.inf, high=math.inf, low_open=False, high_open=False):
    return Fact(low, high, low_open, high_open)


def one_of(*values):
    return Fact(allowed=frozenset(values))


def none_of(*values):
    return Fact(denied=frozenset(values))


CASES = [
    (THERE, THERE, THERE),
    (MISSING, MISSING, MISSING),
    (MISSING, THERE, None),
    (one_of("a"), MISSING, None),
    (THERE, within(8), within(8)),
    (within(8), within(high=64), within(8, 64)),
    (within(8), within(8, low_open=True), within(8, low_open=True)),
    (within(high=8), within(high=8, high_open=True), within(high=8, high_open=True)),
    (within(8), within(4), within(8)),
    (within(8, low_open=True), within(high=4), None),
    (within(8, low_open=True), within(high=8), None),
    (within(8), within(high=8), one_of(8)),
    (one_of(1, 2, 3), within(2), one_of(2, 3)),
    (one_of(1, 2, 3), within(2, low_open=True), one_of(3)),
    (one_of(1, 2), within(3), None),
    (one_of("a", "b"), one_of("b", "c"), one_of("b")),
    (one_of("a"), one_of("b"), None),
    (one_of("a", "b"), none_of("a"), one_of("b")),
    (one_of("a"), none_of("a"), None),
    (none_of("a"), none_of("b"), none_of("a", "b")),
    (none_of(3), within(8), within(8)),
    (within(8), none_of(8), Fact(low=8, denied=frozenset({8}))),
    (one_of("lab-1", "x"), Fact(begins="lab"), one_of("lab-1")),
    (one_of("x"), Fact(begins="lab"), None),
    (one_of("lab-1", "x"), Fact(not_begins=frozenset({"lab"})), one_of("x")),
    (Fact(begins="lab"), Fact(begins="lab-1"), Fact(begins="lab-1")),
    (Fact(begins="lab"), Fact(begins="x"), None),
    (Fact(begins="lab"), Fact(not_begins=frozenset({"la"})), None),
    (Fact(begins="lab"), Fact(not_begins=frozenset({"x"})), Fact(begins="lab")),
    (Fact(begins="lab"), none_of("x"), Fact(begins="lab")),
]


@pytest.mark.parametrize(("one", "two", "both"), CASES)
def test_conjunctions(one, two, both):
    assert conjoin(one, two) == both
    assert conjoin(two, one) == both


def test_the_column_of_the_later_fact_is_kept():
    one, two = Fact(low=1, column=3), Fact(high=9, column=20)
    assert conjoin(one, two).column == 20
    assert simplify(Fact(low=2, high=2, column=7)).column == 7


def test_terms_of_attributes():
    assert terms((0, 4), THERE) == [Exists(4)]
    assert terms((0, 4), MISSING) == [Exists(4, negated=True)]
    assert terms((0, 4), within(8, 64, True)) == [Range(4, 8, 64, True, False)]
    assert terms((0, 4), one_of(8)) == [Range(4, 8, 8)]
    assert terms((0, 4), one_of(8, 2)) == [OneOf(4, (2, 8))]
    assert terms((0, 4), one_of(True)) == [OneOf(4, (True,))]
    assert terms((0, 4), one_of("a")) == [OneOf(4, ("a",))]
    everything = Fact(denied=frozenset("ba"), begins="x", not_begins=frozenset({"xz", "xy"}))
    assert terms((0, 4), everything) == [
        OneOf(4, ("a", "b"), negated=True),
        StartsWith(4, "x"),
        StartsWith(4, "xy", negated=True),
        StartsWith(4, "xz", negated=True),
    ]


def test_terms_of_labels_and_places():
    assert terms((1, "team"), THERE) == [LabelExists("team")]
    assert terms((1, "team"), MISSING) == [LabelExists("team", negated=True)]
    assert terms((1, "team"), one_of("b", "a")) == [Label("team", ("a", "b"))]
    assert terms((1, "team"), none_of("a")) == [Label("team", ("a",), negated=True)]
    assert terms((2, (0.1, 0.2)), within(high=0.02, high_open=True)) == [
        Near((0.1, 0.2), -math.inf, 0.02, False, True)
    ]
    assert terms((2, (0.1, 0.2)), simplify(within(1, 1))) == [Near((0.1, 0.2), 1, 1)]


def test_many_denials_are_several_terms():
    many = none_of(*(f"v{i}" for i in range(PREDICATE_SET_MAX + 1)))
    first, second = terms((0, 4), many)
    assert (len(first.values), len(second.values)) == (PREDICATE_SET_MAX, 1)
