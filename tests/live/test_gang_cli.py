"""Gangs and replicas from a terminal: machines die, commands are stopped, all is given back."""

import json
import signal
import subprocess
import threading
import time

from terminals import READY_S, Daemon, Shell

ENDED_S = 30.0


def fleet(shell: Shell, count: int) -> list[Daemon]:
    """Machines of two cores, each at a site of its own."""
    machines = [shell.daemon("--no-sample", "--set", "cores=2", "--set", "site=s0")]
    for number in range(1, count):
        machines.append(
            shell.daemon(
                "--no-sample", "--set", "cores=2", "--set", f"site=s{number}",
                "--seed", machines[0].endpoint,
            )
        )  # fmt: skip
    known(shell, machines[0], count)
    return machines


def known(shell: Shell, machine: Daemon, count: int) -> None:
    """Wait until this one has heard of all."""
    deadline = time.monotonic() + ENDED_S
    while shell.run("count", "cores == 2", "--control", machine.control).stdout != f"{count}\n":
        assert time.monotonic() < deadline


def tokens(shell: Shell, machines: list[Daemon]) -> set[str]:
    """What all of them have granted."""
    found: set[str] = set()
    for machine in machines:
        told = json.loads(shell.run("leases", "--control", machine.control, "--json").stdout)
        found |= {lease["token"] for lease in told["leases"]}
    return found


def free(shell: Shell, machines: list[Daemon]) -> None:
    deadline = time.monotonic() + ENDED_S
    while left := tokens(shell, machines):
        assert time.monotonic() < deadline, left


def told(process: "subprocess.Popen[str]") -> dict[str, object]:
    """The next line; several may come in one piece, so that a selector would see only the first."""
    assert process.stdout is not None
    patience = threading.Timer(READY_S, process.kill)
    patience.start()
    try:
        line: dict[str, object] = json.loads(process.stdout.readline())
    finally:
        patience.cancel()
    return line


def stop(process: "subprocess.Popen[str]") -> None:
    """Ctrl-C ends it well."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=READY_S)
    assert (process.returncode, said) == (0, "")


def test_a_gang_lasts_as_long_as_the_command_or_its_first_member(shell: Shell) -> None:
    machines = fleet(shell, 3)
    for whom in (("--control", machines[0].control), ("--seed", machines[0].endpoint)):
        asked = ("--need", "cores=1", "--size", "3", "--spread", "site=1", "--json", *whom)
        holder = shell.spawn("gang", "cores == 2", *asked)
        leases = [told(holder) for _ in range(3)]
        assert {lease["node"] for lease in leases} == {one.facts["id"] for one in machines}
        assert tokens(shell, machines) == {lease["token"] for lease in leases}
        stop(holder)
        free(shell, machines)
    ask = ("--control", machines[0].control)
    message, _ = shell.refused("gang", "--need", "cores=3", "--size", "2", *ask, code=3)
    assert message.startswith("no machine can take it")
    over = ("--need", "cores=1", "--size", "7", "--deadline", "1")
    message, _ = shell.refused("gang", *over, *ask, code=4)
    assert message.startswith("only 6 of 7 were granted in time")
    free(shell, machines)
    holder = shell.spawn("gang", "--need", "cores=2", "--size", "3", "--ttl", "2", "--json", *ask)
    for _ in range(3):
        told(holder)
    machines[2].stop(signal.SIGKILL)
    _, said = holder.communicate(timeout=ENDED_S)
    assert holder.returncode == 5
    assert said.splitlines()[0] == (
        "error: the lease was lost: its node has not answered for a whole term"
    )
    free(shell, machines[:2])


def test_a_killed_machine_is_replaced_by_another(shell: Shell) -> None:
    machines = fleet(shell, 4)
    by_id = {machine.facts["id"]: machine for machine in machines}
    asked = ("--need", "cores=2", "--count", "2", "--spread", "site", "--ttl", "2", "--json")
    for whom in ("--control", machines[0].control), ("--seed", machines[0].endpoint):
        holder = shell.spawn("replicas", "site != 's0'", *asked, *whom)
        granted = [told(holder) for _ in range(2)]
        assert [(one["what"], one["alive"]) for one in granted] == [("granted", 1), ("granted", 2)]
        nodes = [one["lease"]["node"] for one in granted]  # type: ignore[index]
        assert len(set(nodes)) == 2
        by_id[nodes[0]].stop(signal.SIGKILL)
        lost, new = told(holder), told(holder)
        assert (lost["what"], lost["alive"]) == ("lost", 1)
        assert lost["lease"]["token"] == granted[0]["lease"]["token"]  # type: ignore[index]
        assert lost["reason"] == "the lease was lost: its node has not answered for a whole term"
        assert (new["what"], new["alive"]) == ("granted", 2)
        assert new["lease"]["node"] not in nodes  # type: ignore[index]
        stop(holder)
        alive = [machine for machine in machines if machine.process.poll() is None]
        free(shell, alive)
        machines.append(
            shell.daemon(
                "--no-sample", "--set", "cores=2", "--set", "site=new",
                "--seed", machines[0].endpoint,
            )
        )  # fmt: skip
        by_id[machines[-1].facts["id"]] = machines[-1]


def test_replicas_that_nobody_can_take_say_why_and_come_up_later(shell: Shell) -> None:
    machines = fleet(shell, 1)
    ask = ("--control", machines[0].control)
    asked = ("replicas", "--need", "cores=2", "--count", "2", *ask)
    done = shell.run(*asked, "--deadline", "1", code=3)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("granted   1 of 2  ")
    assert lines[1].startswith("waiting   1 of 2  no machine ")
    assert done.stderr.startswith("error: 1 of 2 replicas are alive: no machine ")
    free(shell, machines)
    holder = shell.spawn(*asked, "--json")
    assert told(holder)["what"] == "granted"
    assert told(holder)["what"] == "waiting"
    machines.append(shell.daemon("--no-sample", "--set", "cores=2", "--seed", machines[0].endpoint))
    changes: list[dict[str, object]] = []
    while not changes or changes[-1]["what"] != "granted":
        changes.append(told(holder))
    assert changes[-1]["lease"]["node"] == machines[1].facts["id"]  # type: ignore[index]
    holder.kill()
    holder.communicate(timeout=READY_S)
    free(shell, machines)  # who is killed gives back, too: its daemon does
