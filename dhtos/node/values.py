"""Values as people write them into a file or on a command line: `32GiB`, `yes`, `x86_64`."""

import re

from dhtos.core.schema import Attribute, Value
from dhtos.errors import UsageError
from dhtos.query.units import UNITS, in_base, nearest, words

_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z%/]*)")


def read_value(attribute: Attribute, text: str) -> Value:
    """The value a person wrote for an attribute, with or without a unit.

    Raises UsageError naming the attribute.

    >>> from dhtos.core.schema import default_schema
    >>> read_value(default_schema().attribute("mem"), "32 GiB")
    34359738368
    """
    text = text.strip()
    if attribute.kind == "text":
        return attribute.check(text)
    if attribute.kind == "bool":
        words_of = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        return attribute.check(words_of.get(text.casefold(), text))
    found = _NUMBER.fullmatch(text)
    if found is None:
        return attribute.check(text)
    number = float(found[1]) if re.search(r"[.eE]", found[1]) else int(found[1])
    if not found[2]:
        return attribute.check(number)
    unit = UNITS.get(found[2])
    if unit is None or unit.base != attribute.unit:
        known = words(attribute.unit)
        near = nearest(found[2], known)
        hint = f"; did you mean {near}?" if near else ""
        takes = f"takes {', '.join(known)}" if known else "takes no unit"
        raise UsageError(f"{attribute.name} {takes}, got {found[2]!r}{hint}")
    return attribute.check(in_base(number, unit))
