"""Users whose key stays in ssh-agent: admitted, lent to for hours, renewed, and out without it."""

import asyncio

import pytest
from ssh_agents import OpenSsh, openssh  # noqa: F401 - a fixture
from trust_world import Clock

import dhtos
from dhtos.errors import Refused, Unreachable
from dhtos.node import enrolling
from dhtos.node.authority import USER_S
from dhtos.node.enrolling import join_cluster, make_token
from dhtos.node.founding import found_cluster
from dhtos.node.login import LENT_S, read_login
from dhtos.node.membership import read_credentials
from dhtos.node.ssh_agent import agent_keys, choose_key


@pytest.fixture
def clock(monkeypatch, openssh: OpenSsh):  # noqa: F811
    openssh.add("alice@laptop")
    monkeypatch.setenv("SSH_AUTH_SOCK", openssh.path)
    monkeypatch.setattr(enrolling, "RENEWAL_INTERVAL_S", 0.02)
    return Clock()


def node(path, clock, **settings):
    config = dhtos.Config(host="127.0.0.1", port=0, state_dir=path, sample=False, **settings)
    return dhtos.Node(config, wall_clock=clock)


def user(path, clock):
    config = dhtos.Config(host="127.0.0.1", port=0, client=True, credentials=path)
    return dhtos.Node(config, wall_clock=clock)


async def joined(path, first, clock, **promise):
    promise = {"kind": "user", "name": "alice", **promise}
    key = choose_key(await asyncio.to_thread(agent_keys), "")
    await join_cluster(
        path,
        await make_token(first, **promise),
        host="127.0.0.1",
        name="alice",
        wall_clock=clock,
        agent_key=key,
    )
    return key


@pytest.fixture
def first(tmp_path, clock):
    found_cluster(tmp_path / "first", "first", clock())
    return node(tmp_path / "first", clock, advertise={"cores": 8})


async def lent(path):
    return (await asyncio.to_thread(read_credentials, path))[1].chain


async def until(condition):
    while not condition():  # noqa: ASYNC110 - a task of the node makes it true
        await asyncio.sleep(0)


def test_a_user_whose_key_is_in_the_agent_asks(run, tmp_path, clock, first):
    async def main():
        async with first:
            key = await joined(tmp_path / "alice", first, clock)
            chain = await lent(tmp_path / "alice")
            assert [cert.name for cert in chain.certs] == ["first", "alice", "alice"]
            assert chain.principal.subject == key.public
            assert chain.leaf.subject != key.public
            assert chain.leaf.expires == clock.now + LENT_S
            async with user(tmp_path / "alice", clock) as alice:
                assert int(await alice.count("cores >= 1")) == 1

    run(main)


def test_what_is_lent_is_lent_again_while_the_agent_is_there(run, tmp_path, clock, first):
    async def main():
        async with first:
            await joined(tmp_path / "alice", first, clock)
            before = await lent(tmp_path / "alice")
            clock.now += LENT_S / 2 + 1
            async with user(tmp_path / "alice", clock) as alice:
                assert int(await alice.count("cores >= 1")) == 1
            again = await lent(tmp_path / "alice")
            assert again.leaf.expires > before.leaf.expires
            assert again.principal == before.principal

    run(main)


def test_a_user_that_stays_is_renewed(run, tmp_path, clock, first):
    async def main():
        async with first:
            await joined(tmp_path / "alice", first, clock)
            async with user(tmp_path / "alice", clock) as alice:
                before = alice.membership.chain.principal.expires
                clock.now += USER_S / 2 + 1
                await until(lambda: alice.membership.chain.principal.expires > before)
                clock.now = before + 3600.0  # the first certificate is over
                assert int(await alice.count("cores >= 1")) == 1
                while (await lent(tmp_path / "alice")).principal.expires <= before:
                    pass  # a thread is writing it

    run(main)


def test_without_the_agent_it_ends_with_the_day(run, tmp_path, clock, first, openssh):  # noqa: F811
    async def main():
        async with first:
            await joined(tmp_path / "alice", first, clock, lifetime_s=10 * USER_S)
            await asyncio.to_thread(openssh.close)
            clock.now += LENT_S - 60.0
            async with user(tmp_path / "alice", clock) as alice:
                assert int(await alice.count("cores >= 1")) == 1
            clock.now += 120.0
            with pytest.raises(Unreachable, match=r"ssh-agent does not answer on .*: start one"):
                await asyncio.to_thread(read_login, tmp_path / "alice", clock)

    run(main)


def test_an_agent_with_another_key_lends_nothing(run, tmp_path, clock, first, openssh):  # noqa: F811
    async def main():
        async with first:
            await joined(tmp_path / "alice", first, clock, lifetime_s=10 * USER_S)
            await asyncio.to_thread(openssh.tell, "-D")
            await asyncio.to_thread(openssh.add, "mallory")
            clock.now += LENT_S + 120.0
            with pytest.raises(Unreachable, match="does not hold the key of this user"):
                await asyncio.to_thread(read_login, tmp_path / "alice", clock)

    run(main)


def test_a_machine_has_its_key_at_hand(run, tmp_path, clock, first):
    """A token of a machine is not used up by somebody whose key is in an agent."""

    async def main():
        async with first:
            with pytest.raises(Refused, match="of a machine, whose key is in no agent"):
                await joined(tmp_path / "alice", first, clock, kind="node", name="")
            (invite,) = (await asyncio.to_thread(first.admission.issuer.invites)).values()
            assert invite.uses == 1

    run(main)


def test_who_is_revoked_is_renewed_no_more_and_out(run, tmp_path, clock, first):
    async def main():
        async with first:
            await joined(tmp_path / "alice", first, clock)
            async with user(tmp_path / "alice", clock) as alice:
                assert int(await alice.count("cores >= 1")) == 1
                taken = await asyncio.to_thread(first.admission.issuer.revoke, "alice")
                await first.revoke_members(taken)
                nobody = await alice.count("cores >= 1")
                assert (int(nobody), nobody.coverage.fraction) == (0, 0.0)
                told = alice.engine.core.sessions.refusals.values()
                assert "it refuses us: a certificate was revoked" in told

    run(main)
