"""Evaluation: records, key prefixes, summaries and bounds, on a fleet one can see through."""

import math

import pytest

from dhtos.core.coordinate import Coordinate, predict
from dhtos.core.evidence import Evidence, possible_values
from dhtos.core.ids import Prefix
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
from dhtos.core.record import make_record
from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2
from dhtos.core.schema import Attribute, Schema
from dhtos.core.summary import Summary

SCHEMA = Schema(
    "toy",
    2,
    key_order=("cores", "arch", "site", "ready"),
    attributes=(
        Attribute("cores", "number", "static", Log2(1, 1024), "", 8),
        Attribute("arch", "text", "static", Codes(("arm64", "x86_64", "riscv64")), "", 4),
        Attribute("site", "text", "static", Hashed(), "", 8),
        Attribute("free", "number", "dynamic", Linear(0, 100), "%"),
        Attribute("ready", "bool", "static", Flag(), "", 2),
        Attribute("os", "text", "static", Hashed()),
    ),
)
CORES, ARCH, SITE, FREE, READY, OS = range(6)


def machine(labels=None, coordinate=None, **attributes):
    return make_record(
        SCHEMA,
        attributes,
        labels or {},
        node_id=bytes(20),
        endpoint=("10.0.0.1", 7400),
        seq=1,
        coordinate=coordinate,
    )


def bound(*terms):
    return Predicate((Box(terms),)).bind(SCHEMA)


def any_of(*boxes):
    return Predicate(tuple(Box(tuple(terms)) for terms in boxes)).bind(SCHEMA)


FULL = machine(
    {"team": "video", "zone": "b"},
    (0.01, 0.02, 0.002, 0.3),
    cores=8,
    arch="x86_64",
    site="lab-1",
    free=50,
    ready=True,
)
BARE = machine()

# --- records ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "matches"),
    [
        (Range(CORES, 8, 8), True),
        (Range(CORES, 9, 9), False),
        (Range(CORES, 8, math.inf), True),
        (Range(CORES, 8, math.inf, low_open=True), False),
        (Range(CORES, -math.inf, 8), True),
        (Range(CORES, -math.inf, 8, high_open=True), False),
        (Range(CORES, 7, 9, True, True), True),
        (Range(CORES, 7.5, 8.5), True),
        (Range(CORES, 9, 20), False),
        (Range(FREE, 10, 49.9), False),
        (Range(FREE, 10, 50), True),
        (OneOf(CORES, (4, 8)), True),
        (OneOf(CORES, (4, 8), negated=True), False),
        (OneOf(SITE, ("lab-2",)), False),
        (OneOf(SITE, ("lab-2",), negated=True), True),
        (OneOf(READY, (True,)), True),
        (OneOf(READY, (False,)), False),
        (Exists(SITE), True),
        (Exists(SITE, negated=True), False),
        (StartsWith(SITE, "lab-"), True),
        (StartsWith(SITE, "lab-", negated=True), False),
        (StartsWith(SITE, "x", negated=True), True),
        (Label("team", ("audio", "video")), True),
        (Label("team", ("audio",)), False),
        (Label("team", ("audio",), negated=True), True),
        (Label("team", ("video",), negated=True), False),
        (LabelExists("zone"), True),
        (LabelExists("zone", negated=True), False),
        (Near((0.01, 0.02, 0.001), 0, 0.0031), True),
        (Near((0.01, 0.02, 0.001), 0, 0.0029), False),
        (Near((0.0, 0.02, 0.0), 0.011, math.inf), True),
    ],
    ids=repr,
)
def test_one_term_on_a_full_record(term, matches):
    assert bound(term).matches(FULL) is matches


@pytest.mark.parametrize(
    "term",
    [
        Range(CORES, 0, 1000),
        Range(CORES, 8, 8),
        Range(FREE, 0, math.inf),
        OneOf(SITE, ("a",)),
        OneOf(SITE, ("a",), negated=True),
        OneOf(READY, (False,)),
        Exists(OS),
        StartsWith(SITE, "a"),
        StartsWith(SITE, "a", negated=True),
        Label("team", ("a",)),
        Label("team", ("a",), negated=True),
        LabelExists("team"),
        Near((0.0, 0.0, 0.0), 0, math.inf),
        Near((0.0, 0.0, 0.0), 0.5, math.inf),
    ],
    ids=repr,
)
def test_a_missing_subject_matches_neither_way(term):
    assert not bound(term).matches(BARE)


def test_only_existence_sees_what_is_missing():
    assert bound(Exists(SITE, negated=True), LabelExists("team", negated=True)).matches(BARE)


def test_everything_matches_and_nothing_does_not():
    assert EVERYTHING.bind(SCHEMA).matches(BARE)
    assert not Predicate(()).bind(SCHEMA).matches(FULL)


def test_a_box_needs_all_terms_and_a_predicate_any_box():
    wide, wrong = Range(CORES, 8, 64), Range(CORES, 9, 64)
    assert not bound(wide, OneOf(ARCH, ("arm64",))).matches(FULL)
    assert bound(wide, OneOf(ARCH, ("x86_64",)), Range(FREE, 50, 50)).matches(FULL)
    assert any_of([wrong], [wide]).matches(FULL)
    assert not any_of([wrong], [wide, wrong]).matches(FULL)


def test_a_round_trip_is_what_coordinates_predict():
    here = Coordinate((0.3, 0.1), 0.004, 0.5)
    there = Coordinate.from_wire(Coordinate((0.01, 0.02), 0.002, 0.3).to_wire())
    exact = predict(here, there)
    place = (*here.position, here.height)
    assert bound(Near(place, exact, exact)).matches(FULL)
    assert not bound(Near(place, 0, exact, high_open=True)).matches(FULL)
    assert not bound(Near(place, exact, 9, low_open=True)).matches(FULL)


def test_other_dimensions_predict_nothing():
    assert not bound(Near((0.0, 0.0, 0.0, 0.0), 0, math.inf)).matches(FULL)


def test_a_measured_round_trip_beats_the_prediction():
    near = bound(Near((0.01, 0.02, 0.001), 0, 0.01))
    assert near.matches(FULL)
    assert not near.matches(FULL, rtt=0.02)
    assert near.matches(BARE, rtt=0.005)


def test_a_measurement_says_nothing_about_two_places():
    two = bound(Near((0.01, 0.02, 0.001), 0, 0.01), Near((0.01, 0.02, 0.002), 0, 0.01))
    assert two.matches(FULL, rtt=5.0)


# --- keys ---------------------------------------------------------------------------------------

WHOLE = Prefix(0, 0)


def first_prefix(record, length):
    return Prefix.of(record.key(SCHEMA), length)


def test_another_version_holds_nothing():
    everything = EVERYTHING.bind(SCHEMA)
    assert everything.intersects(WHOLE)
    assert [everything.intersects(Prefix(bit, 1)) for bit in (0, 1)] == [False, True]
    assert [everything.intersects(Prefix(v, 2)) for v in range(4)] == [False, False, True, False]


def test_the_first_bit_of_cores_splits_the_axis():
    low, high = Prefix(0b100, 3), Prefix(0b101, 3)
    assert [bound(Range(CORES, 64, math.inf)).intersects(p) for p in (low, high)] == [False, True]
    assert [bound(Range(CORES, -math.inf, 8)).intersects(p) for p in (low, high)] == [True, False]


def test_the_subtree_of_the_missing_is_only_for_the_missing():
    prefix = first_prefix(BARE, 2 + 22)
    for term in (Range(CORES, 0, 1), OneOf(SITE, ("a",), negated=True), Exists(ARCH)):
        assert not bound(term).intersects(prefix)
    assert bound(Exists(CORES, negated=True)).intersects(prefix)
    assert not bound(Exists(CORES, negated=True)).intersects(first_prefix(FULL, 2 + 22))


def test_a_set_of_values_has_holes_between_its_cells():
    some = bound(OneOf(CORES, (1, 512)))
    middle = machine(cores=32)
    assert not some.intersects(first_prefix(middle, 2 + 22))
    assert bound(Range(CORES, 1, 512)).intersects(first_prefix(middle, 10))
    assert some.intersects(first_prefix(machine(cores=512), 10))
    assert some.intersects(first_prefix(machine(cores=1), 10))


def test_a_denied_word_leaves_the_cells_of_the_others():
    no_arm = bound(OneOf(ARCH, ("arm64",), negated=True))
    assert not no_arm.intersects(first_prefix(machine(arch="arm64"), 2 + 22))
    assert no_arm.intersects(first_prefix(machine(arch="riscv64"), 2 + 22))
    none = bound(OneOf(ARCH, ("arm64", "x86_64", "riscv64"), negated=True))
    assert not none.intersects(WHOLE)


def test_what_is_not_in_the_key_prunes_nothing():
    for term in (Range(FREE, 99, 100), OneOf(OS, ("x",)), Label("a", ("b",)), LabelExists("a")):
        assert bound(term).intersects(first_prefix(FULL, 100))


def test_any_box_keeps_a_subtree():
    either = any_of([Range(CORES, 100, 200)], [OneOf(ARCH, ("x86_64",))])
    assert either.intersects(first_prefix(FULL, 24))
    assert not Predicate(()).bind(SCHEMA).intersects(WHOLE)


# --- summaries ----------------------------------------------------------------------------------

FLEET = [
    machine(cores=2**power, arch="arm64" if power < 3 else "x86_64", site=f"s{power}", free=power)
    for power in range(6)
]
SUMMARY = Summary.of(SCHEMA, FLEET)


@pytest.mark.parametrize(
    ("term", "possible"),
    [
        (Range(CORES, 4, 8), True),
        (Range(CORES, 33, math.inf), False),
        (Range(CORES, 64, 64), False),
        (Range(CORES, -math.inf, 0.5), True),  # below the axis: the same position as 1
        (Range(FREE, 50, 100), False),
        (OneOf(ARCH, ("riscv64",)), False),
        (OneOf(ARCH, ("riscv64", "arm64")), True),
        (OneOf(ARCH, ("arm64", "x86_64"), negated=True), False),
        (OneOf(SITE, ("s1",), negated=True), True),
        (StartsWith(ARCH, "arm"), True),
        (StartsWith(ARCH, "risc"), False),
        (StartsWith(SITE, "nowhere"), True),
        (Exists(READY), False),
        (Exists(READY, negated=True), True),
        (Exists(CORES, negated=True), True),  # counts are rounded: never proof
        (OneOf(READY, (True,)), False),
        (Label("team", ("video",)), True),
        (LabelExists("team"), True),
        (Near((0.0, 0.0), 0, 1), True),
    ],
    ids=repr,
)
def test_what_a_summary_rules_out(term, possible):
    asked = bound(term)
    assert asked.may_match(SUMMARY) is possible
    assert (asked.estimate(SUMMARY) > 0) is possible
    sent = Summary.from_bytes(SUMMARY.to_bytes(SCHEMA), SCHEMA)
    assert asked.may_match(sent) or not possible


def test_strict_does_not_believe_dynamic_figures():
    busy = bound(Range(FREE, 50, 100))
    assert not busy.may_match(SUMMARY)
    assert busy.may_match(SUMMARY, strict=True)
    assert not bound(Range(CORES, 64, 99)).may_match(SUMMARY, strict=True)


def test_an_empty_subtree_matches_nothing():
    empty = Summary.of(SCHEMA, [])
    everything = EVERYTHING.bind(SCHEMA)
    assert not everything.may_match(empty)
    assert not everything.may_match(empty, strict=True)
    assert everything.estimate(empty) == 0.0


@pytest.mark.parametrize(
    ("terms", "low", "high"),
    [
        ([], 6, 6),
        ([Range(CORES, 1, 32)], 5.9, 6),
        ([Range(CORES, 8, math.inf)], 1.8, 3.5),
        ([Range(CORES, 8, math.inf), OneOf(ARCH, ("x86_64",))], 1, 3),
        ([OneOf(ARCH, ("arm64",))], 2.9, 3.1),
        ([Label("team", ("x",))], 0.1, 3),
        ([Exists(CORES, negated=True)], 0.01, 3),
        ([StartsWith(SITE, "s")], 0.1, 6),
        ([OneOf(SITE, ("s1",), negated=True)], 4, 6),
    ],
    ids=repr,
)
def test_estimates_are_near_the_truth(terms, low, high):
    assert low <= bound(*terms).estimate(SUMMARY) <= high


def test_estimates_of_boxes_add_up_but_not_beyond_all():
    one, two = Range(CORES, 1, 2), Range(CORES, 8, 32)
    both = any_of([one], [two]).estimate(SUMMARY)
    assert max(bound(one).estimate(SUMMARY), bound(two).estimate(SUMMARY)) < both <= 6


def test_named_values_only_where_the_domain_is_closed():
    arch, site, ready = (SCHEMA.attributes[i] for i in (ARCH, SITE, READY))
    assert possible_values(StartsWith(ARCH, "x"), arch) == ("x86_64",)
    assert possible_values(Exists(READY), ready) == (False, True)
    assert possible_values(OneOf(SITE, ("a",)), site) == ("a",)
    assert possible_values(OneOf(SITE, ("a",), negated=True), site) is None


def test_evidence_multiplies_over_terms():
    one = Evidence(Box((Range(CORES, 8, 32),)), SCHEMA).fraction(SUMMARY)
    two = Evidence(Box((OneOf(ARCH, ("x86_64",)),)), SCHEMA).fraction(SUMMARY)
    both = Evidence(Box((Range(CORES, 8, 32), OneOf(ARCH, ("x86_64",)))), SCHEMA)
    assert both.fraction(SUMMARY) == pytest.approx(one * two)


# --- order by -----------------------------------------------------------------------------------


def test_the_bound_is_just_outside_the_values():
    everything = EVERYTHING.bind(SCHEMA)
    middle = Summary.of(SCHEMA, FLEET[1:])
    low = everything.order_bound(middle, CORES, descending=False)
    high = everything.order_bound(middle, CORES, descending=True)
    assert 1.99 < low <= 2
    assert 32 <= high < 32.1


def test_the_clamped_ends_bound_nothing():
    assert EVERYTHING.bind(SCHEMA).order_bound(SUMMARY, CORES, descending=False) == -math.inf


def test_the_predicate_narrows_the_bound():
    asked = bound(Range(CORES, 4, 8))
    assert asked.order_bound(SUMMARY, CORES, descending=False) == 4.0
    assert asked.order_bound(SUMMARY, CORES, descending=True) == 8.0
    some = bound(OneOf(CORES, (4, 16)))
    assert some.order_bound(SUMMARY, CORES, descending=False) == 4.0
    assert some.order_bound(SUMMARY, CORES, descending=True) == 16.0


def test_the_best_of_the_boxes_counts_and_ruled_out_ones_do_not():
    asked = any_of([Range(CORES, 4, 8)], [Range(CORES, 2, 2), OneOf(ARCH, ("riscv64",))])
    assert asked.order_bound(SUMMARY, CORES, descending=False) == 4.0


@pytest.mark.parametrize(
    ("terms", "index"),
    [([Range(CORES, 100, 200)], CORES), ([Exists(CORES, negated=True)], CORES)],
    ids=repr,
)
def test_no_match_with_a_value_is_the_worst_bound(terms, index):
    asked = bound(*terms)
    assert asked.order_bound(SUMMARY, index, descending=False) == math.inf
    assert asked.order_bound(SUMMARY, index, descending=True) == -math.inf


def test_an_attribute_that_nobody_has_is_the_worst_bound():
    bare = Summary.of(SCHEMA, [BARE])
    assert EVERYTHING.bind(SCHEMA).order_bound(bare, CORES, descending=False) == math.inf


def test_texts_have_no_bound():
    everything = EVERYTHING.bind(SCHEMA)
    assert everything.order_bound(SUMMARY, SITE, descending=False) == -math.inf
    assert everything.order_bound(SUMMARY, SITE, descending=True) == math.inf
    nothing = bound(Range(CORES, 100, 200))
    assert nothing.order_bound(SUMMARY, SITE, descending=True) == -math.inf


def test_whole_numbers_beyond_floats_are_rounded_outward():
    big = 2**53 + 1
    asked = bound(Range(CORES, big, big))
    fleet = Summary.of(SCHEMA, [machine(cores=big)])
    assert asked.order_bound(fleet, CORES, descending=False) <= big
    assert asked.order_bound(fleet, CORES, descending=True) >= big


def test_a_question_speaks_of_its_version_alone():
    everything = EVERYTHING.bind(SCHEMA)
    assert everything.speaks_of(WHOLE)
    assert [everything.speaks_of(Prefix(bit, 1)) for bit in (0, 1)] == [False, True]
    assert [everything.speaks_of(Prefix(v, 2)) for v in range(4)] == [False, False, True, False]
    nobody = bound(Exists(CORES), Exists(CORES, negated=True))
    assert nobody.speaks_of(first_prefix(FULL, 30))
    assert not nobody.intersects(first_prefix(FULL, 30))
