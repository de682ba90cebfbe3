"""Counters and sizes in the text form that Prometheus reads."""

import re
from collections.abc import Mapping

MEDIA_TYPE = "text/plain; version=0.0.4"
_UNFIT = re.compile(r"[^a-zA-Z0-9_]")


def exposition(stats: Mapping[str, float]) -> str:
    """One untyped sample for each figure; what no name may contain becomes an underscore.

    >>> print(exposition({"http_requests_200": 3}), end="")
    # TYPE dhtos_http_requests_200 untyped
    dhtos_http_requests_200 3
    """
    lines = []
    for name, figure in sorted(stats.items()):
        fit = "dhtos_" + _UNFIT.sub("_", name)
        lines.append(f"# TYPE {fit} untyped\n{fit} {_number(figure)}\n")
    return "".join(lines)


def _number(figure: float) -> str:
    return str(figure) if isinstance(figure, int) else f"{figure:.17g}"
