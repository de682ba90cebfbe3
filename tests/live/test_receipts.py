"""Receipts between real nodes: signed by both, kept at both ends, and added up."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from terminals import READY_S
from test_sealed_commands import NEED, cluster, until
from test_trust_cli import World

import dhtos
from dhtos import Need
from dhtos.errors import ConfigError
from dhtos.node.receipts import NAME, read_receipts, sums

BURN = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"


def receipts(home):
    """Those in the log of a directory."""
    return [entry for entry in read_receipts(home) if entry["what"] == "receipt"]


def price_now(node):
    """What its record says."""
    return node.engine.hub.own.attributes(node.schema)["price_spot"]


async def kept(home):
    """The one that is in the log, once it is."""
    while True:
        if found := await asyncio.to_thread(receipts, home):
            (one,) = found
            return one


async def summed(home):
    """What the only user has had."""
    (had,) = await asyncio.to_thread(lambda: sums(read_receipts(home)))
    return had


def test_both_ends_keep_what_both_have_signed(run, tmp_path):
    async def main():
        told = {"advertise": {"cores": 4, "price": 0.5}, "price_load": 3.0}
        async with cluster(tmp_path, **told) as world:
            alice = await world.user("alice")
            async with alice.place(NEED) as lease:
                await until(lambda: price_now(world.machine) == 0.5 * (1 + 3 / 4))
                await lease.run("sh", "-c", BURN)
            ours = await kept(tmp_path / "machine")
            await alice.aclose()
            theirs = await kept(tmp_path / "alice")
            machine = world.machine
            entries = await asyncio.to_thread(lambda: list(read_receipts(tmp_path / "machine")))
            begun = [entry for entry in entries if entry["what"] == "leased"]
            assert [(e["user"], e["resources"]) for e in begun] == [("alice", {"cores": 1.0})]
        assert (ours["role"], theirs["role"]) == ("host", "owner")
        both = ("lease", "node", "user", "began", "ended", "price", "cpu_s", "host", "owner")
        assert {name: ours[name] for name in both} == {name: theirs[name] for name in both}
        assert (ours["user"], ours["node"], ours["price"]) == ("alice", str(machine.id), 0.5)
        assert ours["owner"] != "" == ours["declined"]
        had = await summed(tmp_path / "machine")
        assert (had.user, had.role, had.leases, had.signed) == ("alice", "host", 1, 1)
        assert had.cpu_s > 0 < had.memory_byte_s
        assert had.cost == pytest.approx(0.5 * had.seconds / 3600)
        assert had.amount_s == pytest.approx({"cores": had.seconds})

    run(main)


def test_a_lease_without_a_command_is_signed_too_and_nobody_waits_for_it(run, tmp_path):
    """Whoever closes right after the release has its receipt; so has who places on itself."""

    async def main():
        async with cluster(tmp_path) as world:
            alice = await world.user("alice")
            await alice.place(NEED)
            await alice.aclose()
            theirs, ours = await kept(tmp_path / "alice"), await kept(tmp_path / "machine")
            assert theirs["owner"] == ours["owner"] != ""
            assert (ours["declined"], ours["cpu_s"], ours["price"]) == ("", 0.0, None)
            async with world.machine.place(NEED):
                pass
            await until(lambda: world.machine.stats().get("receipts_signed", 0) == 1)
        found = await asyncio.to_thread(receipts, tmp_path / "machine")
        own = [entry for entry in found if entry["user"] != "alice"]
        assert sorted(entry["role"] for entry in own) == ["host", "owner"]
        assert all(entry["owner"] for entry in own)

    run(main)


def test_a_command_that_outlives_its_lease_is_in_the_receipt(run, tmp_path):
    """It is told to end, and takes a moment: what it has used by then counts."""

    async def main():
        async with cluster(tmp_path) as world:
            alice = await world.user("alice")
            script = f"trap '{BURN}; exit' TERM; echo up; while :; do sleep 0.05; done"
            async with alice.place(NEED) as lease:
                process = await lease.start("sh", "-c", script)
                assert await process.stdout.readline() == b"up\n"
            ours = await kept(tmp_path / "machine")
            assert ours["cpu_s"] > 0.05
            await process.aclose()

    run(main)


def test_who_has_gone_has_not_signed(run, tmp_path):
    """Its lease runs out; the machine has the receipt by itself."""

    async def main():
        async with cluster(tmp_path) as world:
            alice = await world.user("alice")
            await alice.place(Need(cores=1), ttl_s=1.0)
            alice.driver.socket.close()
            alice.engine.tick = lambda _now: None  # a machine whose power is gone
            ours = await kept(tmp_path / "machine")
            assert (ours["owner"], ours["declined"]) == ("", "no answer")
            had = await summed(tmp_path / "machine")
            assert (had.leases, had.signed) == (1, 0)

    run(main)


def test_open_mode_writes_no_receipts(run, tmp_path):
    async def main():
        told = {"host": "127.0.0.1", "port": 0, "sample": False, "advertise": {"cores": 4}}
        config = dhtos.Config(**told, state_dir=tmp_path / "open")
        async with dhtos.Node(config) as node, node.place(Need(cores=1)):
            pass
        assert not (tmp_path / "open" / NAME).exists()

    run(main)


def test_a_log_that_was_changed_is_found(run, tmp_path):
    async def main():
        async with cluster(tmp_path) as world:
            alice = await world.user("alice")
            async with alice.place(NEED):
                pass
            await kept(tmp_path / "machine")

    run(main)
    path = tmp_path / "machine" / NAME
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"cores":1.0', b'"cores":2.0'))
    with pytest.raises(ConfigError, match="does not follow"):
        receipts(tmp_path / "machine")


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def world(shell):
    return World(shell)


def test_usage_is_added_up_and_the_log_verified(world, shell):
    second = world.join("second", None, "--name", "bench-7", "--commands")
    world.awaited("first", 2)
    first, second = (("--state-dir", world.place(name)) for name in ("first", "second"))
    assert "no lease has ended here" in shell.run("audit", "sum", *second).stdout
    placed = ("place", "cores == 4", "--need", "cores=3", *first, "--", "sh", "-c", BURN)
    shell.run(*placed)
    for where in ("first", "second"):
        deadline = time.monotonic() + READY_S
        while not receipts(Path(world.place(where))):
            assert time.monotonic() < deadline
    (had,), (gave,) = (
        json.loads(shell.run("audit", "sum", "--json", *where).stdout)["usage"]
        for where in (first, second)
    )
    user = had["user"]
    assert (had.pop("role"), gave.pop("role")) == ("owner", "host")
    assert had == gave
    assert (had["leases"], had["signed"]) == (1, 1)
    assert had["amount_s"] == {"cores": 3 * had["seconds"]}
    assert had["cpu_s"] > 0
    shown = shell.run("audit", "sum", "--user", user, "--since", "1h", *second).stdout
    assert user in shown
    assert "was given" in shown
    for options in (("--user", "nobody"), ("--since", "2100-01-01")):
        assert "no lease" in shell.run("audit", "sum", *options, *second).stdout
    told = json.loads(shell.run("audit", "verify", "--json", *first).stdout)
    assert (told["events"], told["receipts"]["events"]) == (2, 1)
    assert "2 events of leases, unchanged" in shell.run("audit", "verify", *second).stdout
    message, hint = shell.refused("audit", "sum", "--since", "yesterday", *first, code=2)
    assert "yesterday" in message + hint
    assert user in shell.run("usage", *second).stdout
    log = Path(world.place("second")) / NAME
    log.write_bytes(log.read_bytes().replace(b"cores", b"gorse"))
    message, _ = shell.refused("audit", "verify", *second, code=2)
    assert "line 1 does not follow" in message
