"""Keys in the network: put on one machine, had again on another with the passphrase alone."""

import json
import os
import pty
import subprocess
import time
from pathlib import Path

import pytest
from terminals import READY_S, Shell
from test_trust_cli import World
from test_users import tried

OWN = "correct horse battery staple"


@pytest.fixture
def world(shell: Shell) -> World:
    """A cluster of two."""
    world = World(shell)
    world.join("second")
    world.awaited("second", 2)
    return world


def at(world: World, name: str) -> tuple[str, str]:
    return ("--state-dir", world.place(name))


def test_a_user_is_at_home_on_another_machine(world: World, shell: Shell) -> None:
    home, new = Path(world.place("alice")), Path(world.place("new"))
    shell.run("join", world.issue("user", "add", "alice"), "--state-dir", str(home))
    done = shell.run("secstore", "put", "me", "--home", str(home), *at(world, "first"))
    passphrase = done.stdout.strip()
    assert len(passphrase.split("-")) == 5
    assert "Write the passphrase down" in done.stderr
    shell.environment["DHTOS_PASSPHRASE"] = passphrase
    done = shell.run("secstore", "get", "me", "--home", str(new), *at(world, "second"))
    assert done.stdout == f"alice is at home in {new}\n"
    for name in ("identity.json", "membership.json"):
        assert (new / name).read_bytes() == (home / name).read_bytes()
        assert (new / name).stat().st_mode & 0o777 == 0o600
    assert new.stat().st_mode & 0o777 == 0o700
    del shell.environment["DHTOS_PASSPHRASE"]
    assert world.count("new") == 2  # and asks as alice
    shell.environment["DHTOS_PASSPHRASE"] = passphrase
    message, _ = shell.refused(
        "secstore", "get", "me", "--home", str(new), *at(world, "second"), code=2
    )
    assert message == f"{new / 'identity.json'} is there and is not overwritten"


def test_a_file_under_a_passphrase_of_ones_own(world: World, shell: Shell) -> None:
    secret, out = shell.home / "id_ed25519", shell.home / "out"
    secret.write_bytes(bytes(range(256)) * 8)
    words = shell.home / "words"
    words.write_text(OWN + "\n")
    words.chmod(0o600)
    by = ("--passphrase-file", str(words))
    put = ("secstore", "put", "ssh", str(secret), *by)
    told = json.loads(shell.run(*put, *at(world, "first"), "--json").stdout)
    assert (told["name"], told["files"]) == ("ssh", ["id_ed25519"])
    assert told["stored_on"] == 2
    assert "passphrase" not in told
    get = ("secstore", "get", "ssh", *by, *at(world, "second"))
    assert shell.run(*get, "--out", str(out)).stdout == f"wrote {out}\n"
    assert out.read_bytes() == secret.read_bytes()
    assert out.stat().st_mode & 0o777 == 0o600
    assert "is not overwritten" in shell.refused(*get, "--out", str(out))[0]
    secret.write_bytes(b"a newer one")
    shell.run(*put, *at(world, "first"))
    assert shell.run(*get).stdout == "a newer one"


def test_nothing_is_found_without_the_very_words(world: World, shell: Shell) -> None:
    secret = shell.home / "key"
    secret.write_text("k")
    shell.environment["DHTOS_PASSPHRASE"] = OWN
    shell.run("secstore", "put", "k", str(secret), *at(world, "first"))
    message, hint = shell.refused("secstore", "get", "K", *at(world, "second"), code=3)
    assert message == "nothing is kept as 'K' under this passphrase"
    assert hint.startswith("give the name and the passphrase as they were")
    shell.environment["DHTOS_PASSPHRASE"] = OWN + "s"
    assert shell.refused("secstore", "get", "k", *at(world, "second"), code=3)[0] == (
        "nothing is kept as 'k' under this passphrase"
    )
    shell.environment["DHTOS_PASSPHRASE"] = "hunter2"
    message, _ = shell.refused("secstore", "put", "k", str(secret), *at(world, "first"))
    assert message.startswith("a passphrase has at least 12 characters, got 7")
    del shell.environment["DHTOS_PASSPHRASE"]
    message, _ = shell.refused("secstore", "get", "k", *at(world, "second"))
    assert message.endswith(" is locked")


def test_it_outlives_a_restart_and_ends_when_it_is_removed(world: World, shell: Shell) -> None:
    secret = shell.home / "key"
    secret.write_text("k")
    shell.environment["DHTOS_PASSPHRASE"] = OWN
    shell.run("secstore", "put", "k", str(secret), *at(world, "first"))
    message, hint = shell.refused("secstore", "remove", "k", *at(world, "second"))
    assert message == "this node keeps nothing under that name and passphrase"
    assert hint == "give the command on the machine where it was put"
    message, hint = shell.refused("secstore", "put", "k", str(secret), *at(world, "second"), code=4)
    assert message == "another machine keeps 'k' under this passphrase"
    assert hint == "use secstore remove there, or another name"
    assert shell.run("secstore", "get", "k", *at(world, "second")).stdout == "k"
    port = world.first.endpoint.rpartition(":")[2]
    for daemon in shell.daemons:  # nobody holds it any more
        daemon.stop()
    shell.daemon("--port", port, "--no-sample", *at(world, "first"))
    shell.daemon("--no-sample", *at(world, "second"))
    world.awaited("second", 2)
    deadline = time.monotonic() + READY_S
    while (told := tried(shell, "secstore", "get", "k", *at(world, "second"))) != "k":
        assert time.monotonic() < deadline, told
    shell.run("secstore", "remove", "k", *at(world, "first"))
    shell.refused("secstore", "remove", "k", *at(world, "first"))
    shell.refused("secstore", "get", "k", *at(world, "second"), code=3)
    kept = json.loads(Path(world.place("first"), "kept.json").read_text())
    assert kept == {"kept": []}


def test_what_cannot_be_kept(world: World, shell: Shell) -> None:
    large = shell.home / "large"
    large.write_bytes(bytes(6001))
    message, hint = shell.refused("secstore", "put", "l", str(large), *at(world, "first"))
    assert message == f"{large} is too large for a key store, which takes 6000 bytes"
    assert hint == "give a smaller file"
    message, _ = shell.refused("secstore", "put", "l", str(large) + "x", *at(world, "first"))
    assert message.endswith("cannot be read: No such file or directory")
    message, _ = shell.refused("secstore", "put", "l", "--home", "none", *at(world, "first"))
    assert "holds no identity.json and membership.json" in message
    words = ("secstore", "put", "n", "--home", world.place("second"), *at(world, "first"))
    assert shell.refused(*words)[0].endswith("would be one node in two places")
    node = shell.daemon("--no-sample")
    large.write_bytes(b"small")
    words = ("put", "l", str(large), "--control", node.control)
    assert "open mode" in shell.refused("secstore", *words)[0]


def test_a_passphrase_is_typed_twice_and_not_shown(world: World, shell: Shell) -> None:
    secret = shell.home / "key"
    secret.write_text("k")
    words = ("secstore", "put", "k", str(secret), "--own", *at(world, "first"))
    assert shell.refused(*words)[0] == "--own asks on a terminal, and this is none"
    shown = typed(shell, words, OWN, "correct horse", OWN, OWN)
    assert "do not match" in shown
    assert OWN not in shown
    assert typed(shell, ("secstore", "get", "k", *at(world, "second")), OWN).endswith("k")


def typed(shell: Shell, words: tuple[str, ...], *lines: str) -> str:
    """What a terminal shows while somebody types these lines, one at each prompt."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        shell.command(*words), env=shell.environment, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown, left = "", list(lines)
        try:
            while chunk := os.read(ours, 1024):
                shown += chunk.decode()
                if left and shown.endswith(": "):
                    os.write(ours, left.pop(0).encode() + b"\n")
        except OSError:
            pass  # the end of a terminal whose program has ended
        assert process.wait(READY_S) == 0, shown
    os.close(ours)
    return shown.replace("\r\n", "\n")
