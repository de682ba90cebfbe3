"""`rtt`, `closest` and `central` with a fake fleet behind them."""

import json
from typing import Any

import pytest

from dhtos.errors import UsageError


def test_a_round_trip_says_how_it_is_known(shell: Any, fleet: Any) -> None:
    assert shell.run("rtt", "n1") == "12.3 ms, measured\n"
    assert shell.run("rtt", "n1", "n2") == "12.3 ms, predicted, give or take 8%\n"
    assert shell.json("rtt", "n1", "n2") == {
        "a": "n1", "b": "n2", "rtt_s": 0.0123, "measured": False, "error": 0.08,
    }  # fmt: skip
    assert fleet.asked == [("rtt", "n1", "self"), *[("rtt", "n1", "n2")] * 2]
    fleet.error = UsageError("no machine is named 'n9': give its id")
    assert shell.refused("rtt", "n9") == ("no machine is named 'n9'", "give its id")


def test_the_closest_are_shown_with_how_far_they_are(shell: Any, fleet: Any) -> None:
    fleet.machines[0]["labels"] = {"name": "n1"}
    fleet.machines[1]["gateway"] = True
    text = shell.run("closest", "cores >= 8", "-k", "2", "--probes", "4")
    assert fleet.asked == [("closest", 2, "cores >= 8", 4)]
    head, first, second = text.splitlines()
    assert head.split() == ["id", "name", "endpoint", "rtt", "ms", "how", "known"]
    assert first.split() == [f"{1:040x}", "n1", "10.0.0.1:7400", "1.0", "measured"]
    assert second.split() == [f"{2:040x}", "-", "via", "10.0.0.2:7400", "2.0", "predicted"]
    lines = shell.run("closest", "--json").splitlines()
    assert [json.loads(line) for line in lines] == fleet.machines
    assert fleet.asked[-1] == ("closest", 5, "true", 8)


def test_within_takes_a_time_with_its_unit(shell: Any, fleet: Any) -> None:
    shell.run("closest", "--within", "20ms")
    shell.run("closest", "--within", "0.5s", "-k", "3", "cores > 1")
    assert fleet.asked == [("within", 0.02, "true", 0, 8), ("within", 0.5, "cores > 1", 3, 8)]
    for wrong in ("20", "ms", "-1ms", "20 parsecs", ""):
        error, hint = shell.refused("closest", f"--within={wrong}")
        assert error == f"a time is a number and a unit, got {wrong!r}"
        assert hint == "try 20ms, or 0.5s"
    assert len(fleet.asked) == 2


def test_nobody_near_is_code_three(shell: Any, fleet: Any) -> None:
    fleet.machines = []
    error, hint = shell.refused("closest", "cores > 99", code=3)
    assert error == "no other machine matches 'cores > 99'"
    assert hint == "try a wider question"
    error, _ = shell.refused("closest", "--within", "1ms", "--json", code=3)
    assert error == "no other machine matches 'true' within 1ms"
    error, _ = shell.refused("central", "n1", code=3)
    assert error == "no other machine matches 'true'"


def test_central_shows_every_leg(shell: Any, fleet: Any) -> None:
    text = shell.run("central", "n1", "self", "--where", "cores >= 8", "-k", "2", "--probes", "3")
    assert fleet.asked == [("central", ("n1", "self"), 2, "cores >= 8", 3)]
    head, first, _ = text.splitlines()
    names = ["id", "name", "endpoint", "worst", "ms", "mean", "ms", "n1", "ms", "self", "ms"]
    assert head.split() == names
    assert first.split()[3:] == ["30.0", "25.0", "20.0", "30.0"]
    lines = shell.run("central", "n1", "--json").splitlines()
    assert [json.loads(line)["worst_s"] for line in lines] == [0.03, 0.03]
    assert shell.run("central", *"abcdef").splitlines()[0].split()[-8:] == [
        "a", "ms", "b", "ms", "c", "ms", "d", "ms",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("closest", "-k", "0"), "0 is not in the range"),
        (("closest", "-k", "257"), "257 is not in the range"),
        (("closest", "--probes", "0"), "0 is not in the range"),
        (("central",), "missing argument 'OTHERS...'"),
        (("central", *["n1"] * 65), "central takes 1..64 others, got 65"),
        (("rtt",), "missing argument 'A'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    shell: Any, fleet: Any, arguments: tuple[str, ...], says: str
) -> None:
    error, hint = shell.refused(*arguments)
    assert says in error
    assert hint
    assert fleet.asked == []
