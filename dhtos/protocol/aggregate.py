"""Aggregates of one number attribute: what a member says of its matches instead of listing them.

Each member reduces the matches it covers to a *partial*, and partials of subtrees that share no
machine merge into that of all of them (Madden et al., TAG, OSDI 2002: partial state records). Sum,
minimum, maximum and the counts of a histogram merge by themselves, the mean follows from sum and
count.

    partial  [sum, minimum | nil, maximum | nil, [count, ...]]

Whole numbers are summed exactly while they fit 63 bits, others are rounded once for each partial
(`math.fsum`). A sum that no float can hold stays at the largest one.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import copysign, fsum, ldexp, nextafter
from math import inf as infinity
from typing import Any

from dhtos.core.limits import HISTOGRAM_EDGES_MAX
from dhtos.core.record import Record
from dhtos.core.scale import Linear, Log2, Log2p1
from dhtos.core.schema import NUMBER_MAX, Attribute, Schema, is_number
from dhtos.errors import UsageError
from dhtos.protocol.hubwire import as_int, as_list, bad

Number = int | float

BIN_COUNT = 16  # of a histogram without edges of its own, as in summaries
_FLOAT_MAX = nextafter(infinity, 0)
_SHIFT_BITS = 64  # an overflowing sum is scaled down by: never are more than 2**64 terms added
_EDGE_DIGITS = 12  # of an edge that follows from a scale


@dataclass(frozen=True, slots=True)
class Partial:
    """What is known of the matches of some subtrees.

    `counts` has the matches below the first edge, between any two, and from the last one on; a
    match without the attribute is in none of them.
    """

    sum: Number
    minimum: Number | None
    maximum: Number | None
    counts: tuple[int, ...]

    @property
    def present(self) -> int:
        """How many of the matches have the attribute."""
        return sum(self.counts)

    def to_wire(self) -> list[Any]:
        """The form of a partial in an answer."""
        return [self.sum, self.minimum, self.maximum, list(self.counts)]


@dataclass(frozen=True, slots=True)
class Measure:
    """What to aggregate: an attribute by its index, and the edges of a histogram, or none."""

    attribute: int
    edges: tuple[Number, ...] = ()

    def of(self, records: Iterable[Record], schema: Schema) -> Partial:
        """The partial of some records."""
        slot = schema.slots[self.attribute]
        if schema.attributes[self.attribute].role == "static":
            found = [record.static[slot] for record in records]
        else:
            found = [record.dynamic[slot] for record in records]
        values = [value for value in found if isinstance(value, int | float)]
        counts = [0] * (len(self.edges) + 1)
        for value in values:
            counts[bisect_right(self.edges, value)] += 1
        least, most = min(values, default=None), max(values, default=None)
        return Partial(total(values), least, most, tuple(counts))

    def merged(self, partials: Sequence[Partial]) -> Partial:
        """The partial of all; that of nothing where there is none."""
        least = [part.minimum for part in partials if part.minimum is not None]
        most = [part.maximum for part in partials if part.maximum is not None]
        columns = [part.counts for part in partials] or [(0,) * (len(self.edges) + 1)]
        return Partial(
            total([part.sum for part in partials]),
            min(least, default=None),
            max(most, default=None),
            tuple(map(sum, zip(*columns, strict=True))),
        )


def total(values: Sequence[Number]) -> Number:
    """The sum of finite numbers, which is finite: whole while all are, and it fits 63 bits.

    >>> total([1, 2**62]), total([0.1] * 10), total([])
    (4611686018427387905, 1.0, 0)
    """
    whole = sum(value for value in values if type(value) is int)
    others = [value for value in values if type(value) is not int]
    if not others and abs(whole) <= NUMBER_MAX:
        return whole
    rounded = float(whole)
    terms = [*others, rounded, float(whole - int(rounded))]
    try:
        return fsum(terms)
    except OverflowError:
        scaled = fsum(ldexp(term, -_SHIFT_BITS) for term in terms)
        if abs(scaled) >= ldexp(_FLOAT_MAX, -_SHIFT_BITS):
            return copysign(_FLOAT_MAX, scaled)
        return ldexp(scaled, _SHIFT_BITS)


def read_partial(value: Any, matches: int, measure: Measure) -> Partial:
    """A partial of an answer that tells of so many matches; raises MalformedMessage."""
    fields = as_list(value, 8)
    if len(fields) < 4:
        raise bad("a partial has 4 fields")
    told = as_list(fields[3], len(measure.edges) + 1)
    counts = tuple([as_int(count, 0, matches) for count in told])
    if len(counts) != len(measure.edges) + 1 or sum(counts) > matches:
        raise bad("a partial counts each match at most once, between all edges")
    whole, least, most = fields[:3]
    if not is_number(whole):
        raise bad("a sum is a finite number")
    if not sum(counts):
        if (whole, least, most) != (0, None, None):
            raise bad("nothing has no least and no most")
    elif not is_number(least) or not is_number(most) or least > most:
        raise bad("the least of a partial is a number up to its most")
    return Partial(whole, least, most, counts)


def measured(schema: Schema, name: str) -> int:
    """The index of an attribute that can be summed; raises UsageError."""
    attribute = schema.attribute(name)
    if attribute.kind != "number":
        raise UsageError(
            f"{name} is a {attribute.kind}, which has no sum and no histogram; "
            f"use count, as in count({_example(attribute)!r})"
        )
    return schema.index(name)


def _example(attribute: Attribute) -> str:
    return attribute.name if attribute.kind == "bool" else f"{attribute.name} == 'x'"


def check_edges(edges: Sequence[Number]) -> tuple[Number, ...]:
    """The edges of a histogram; raises UsageError unless they are finite and rise."""
    listed = tuple(edges)
    if not 1 <= len(listed) <= HISTOGRAM_EDGES_MAX:
        raise UsageError(f"a histogram has 1..{HISTOGRAM_EDGES_MAX} edges, got {len(listed)}")
    for edge in listed:
        if not is_number(edge):
            raise UsageError(f"the edges of a histogram are finite numbers, got {edge!r}")
    for low, high in pairwise(listed):
        if low >= high:
            raise UsageError(f"the edges of a histogram rise, got {low!r} before {high!r}")
    return listed


def default_edges(attribute: Attribute) -> tuple[float, ...]:
    """The fifteen edges between sixteen equal steps of a number's scale.

    >>> from dhtos.core.schema import default_schema
    >>> default_edges(default_schema().attribute("cpu_free"))[:3]
    (6.25, 12.5, 18.75)
    """
    shares = [step / BIN_COUNT for step in range(1, BIN_COUNT)]
    scale = attribute.scale
    assert isinstance(scale, Log2 | Log2p1 | Linear), f"{attribute.name} is no number"
    low, high = scale.low, scale.high
    if isinstance(scale, Log2):
        edges = [low * (high / low) ** share for share in shares]
    elif isinstance(scale, Log2p1):
        edges = [(1 + high) ** share - 1 for share in shares]
    else:
        edges = [low + (high - low) * share for share in shares]
    rounded = [float(f"{edge:.{_EDGE_DIGITS}g}") for edge in edges]
    return tuple(sorted(set(rounded)))  # of an axis a few floats wide, fewer
