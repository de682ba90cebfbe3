"""A predicate bound to a schema: which records match, and which subtrees may hold a match.

Four questions, from sure to guessed: `matches` is the truth about one record; `intersects` is
exact on the key cells of a subtree; `may_match` is false only if a summary rules a match out;
`estimate` and `order_bound` rank what is left. All but `matches` work on positions (see
`dhtos.core.scale`), so they agree with keys and summaries. Terms are compiled once, to closures
over the slots of a record, because a member evaluates a question on every record it holds.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from dhtos.core.curve import VERSION_BITS, cells_of
from dhtos.core.evidence import Evidence, order_limits, possible_values
from dhtos.core.ids import Prefix
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
)
from dhtos.core.record import Record
from dhtos.core.schema import Attribute, Schema, Value
from dhtos.core.summary import Summary
from dhtos.core.vouched import groups_of, values_of
from dhtos.kernels import box_intersects

_Slots = tuple[Value | None, ...]
_Labels = tuple[tuple[str, str], ...]
_SlotTest = Callable[[_Slots], bool]
_LabelTest = Callable[[_Labels], bool]
_Groups = tuple[str, ...]
_GroupTest = Callable[[_Groups], bool]
_AttributeTerm = Range | OneOf | Exists | StartsWith


@dataclass(frozen=True, slots=True)
class _Tests:
    """One box, compiled: a record is in it if every test holds."""

    static: tuple[_SlotTest, ...]
    dynamic: tuple[_SlotTest, ...]
    labels: tuple[_LabelTest, ...]
    near: tuple[Near, ...]
    attested: tuple[_GroupTest, ...]


@dataclass(frozen=True, slots=True)
class _Cells:
    """One box on the key: an interval per keyed attribute, and sets where it has holes."""

    lows: list[int]
    highs: list[int]
    sets: tuple[tuple[int, tuple[int, ...]], ...]


class Bound:
    """A predicate ready to be evaluated against records, prefixes and summaries of one schema."""

    __slots__ = ("_cells", "_evidence", "_one_place", "_tests", "predicate", "schema")

    def __init__(self, predicate: Predicate, schema: Schema) -> None:
        self.predicate = predicate
        self.schema = schema
        self._tests = tuple(_compile(box, schema) for box in predicate.boxes)
        self._cells = tuple(_cells(box, schema) for box in predicate.boxes)
        self._evidence = tuple(Evidence(box, schema) for box in predicate.boxes)
        places = {near.coordinate for tests in self._tests for near in tests.near}
        self._one_place = len(places) == 1

    def matches(
        self, record: Record, *, rtt: float | None = None, groups: _Groups | None = None
    ) -> bool:
        """Whether the record matches.

        `rtt` is a measured round trip (seconds) to its node: it replaces the predicted one if
        the predicate asks about one place only. `groups` are in place of those that the proof of
        the record names.
        """
        measured = rtt if self._one_place else None
        for tests in self._tests:  # noqa: SIM110 - any() would cost a generator a record
            if _holds(tests, record, measured, groups):
                return True
        return False

    def intersects(self, prefix: Prefix) -> bool:
        """Whether a key of the subtree can be that of a match; exact on key cells."""
        if not self.speaks_of(prefix):
            return False
        schema = self.schema
        key, length = prefix.first, prefix.length
        bits, schedule = schema.key_bits, schema.key_schedule
        return any(
            box_intersects(key, length, bits, schedule, VERSION_BITS, cells.lows, cells.highs)
            and (not cells.sets or self._hits_sets(prefix, cells.sets))
            for cells in self._cells
        )

    def speaks_of(self, prefix: Prefix) -> bool:
        """Whether machines of the schema's version can live in the subtree."""
        known = min(prefix.length, VERSION_BITS)
        ours = self.schema.version >> (VERSION_BITS - known)
        return prefix.value >> (prefix.length - known) == ours

    def reach(self, key: bytes) -> int:
        """How many leading bits of a key agree with a match: the longest prefix that intersects.

        Whoever sits at a key of long reach has a group full of what is looked for.
        """
        low, high = 0, VERSION_BITS + len(self.schema.key_schedule)
        while low < high:
            middle = (low + high + 1) // 2
            if self.intersects(Prefix.of(key, middle)):
                low = middle
            else:
                high = middle - 1
        return low

    def _hits_sets(self, prefix: Prefix, sets: tuple[tuple[int, tuple[int, ...]], ...]) -> bool:
        box = cells_of(self.schema, prefix)
        for place, cells in sets:
            low, high = box[place]
            found = bisect_left(cells, low)
            if found == len(cells) or cells[found] > high:
                return False
        return True

    def may_match(self, summary: Summary, *, strict: bool = False) -> bool:
        """False only if the summary proves that none of its records matches.

        What it says about dynamic attributes was true when it was made; `strict` does not
        count that as proof.
        """
        return any(evidence.allows(summary, strict=strict) for evidence in self._evidence)

    def estimate(self, summary: Summary) -> float:
        """About how many records of the summary match, as if attributes were independent."""
        none = 1.0
        for evidence in self._evidence:
            if evidence.allows(summary, strict=False):
                none *= 1.0 - evidence.fraction(summary)
        return summary.count * (1.0 - none)

    def order_bound(self, summary: Summary, index: int, descending: bool) -> float:
        """The best value of an attribute that a match of the summary could have.

        Infinite on the good side if nothing is known (so for texts and flags), and on the bad
        side if there can be no match with a value.
        """
        good, bad = (math.inf, -math.inf) if descending else (-math.inf, math.inf)
        attribute = self.schema.attributes[index]
        possible = [e for e in self._evidence if e.allows(summary, strict=False)]
        if attribute.kind != "number":
            return good if possible else bad
        best = bad
        for evidence in possible:
            low, high = order_limits(evidence.box, attribute, index, summary)
            if low <= high:
                best = max(best, high) if descending else min(best, low)
        return best


# --- records ------------------------------------------------------------------------------------


def _holds(tests: _Tests, record: Record, rtt: float | None, groups: _Groups | None) -> bool:
    slots = record.static
    for test in tests.static:
        if not test(slots):
            return False
    slots = record.dynamic
    for test in tests.dynamic:
        if not test(slots):
            return False
    labels = record.labels
    for check in tests.labels:
        if not check(labels):
            return False
    for near in tests.near:
        if not _is_near(near, record.coordinate, rtt):
            return False
    return not tests.attested or _is_attested(tests.attested, record, groups)


def _is_attested(tests: tuple[_GroupTest, ...], record: Record, groups: _Groups | None) -> bool:
    """Nothing is true of what nobody vouches for."""
    if groups is None:
        groups = groups_of(record)
    return groups is not None and all(test(groups) for test in tests)


def _is_near(near: Near, wire: tuple[float, ...] | None, rtt: float | None) -> bool:
    """Whether a round trip is within bounds; undefined without a coordinate or a measurement."""
    if rtt is None:
        if wire is None or len(wire) != len(near.coordinate) + 1:
            return False
        # The same as `coordinate.predict`, on the wire forms: position, height, error.
        *position, height = near.coordinate
        rtt = math.dist(position, wire[:-2]) + height + wire[-2]
    above = rtt > near.low if near.low_open else rtt >= near.low
    below = rtt < near.high if near.high_open else rtt <= near.high
    return above and below


def _compile(box: Box, schema: Schema) -> _Tests:
    parts: dict[str, list[_SlotTest]] = {"static": [], "dynamic": []}
    labels: list[_LabelTest] = []
    near: list[Near] = []
    attested: list[_GroupTest] = []
    for term in box.terms:
        match term:
            case Label() | LabelExists():
                labels.append(_label_test(term))
            case Near():
                near.append(term)
            case Attested():
                attested.append(_group_test(term))
            case _:
                role = schema.attributes[term.attribute].role
                parts[role] += _slot_tests(term, schema.slots[term.attribute])
    slots = tuple(parts["static"]), tuple(parts["dynamic"])
    return _Tests(*slots, tuple(labels), tuple(near), tuple(attested))


def _slot_tests(term: _AttributeTerm, slot: int) -> list[_SlotTest]:
    match term:
        case Range():
            return _range_tests(term, slot)
        case OneOf(_, values, negated):
            chosen = frozenset(values)
            if negated:
                return [lambda slots: slots[slot] is not None and slots[slot] not in chosen]
            return [lambda slots: slots[slot] in chosen]
        case Exists(_, negated):
            if negated:
                return [lambda slots: slots[slot] is None]
            return [lambda slots: slots[slot] is not None]
        case StartsWith(_, text, negated):
            return [_start_test(text, slot, negated)]


def _range_tests(term: Range, slot: int) -> list[_SlotTest]:
    low, high = term.low, term.high
    if low == high:
        return [lambda slots: slots[slot] == low]
    tests: list[_SlotTest] = []
    # None compares with no number, hence the guard in each; a checked value is a number.
    if low != -math.inf:
        if term.low_open:
            tests.append(lambda slots: (v := slots[slot]) is not None and v > low)  # type: ignore[operator]
        else:
            tests.append(lambda slots: (v := slots[slot]) is not None and v >= low)  # type: ignore[operator]
    if high != math.inf:
        if term.high_open:
            tests.append(lambda slots: (v := slots[slot]) is not None and v < high)  # type: ignore[operator]
        else:
            tests.append(lambda slots: (v := slots[slot]) is not None and v <= high)  # type: ignore[operator]
    return tests


def _start_test(text: str, slot: int, negated: bool) -> _SlotTest:
    def begins(slots: _Slots) -> bool:
        value = slots[slot]
        return isinstance(value, str) and value.startswith(text) is not negated

    return begins


def _label_test(term: Label | LabelExists) -> _LabelTest:
    key, negated = term.key, term.negated
    chosen = None if isinstance(term, LabelExists) else frozenset(term.values)

    def has(labels: _Labels) -> bool:
        for name, value in labels:
            if name == key:
                return (chosen is None or value in chosen) is not negated
        return chosen is None and negated

    return has


def _group_test(term: Attested) -> _GroupTest:
    name, chosen, negated = term.name, frozenset(term.values), term.negated

    def says(groups: _Groups) -> bool:
        values = values_of(name, groups)
        if not chosen:
            return bool(values) is not negated
        return bool(values) and chosen.isdisjoint(values) is negated

    return says


# --- keys ---------------------------------------------------------------------------------------


def _cells(box: Box, schema: Schema) -> _Cells:
    lows = [0] * len(schema.keyed)
    highs = [(1 << bits) - 1 for bits in schema.key_bits]
    places = {attribute.name: place for place, attribute in enumerate(schema.keyed)}
    sets: list[tuple[int, tuple[int, ...]]] = []
    for term in box.terms:
        if isinstance(term, Label | LabelExists | Near | Attested):
            continue
        attribute = schema.attributes[term.attribute]
        if attribute.keyed:
            place = places[attribute.name]
            first, last, chosen = _term_cells(term, attribute)
            lows[place] = max(lows[place], first)
            highs[place] = min(highs[place], last)
            if len(chosen) > 1:
                sets.append((place, chosen))
    return _Cells(lows, highs, tuple(sets))


def _term_cells(term: _AttributeTerm, attribute: Attribute) -> tuple[int, int, tuple[int, ...]]:
    """The least and the greatest cell a term allows; then the cells, if not all between."""
    if isinstance(term, Exists) and term.negated:
        return 0, 0, ()
    if isinstance(term, Range):
        first, last = attribute.position_bounds(term.low, term.high)
        return attribute.cell(first), attribute.cell(last), ()
    values = possible_values(term, attribute)
    if values is None:
        return 1, (1 << attribute.keyed_bits) - 1, ()
    cells = sorted({attribute.cell(position) for position in attribute.position_set(values)})
    return (cells[0], cells[-1], tuple(cells)) if cells else (1, 0, ())
