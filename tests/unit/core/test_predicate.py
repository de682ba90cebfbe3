"""The normal form on its own: values, the wire form, and what the wire may not say."""

import math
import pickle

import msgspec
import pytest

from dhtos.core.limits import (
    LABEL_BYTES_MAX,
    PREDICATE_BOXES_MAX,
    PREDICATE_SET_MAX,
    PREDICATE_TERMS_MAX,
)
from dhtos.core.predicate import (
    EVERYTHING,
    Attested,
    Box,
    Exists,
    Label,
    LabelExists,
    Near,
    OneOf,
    Predicate,
    Range,
    StartsWith,
    check_coordinate,
    check_seconds,
    is_empty,
)
from dhtos.core.schema import default_schema
from dhtos.errors import MalformedMessage, UsageError

SCHEMA = default_schema()
CORES, ARCH, SITE, LOAD = map(SCHEMA.index, ("cores", "arch", "site", "load1"))

TERMS = [
    Range(CORES, 8, 64),
    Range(CORES, 8, math.inf, low_open=True),
    Range(LOAD, -math.inf, 0.5, high_open=True),
    OneOf(CORES, (1, 2, 4)),
    OneOf(SITE, ("a", "b"), negated=True),
    Exists(SITE),
    Exists(SITE, negated=True),
    StartsWith(SITE, "lab-"),
    StartsWith(SITE, "lab-", negated=True),
    Label("team", ("video", "")),
    Label("team", ("video",), negated=True),
    LabelExists("team"),
    LabelExists("team", negated=True),
    Near((0.01, -0.02, 0.001), 0, 0.02, high_open=True),
    Near((0.01, 0.001), 0.02, math.inf),
    Attested("gpu"),
    Attested("site", ("eu-1", ""), negated=True),
]


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_a_term_survives_the_wire(term):
    predicate = Predicate((Box((term,)),))
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(predicate.to_wire()))
    assert Predicate.from_wire(wire, SCHEMA) == predicate


def test_values_compare_hash_and_pickle():
    one = Predicate((Box(tuple(TERMS)), Box()))
    two = Predicate((Box(tuple(TERMS)), Box()))
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one != EVERYTHING
    with pytest.raises(AttributeError):
        one.boxes = ()  # type: ignore[misc]


def test_everything_is_one_box_without_terms():
    assert EVERYTHING.to_wire() == [[]]
    assert Predicate.from_wire([[]], SCHEMA) == EVERYTHING
    assert Predicate.from_wire(([],), SCHEMA) == EVERYTHING


MALFORMED = [
    None,
    7,
    "x",
    {},
    [],
    [7],
    [[7]],
    [[[]]],
    [[[0]]],
    [[[9, 0, 1]]],
    [[[-1, 0, 1]]],
    [[[0, CORES, 8, 64]]],
    [[[0, CORES, 8, 64, 0, 0]]],
    # ranges
    [[[0, CORES, 64, 8, 0]]],
    [[[0, CORES, 8, 8, 1]]],
    [[[0, CORES, 8, 8, 2]]],
    [[[0, CORES, None, None, 0]]],
    [[[0, CORES, None, 8, 1]]],
    [[[0, CORES, 8, None, 2]]],
    [[[0, CORES, 8, 64, 4]]],
    [[[0, CORES, 8, 64, -1]]],
    [[[0, CORES, 8, 64, True]]],
    [[[0, CORES, 8, 64, None]]],
    [[[0, CORES, 8.0, 64, 0]]],
    [[[0, CORES, True, 64, 0]]],
    [[[0, CORES, "8", 64, 0]]],
    [[[0, CORES, math.nan, 64, 0]]],
    [[[0, CORES, math.inf, None, 0]]],
    [[[0, CORES, -math.inf, 3, 0]]],
    [[[0, CORES, -1, 64, 0]]],
    [[[0, CORES, 2**64 - 1, None, 0]]],
    [[[0, SITE, 1, 2, 0]]],
    [[[0, True, 8, 64, 0]]],
    [[[0, -1, 8, 64, 0]]],
    [[[0, len(SCHEMA.attributes), 8, 64, 0]]],
    [[[0, 1.0, 8, 64, 0]]],
    # sets
    [[[1, SITE, [], False]]],
    [[[1, SITE, "a", False]]],
    [[[1, SITE, ["a"], 0]]],
    [[[1, SITE, ["a"], None]]],
    [[[1, SITE, [1], False]]],
    [[[1, SITE, [""], False]]],
    [[[1, SITE, ["\n"], False]]],
    [[[1, SITE, [["a"]], False]]],
    [[[1, ARCH, ["vax"], False]]],
    [[[1, CORES, [1.0], False]]],
    [[[1, SITE, ["a"] * (PREDICATE_SET_MAX + 1), False]]],
    [[[1, None, ["a"], False]]],
    # certificates
    [[[7, "gpu", []]]],
    [[[7, "gpu", [], 1]]],
    [[[7, "", [], False]]],
    [[[7, CORES, [], False]]],
    [[[7, "gpu", "a", False]]],
    [[[7, "gpu", [1], False]]],
    [[[7, "gpu", ["\n"], False]]],
    [[[7, "g" * 65, [], False]]],
    [[[7, "gpu", ["a"] * (PREDICATE_SET_MAX + 1), False]]],
    # existence, beginnings
    [[[2, SITE, 1]]],
    [[[2, 99, False]]],
    [[[2, SITE]]],
    [[[3, SITE, "", False]]],
    [[[3, SITE, b"a", False]]],
    [[[3, SITE, "x" * 1000, False]]],
    [[[3, CORES, "a", False]]],
    # labels
    [[[4, "", ["a"], False]]],
    [[[4, 1, ["a"], False]]],
    [[[4, "k", [], False]]],
    [[[4, "k", [1], False]]],
    [[[4, "k", [None], False]]],
    [[[4, "k", ["x" * (LABEL_BYTES_MAX + 1)], False]]],
    [[[4, "k" * (LABEL_BYTES_MAX + 1), ["x"], False]]],
    [[[5, "", False]]],
    [[[5, "k", None]]],
    # round trips
    [[[6, [0.1], 0, 1, 0]]],
    [[[6, [0.1] * 10, 0, 1, 0]]],
    [[[6, [0.1, -0.1], 0, 1, 0]]],
    [[[6, [0.1, math.nan], 0, 1, 0]]],
    [[[6, [0.1, 99.0], 0, 1, 0]]],
    [[[6, [0.1, True], 0, 1, 0]]],
    [[[6, "0.1", 0, 1, 0]]],
    [[[6, [0.1, 0.1], -1, 1, 0]]],
    [[[6, [0.1, 0.1], 1, 0, 0]]],
    [[[6, [0.1, 0.1], None, None, 0]]],
    [[[6, [0.1, 0.1], 0, "1", 0]]],
    # sizes
    [[]] * (PREDICATE_BOXES_MAX + 1),
    [[[5, "k", False]] * (PREDICATE_TERMS_MAX + 1)],
]


@pytest.mark.parametrize("wire", MALFORMED, ids=lambda wire: repr(wire)[:60])
def test_what_the_wire_may_not_say(wire):
    with pytest.raises(MalformedMessage, match="predicate: "):
        Predicate.from_wire(wire, SCHEMA)


def test_limits_are_inclusive():
    label = [5, "k", False]
    wire = [[label] * PREDICATE_TERMS_MAX] * PREDICATE_BOXES_MAX
    assert len(Predicate.from_wire(wire, SCHEMA).boxes) == PREDICATE_BOXES_MAX
    values = [f"v{i}" for i in range(PREDICATE_SET_MAX)]
    assert Predicate.from_wire([[[1, SITE, values, False]]], SCHEMA).boxes


@pytest.mark.parametrize(
    ("low", "high", "low_open", "high_open", "empty"),
    [
        (1, 2, False, False, False),
        (1, 2, True, True, False),
        (2, 2, False, False, False),
        (2, 2, True, False, True),
        (2, 2, False, True, True),
        (3, 2, False, False, True),
        (-math.inf, math.inf, False, False, False),
    ],
)
def test_which_intervals_are_empty(low, high, low_open, high_open, empty):
    assert is_empty(low, high, low_open=low_open, high_open=high_open) is empty


def test_seconds_are_finite_and_not_negative():
    assert check_seconds(0.02) == 0.02
    assert type(check_seconds(2.0)) is int
    for wrong in (-1, math.nan, math.inf, True, "1", None):
        with pytest.raises(UsageError, match="a round trip is a number"):
            check_seconds(wrong)


def test_coordinates_are_bounded_and_end_with_a_height():
    assert check_coordinate([0, 0.5]) == (0.0, 0.5)
    with pytest.raises(UsageError, match="within"):
        check_coordinate([0.1, 11])
    with pytest.raises(UsageError, match="height"):
        check_coordinate([0.1, -0.1])
