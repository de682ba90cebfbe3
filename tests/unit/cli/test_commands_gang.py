"""`gang` and `replicas` at a terminal: what is asked, what is shown, which exit code says what."""

import json
from typing import Any

from dhtos.errors import ClaimsRefused, LeaseLost, NoCandidates

NEED = {"resources": {"cores": 2, "mem": 2**30}, "where": "gpus >= 1", "prefer": "pack"}
WORDS = ("gpus >= 1", "--need", "cores=2,mem=1GiB")


def test_a_gang_is_asked_for_in_the_words_of_the_node(shell: Any, fleet: Any) -> None:
    shell.run("gang", *WORDS, "--size", "2")
    shell.run(
        "gang", *WORDS, "--size", "3", "--spread", "site = 2", "--ttl", "5", "--deadline", "7"
    )
    assert fleet.asked == [
        ("gang", NEED | {"priority": 0}, {"size": 2, "ttl_s": 30.0, "deadline_s": 30.0}),
        (
            "gang",
            NEED | {"priority": 0},
            {"size": 3, "ttl_s": 5.0, "deadline_s": 7.0, "spread": {"site": 2}},
        ),
    ]


def test_a_gang_is_one_table_or_a_line_each(shell: Any, fleet: Any, plain: Any) -> None:
    head, *rows = shell.run("gang", *WORDS, "--size", "2").splitlines()
    assert head.split() == ["node", "endpoint", "holds", "token", "fence"]
    assert [row.split("  ")[0] for row in rows] == ["0" * 40, "lab-1"]
    assert rows[1].split()[-4:] == ["mem", "1GiB", f"{1:032x}", "8"]
    lines = shell.run("gang", *WORDS, "--size", "2", "--json").splitlines()
    assert [json.loads(line) for line in lines] == [plain.lease(0), plain.lease(1, "lab-1")]


def test_what_is_no_gang(shell: Any, fleet: Any) -> None:
    for spread in ("site", "site=", "=2", "site=0", "site=-1", "site=two", "site=1=2"):
        message, _ = shell.refused("gang", *WORDS, "--size", "2", "--spread", spread)
        assert message == f"--spread must be NAME=N as site=2, got {spread!r}"
    for size in ("0", "257", "two"):
        message, _ = shell.refused("gang", *WORDS, "--size", size)
        assert message.startswith("invalid value for '--size'")
    message, _ = shell.refused("gang", *WORDS)
    assert message == "missing option '--size'"
    assert fleet.asked == []


def test_the_exit_code_of_a_gang(shell: Any, fleet: Any) -> None:
    for error, code in (
        (NoCandidates("nobody"), 3),
        (ClaimsRefused("only 1 of 2"), 4),
        (LeaseLost("gone"), 5),
    ):
        fleet.error = error
        message, _ = shell.refused("gang", *WORDS, "--size", "2", code=code)
        assert message == str(error)


def changes(plain: Any) -> list[dict[str, Any]]:
    told = [
        ("granted", plain.lease(1, "lab-1"), "", 1),
        ("granted", plain.lease(2), "", 2),
        ("lost", plain.lease(1, "lab-1"), "the lease was lost: revoked", 1),
        ("waiting", None, "nobody can take it", 1),
        ("released", plain.lease(2), "", 0),
    ]
    return [
        {"what": what, "lease": lease, "reason": reason, "alive": alive, "count": 2}
        for what, lease, reason, alive in told
    ]


def test_a_line_for_each_change(shell: Any, fleet: Any, plain: Any) -> None:
    fleet.changes = changes(plain)
    assert shell.run("replicas", *WORDS, "--count", "2").splitlines() == [
        f"granted   1 of 2  lab-1  10.0.0.1:7400  token {1:032x}  fence 8",
        f"granted   2 of 2  {2:040x}  10.0.0.2:7400  token {2:032x}  fence 9",
        "lost      1 of 2  lab-1  10.0.0.1:7400  the lease was lost: revoked",
        "waiting   1 of 2  nobody can take it",
        f"released  0 of 2  {2:040x}  10.0.0.2:7400",
    ]
    lines = shell.run("replicas", *WORDS, "--count", "2", "--json").splitlines()
    assert [json.loads(line) for line in lines] == changes(plain)


def test_replicas_are_asked_for_in_the_words_of_the_node(shell: Any, fleet: Any) -> None:
    asked = {"count": 2, "ttl_s": 30.0, "deadline_s": None}
    shell.run("replicas", *WORDS, "--count", "2")
    shell.run("replicas", *WORDS, "--count", "2", "--spread", "site")
    shell.run("replicas", *WORDS, "--count", "2", "--spread", "site=1", "--deadline", "9")
    assert [question[2] for question in fleet.asked] == [
        asked,
        asked | {"spread": "site"},
        asked | {"spread": {"site": 1}, "deadline_s": 9.0},
    ]
    assert fleet.asked[0][:2] == ("replicas", NEED | {"priority": 0})


def test_replicas_that_do_not_come_up_in_time(shell: Any, fleet: Any, plain: Any) -> None:
    fleet.changes = changes(plain)[:1]
    for error, code in ((NoCandidates("1 of 2 are"), 3), (ClaimsRefused("1 of 2 are"), 4)):
        fleet.lost = error
        out = shell.run("replicas", *WORDS, "--count", "2", "--deadline", "1", code=code)
        assert out.startswith("granted   1 of 2")
        assert shell.err.startswith("error: 1 of 2 are\n")


def test_what_are_no_replicas(shell: Any, fleet: Any) -> None:
    message, _ = shell.refused("replicas", *WORDS, "--count", "2", "--spread", "site=x")
    assert message == "--spread must be NAME=N as site=2, got 'site=x'"
    for count in ("0", "257"):
        message, _ = shell.refused("replicas", *WORDS, "--count", count)
        assert message.startswith("invalid value for '--count'")
    message, _ = shell.refused("replicas", *WORDS, "--count", "2", "--deadline", "0")
    assert message.startswith("invalid value for '--deadline'")
    assert fleet.asked == []
