"""Two clusters on one machine: one lets the other ask, and then no more."""

import json
import time
from typing import Any

import pytest
from terminals import READY_S, Daemon, Shell, read_line

ASK = ("find", "cores >= 1", "--json")


def up(shell: Shell, name: str, cores: int) -> tuple[Daemon, str]:
    """The first node of a cluster, and where it is."""
    place = str(shell.home / name)
    told = ("--state-dir", place, "--no-sample", "--set", f"cores={cores}", "--issuers", "1")
    daemon = shell.daemon(*told, "--commands", "--name", name, command=["up"])
    assert daemon.process.stdout is not None
    read_line(daemon.process.stdout, READY_S)
    return daemon, place


def asked(shell: Shell, *words: str) -> Any:
    return json.loads(shell.run(*words, "--json").stdout)


@pytest.fixture
def two(shell: Shell) -> tuple[tuple[Daemon, str], tuple[Daemon, str]]:
    return up(shell, "ours", 8), up(shell, "theirs", 4)


def test_a_cluster_is_let_in_and_kept_out_again(
    shell: Shell, two: tuple[tuple[Daemon, str], tuple[Daemon, str]]
) -> None:
    (our, ours), (_, theirs) = two
    cluster = asked(shell, "whoami", "--state-dir", theirs)["cluster"]
    token = shell.run("guests", "token", "--state-dir", ours).stdout.strip()
    visit = ("--state-dir", theirs, "--visit", token)

    message, hint = shell.refused(*ASK, *visit)
    assert "a certificate is of another cluster" in message
    assert hint == f"ask there for dhtos-node guests add {cluster}"

    done = shell.run(
        "guests", "add", cluster, "--group", "partner", "--days", "7", "--state-dir", ours
    )
    assert done.stdout.startswith(f"members of {cluster} may query here\n")
    (hit,) = map(json.loads, shell.run(*ASK, *visit).stdout.splitlines())
    assert hit["id"] == our.facts["id"]
    assert hit["attributes"]["cores"] == 8
    (own,) = map(json.loads, shell.run(*ASK, "--state-dir", theirs).stdout.splitlines())
    assert own["attributes"]["cores"] == 4  # without a token it asks its own, as ever

    (one,) = asked(shell, "guests", "list", "--state-dir", ours)["guests"]
    assert (one["cluster"], one["caps"], one["group"]) == (cluster, ["query"], "partner")
    assert one["holds"]
    assert 6.9 < (one["expires"] - time.time()) / 86_400 <= 7
    assert "6 days" in (table := shell.run("guests", "list", "--state-dir", ours).stdout) or (
        "7 days" in table
    )

    message, hint = shell.refused("put", "colour", "red", *visit, code=4)
    assert message == "members of our cluster are not welcome to publish in this one"
    place = ("place", "--need", "cores=1", *visit, "--", "true")
    assert "not welcome to claim" in shell.run(*place, code=4).stderr

    shell.run("guests", "remove", cluster, "--state-dir", ours)
    assert "not welcome now" in shell.refused(*ASK, *visit)[0]
    assert asked(shell, "guests", "list", "--state-dir", ours) == {"guests": []}
    events = shell.run("audit", "show", "--json", "--state-dir", ours).stdout.splitlines()
    told = [(e["what"], e["name"]) for e in map(json.loads, events) if "welcomed" in e["what"]]
    assert told == [("welcomed", cluster), ("unwelcomed", cluster)]


def test_who_is_welcome_outlives_a_restart(
    shell: Shell, two: tuple[tuple[Daemon, str], tuple[Daemon, str]]
) -> None:
    (our, ours), (_, theirs) = two
    token = shell.run("guests", "token", "--state-dir", ours).stdout.strip()
    home = shell.run("guests", "token", "--state-dir", theirs).stdout.strip()
    caps = [word for verb in ("query", "claim", "run") for word in ("--cap", verb)]
    shell.run("guests", "add", home, *caps, "--state-dir", ours)
    port = our.endpoint.rpartition(":")[2]
    our.process.kill()
    our.process.wait()
    told = ("--state-dir", ours, "--no-sample", "--set", "cores=8", "--port", port)
    shell.daemon(*told, "--commands", command=["up"])
    visit = ("--state-dir", theirs, "--visit", token)
    assert len(shell.run(*ASK, *visit).stdout.splitlines()) == 1
    done = shell.run("place", "--need", "cores=1", *visit, "--", "echo", "hello")
    assert done.stdout == "hello\n"
    name = f"theirs@{asked(shell, 'whoami', '--state-dir', theirs)['cluster'][:8]}"
    (used,) = asked(shell, "audit", "sum", "--state-dir", ours)["usage"]
    assert used["user"] == name
    assert used["signed"] == used["leases"] == 1
    shell.run("revoke", name, "--state-dir", ours)  # this one alone
    assert "was revoked" in shell.refused(*ASK, *visit)[0]


def test_what_is_typed_wrong_gets_one_clear_error(
    shell: Shell, two: tuple[tuple[Daemon, str], tuple[Daemon, str]]
) -> None:
    (_, ours), (_, theirs) = two
    here = ("--state-dir", ours)
    cluster = asked(shell, "whoami", *here)["cluster"]
    token = shell.run("guests", "token", *here).stdout.strip()
    new = ("--state-dir", str(shell.home / "new"))
    message, hint = shell.refused("join", token, *new)
    assert (message, hint) == (
        "this token is for visitors, who stay in their own cluster",
        "ask with --visit TOKEN",
    )
    join = asked(shell, "invite", *here)["token"]
    assert "dhtos-node join" in shell.refused(*ASK, "--state-dir", theirs, "--visit", join)[0]
    assert "mistyped" in shell.refused(*ASK, "--state-dir", theirs, "--visit", token[:-3])[0]
    assert "our own cluster" in shell.refused(*ASK, *here, "--visit", token)[0]
    assert "membership to show" in shell.refused(*ASK, *new, "--visit", token)[0]
    assert "cluster itself" in shell.refused("guests", "add", cluster, *here)[0]
    assert "40 hex digits" in shell.refused("guests", "add", "beef", *here)[0]
    other = "ab" * 20
    assert "is not welcome" in shell.refused("guests", "remove", other, *here)[0]
    for cap in ("publish", "admin", "query:", "claim:a b"):
        message, _ = shell.refused("guests", "add", other, "--cap", cap, *here)
        assert "query, claim or run" in message
    shell.run("guests", "add", other, "--days", "91", *here, code=2)
