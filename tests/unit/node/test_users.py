"""Who is believed to be a user: of that name, admitted, neither put out nor ended."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from trust_world import BEGIN, DAY_S, NODE, USER, Authority

from dhtos.errors import KeyNotFound, LookupExpired
from dhtos.node.control import OPS
from dhtos.node.control_users import user_ops
from dhtos.node.users import find_user, read_user, user_to_plain
from dhtos.trust.cert import Chain, sign_cert
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import revoke

ALICE, OTHER = KeyPair(bytes([1]) * 32), KeyPair(bytes([2]) * 32)


@pytest.fixture
def authority() -> Authority:
    return Authority(3)


@pytest.fixture
def reader(authority: Authority) -> Any:
    """A member that has never met alice."""
    return authority.member("reader")


def test_a_user_of_the_name_is_believed(authority: Authority, reader: Any) -> None:
    chain = authority.admit(ALICE, "alice", caps=USER, groups=("lab",), days=1)
    assert read_user(reader, "alice", chain.wire) == chain
    assert user_to_plain(chain) == {
        "name": "alice",
        "groups": ["lab"],
        "caps": list(USER),
        "begins": BEGIN - DAY_S,
        "expires": BEGIN + DAY_S,
        "issuer": "issuer",
        "serial": chain.leaf.serial.hex(),
        "subject": ALICE.public.hex(),
    }


def test_others_under_the_name_are_not(authority: Authority, reader: Any) -> None:
    bob = authority.admit(OTHER, "bob", caps=USER)
    node = authority.admit(OTHER, "alice", caps=NODE)
    alice = authority.admit(ALICE, "alice", caps=USER)
    lent = sign_cert(ALICE, alice, authority.cert(OTHER, "alice", caps=("query",), days=20))
    foreign = Authority(4).admit(ALICE, "alice", caps=USER)
    issuer = authority.chain
    for chain in (bob, node, lent, foreign, issuer):
        assert read_user(reader, "alice", chain.wire) is None, chain.leaf.name
    assert read_user(reader, "issuer", issuer.wire) is None
    for junk in (b"", b"\xc0", alice.wire[:-1], "alice", 7, None):
        assert read_user(reader, "alice", junk) is None


def test_who_was_put_out_or_has_ended_is_nobody(authority: Authority, reader: Any) -> None:
    alice = authority.admit(ALICE, "alice", caps=USER, days=30)
    ended = authority.admit(ALICE, "alice", caps=USER, days=-0.5)
    assert read_user(reader, "alice", ended.wire) is None
    assert read_user(reader, "alice", alice.wire) is not None
    taken = revoke(authority.key, authority.name, alice.leaf.serial, alice.leaf.expires)
    assert reader.revoke(taken)
    assert read_user(reader, "alice", alice.wire) is None


class Network:
    """What a node finds: of each issuer a chain, nothing, or nobody who answers."""

    def __init__(self, member: Any, said: dict[bytes, Any]) -> None:
        sessions = SimpleNamespace(member=member)
        self.engine = SimpleNamespace(core=SimpleNamespace(sessions=sessions))
        self.said = said

    async def get(self, key: str, *, owner: bytes, paths: int) -> Any:
        assert key == "user:alice"
        found = self.said.get(owner, KeyNotFound("nothing"))
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(value=found)


async def test_all_issuers_are_heard_and_the_newest_counts(
    authority: Authority, reader: Any
) -> None:
    """One that nobody reaches hides no other; where none has said anything, that is told."""
    second = KeyPair(bytes([9]) * 32)
    cert = authority.cert(second, "second", caps=(*NODE, "issue", "admin"), days=300)
    other = sign_cert(authority.root, None, cert)
    reader.read(other.wire)
    old = authority.admit(ALICE, "alice", caps=USER)
    fresh = msgspec.structs.replace(
        authority.cert(OTHER, "alice", caps=USER, days=2), not_before=BEGIN - 60
    )
    new = sign_cert(second, other, fresh)
    ours, theirs = authority.key.public, second.public

    async def found(said: dict[bytes, Any]) -> Chain | None:
        node: Any = Network(reader, said)
        return await find_user(node, "alice")

    assert await found({ours: old.wire, theirs: new.wire}) == new
    assert await found({ours: old.wire}) == old
    assert await found({ours: old.wire, theirs: LookupExpired("nobody answered")}) == old
    assert await found({ours: b"junk", theirs: new.wire}) == new
    assert await found({}) is None
    with pytest.raises(LookupExpired):
        await found({theirs: LookupExpired("nobody answered")})


def test_each_op_is_one_that_clients_know() -> None:
    ops: Any = user_ops  # needs no node to be listed
    assert set(ops(None)) <= set(OPS)
