"""A small, seeded run of the search benchmark, with exact expectations on messages."""

from random import Random

import pytest

from bench.search import fleets, measure, page, questions
from bench.search.crowd import Crowd

NODES, GROUP = 600, 48


@pytest.fixture(scope="module")
def crowd():
    return Crowd(fleets.make("fleet", NODES, 1), GROUP, 1)


@pytest.fixture(scope="module")
def asked(crowd):
    return measure.asked_of(crowd.fleet, 10, 1)


def test_questions_match_what_they_should(crowd, asked):
    for share, asks in asked.items():
        for ask in asks:
            assert share / 2 <= len(ask.true) / NODES <= share * 2
            bound = ask.predicate.bind(crowd.fleet.schema)
            records = list(crowd.own.values())
            assert {n for n, r in enumerate(records) if bound.matches(r)} == ask.true


@pytest.mark.parametrize("name", ["fleet", "uniform", "cloud"])
def test_boxes_of_ranks_say_the_same_as_predicates(name):
    fleet = fleets.make(name, 300, 2)
    points = fleet.points()
    for ask in questions.make(fleet, 0.1, 10, Random(3)):
        low, high = ask.box(fleet)
        inside = ((points >= low) & (points <= high)).all(axis=1)
        assert frozenset(inside.nonzero()[0].tolist()) == ask.true


@pytest.mark.parametrize(("share", "limit"), [(0.1, 0), (0.1, 20), (0.01, 0), (0.01, 20)])
def test_the_engine_finds_exactly_what_matches(crowd, asked, share, limit):
    cell = measure.ours(crowd, asked[share], share, limit)
    assert cell.recall == 1.0
    assert cell.rpc < len(measure.groups(crowd))


def test_one_seed_costs_the_same_messages_every_time():
    """The figures of the page follow from the seed alone."""

    def run():
        crowd = Crowd(fleets.make("fleet", 300, 5), 32, 5)
        asks = measure.asked_of(crowd.fleet, 10, 5)[0.1]
        return [measure.ours(crowd, asks, 0.1, limit).plain() for limit in measure.LIMITS]

    assert run() == run()


def test_what_stands_in_the_page_was_once_measured_so():
    """Changes of these figures are changes of the protocol: look at them, then write them down."""
    crowd = Crowd(fleets.make("fleet", NODES, 1), GROUP, 1)
    asked = measure.asked_of(crowd.fleet, 10, 1)
    cells = [measure.ours(crowd, asked[s], s, n) for s in (0.1, 0.01) for n in measure.LIMITS]
    assert [round(cell.rpc, 1) for cell in cells] == EXPECTED_RPC


EXPECTED_RPC = [4.7, 12.5, 7.3, 7.3]


def test_the_cheapest_are_exactly_the_cheapest(crowd, asked):
    rpc, rtt, exact = measure.cheapest(crowd, asked[0.1])
    assert exact == 1.0
    assert 1 <= rtt <= rpc


def test_sleepers_that_were_forgotten_answer_as_before(crowd, asked, monkeypatch):
    monkeypatch.setattr("bench.search.crowd._AWAKE_MAX", 2)
    for ask in asked[0.1]:
        assert crowd.ask(ask).hits == ask.true
    assert len(crowd._awake) <= 3


def test_the_dead_are_missed_and_said_to_be():
    crowd = Crowd(fleets.make("fleet", NODES, 7), GROUP, 7)
    asks = measure.asked_of(crowd.fleet, 15, 7)[0.1]
    crowd.kill(0.3)
    found = measure.honesty(crowd, asks)
    assert found.recall == 1.0
    assert found.overstated == 0.0


def test_every_record_is_in_one_group(crowd):
    sizes = [len(crowd.truth.places(prefix)) for prefix in measure.groups(crowd)]
    assert sum(sizes) == NODES
    assert max(sizes) <= GROUP


def test_summaries_allow_for_no_fewer_groups_than_have_matches(crowd, asked):
    for asks in asked.values():
        least, allowed = measure.groups_asked(crowd, asks)
        assert 1 <= least <= allowed <= len(measure.groups(crowd))


def test_the_page_says_what_was_measured(crowd, asked, tmp_path):
    cells = [measure.ours(crowd, asked[s], s, n) for s in asked for n in measure.LIMITS]
    cells += measure.rivals(crowd.fleet, asked, 1)
    size = {
        "nodes": NODES,
        "groups": {0.1: (3.0, 4.0), 0.01: (2.0, 2.5)},
        "cheapest": {0.1: (4.0, 2.0, 1.0)},
        "attributes": 1.0,
        "balance": {"stored_mean": 30.0, "stored_over_mean": 1.2, "hottest_share": 0.004},
        "dead": {"recall": 1.0, "overstated": 0.0},
        "cells": [cell.plain() for cell in cells],
    }
    results = {"group": GROUP, "questions": 10, "seconds": 1, "sizes": [size], "fleets": []}
    written = page.text(results)
    assert f"| {NODES} | first 20, 10 % match | {page.figure(cells[0].rpc)} |" in written
    assert all(cell.design in written for cell in cells)
    assert f"| {page.figure(cells[2].rpc)} | {page.figure(cells[3].rpc)} |" in page.short(results)
    page.plot(results, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"rpc-by-nodes.svg", "rpc-by-share.svg"}


def test_a_block_replaces_what_stood_between_its_marks():
    before = "a <!-- search: begin -->\nold\n<!-- search: end --> b"
    after = page.between_marks(before, "search", "new")
    assert after == "a <!-- search: begin -->\nnew\n<!-- search: end --> b"
    assert page.between_marks(after, "search", "new") == after
    with pytest.raises(AssertionError, match="no mark"):
        page.between_marks("nothing", "search", "new")
