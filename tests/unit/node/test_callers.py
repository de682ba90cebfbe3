"""Who may ask what at a shared control socket, and how long what was found out is believed."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from trust_world import USER, Authority

from dhtos.core.limits import CONTROL_GUESTS_MAX, CONTROL_PER_USER_MAX
from dhtos.errors import ConfigError, NoPeers, Refused, UsageError
from dhtos.node import callers as module
from dhtos.node.callers import CLAIM_OPS, QUERY_OPS, USERS_MAX, Callers, check_enterable, login_name
from dhtos.node.control import OPS
from dhtos.trust.cert import Chain
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import revoke

ALICE = KeyPair(bytes([1]) * 32)
NAMES = {1: "alice", 2: "bob", 3: "carol"}


class World:
    """A node whose network knows some users, and counts how often it is asked."""

    def __init__(self) -> None:
        self.authority = Authority(5)
        self.member = self.authority.member("host")
        self.users: dict[str, Chain] = {}
        self.away = False
        self.asked: list[str] = []
        sessions = SimpleNamespace(member=self.member)
        node: Any = SimpleNamespace(
            engine=SimpleNamespace(core=SimpleNamespace(sessions=sessions)), user=self.user
        )
        self.names = dict(NAMES)
        self.callers = Callers(node, lambda uid: self.names.get(uid, ""))

    async def user(self, name: str) -> Chain | None:
        self.asked.append(name)
        if self.away:
            raise NoPeers("nobody")
        return self.users.get(name)

    def admit(self, name: str, *caps: str, **what: Any) -> Chain:
        chain = self.authority.admit(ALICE, name, caps=caps or USER, **what)
        self.users[name] = chain
        return chain


@pytest.fixture
def world() -> World:
    return World()


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Believe what was found out for so much less."""
    for name in ("AGAIN_S", "MISSING_S"):
        monkeypatch.setattr(module, name, getattr(module, name) - seconds)


def test_all_that_may_be_asked_is_an_op_and_none_of_it_is_the_owners() -> None:
    assert set(OPS) >= QUERY_OPS | CLAIM_OPS
    assert not QUERY_OPS & CLAIM_OPS
    owners = {"put", "advertise", "config", "drain", "undrain", "revoke", "invite", "invites"}
    owners |= {"uninvite", "revoke_member", "secret_put", "secret_remove", "usage"}
    assert not owners & (QUERY_OPS | CLAIM_OPS)


async def test_a_certificate_says_what_its_user_may(world: World) -> None:
    chain = world.admit("alice", "query")
    world.admit("bob", "query:lab", "claim", groups=())
    for op in QUERY_OPS:
        assert await world.callers.check(1, op) is chain
    with pytest.raises(Refused, match="alice may not claim: use dhtos-node user add alice --cap"):
        await world.callers.check(1, "place")
    await world.callers.check(2, "replicas")
    with pytest.raises(Refused, match="bob may not query but on machines of lab: use"):
        await world.callers.check(2, "find")
    with pytest.raises(Refused, match="drain is for the owner of this node, and bob is a user"):
        await world.callers.check(2, "drain")


async def test_who_is_unknown_is_told_what_to_do(world: World) -> None:
    with pytest.raises(Refused) as told:
        await world.callers.check(3, "find")
    assert str(told.value) == "carol is no user of this cluster: use dhtos-node user add carol"
    with pytest.raises(Refused, match="uid 9 is no user of this cluster"):
        await world.callers.check(9, "find")
    assert world.asked == ["carol"]  # and nobody about who has no name


async def test_what_was_found_is_remembered_for_seconds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.admit("alice")
    for _ in range(5):
        assert await world.callers.chain(1) is first
    with pytest.raises(Refused):
        await world.callers.chain(2)
    with pytest.raises(Refused):
        await world.callers.chain(2)
    assert world.asked == ["alice", "bob"]
    world.admit("bob")
    newer = world.admit("alice", "query")
    pass_time(monkeypatch, module.MISSING_S)
    assert await world.callers.chain(2)
    assert await world.callers.chain(1) is first
    pass_time(monkeypatch, module.AGAIN_S)
    assert await world.callers.chain(1) is newer


async def test_many_questions_at_once_look_once(world: World) -> None:
    world.admit("alice")
    await asyncio.gather(*(world.callers.check(1, "find") for _ in range(20)))
    assert world.asked == ["alice"]


async def test_a_network_that_is_away_puts_nobody_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = world.admit("alice")
    assert await world.callers.chain(1) is chain
    pass_time(monkeypatch, 100.0)
    world.away = True
    assert await world.callers.chain(1) is chain
    world.users.clear()
    world.away = False
    assert await world.callers.chain(1) is chain  # it holds, whoever has forgotten it
    world.away = True
    with pytest.raises(NoPeers):
        await world.callers.chain(2)


async def test_who_is_revoked_is_out_at_once(world: World) -> None:
    chain = world.admit("alice")
    await world.callers.check(1, "find")
    authority, leaf = world.authority, chain.leaf
    assert world.member.revoke(revoke(authority.key, authority.name, leaf.serial, leaf.expires))
    with pytest.raises(Refused, match="alice is no user"):
        await world.callers.check(1, "find")
    refused = await world.callers.out(1)
    assert str(refused).startswith("alice is no user")


async def test_a_uid_that_has_another_name_now_is_somebody_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.admit("alice")
    await world.callers.chain(1)
    world.names[1] = "mallory"
    pass_time(monkeypatch, 100.0)
    with pytest.raises(Refused, match="mallory is no user"):
        await world.callers.chain(1)


async def test_what_is_remembered_is_bounded(world: World) -> None:
    for uid in range(100, 100 + USERS_MAX + 10):
        world.callers.enter(uid)
        with pytest.raises(Refused):
            await world.callers.chain(uid)
        world.callers.leave(uid)
    assert len(world.callers._known) == USERS_MAX
    assert not world.callers._looking
    assert not world.callers._connected


def test_so_many_connections_of_one_and_of_all(world: World) -> None:
    for _ in range(CONTROL_PER_USER_MAX):
        world.callers.enter(1)
    with pytest.raises(UsageError, match=f"at most {CONTROL_PER_USER_MAX} connections of one"):
        world.callers.enter(1)
    for uid in range(2, 1 + CONTROL_GUESTS_MAX // CONTROL_PER_USER_MAX):
        for _ in range(CONTROL_PER_USER_MAX):
            world.callers.enter(uid)
    with pytest.raises(UsageError, match=f"at most {CONTROL_GUESTS_MAX} connections of users"):
        world.callers.enter(77)
    world.callers.leave(1)
    world.callers.enter(77)


def test_a_fleet_without_users_has_none_to_ask() -> None:
    core = SimpleNamespace(sessions=None)
    node: Any = SimpleNamespace(engine=SimpleNamespace(core=core))
    with pytest.raises(ConfigError, match="this node is in open mode"):
        Callers(node, login_name)


def test_names_of_this_machine(tmp_path: Any) -> None:
    assert login_name(0) == "root"
    assert login_name(54_321_987) == ""
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match=r"others cannot enter .*: use chmod o\+x"):
        check_enterable(tmp_path / "control.sock")
