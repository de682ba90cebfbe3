"""Units of the predicate language: what `32GiB`, `20ms` and `5%` mean, and the constants of F.

A unit word belongs to the base unit of the attributes it may be written for: bytes ("B"),
seconds ("s"), per cent ("%") or hertz ("Hz"). This module knows no attribute and no schema.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

KiB, MiB, GiB, TiB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
kB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12  # noqa: N816 - the prefix is lower case in SI
ms = 1e-3
us = 1e-6


@dataclass(frozen=True, slots=True)
class Unit:
    """One word a number may carry: `value * factor` is in the base unit."""

    word: str
    base: str
    factor: Fraction


def _units() -> dict[str, Unit]:
    rows: tuple[tuple[str, str, int | Fraction], ...] = (
        ("TiB", "B", TiB),
        ("GiB", "B", GiB),
        ("MiB", "B", MiB),
        ("KiB", "B", KiB),
        ("TB", "B", TB),
        ("GB", "B", GB),
        ("MB", "B", MB),
        ("kB", "B", kB),
        ("B", "B", 1),
        ("s", "s", 1),
        ("ms", "s", Fraction(1, 10**3)),
        ("us", "s", Fraction(1, 10**6)),
        ("%", "%", 1),
        ("GHz", "Hz", 10**9),
        ("MHz", "Hz", 10**6),
        ("kHz", "Hz", 10**3),
        ("Hz", "Hz", 1),
    )
    return {word: Unit(word, base, Fraction(factor)) for word, base, factor in rows}


UNITS = _units()
"""Every unit word, largest first within a base."""


def words(base: str) -> list[str]:
    """The unit words of one base unit, largest first.

    >>> words("s")
    ['s', 'ms', 'us']
    """
    return [unit.word for unit in UNITS.values() if unit.base == base]


def in_base(value: float, unit: Unit) -> float:
    """`value` in the base unit, rounded once; whole numbers stay whole.

    >>> in_base(20, UNITS["ms"]), in_base(32, UNITS["GiB"]), in_base(0.5, UNITS["KiB"])
    (0.02, 34359738368, 512)
    """
    exact = Fraction(value) * unit.factor
    if exact.denominator == 1:
        return int(exact)
    # Fraction to float divides two integers, which Python rounds correctly.
    return float(exact)


def spell(value: float, base: str) -> str:
    """The shortest text of `value` in its base unit that `in_base` turns back exactly.

    >>> spell(34359738368, "B"), spell(0.02, "s"), spell(50.0, "%"), spell(1.5, "")
    ('32GiB', '20ms', '50%', '1.5')
    """
    best: tuple[int, int, str] | None = None
    for word in words(base):
        unit = UNITS[word]
        scaled = Fraction(value) / unit.factor
        number = int(scaled) if scaled.denominator == 1 else _short(scaled)
        if in_base(number, unit) == value:
            digits = _number(number)
            choice = (len(digits), len(word), f"{digits}{word}")
            best = choice if best is None else min(best, choice)
    return _number(value) if best is None else best[2]


def _short(value: Fraction) -> float:
    """A float near `value`, with the few digits a person would have written."""
    rough = float(value)
    rounded = float(f"{rough:.12g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice a mistyped word most likely meant, or None.

    >>> nearest("coers", ["cores", "mem"])
    'cores'
    """
    known = list(choices)
    folded: dict[str, str] = {}
    for choice in known:
        folded.setdefault(choice.casefold(), choice)
    if word.casefold() in folded:
        return folded[word.casefold()]
    found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None
