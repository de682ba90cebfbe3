"""The figures of engines, without the engines: how they are taken, and how they are told."""

import asyncio
import json

import pytest

from bench.placement.engines import (
    BEGIN,
    DOES,
    END,
    IN_FLIGHT,
    LEASE,
    PAGE,
    RESULTS,
    client_of,
    leased,
    paced,
    text,
    with_figures,
)


def test_leases_are_timed_alone_and_many_at_once():
    async def main():
        async with client_of(2) as client:
            return await paced(lambda: leased(client), 20)

    found = asyncio.run(main())
    assert found["p50_ms"] > 0
    assert found["rate"] > 0


def test_as_many_as_said_are_in_flight():
    now = most = done = 0

    async def work():
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        done += 1

    asyncio.run(paced(work, 200))
    assert most == IN_FLIGHT
    assert done == 200 + 20


def test_the_table_says_what_each_does():
    kinds = {name: {"p50_ms": [2.0, 1.0, 4.0], "rate": [100.0]} for name in DOES}
    results = {"words": "W.", "machines": 4, "count": 500, "rounds": 3, "kinds": kinds}
    table = text(results)
    assert table.startswith("W. 4 machines each, 500 placements in each of 3 rounds;")
    assert f"| {LEASE} | {DOES[LEASE]} | 2.00 (1.00 - 4.00) | 100 |" in table
    assert table.count("\n| ") == len(DOES) + 1


def test_figures_go_between_their_marks_only():
    page = f"a\n{BEGIN}\nold\n{END}\nb\n"
    assert with_figures(page, "new") == f"a\n{BEGIN}\nnew\n{END}\nb\n"
    with pytest.raises(AssertionError, match="no mark"):
        with_figures("a", "new")


def test_the_page_shows_what_was_measured():
    results = json.loads(RESULTS.read_text())
    assert text(results) in PAGE.read_text()
    assert set(results["kinds"]) == set(DOES)
