"""Round-trip times between places, as published data sets give them: milliseconds, with holes.

Nothing is shipped: load your own measurements, from rows or from tab-separated text. A hole is
NaN, a negative number, an empty cell, or a zero off the diagonal (the convention of PlanetLab
and King matrices). It is filled with the time measured the other way round, else with the best
two-hop route over measured links, which is an upper bound that routing would find, else with the
median of all that was measured.
"""

from collections.abc import Callable, Sequence
from math import isfinite
from statistics import median

from dhtos.errors import ConfigError

_HOLES = frozenset({"", "-", "nan", "NaN", "NA", "null", "None"})
LOCAL_RTT_S = 0.0002  # two machines of one place, as in one data centre
PLACES_MAX = 4096


class LatencyMatrix:
    """One-way delays between places, symmetric where only one direction was measured."""

    __slots__ = ("one_way_s",)

    def __init__(self, one_way_s: list[list[float]]) -> None:
        size = len(one_way_s)
        assert size > 0
        assert all(len(row) == size for row in one_way_s)
        assert all(isfinite(delay) and delay > 0 for row in one_way_s for delay in row)
        self.one_way_s = one_way_s

    @classmethod
    def constant(cls, one_way_s: float) -> "LatencyMatrix":
        """One place: every two nodes are equally far."""
        if not (isfinite(one_way_s) and one_way_s > 0):
            raise ConfigError(f"a delay must be a positive number of seconds, got {one_way_s}")
        return cls([[one_way_s]])

    @classmethod
    def from_rows(
        cls, rtt_ms: Sequence[Sequence[float | None]], *, local_rtt_s: float = LOCAL_RTT_S
    ) -> "LatencyMatrix":
        """From a square table of round trips in milliseconds; raises ConfigError.

        >>> matrix = LatencyMatrix.from_rows([[0, 20, None], [20, 0, 30], [None, None, 0]])
        >>> round(matrix.rtt_s(0, 2), 3), round(matrix.rtt_s(2, 1), 3)
        (0.05, 0.03)
        """
        size = len(rtt_ms)
        if not 1 <= size <= PLACES_MAX:
            raise ConfigError(f"a latency matrix has 1..{PLACES_MAX} rows, got {size}")
        for number, row in enumerate(rtt_ms):
            if len(row) != size:
                raise ConfigError(f"row {number} must have {size} cells, got {len(row)}")
        halves = [[_half_s(cell) for cell in row] for row in rtt_ms]
        for place in range(size):
            halves[place][place] = local_rtt_s / 2
        return cls(_filled(halves))

    @classmethod
    def from_tsv(cls, text: str, *, local_rtt_s: float = LOCAL_RTT_S) -> "LatencyMatrix":
        """From lines of tab-separated milliseconds; raises ConfigError naming line and column."""
        lines = [
            (number, line.split("\t"))
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip() and not line.startswith("#")
        ]
        rows = []
        for number, cells in lines:
            if len(cells) == len(lines) + 1 and not cells[-1].strip():
                cells.pop()  # a tab ends the line
            rows.append([_cell(cell, number, column) for column, cell in enumerate(cells, 1)])
        return cls.from_rows(rows, local_rtt_s=local_rtt_s)

    @property
    def size(self) -> int:
        """How many places there are."""
        return len(self.one_way_s)

    def rtt_s(self, a: int, b: int) -> float:
        """The round trip between two places."""
        return self.one_way_s[a][b] + self.one_way_s[b][a]

    def as_delay(self) -> Callable[[int, int], float]:
        """A delay function of two places."""
        rows = self.one_way_s
        return lambda source, target: rows[source][target]


def _cell(text: str, line: int, column: int) -> float | None:
    text = text.strip()
    if text in _HOLES:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(
            f"line {line}, column {column}: expected milliseconds, got {text!r}"
        ) from error


def _half_s(rtt_ms: float | None) -> float:
    """The one-way delay, or zero for a hole."""
    if rtt_ms is None or not isfinite(rtt_ms) or rtt_ms <= 0:
        return 0.0
    return rtt_ms / 2000


def _filled(halves: list[list[float]]) -> list[list[float]]:
    size = len(halves)
    mirrored = [
        [halves[a][b] or halves[b][a] for b in range(size)] for a in range(size)
    ]  # fmt: skip
    measured = [mirrored[a][b] for a in range(size) for b in range(size) if a != b]
    known = [delay for delay in measured if delay]
    if measured and not known:
        raise ConfigError("a latency matrix needs at least one measured pair of places")
    fallback = median(known) if known else 0.0
    return [
        [mirrored[a][b] or _two_hops(mirrored, a, b) or fallback for b in range(size)]
        for a in range(size)
    ]


def _two_hops(rows: list[list[float]], a: int, b: int) -> float:
    """The best measured route over one other place, or zero."""
    routes = [
        first + second
        for via, (first, second) in enumerate(zip(rows[a], rows[b], strict=True))
        if via not in (a, b) and first and second
    ]
    return min(routes, default=0.0)
