"""Placing from a terminal: what is shown, what is kept, and which exit code says what."""

import json
import signal
import time

from terminals import READY_S, Daemon, Shell, read_line

ENDED_S = 30.0


def fleet(shell: Shell) -> tuple[Daemon, Daemon]:
    first = shell.daemon("--set", "cores=2", "--label", "name=small")
    second = shell.daemon("--seed", first.endpoint, "--set", "cores=64", "--set", "mem=1TiB")
    return first, second


def grants(shell: Shell, daemon: Daemon) -> list[dict[str, object]]:
    told = json.loads(shell.run("leases", "--control", daemon.control, "--json").stdout)
    leases: list[dict[str, object]] = told["leases"]
    return leases


def test_a_lease_lasts_as_long_as_the_command(shell: Shell) -> None:
    first, second = fleet(shell)
    holder = shell.spawn(
        "place", "cores > 2", "--need", "cores=3", "--control", first.control, "--json"
    )
    assert holder.stdout is not None
    lease = json.loads(read_line(holder.stdout, READY_S))
    assert lease["node"] == second.facts["id"]
    assert lease["resources"] == {"cores": 3}
    (grant,) = grants(shell, second)
    assert (grant["token"], grant["state"], grant["fence"]) == (
        lease["token"], "bound", lease["fence"],
    )  # fmt: skip
    listed = shell.run("leases", "--control", second.control).stdout
    assert lease["token"] in listed
    assert "cores 3" in listed
    holder.send_signal(signal.SIGINT)
    assert holder.wait(READY_S) == 0
    holder.stdout.close()
    assert holder.stderr is not None
    assert holder.stderr.read() == ""
    holder.stderr.close()
    ends_with_nothing(shell, second)


def ends_with_nothing(shell: Shell, daemon: Daemon) -> None:
    deadline = time.monotonic() + ENDED_S
    while grants(shell, daemon):
        assert time.monotonic() < deadline, "a lease is still held"
    assert shell.run("leases", "--control", daemon.control).stdout == "nothing is granted\n"


def test_a_killed_holder_gives_back_and_a_killed_machine_is_a_lost_lease(shell: Shell) -> None:
    first, second = fleet(shell)
    asking = ("--need", "cores=1", "--ttl", "2", "--seed", first.endpoint, "--json")
    holder = shell.spawn("place", "cores == 64", *asking)
    other = shell.spawn("place", "cores == 64", *asking)
    for process in (holder, other):
        assert process.stdout is not None
        assert json.loads(read_line(process.stdout, READY_S))["node"] == second.facts["id"]
    assert len(grants(shell, second)) == 2
    holder.kill()
    holder.communicate(timeout=READY_S)
    deadline = time.monotonic() + ENDED_S
    while len(grants(shell, second)) != 1:
        assert time.monotonic() < deadline, "the lease of a dead holder is still held"
    second.stop(signal.SIGKILL)
    _, said = other.communicate(timeout=ENDED_S)
    assert other.returncode == 5
    assert said.splitlines() == [
        "error: the lease was lost: its node has not answered for a whole term",
        "hint: stop what it covered",
    ]


def test_plans_and_reasons(shell: Shell) -> None:
    first, second = fleet(shell)
    ask = ("--control", first.control)
    planned = shell.run("plan", "--need", "cores=2,mem=512MiB", "--prefer", "spread", *ask).stdout
    assert planned.splitlines()[0].split()[:4] == ["id", "endpoint", "cores_free", "mem_free"]
    assert {line.split()[0] for line in planned.splitlines()[1:]} == {
        first.facts["id"], second.facts["id"],
    }  # fmt: skip
    told = json.loads(shell.run("plan", "--need", "cores=3", "--json", *ask).stdout)
    assert [choice["id"] for choice in told["choices"]] == [second.facts["id"]]
    assert told["coverage"]["complete"] is True
    why = shell.run("explain", "--need", "cores=3", "--need", "mem=2TiB", *ask).stdout
    assert [line.split()[-1] for line in why.splitlines()[1:]] == ["2", "2", "1", "2", "0"]
    shell.run("plan", "--need", "cores=65", *ask, code=3)
    message, hint = shell.refused("place", "--need", "cores=65", *ask, code=3)
    assert message == "no machine can take it: 2 of 2 are what is asked for, ruled out by cores (2)"
    assert hint == "ask for less; dhtos-node explain says what is short"


def test_a_drained_machine_takes_nothing(shell: Shell) -> None:
    first, second = fleet(shell)
    there, ask = ("--control", second.control), ("--control", first.control)
    assert shell.run("drain", *there).stdout == "this machine takes no more work; 0 leases left\n"
    said = shell.run("leases", *there)
    assert said.stderr == "draining: this machine grants nothing more\n"
    message, _ = shell.refused("place", "cores == 64", "--need", "cores=1", *ask, code=4)
    assert message == "no machine that can take it has granted it: draining (3)"
    assert json.loads(shell.run("undrain", *there, "--json").stdout) == {
        "draining": False, "leases": 0,
    }  # fmt: skip


def test_what_is_no_need(shell: Shell) -> None:
    first = shell.daemon("--set", "cores=2")
    ask = ("--control", first.control)
    for need, expected in (
        ("core=1", ("unknown resource 'core'", "did you mean 'cores'?")),
        ("cores", ("--need must be NAME=AMOUNT,... as cores=4,mem=8GiB, got 'cores'", None)),
        ("cores=", ("--need must be NAME=AMOUNT,... as cores=4,mem=8GiB, got 'cores='", None)),
        ("cores=1,cores=2", ("--need names cores twice", "give it once")),
        (
            "mem=8Gib",
            ("mem takes TiB, GiB, MiB, KiB, TB, GB, MB, kB, B, got 'Gib'", "did you mean GiB?"),
        ),
        ("cores=0", ("cores must be a number above 0, got 0", None)),
    ):
        message, hint = shell.refused("plan", "--need", need, *ask)
        assert message == expected[0]
        assert expected[1] in (None, hint)
    told = shell.refused("leases", "--seed", first.endpoint)
    assert told == ("only the node of this machine can do that", "leave out --seed")
    told = shell.refused("leases", "--revoke", "abc", *ask)
    assert told == ("no lease has the token 'abc'", "see `leases`")
