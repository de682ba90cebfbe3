"""What a summary says about one box: can it hold a match, how many, and how good.

A summary counts, per attribute, how many of its records have a value in each sixteenth of the
axis, between the lowest and the highest position. Every term becomes the positions it allows.
Proof is kept apart from guess: `allows` never errs on the side of "no", `fraction` just ranks.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dhtos.core.predicate import (
    Attested,
    Box,
    Exists,
    Label,
    LabelExists,
    Near,
    OneOf,
    Range,
    StartsWith,
)
from dhtos.core.scale import POSITION_BITS, POSITION_MAX, Codes, Flag
from dhtos.core.schema import Attribute, Schema, Value
from dhtos.core.summary import Summary

_BIN_BITS = 4
_BIN_SHIFT = POSITION_BITS - _BIN_BITS
_BIN_WIDTH = 1 << _BIN_SHIFT

# Guesses where a summary has no figure; they rank subtrees and prove nothing.
_POINT_WIDTH = _BIN_WIDTH // 16  # one number is taken for a sixteenth of its bin
_TEXTS_PER_BIN = 4
_GUESS = {Label: 0.25, LabelExists: 0.5, Near: 0.25, Attested: 0.25}
_LEAST = 1 / 64


def possible_values(
    term: OneOf | Exists | StartsWith, attribute: Attribute
) -> tuple[Value, ...] | None:
    """All values that satisfy a term, or None where they are too many to name."""
    if isinstance(term, OneOf) and not term.negated:
        return term.values
    scale = attribute.scale
    if isinstance(scale, Flag):
        domain: tuple[Value, ...] = (False, True)
    elif isinstance(scale, Codes) and not scale.open:
        domain = scale.words
    else:
        return None
    match term:
        case OneOf(_, values):
            return tuple(value for value in domain if value not in values)
        case StartsWith(_, text, negated):
            return tuple(v for v in domain if str(v).startswith(text) is not negated)
    return domain


@dataclass(frozen=True, slots=True)
class _Probe:
    """The positions of attribute `index` that a term allows: an interval, or single ones."""

    index: int
    dynamic: bool
    first: int = 1
    last: int = POSITION_MAX
    points: tuple[int, ...] | None = None
    per_bin: int = 1
    share: float = 1.0
    """Of the present values in the interval, how many a guess takes for matches."""

    def bounds(self, summary: Summary) -> tuple[int, int]:
        """The allowed interval, cut to the positions that occur."""
        return max(self.first, summary.lows[self.index]), min(self.last, summary.highs[self.index])

    def allows(self, summary: Summary) -> bool:
        """Whether some record may have an allowed position."""
        bins = summary.bins[self.index]
        low, high = self.bounds(summary)
        if self.points is not None:
            return any(low <= point <= high and bins[point >> _BIN_SHIFT] for point in self.points)
        return low <= high and any(bins[low >> _BIN_SHIFT : (high >> _BIN_SHIFT) + 1])

    def fraction(self, summary: Summary) -> float:
        """About which part of all records has an allowed position."""
        bins = summary.bins[self.index]
        total = max(summary.count, sum(bins))
        low, high = self.bounds(summary)
        if self.points is not None:
            found = sum(
                bins[point >> _BIN_SHIFT] / self.per_bin
                for point in self.points
                if low <= point <= high
            )
        else:
            found = self.share * self._between(summary, low, high)
        return min(1.0, found / total) if total else 0.0

    def _between(self, summary: Summary, low: int, high: int) -> float:
        """Records between two positions, each bin taken for evenly filled where it can be."""
        found = 0.0
        lowest, highest = summary.lows[self.index], summary.highs[self.index]
        for place in range(low >> _BIN_SHIFT, (high >> _BIN_SHIFT) + 1):
            count = summary.bins[self.index][place]
            if count:
                start = max(lowest, place << _BIN_SHIFT)
                end = min(highest, (place << _BIN_SHIFT) + _BIN_WIDTH - 1)
                wanted = min(high, end) - max(low, start) + 1
                width = end - start + 1
                if width > 0 and wanted > 0:
                    found += count * min(1.0, max(wanted, _POINT_WIDTH) / width)
        return found


class Evidence:
    """One box, as summaries see it."""

    __slots__ = ("_guess", "_probes", "box")

    def __init__(self, box: Box, schema: Schema) -> None:
        self.box = box
        self._guess = 1.0
        probes: list[_Probe] = []
        for term in box.terms:
            match term:
                case Label() | LabelExists() | Near() | Attested():
                    self._guess *= _GUESS[type(term)]
                case Exists(_, True):
                    # Decoded counts are rounded up, so a sum proves nothing about gaps.
                    self._guess *= 0.5
                case _:
                    probes.append(_probe(term, schema.attributes[term.attribute]))
        self._probes = tuple(probes)

    def allows(self, summary: Summary, *, strict: bool) -> bool:
        """Whether the summary leaves a match possible."""
        if summary.count == 0:
            return False
        return all((strict and p.dynamic) or p.allows(summary) for p in self._probes)

    def fraction(self, summary: Summary) -> float:
        """About which part of the summary's records match, above 0."""
        part = self._guess
        for probe in self._probes:
            part *= max(probe.fraction(summary), _LEAST / max(1, summary.count))
        return part


def _probe(term: Range | OneOf | Exists | StartsWith, attribute: Attribute) -> _Probe:
    index, dynamic = term.attribute, attribute.role == "dynamic"
    if isinstance(term, Range):
        first, last = attribute.position_bounds(term.low, term.high)
        return _Probe(index, dynamic, first, last)
    if isinstance(term, Exists):
        return _Probe(index, dynamic)
    values = possible_values(term, attribute)
    if values is not None:
        points = tuple(sorted(attribute.position_set(values)))
        return _Probe(index, dynamic, points=points, per_bin=_values_per_bin(attribute))
    negated = term.negated
    share = 1 / _TEXTS_PER_BIN if isinstance(term, StartsWith) else 1 / 16
    return _Probe(index, dynamic, share=1 - share if negated else share)


def _values_per_bin(attribute: Attribute) -> int:
    """How many different values share a bin, as a guess."""
    match attribute.scale:
        case Flag():
            return 1
        case Codes(words):
            return -(-len(words) >> _BIN_BITS)
    return _TEXTS_PER_BIN


# --- order by -----------------------------------------------------------------------------------


def order_limits(
    box: Box, attribute: Attribute, index: int, summary: Summary
) -> tuple[float, float]:
    """Between which numbers every present value of a match lies; low > high if there is none."""
    if not any(summary.bins[index]):
        return math.inf, -math.inf
    low, high = attribute.value_bounds(summary.lows[index], summary.highs[index])
    for term in box.terms:
        match term:
            case Range(at, first, last) if at == index:
                low, high = max(low, _below(first)), min(high, _above(last))
            case OneOf(at, values, False) if at == index:
                low = max(low, min(map(_below, _numbers(values))))
                high = min(high, max(map(_above, _numbers(values))))
            case Exists(at, True) if at == index:
                return math.inf, -math.inf
    return low, high


def _numbers(values: Iterable[Value]) -> list[float]:
    return [value for value in values if not isinstance(value, str)]


def _below(value: float) -> float:
    """A float that is not above the number; whole numbers beyond 2**53 may not be floats."""
    near = float(value)
    return near if near <= value else math.nextafter(near, -math.inf)


def _above(value: float) -> float:
    near = float(value)
    return near if near >= value else math.nextafter(near, math.inf)
