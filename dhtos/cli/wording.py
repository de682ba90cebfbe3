"""Values as people read them: 32GiB rather than 34359738368, 12.3 ms rather than 0.0123."""

import re
from collections.abc import Mapping
from math import ceil
from typing import Any

from dhtos.core.schema import Attribute, Schema, Value
from dhtos.errors import UsageError
from dhtos.node.values import read_value
from dhtos.query.units import UNITS, words

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?(s|ms|us)")
_PERIOD = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(s|min|h|d)")


def value_text(attribute: Attribute, value: Value) -> str:
    """A value with its unit, at most four digits.

    >>> from dhtos.core.schema import default_schema
    >>> value_text(default_schema().attribute("mem"), 34359738368)
    '32GiB'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if attribute.unit in ("B", "Hz"):
        steps = [u for u in words(attribute.unit) if attribute.unit == "Hz" or u[1:2] == "i"]
        for word in steps:
            factor = float(UNITS[word].factor)
            if abs(value) >= factor:
                return f"{value / factor:.4g}{word}"
        return f"{value:.4g}{attribute.unit}"
    text = f"{value}" if isinstance(value, int) else f"{value:.4g}"
    return text + (attribute.unit if attribute.unit in ("%", "s") else "")


def milliseconds(seconds: float | None) -> str:
    """A duration in milliseconds, three digits.

    >>> milliseconds(0.0123), milliseconds(None)
    ('12.3', '-')
    """
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f}" if seconds < 0.1 else f"{seconds * 1000:.0f}"


def age_text(seconds: float) -> str:
    """How long ago, in the unit a person would choose.

    >>> age_text(0.2), age_text(45), age_text(600)
    ('0.2s', '45s', '10min')
    """
    if seconds < 10:
        return f"{seconds:.1f}s"
    return f"{seconds:.0f}s" if seconds < 120 else f"{seconds / 60:.0f}min"


def percent(share: float) -> str:
    """A share as per cent; only a whole is 100%.

    >>> percent(1.0), percent(0.99999), percent(0.5)
    ('100%', '99.9%', '50%')
    """
    if share >= 1.0:
        return "100%"
    return f"{min(share * 100, 99.9):.3g}%"


def bar(share: float, columns: int) -> str:
    """A bar of at most so many columns, to an eighth of one; anything at all shows.

    >>> bar(1.0, 4), bar(0.4, 4), bar(0.001, 4), bar(0.0, 4)
    ('████', '█▋', '▏', '')
    """
    eighths = max(ceil(share * columns * 8 - 1e-6), share > 0)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "call"), plural(2, "call")
    ('1 call', '2 calls')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def coverage_text(coverage: Mapping[str, Any]) -> str:
    """What an answer says about its own completeness, in a word or two."""
    if coverage["complete"]:
        return "complete"
    if coverage["limited"]:
        return "limit met"
    return f"{percent(min(coverage['fraction'], 0.999))}, gaps"


def read_seconds(text: str) -> float:
    """A duration with its unit, in seconds; raises UsageError.

    >>> read_seconds("20ms"), read_seconds("0.5 s")
    (0.02, 0.5)
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"a time is a number and a unit, got {text!r}; try 20ms, or 0.5s")
    return float(found[1]) * float(UNITS[found[2]].factor)


def read_period(text: str) -> float:
    """How long something is good, in seconds; raises UsageError.

    >>> read_period("1h"), read_period("90s"), read_period("7 d")
    (3600.0, 90.0, 604800.0)
    """
    found = _PERIOD.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"a period is a number and a unit, got {text!r}; try 30min, 12h or 7d")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86_400}[found[2]]


def read_setting(schema: Schema, text: str) -> tuple[str, Value]:
    """`name=value` of `--set`.

    >>> from dhtos.core.schema import default_schema
    >>> read_setting(default_schema(), "price=0.08")
    ('price', 0.08)
    """
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise UsageError(f"--set takes name=value, got {text!r}; try --set price=0.08")
    return name.strip(), read_value(schema.attribute(name.strip()), value)


def read_label(text: str) -> tuple[str, str]:
    """`key=value` of `--label`.

    >>> read_label("team=video")
    ('team', 'video')
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UsageError(f"--label takes key=value, got {text!r}; try --label team=video")
    return key.strip(), value.strip()
