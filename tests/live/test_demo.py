"""The demo in small: real processes, real datagrams, every answer compared with brute force."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SEED = 7
SECONDS_MAX = 60


def demo(*arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    print(f"seed {SEED}")
    done = subprocess.run(
        [sys.executable, "-m", "dhtos.cli.main", "demo", "--seed", str(SEED), *arguments],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS_MAX,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    if code is not None:
        assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        demo("--nodes", "40", "--group-size", "8", "--json").stdout
    )
    return document


def test_every_answer_is_what_brute_force_says(report: dict[str, Any]) -> None:
    assert report["right"]
    assert len(report["before"]) == 8
    assert len(report["after"]) == 7
    for answer in report["before"] + report["after"]:
        assert answer["faults"] == [], answer


def test_answers_come_over_the_network(report: dict[str, Any]) -> None:
    asked = [answer for answer in report["before"] if answer["refusal"] is None]
    assert all(answer["calls"] > 0 for answer in asked)
    assert all(answer["round_trips"] > 0 for answer in asked)
    assert max(answer["calls"] for answer in asked) > 1  # the groups have split


def test_the_typing_error_is_refused_with_the_word_that_was_meant(report: dict[str, Any]) -> None:
    (wrong,) = [answer for answer in report["before"] if answer["refusal"]]
    assert "coers" in wrong["refusal"]
    assert "cores" in wrong["refusal"]
    assert wrong["calls"] == 0


def test_a_sudden_death_costs_nothing_that_lives(report: dict[str, Any]) -> None:
    assert report["killed"] == 12
    for answer in report["after"]:
        if answer["limit"] is None:
            assert answer["matches"] - answer["stale"] == answer["true_matches"], answer


def test_an_open_fleet_answers_alike() -> None:
    document = json.loads(demo("--nodes", "12", "--group-size", "8", "--open", "--json").stdout)
    assert document["right"]
    assert len(document["before"]) == 8


def test_it_keeps_its_time(report: dict[str, Any]) -> None:
    assert report["seconds"]["all"] < SECONDS_MAX


def test_the_tables_read_well_without_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "fleet.csv"
    rows = [f"{2 ** (n % 6)},{n % 7 + 1}GiB,s{n % 3},x" for n in range(30)]
    path.write_text("\n".join(["nb_cores,ram,site,colour", *rows, "many,1GiB,s1,x"]))
    done = demo("--nodes", "12", "--data", str(path))
    lines = done.stdout.splitlines()
    assert lines[0].startswith("12 real nodes on this machine")
    assert "nb_cores as cores, ram as mem, site" in " ".join(done.stdout.split())
    assert "Columns left out: colour (no such attribute)." in lines
    assert "start nodes, join over UDP: 12 of 12" in lines
    assert (
        "fleet.csv line 32 is left out: column 'nb_cores': cores is a finite number" in done.stderr
    )
    heads = [line for line in lines if line.startswith("question ")]
    assert [head.split()[1:] for head in heads] == [
        ["matches", "true", "calls", "trips", "ms", "coverage", "right"],
        ["alive", "true", "dead", "calls", "trips", "ms", "coverage", "right"],
    ]
    assert lines[-1].startswith("15 of 15 answers are right. ")
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--nodes", "1"), "--nodes"),
        (("--data", "missing.csv"), "missing.csv"),
        (("--group-size", "3"), "--group-size"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], says: str) -> None:
    done = demo(*arguments, code=2)
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert done.stdout == ""
