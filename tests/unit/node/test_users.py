"""Who is believed to be a user: of that name, admitted, neither put out nor ended."""

from typing import Any

import pytest
from trust_world import BEGIN, DAY_S, NODE, USER, Authority

from dhtos.node.control import OPS
from dhtos.node.control_users import user_ops
from dhtos.node.users import read_user, user_to_plain
from dhtos.trust.cert import sign_cert
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


def test_each_op_is_one_that_clients_know() -> None:
    ops: Any = user_ops  # needs no node to be listed
    assert set(ops(None)) <= set(OPS)
