"""Scales: how the values of one attribute fall on the 65,536 positions of its axis.

A position is a coarse, monotone image of a value. Key cells, histogram bins and bounds all derive
from it, so that whatever prunes by one of them agrees with the others. Position 0 is kept for
"this record does not have the attribute": a present value lands on `floor`..65535, where `floor`
is the first position of cell 1 of a keyed attribute (and 1 elsewhere). Records themselves are
always compared on their real values; a position may only rule out what cannot match.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

POSITION_BITS = 16
POSITION_MAX = (1 << POSITION_BITS) - 1
MISSING = 0
"""The position of an attribute that a record does not have."""

_EXACT = 1e-6  # of one position: more than float rounding, less than any difference that matters


def _spread(fraction: float, floor: int) -> int:
    """The position of a fraction 0..1 of the axis: equally wide steps, monotone."""
    return min(POSITION_MAX, floor + int(fraction * (POSITION_MAX + 1 - floor)))


# Places are found millions of times an hour, so what a scale and a floor decide is bound once.


def _log2_place(scale: "Log2", floor: int, start: float, width: float, value: float) -> int:
    if scale.low < value < scale.high:
        return _spread((math.log2(value) - start) / width, floor)
    return floor if value <= scale.low else POSITION_MAX


def _log2p1_place(scale: "Log2p1", floor: int, width: float, value: float) -> int:
    if scale.low < value < scale.high:
        return _spread(math.log2(1 + value) / width, floor)
    return floor if value <= scale.low else POSITION_MAX


def _linear_place(scale: "Linear", floor: int, width: float, value: float) -> int:
    if scale.low < value < scale.high:
        return _spread((value - scale.low) / width, floor)
    return floor if value <= scale.low else POSITION_MAX


def _text_place(floor: int, text: str) -> int:
    value = int.from_bytes(blake2b(text.encode("utf-8"), digest_size=4).digest())
    return floor + value % (POSITION_MAX + 1 - floor)


def _word_place(places: dict[str, int], floor: int, text: str) -> int:
    place = places.get(text)
    return _text_place(floor, text) if place is None else place


def _flag_place(lower: int, upper: int, flag: bool) -> int:
    return upper if flag else lower


@dataclass(frozen=True, slots=True)
class _NumberScale:
    """What the three number scales share; `low` and `high` are the ends of the axis."""

    low: float
    high: float

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

    def _at(self, fraction: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Log2(_NumberScale):
    """Equal ratios are equally far apart: cores, memory, prices.

    >>> Log2(1, 1024).placer(0)(32)
    32768
    """

    def placer(self, floor: int) -> Callable[[float], int]:
        """The position of any number; those outside `low`..`high` sit at the ends."""
        start = math.log2(self.low)
        return partial(_log2_place, self, floor, start, math.log2(self.high) - start)

    def _at(self, fraction: float) -> float:
        start = math.log2(self.low)
        return float(2.0 ** (start + fraction * (math.log2(self.high) - start)))


@dataclass(frozen=True, slots=True)
class Log2p1(_NumberScale):
    """`log2(1 + n)` from zero on: small counts where nothing is an answer too, as GPUs."""

    def placer(self, floor: int) -> Callable[[float], int]:
        """The position of any number; those outside `low`..`high` sit at the ends."""
        return partial(_log2p1_place, self, floor, math.log2(1 + self.high))

    def _at(self, fraction: float) -> float:
        return float(2.0 ** (fraction * math.log2(1 + self.high))) - 1


@dataclass(frozen=True, slots=True)
class Linear(_NumberScale):
    """Equal differences are equally far apart: percentages."""

    def placer(self, floor: int) -> Callable[[float], int]:
        """The position of any number; those outside `low`..`high` sit at the ends."""
        return partial(_linear_place, self, floor, self.high - self.low)

    def _at(self, fraction: float) -> float:
        return self.low + fraction * (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Codes:
    """A declared list of words, evenly spread in the declared order.

    A word that is not in the list is refused, or, in an `open` list, hashed to a position.
    """

    words: tuple[str, ...]
    open: bool = False

    def placer(self, floor: int) -> Callable[[str], int]:
        """The same for equal words; different for declared words while cells last."""
        total = len(self.words)
        places = {word: _spread((n + 0.5) / total, floor) for n, word in enumerate(self.words)}
        return partial(_word_place, places, floor)


@dataclass(frozen=True, slots=True)
class Hashed:
    """Any text, by its hash: only equality can be asked by position."""

    def placer(self, floor: int) -> Callable[[str], int]:
        """The same for equal texts, on every machine."""
        return partial(_text_place, floor)


@dataclass(frozen=True, slots=True)
class Flag:
    """False and true: the two halves of the axis."""

    def placer(self, floor: int) -> Callable[[bool], int]:
        """The start of the lower or of the upper half."""
        return partial(_flag_place, _spread(0.0, floor), _spread(0.5, floor))


NumberScale = Log2 | Log2p1 | Linear
Scale = NumberScale | Codes | Hashed | Flag
