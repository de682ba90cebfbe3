"""A walk as people read it: one line for each request, indented under the answer that led to it."""

from collections.abc import Iterator
from textwrap import shorten

from dhtos.cli.asking import Plain
from dhtos.cli.wording import milliseconds, plural, value_text
from dhtos.core.schema import Schema

COLUMNS = 100
_BITS_SHOWN = 28  # of a prefix; what its parents share is left out first
_LEVELS_SHOWN = 8  # that are indented


def walk_lines(steps: list[Plain], schema: Schema) -> Iterator[str]:
    """The walk as a table of at most 100 columns, a line of meaning under each subtree.

    The columns: when it was asked and how long the answer took, in milliseconds; how many matches
    were expected, and how many came; whom; which subtree.
    """
    yield f"{'at ms':>7} {'ms':>6} {'expect':>7} {'hits':>5}  {'asked':<21}  subtree"
    levels: list[int] = []
    for number, step in enumerate(steps):
        parent = _parent(steps, number)
        levels.append(0 if parent is None else levels[parent] + 1)
        indent = 2 * min(levels[-1], _LEVELS_SHOWN)
        above = "" if parent is None else steps[parent]["prefix"]
        expected = "-" if step["asked"] is None else f"{step['expected']:.1f}"
        hits = str(step["hits"]) if step["covers"] is not None else "-"
        yield (
            f"{milliseconds(step['start_s']):>7} {milliseconds(step['took_s']):>6} {expected:>7} "
            f"{hits:>5}  {(step['asked'] or 'own view'):<21}  "
            f"{' ' * indent}{_bits(step['prefix'], above)}"
        )
        for text in (meaning_text(schema, step["means"]), _told(step)):
            if text:
                yield " " * (10 + indent) + shorten(text, COLUMNS - 10 - indent, placeholder=" ...")


def _parent(steps: list[Plain], number: int) -> int | None:
    """The latest step before that named the subtree of this one, or answered for it."""
    prefix = steps[number]["prefix"]
    for before in range(number - 1, -1, -1):
        step = steps[before]
        named = any(found == prefix for found, _ in step["found"])
        if named or (step["covers"] == prefix and _goes_on(steps[number])):
            return before
    return None


def _goes_on(step: Plain) -> bool:
    return bool(step["voice"] > 1 or step["page"])


def _bits(prefix: str, above: str) -> str:
    """The bits of a prefix, those of its parent left out where it is long."""
    if not prefix:
        return "everything"
    if len(prefix) <= _BITS_SHOWN:
        return prefix
    shown = prefix.removeprefix(above)
    return ".." + (shown or prefix)[-_BITS_SHOWN:]


def meaning_text(schema: Schema, means: Plain) -> str:
    """What machines below a prefix have in common.

    >>> from dhtos.core.schema import default_schema
    >>> meaning_text(default_schema(), {"cores": [8, 16], "gpus": None, "site": ["1 in 4"]})
    'cores 8..16, no gpus, site 1 in 4'
    """
    parts = []
    for name, told in means.items():
        attribute = schema.attribute(name) if name in schema else None
        if told is None:
            parts.append(f"no {name}")
        elif attribute is None or attribute.kind != "number":
            parts.append(f"{name} {' '.join(map(str, told))}")
        else:
            low, high = ("" if end is None else value_text(attribute, float(end)) for end in told)
            parts.append(f"{name} {low}..{high}")
    return ", ".join(parts)


def _told(step: Plain) -> str:
    """What became of it, beside the hits."""
    parts = []
    if step["voice"] > 1:
        parts.append(f"member {step['voice']} for the same")
    if step["page"]:
        parts.append("next page")
    if step["hedge"]:
        parts.append("because the one before is late")
    if step["bound"] is not None:
        parts.append(f"best possible {step['bound']:.4g}")
    if step["outcome"] != "answered":
        return "; ".join([*parts, step["outcome"]])
    if step["late"]:
        parts.append("late")
    if step["covers"] != step["prefix"]:
        parts.append(f"covers {len(step['covers'])} bits")
    if step["matches"] > step["hits"]:
        parts.append(f"{step['matches']} match")
    if step["found"]:
        parts.append(f"{plural(len(step['found']), 'subtree')} to ask")
    if step["cut"]:
        parts.append(f"{len(step['cut'])} ruled out by key")
    if step["pruned"]:
        parts.append(f"{step['pruned']} by summary")
    return "; ".join(parts)
