"""Scales: how the values of one attribute fall on the 65,536 positions of its axis.

A position is a coarse, monotone image of a value. Key cells, histogram bins and bounds all derive
from it, so that whatever prunes by one of them agrees with the others. Position 0 is kept for
"this record does not have the attribute": a present value lands on `floor`..65535, where `floor`
is the first position of cell 1 of a keyed attribute (and 1 elsewhere). Records themselves are
always compared on their real values; a position may only rule out what cannot match.
"""

import math
from dataclasses import dataclass
from hashlib import blake2b

POSITION_BITS = 16
POSITION_MAX = (1 << POSITION_BITS) - 1
MISSING = 0
"""The position of an attribute that a record does not have."""

_EXACT = 1e-6  # of one position: more than float rounding, less than any difference that matters


def _spread(fraction: float, floor: int) -> int:
    """The position of a fraction 0..1 of the axis: equally wide steps, monotone."""
    return min(POSITION_MAX, floor + int(fraction * (POSITION_MAX + 1 - floor)))


def _text_position(text: str, floor: int) -> int:
    value = int.from_bytes(blake2b(text.encode("utf-8"), digest_size=4).digest())
    return floor + value % (POSITION_MAX + 1 - floor)


@dataclass(frozen=True, slots=True)
class _NumberScale:
    """What the three number scales share; `low` and `high` are the ends of the axis."""

    low: float
    high: float

    def position(self, value: float, floor: int) -> int:
        """Monotone; values outside `low`..`high` sit at the ends."""
        if value <= self.low:
            return floor
        if value >= self.high:
            return POSITION_MAX
        return _spread(self._fraction(value), floor)

    def least(self, position: int, floor: int) -> float:
        """No value at `position` is smaller than this; minus infinity at the low end."""
        if position <= floor:
            return -math.inf
        return self._at((position - floor - _EXACT) / (POSITION_MAX + 1 - floor))

    def greatest(self, position: int, floor: int) -> float:
        """No value at `position` is larger than this; infinity at the high end."""
        if position >= POSITION_MAX:
            return math.inf
        return self._at((position + 1 - floor + _EXACT) / (POSITION_MAX + 1 - floor))

    def _fraction(self, value: float) -> float:
        raise NotImplementedError

    def _at(self, fraction: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Log2(_NumberScale):
    """Equal ratios are equally far apart: cores, memory, prices.

    >>> Log2(1, 1024).position(32, 0)
    32768
    """

    def _fraction(self, value: float) -> float:
        start = math.log2(self.low)
        return (math.log2(value) - start) / (math.log2(self.high) - start)

    def _at(self, fraction: float) -> float:
        start = math.log2(self.low)
        return float(2.0 ** (start + fraction * (math.log2(self.high) - start)))


@dataclass(frozen=True, slots=True)
class Log2p1(_NumberScale):
    """`log2(1 + n)` from zero on: small counts where nothing is an answer too, as GPUs."""

    def _fraction(self, value: float) -> float:
        return math.log2(1 + value) / math.log2(1 + self.high)

    def _at(self, fraction: float) -> float:
        return float(2.0 ** (fraction * math.log2(1 + self.high))) - 1


@dataclass(frozen=True, slots=True)
class Linear(_NumberScale):
    """Equal differences are equally far apart: percentages."""

    def _fraction(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def _at(self, fraction: float) -> float:
        return self.low + fraction * (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Codes:
    """A declared list of words, evenly spread in the declared order.

    A word that is not in the list is refused, or, in an `open` list, hashed to a position.
    """

    words: tuple[str, ...]
    open: bool = False

    def position(self, value: str, floor: int) -> int:
        """The same for equal words; different for declared words while cells last."""
        if value not in self.words:
            return _text_position(value, floor)
        return _spread((self.words.index(value) + 0.5) / len(self.words), floor)


@dataclass(frozen=True, slots=True)
class Hashed:
    """Any text, by its hash: only equality can be asked by position."""

    def position(self, value: str, floor: int) -> int:
        """The same for equal texts, on every machine."""
        return _text_position(value, floor)


@dataclass(frozen=True, slots=True)
class Flag:
    """False and true: the two halves of the axis."""

    def position(self, value: bool, floor: int) -> int:
        """The start of the lower or of the upper half."""
        return _spread(0.5 if value else 0.0, floor)


NumberScale = Log2 | Log2p1 | Linear
Scale = NumberScale | Codes | Hashed | Flag
