"""Predicates against a naive evaluator: whatever the two disagree on is a bug.

Random trees are spelled as text and as `F` expressions, normalised, bound and evaluated on
random records with gaps; the naive side walks the tree in three-valued logic (Kleene).
"""

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dhtos.core.coordinate import Coordinate, predict
from dhtos.core.ids import Prefix
from dhtos.core.limits import PREDICATE_TEXT_MAX
from dhtos.core.predicate import EVERYTHING, Predicate
from dhtos.core.record import Record, make_record
from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2
from dhtos.core.schema import Attribute, Schema
from dhtos.core.summary import Summary
from dhtos.errors import MalformedMessage, PredicateError
from dhtos.query import F, explain, parse, parse_selector

SCHEMA = Schema(
    "toy",
    1,
    key_order=("cores", "arch", "site", "tier", "ready"),
    attributes=(
        Attribute("cores", "number", "static", Log2(1, 64), "", 5),
        Attribute("free", "number", "dynamic", Linear(0, 100), "%"),
        Attribute("arch", "text", "static", Codes(("arm64", "x86", "x86_64")), "", 3),
        Attribute("site", "text", "static", Hashed(), "", 4),
        Attribute("tier", "text", "static", Codes(("gold", "iron"), open=True), "", 3),
        Attribute("host", "text", "static", Hashed()),
        Attribute("ready", "bool", "static", Flag(), "", 2),
        Attribute("mem", "number", "dynamic", Log2(2**20, 2**40), "B"),
    ),
)
ORIGIN = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
HERE = Coordinate((0.01, 0.0, 0.02, 0.0), 0.001, 0.5)
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
VALUES: dict[str, list[Any]] = {
    "cores": [0, 1, 2, 3, 8, 8.5, 9, 64, 500],
    "free": [-5, 0, 12.5, 50, 51, 100, 200],
    "arch": ["arm64", "x86", "x86_64"],
    "site": ["a", "ab", "abc", "lab", 'q"\\'],
    "tier": ["gold", "iron", "goldish", "tin"],
    "host": ["n1", "n2", "n10"],
    "ready": [True, False],
    "mem": [0, 2**20, 2**30, 3 * 2**30, 2**41],
}
NUMBERS = ["cores", "free", "mem"]
TEXTS = ["arch", "site", "tier", "host"]
RTTS = [0.0, 0.005, 0.02, 0.05]

# --- trees: ("cmp", name, op, value), ("in", name, values), ("and", a, b, ...), ... -------------


def leaves() -> st.SearchStrategy[Any]:
    def of(names: list[str], make: Callable[[str], st.SearchStrategy[Any]]) -> Any:
        return st.sampled_from(names).flatmap(make)

    def values(name: str) -> st.SearchStrategy[Any]:
        return st.sampled_from(VALUES[name])

    labels = st.sampled_from(["x", "y", "z"])
    return st.one_of(
        of(NUMBERS, lambda n: st.tuples(st.just("cmp"), st.just(n), ops(), values(n))),
        of(
            ["arch", "site", "tier", "host", "ready"],
            lambda n: st.tuples(
                st.just("cmp"), st.just(n), st.sampled_from(["==", "!="]), values(n)
            ),
        ),
        of(
            list(VALUES),
            lambda n: st.tuples(
                st.just("in"), st.just(n), st.lists(values(n), min_size=1, max_size=3)
            ),
        ),
        st.tuples(st.just("exists"), st.sampled_from(list(VALUES))),
        of(
            ["site", "host", "arch"],
            lambda n: st.tuples(st.just("starts"), st.just(n), values(n).map(lambda v: v[:2])),
        ),
        st.just(("truth", "ready")),
        st.tuples(st.just("label"), labels, st.sampled_from(["==", "!="]), labels),
        st.tuples(st.just("label in"), labels, st.lists(labels, min_size=1, max_size=2)),
        st.tuples(st.just("label exists"), labels),
        st.tuples(st.just("rtt"), st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from(RTTS)),
    )


def ops() -> st.SearchStrategy[str]:
    return st.sampled_from(list(OPERATORS))


def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.just("and"), inner, inner),
        st.tuples(st.just("or"), inner, inner),
        st.tuples(st.just("or"), inner, inner, inner),
    )


trees = st.recursive(leaves(), grow, max_leaves=9)


def spell_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)


def spell(tree: Any) -> str:
    match tree:
        case ("cmp", name, op, value):
            return f"{name} {op} {spell_value(value)}"
        case ("in", name, values):
            return f"{name} in ({', '.join(map(spell_value, values))},)"
        case ("exists", name):
            return f"exists({name})"
        case ("starts", name, text):
            return f"{name}.startswith({spell_value(text)})"
        case ("truth", name):
            return name
        case ("label", key, op, value):
            return f'label("{key}") {op} "{value}"'
        case ("label in", key, values):
            return f'label("{key}") in [{", ".join(map(spell_value, values))}]'
        case ("label exists", key):
            return f'label("{key}").exists()'
        case ("rtt", op, value):
            return f"rtt(self) {op} {value * 1000}ms"
        case ("not", part):
            return f"not ({spell(part)})"
        case (word, *parts):
            return f" {word} ".join(f"({spell(part)})" for part in parts)
    raise AssertionError(tree)


def build(tree: Any) -> Any:
    match tree:
        case ("cmp", name, op, value):
            return OPERATORS[op](F[name], value)
        case ("in", name, values):
            return F[name].one_of(*values)
        case ("exists", name):
            return F[name].exists()
        case ("starts", name, text):
            return F[name].startswith(text)
        case ("truth", name):
            return F[name]
        case ("label", key, op, value):
            return OPERATORS[op](F.label(key), value)
        case ("label in", key, values):
            return F.label(key).one_of(values)
        case ("label exists", key):
            return F.label(key).exists()
        case ("rtt", op, value):
            return OPERATORS[op](F.rtt("self"), value)
        case ("not", part):
            return ~build(part)
        case (word, *parts):
            join = operator.and_ if word == "and" else operator.or_
            return reduce(join, map(build, parts))
    raise AssertionError(tree)


def truth(tree: Any, record: Record) -> bool | None:
    """Three-valued: None is undefined."""
    values = record.attributes(SCHEMA)
    labels = dict(record.labels)
    match tree:
        case ("exists", name):
            return name in values
        case ("label exists", key):
            return key in labels
        case ("cmp", name, op, value):
            return OPERATORS[op](values[name], value) if name in values else None
        case ("in", name, chosen):
            return values[name] in chosen if name in values else None
        case ("starts", name, text):
            return values[name].startswith(text) if name in values else None
        case ("truth", name):
            return values.get(name)
        case ("label", key, op, value):
            return OPERATORS[op](labels[key], value) if key in labels else None
        case ("label in", key, chosen):
            return labels[key] in chosen if key in labels else None
        case ("rtt", op, value):
            if record.coordinate is None:
                return None
            *position, height, error = record.coordinate
            there = Coordinate(tuple(position), height, error)
            return OPERATORS[op](predict(HERE, there), value)
        case ("not", part):
            inner = truth(part, record)
            return None if inner is None else not inner
        case (word, *parts):
            decisive = word == "or"
            found = [truth(part, record) for part in parts]
            if decisive in found:
                return decisive
            return None if None in found else not decisive
    raise AssertionError(tree)


@st.composite
def records(draw: st.DrawFn) -> Record:
    values = {}
    for name, choices in VALUES.items():
        value = draw(st.one_of(st.none(), st.sampled_from(choices)))
        if value is not None:
            values[name] = value
    coordinate = draw(st.sampled_from([None, (0.01, 0.0, 0.02, 0.0, 0.004, 0.5), ORIGIN]))
    return make_record(
        SCHEMA,
        values,
        draw(st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["x", "y"]))),
        node_id=draw(st.binary(min_size=20, max_size=20)),
        endpoint=("10.0.0.1", 7400),
        seq=1,
        coordinate=coordinate,
    )


def coordinate_of(target: str) -> Coordinate | None:
    return HERE if target == "self" else None


def parsed(source: Any) -> Predicate | None:
    """The predicate, or None where it says that nothing can match."""
    try:
        return parse(source, SCHEMA, coordinate_of=coordinate_of)
    except PredicateError as error:
        message = str(error)
        if "empty range" in message or "matches nothing" in message:
            return None
        assume("nested deeper" not in message and "alternatives" not in message)
        raise


few = settings(max_examples=100, deadline=None)


@few
@given(trees, st.lists(records(), min_size=1, max_size=6))
@example(("and", ("cmp", "cores", ">", 8), ("not", ("cmp", "cores", ">=", 8.5))), [])
def test_matches_is_what_the_tree_says(tree: Any, everyone: list[Record]) -> None:
    predicate = parsed(spell(tree))
    assert predicate == parsed(build(tree)), "text and F differ"
    for record in everyone:
        wanted = truth(tree, record) is True
        got = predicate is not None and predicate.bind(SCHEMA).matches(record)
        assert got is wanted, (spell(tree), record)


@few
@given(trees)
def test_wire_and_text_round_trip(tree: Any) -> None:
    predicate = parsed(spell(tree))
    assume(predicate is not None)
    assert predicate is not None
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(predicate.to_wire()))
    assert Predicate.from_wire(wire, SCHEMA) == predicate
    text = explain(predicate, SCHEMA)
    assume(sum(len(box.terms) for box in predicate.boxes) <= 15)
    assert len(text) <= PREDICATE_TEXT_MAX
    assert parse(text, SCHEMA) == predicate, text


@few
@given(trees, records(), st.integers(0, 160))
def test_intersects_is_never_false_above_a_match(tree: Any, record: Record, length: int) -> None:
    predicate = parsed(spell(tree))
    assume(predicate is not None)
    assert predicate is not None
    bound = predicate.bind(SCHEMA)
    prefix = Prefix.of(record.key(SCHEMA), length)
    assert bound.intersects(prefix) or not bound.matches(record), (spell(tree), prefix)


@few
@given(trees, st.lists(records(), min_size=1, max_size=5))
def test_may_match_is_never_false_with_a_match_inside(tree: Any, everyone: list[Record]) -> None:
    predicate = parsed(spell(tree))
    assume(predicate is not None)
    assert predicate is not None
    bound = predicate.bind(SCHEMA)
    exact = Summary.of(SCHEMA, everyone)
    sent = Summary.from_bytes(exact.to_bytes(SCHEMA), SCHEMA)
    for summary in (exact, sent):
        possible = bound.may_match(summary)
        assert bound.may_match(summary, strict=True) or not possible
        assert possible or not any(map(bound.matches, everyone)), spell(tree)
        estimate = bound.estimate(summary)
        assert (estimate > 0) is possible
        assert estimate <= summary.count * (1 + 1e-9)


@few
@given(trees, st.lists(records(), min_size=1, max_size=5), st.sampled_from(NUMBERS))
def test_no_match_beats_the_order_bound(tree: Any, everyone: list[Record], name: str) -> None:
    predicate = parsed(spell(tree))
    assume(predicate is not None)
    assert predicate is not None
    bound, index = predicate.bind(SCHEMA), SCHEMA.index(name)
    exact = Summary.of(SCHEMA, everyone)
    best = [
        value
        for record in everyone
        if bound.matches(record) and (value := record.attributes(SCHEMA).get(name)) is not None
    ]
    for summary in (exact, Summary.from_bytes(exact.to_bytes(SCHEMA), SCHEMA)):
        low = bound.order_bound(summary, index, descending=False)
        high = bound.order_bound(summary, index, descending=True)
        assert type(low) is float
        assert type(high) is float
        assert all(low <= value <= high for value in best), (low, high, best)


# --- strange input ------------------------------------------------------------------------------

scraps = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


@few
@given(scraps)
def test_random_wire_is_malformed_or_a_predicate(wire: Any) -> None:
    try:
        predicate = Predicate.from_wire(wire, SCHEMA)
    except MalformedMessage:
        return
    assert Predicate.from_wire(predicate.to_wire(), SCHEMA) == predicate


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    predicate = parsed(spell(draw(trees))) or EVERYTHING
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(predicate.to_wire()))
    for _ in range(draw(st.integers(1, 3))):
        level = wire
        while level and isinstance(level, list):
            place = draw(st.integers(0, len(level) - 1))
            if not isinstance(level[place], list) or draw(st.booleans()):
                choice = draw(st.sampled_from(["replace", "drop", "repeat"]))
                if choice == "drop":
                    del level[place]
                else:
                    level[place] = level[0] if choice == "repeat" else draw(scraps)
                break
            level = level[place]
    return wire


@few
@given(mutated(), st.lists(records(), max_size=2))
def test_mutated_wire_is_malformed_or_works(wire: Any, everyone: list[Record]) -> None:
    try:
        bound = Predicate.from_wire(wire, SCHEMA).bind(SCHEMA)
    except MalformedMessage:
        return
    summary = Summary.of(SCHEMA, everyone)
    assert math.isfinite(bound.estimate(summary))
    for record in everyone:
        if bound.matches(record):
            assert bound.intersects(Prefix.of(record.key(SCHEMA), 120))
            assert bound.may_match(summary)
    explain(bound.predicate, SCHEMA)


WORDS = "cores free label rtt self exists ( ) , . [ ] == < 8 32GiB 5% - * not and or in is true"
ODD = 'lambda if else for : = { } é 1e999 0x GiB "a" " \' \\'
pieces = st.sampled_from([*WORDS.split(), *ODD.split(), "20 ms", "\n", "\t", "\x00"])


@few
@given(st.lists(pieces, max_size=14).map(" ".join) | st.text(max_size=30))
def test_any_text_is_a_predicate_or_an_error_with_a_true_column(text: str) -> None:
    for read in (lambda: parse(text, SCHEMA), lambda: parse_selector(text, SCHEMA)):
        error = refusal(read)
        if error is not None:
            assert error.column is None or 1 <= error.column <= len(text) + 1
            assert "\n" not in str(error)


def refusal(read: Callable[[], object]) -> PredicateError | None:
    try:
        read()
    except PredicateError as error:
        return error
    return None


TOWERS = ["(" * 2000, "not " * 1000 + "ready", "-" * 4000 + "1", "a." * 2000, "1*" * 2000 + "1"]


@pytest.mark.parametrize("text", TOWERS, ids=lambda text: text[:6])
def test_towers_are_refused_before_the_parser(text: str) -> None:
    with pytest.raises(PredicateError):
        parse(text, SCHEMA)
