"""Several machines admit: made by themselves or by hand, lost, put out; and a root under lock."""

import json
import signal
import time
from pathlib import Path

import pytest
from terminals import READY_S, Daemon, Shell, read_line

from dhtos.node.membership import read_credentials
from dhtos.trust.token import root_hash


class Fleet:
    """A cluster in a shell: nodes by their names, which are those of directories, too."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.nodes: dict[str, Daemon] = {}
        self.token = ""

    def place(self, name: str) -> tuple[str, str]:
        return ("--state-dir", str(self.shell.home / name))

    def home(self, name: str) -> Path:
        return self.shell.home / name

    def up(self, name: str, *options: str) -> Daemon:
        told = (*self.place(name), "--no-sample", "--name", name, *options)
        node = self.nodes[name] = self.shell.daemon(*told, command=["up"])
        assert node.process.stdout is not None
        if not self.token:
            self.token = read_line(node.process.stdout, READY_S).split()[-1]
        return node

    def join(self, name: str, token: str) -> Daemon:
        told = (*self.place(name), "--no-sample", "--name", name)
        node = self.nodes[name] = self.shell.daemon(*told, command=["join", token])
        return node

    def again(self, name: str) -> Daemon:
        """Start a node again on the port that it had."""
        port = self.nodes[name].endpoint.rpartition(":")[2]
        self.nodes[name].stop()
        told = (*self.place(name), "--no-sample", "--port", port)
        node = self.nodes[name] = self.shell.daemon(*told)
        return node

    def run(self, *words: str, at: str, code: int = 0) -> str:
        return self.shell.run(*words, *self.place(at), code=code).stdout

    def invite(self, at: str, *options: str) -> str:
        return str(json.loads(self.run("invite", "--json", *options, at=at))["token"])

    def kind(self, name: str) -> str:
        return str(json.loads(self.run("whoami", "--json", at=name))["kind"])

    def awaited(self, name: str, count: int) -> None:
        """Wait until all are known to somebody."""
        deadline = time.monotonic() + READY_S
        while (found := json.loads(self.run("count", "--json", at=name))["count"]) != count:
            assert time.monotonic() < deadline, f"{name} counts {found}, not {count}"

    def told(self, name: str) -> list[str]:
        lines = self.run("audit", "show", "--json", at=name).splitlines()
        return [json.loads(line)["what"] for line in lines]


@pytest.fixture
def fleet(shell: Shell) -> Fleet:
    return Fleet(shell)


def test_a_cluster_that_lost_its_first_machine_goes_on(fleet: Fleet) -> None:
    """Machines come, and are put out, through those that were made issuers by themselves."""
    fleet.up("first")
    fleet.join("second", fleet.token)
    token = fleet.invite("first", "--uses", "2")
    fleet.join("third", token)
    fleet.join("fourth", token)
    kinds = [fleet.kind(name) for name in ("first", "second", "third", "fourth")]
    assert kinds == ["issuer", "issuer", "issuer", "node"]
    fleet.awaited("fourth", 4)
    fleet.nodes["first"].stop(signal.SIGKILL)
    fleet.join("fifth", fleet.invite("second"))
    fleet.awaited("fifth", 4)
    assert fleet.kind("fifth") == "node"
    fleet.run("revoke", "fifth", at="third")  # which did not admit it
    fleet.awaited("second", 3)
    fleet.awaited("fourth", 3)
    refused = fleet.shell.refused("revoke", "second", *fleet.place("third"))
    assert "'second' is an issuer, which only the root puts out" in refused[0]
    place = fleet.place("alice")
    fleet.shell.run(
        "join", json.loads(fleet.run("user", "add", "alice", "--json", at="third"))["token"], *place
    )
    assert json.loads(fleet.shell.run("count", "--json", *place).stdout)["count"] == 3


def test_an_issuer_is_made_and_put_out_by_hand(fleet: Fleet) -> None:
    fleet.up("first", "--issuers", "1")
    second = fleet.join("second", fleet.token)
    fleet.join("third", fleet.invite("first"))
    assert fleet.kind("second") == "node"
    message, _ = fleet.shell.refused("promote", "third", *fleet.place("second"))
    assert message == "this node admits nobody"
    for name, words in [("nobody", "no machine is called 'nobody'"), ("first", "this node itself")]:
        message, _ = fleet.shell.refused("promote", name, *fleet.place("first"))
        assert words in message
    done = fleet.run("promote", second.facts["id"][:8], at="first")
    assert done.startswith("second is an issuer")
    assert fleet.kind("second") == "issuer"
    message, _ = fleet.shell.refused("promote", "second", *fleet.place("first"))
    assert message.startswith("'second' is an issuer already")
    message, _ = fleet.shell.refused("promote", "third", *fleet.place("second"))
    assert "has no root.json, the key that makes issuers" in message
    fleet.join("fourth", fleet.invite("second"))
    fleet.awaited("third", 4)
    again = fleet.again("second")
    assert again.facts["id"] == second.facts["id"]
    assert fleet.kind("second") == "issuer"
    message, _ = fleet.shell.refused("demote", "third", *fleet.place("first"))
    assert message == "'third' is no issuer: dhtos-node revoke puts it out"
    fleet.run("demote", "second", at="first")
    fleet.awaited("third", 2)  # the fourth was admitted by the second
    assert fleet.told("first") == [
        "invited",
        "admitted",
        "invited",
        "admitted",
        "promoted",
        "revoked",
    ]
    fleet.nodes["second"].stop()
    back = fleet.join("second", fleet.invite("first"))
    assert back.facts["id"] != second.facts["id"]
    assert fleet.kind("second") == "node"
    fleet.awaited("third", 3)


def test_a_root_under_lock_asks_for_its_passphrase(fleet: Fleet) -> None:
    shell, place = fleet.shell, fleet.place("first")
    first = fleet.up("first")
    locked = json.loads(fleet.run("root", "lock", "--json", at="first"))
    passphrase = locked["passphrase"]
    seed_is_gone = json.loads((fleet.home("first") / "root.json").read_bytes())
    assert set(seed_is_gone) == {"sealed", "public", "issuers"}
    assert json.loads(fleet.run("root", "status", "--json", at="first"))["root"] == "locked"
    assert shell.refused("root", "lock", *place)[0].endswith("is locked already")
    fleet.join("second", fleet.token)
    assert fleet.kind("second") == "node"  # nobody is made an issuer by itself
    message, hint = shell.refused("promote", "second", *place)
    assert message == "the root is locked"
    assert "--passphrase-file or in DHTOS_PASSPHRASE" in hint
    file = fleet.home("passphrase")
    file.write_text("wrong\n")
    message, hint = shell.refused("promote", "second", "--passphrase-file", str(file), *place)
    assert message.endswith("is a secret that others can read")
    file.chmod(0o600)
    message, hint = shell.refused("promote", "second", "--passphrase-file", str(file), *place)
    assert message.startswith("the passphrase does not open ")
    assert hint == "try again, or restore it from a backup"
    message, _ = shell.refused("root", "unlock", "--passphrase-file", str(file), *place)
    assert message.startswith("the passphrase does not open ")
    file.write_text(f"  {passphrase}\n")
    fleet.run("promote", "second", "--passphrase-file", str(file), at="first")
    assert fleet.kind("second") == "issuer"
    again = fleet.again("first")
    assert again.process.stderr is not None
    warned = read_line(again.process.stderr, READY_S)
    assert "machines that join are made no issuers" in warned
    assert "is locked" in warned
    shell.environment["DHTOS_PASSPHRASE"] = passphrase
    silent = fleet.again("first")
    fleet.join("third", fleet.invite("first"))
    assert fleet.kind("third") == "issuer"
    fleet.run("root", "unlock", at="first")
    silent.stop()
    assert silent.process.stderr is not None
    assert "issuers" not in silent.process.stderr.read()
    del shell.environment["DHTOS_PASSPHRASE"]
    assert "is open" in fleet.run("root", "status", at="first")
    assert first.facts["id"]


def test_a_root_that_was_moved_away(fleet: Fleet) -> None:
    fleet.up("first")
    fleet.join("second", fleet.token)
    (fleet.home("first") / "root.json").rename(fleet.home("safe.json"))
    fleet.nodes["first"].stop()
    fleet.up("first", "--issuers", "5")  # it still runs with `up`, and admits
    fleet.join("third", fleet.invite("first"))
    assert fleet.kind("third") == "node"
    message, hint = fleet.shell.refused("promote", "third", *fleet.place("first"))
    assert "has no root.json" in message
    assert "bring the file here" in hint
    message, _ = fleet.shell.refused("root", "status", *fleet.place("first"))
    assert "has no root.json" in message
    fleet.home("safe.json").rename(fleet.home("second") / "root.json")
    fleet.run("promote", "third", at="second")  # any issuer that has it
    assert fleet.kind("third") == "issuer"


def test_a_root_is_followed_by_another_and_the_cluster_goes_on(fleet: Fleet) -> None:
    shell, place = fleet.shell, fleet.place("first")
    fleet.up("first", "--issuers", "2")
    fleet.join("second", fleet.token)
    fleet.join("third", fleet.invite("first"))
    fleet.join("gone", fleet.invite("second"))
    fleet.run("revoke", "gone", at="first")
    stolen = (fleet.home("first") / "root.json").read_bytes()
    passphrase = json.loads(fleet.run("root", "lock", "--json", at="first"))["passphrase"]
    before = json.loads(fleet.run("root", "status", "--json", at="first"))
    assert shell.refused("root", "rotate", *place)[0] == "the root is locked"
    shell.environment["DHTOS_PASSPHRASE"] = passphrase
    told = json.loads(fleet.run("root", "rotate", "--days", "2", "--json", at="first"))
    assert (sorted(told["issuers"]), told["waiting"]) == (["first", "second"], [])
    assert abs(told["ends"] - time.time() - 2 * 86_400) < 60
    after = json.loads(fleet.run("root", "status", "--json", at="first"))
    assert after == before | {"rotations": 1}
    for name in ("first", "second"):  # the same cluster, by another root
        chain = read_credentials(fleet.home(name))[1].chain
        assert root_hash(chain.root).hex() == before["cluster"]
        assert [one.ends for one in chain.heirs] == [told["ends"]]
    fleet.awaited("third", 3)
    fleet.join("fourth", fleet.invite("second"))  # who has never heard of the new root
    fleet.awaited("first", 4)
    assert fleet.run("promote", "third", at="first").startswith("third is an issuer")
    fleet.again("second")
    fleet.awaited("second", 4)
    fleet.run("demote", "third", at="first")
    fleet.awaited("fourth", 3)
    (fleet.home("first") / "root.json").write_bytes(stolen)  # the old one makes nothing any more
    message, hint = shell.refused("promote", "fourth", *place)
    assert "is not the last root of this cluster" in message
    assert shell.refused("root", "rotate", *place)[0] == message
    assert hint.startswith("restore the one that is")
    assert "rotated" in fleet.told("first")


def test_a_first_machine_that_is_killed_soon_finds_the_others_again(fleet: Fleet) -> None:
    """It was given no seed: it must have written down who came."""
    fleet.up("first", "--issuers", "1")
    fleet.join("second", fleet.token)
    deadline = time.monotonic() + READY_S
    while not (fleet.home("first") / "contacts.json").exists():
        fleet.awaited("first", 2)
        assert time.monotonic() < deadline, "it writes nobody down"
    fleet.nodes["first"].stop(signal.SIGKILL)
    fleet.again("first")
    fleet.awaited("first", 2)
