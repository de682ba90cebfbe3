"""Commands from a terminal: streams, signals and codes as our own, and every way to lose one."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import children, exists, family, wait_gone
from terminals import READY_S, Daemon, Shell, read_line

ENDED_S = 30.0
FOREVER = "echo $$; exec sleep 4250"


@pytest.fixture
def fleet(shell: Shell) -> Iterator[tuple[Shell, Daemon, Daemon]]:
    """A machine that runs nothing, and one of 64 cores that runs commands."""
    first = shell.daemon("--set", "cores=2", "--no-sample")
    told = ("--set", "cores=64", "--set", "mem=64GiB", "--no-sample")
    second = shell.daemon("--seed", first.endpoint, "--commands", *told)
    yield shell, first, second
    if second.process.poll() is None:
        deadline = time.monotonic() + ENDED_S
        while children(second.process.pid):
            assert time.monotonic() < deadline, "a supervisor outlives its command"


def place(daemon: Daemon, *options: str, script: str) -> list[str]:
    """The words of a placement through a daemon."""
    return [
        *("place", "--need", "cores=1", "--control", daemon.control),
        *options,
        *("--", "sh", "-c", script),
    ]


def begin(shell: Shell, *words: str) -> tuple[subprocess.Popen[str], int]:
    """A command that told its process id."""
    process = shell.spawn(*words)
    assert process.stdout is not None
    return process, int(read_line(process.stdout, READY_S))


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error."""
    _, errors = process.communicate(timeout=ENDED_S)
    return process.returncode, errors


def test_a_command_looks_as_if_it_ran_here(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    shell, first, second = fleet
    data = os.urandom(3_000_000)
    done = subprocess.run(
        shell.command(*place(first, "--env", "A=b", script="cat; echo $A >&2; exit 3")),
        env=shell.environment,
        input=data,
        capture_output=True,
        timeout=ENDED_S,
        check=False,
    )
    assert (done.returncode, done.stdout == data, done.stderr) == (3, True, b"b\n")
    seeded = ("place", "cores > 2", "--seed", first.endpoint, "--", "echo", "--need", "--")
    assert shell.run(*seeded).stdout == "--need --\n"
    rows = json.loads(shell.run("usage", "--control", second.control, "--json").stdout)["usage"]
    assert [(row["command"], row["returncode"]) for row in rows] == [("sh", 3), ("echo", 0)]
    table = shell.run("usage", "--control", second.control, "-n", "1").stdout.splitlines()
    assert table[0].split()[:3] == ["ended", "command", "exit"]
    assert len(table) == 2
    assert shell.run("usage", "--control", first.control).stdout == "no command has ended here\n"


def test_in_json_all_of_it_is_json(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    shell, first, second = fleet
    script = "echo out; echo err >&2; exit 9"
    done = shell.run(*place(first, "--json", script=script), code=9)
    lease, *streams, end = map(json.loads, done.stdout.splitlines())
    assert lease["node"] == second.facts["id"]
    assert {"stdout": "out\n"} in streams
    assert {"stderr": "err\n"} in streams
    assert end["returncode"] == 9
    assert set(end["usage"]) == {"user_s", "system_s", "memory_bytes", "wall_s"}
    assert done.stderr == ""


def test_exit_codes(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    shell, first, second = fleet
    ask = ("--control", first.control)
    shell.run(*place(first, script="kill -9 $$"), code=137)
    message, _ = shell.refused("place", *ask, "--", "no-such-program", code=127)
    assert message == (
        f"on {second.endpoint} 'no-such-program' cannot be started: No such file or directory"
    )
    shell.refused("place", *ask, "--", "/etc/passwd", code=126)
    message, hint = shell.refused("place", "cores == 2", *ask, "--", "true", code=3)
    assert message == "no machine can take it: 0 of 2 are what is asked for"
    message, _ = shell.refused("place", "coers == 2", *ask, "--", "true")
    assert message == "unknown attribute 'coers' at column 1"
    message, _ = shell.refused("place", *ask, "--env", "A=b")
    assert message == "--env is for a command"
    message, _ = shell.refused("place", *ask, "--")
    assert message == "-- stands before a command"
    second.stop()
    message, hint = shell.refused("place", *ask, "--", "true", code=3)
    assert message == "no machine of the fleet runs commands"
    assert hint == "start one with dhtos-node run --commands"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "8.8.8.8"])
def test_a_node_that_runs_commands_does_not_listen_everywhere(shell: Shell, host: str) -> None:
    message, hint = shell.refused("run", "--host", host, "--port", "0", "--commands")
    assert message == (
        f"commands are run for whoever reaches the port, and host {host} is open to more than a "
        "private network"
    )
    assert hint == "give --host a loopback or private address (command line)"


def test_signals_are_the_commands(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    shell, first, _ = fleet
    for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2"):
        number = signal.Signals["SIG" + name]
        script = f"trap 'exit 7' {name}; echo $$; while :; do sleep 0.02; done"
        handled, pid = begin(shell, *place(first, script=script))
        plain, other = begin(shell, *place(first, script=FOREVER))
        handled.send_signal(number)
        plain.send_signal(number)
        assert outcome(handled)[0] == 7
        assert outcome(plain) == (128 + number, "")
        wait_gone(pid, other)


def test_a_reader_that_leaves_ends_the_command(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    shell, first, _ = fleet
    process = shell.spawn(*place(first, script="yes"))
    assert process.stdout is not None
    assert read_line(process.stdout, READY_S) == "y\n"
    process.stdout.close()
    assert process.wait(ENDED_S) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    process.stderr.close()


def test_output_that_cannot_be_written_is_said(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    shell, first, _ = fleet
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            shell.command(*place(first, script="yes")),
            env=shell.environment,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=ENDED_S,
            check=False,
        )
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[0] == b"error: output cannot be written: No space left on device"
    )


@pytest.mark.parametrize("way", ["daemon", "seed"])
def test_a_killed_client_takes_its_command_along(
    fleet: tuple[Shell, Daemon, Daemon], way: str
) -> None:
    shell, first, second = fleet
    if way == "daemon":
        words = place(first, "--ttl", "2", script=FOREVER)
    else:
        options = ("--seed", first.endpoint, "--need", "cores=1", "--ttl", "2")
        words = ["place", *options, "--", "sh", "-c", FOREVER]
    process, pid = begin(shell, *words)
    process.kill()
    process.communicate(timeout=ENDED_S)
    wait_gone(pid)
    deadline = time.monotonic() + ENDED_S
    while json.loads(shell.run("leases", "--control", second.control, "--json").stdout)["leases"]:
        assert time.monotonic() < deadline, "the lease outlives its holder"


def test_a_client_that_hangs_loses_its_lease_and_its_command(
    fleet: tuple[Shell, Daemon, Daemon],
) -> None:
    shell, first, _ = fleet
    options = ("--seed", first.endpoint, "--need", "cores=1", "--ttl", "1")
    process, pid = begin(shell, "place", *options, "--", "sh", "-c", FOREVER)
    process.send_signal(signal.SIGSTOP)
    wait_gone(pid)
    process.send_signal(signal.SIGCONT)
    code, errors = outcome(process)
    assert code in (5, 128 + signal.SIGTERM), errors  # what it hears of first


def test_a_lease_that_is_taken_back_is_exit_code_5(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    shell, first, second = fleet
    process, pid = begin(shell, *place(first, script=FOREVER))
    shell.run("drain", "--revoke", "--control", second.control)
    code, errors = outcome(process)
    assert code == 5
    assert errors.splitlines() == [
        "error: the lease was lost: draining: takes no more work",
        "hint: stop what it covered",
    ]
    wait_gone(pid)


@pytest.mark.parametrize("way", ["--control", "--seed"])
def test_a_preempted_command_may_say_goodbye(shell: Shell, way: str) -> None:
    node = shell.daemon("--set", "cores=1", "--no-sample", "--commands")
    where = (way, node.control if way == "--control" else node.endpoint)
    script = "trap 'echo saved; exit 0' TERM; echo $$; while :; do sleep 0.02; done"
    words = ("place", "--need", "cores=1", *where)
    process, pid = begin(shell, *words, "--", "sh", "-c", script)
    done = shell.run(*words, "--priority", "5", "--preempt", "--", "echo", "mine")
    assert done.stdout == "mine\n"
    out, errors = process.communicate(timeout=ENDED_S)
    assert (process.returncode, out) == (5, "saved\n")
    assert "error: the lease was lost: preempted" in errors
    wait_gone(pid)


def test_a_killed_machine_takes_its_commands_along(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    """Also those that ignore being asked, and those that left their group; the client hears."""
    shell, first, second = fleet
    script = "trap '' TERM HUP; (setsid sleep 4251) & echo $$; while :; do sleep 0.02; done"
    process, pid = begin(shell, *place(first, script=script))
    everybody = family(second.process.pid)
    assert pid in everybody
    assert len(everybody) >= 3
    second.stop(signal.SIGKILL)
    code, errors = outcome(process)
    assert code == 5
    assert errors.splitlines()[0] == (
        f"error: {second.endpoint} went away before the command had ended, which ended with it"
    )
    wait_gone(*everybody)


def test_a_restarted_machine_begins_nothing_under_what_it_only_owes(shell: Shell) -> None:
    state = str(shell.home / "state")
    told = ("--set", "cores=4", "--no-sample", "--commands", "--state-dir", state)
    node = shell.daemon(*told)
    asking = ("--control", node.control, "--json")
    holder = shell.spawn("place", "--need", "cores=1", "--seed", node.endpoint, "--json")
    assert holder.stdout is not None
    lease = json.loads(read_line(holder.stdout, READY_S))
    port = node.endpoint.rpartition(":")[2]
    node.stop(signal.SIGKILL)
    again = shell.spawn("run", "--host", "127.0.0.1", "--port", port, *told)
    assert again.stdout is not None
    read_line(again.stdout, READY_S)
    listed = json.loads(shell.run("leases", *asking).stdout)["leases"]
    assert [(one["token"], one["fence"]) for one in listed] == [(lease["token"], lease["fence"])]
    script = (
        "import asyncio, sys; from dhtos.node.command_client import start; "
        "asyncio.run(start(sys.argv[1], sys.argv[2], int(sys.argv[3]), ['true']))"
    )
    words = [node.endpoint, lease["token"], str(lease["fence"])]
    command = [*shell.command()[:1], "-c", script, *words]
    tried = subprocess.run(
        command, env=shell.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "no lease of this start of the node has that token and fence" in tried.stderr
    assert shell.run("place", "--control", node.control, "--", "echo", "new").stdout == "new\n"
    for process in (holder, again):
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=ENDED_S)


def test_stopping_a_machine_stops_its_commands_first(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    shell, first, second = fleet
    process, pid = begin(shell, *place(first, script="pwd >&2; " + FOREVER))
    assert second.stop() == 0
    code, errors = outcome(process)
    assert code in (5, 128 + signal.SIGTERM)
    assert not exists(errors.splitlines()[0])
    wait_gone(pid)


def test_a_signal_before_it_runs_ends_the_placement(fleet: tuple[Shell, Daemon, Daemon]) -> None:
    """The only machine that could take it hangs, so it is still being placed."""
    shell, first, second = fleet
    second.process.send_signal(signal.SIGSTOP)
    process = shell.spawn(*place(first, script="true"))
    deadline = time.monotonic() + READY_S
    caught = 0
    while not caught & 1 << (signal.SIGUSR2 - 1):  # until it listens to signals
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    code, _ = outcome(process)
    second.process.send_signal(signal.SIGCONT)
    assert code == 128 + signal.SIGTERM
