"""A few placements over real UDP, with the figures that come of them."""

import asyncio
import contextlib

from bench.placement.live import GANG, fleet, measure


def test_placements_are_timed():
    with contextlib.ExitStack() as stack:
        seeds = fleet(stack, 3, 2)
        figures = asyncio.run(measure(seeds, 3, 20))
    assert 0 < figures["placement p50 ms"] <= figures["placement p99 ms"]
    assert 0 < figures[f"gang of {GANG} p50 ms"] <= figures[f"gang of {GANG} p95 ms"]
    assert figures["placements a second, 64 in flight"] > 0
