"""The normal form of a question: at most 256 boxes, a record matches if it lies in any.

A box is a conjunction of terms, each about one attribute, label or round trip, or about what a
certificate says. A term about something a record does not have is undefined, which counts as "no
match" whether the term is negated or not; only `Exists` and `LabelExists` are always defined, and
`Attested` without values of what somebody vouches for. This is what travels in a
query; `dhtos.core.bound` evaluates it, `dhtos.query` builds it and spells it. This module knows
the form and its limits, not how a question was written.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, cast

from dhtos.core.limits import (
    COORDINATE_S_MAX,
    LABEL_BYTES_MAX,
    PREDICATE_BOXES_MAX,
    PREDICATE_SET_MAX,
    PREDICATE_TERMS_MAX,
    TEXT_BYTES_MAX,
)
from dhtos.core.schema import NUMBER_MAX, Attribute, Schema, Value, is_number, is_printable
from dhtos.errors import MalformedMessage, UsageError

if TYPE_CHECKING:
    from dhtos.core.bound import Bound

COORDINATE_PARTS_MAX = 9
"""Position and height of an rtt term."""


@dataclass(frozen=True, slots=True)
class Range:
    """A number within `low`..`high`; an infinite end is no bound."""

    attribute: int
    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def to_wire(self) -> list[object]:
        """`[0, attribute, low, high, open ends]`."""
        return [0, self.attribute, *_interval_to_wire(self)]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Equal to one of `values`, or to none of them."""

    attribute: int
    values: tuple[Value, ...]
    negated: bool = False

    def to_wire(self) -> list[object]:
        """`[1, attribute, values, negated]`."""
        return [1, self.attribute, list(self.values), self.negated]


@dataclass(frozen=True, slots=True)
class Exists:
    """The record has the attribute, or has it not."""

    attribute: int
    negated: bool = False

    def to_wire(self) -> list[object]:
        """`[2, attribute, negated]`."""
        return [2, self.attribute, self.negated]


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The text begins with `text`, or does not."""

    attribute: int
    text: str
    negated: bool = False

    def to_wire(self) -> list[object]:
        """`[3, attribute, text, negated]`."""
        return [3, self.attribute, self.text, self.negated]


@dataclass(frozen=True, slots=True)
class Label:
    """The label is one of `values`, or none of them; it must be there either way."""

    key: str
    values: tuple[str, ...]
    negated: bool = False

    def to_wire(self) -> list[object]:
        """`[4, key, values, negated]`."""
        return [4, self.key, list(self.values), self.negated]


@dataclass(frozen=True, slots=True)
class LabelExists:
    """The record has the label, or has it not."""

    key: str
    negated: bool = False

    def to_wire(self) -> list[object]:
        """`[5, key, negated]`."""
        return [5, self.key, self.negated]


@dataclass(frozen=True, slots=True)
class Near:
    """The round trip predicted from `coordinate` (position, then height) is within bounds."""

    coordinate: tuple[float, ...]
    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def to_wire(self) -> list[object]:
        """`[6, coordinate, low, high, open ends]`."""
        return [6, list(self.coordinate), *_interval_to_wire(self)]


@dataclass(frozen=True, slots=True)
class Attested:
    """The certificate of the record's publisher says one of `values` of a name, or none of them.

    It must say something of the name either way; without values the term is about just that. It
    may say several things of one name (`dhtos.core.vouched`). Of a record that nobody vouches for
    nothing is true.
    """

    name: str
    values: tuple[str, ...] = ()
    negated: bool = False

    def to_wire(self) -> list[object]:
        """`[7, name, values, negated]`."""
        return [7, self.name, list(self.values), self.negated]


Term = Range | OneOf | Exists | StartsWith | Label | LabelExists | Near | Attested


def _interval_to_wire(term: "Range | Near") -> list[object]:
    low = None if term.low == -math.inf else term.low
    high = None if term.high == math.inf else term.high
    return [low, high, int(term.low_open) | int(term.high_open) << 1]


@dataclass(frozen=True, slots=True)
class Box:
    """All of `terms` at once; no terms at all matches every record."""

    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class Predicate:
    """Any of `boxes`; attribute indexes are those of the schema it was made for.

    >>> EVERYTHING.to_wire()
    [[]]
    """

    boxes: tuple[Box, ...]

    def to_wire(self) -> list[list[list[object]]]:
        """Boxes of terms of small values, three arrays deep."""
        return [[term.to_wire() for term in box.terms] for box in self.boxes]

    @property
    def is_about_certificates(self) -> bool:
        """Whether it asks what somebody vouches for, which in open mode nobody does."""
        return any(isinstance(term, Attested) for box in self.boxes for term in box.terms)

    def bind(self, schema: Schema, *, vouched: bool = True) -> "Bound":
        """The form that is evaluated; made once, used for many records.

        Where records are not `vouched` for, what their proofs say counts for nothing.
        """
        from dhtos.core.bound import Bound

        if not vouched and self.is_about_certificates:
            boxes = [Predicate((box,)) for box in self.boxes]
            left = [one.boxes[0] for one in boxes if not one.is_about_certificates]
            return Bound(Predicate(tuple(left)), schema)
        return Bound(self, schema)

    @classmethod
    def from_wire(cls, wire: object, schema: Schema) -> "Predicate":
        """Parse `to_wire`; raises MalformedMessage for anything else."""
        boxes = _array(wire, PREDICATE_BOXES_MAX, "boxes")
        if not boxes:
            _refuse("a predicate has at least one box")
        return cls(tuple(_box(box, schema) for box in boxes))


EVERYTHING = Predicate((Box(),))
"""The predicate that every record matches."""


# --- from the wire ------------------------------------------------------------------------------


def _refuse(what: str) -> NoReturn:
    raise MalformedMessage(f"predicate: {what}")


def _array(wire: object, length_max: int, what: str) -> list[object]:
    if type(wire) is not list and type(wire) is not tuple:
        _refuse(f"{what} must be an array")
    if len(wire) > length_max:
        _refuse(f"at most {length_max} {what}, got {len(wire)}")
    return list(wire)


def _box(wire: object, schema: Schema) -> Box:
    terms = _array(wire, PREDICATE_TERMS_MAX, "terms")
    return Box(tuple(_term(_array(term, 5, "parts of a term"), schema) for term in terms))


def _term(parts: list[object], schema: Schema) -> Term:
    match parts:
        case [0, at, low, high, ends]:
            index, attribute = _attribute(at, schema, "number")
            return Range(index, *_interval(low, high, ends, attribute.check))
        case [1, at, values, bool(negated)]:
            index, attribute = _attribute(at, schema)
            checked = tuple(_same(attribute.check, value) for value in _set(values))
            return OneOf(index, checked, negated)
        case [2, at, bool(negated)]:
            return Exists(_attribute(at, schema)[0], negated)
        case [3, at, str(text), bool(negated)]:
            index, _ = _attribute(at, schema, "text")
            return StartsWith(index, _text(text, TEXT_BYTES_MAX), negated)
        case [4, str(key), values, bool(negated)]:
            chosen = tuple(_text(value, LABEL_BYTES_MAX, 0) for value in _set(values))
            return Label(_text(key, LABEL_BYTES_MAX), chosen, negated)
        case [5, str(key), bool(negated)]:
            return LabelExists(_text(key, LABEL_BYTES_MAX), negated)
        case [6, coordinate, low, high, ends]:
            return Near(_coordinate(coordinate), *_interval(low, high, ends, check_seconds))
        case [7, str(name), values, bool(negated)]:
            said = _array(values, PREDICATE_SET_MAX, "values")
            vouched = tuple(_text(value, LABEL_BYTES_MAX, 0) for value in said)
            return Attested(_text(name, LABEL_BYTES_MAX), vouched, negated)
    _refuse("unknown term")


def _attribute(index: object, schema: Schema, kind: str = "") -> tuple[int, Attribute]:
    if type(index) is not int or not 0 <= index < len(schema.attributes):
        _refuse("an attribute that the schema does not have")
    attribute = schema.attributes[index]
    if kind and attribute.kind != kind:
        _refuse(f"a {kind} term about {attribute.name}")
    return index, attribute


def _same(check: Callable[[object], Value], value: object) -> Value:
    """A value exactly as `check` would store it."""
    try:
        checked = check(value)
    except UsageError as error:
        raise MalformedMessage(f"predicate: {error}") from error
    if type(checked) is not type(value) or checked != value:
        _refuse("a value that is not in its stored form")
    return checked


def _interval(
    low: object, high: object, ends: object, check: Callable[[object], Value]
) -> tuple[float, float, bool, bool]:
    if type(ends) is not int or not 0 <= ends <= 3:
        _refuse("ends must be 0..3")
    first = -math.inf if low is None else cast("float", _same(check, low))
    last = math.inf if high is None else cast("float", _same(check, high))
    low_open, high_open = bool(ends & 1), bool(ends & 2)
    if is_empty(first, last, low_open=low_open, high_open=high_open):
        _refuse("an empty interval")
    if (low is None and (low_open or high is None)) or (high is None and high_open):
        _refuse("an interval without ends")
    return first, last, low_open, high_open


def _set(wire: object) -> list[object]:
    values = _array(wire, PREDICATE_SET_MAX, "values")
    if not values:
        _refuse("an empty set")
    return values


def _text(text: object, bytes_max: int, bytes_min: int = 1) -> str:
    if type(text) is not str or len(text) < bytes_min or not is_printable(text, bytes_max):
        _refuse("a text that is too long, too short or not printable")
    return text


def _coordinate(wire: object) -> tuple[float, ...]:
    parts = _array(wire, COORDINATE_PARTS_MAX, "coordinates")
    try:
        return check_coordinate(parts)
    except UsageError as error:
        raise MalformedMessage(f"predicate: {error}") from error


# --- what both the wire and the front ends must check -------------------------------------------


def is_empty(low: float, high: float, *, low_open: bool, high_open: bool) -> bool:
    """Whether no number lies in the interval."""
    return low > high or (low == high and (low_open or high_open))


def check_seconds(value: object) -> Value:
    """A duration as rtt terms hold it; raises UsageError."""
    if not is_number(value) or value < 0:
        raise UsageError(f"a round trip is a number >= 0 in s, got {value!r}")
    return int(value) if float(value).is_integer() and value <= NUMBER_MAX else value


def check_coordinate(parts: Iterable[object]) -> tuple[float, ...]:
    """A place as rtt terms hold it: position then height, in seconds; raises UsageError."""
    found: list[float] = []
    for part in parts:
        if not is_number(part) or not -COORDINATE_S_MAX <= part <= COORDINATE_S_MAX:
            raise UsageError(f"a coordinate is within {COORDINATE_S_MAX} s, got {part!r}")
        found.append(float(part))
    if not 2 <= len(found) <= COORDINATE_PARTS_MAX or found[-1] < 0:
        raise UsageError(
            f"coordinates are 1..{COORDINATE_PARTS_MAX - 1} positions and a height >= 0"
        )
    return tuple(found)
