"""F: what Python's operators build, and the slips they catch."""

import pickle

import pytest

from dhtos.core.ids import NodeId
from dhtos.errors import PredicateError
from dhtos.query import F, GiB
from dhtos.query.expr import (
    AllOf,
    AnyOf,
    AttestedName,
    AttributeName,
    Comparison,
    Existence,
    LabelName,
    Literal,
    Membership,
    Not,
    RttTo,
    Starts,
    Truth,
    plain,
    quote,
)

CORES = AttributeName("cores")


@pytest.mark.parametrize(
    ("built", "op"),
    [
        (F.cores == 8, "=="),
        (F.cores != 8, "!="),
        (F.cores < 8, "<"),
        (F.cores <= 8, "<="),
        (F.cores > 8, ">"),
        (F.cores >= 8, ">="),
        (8 > F.cores, "<"),  # noqa: SIM300 - the mirrored form is the point
        (8 == F.cores, "=="),  # noqa: SIM300
    ],
)
def test_comparisons(built, op):
    assert built == Comparison(CORES, op, Literal(8))


def test_other_conditions():
    assert F.cores.exists() == Existence(CORES)
    assert F.site.startswith("lab") == Starts(AttributeName("site"), Literal("lab"))
    both = Membership(CORES, (Literal(1), Literal(2)))
    assert F.cores.one_of(1, 2) == both
    assert F.cores.one_of([1, 2]) == both
    assert F.cores.one_of((1, 2)) == both
    assert F.cores.one_of(1) == Membership(CORES, (Literal(1),))
    assert (F.mem >= 32 * GiB) == Comparison(AttributeName("mem"), ">=", Literal(2**35))


def test_labels_round_trips_and_taken_names():
    assert (F.label("team") == "video") == Comparison(LabelName("team"), "==", Literal("video"))
    assert F.label("team").exists() == Existence(LabelName("team"))
    assert (F.attested("site") == "a") == Comparison(AttestedName("site"), "==", Literal("a"))
    assert F.attested("gpu").truth == Truth(AttestedName("gpu"))
    assert (F["label"] == "x") == Comparison(AttributeName("label"), "==", Literal("x"))
    raw = bytes(range(20))
    expected = Comparison(RttTo(raw.hex()), "<", Literal(0.02))
    assert (F.rtt(NodeId(raw)) < 0.02) == expected
    assert (F.rtt(raw) < 0.02) == expected
    assert (F.rtt(raw.hex()) < 0.02) == expected
    assert (F.rtt() < 1) == Comparison(RttTo("self"), "<", Literal(1))
    assert (F.rtt([0.1, 0.2]) < 1) == Comparison(RttTo((0.1, 0.2)), "<", Literal(1))


def test_combinations_are_flat():
    a, b, c = F.a == 1, F.b == 2, F.c == 3
    assert (a & b & c) == AllOf((a, b, c))
    assert (a & (b & c)) == AllOf((a, b, c))
    assert (a | b | c) == AnyOf((a, b, c))
    assert (a | b & c) == AnyOf((a, AllOf((b, c))))
    assert ~a == Not(a)


def test_a_field_alone_is_a_truth():
    spot = Truth(AttributeName("spot"))
    assert (F.spot & (F.a == 1)).parts[0] == spot
    assert ((F.a == 1) | F.spot).parts[1] == spot
    assert ~F.spot == Not(spot)
    assert plain(F.spot) == spot
    assert F.spot.truth == spot


@pytest.mark.parametrize(
    "slip",
    [
        lambda: bool(F.cores >= 8),
        lambda: (F.cores >= 8) and (F.mem >= 1),
        lambda: (F.cores >= 8) or (F.mem >= 1),
        lambda: not (F.cores >= 8),
        lambda: 8 <= F.cores <= 64,
        lambda: bool(F.spot),
        lambda: F.cores in (1, 2),
    ],
)
def test_a_stray_truth_value_is_caught(slip):
    with pytest.raises(PredicateError, match="no truth value yet") as caught:
        slip()
    assert caught.value.hint == "&"


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (lambda: F.cores >= F.mem, "another field"),
        (lambda: F.cores >= None, "a value is a number"),
        (lambda: F.cores == b"x", "a value is a number"),
        (lambda: F.cores.one_of(1, [2]), "a value is a number"),
        (lambda: F.label(3), "the key of a label is a text"),
        (lambda: F.attested(3), "what is attested has a name, got 3"),
    ],
)
def test_what_is_no_value(slip, message):
    with pytest.raises(PredicateError, match=message):
        slip()


def test_expressions_combine_with_expressions_only():
    with pytest.raises(TypeError):
        (F.cores >= 8) & True
    with pytest.raises(TypeError):
        (F.cores >= 8) | "mem > 1"


def test_fields_are_not_hashable_and_private_names_not_fields():
    with pytest.raises(TypeError):
        hash(F.cores)
    assert not hasattr(F, "_private")
    assert repr(F) == "F"
    assert repr(F.label("a")) == 'F.label("a")'
    assert repr(F.attested("a")) == 'F.attested("a")'


def test_trees_are_values():
    tree = (F.cores >= 8) & ~F.site.one_of("a", "b")
    same = (F.cores >= 8) & ~F.site.one_of("a", "b")
    assert tree == same
    assert hash(tree) == hash(same)
    assert pickle.loads(pickle.dumps(tree)) == tree


def test_columns_do_not_count_in_comparisons():
    assert AttributeName("a", 3) == AttributeName("a")
    assert Literal(8, "ms", 4) == Literal(8, "ms")


def test_subjects_spell_themselves():
    assert str(RttTo("self")) == "rtt(self)"
    assert str(RttTo("ab")) == 'rtt("ab")'
    assert str(RttTo((0.1, 0.2))) == "rtt((0.1, 0.2))"
    assert str(Literal(20, "ms")) == "20ms"
    assert str(Literal("x")) == '"x"'
    assert quote('a"\\') == '"a\\"\\\\"'
