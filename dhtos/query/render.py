"""The canonical text of a predicate: what `explain` shows and `parse` reads back.

The text of a predicate with many boxes may be over the limits of a text that a user writes
(terms, length); it is still true, but cannot be parsed again.
"""

import math

from dhtos.core.predicate import (
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
    Term,
)
from dhtos.core.schema import Schema, Value
from dhtos.query.expr import quote
from dhtos.query.units import spell


def explain(predicate: Predicate, schema: Schema) -> str:
    """The predicate in its own language, simplified; terms common to all boxes come first."""
    boxes = predicate.boxes
    if not boxes:
        return "false"
    if len(boxes) == 1:
        return _box_text(boxes[0].terms, schema)
    common = [term for term in boxes[0].terms if all(term in box.terms for box in boxes)]
    rest = [Box(tuple(term for term in box.terms if term not in common)) for box in boxes]
    if any(not box.terms for box in rest):
        return _box_text(tuple(common), schema)
    either = " or ".join(
        _box_text(box.terms, schema) if len(box.terms) == 1 else f"({_box_text(box.terms, schema)})"
        for box in rest
    )
    return f"{_box_text(tuple(common), schema)} and ({either})" if common else either


def _box_text(terms: tuple[Term, ...], schema: Schema) -> str:
    return " and ".join(term_text(term, schema) for term in terms) or "true"


def term_text(term: Term, schema: Schema) -> str:
    """One term as text."""
    match term:
        case Label(key, texts, negated):
            return _membership(f"label({quote(key)})", list(map(quote, texts)), negated)
        case LabelExists(key, negated):
            return f"{'not ' if negated else ''}label({quote(key)}).exists()"
        case Attested(name, said, negated):
            subject = f"attested({quote(name)})"
            if not said:
                return f"not {subject}" if negated else subject
            return _membership(subject, list(map(quote, said)), negated)
        case Near():
            return _interval(f"rtt({term.coordinate!r})", term, "s")
    attribute = schema.attributes[term.attribute]
    name = attribute.name
    match term:
        case Range():
            return _interval(name, term, attribute.unit)
        case OneOf(_, values, negated):
            if len(values) == 1 and isinstance(values[0], bool):
                return name if values[0] is not negated else f"not {name}"
            return _membership(name, [_value(v, attribute.unit) for v in values], negated)
        case Exists(_, negated):
            return f"{'not ' if negated else ''}{name}.exists()"
        case StartsWith(_, text, negated):
            return f"{'not ' if negated else ''}{name}.startswith({quote(text)})"


def _value(value: Value, unit: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(value) if isinstance(value, str) else spell(value, unit)


def _membership(subject: str, values: list[str], negated: bool) -> str:
    if len(values) == 1:
        return f"{subject} {'!=' if negated else '=='} {values[0]}"
    return f"{subject} {'not in' if negated else 'in'} ({', '.join(values)})"


def _interval(subject: str, term: Range | Near, unit: str) -> str:
    if term.low == term.high and isinstance(term, Range):
        return f"{subject} == {spell(term.low, unit)}"
    if term.low == -math.inf:
        return f"{subject} {'<' if term.high_open else '<='} {spell(term.high, unit)}"
    if term.high == math.inf:
        return f"{subject} {'>' if term.low_open else '>='} {spell(term.low, unit)}"
    low, high = spell(term.low, unit), spell(term.high, unit)
    above, below = "<" if term.low_open else "<=", "<" if term.high_open else "<="
    return f"{low} {above} {subject} {below} {high}"
