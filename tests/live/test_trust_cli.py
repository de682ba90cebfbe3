"""A cluster as a new user makes, joins and asks it, and all that is typed or copied wrong."""

import json
import shutil
import signal
import time
from pathlib import Path

import msgspec
import pytest
from terminals import READY_S, Daemon, Shell, read_line

from dhtos.node.membership import read_credentials
from dhtos.trust.token import Token


class World:
    """A cluster of one in a shell, and the token that it printed."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.first, self.token = self.up()

    def place(self, name: str) -> str:
        return str(self.shell.home / name)

    def up(self, *options: str, name: str = "first") -> tuple[Daemon, str]:
        told = (
            "--state-dir",
            self.place(name),
            "--no-sample",
            "--set",
            "cores=8",
            "--issuers",
            "1",
        )
        told = (*told, *options)
        daemon = self.shell.daemon(*told, command=["up"])
        assert daemon.process.stdout is not None
        line = read_line(daemon.process.stdout, READY_S)
        words = line.split()
        assert words[:2] == ["dhtos-node", "join"], line
        return daemon, words[2]

    def join(self, name: str, token: str | None = None, *options: str) -> Daemon:
        told = ("--state-dir", self.place(name), "--no-sample", "--set", "cores=4", *options)
        return self.shell.daemon(*told, command=["join", token or self.token])

    def refused(self, token: str, *options: str, name: str = "new", code: int = 4) -> list[str]:
        """The two lines of a join that fails."""
        told = ("--host", "127.0.0.1", "--port", "0", "--state-dir", self.place(name))
        return list(self.shell.refused("join", token, *told, *options, code=code))

    def issue(self, *words: str) -> str:
        """The token of a command to the first node."""
        done = self.shell.run(*words, "--state-dir", self.place("first"), "--json")
        return str(json.loads(done.stdout)["token"])

    def count(self, name: str, *options: str) -> int:
        done = self.shell.run("count", "--state-dir", self.place(name), "--json", *options)
        return int(json.loads(done.stdout)["count"])

    def warnings(self, name: str) -> list[str]:
        done = self.shell.run("status", "--state-dir", self.place(name), "--json")
        return list(json.loads(done.stdout)["warnings"])

    def awaited(self, name: str, count: int) -> None:
        """Wait until all are known to somebody."""
        deadline = time.monotonic() + READY_S
        while self.count(name) != count:
            assert time.monotonic() < deadline, f"{name} counts {self.count(name)}, not {count}"


@pytest.fixture
def world(shell: Shell) -> World:
    return World(shell)


# --- the way it is meant --------------------------------------------------------------------------


def test_one_token_admits_one_machine_which_then_runs_and_asks(world: World) -> None:
    second = world.join("second", None, "--name", "bench-7")
    world.awaited("second", 2)
    world.awaited("first", 2)
    me = json.loads(
        world.shell.run("whoami", "--state-dir", world.place("second"), "--json").stdout
    )
    assert (me["kind"], me["name"], me["groups"]) == ("node", "bench-7", [])
    assert me["caps"] == ["query", "publish", "claim", "run"]
    assert me["chain"][1:] == ["bench-7"]
    assert me["expires"] > time.time() + 29 * 86_400
    assert me["seeds"] == [world.first.endpoint]
    live = json.loads(world.shell.run("whoami", "--control", second.control, "--json").stdout)
    assert live == me
    message, hint = world.refused(world.token)
    assert (message, hint) == ("the token is used up", "use a new one")


def test_both_start_again_without_being_told_anything(world: World) -> None:
    second = world.join("second")
    ids = [world.first.facts["id"], second.facts["id"]]
    port = world.first.endpoint.rpartition(":")[2]
    world.first.stop()
    second.stop(signal.SIGKILL)
    told = ("--port", port, "--no-sample")
    first = world.shell.daemon("--state-dir", world.place("first"), *told, command=["up"])
    again = world.shell.daemon("--state-dir", world.place("second"), "--no-sample")
    assert [first.facts["id"], again.facts["id"]] == ids
    world.awaited("second", 2)
    assert world.refused(world.token)[0] == "the token is used up"  # that survives, too
    assert first.process.stdout is not None
    first.stop()
    assert first.process.stdout.read() == ""  # a token is made once, or when it is asked for


def test_a_user_asks_as_long_as_the_token_said_and_may_do_no_more(world: World) -> None:
    token = world.issue("user", "add", "alice", "--group", "lab", "--hours", "2")
    place = ("--state-dir", world.place("alice"))
    done = world.shell.run("join", token, *place)
    assert done.stdout.splitlines()[-1] == (
        f'ask as this user with: dhtos-node find "cores >= 1" {" ".join(place)}'
    )
    me = json.loads(world.shell.run("whoami", *place, "--json").stdout)
    assert (me["kind"], me["name"], me["groups"]) == ("user", "alice", ["lab"])
    assert me["caps"] == ["query", "claim"]
    assert 7000 < me["expires"] - time.time() <= 7200
    assert world.count("alice") == 1  # through the seeds of the token
    assert world.count("alice", "--seed", world.first.endpoint) == 1
    hits = world.shell.run("find", "cores >= 8", *place, "--json").stdout.splitlines()
    assert [json.loads(hit)["id"] for hit in hits] == [world.first.facts["id"]]
    assert world.shell.run("place", "--need", "cores=1", *place, "--", "true", code=3)
    table = world.shell.run("whoami", *place).stdout
    assert "alice" in table
    assert "in 2 hours" in table


def test_what_is_usual_needs_no_directory_to_be_named(shell: Shell) -> None:
    first = shell.daemon("--no-sample", command=["up"])
    assert json.loads(shell.run("count", "--json").stdout)["count"] == 1
    assert "issuer" in shell.run("whoami").stdout
    token = json.loads(shell.run("invite", "--uses", "2", "--json").stdout)["token"]
    told = ("--state-dir", str(shell.home / "b"), "--no-sample")
    shell.daemon(*told, command=["join", token])
    first.stop()
    again = shell.daemon("--no-sample")  # a plain run: it finds what it is
    assert again.facts["id"] == first.facts["id"]


def test_tokens_are_listed_and_taken_back(world: World) -> None:
    place = ("--state-dir", world.place("first"))
    token = world.issue("invite", "--uses", "3", "--ttl", "2d", "--group", "gpu", "--days", "7")
    shown = json.loads(world.shell.run("invite", "--list", *place, "--json").stdout)["invites"]
    (mine,) = [one for one in shown if one["uses"] == 3]
    assert (mine["kind"], mine["groups"]) == ("node", ["gpu"])
    world.join("second", token)
    me = json.loads(
        world.shell.run("whoami", "--state-dir", world.place("second"), "--json").stdout
    )
    assert me["groups"] == ["gpu"]
    assert me["expires"] < time.time() + 7 * 86_400 + 1
    table = world.shell.run("invite", "--list", *place).stdout
    assert f"{mine['id'][:12]}  node" in table
    world.shell.run("invite", "--revoke", mine["id"][:6], *place)
    message, hint = world.refused(token)
    assert message.startswith("this issuer does not know the token")
    assert hint == "use a new one"
    message, _ = world.shell.refused("invite", "--revoke", "zz", *place)
    assert message.startswith("no invite begins with 'zz'")


def test_a_second_join_of_a_member_renews_it(world: World) -> None:
    second = world.join("second")
    second.stop()
    before = read_credentials(Path(world.place("second")))[1].chain
    again = world.join("second", world.issue("invite"))
    after = read_credentials(Path(world.place("second")))[1].chain
    assert after.leaf.subject == before.leaf.subject
    assert after.leaf.serial != before.leaf.serial
    assert again.facts["id"] == after.node_id().hex()
    world.awaited("first", 2)


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_token_that_was_copied_wrong(world: World) -> None:
    other = "a" if world.token[20] != "a" else "b"
    typo = world.token[:20] + other + world.token[21:]
    for wrong in (typo, world.token[:-3]):
        assert world.refused(wrong, code=2)[0].startswith("the join token is mistyped or cut off")
    message, _ = world.refused("hunter2", code=2)
    assert message == "this is not a join token, which begins with dhtos1-"
    assert not Path(world.place("new")).exists()


def test_a_token_of_another_cluster(world: World) -> None:
    """Its seed is ours now, and it is told nothing: the roots differ."""
    token = Token.parse(world.token)
    foreign = str(Token(bytes(20), token.secret, token.seeds))
    message, _ = world.refused(foreign)
    assert message.endswith("we do not speak: a certificate is of another cluster")
    unknown = str(Token(token.root, b"s" * 16, token.seeds))
    assert world.refused(unknown)[0].startswith("this issuer does not know the token")
    assert world.count("first") == 1


def test_a_token_that_has_ended(world: World) -> None:
    world.first.stop()
    invites = Path(world.place("first"), "invites.json")
    stored = msgspec.json.decode(invites.read_bytes())
    for one in stored.values():
        one["expires"] = int(time.time()) - 100
    invites.write_bytes(msgspec.json.encode(stored))
    port = world.first.endpoint.rpartition(":")[2]
    told = ("--port", port, "--state-dir", world.place("first"), "--no-sample")
    world.shell.daemon(*told, command=["up"])
    message, hint = world.refused(world.token)
    assert message.startswith("the token ended 10")
    assert hint == "use a new one"


def test_nobody_at_home(world: World) -> None:
    world.first.stop()
    message, hint = world.refused(world.token, code=2)
    assert message == "nobody whom the token names answers"
    assert hint == "try again, or give a newer token"


def test_a_machine_may_come_before_the_first_is_back(world: World, shell: Shell) -> None:
    world.first.stop()
    place = ("--state-dir", world.place("second"), "--no-sample", "--wait")
    waiting = shell.spawn("join", world.token, "--host", "127.0.0.1", "--port", "0", *place)
    daemon = Daemon(waiting, {})
    shell.daemons.append(daemon)
    assert waiting.stderr is not None
    assert waiting.stdout is not None
    assert read_line(waiting.stderr, READY_S).startswith(
        "warning: nobody whom the token names answers"
    )
    port = world.first.endpoint.rpartition(":")[2]
    told = ("--port", port, "--state-dir", world.place("first"), "--no-sample")
    world.shell.daemon(*told, command=["up"])
    assert read_line(waiting.stdout, READY_S).startswith("ready ")


def test_a_first_start_that_failed_still_owes_the_token(world: World, shell: Shell) -> None:
    port = world.first.endpoint.rpartition(":")[2]
    told = ("--host", "127.0.0.1", "--state-dir", world.place("other"))
    assert "is in use" in shell.refused("up", "--port", port, *told)[0]
    _, token = world.up(name="other")
    assert Token.parse(token).root != Token.parse(world.token).root


def test_programs_read_both_lines_of_up(shell: Shell) -> None:
    place = ("--state-dir", str(shell.home / "a"), "--no-sample", "--json")
    process = shell.spawn("up", "--host", "127.0.0.1", "--port", "0", *place, "--uses", "3")
    shell.daemons.append(Daemon(process, {}))
    assert process.stdout is not None
    ready, told = (json.loads(read_line(process.stdout, READY_S)) for _ in range(2))
    assert ready["ready"] is True
    assert (told["uses"], told["ttl_s"]) == (3, 3600.0)
    (seed,) = Token.parse(told["token"]).seeds
    assert "{}:{}".format(*seed) == ready["endpoint"]


def test_a_directory_that_is_taken(world: World, shell: Shell) -> None:
    other, token = world.up(name="other")
    message, hint = world.refused(token, name="first", code=2)
    assert message.endswith("is used by another node")
    other.stop()
    world.first.stop()
    message, hint = world.refused(token, name="first", code=2)
    assert "is already a member of another cluster" in message
    assert hint == "choose another with --state-dir"
    message, hint = world.refused(world.token, name="first", code=2)
    assert message.endswith("made this cluster and needs no token")


def test_a_joined_directory_makes_no_cluster(world: World, shell: Shell) -> None:
    world.join("second").stop()
    message, hint = shell.refused("up", "--port", "0", "--state-dir", world.place("second"))
    assert "has joined a cluster that was made elsewhere" in message
    assert hint.startswith("start its node with dhtos-node run")


def test_secrets_that_others_can_read_are_refused(world: World, shell: Shell) -> None:
    world.first.stop()
    home = Path(world.place("first"))
    for name in ("root.json", "invites.json", "identity.json"):
        (home / name).chmod(0o644)
        message, hint = shell.refused("up", "--port", "0", "--state-dir", str(home))
        assert message == f"{home / name} is a secret that others can read"
        assert hint == f"use chmod 600 {home / name}"
        (home / name).chmod(0o600)
    home.chmod(0o777)
    message, hint = shell.refused("run", "--port", "0", "--state-dir", str(home))
    assert message == f"{home} holds keys and others can write to it"
    assert hint == f"use chmod go-w {home}"


def test_a_certificate_for_another_key(world: World, shell: Shell) -> None:
    world.join("second").stop()
    world.first.stop()
    shutil.copy(world.place("first") + "/membership.json", world.place("second"))
    for words in (("run", "--port", "0"), ("count",), ("whoami",)):
        message, _ = shell.refused(*words, "--state-dir", world.place("second"))
        assert "membership.json is for another key than identity.json" in message


def test_only_the_issuer_makes_tokens(world: World, shell: Shell) -> None:
    world.join("second")
    message, hint = shell.refused("invite", "--state-dir", world.place("second"))
    assert message == "this node admits nobody"
    assert hint.startswith("give the command on an issuer, as the machine that made the cluster")
    node = shell.daemon("--no-sample")
    message, hint = shell.refused("invite", "--control", node.control)
    assert message == "this node is in open mode, which anybody may join"
    message, hint = shell.refused("whoami", "--control", node.control)
    assert message == "this node is in open mode, of no cluster"


def test_words_that_mean_nothing(world: World, shell: Shell) -> None:
    place = ("--state-dir", world.place("first"))
    assert shell.refused("invite", "--ttl", "soon", *place)[1].startswith("try 30min")
    assert "issue" in shell.refused("invite", "--cap", "issue", *place)[0]
    assert "capabilities" in shell.refused("invite", "--cap", "fly", *place)[0]
    assert "groups" in shell.refused("invite", "--group", "a b", *place)[0]
    told = shell.refused("user", "add", "bob", "--cap", "publish", *place)
    assert told == ("a user may not publish, which only nodes do", "leave it out")
    assert shell.refused("user", "add", " ", *place)[0] == "a user has a name"
    message, _ = shell.refused("invite", "--days", "4000", *place)
    assert "before its issuer's, which has 365.0 days left, got 4000.0" in message
    assert "uses" in shell.refused("invite", "--uses", "0", *place)[0]
    new = ("--state-dir", world.place("new"))
    message, _ = shell.refused("up", "--port", "0", "--ttl", "99d", *new)
    assert message == "a token is good for at most 30d, got '99d'"
    assert not Path(world.place("new")).exists()
    message, hint = shell.refused("invite", *new)
    assert message.startswith("no node answers on")
    assert hint == "start the first of a cluster with dhtos-node up"


def test_open_and_secured_do_not_mix_and_say_so(world: World, shell: Shell) -> None:
    node = shell.daemon("--no-sample")
    place = ("--state-dir", world.place("first"))
    message, hint = shell.refused("count", "--seed", node.endpoint, *place)
    assert message == f"no seed answered: {node.endpoint}"
    assert "a node in open mode does not answer members" in hint
    message, hint = shell.refused("count", "--seed", world.first.endpoint)
    assert message == f"no seed answered: {world.first.endpoint}"
    assert "dhtos-node join" in hint
    other, _ = world.up(name="other")
    message, hint = shell.refused("count", "--seed", other.endpoint, *place)
    assert "a certificate is of another cluster" in message


# --- putting somebody out -------------------------------------------------------------------------


def test_whom_is_revoked_is_out_in_seconds_and_stays_out(world: World) -> None:
    second = world.join("second", None, "--name", "bench-7")
    third = world.join("third", world.issue("invite"), "--name", "bench-8")
    token = world.issue("user", "add", "alice")
    world.shell.run("join", token, "--state-dir", world.place("alice"))
    world.awaited("alice", 3)
    first = ("--state-dir", world.place("first"))
    done = world.shell.run("revoke", "bench-7", *first)
    assert done.stdout == "revoked 1 certificate of bench-7\n"
    world.awaited("first", 2)
    world.awaited("third", 2)
    assert second.process.poll() is None  # it runs, and is alone, and says so
    world.awaited("second", 1)
    deadline = time.monotonic() + READY_S
    while not (told := world.warnings("second")):
        assert time.monotonic() < deadline
    assert "it refuses us: a certificate was revoked" in told[0]
    world.shell.run("revoke", "alice", *first)
    refused = world.shell.refused("count", "--state-dir", world.place("alice"), code=2)
    assert "a certificate was revoked" in " ".join(refused)
    third.stop()
    port = world.first.endpoint.rpartition(":")[2]
    world.first.stop()
    world.shell.daemon(*first, "--port", port, "--no-sample", command=["up"])
    refused = world.shell.refused("count", "--state-dir", world.place("alice"), code=2)
    assert "a certificate was revoked" in " ".join(refused)


def test_who_was_let_in_and_put_out_is_written_down(world: World, shell: Shell) -> None:
    first = ("--state-dir", world.place("first"))
    world.join("second", None, "--name", "bench-7")
    world.refused(world.token)
    shell.run("revoke", "bench-7", *first)
    told = [
        json.loads(line)
        for line in shell.run("audit", "show", "--json", *first).stdout.splitlines()
    ]
    assert [entry["what"] for entry in told] == ["invited", "admitted", "refused", "revoked"]
    assert told[1]["name"] == told[3]["name"] == "bench-7"
    assert told[1]["serial"] == told[3]["serial"]
    assert "used up" in told[2]["reason"]
    assert "bench-7" in shell.run("audit", "show", *first).stdout
    told = json.loads(shell.run("audit", "verify", "--json", *first).stdout)
    assert told["events"] == 4
    log = Path(world.place("first")) / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"bench-7", b"bench-8", 1))
    message, _ = shell.refused("audit", "verify", *first, code=2)
    assert "line 2 does not follow" in message


def test_nobody_is_revoked_by_mistake(world: World, shell: Shell) -> None:
    second = world.join("second", None, "--name", "twin")
    world.join("third", world.issue("invite"), "--name", "twin")
    first = ("--state-dir", world.place("first"))
    message, hint = shell.refused("revoke", "bench-9", *first, code=2)
    assert "nobody is known here under the name, id or serial number 'bench-9'" in message + hint
    message, hint = shell.refused("revoke", "twin", *first, code=2)
    assert second.facts["id"] in message + hint
    message, hint = shell.refused("revoke", "twin", "--control", second.control, code=2)
    assert "the machine that made the cluster" in message + hint
    shell.run("revoke", second.facts["id"], *first)
    message, hint = shell.refused("audit", "show", "--state-dir", world.place("second"), code=2)
    assert "has no audit.jsonl" in message
