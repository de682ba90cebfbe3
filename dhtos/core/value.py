"""Values: what one attribute of one machine may hold, whoever it comes from.

A number is finite and fits the wire, a text is printable (it ends up on terminals) and short. A
whole number is an int: 8.0 becomes 8 at the door, so that equal records have equal bytes.
"""

import math
from collections.abc import Callable
from typing import TypeGuard

from dhtos.core.limits import TEXT_BYTES_MAX
from dhtos.core.scale import Codes, Flag, Linear, Log2, Log2p1, Scale

Value = int | float | str | bool

NUMBER_MAX = 2**63 - 1
_FLOAT_MAX = math.nextafter(math.inf, 0)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number that the wire can carry; a bool is not a number."""
    if type(value) is int:
        return -NUMBER_MAX <= value <= NUMBER_MAX
    return type(value) is float and math.isfinite(value)


def is_printable(text: str, bytes_max: int) -> bool:
    """Whether a text may be shown on a terminal and fits its limit."""
    if len(text) > bytes_max or not text.isprintable():
        return False
    return text.isascii() or len(text.encode()) <= bytes_max


def is_whole(value: float) -> bool:
    """Whether a float stands for a number that records hold as an int."""
    return value.is_integer() and abs(value) <= NUMBER_MAX


def value_test(scale: Scale) -> Callable[[object], bool]:
    """Whether a value from the wire fits an attribute of this scale, compiled for speed."""
    match scale:
        case Linear():
            return is_number
        case Log2() | Log2p1():
            return _is_count
        case Codes(words, False):
            known = frozenset(words)
            return lambda value: type(value) is str and value in known
        case Flag():
            return lambda value: type(value) is bool
        case _:
            return _is_text


def _is_count(value: object) -> bool:
    if type(value) is int:
        return 0 <= value <= NUMBER_MAX
    return type(value) is float and 0 <= value <= _FLOAT_MAX


def _is_text(value: object) -> bool:
    return type(value) is str and value != "" and is_printable(value, TEXT_BYTES_MAX)
