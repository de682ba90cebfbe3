"""The schemas of one fleet: which words there are, and what they mean under each version."""

from dataclasses import replace
from math import inf

import pytest

from dhtos.core.predicate import (
    EVERYTHING,
    Box,
    Exists,
    Label,
    LabelExists,
    Near,
    OneOf,
    Predicate,
    Range,
    StartsWith,
)
from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2
from dhtos.core.schema import Attribute, Schema
from dhtos.core.schemas import Schemas
from dhtos.errors import ConfigError

OLD = Schema(
    "shop",
    0,
    (
        Attribute("cores", "number", "static", Log2(1, 64), "", 8),
        Attribute("heat", "number", "dynamic", Linear(-50, 50)),
        Attribute("arch", "text", "static", Codes(("x86", "arm")), "", 4),
        Attribute("slots", "number", "static", Linear(0, 8)),
        Attribute("rack", "text", "static", Hashed()),
        Attribute("size", "number", "static", Log2(1, 8), "B"),
    ),
    ("cores", "arch"),
)
NEW = Schema(
    "shop",
    1,
    (
        Attribute("arch", "text", "static", Codes(("riscv", "arm", "x86")), "", 4),
        Attribute("heat", "number", "static", Log2(1, 100), "", 5),
        Attribute("cores", "number", "dynamic", Linear(-8, 4096)),
        Attribute("zone", "text", "static", Hashed()),
        Attribute("rack", "bool", "static", Flag()),
        Attribute("size", "number", "static", Log2(1, 8), "Hz"),
    ),
    ("heat", "arch"),
)
BOTH = Schemas(NEW, [OLD])
WORDS = BOTH.vocabulary


def index(name):
    return WORDS.index(name)


def asked(*terms, schema=OLD):
    """The terms of one box after the translation; None where nothing can match."""
    translated = BOTH.translated(Predicate((Box(tuple(terms)),)), schema)
    if translated is None:
        return None
    (box,) = translated.boxes
    return box.terms


# --- which there are ------------------------------------------------------------------------------


def test_schemas_are_known_by_version_and_by_tag():
    assert (BOTH.own, BOTH.at(0), BOTH.at(1), BOTH.at(2)) == (NEW, OLD, NEW, None)
    assert (BOTH.of_tag(OLD.tag), BOTH.of_tag(NEW.tag), BOTH.of_tag(1)) == (OLD, NEW, None)
    assert len(BOTH) == 2


def test_two_schemas_of_one_version_are_a_mistake():
    with pytest.raises(ConfigError, match="both have version 1: give the changed schema the next"):
        Schemas(NEW, [replace(OLD, version=1)])
    with pytest.raises(ConfigError, match="both have version 0"):
        Schemas(NEW, [OLD, replace(NEW, version=0)])


def test_all_together_they_have_a_bounded_number_of_attributes():
    many = tuple(Attribute(f"a{n}", "number", "static", Linear(0, 1)) for n in range(60))
    with pytest.raises(ConfigError, match="at most 64 attributes, got 66"):
        Schemas(NEW, [Schema("shop", 0, many)])


def test_the_words_are_the_own_attributes_and_then_those_of_others():
    assert WORDS.attributes[:6] == NEW.attributes
    assert [a.name for a in WORDS.attributes[6:]] == ["slots"]
    assert (WORDS.name, WORDS.version) == ("shop", 1)


def test_one_schema_has_its_own_words():
    alone = Schemas(NEW)
    assert alone.vocabulary is NEW
    assert alone.translated(EVERYTHING, NEW) is EVERYTHING


def test_a_keyed_attribute_of_another_version_is_not_keyed_in_the_words():
    turned = Schemas(OLD, [NEW]).vocabulary
    assert not turned.attribute("zone").keyed
    assert turned.key_order == OLD.key_order


def test_an_attribute_is_the_same_if_name_kind_and_unit_are():
    assert BOTH.place(index("cores"), OLD) == 0
    assert BOTH.place(index("cores"), NEW) == 2
    assert BOTH.place(index("zone"), OLD) is None, "not there"
    assert BOTH.place(index("slots"), NEW) is None
    assert BOTH.place(index("rack"), OLD) is None, "of another kind"
    assert BOTH.place(index("size"), OLD) is None, "of another unit"


# --- what a question means ------------------------------------------------------------------------


def test_terms_are_told_under_their_place_in_the_other_schema():
    terms = (
        Range(index("cores"), 8, 16, True, False),
        OneOf(index("arch"), ("arm",)),
        Exists(index("heat")),
        StartsWith(index("arch"), "a", negated=True),
    )
    assert asked(*terms) == (
        Range(0, 8, 16, True, False),
        OneOf(2, ("arm",)),
        Exists(1),
        StartsWith(2, "a", negated=True),
    )


def test_what_is_no_attribute_stays():
    terms = (Label("team", ("red",)), LabelExists("x", negated=True), Near((0.0, 0.1), 0, 0.02))
    assert asked(*terms) == terms


@pytest.mark.parametrize(
    "term",
    [
        OneOf(3, ("a",)),
        OneOf(3, ("a",), negated=True),
        Exists(3),
        StartsWith(3, "a"),
        StartsWith(3, "a", negated=True),
        OneOf(4, (True,)),
        Range(5, 1, 2),
    ],
)
def test_a_term_about_what_is_not_there_matches_neither_way(term):
    assert asked(term) is None


def test_that_it_is_not_there_is_true_of_all():
    assert asked(Exists(index("zone"), negated=True)) == ()
    assert asked(Exists(index("zone"), negated=True), Exists(index("cores"))) == (Exists(0),)


def test_only_the_boxes_that_can_match_are_left():
    predicate = Predicate((Box((Exists(index("zone")),)), Box((Exists(index("cores")),))))
    translated = BOTH.translated(predicate, OLD)
    assert translated == Predicate((Box((Exists(0),)),))


def test_the_own_schema_is_asked_without_what_others_have():
    assert asked(Exists(index("slots")), schema=NEW) is None
    assert asked(Range(index("cores"), 2, inf), schema=NEW) == (Range(2, 2, inf),)


def test_a_word_that_the_other_scale_refuses_is_no_value_there():
    assert asked(OneOf(index("arch"), ("riscv", "arm"))) == (OneOf(2, ("arm",)),)
    assert asked(OneOf(index("arch"), ("riscv",))) is None
    assert asked(OneOf(index("arch"), ("riscv", "arm"), negated=True)) == (
        OneOf(2, ("arm",), negated=True),
    )
    assert asked(OneOf(index("arch"), ("riscv",), negated=True)) == (Exists(2),)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-4, 8, Range(0, -inf, 8)),  # no machine there has fewer than 0
        (-4, inf, Exists(0)),
        (-inf, -4, None),
        (-8, -4, None),
        (-inf, 8, Range(0, -inf, 8)),
    ],
)
def test_a_bound_beyond_all_values_is_no_bound(low, high, expected):
    term = Range(index("cores"), low, high, low_open=low != -inf)
    got = asked(term)
    assert got == (None if expected is None else (expected,))


def test_a_number_that_the_other_scale_refuses_is_left_out_of_a_set():
    assert asked(OneOf(index("cores"), (-1, 4))) == (OneOf(0, (4,)),)
