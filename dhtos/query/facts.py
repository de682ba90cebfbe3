"""What a box knows about one subject, and how two such facts become one.

`cores >= 8` and `cores <= 64` are one interval; `site in ("a", "b")` and `site != "a"` are one
value. Facts about the same subject are conjoined into the fewest terms, and a conjunction that
no record can satisfy is found here (`None`), before anybody is asked. A fact other than
"is missing" already says that the subject is there: a missing one matches neither way.
"""

import math
from dataclasses import dataclass, field, replace

from dhtos.core.limits import PREDICATE_SET_MAX
from dhtos.core.predicate import (
    Attested,
    Exists,
    Label,
    LabelExists,
    Near,
    OneOf,
    Range,
    StartsWith,
    Term,
    is_empty,
)
from dhtos.core.schema import Value

Key = tuple[int, int | str | tuple[float, ...] | tuple[str, ...]]
"""A subject in the order of the normal form: (0, attribute), (1, label), (2, coordinate) or
(3, (name, value, ...)): that a certificate says one of these of a name."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A conjunction about one subject; the defaults say only that the subject is there."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    allowed: frozenset[Value] | None = None
    denied: frozenset[Value] = frozenset()
    begins: str = ""
    not_begins: frozenset[str] = frozenset()
    missing: bool = False
    column: int | None = field(default=None, compare=False)
    """Where the user wrote it; of two conjoined facts, the later one."""

    def admits(self, value: Value) -> bool:
        """Whether a present value satisfies everything but `allowed`."""
        if value in self.denied:
            return False
        if isinstance(value, str):
            return value.startswith(self.begins) and not any(
                value.startswith(text) for text in self.not_begins
            )
        above = value > self.low or (value == self.low and not self.low_open)
        below = value < self.high or (value == self.high and not self.high_open)
        return above and below


THERE = Fact()
MISSING = Fact(missing=True)


def conjoin(a: Fact, b: Fact) -> Fact | None:
    """Both facts at once; None if no value satisfies them."""
    if a.missing or b.missing:
        return a if a == b else None
    low, low_open = max((a.low, a.low_open), (b.low, b.low_open))
    high, high_closed = min((a.high, not a.high_open), (b.high, not b.high_open))
    if a.begins.startswith(b.begins):
        begins = a.begins
    elif b.begins.startswith(a.begins):
        begins = b.begins
    else:
        return None
    allowed = a.allowed if b.allowed is None else b.allowed
    if a.allowed is not None and b.allowed is not None:
        allowed = a.allowed & b.allowed
    both = Fact(
        low,
        high,
        low_open,
        not high_closed,
        allowed,
        a.denied | b.denied,
        begins,
        a.not_begins | b.not_begins,
        column=b.column,
    )
    return simplify(both)


def simplify(fact: Fact) -> Fact | None:
    """The same fact with the fewest parts; None if it cannot hold."""
    if fact.missing:
        return fact
    if fact.low == fact.high and fact.allowed is None:
        fact = replace(fact, allowed=frozenset((fact.low,)))
    if fact.allowed is not None:
        allowed = frozenset(value for value in fact.allowed if fact.admits(value))
        return Fact(allowed=allowed, column=fact.column) if allowed else None
    if is_empty(fact.low, fact.high, low_open=fact.low_open, high_open=fact.high_open):
        return None
    if any(fact.begins.startswith(text) for text in fact.not_begins):
        return None
    within = replace(fact, denied=frozenset())
    return replace(
        fact,
        denied=frozenset(value for value in fact.denied if within.admits(value)),
        not_begins=frozenset(text for text in fact.not_begins if text.startswith(fact.begins)),
    )


def terms(key: Key, fact: Fact) -> list[Term]:
    """The fact as terms of the normal form, in a fixed order."""
    kind, subject = key
    if kind == 3:
        assert isinstance(subject, tuple)
        name, *values = map(str, subject)
        return [Attested(name, tuple(values), negated=fact.missing)]
    if kind == 2:
        assert isinstance(subject, tuple)
        if fact.allowed is not None:  # an interval of one point
            fact = _point(fact)
        place = tuple(map(float, subject))
        return [Near(place, fact.low, fact.high, fact.low_open, fact.high_open)]
    if kind == 1:
        assert isinstance(subject, str)
        return _label_terms(subject, fact)
    assert isinstance(subject, int)
    return _attribute_terms(subject, fact)


def _point(fact: Fact) -> Fact:
    assert fact.allowed is not None
    (value,) = fact.allowed
    assert not isinstance(value, str)
    return Fact(low=value, high=value)


def _label_terms(key: str, fact: Fact) -> list[Term]:
    found: list[Term] = []
    if fact.missing:
        return [LabelExists(key, negated=True)]
    if fact.allowed is not None:
        return [Label(key, tuple(map(str, chosen))) for chosen in _chunks(fact.allowed)]
    found += [Label(key, tuple(map(str, part)), negated=True) for part in _chunks(fact.denied)]
    return found or [LabelExists(key)]


def _attribute_terms(index: int, fact: Fact) -> list[Term]:
    if fact.missing:
        return [Exists(index, negated=True)]
    if fact.allowed is not None:
        value = next(iter(fact.allowed))
        if len(fact.allowed) == 1 and not isinstance(value, str | bool):
            return [Range(index, value, value)]
        return [OneOf(index, chosen) for chosen in _chunks(fact.allowed)]
    found: list[Term] = []
    if fact.low != -math.inf or fact.high != math.inf:
        found.append(Range(index, fact.low, fact.high, fact.low_open, fact.high_open))
    found += [OneOf(index, part, negated=True) for part in _chunks(fact.denied)]
    if fact.begins:
        found.append(StartsWith(index, fact.begins))
    found += [StartsWith(index, text, negated=True) for text in sorted(fact.not_begins)]
    return found or [Exists(index)]


def _chunks(values: frozenset[Value]) -> list[tuple[Value, ...]]:
    """The values in order, in sets of at most the limit (only denials can be more)."""
    ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
    step = PREDICATE_SET_MAX
    return [tuple(ordered[i : i + step]) for i in range(0, len(ordered), step)]
