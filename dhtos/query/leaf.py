"""Leaves against the schema: one condition becomes a fact about one subject, or its opposite.

Here names are looked up, units and types are checked, and every complaint names the token, its
column and what was expected. A leaf is negated by its own rule (`<` becomes `>=`), never by
"everything else": a record that lacks the subject matches neither form.
"""

from collections.abc import Callable

from dhtos.core.coordinate import Coordinate
from dhtos.core.ids import ID_BYTES
from dhtos.core.limits import LABEL_BYTES_MAX, PREDICATE_SET_MAX
from dhtos.core.predicate import check_coordinate, check_seconds
from dhtos.core.scale import Codes
from dhtos.core.schema import Attribute, Schema, Value, is_printable
from dhtos.core.vouched import GROUP_BYTES_MAX
from dhtos.errors import PredicateError, UsageError
from dhtos.query.expr import (
    AttestedName,
    AttributeName,
    Comparison,
    Existence,
    LabelName,
    Literal,
    Membership,
    Operator,
    RttTo,
    Starts,
    Subject,
    Truth,
)
from dhtos.query.facts import MISSING, THERE, Fact, Key
from dhtos.query.scan import error
from dhtos.query.units import UNITS, in_base, nearest, words

CoordinateOf = Callable[[str], Coordinate | None]
"""Where "self" or a node (id in hexadecimal) is, as far as the asker knows."""

Leaf = Comparison | Membership | Existence | Starts | Truth
_OPPOSITE: dict[Operator, Operator] = {
    "==": "!=",
    "!=": "==",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
}


class Leaves:
    """Turns leaves into facts for one schema."""

    def __init__(self, schema: Schema, coordinate_of: CoordinateOf | None) -> None:
        self.schema = schema
        self.coordinate_of = coordinate_of

    def fact(self, leaf: Leaf, negated: bool) -> tuple[Key, Fact | None]:
        """The fact about the leaf's subject; None if no value can satisfy it."""
        if isinstance(leaf.subject, AttestedName):
            return _attested_fact(leaf, leaf.subject, negated)
        key, attribute = self._subject(leaf.subject)
        if isinstance(leaf, Existence):
            if isinstance(leaf.subject, RttTo):
                raise _wrong(leaf.subject, "cannot be tested for existence", "rtt(...) < 20ms")
            return key, MISSING if negated else THERE
        if isinstance(leaf.subject, RttTo):
            return key, _rtt_fact(leaf, leaf.subject, negated)
        if attribute is None:
            return key, _set_fact(leaf, negated, "a label", _label_value)
        return key, _attribute_fact(leaf, attribute, negated)

    # --- subjects -------------------------------------------------------------------------------

    def _subject(self, subject: Subject) -> tuple[Key, Attribute | None]:
        match subject:
            case AttributeName(name, column):
                if name not in self.schema:
                    raise self._unknown(name, column)
                index = self.schema.index(name)
                return (0, index), self.schema.attributes[index]
            case LabelName(key, column):
                if not key or not is_printable(key, LABEL_BYTES_MAX):
                    raise error(
                        f"a label key is 1..{LABEL_BYTES_MAX} printable bytes, got {key[:40]!r}",
                        column,
                    )
                return (1, key), None
            case RttTo():
                return (2, self.place(subject)), None
        raise AssertionError(f"{subject} has facts of another kind")

    def _unknown(self, name: str, column: int | None) -> PredicateError:
        names = [attribute.name for attribute in self.schema.attributes]
        hint = nearest(name, names)
        known = "" if hint else f" (known: {', '.join(names)}; a label is label({name!r}))"
        return error(f"unknown attribute {name!r}{known}", column, hint=hint)

    def place(self, subject: RttTo) -> tuple[float, ...]:
        """Position and height of what `rtt` measures to; raises PredicateError."""
        target = subject.target
        if not isinstance(target, str):
            try:
                return check_coordinate(target)
            except UsageError as fault:
                raise error(f"{subject}: {fault}", subject.column) from fault
        if target != "self":
            target = target.lower()
            digits = set(target) <= set("0123456789abcdef")
            if not digits or len(target) != 2 * ID_BYTES:
                raise _wrong(
                    subject, "names no place", "self, 40 hexadecimal digits or (x, ..., h)"
                )
        found = self.coordinate_of(target) if self.coordinate_of is not None else None
        if found is None:
            whose = "this node" if target == "self" else "that node"
            raise error(f"{subject}: the coordinate of {whose} is not known here", subject.column)
        return check_coordinate((*found.position, found.height))


def _wrong(subject: Subject, what: str, expected: str) -> PredicateError:
    return error(f"{subject} {what}", subject.column, expected=expected)


# --- attributes ---------------------------------------------------------------------------------


def _attribute_fact(leaf: Leaf, attribute: Attribute, negated: bool) -> Fact | None:
    match attribute.kind:
        case "number":
            return _number_fact(leaf, attribute, negated)
        case "text":
            return _text_fact(leaf, attribute, negated)
        case "bool":
            return _bool_fact(leaf, attribute, negated)


def _number_fact(leaf: Leaf, attribute: Attribute, negated: bool) -> Fact | None:
    def number(literal: Literal) -> float:
        return _number(literal, attribute)

    what = f"a number{f' in {attribute.unit}' if attribute.unit else ''}"
    match leaf:
        case Comparison(_, "<" | "<=" | ">" | ">=" as op, value):
            return _interval(_OPPOSITE[op] if negated else op, number(value))
        case Comparison() | Membership():
            return _set_fact(leaf, negated, what, number)
    raise _mismatch(leaf.subject, what, f"a comparison such as {leaf.subject} >= 8")


def _text_fact(leaf: Leaf, attribute: Attribute, negated: bool) -> Fact | None:
    def text(literal: Literal) -> str:
        return _text(literal, attribute)

    match leaf:
        case Starts(_, begins):
            if not isinstance(begins.value, str) or not begins.value:
                raise _value_error(begins, f"{attribute.name}.startswith takes a text")
            start = begins.value
            if isinstance(attribute.scale, Codes) and not attribute.scale.open:
                if not any(word.startswith(start) for word in attribute.scale.words):
                    known = ", ".join(attribute.scale.words)
                    raise _value_error(begins, f"{attribute.name} is one of {known}")
            else:
                text(begins)
            return Fact(not_begins=frozenset((start,))) if negated else Fact(begins=start)
        case Comparison() | Membership():
            return _set_fact(leaf, negated, "a text", text)
    raise _mismatch(leaf.subject, "a text", f'a comparison such as {leaf.subject} == "..."')


def _bool_fact(leaf: Leaf, attribute: Attribute, negated: bool) -> Fact | None:
    def flag(literal: Literal) -> bool:
        if not isinstance(literal.value, bool):
            raise _value_error(literal, f"{attribute.name} is true or false")
        return literal.value

    if isinstance(leaf, Truth):
        return Fact(allowed=frozenset((not negated,)))
    if not isinstance(leaf, Comparison | Membership):
        raise _mismatch(leaf.subject, "true or false", str(leaf.subject))
    fact = _set_fact(leaf, negated, "true or false", flag)
    if fact.allowed is not None:
        return fact
    left = frozenset((False, True)) - fact.denied
    return Fact(allowed=left) if left else None


def _set_fact(leaf: Leaf, negated: bool, what: str, value_of: Callable[[Literal], Value]) -> Fact:
    """`==`, `!=`, `in`: which values are allowed or denied."""
    match leaf:
        case Comparison(_, "==" | "!=" as op, value):
            chosen = frozenset((value_of(value),))
            denies = (op == "!=") is not negated
        case Membership(_, values):
            if not 1 <= len(values) <= PREDICATE_SET_MAX:
                raise _wrong(
                    leaf.subject,
                    f"is compared with {len(values)} values",
                    f"1..{PREDICATE_SET_MAX}",
                )
            chosen = frozenset(map(value_of, values))
            denies = negated
        case _:
            raise _mismatch(leaf.subject, what, "one of ==, !=, in, not in, .exists()")
    return Fact(denied=chosen) if denies else Fact(allowed=chosen)


def _interval(op: Operator, value: float) -> Fact:
    if op in ("<", "<="):
        return Fact(high=value, high_open=op == "<")
    return Fact(low=value, low_open=op == ">")


def _mismatch(subject: Subject, what: str, expected: str) -> PredicateError:
    return _wrong(subject, f"is {what}", expected)


# --- values -------------------------------------------------------------------------------------


def _value_error(literal: Literal, message: str, hint: str | None = None) -> PredicateError:
    return error(f"{message}, got {literal}", literal.column, hint=hint)


def _in_unit(literal: Literal, name: str, unit: str) -> Value:
    """The literal in the base unit of what it is compared with."""
    value = literal.value
    if not literal.unit or isinstance(value, str):
        return value
    known = words(unit)
    if literal.unit not in known:
        what = f"is in {', '.join(known)}" if known else "has no unit"
        raise _value_error(literal, f"wrong unit {literal.unit!r}: {name} {what}")
    return in_base(value, UNITS[literal.unit])


def _number(literal: Literal, attribute: Attribute) -> float:
    value = literal.value
    unit = f" in {words(attribute.unit)[0]}" if words(attribute.unit) else ""
    if isinstance(value, bool | str):
        raise _value_error(literal, f"{attribute.name} is a number{unit}")
    try:
        found = attribute.check(_in_unit(literal, attribute.name, attribute.unit))
    except PredicateError:
        raise
    except (UsageError, OverflowError) as fault:
        raise error(str(fault), literal.column) from fault
    assert not isinstance(found, str)
    return found


def _text(literal: Literal, attribute: Attribute) -> str:
    value = literal.value
    if not isinstance(value, str):
        raise _value_error(literal, f"{attribute.name} is a text", f'"{literal}"')
    try:
        attribute.check(value)
    except UsageError as fault:
        hint = nearest(value, attribute.scale.words) if isinstance(attribute.scale, Codes) else None
        if hint is not None:
            raise error(f"unknown {attribute.name} {value!r}", literal.column, hint=hint) from fault
        raise error(str(fault), literal.column) from fault
    return value


def _label_value(literal: Literal) -> str:
    return _short_text(literal, "a label", LABEL_BYTES_MAX)


def _group_value(literal: Literal) -> str:
    return _short_text(literal, "what a certificate says", GROUP_BYTES_MAX)


def _short_text(literal: Literal, what: str, bytes_max: int) -> str:
    value = literal.value
    if not isinstance(value, str):
        raise _value_error(literal, f"{what} is a text", f'"{literal}"')
    if not is_printable(value, bytes_max):
        raise _value_error(literal, f"{what} has at most {bytes_max} printable bytes")
    return value


def _attested_fact(leaf: Leaf, subject: AttestedName, negated: bool) -> tuple[Key, Fact]:
    """A fact of a subject of its own: a certificate may say several things of one name."""
    name = subject.name
    if not name or not is_printable(name, GROUP_BYTES_MAX):
        what = f"is no name of a group: 1..{GROUP_BYTES_MAX} letters, digits, '-', '_' and '.'"
        raise error(f"{subject} {what}", subject.column)
    values: tuple[str, ...] = ()
    if not isinstance(leaf, Truth | Existence):
        found = _set_fact(leaf, False, "what a certificate says", _group_value)
        negated = negated is not (found.allowed is None)
        values = tuple(sorted(map(str, found.denied if found.allowed is None else found.allowed)))
    return (3, (name, *values)), MISSING if negated else THERE


def _rtt_fact(leaf: Leaf, subject: RttTo, negated: bool) -> Fact:
    match leaf:
        case Comparison(_, "<" | "<=" | ">" | ">=" as op, value):
            try:
                seconds = check_seconds(_in_unit(value, str(subject), "s"))
            except PredicateError:
                raise
            except UsageError as fault:
                raise error(str(fault), value.column) from fault
            assert not isinstance(seconds, str)
            return _interval(_OPPOSITE[op] if negated else op, seconds)
    raise _mismatch(subject, "a duration", f"a comparison such as {subject} < 20ms")
