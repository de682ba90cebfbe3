"""The churn bench at a small size: its sessions, its questions, its truth and its books."""

import json
import lzma
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import fmean, median

import pytest

from bench import arrivals, churn
from bench.arrivals import SCHEMA, Sessions
from bench.churn import Answered, Ledger, Setting, World

SMALL = Setting(nodes=24, hours=0.02, group=16, mean_minutes=2.0, per_minute=60.0, seed=3)


# --- sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "median_share"), [("weibull", 0.31), ("exponential", 0.69)])
def test_sessions_have_the_mean_that_was_asked_for(kind: str, median_share: float) -> None:
    sessions = Sessions(kind, 1800.0, Random(1))
    drawn = [sessions.draw() for _ in range(20_000)]
    assert fmean(drawn) == pytest.approx(1800.0, rel=0.05)
    assert median(drawn) == pytest.approx(median_share * 1800.0, rel=0.1)


def test_the_rest_of_an_exponential_session_is_as_long_as_a_whole_one() -> None:
    rests = Sessions("exponential", 100.0, Random(2)).rests(5000)
    assert fmean(rests) == pytest.approx(100.0, rel=0.1)


def test_long_sessions_are_met_more_often_than_they_are_drawn() -> None:
    sessions = Sessions("weibull", 100.0, Random(2))
    assert fmean(sessions.rests(5000)) > 150.0


def trace(folder: Path) -> Path:
    path = folder / "some.avt.xz"
    lines = ["a 2 0 100 200 260", "b 1 50 90", "c 1 7 7", "d 0"]
    path.write_bytes(lzma.compress("\n".join(lines).encode()))
    return path


def test_a_trace_gives_its_own_sessions(tmp_path: Path) -> None:
    path = trace(tmp_path)
    assert sorted(arrivals.trace_sessions(path)) == [40.0, 60.0, 100.0]
    sessions = Sessions("skype", 1.0, Random(1), path)
    assert {sessions.draw() for _ in range(100)} == {40.0, 60.0, 100.0}


def test_without_the_trace_the_option_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no trace at"):
        Sessions("skype", 1.0, Random(1), tmp_path / "absent.avt.xz")


# --- questions ------------------------------------------------------------------------------------


def test_questions_match_the_share_that_was_asked_for() -> None:
    found = arrivals.predicates()
    fresh = arrivals.machines(Random(5))
    records = [
        arrivals.record(next(fresh), n.to_bytes(20), ("10.0.0.1", 1), 1)  # as the world makes them
        for n in range(1000)
    ]
    for share, predicates in found.items():
        assert len(predicates) == arrivals.PREDICATES
        matched = [sum(map(p.bind(SCHEMA).matches, records)) / 1000 for p in predicates]
        assert share / 3 < fmean(matched) < share * 3


# --- figures --------------------------------------------------------------------------------------


def answered(found: int, wanted: int, claimed: float = 1.0, *, limited: bool = False) -> Answered:
    return Answered("all at 10.0%", wanted, found, found, 0, claimed, limited, 2, 1)


def test_who_claims_more_than_it_found_is_counted() -> None:
    assert not answered(10, 10).overclaimed
    assert answered(9, 10).overclaimed
    assert not answered(9, 10, 0.9).overclaimed
    assert not answered(9, 10, limited=True).overclaimed
    assert answered(0, 0).recall == 1.0


def test_sums_are_over_matches_and_over_answers() -> None:
    figures = Ledger([answered(1, 2), answered(8, 8), answered(0, 0)], begun=4).figures()
    assert figures["recall of matches"] == 0.9
    assert figures["recall of answers"] == 0.75, "of answers to which something matched"
    assert figures["answers that missed"] == pytest.approx(1 / 3)
    assert (figures["queries"], figures["asker died"]) == (3, 1)
    assert list(figures["kinds"]) == ["all at 10.0%"]


def test_a_setting_is_named_in_full() -> None:
    assert all(f"{name}=" in SMALL.name for name in asdict(SMALL))


# --- the world ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> World:
    return churn.measure(SMALL)


def test_machines_come_and_go_and_their_number_stays(world: World) -> None:
    assert sum(world.ends.values()) > 5
    assert len(world.alive) == SMALL.nodes
    assert set(world.alive) == set(world.cluster.up())
    assert len(world.cluster.nodes) >= SMALL.nodes + sum(world.ends.values())


def test_every_answer_is_judged(world: World) -> None:
    figures = world.figures()
    assert figures["queries"] + figures["asker died"] == world.ledger.begun == 72
    assert set(figures["kinds"]) == {
        f"{what} at {share}" for what in ("all", "limit 20") for share in ("10.0%", "1.0%", "0.1%")
    }
    assert figures["recall of matches"] > 0.98
    assert figures["bytes/s per node"] == pytest.approx(
        sum(figures["bytes/s per node by call"].values())
    )


def test_one_setting_gives_one_run(world: World) -> None:
    again = churn.measure(SMALL)
    assert again.cluster.trace.digest == world.cluster.trace.digest
    assert again.ledger == world.ledger


def test_an_interrupted_run_has_the_figures_of_the_hours_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = World.ask

    def interrupted(world: World, number: int) -> None:
        if number == 30:
            raise KeyboardInterrupt
        ask(world, number)

    monkeypatch.setattr(World, "ask", interrupted)
    world = churn.measure(SMALL)
    assert world.setting.hours == pytest.approx(31 / 3600, abs=0.005)
    assert world.figures()["queries"] + world.figures()["asker died"] == 30


def test_changes_are_told() -> None:
    changing = churn.measure(Setting(nodes=12, hours=0.01, change_s=5.0, sessions="exponential"))
    quiet = churn.measure(Setting(nodes=12, hours=0.01, sessions="exponential"))
    assert max(node.engine.hub.own.seq for node in changing.alive) > 10
    rates = [w.figures()["bytes/s per node by call"]["dh_gossip"] for w in (changing, quiet)]
    assert rates[0] > rates[1] + 20


def test_sudden_deaths_are_no_reason_to_overclaim() -> None:
    world = churn.after_deaths(SMALL, 0.25, queries=60)
    assert len(world.alive) == 18
    figures = world.ledger.figures()
    assert figures["queries"] == 60
    assert figures["recall of matches"] == 1.0
    assert figures["overclaimed"] == 0.0


def test_figures_are_kept_beside_those_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(churn, "RESULTS", tmp_path / "churn.json")
    churn.save("one", {"recall": 1.0})
    churn.save("two", {"recall": 0.5})
    churn.save("one", {"recall": 0.9})
    held = json.loads(churn.RESULTS.read_text(encoding="utf-8"))
    assert held == {"one": {"recall": 0.9}, "two": {"recall": 0.5}}
    assert churn.table({"a": 1.5, "b": {"c": 2}}).splitlines() == [
        f"{'a':<28}{1.5:>12.6g}",
        "b:",
        f"    {'c':<28}{2:>12.6g}",
    ]
