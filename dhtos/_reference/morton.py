"""Morton (Z-order) keys of several attributes under a declared bit schedule.

`bits[a]` is the width of attribute `a`; `schedule[i]` names the attribute that gives bit `i` of
the key, each attribute's most significant bit first (Morton 1966; Orenstein and Merrett 1984 for
the prefix as a box).
"""

from collections.abc import Sequence

_ATTRIBUTES_MAX = 64
_BITS_MAX = 32
_SCHEDULE_MAX = 256


def _check(bits: Sequence[int], schedule: bytes) -> None:
    """Raise ValueError unless attribute `a` appears exactly `bits[a]` times in `schedule`."""
    if len(bits) > _ATTRIBUTES_MAX:
        raise ValueError(f"at most {_ATTRIBUTES_MAX} attributes, got {len(bits)}")
    if len(schedule) > _SCHEDULE_MAX:
        raise ValueError(f"a schedule has at most {_SCHEDULE_MAX} bits, got {len(schedule)}")
    for width in bits:
        if not 0 <= width <= _BITS_MAX:
            raise ValueError(f"an attribute has 0..{_BITS_MAX} bits, got {width}")
    counts = [0] * len(bits)
    for attribute in schedule:
        if attribute >= len(bits):
            raise ValueError(f"the schedule names attribute {attribute} of {len(bits)}")
        counts[attribute] += 1
    for attribute, width in enumerate(bits):
        if counts[attribute] != width:
            raise ValueError(f"attribute {attribute} has {width} bits, not as the schedule says")


def morton_encode(cells: Sequence[int], bits: Sequence[int], schedule: bytes) -> bytes:
    """The key of `cells`: ceil(len(schedule) / 8) bytes, left aligned.

    Raises ValueError for a cell wider than its attribute or a schedule that does not fit `bits`.
    """
    _check(bits, schedule)
    if len(cells) != len(bits):
        raise ValueError(f"{len(bits)} cells are wanted, got {len(cells)}")
    for attribute, width in enumerate(bits):
        if not 0 <= cells[attribute] < 1 << width:
            raise ValueError(f"cell {attribute} does not fit in {width} bits")
    left = list(bits)
    value = 0
    for attribute in schedule:
        left[attribute] -= 1
        value = value << 1 | cells[attribute] >> left[attribute] & 1
    size = (len(schedule) + 7) // 8
    return (value << size * 8 - len(schedule)).to_bytes(size)


def morton_decode(key: bytes, bits: Sequence[int], schedule: bytes) -> list[int]:
    """The cells of a key made by `morton_encode`; a shorter key raises ValueError."""
    return [low for low, _ in prefix_box(key, len(schedule), bits, schedule, 0)]


def prefix_box(
    key: bytes, length: int, bits: Sequence[int], schedule: bytes, offset: int
) -> list[tuple[int, int]]:
    """The inclusive interval of cells, per attribute, of the subtree of `key`'s `length` bits.

    The schedule starts at bit `offset` of the key; bits before it and after its end say nothing.
    Raises ValueError for a negative number or a key too short for the bits it must give.
    """
    _check(bits, schedule)
    if length < 0 or offset < 0:
        raise ValueError(f"length and offset are at least 0, got {length} and {offset}")
    known = max(0, min(length - offset, len(schedule)))
    if known and len(key) * 8 < offset + known:
        raise ValueError(f"{offset + known} bits of the key are wanted, got {len(key) * 8}")
    left = list(bits)
    cells = [0] * len(bits)
    for i in range(known):
        attribute = schedule[i]
        position = offset + i
        left[attribute] -= 1
        cells[attribute] = cells[attribute] << 1 | key[position >> 3] >> (7 - (position & 7)) & 1
    return [
        (cell << rest, (cell << rest) + (1 << rest) - 1)
        for cell, rest in zip(cells, left, strict=True)
    ]


def box_intersects(
    key: bytes,
    length: int,
    bits: Sequence[int],
    schedule: bytes,
    offset: int,
    lows: Sequence[int],
    highs: Sequence[int],
) -> bool:
    """Whether the subtree (see `prefix_box`) has a cell with `lows[a] <= cell <= highs[a]` in all.

    Bounds are integers of 64 bits; an empty interval intersects nothing.
    """
    if len(lows) != len(bits) or len(highs) != len(bits):
        raise ValueError(f"{len(bits)} bounds are wanted, got {len(lows)} and {len(highs)}")
    box = prefix_box(key, length, bits, schedule, offset)
    return all(
        lows[a] <= highs[a] and lows[a] <= high and low <= highs[a]
        for a, (low, high) in enumerate(box)
    )
