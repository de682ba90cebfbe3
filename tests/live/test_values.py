"""Values of a cluster as a program and a person meet them: whose, under whose name, taken back."""

import json

import pytest
from test_enrolling import config, first_node, join
from test_trust_cli import World

import dhtos
from dhtos.errors import Conflict, KeyNotFound, UsageError
from dhtos.node.enrolling import make_token


def test_whose_a_value_is_and_who_may_replace_it(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            await join(tmp_path / "second", await make_token(first))
            async with dhtos.Node(config(tmp_path / "second")) as second:
                mine = await first.put("shared", "one")
                assert mine.owner is not None
                found = await second.get("shared", paths=4)
                assert (found.value, found.owner) == ("one", mine.owner)
                with pytest.raises(Conflict, match=mine.owner.name):
                    await second.put("shared", "two")
                await second.put("shared", "own", owned=True)
                await first.put("shared", "its own", owned=True, paths=2)
                assert (await second.get("shared", owner="self")).value == "own"
                for owner in (mine.owner, mine.owner.key, mine.owner.key.hex()):
                    assert (await second.get("shared", owner=owner)).value == "its own"
                assert (await second.get("shared")).value == "one"
                assert (await first.remove("shared")).seq > mine.seq
                with pytest.raises(KeyNotFound, match="removed"):
                    await second.get("shared")
                await second.remove("shared", owned=True)
                with pytest.raises(KeyNotFound):
                    await first.get("shared", owner=(await second.put("x", 1)).owner)
                for owner in ("", "me", b"", "00" * 31):
                    with pytest.raises(UsageError, match="64 hex digits"):
                        await first.get("shared", owner=owner)

    run(main)


def test_nobody_has_values_in_open_mode(run):
    async def main():
        async with dhtos.Node(config(None)) as node:
            assert (await node.put("k", "v")).owner is None
            assert (await node.get("k", paths=3)).owner is None
            for asking in (
                node.remove("k"),
                node.remove("k", owned=True),
                node.put("k", "v", owned=True),
                node.get("k", owner="self"),
            ):
                with pytest.raises(UsageError, match="open mode nobody can say whose"):
                    await asking
            with pytest.raises(UsageError, match="paths"):
                await node.get("k", paths=9)

    run(main)


def test_what_one_types(shell) -> None:
    world = World(shell)
    first, here = (("--state-dir", world.place(name)) for name in ("first", "second"))
    world.join("second")
    stored, told = shell.run("put", "k", "v", "--owned", *here).stdout.splitlines()
    assert stored.startswith("stored on ")
    owner = told.removeprefix("others read it with --owner ")
    assert shell.run("get", "k", "--owner", "self", *here).stdout == "v\n"
    assert shell.run("get", "k", "--owner", owner, "--paths", "4", *first).stdout == "v\n"
    found = json.loads(shell.run("get", "k", "--owner", owner, "--json", *here).stdout)
    assert found["owner"] == {"key": owner, "name": found["owner"]["name"], "groups": []}
    assert shell.run("put", "k", "--remove", "--owned", *here).stdout.startswith("removed on ")
    shell.refused("get", "k", "--owner", owner, *here, code=3)
    message, _ = shell.refused("get", "k", "--owner", "bob", *here)
    assert message.endswith("a public key of 64 hex digits, got 'bob'")
    alone = shell.daemon("--no-sample")
    message, hint = shell.refused("put", "k", "--remove", "--control", alone.control)
    assert "in open mode nobody can say whose a value is" in message
    assert hint == "give it a short ttl_s, which ends it"
