"""A map of machines: places that round trips have given them, drawn on the plane they fill most.

Needs matplotlib, which the extra `plot` brings; imported when a map is drawn, and without a
display. Places have more dimensions than paper: the plane is that of the two main directions
(principal component analysis), and how much of the spread lies in it is told.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dhtos.cli.wording import percent, plural, value_text
from dhtos.core.scale import Log2, Log2p1
from dhtos.core.schema import Attribute, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

INK, SOFT, PALE, PAPER, MARK = "#1f2933", "#52606d", "#9aa5b1", "#ffffff", "#d6303f"
CATEGORIES = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#8c6bb1",
    "#b8a800",
)
"""After Okabe and Ito: told apart by the colour-blind, too."""
SCALE = "viridis"  # perceptually uniform
_DOT, _DOT_HEIGHT, _DOT_MAX = 18.0, 4.5, 220.0  # area in points^2: of height 0, a ms more, at most
_RINGS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LOOK: Mapping[str, Any] = {"linewidths": 0.6, "edgecolors": PAPER, "alpha": 0.88}
_HEIGHTS_MS = (1.0, 5.0, 20.0)


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of a map: its position, its height, the value that colours it."""

    position: tuple[float, ...]
    height_s: float
    value: Value | None = None
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Colouring:
    """What colours mean: an attribute, or the round trip from the node."""

    title: str
    attribute: Attribute | None = None

    def text(self, value: float) -> str:
        """A value of the colour bar."""
        if self.attribute is None:
            return f"{1000 * value:.3g}"
        return value_text(self.attribute, value)

    @property
    def is_number(self) -> bool:
        """Whether a scale of colours fits, rather than one for each value."""
        return self.attribute is None or self.attribute.kind == "number"

    @property
    def is_log(self) -> bool:
        """Whether values double rather than grow."""
        return self.attribute is not None and isinstance(self.attribute.scale, Log2 | Log2p1)


def flatten(positions: Sequence[Sequence[float]]) -> tuple[Floats, float]:
    """Positions on the plane of their two main directions, and the share of the spread in it.

    >>> flat, share = flatten([(0.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 1.0)])
    >>> flat.shape, round(share, 3)
    ((3, 2), 1.0)
    """
    table = np.array(positions, dtype=float)
    table -= table.mean(axis=0)
    _, sizes, directions = np.linalg.svd(table, full_matrices=False)
    plane = directions[:2]
    # The sign of a direction is arbitrary: the same fleet shall give the same map.
    plane = plane * np.sign(plane[np.arange(len(plane)), np.abs(plane).argmax(axis=1)])[:, None]
    flat = np.zeros((len(table), 2))
    flat[:, : len(plane)] = table @ plane.T
    spread = float((sizes**2).sum())
    return flat, float((sizes[:2] ** 2).sum()) / spread if spread else 1.0


def draw(machines: Sequence[Machine], colouring: Colouring, path: Path) -> float:
    """Write a map to a PNG or SVG file; returns the share of the spread that it shows.

    Raises ModuleNotFoundError without matplotlib, OSError where the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    flat, share = flatten([machine.position for machine in machines])
    style = {"font.family": "sans-serif", "font.size": 9.5, "svg.hashsalt": "dhtos",
             "svg.fonttype": "none", "text.color": INK, "axes.labelcolor": INK}  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(8.6, 7.0), facecolor=PAPER, layout="constrained")
        axes = figure.add_subplot()
        _frame(axes, flat * 1000)
        _dots(figure, axes, machines, flat * 1000, colouring)
        _own(axes, machines, flat * 1000)
        dimensions = len(machines[0].position)
        told = f"{percent(share)} of the spread of {dimensions} dimensions"
        axes.set_title(
            f"{plural(len(machines), 'machine')} by round trip", loc="left", pad=24, size=14,
            weight="bold",
        )  # fmt: skip
        axes.text(
            0, 1.015, f"a distance is a round trip in ms; the plane shows {told}",
            transform=axes.transAxes, color=SOFT, va="bottom",
        )  # fmt: skip
        # A date would make the same map another file.
        kind = path.suffix.removeprefix(".").lower()
        figure.savefig(
            path, dpi=160, format=kind, bbox_inches="tight", pad_inches=0.25,
            metadata={"Date": None} if kind == "svg" else {},
        )  # fmt: skip
    return share


def _frame(axes: "Axes", flat_ms: Floats) -> None:
    """Equal axes in milliseconds, square, with some air around the machines."""
    middle = (flat_ms.min(axis=0) + flat_ms.max(axis=0)) / 2
    reach = max(float((flat_ms.max(axis=0) - flat_ms.min(axis=0)).max()) / 2 * 1.12, 0.05)
    axes.set_aspect("equal")
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)
    axes.set_xlabel("ms")
    axes.set_ylabel("ms")
    axes.grid(color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors="#7b8794")
    for side in axes.spines.values():
        side.set_visible(False)


def _dots(
    figure: "Figure", axes: "Axes", machines: Sequence[Machine], flat_ms: Floats, by: Colouring
) -> None:
    heights_ms = np.array([1000 * machine.height_s for machine in machines])
    areas = _areas(heights_ms)
    # Small ones on top of large ones.
    order = np.argsort(-areas, kind="stable")
    values = [machines[i].value for i in order]
    known = np.array([value is not None for value in values], dtype=bool)
    points, sizes = flat_ms[order], areas[order]
    if not known.all():
        axes.scatter(*points[~known].T, s=sizes[~known], c="#cbd2d9", **_LOOK)
    if by.is_number:
        if known.any():
            numbers = np.array([value for value in values if value is not None], dtype=float)
            _scaled(figure, axes, points[known], sizes[known], numbers, by=by)
        handles = [] if known.all() else [_handle("#cbd2d9", "not told")]
    else:
        told = [str(value).lower() if isinstance(value, bool) else value for value in values]
        handles = _by_category(axes, points, sizes, told)
    if handles:
        first = axes.legend(
            handles=handles, title=by.title, loc="upper left", bbox_to_anchor=(1.01, 1.0),
            frameon=False, alignment="left",
        )  # fmt: skip
        axes.add_artist(first)
        first.set_clip_on(False)  # it stands beside the axes
    shown = [ms for ms in _HEIGHTS_MS if ms <= 1.5 * heights_ms.max()] or [_HEIGHTS_MS[0]]
    sized = [_handle(PALE, f"{ms:g} ms", float(_areas(np.array([ms]))[0]) ** 0.5) for ms in shown]
    axes.legend(
        handles=sized, title="access delay (height)", loc="upper left", bbox_to_anchor=(0.0, -0.07),
        frameon=False, ncols=len(sized), alignment="left", borderpad=0, columnspacing=2.2,
    )  # fmt: skip


def _areas(heights_ms: Floats) -> Floats:
    areas: Floats = np.minimum(_DOT + _DOT_HEIGHT * heights_ms, _DOT_MAX)
    return areas


def _scaled(
    figure: "Figure", axes: "Axes", points: Floats, sizes: Floats, numbers: Floats, *, by: Colouring
) -> None:  # fmt: skip
    from matplotlib.colors import LogNorm, Normalize

    low, high = float(numbers.min()), float(numbers.max())
    logarithmic = by.is_log and low > 0 and high > 2 * low
    kind = LogNorm if logarithmic else Normalize
    drawn = axes.scatter(
        *points.T, s=sizes, c=numbers, cmap=SCALE, norm=kind(low, high if high > low else low + 1),
        **_LOOK,
    )  # fmt: skip
    bar = figure.colorbar(drawn, ax=axes, shrink=0.72, pad=0.02, aspect=32)
    ticks = powers(low, high) if logarithmic else bar.get_ticks().tolist()
    ticks = [tick for tick in ticks if low <= tick <= high] or [low]
    bar.set_ticks(ticks, labels=[by.text(tick) for tick in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(length=0, labelcolor=SOFT)
    bar.set_label(by.title)
    bar.outline.set_visible(False)


def powers(low: float, high: float) -> list[float]:
    """Powers of two between two numbers, at most nine of them.

    >>> powers(3, 40)
    [4.0, 8.0, 16.0, 32.0]
    """
    first, last = ceil(log2(low)), int(log2(high))
    step = max(ceil((last - first + 1) / 9), 1)
    return [2.0**n for n in range(first, last + 1, step)]


def _by_category(axes: "Axes", points: Floats, sizes: Floats, values: Sequence[Any]) -> list[Any]:
    """Dots in a colour for each value, the most frequent first; the handles of a legend."""
    counts = Counter(value for value in values if value is not None)
    named = [value for value, _ in counts.most_common()]
    shown = named if len(named) <= len(CATEGORIES) else named[: len(CATEGORIES) - 1]
    colours = dict(zip(shown, CATEGORIES, strict=False))
    handles = []
    for value in shown:
        chosen = np.array([one == value for one in values])
        axes.scatter(*points[chosen].T, s=sizes[chosen], c=colours[value], **_LOOK)
        handles.append(_handle(colours[value], f"{value}  ({counts[value]})"))
    rest = np.array([one is not None and one not in colours for one in values])
    if rest.any():
        axes.scatter(*points[rest].T, s=sizes[rest], c=PALE, **_LOOK)
        handles.append(_handle(PALE, f"{len(named) - len(shown)} others  ({int(rest.sum())})"))
    if len(values) > counts.total():
        handles.append(_handle("#cbd2d9", f"not told  ({len(values) - counts.total()})"))
    return handles


def _handle(colour: str, label: str, size: float = 7.0) -> Any:  # noqa: ANN401 - an artist
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], linestyle="", marker="o", markersize=size, color=colour, label=label,
        markeredgecolor=PAPER,
    )  # fmt: skip


def _own(axes: "Axes", machines: Sequence[Machine], flat_ms: Floats) -> None:
    """Mark this node, with faint rings of equal round trip around it."""
    from matplotlib.patches import Circle

    own = next((i for i, machine in enumerate(machines) if machine.is_own), None)
    if own is None:
        return
    x, y = flat_ms[own]
    reach = abs(axes.get_xlim()[1] - axes.get_xlim()[0])
    for radius in [1000 * ring for ring in _RINGS_S if 0.08 < 1000 * ring / reach < 0.75]:
        ring = Circle((x, y), radius, fill=False, color=PALE, lw=0.8, ls=(0, (4, 4)), zorder=0.9)
        axes.add_patch(ring)
        axes.annotate(
            f"{radius:g} ms", (x, y + radius), color="#7b8794", size=8, ha="center", va="center",
            annotation_clip=True, bbox={"boxstyle": "round,pad=0.2", "fc": PAPER, "ec": "none"},
            zorder=0.95,
        )  # fmt: skip
    axes.scatter([x], [y], s=230, facecolors="none", edgecolors=MARK, linewidths=2.0, zorder=5)
    axes.annotate(
        "this node", (x, y), xytext=(0, 12), textcoords="offset points", weight="bold", ha="center",
        color=MARK,
        zorder=6, bbox={"boxstyle": "round,pad=0.15", "fc": PAPER, "ec": "none", "alpha": 0.75},
    )  # fmt: skip
