"""Expressions: the tree that text and Python both build, and `F`, its Python front end.

    (F.cores >= 8) & (F.mem_free >= 32 * GiB) & ~F.site.one_of("lab", "attic")

A tree knows no schema: names, units and types are checked when `normal` turns it into a
`Predicate`. Nodes are immutable, compare by structure and carry the column (1-based) of the text
they were read from, or None. `bool()` of an expression raises, so that a stray `and`, `or`,
`not` or `8 <= F.cores <= 64` is caught instead of silently dropping half of the question.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal as Choice
from typing import NoReturn

from dhtos.core.ids import NodeId
from dhtos.errors import PredicateError

Operator = Choice["==", "!=", "<", "<=", ">", ">="]
Scalar = int | float | str | bool
Point = tuple[float, ...]
"""Coordinates as the user writes them: position in seconds, then height."""


@dataclass(frozen=True, slots=True)
class AttributeName:
    """An attribute of the schema, by its name."""

    name: str
    column: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class LabelName:
    """A free-form label, by its key."""

    key: str
    column: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"label({quote(self.key)})"


@dataclass(frozen=True, slots=True)
class RttTo:
    """The predicted round trip to a place: `self`, a node id in hexadecimal, or coordinates."""

    target: str | Point
    column: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if self.target == "self":
            return "rtt(self)"
        if isinstance(self.target, str):
            return f"rtt({quote(self.target)})"
        return f"rtt({self.target!r})"


@dataclass(frozen=True, slots=True)
class AttestedName:
    """What the certificate of a machine says of a name, by its groups."""

    name: str
    column: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"attested({quote(self.name)})"


Subject = AttributeName | LabelName | RttTo | AttestedName


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written: `unit` is "" when the number is in the base unit already."""

    value: Scalar
    unit: str = ""
    column: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return quote(self.value) if isinstance(self.value, str) else f"{self.value!r}{self.unit}"


class Expr:
    """What a predicate is made of; combine with `&`, `|` and `~`."""

    __slots__ = ()

    def __and__(self, other: object) -> "Expr":
        return all_of(self, other) if isinstance(other, Expr) else NotImplemented

    def __or__(self, other: object) -> "Expr":
        return any_of(self, other) if isinstance(other, Expr) else NotImplemented

    def __invert__(self) -> "Expr":
        return Not(plain(self))

    def __bool__(self) -> NoReturn:
        _refuse_bool()


@dataclass(frozen=True, slots=True)
class Comparison(Expr):
    """`subject op value`."""

    subject: Subject
    op: Operator
    value: Literal


@dataclass(frozen=True, slots=True)
class Membership(Expr):
    """`subject in (values)`."""

    subject: Subject
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Existence(Expr):
    """`subject.exists()`: the only test that a missing attribute can fail or pass."""

    subject: Subject


@dataclass(frozen=True, slots=True)
class Starts(Expr):
    """`subject.startswith(text)`."""

    subject: Subject
    text: Literal


@dataclass(frozen=True, slots=True)
class Truth(Expr):
    """A bool attribute on its own, or that a certificate says something of a name."""

    subject: Subject


@dataclass(frozen=True, slots=True)
class Constant(Expr):
    """`true` matches every record, `false` none."""

    value: bool


@dataclass(frozen=True, slots=True)
class AllOf(Expr):
    """`a and b and ...`."""

    parts: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class AnyOf(Expr):
    """`a or b or ...`."""

    parts: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Not(Expr):
    """`not a`: false where `a` is true, true where it is false, undefined where it is."""

    part: Expr


class Field(Expr):
    """One side of a comparison to be: `F.cores`, `F.label("team")`, `F.rtt("self")`.

    On its own it is the test of a bool attribute, `F.preemptible & (F.cores >= 8)`.
    """

    __slots__ = ("_subject",)

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    @property
    def truth(self) -> Truth:
        """The test that the attribute is true."""
        return Truth(self._subject)

    def __lt__(self, value: Scalar) -> Expr:
        return Comparison(self._subject, "<", _literal(value))

    def __le__(self, value: Scalar) -> Expr:
        return Comparison(self._subject, "<=", _literal(value))

    def __gt__(self, value: Scalar) -> Expr:
        return Comparison(self._subject, ">", _literal(value))

    def __ge__(self, value: Scalar) -> Expr:
        return Comparison(self._subject, ">=", _literal(value))

    def __eq__(self, value: object) -> Expr:  # type: ignore[override]  # builds, not compares
        return Comparison(self._subject, "==", _literal(value))

    def __ne__(self, value: object) -> Expr:  # type: ignore[override]  # builds, not compares
        return Comparison(self._subject, "!=", _literal(value))

    __hash__ = None  # type: ignore[assignment]  # what `==` does not compare cannot be hashed

    def one_of(self, *values: Scalar) -> Expr:
        """`subject in (values)`; a single list, tuple or set is taken as the values."""
        chosen: Iterable[object] = values
        if len(values) == 1 and isinstance(values[0], list | tuple | set | frozenset):
            chosen = values[0]
        return Membership(self._subject, tuple(map(_literal, chosen)))

    def exists(self) -> Expr:
        """Whether the record has the attribute or label at all."""
        return Existence(self._subject)

    def startswith(self, text: str) -> Expr:
        """Whether the text begins so."""
        return Starts(self._subject, _literal(text))

    def __repr__(self) -> str:
        return f"F.{self._subject}"


class Fields:
    """`F`: every attribute name is a field; `F["label"]` where a name is taken.

    >>> F.arch.one_of("arm64", "x86_64") == F["arch"].one_of(["arm64", "x86_64"])
    True
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Field:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Field:
        return Field(AttributeName(name))

    def label(self, key: str) -> Field:
        """A free-form label."""
        if not isinstance(key, str):
            raise PredicateError(f"the key of a label is a text, got {key!r}")
        return Field(LabelName(key))

    def attested(self, name: str) -> Field:
        """What a certificate of the cluster says: of the group `site.eu-1` that `site` is eu-1.

        On its own it is the test that it says anything: `F.attested("gpu") & (F.cores >= 8)`.
        """
        if not isinstance(name, str):
            raise PredicateError(f"what is attested has a name, got {name!r}")
        return Field(AttestedName(name))

    def rtt(self, target: str | bytes | NodeId | Iterable[float] = "self") -> Field:
        """The predicted round trip, in seconds, to `target`."""
        match target:
            case str():
                return Field(RttTo(target))
            case bytes() | NodeId():
                return Field(RttTo(bytes(target).hex()))
        return Field(RttTo(tuple(target)))

    def __repr__(self) -> str:
        return "F"


F = Fields()


def plain(expression: Expr) -> Expr:
    """The expression itself; a field on its own becomes the test of a bool attribute."""
    return expression.truth if isinstance(expression, Field) else expression


def all_of(*parts: Expr) -> Expr:
    """`a and b and ...` without needless nesting."""
    flat: list[Expr] = []
    for part in map(plain, parts):
        flat.extend(part.parts if isinstance(part, AllOf) else [part])
    return AllOf(tuple(flat))


def any_of(*parts: Expr) -> Expr:
    """`a or b or ...` without needless nesting."""
    flat: list[Expr] = []
    for part in map(plain, parts):
        flat.extend(part.parts if isinstance(part, AnyOf) else [part])
    return AnyOf(tuple(flat))


def quote(text: str) -> str:
    """A text as the predicate language writes it.

    >>> print(quote('a"b'))
    "a\\"b"
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _literal(value: object) -> Literal:
    if isinstance(value, bool | int | float | str):
        return Literal(value)
    if isinstance(value, Field):
        raise PredicateError(f"{value!r} cannot be compared with another field", hint="a value")
    raise PredicateError(f"a value is a number, a text or a bool, got {value!r}")


def _refuse_bool() -> NoReturn:
    raise PredicateError(
        "an expression has no truth value yet: combine with &, | and ~ (not 'and', 'or', 'not'), "
        "and write (F.x >= 8) & (F.x <= 64) instead of 8 <= F.x <= 64",
        hint="&",
    )
