"""At the control socket: the kernel says who somebody is, the cluster what that one may."""

import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest
from terminals import READY_S, Daemon, Shell, read_line
from test_enrolling import first_node
from test_trust_cli import World

from dhtos.core.limits import CONTROL_PER_USER_MAX
from dhtos.errors import ConfigError
from dhtos.node.control import ControlClient

UID = 1  # of a user that every machine has, under one name or another

# Imports nothing that another user could not read, and is that user before it connects.
CLIENT = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    with sock.makefile("rw") as lines:
        for line in sys.stdin:
            lines.write(line)
            lines.flush()
            while answer := lines.readline():
                print(answer, end="", flush=True)
                if '"item"' not in answer:
                    break
        sock.shutdown(socket.SHUT_WR)
        for answer in lines:
            print(answer, end="", flush=True)
"""

root_only = pytest.mark.skipif(
    os.geteuid() != 0 or not sys.platform.startswith("linux"),
    reason="only root of Linux can be two users",
)


class Machine(World):
    """A cluster of one whose control socket all users of the machine can reach."""

    def __init__(self, shell: Shell) -> None:
        shell.home.chmod(0o711)
        (shell.home / "run").mkdir(mode=0o755)
        self.control = str(shell.home / "run" / "control.sock")
        shell.environment["DHTOS_CONTROL_USERS"] = "true"
        super().__init__(shell)
        del shell.environment["DHTOS_CONTROL_USERS"]
        self.name = pwd.getpwuid(UID).pw_name

    def up(self, *options: str, name: str = "first") -> tuple[Daemon, str]:
        return super().up("--control", self.control, *options, name=name)

    def connect(self, uid: int = UID) -> subprocess.Popen[str]:
        """A program of another user, which says on each line what it wants to ask."""
        return subprocess.Popen(
            [sys.executable, "-c", CLIENT, self.control, str(uid)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, op: str, *, uid: int = UID, **args: object) -> dict[str, object]:
        """The last line of an answer to another user."""
        with self.connect(uid) as process:
            line = json.dumps({"op": op, "args": args}) + "\n"
            told, _ = process.communicate(line, timeout=READY_S)
        return json.loads(told.splitlines()[-1])

    def admit(self, *options: str) -> None:
        told = ("user", "add", self.name, "--control", self.control, "--json", *options)
        token = str(json.loads(self.shell.run(*told).stdout)["token"])
        self.shell.run("join", token, "--state-dir", self.place(token[-12:]))

    def asked(self, op: str, wanted: str, **args: object) -> dict[str, object]:
        """The answer as soon as it has this key."""
        deadline = time.monotonic() + READY_S
        while wanted not in (told := self.ask(op, **args)):
            assert time.monotonic() < deadline, told
        return told


@pytest.fixture
def machine(shell: Shell) -> Machine:
    return Machine(shell)


def refusal(told: dict[str, object]) -> str:
    error = told["error"]
    assert isinstance(error, dict)
    assert error["code"] == "Refused"
    return str(error["message"])


@root_only
def test_who_is_logged_in_asks_as_the_user_of_that_name(machine: Machine) -> None:
    assert Path(machine.control).stat().st_mode & 0o777 == 0o666
    name = machine.name
    assert refusal(machine.ask("count")) == (
        f"{name} is no user of this cluster: use dhtos-node user add {name}"
    )
    machine.admit("--group", "lab")
    assert machine.asked("count", "end")["end"]["count"] == 1
    me = machine.ask("whoami")["end"]
    assert (me["kind"], me["name"], me["groups"]) == ("user", name, ["lab"])
    assert me["through"] == me["chain"][0]
    for op in ("put", "advertise", "config", "invite", "revoke_member", "drain", "secret_put"):
        assert refusal(machine.ask(op)).startswith(f"{op} is for the owner of this node")
    assert machine.ask("nonsense")["error"]["code"] == "UsageError"
    owner = json.loads(machine.shell.run("whoami", "--control", machine.control, "--json").stdout)
    assert owner["kind"] == "issuer"


@root_only
def test_it_may_what_its_certificate_says(machine: Machine) -> None:
    machine.admit("--cap", "query", "--cap", "claim:gpu")
    machine.asked("count", "end")
    told = refusal(machine.ask("place", need={"resources": {"cores": 1}}))
    assert told.startswith(f"{machine.name} may not claim but on machines of gpu: use dhtos-node")
    assert "end" in machine.ask("find", query="cores >= 1")


@root_only
def test_who_is_put_out_is_out_in_the_middle_of_an_answer(machine: Machine) -> None:
    machine.admit()
    machine.asked("count", "end")
    holding = machine.connect()
    assert holding.stdin is not None
    assert holding.stdout is not None
    asked = {"op": "place", "args": {"need": {"resources": {"cores": 1}}, "ttl_s": 30.0}}
    holding.stdin.write(json.dumps(asked) + "\n")
    holding.stdin.flush()
    assert "item" in json.loads(read_line(holding.stdout, READY_S))
    machine.shell.run("revoke", machine.name, "--control", machine.control)
    told = json.loads(read_line(holding.stdout, READY_S))
    assert refusal(told).startswith(f"{machine.name} is no user of this cluster")
    holding.stdin.close()
    assert holding.wait(READY_S) == 0  # the node has closed the connection
    holding.stdout.close()
    assert refusal(machine.ask("count"))
    leases = machine.shell.run("leases", "--control", machine.control, "--json").stdout
    assert machine.name not in leases
    assert json.loads(leases or "{}").get("leases", []) == []


@root_only
def test_one_user_has_so_many_connections_and_the_owner_others(machine: Machine) -> None:
    crowd = [machine.connect() for _ in range(CONTROL_PER_USER_MAX)]
    try:
        for one in crowd:
            assert one.stdin is not None
            assert one.stdout is not None
            one.stdin.write('{"op": "members"}\n')
            one.stdin.flush()
            assert "error" in read_line(one.stdout, READY_S)
        assert machine.count("first", "--control", machine.control) == 1
    finally:
        for one in crowd:
            one.kill()
            one.communicate()


@root_only
def test_who_has_no_name_here_is_nobody(machine: Machine) -> None:
    overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
    for uid in (overflow, 54_321):
        assert refusal(machine.ask("count", uid=uid)).startswith(f"uid {uid} is no user")


def test_the_owner_is_known_on_every_loop(run, shell):
    """One that is not root is told from others by the uid; root may all anyway."""
    shell.home.chmod(0o711)
    path = shell.home / "run" / "control.sock"  # the node makes the directory

    async def main():
        told = {"control": True, "control_users": True, "control_path": path}
        async with first_node(shell.home / "first", **told) as node, ControlClient(path) as client:
            assert (await client.call("whoami"))["name"] == "first"
            assert (await client.call("put", key="k", value=1))["stored_on"] == 1
            assert (await client.call("config"))["control_users"] is True
            assert node.membership is not None
        assert path.parent.stat().st_mode & 0o777 == 0o755

    run(main)


def test_a_socket_that_others_cannot_reach(shell: Shell) -> None:
    shell.home.chmod(0o700)
    shell.environment["DHTOS_CONTROL_USERS"] = "true"
    place = ("--state-dir", str(shell.home / "a"), "--host", "127.0.0.1", "--port", "0")
    message, hint = shell.refused("up", "--no-sample", *place)
    assert message.startswith("control_users: others cannot enter")
    assert hint.startswith("use chmod o+x")
    message, _ = shell.refused("run", "--no-sample", "--host", "127.0.0.1", "--port", "0")
    assert message == "control_users lets users of a cluster ask, and this node is in open mode"


def test_another_system_says_nobody(run, monkeypatch, tmp_path):
    monkeypatch.delattr("socket.SO_PEERCRED", raising=False)

    async def main():
        with pytest.raises(ConfigError, match="control_users needs Linux, and this is"):
            async with first_node(tmp_path / "a", control=True, control_users=True):
                pass

    run(main)
