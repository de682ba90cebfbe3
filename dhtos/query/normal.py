"""From a tree to the normal form: at most 256 boxes, each with the fewest terms.

Negation is pushed to the leaves by De Morgan's laws, which hold in the three-valued logic used
here (Kleene 1952, section 64): a leaf about something missing is undefined, and a record matches
when the whole is true. Conjunctions are then multiplied out; facts about one subject are merged
on the way, boxes that cannot hold are dropped, and so are boxes inside another one. A predicate
of which nothing is left is an error that names the two conditions that exclude each other.
"""

from dataclasses import replace

from dhtos.core.limits import PREDICATE_BOXES_MAX, PREDICATE_DEPTH_MAX, PREDICATE_TERMS_MAX
from dhtos.core.predicate import Box, Predicate
from dhtos.core.schema import Schema
from dhtos.errors import PredicateError
from dhtos.query.expr import AllOf, AnyOf, Constant, Expr, Not, plain
from dhtos.query.facts import Fact, Key, conjoin, simplify, terms
from dhtos.query.leaf import CoordinateOf, Leaf, Leaves
from dhtos.query.render import term_text
from dhtos.query.scan import error

_PRODUCT_MAX = 4096
"""Pairs of boxes that one `and` may multiply out before contradictions are dropped."""
_ABSORB_MAX = 64
"""More boxes than this are not compared with each other: it would only make them fewer."""

_Facts = dict[Key, Fact]


def normalise(
    expression: Expr, schema: Schema, coordinate_of: CoordinateOf | None = None
) -> Predicate:
    """The normal form of a tree; raises PredicateError."""
    maker = _Maker(schema, coordinate_of)
    boxes = _absorb(maker.boxes(plain(expression), False, 0))
    if not boxes:
        raise maker.conflict or error("the predicate matches nothing", 1)
    return Predicate(tuple(_box(box) for box in boxes))


def _box(facts: _Facts) -> Box:
    found = [term for key in sorted(facts, key=_order) for term in terms(key, facts[key])]
    assert len(found) <= PREDICATE_TERMS_MAX
    return Box(tuple(found))


def _order(key: Key) -> tuple[int, tuple[object, ...]]:
    kind, subject = key
    return kind, subject if isinstance(subject, tuple) else (subject,)


class _Maker:
    """The state of one normalisation: how many terms were met, and the first contradiction."""

    def __init__(self, schema: Schema, coordinate_of: CoordinateOf | None) -> None:
        self.schema = schema
        self.leaves = Leaves(schema, coordinate_of)
        self.term_count = 0
        self.conflict: PredicateError | None = None

    def boxes(self, expression: Expr, negated: bool, depth: int) -> list[_Facts]:
        """The boxes of a tree or of its negation; none if it cannot be true."""
        if depth > PREDICATE_DEPTH_MAX:
            raise error(f"the predicate is nested deeper than {PREDICATE_DEPTH_MAX}", None)
        match expression:
            case Constant(value):
                return [{}] if value is not negated else []
            case Not(part):
                return self.boxes(part, not negated, depth + 1)
            case AllOf(parts) | AnyOf(parts):
                each = [self.boxes(part, negated, depth + 1) for part in parts]
                if isinstance(expression, AllOf) is not negated:
                    return self._product(each)
                return self._union(each)
        assert isinstance(expression, Leaf)
        return self._leaf(expression, negated)

    def _leaf(self, leaf: Leaf, negated: bool) -> list[_Facts]:
        self.term_count += 1
        if self.term_count > PREDICATE_TERMS_MAX:
            column = leaf.subject.column
            raise error(f"a predicate has at most {PREDICATE_TERMS_MAX} terms", column)
        key, fact = self.leaves.fact(leaf, negated)
        fact = None if fact is None else simplify(fact)
        if fact is None:
            self._clash(f"{leaf.subject} has no value left", leaf.subject.column)
            return []
        return [{key: replace(fact, column=leaf.subject.column)}]

    def _union(self, each: list[list[_Facts]]) -> list[_Facts]:
        found = _distinct([box for boxes in each for box in boxes])
        return _limited(found)

    def _product(self, each: list[list[_Facts]]) -> list[_Facts]:
        found: list[_Facts] = [{}]
        for boxes in each:
            if len(found) * len(boxes) > _PRODUCT_MAX:
                _limited([{}] * (len(found) * len(boxes)))
            merged = [self._merge(one, two) for one in found for two in boxes]
            found = _limited(_distinct([box for box in merged if box is not None]))
        return found

    def _merge(self, one: _Facts, two: _Facts) -> _Facts | None:
        merged = dict(one)
        for key, fact in two.items():
            known = merged.get(key)
            both = fact if known is None else conjoin(known, fact)
            if both is None:
                assert known is not None
                first, second = self._text(key, known), self._text(key, fact)
                self._clash(f"{first} and {second}", fact.column)
                return None
            merged[key] = both
        return merged

    def _text(self, key: Key, fact: Fact) -> str:
        return " and ".join(term_text(term, self.schema) for term in terms(key, fact))

    def _clash(self, what: str, column: int | None) -> None:
        if self.conflict is None:
            self.conflict = error(f"empty range: {what}", column)


def _limited(boxes: list[_Facts]) -> list[_Facts]:
    if len(boxes) > PREDICATE_BOXES_MAX:
        raise error(
            f"the predicate has too many alternatives: {len(boxes)} boxes once its 'or' are"
            f" multiplied out, at most {PREDICATE_BOXES_MAX}; write x in (...) instead of"
            " x == a or x == b",
            None,
            hint="in",
        )
    return boxes


def _distinct(boxes: list[_Facts]) -> list[_Facts]:
    seen = {frozenset(box.items()): box for box in reversed(boxes)}
    return list(reversed(seen.values()))


def _absorb(boxes: list[_Facts]) -> list[_Facts]:
    """Without the boxes that lie inside another one: `a or (a and b)` is `a`."""
    if len(boxes) > _ABSORB_MAX:
        return boxes
    return [
        box
        for box in boxes
        if not any(other is not box and _is_inside(box, other) for other in boxes)
    ]


def _is_inside(inner: _Facts, outer: _Facts) -> bool:
    """Whether whatever satisfies `inner` satisfies `outer`."""
    return all(
        (known := inner.get(key)) is not None and conjoin(fact, known) == known
        for key, fact in outer.items()
    )
