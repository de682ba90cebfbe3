"""Users in the network: any member knows whom an issuer has admitted, without asking it."""

import asyncio
import json
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
from terminals import READY_S
from test_enrolling import config, first_node, join
from test_trust_cli import World

import dhtos
from dhtos.errors import UsageError
from dhtos.node.enrolling import issuer_of, make_token


async def known(node: dhtos.Node, name: str, *, wanted=bool):
    """What a node knows of a user, as soon as it is what is wanted."""
    while not wanted(found := await node.user(name)):  # noqa: ASYNC110 - told by the network
        await asyncio.sleep(0)  # what is held here is found without waiting
    return found


def test_a_user_is_known_to_all_from_the_moment_of_its_admission(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            await join(tmp_path / "second", await make_token(first))
            async with dhtos.Node(config(tmp_path / "second")) as second:
                assert await second.user("alice") is None
                token = await make_token(first, kind="user", name="alice", groups=["lab"])
                assert await second.user("alice") is None  # nobody has come with it
                mine = (await join(tmp_path / "alice", token)).chain
                assert await known(second, "alice") == mine
                assert await second.user("bob") is None
                again = await make_token(first, kind="user", name="alice", caps=["query"])
                newer = (await join(tmp_path / "alice", again)).chain
                await known(second, "alice", wanted=lambda found: found == newer)
                assert newer.leaf.not_before >= mine.leaf.not_before
                asking = dhtos.Config(
                    host="127.0.0.1", port=0, client=True, credentials=tmp_path / "alice"
                )
                async with dhtos.Node(asking) as alice:
                    assert (await known(alice, "alice")) == newer

    run(main)


def test_who_is_put_out_is_nobody_and_is_kept_no_more(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            assert first.kept_values is not None
            await join(tmp_path / "second", await make_token(first))
            async with dhtos.Node(config(tmp_path / "second")) as second:
                token = await make_token(first, kind="user", name="alice")
                await join(tmp_path / "alice", token)
                await known(second, "alice")
                assert len(first.kept_values) == 1
                taken = await asyncio.to_thread(issuer_of(first).revoke, "alice")
                await first.revoke_members(taken)
                assert len(first.kept_values) == 0
                assert await first.user("alice") is None
                await known(second, "alice", wanted=lambda found: found is None)

    run(main)


def test_an_issuer_that_starts_again_puts_its_users_again(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            token = await make_token(first, kind="user", name="alice")
            mine = (await join(tmp_path / "alice", token)).chain
            await known(first, "alice")
            assert first.kept_values is not None
            await first.kept_values.save()
        async with dhtos.Node(config(tmp_path / "first")) as again:  # it was the only holder
            assert await known(again, "alice") == mine

    run(main)


def test_no_other_member_can_say_who_a_user_is(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            await join(tmp_path / "second", await make_token(first))
            token = await make_token(first, kind="user", name="alice")
            mine = (await join(tmp_path / "alice", token)).chain
            async with dhtos.Node(config(tmp_path / "second")) as second:
                await second.joined()
                for owned in (False, True):
                    await second.put("user:alice", b"nobody", owned=owned)
                    await second.put("user:bob", mine.wire, owned=owned)
                assert await known(second, "alice") == mine
                assert await known(first, "alice") == mine
                assert await first.user("bob") is None
                assert await second.user("bob") is None

    run(main)


def test_names_that_are_none_and_fleets_without_users(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            for name in ("", "a" * 64, "a\n"):
                with pytest.raises(UsageError, match=r"a user has a name of 1\.\.63"):
                    await first.user(name)
        async with dhtos.Node(config(None)) as node:
            assert node.kept_values is None
            with pytest.raises(UsageError, match="open mode, which has no users"):
                await node.user("alice")

    run(main)


def tried(shell, *words: str) -> str:
    """What a command says, or nothing where it fails."""
    done = subprocess.run(
        shell.command(*words), env=shell.environment, capture_output=True, text=True, check=False
    )
    return done.stdout


def test_what_one_types(shell) -> None:
    world = World(shell)
    place = ("--state-dir", world.place("second"))
    world.join("second")
    message, hint = shell.refused("user", "show", "alice", *place, code=3)
    assert message == "'alice' is no user of this cluster, or was put out, or its time is over"
    assert hint == "use dhtos-node user add alice to make a token"
    token = world.issue("user", "add", "alice", "--group", "lab", "--hours", "2")
    shell.run("join", token, "--state-dir", world.place("alice"))
    deadline = time.monotonic() + READY_S
    while "alice" not in (table := tried(shell, "user", "show", "alice", *place)):
        assert time.monotonic() < deadline
    assert "UTC, in 2 hours" in table
    found = json.loads(shell.run("user", "show", "alice", *place, "--json").stdout)
    assert (found["groups"], found["caps"]) == (["lab"], ["query", "claim"])
    me = json.loads(shell.run("whoami", "--state-dir", world.place("alice"), "--json").stdout)
    assert found["issuer"] == me["chain"][0]
    assert found["expires"] == me["expires"]
    words = ("user", "show", "alice", "--state-dir", world.place("alice"), "--json")
    assert json.loads(shell.run(*words).stdout) == found  # she has no node, and asks as herself
    kept = msgspec.json.decode(Path(world.place("first"), "kept.json").read_bytes())["kept"]
    assert [one["kind"] for one in kept] == ["user"]
    shell.run("revoke", "alice", "--state-dir", world.place("first"))
    shell.run("user", "show", "alice", "--state-dir", world.place("first"), code=3)
    node = shell.daemon("--no-sample")
    message, hint = shell.refused("user", "show", "alice", "--control", node.control)
    assert message == "this node is in open mode, which has no users"
