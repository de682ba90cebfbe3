"""What lives in a subtree, in a few hundred bytes: a count, histograms and bounds.

Per attribute: how many records have a value in each sixteenth of its axis, and the lowest and
highest position that occurs. On the wire counts are 4-bit logarithms, rounded up, so an inhabited
bin never looks empty, and an attribute that nobody has costs a bit. A summary prunes and ranks; it
was true when it was made.

Of a subtree whose machines have another schema only the count is told: a summary without bins.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from operator import add
from zlib import crc32

from dhtos.core.record import Record
from dhtos.core.scale import POSITION_BITS, POSITION_MAX
from dhtos.core.schema import Schema
from dhtos.errors import MalformedMessage

BIN_COUNT = 16
_BIN_SHIFT = POSITION_BITS - 4
_ATTRIBUTE_BYTES = BIN_COUNT // 2 + 4
_COUNT_MAX = 2**32 - 1
_NOWHERE = (0,) * BIN_COUNT
_NO_BOUNDS = (POSITION_MAX, 0)

Bins = tuple[int, ...]

_MANY = 15
"""A bin's code: 0 is none, c up to 2**(c-1) records, 15 more than that or not known."""
_CODES = (0, *(count.bit_length() + (count & (count - 1) != 0) for count in range(1, 2**13 + 1)))
_LEVELS = (0, *(1 << code - 1 for code in range(1, _MANY)))


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a set of records, one entry per attribute of the schema.

    `bins[i]` are upper bounds, exact until they have been on the wire. `lows[i] > highs[i]` where
    no record has attribute i. All three are empty where only the count is known.
    """

    count: int
    bins: tuple[Bins, ...]
    lows: tuple[int, ...]
    highs: tuple[int, ...]

    @classmethod
    def of(cls, schema: Schema, records: Iterable[Record]) -> "Summary":
        """The exact summary; O(records x attributes)."""
        everyone = list(records)
        bins, lows, highs = [], [], []
        for attribute, slot in zip(schema.attributes, schema.slots, strict=True):
            if attribute.role == "static":
                values = [value for r in everyone if (value := r.static[slot]) is not None]
            else:
                values = [value for r in everyone if (value := r.dynamic[slot]) is not None]
            tally = Counter(values)
            places = [*map(attribute.position, tally)]
            counts = [0] * BIN_COUNT
            for place, times in zip(places, tally.values(), strict=True):
                counts[place >> _BIN_SHIFT] += times
            bins.append(tuple(counts))
            lows.append(min(places, default=_NO_BOUNDS[0]))
            highs.append(max(places, default=_NO_BOUNDS[1]))
        return cls(len(everyone), tuple(bins), tuple(lows), tuple(highs))

    def occupancy(self, schema: Schema) -> int:
        """32 bits that stand for where static values occur, whatever their number.

        Two summaries with one occupancy rule out the same subtrees for questions about static
        attributes; it survives `to_bytes`. 0 where only the count is known.
        """
        if not self.bins:
            return 0
        parts = []
        for n, attribute in enumerate(schema.attributes):
            if attribute.role == "static":
                where = sum(1 << place for place, count in enumerate(self.bins[n]) if count)
                parts.append((where << 32 | self.lows[n] << 16 | self.highs[n]).to_bytes(6))
        return crc32(b"".join(parts))

    def widened(self, other: "Summary") -> "Summary":
        """This summary, ruling out nothing that `other` does not rule out."""
        return Summary(
            self.count,
            tuple(tuple(map(max, x, y)) for x, y in zip(self.bins, other.bins, strict=True)),
            tuple(map(min, self.lows, other.lows)),
            tuple(map(max, self.highs, other.highs)),
        )

    def merge(self, other: "Summary") -> "Summary":
        """The summary of both sets together, if they share no record."""
        assert len(self.bins) == len(other.bins)
        return Summary(
            self.count + other.count,
            tuple([tuple(map(add, x, y)) for x, y in zip(self.bins, other.bins, strict=True)]),
            tuple(map(min, self.lows, other.lows)),
            tuple(map(max, self.highs, other.highs)),
        )

    def to_bytes(self, schema: Schema) -> bytes:
        """4 bytes of count, a bit for each attribute that occurs, 12 bytes for each of these.

        Only the count where nothing else is known.
        """
        if not self.bins:
            return self.count.to_bytes(4)
        assert len(self.bins) == len(schema.attributes)
        parts = []
        present = 0
        for n, (bins, low, high) in enumerate(zip(self.bins, self.lows, self.highs, strict=True)):
            if low <= high:
                present |= 1 << n
                codes = [_CODES[c] if c < len(_CODES) else _MANY for c in bins]
                packed = bytes([a << 4 | b for a, b in zip(codes[::2], codes[1::2], strict=True)])
                parts.append(packed + low.to_bytes(2) + high.to_bytes(2))
        count = min(self.count, _COUNT_MAX)
        return b"".join([count.to_bytes(4), present.to_bytes(_bitmap_bytes(schema)), *parts])

    @classmethod
    def of_count(cls, count: int) -> "Summary":
        """That so many records are there, and nothing else."""
        return cls(min(count, _COUNT_MAX), (), (), ())

    @classmethod
    def count_from_bytes(cls, data: bytes) -> "Summary":
        """The count alone of a summary under any schema; raises MalformedMessage if it is short."""
        if len(data) < 4:
            raise MalformedMessage("a summary begins with a count of 4 bytes")
        return cls.of_count(int.from_bytes(data[:4]))

    @classmethod
    def from_bytes(cls, data: bytes, schema: Schema) -> "Summary":
        """Parse `to_bytes`; raises MalformedMessage for another length or for contradictions."""
        total = len(schema.attributes)
        start = 4 + _bitmap_bytes(schema)
        present = int.from_bytes(data[4:start])
        if len(data) != start + _ATTRIBUTE_BYTES * present.bit_count() or present >> total:
            raise MalformedMessage("a summary has 12 bytes for each attribute that occurs")
        count = int.from_bytes(data[:4])
        if count == 0 and present:
            raise MalformedMessage("a summary of no records has no attributes")
        levels = [min(level, count) for level in _LEVELS] + [count]
        all_bins, lows, highs = [_NOWHERE] * total, [POSITION_MAX] * total, [0] * total
        for n in range(total):
            if present >> n & 1:
                packed, tail = data[start : start + BIN_COUNT // 2], start + BIN_COUNT // 2
                low, high = (int.from_bytes(data[at : at + 2]) for at in (tail, tail + 2))
                _check_bounds(packed, low, high)
                all_bins[n] = tuple([levels[c] for byte in packed for c in (byte >> 4, byte & 15)])
                lows[n], highs[n] = low, high
                start += _ATTRIBUTE_BYTES
        return cls(count, tuple(all_bins), tuple(lows), tuple(highs))


def _bitmap_bytes(schema: Schema) -> int:
    return (len(schema.attributes) + 7) // 8


def _check_bounds(packed: bytes, low: int, high: int) -> None:
    """Raise MalformedMessage unless the bounds lie in the outermost inhabited bins."""
    digits = packed.hex()
    first = BIN_COUNT - len(digits.lstrip("0"))
    last = len(digits.rstrip("0")) - 1
    # With no inhabited bin `first` is beyond the axis, where no bound can lie.
    if not (0 < low <= high and low >> _BIN_SHIFT == first and high >> _BIN_SHIFT == last):
        raise MalformedMessage("a summary has bounds that lie in its inhabited bins")
