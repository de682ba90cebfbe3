"""Receipts: one form, two signatures, and nothing else is read."""

from math import inf, nan

import msgspec
import pytest

from dhtos.errors import MalformedMessage
from dhtos.trust.keys import KeyPair
from dhtos.trust.receipt import (
    Receipt,
    amounts,
    is_signed_by_host,
    is_signed_by_owner,
    lease_hash,
    read_receipt,
    sign_as_host,
    sign_as_owner,
    write_receipt,
)

HOST, OWNER = KeyPair(b"h" * 32), KeyPair(b"o" * 32)
CLUSTER = b"c" * 20
RECEIPT = Receipt(
    lease_hash(b"t" * 16),
    b"n" * 20,
    "alice",
    OWNER.public,
    amounts({"mem": 2**30, "cores": 4}),
    1_800_000_000.25,
    1_800_000_090.25,
    0.4,
    12.5,
    2.0**31,
)
WIRE = write_receipt(RECEIPT)


def test_it_is_read_as_it_was_written():
    assert read_receipt(WIRE) == RECEIPT
    assert RECEIPT.seconds == 90.0
    assert RECEIPT.cost == pytest.approx(0.01)
    assert msgspec.structs.replace(RECEIPT, price=None).cost == 0.0
    assert RECEIPT.resources == (("cores", 4.0), ("mem", 2.0**30))


def test_a_token_cannot_be_told_from_its_hash():
    assert lease_hash(b"t" * 16) != lease_hash(b"u" * 16)
    assert b"t" * 16 not in WIRE


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lease": b"short"}, "names a lease"),
        ({"node_id": b""}, "names a lease"),
        ({"subject": b"x" * 31}, "names a lease"),
        ({"user": ""}, "names a user"),
        ({"user": "a\nb"}, "names a user"),
        ({"user": "x" * 64}, "names a user"),
        ({"resources": (("mem", 1.0), ("cores", 1.0))}, "in order"),
        ({"resources": (("cores", 1.0), ("cores", 1.0))}, "each once"),
        ({"resources": tuple((f"r{n:02}", 1.0) for n in range(17))}, "at most 16"),
        ({"resources": (("", 1.0),)}, "names its resources"),
        ({"resources": (("cores", -1.0),)}, "0 or more"),
        ({"resources": (("cores", nan),)}, "0 or more"),
        ({"price": inf}, "0 or more"),
        ({"price": -0.1}, "0 or more"),
        ({"cpu_s": -1.0}, "0 or more"),
        ({"memory_byte_s": 1e300}, "0 or more"),
        ({"ended": 1_800_000_000.0}, "begins before it ends"),
    ],
)
def test_what_can_be_no_receipt_is_refused(changes, why):
    with pytest.raises(MalformedMessage, match=why):
        read_receipt(write_receipt(msgspec.structs.replace(RECEIPT, **changes)))


@pytest.mark.parametrize("wire", [b"", b"\xc1", WIRE[:-1], WIRE + b"\x00", b"x" * 1001, b"\x90"])
def test_other_bytes_are_refused(wire):
    with pytest.raises(MalformedMessage, match="receipt"):
        read_receipt(wire)


def test_another_spelling_of_the_same_receipt_is_refused():
    """Who signs bytes signs what they say: there must be one way to say it."""
    fields = list(msgspec.msgpack.decode(WIRE))
    fields[4] = [["cores", 4], ["mem", 2**30]]
    with pytest.raises(MalformedMessage, match="one form"):
        read_receipt(msgspec.msgpack.encode(fields))


def test_each_signature_is_of_one_part_in_one_cluster():
    host, owner = sign_as_host(HOST, CLUSTER, WIRE), sign_as_owner(OWNER, CLUSTER, WIRE)
    assert is_signed_by_host(HOST.public, CLUSTER, WIRE, host)
    assert is_signed_by_owner(OWNER.public, CLUSTER, WIRE, owner)
    assert not is_signed_by_owner(HOST.public, CLUSTER, WIRE, host)
    assert not is_signed_by_host(OWNER.public, CLUSTER, WIRE, owner)
    assert not is_signed_by_host(HOST.public, b"d" * 20, WIRE, host)
    assert not is_signed_by_host(HOST.public, CLUSTER, WIRE + b"x", host)
    assert not is_signed_by_host(OWNER.public, CLUSTER, WIRE, host)
