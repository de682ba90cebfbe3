"""Predicates as people write them: text, `F` expressions and label selectors."""

from dhtos.query.door import parse, parse_order, parse_selector
from dhtos.query.expr import Expr, F, Field
from dhtos.query.leaf import CoordinateOf
from dhtos.query.render import explain
from dhtos.query.text import parse_text
from dhtos.query.units import GB, MB, TB, GiB, KiB, MiB, TiB, kB, ms, us

__all__ = [
    "CoordinateOf",
    "Expr",
    "F",
    "Field",
    "explain",
    "parse",
    "parse_order",
    "parse_selector",
    "parse_text",
    "GB",
    "GiB",
    "KiB",
    "MB",
    "MiB",
    "TB",
    "TiB",
    "kB",
    "ms",
    "us",
]
