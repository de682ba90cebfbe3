"""Revocations: their form, and whose word they are."""

import msgspec
import pytest

from dhtos.errors import MalformedMessage
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import (
    REVOCATION_BYTES_MAX,
    Revocation,
    is_signed,
    read_revocation,
    revoke,
    write_revocation,
)

KEY, OTHER = KeyPair(b"k" * 32), KeyPair(b"o" * 32)
CLUSTER = b"c" * 20
TOLD = revoke(KEY, CLUSTER, b"s" * 8, 2_000_000_000)


def changed(**fields):
    return msgspec.structs.replace(TOLD, **fields)


def test_it_comes_back():
    wire = write_revocation(TOLD)
    assert read_revocation(wire) == TOLD
    assert len(wire) <= REVOCATION_BYTES_MAX
    assert is_signed(TOLD, CLUSTER)


@pytest.mark.parametrize(
    "told",
    [
        changed(serial=b"t" * 8),
        changed(expires=2_000_000_001),
        changed(signer=OTHER.public),
        changed(signature=bytes(64)),
        changed(signature=KEY.sign(b"revoked", b"")),
    ],
)
def test_what_was_changed_is_not_signed(told):
    assert not is_signed(told, CLUSTER)


def test_it_holds_in_one_cluster():
    assert not is_signed(TOLD, b"d" * 20)


@pytest.mark.parametrize(
    "told",
    [
        changed(serial=b"short"),
        changed(signer=b"short"),
        changed(signature=b"short"),
        changed(expires=0),
        changed(expires=-1),
        changed(expires=2**53),
        [],
        [b"s" * 8, 1],
        {},
        "text",
    ],
)
def test_what_is_none(told):
    with pytest.raises(MalformedMessage):
        read_revocation(msgspec.msgpack.encode(told))


def test_bytes_that_are_none():
    wire = write_revocation(TOLD)
    for length in range(len(wire)):
        with pytest.raises(MalformedMessage):
            read_revocation(wire[:length])
    with pytest.raises(MalformedMessage):
        read_revocation(wire + b"\0")
    assert isinstance(read_revocation(wire), Revocation)
