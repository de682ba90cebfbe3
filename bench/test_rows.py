"""Every row of the report works, at a small size: the figures mean nothing here."""

import pytest
import rows


@pytest.mark.parametrize(
    "measure",
    [
        lambda: rows.closest(2),
        lambda: rows.rpc(1, 0.1),
        lambda: rows.swarm(1, 12, 6),
        lambda: rows.daemon(0.5),
        lambda: rows.nodes(12),
        lambda: rows.simulator(60, 5.0),
    ],
    ids=["closest", "rpc", "swarm", "daemon", "nodes", "simulator"],
)
def test_a_row_measures_both_sides(measure):
    results = measure()
    assert results
    for row in results:
        assert row.reached > 0
        assert row.baseline is None or row.baseline > 0
