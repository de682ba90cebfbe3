"""Commands in a cluster: sealed, and only for who may run them and was granted the lease."""

import asyncio
import contextlib
import json
import os
from subprocess import PIPE

import pytest
from test_enrolling import config, first_node, join
from test_trust_cli import World

import dhtos
from dhtos import MiB, Need
from dhtos.core.limits import COMMAND_STRANGERS_MAX
from dhtos.errors import CannotStart, LeaseLost, MalformedMessage, Refused, Unreachable
from dhtos.node import command_client, command_server
from dhtos.node import command_wire as wire
from dhtos.node.enrolling import make_token
from dhtos.node.sealed_stream import HELLO_BYTES_MAX, MemberChannels, framed

NEED = Need(cores=1, where=dhtos.RUNS_COMMANDS)
MAY = ["query", "claim", "run"]


class Cluster:
    """A machine that runs commands, and people who ask."""

    def __init__(self, stack, home, first, machine):
        self.stack, self.home = stack, home
        self.first, self.machine = first, machine

    async def user(self, name, caps=MAY, groups=()):
        """A client in the name of a user."""
        promise = {"kind": "user", "name": name, "caps": list(caps), "groups": list(groups)}
        await join(self.home / name, await make_token(self.first, **promise))
        asking = dhtos.Config(
            host="127.0.0.1", port=0, client=True, credentials=self.home / name, sample=False
        )
        return await self.stack.enter_async_context(dhtos.Node(asking))


@contextlib.asynccontextmanager
async def cluster(home, **settings):
    settings = {"commands": True, "advertise": {"cores": 4, "mem": 4096 * MiB}, **settings}
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(first_node(home / "first"))
        await join(home / "machine", await make_token(first, groups=["gpu"]))
        machine = await stack.enter_async_context(dhtos.Node(config(home / "machine", **settings)))
        await machine.joined()
        yield Cluster(stack, home, first, machine)


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what it waits for is another process
        await asyncio.sleep(0.005)


async def connect(node):
    host, port = node.endpoint.split(":")
    return await asyncio.open_connection(host, int(port))


def refusals(node):
    return node.stats().get("commands_refused", 0)


# --- who may --------------------------------------------------------------------------------------


def test_a_user_that_may_run_runs_and_is_known_by_name(run, tmp_path):
    async def main():
        async with cluster(tmp_path) as world:
            alice = await world.user("alice")
            data = os.urandom(1_000_000)
            async with alice.place(NEED) as lease:
                done = await lease.run("sh", "-c", "cat; echo err >&2; exit 3", input=data)
                assert (done.returncode, done.stdout, done.stderr) == (3, data, b"err\n")
                (grant,) = world.machine.leases()
                assert grant.user == "alice"
                process = await lease.start("cat", stdin=PIPE)
                process.stdin.write(b"line\n")
                assert await process.stdout.readline() == b"line\n"
                process.terminate()
                assert await process.wait() == -15
                await process.aclose()
            # and the machine itself, by its own certificate
            async with world.machine.place(NEED) as lease:
                assert (await lease.run("echo", "own")).stdout == b"own\n"

    run(main)


def test_who_may_claim_but_not_run_is_told_so_in_a_line(run, tmp_path):
    async def main():
        async with cluster(tmp_path) as world:
            bob = await world.user("bob", ["query", "claim"])
            async with bob.place(NEED) as lease:
                with pytest.raises(CannotStart, match="does not give `run`") as caught:
                    await lease.run("true")
                assert caught.value.code == 126
                assert "\n" not in str(caught.value)
            assert refusals(world.machine) == 1

    run(main)


def test_run_may_be_given_for_the_machines_of_a_group(run, tmp_path):
    async def main():
        async with cluster(tmp_path) as world:
            near = await world.user("near", ["query", "claim", "run:gpu"])
            far = await world.user("far", ["query", "claim", "run:lab"])
            need = Need(cores=1, where=dhtos.RUNS_COMMANDS & dhtos.F.attested("gpu"))
            async with near.place(need) as lease:  # it is judged once more by the machine itself
                assert (await lease.run("echo", "x")).stdout == b"x\n"
            async with far.place(NEED) as lease:
                with pytest.raises(CannotStart):
                    await lease.run("true")

    run(main)


def test_a_token_and_a_fence_are_of_no_use_to_who_stole_them(run, tmp_path):
    async def main():
        async with cluster(tmp_path) as world:
            alice, mallory = await world.user("alice"), await world.user("mallory")
            async with alice.place(NEED) as lease:
                stolen = (lease.endpoint, lease.token, lease.fence, ["true"])
                with pytest.raises(LeaseLost, match="granted to somebody else"):
                    await command_client.start(
                        *stolen, identity=lease.identity, channels=mallory.channels
                    )
                with pytest.raises(Refused, match="a member of a cluster: ask as one"):
                    await command_client.start(*stolen)
                assert refusals(world.machine) == 2
                assert world.machine.stats()["claims_of_others"] == 1
                assert (await lease.run("echo", "mine")).stdout == b"mine\n"

    run(main)


def test_who_is_put_out_runs_nothing_more(run, tmp_path):
    async def main():
        async with cluster(tmp_path) as world:
            alice = await world.user("alice")
            lease = await alice.place(NEED)
            member = world.machine.engine.core.sessions.member
            serial = alice.membership.chain.leaf.serial
            member.revoked[serial] = type("Taken", (), {"signer": b"", "serial": serial})()
            with pytest.raises(Refused, match="it refuses us: a certificate was revoked"):
                await lease.run("true")
            del member.revoked[serial]
            await lease.release()

    run(main)


def test_a_machine_in_open_mode_says_that_it_is(run, tmp_path):
    async def main():
        async with cluster(tmp_path) as world:
            alice = await world.user("alice")
            plain = dhtos.Config(
                host="127.0.0.1", port=0, sample=False, commands=True, advertise={"cores": 4}
            )
            async with dhtos.Node(plain) as machine, machine.place(NEED) as lease:
                assert lease.identity == b""
                with pytest.raises(Refused, match="this node is in open mode"):
                    await command_client.start(
                        lease.endpoint, lease.token, lease.fence, ["true"],
                        identity=machine.engine.hub.own.identity, channels=alice.channels,
                    )  # fmt: skip
                assert (await lease.run("echo", "x")).stdout == b"x\n"

    run(main)


def test_a_machine_with_another_key_is_not_spoken_to(run, tmp_path):
    async def main():
        async with cluster(tmp_path) as world:
            alice = await world.user("alice")
            async with alice.place(NEED) as lease:
                other = world.first.engine.hub.own.identity
                with pytest.raises(Unreachable, match="did not answer as the machine"):
                    await command_client.start(
                        lease.endpoint, lease.token, lease.fence, ["true"],
                        identity=other, channels=alice.channels,
                    )  # fmt: skip

    run(main)


# --- strangers ------------------------------------------------------------------------------------


def test_strangers_that_shake_hands_slowly_or_wrongly_are_dropped(run, tmp_path, monkeypatch):
    async def main():
        async with cluster(tmp_path) as world:
            alice, machine = await world.user("alice"), world.machine
            identity = machine.engine.hub.own.identity
            _, hello = await alice.channels.hello(identity)
            for data in (
                framed(hello[:1]),
                framed(hello[:-1]),
                framed(hello.ljust(HELLO_BYTES_MAX + 1, b"\0")),
                framed(hello) + framed(bytes(20)),
                (2**31).to_bytes(4),
            ):
                before = machine.stats().get("commands_malformed", 0)
                reader, writer = await connect(machine)
                writer.write(data)
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                writer.close()
                assert machine.stats()["commands_malformed"] == before + 1
            monkeypatch.setattr(command_server, "COMMAND_HELLO_S", 0.05)
            for data in (b"", framed(hello)[:50], framed(hello)):  # the last waits for keys
                before = machine.stats().get("commands_strangers_dropped", 0)
                reader, writer = await connect(machine)
                writer.write(data)
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                writer.close()
                assert machine.stats()["commands_strangers_dropped"] == before + 1
            assert not machine._commands._strangers
            assert COMMAND_STRANGERS_MAX > 1

    run(main)


def test_an_address_can_cause_so_many_handshakes(run, tmp_path, monkeypatch):
    async def main():
        async with cluster(tmp_path) as world:
            alice, machine = await world.user("alice"), world.machine
            monkeypatch.setattr(machine._commands._rates, "admit", lambda _host, _now: False)
            async with alice.place(NEED) as lease:
                with pytest.raises(Unreachable):
                    await lease.run("true")
            assert machine.stats()["commands_strangers_dropped"] == 1

    run(main)


def test_a_stream_that_is_tampered_with_ends_the_command(run, tmp_path):
    """The wire is ours here: one bit of what the client sends is another."""

    async def main():
        async with cluster(tmp_path) as world:
            alice = await world.user("alice")
            async with alice.place(NEED) as lease:
                process = await lease.start("cat", stdin=PIPE)
                raw = process._writer._writer
                write = raw.write
                raw.write = lambda data: write(data[:-1] + bytes([data[-1] ^ 1]))
                process.stdin.write(b"x")
                with pytest.raises((LeaseLost, MalformedMessage)):
                    await process.wait()
                await until(lambda: not world.machine._commands._alive)
                assert world.machine.stats()["commands_malformed"] == 1
                await process.aclose()
                assert wire.VERSION == 1
                assert isinstance(alice.channels, MemberChannels)

    run(main)


# --- from a terminal ------------------------------------------------------------------------------


@pytest.fixture
def world(shell):
    return World(shell)


def test_place_runs_a_command_for_a_daemon_and_for_a_user(world):
    machine = world.join("machine", None, "--commands", "--set", "mem=4GiB")
    world.awaited("first", 2)
    shell = world.shell
    asked = ("place", "--need", "cores=1")
    through = shell.run(*asked, "--control", world.first.control, "--", "echo", "by the daemon")
    assert through.stdout == "by the daemon\n"
    own = shell.run(*asked, "--control", machine.control, "--", "echo", "on itself")
    assert own.stdout == "on itself\n"
    token = world.issue("user", "add", "alice", "--cap", "query", "--cap", "claim", "--cap", "run")
    shell.run("join", token, "--state-dir", world.place("alice"))
    alice = shell.run(
        *asked, "--state-dir", world.place("alice"), "--", "sh", "-c", "echo $DHTOS_LEASE"
    )
    assert alice.stdout.startswith(machine.facts["id"])
    token = world.issue("user", "add", "bob")
    shell.run("join", token, "--state-dir", world.place("bob"))
    message, hint = shell.refused(*asked, "--state-dir", world.place("bob"), "--", "true", code=126)
    assert message == (
        f"{machine.endpoint} ran nothing: this certificate does not give `run` on that machine"
    )
    assert hint == "ask an issuer for one that does"
    lease = json.loads(
        shell.run(
            *asked, "--control", world.first.control, "--json", "--", "true"
        ).stdout.splitlines()[0]
    )
    assert len(bytes.fromhex(lease["identity"])) == 32


def test_the_ops_of_channels_say_what_is_wrong(run, tmp_path):
    async def main():
        async with cluster(tmp_path, control=True) as world:
            from dhtos.errors import UsageError
            from dhtos.node.control import ControlClient

            async with ControlClient(tmp_path / "machine" / "control.sock") as client:
                for args, why in (
                    ({"identity": "xyz"}, "identity is in hexadecimal"),
                    ({"identity": "00" * 31}, "has 32 bytes"),
                    ({}, "identity"),
                ):
                    with pytest.raises(UsageError, match=why):
                        await client.call("channel", **args)
                with pytest.raises(UsageError, match="no such handshake"):
                    await client.call("channel_keys", name="00", ready="")
            assert world.machine.channels is world.machine.channels

    run(main)
