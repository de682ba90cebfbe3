"""Every row of the report works, at a small size: the figures mean nothing here."""

import logging
from collections.abc import Iterator

import pytest
import rows


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Stock nodes log every silence."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", rows.QUICK)
def test_a_row_measures_both_sides(name: str) -> None:
    results = rows.QUICK[name]()
    assert results
    for row in results:
        assert min(row.ours) > 0
        assert row.theirs or not row.relative


def test_the_quick_report_has_the_rows_of_the_full_one() -> None:
    assert list(rows.QUICK) == list(rows.FULL)
