"""Sums and histograms as their user holds them."""

from dataclasses import FrozenInstanceError

import pytest

from dhtos.core.coverage import Coverage
from dhtos.node.figures import Aggregate, Histogram
from dhtos.node.plain import aggregate_to_plain, histogram_to_plain
from dhtos.protocol.aggregate import Partial
from dhtos.protocol.frontier import FindResult

COVERAGE = Coverage(1.0, True, False, (), 2.0, 1, 1)


def result(matches: int, partial: Partial) -> FindResult:
    return FindResult((), COVERAGE, matches, None, (), partial)


def test_an_aggregate_knows_its_mean() -> None:
    found = Aggregate.of("cores", result(5, Partial(18, 2, 8, (4,))))
    assert found == Aggregate("cores", 5, 4, 18, 2, 8, COVERAGE)
    assert found.mean == 4.5
    plain = aggregate_to_plain(found)
    assert (plain["count"], plain["present"], plain["mean"]) == (5, 4, 4.5)
    assert plain["coverage"]["complete"] is True


def test_nobody_has_no_mean() -> None:
    found = Aggregate.of("cores", result(3, Partial(0, None, None, (0,))))
    assert (found.count, found.present, found.mean) == (3, 0, None)
    assert aggregate_to_plain(found)["mean"] is None


def test_the_mean_of_the_largest_numbers_is_a_number() -> None:
    largest = 1.7976931348623157e308
    assert Aggregate.of("x", result(2, Partial(largest, 1, largest, (2,)))).mean == largest / 2


def test_a_histogram_counts_everybody() -> None:
    found = Histogram.of("cores", (4, 16), result(9, Partial(40, 2, 20, (3, 0, 4))))
    assert found == Histogram("cores", (4, 16), (3, 0, 4), 2, COVERAGE)
    assert found.count == 9
    plain = histogram_to_plain(found)
    assert (plain["edges"], plain["counts"]) == ([4, 16], [3, 0, 4])
    assert (plain["missing"], plain["count"]) == (2, 9)


def test_figures_cannot_be_changed() -> None:
    found = Histogram("cores", (4,), (1, 2), 0, COVERAGE)
    with pytest.raises(FrozenInstanceError):
        found.missing = 1  # type: ignore[misc]
    assert hash(found) == hash(Histogram("cores", (4,), (1, 2), 0, COVERAGE))
