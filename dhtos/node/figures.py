"""What all matches say together, as its user holds it: sums and histograms with their coverage."""

from dataclasses import dataclass
from typing import Self

from dhtos.core.coverage import Coverage
from dhtos.protocol.frontier import FindResult


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Figures of one number attribute over all machines that match.

    `count` machines match, `present` of them have the attribute, and the other figures are of
    those. The sum is whole where all values are and it is below 2**63; it is 0, and the others
    None, where no match has the attribute.
    """

    attribute: str
    count: int
    present: int
    sum: int | float
    minimum: int | float | None
    maximum: int | float | None
    coverage: Coverage

    @property
    def mean(self) -> float | None:
        """The sum divided among those that have the attribute."""
        return self.sum / self.present if self.present else None

    @classmethod
    def of(cls, attribute: str, result: FindResult) -> Self:
        """The figures at the end of a question."""
        found = result.partial
        assert found is not None
        figures = (found.sum, found.minimum, found.maximum)
        return cls(attribute, result.matches, found.present, *figures, result.coverage)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many machines that match lie where on one number attribute.

    `counts` has one figure more than `edges`: `counts[0]` is below the first edge, `counts[i]` from
    edge i-1 up to, and without, edge i, the last one from the last edge on. `missing` matches do
    not have the attribute.
    """

    attribute: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    coverage: Coverage

    @property
    def count(self) -> int:
        """How many machines match."""
        return sum(self.counts) + self.missing

    @classmethod
    def of(cls, attribute: str, edges: tuple[float, ...], result: FindResult) -> Self:
        """The counts at the end of a question."""
        found = result.partial
        assert found is not None
        missing = result.matches - found.present
        return cls(attribute, edges, found.counts, missing, result.coverage)
