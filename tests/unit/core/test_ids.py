"""Ids and prefixes: the geometry everything else stands on."""

import pickle
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhtos.core.contact import Contact
from dhtos.core.ids import (
    ID_BITS,
    ID_BYTES,
    NodeId,
    Prefix,
    common_prefix_bits,
    digest,
    distance,
    random_id,
)

KEYS = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)
LENGTHS = st.integers(0, ID_BITS)


def test_digest_is_sha1_of_the_text_or_bytes() -> None:
    assert digest("abc").hex() == "a9993e364706816aba3e25717850c26c9cd0d89d"
    assert digest("abc") == digest(b"abc")


def test_random_ids_come_from_the_generator() -> None:
    assert random_id(Random(1)) == random_id(Random(1))
    assert len(random_id(Random(1))) == ID_BYTES


@given(KEYS, KEYS, KEYS)
def test_xor_is_a_metric(a: bytes, b: bytes, c: bytes) -> None:
    assert distance(a, a) == 0
    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert (distance(a, b) == 0) == (a == b)


@given(KEYS, KEYS)
def test_shared_bits_are_where_the_prefixes_part(a: bytes, b: bytes) -> None:
    bits = common_prefix_bits(a, b)
    assert Prefix.of(a, bits) == Prefix.of(b, bits)
    if bits < ID_BITS:
        assert Prefix.of(a, bits + 1) == Prefix.of(b, bits + 1).sibling()
    else:
        assert a == b


@given(KEYS, KEYS, LENGTHS)
def test_a_prefix_holds_exactly_the_range_of_its_ends(key: bytes, other: bytes, n: int) -> None:
    prefix = Prefix.of(key, n)
    assert prefix.holds(key)
    assert prefix.first <= key <= prefix.last
    assert prefix.holds(other) == (prefix.first <= other <= prefix.last)
    assert prefix.holds(other) == (common_prefix_bits(key, other) >= n)


@given(KEYS, LENGTHS, LENGTHS)
def test_covering_is_being_an_ancestor(key: bytes, m: int, n: int) -> None:
    wide, narrow = Prefix.of(key, min(m, n)), Prefix.of(key, max(m, n))
    assert wide.covers(narrow)
    assert narrow.covers(wide) == (m == n)
    if wide.length:
        assert not wide.sibling().covers(narrow)


@given(KEYS, st.integers(1, ID_BITS))
def test_family_ties(key: bytes, n: int) -> None:
    prefix = Prefix.of(key, n)
    parent = prefix.parent()
    assert {prefix, prefix.sibling()} == {parent.child(0), parent.child(1)}
    assert prefix.sibling().sibling() == prefix


@given(KEYS, LENGTHS)
def test_the_wire_form_comes_back(key: bytes, n: int) -> None:
    prefix = Prefix.of(key, n)
    assert Prefix.from_wire(prefix.to_wire()) == prefix
    assert len(str(prefix)) == n


@pytest.mark.parametrize(
    "wire",
    [None, [], [8], [8, b""], [8, bytes(2)], [161, bytes(21)], [-1, b""], ["8", b"\x00"], [True]],
)
def test_a_strange_prefix_is_refused(wire: object) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Prefix.from_wire(wire)


def test_node_ids_are_values() -> None:
    one, two = NodeId(bytes(20)), NodeId(b"\x01" + bytes(19))
    assert one < two
    assert one == NodeId.from_hex("0" * 40)
    assert len({one, NodeId(bytes(20))}) == 1
    assert bytes(two)[0] == 1
    assert str(two).startswith("01")
    assert pickle.loads(pickle.dumps(two)) == two
    assert eval(repr(two), {"NodeId": NodeId}) == two
    assert one != bytes(20)


@pytest.mark.parametrize("text", ["", "xyz", "00", "0" * 41])
def test_a_bad_node_id_says_what_one_is(text: str) -> None:
    with pytest.raises(ValueError, match="40 hexadecimal digits"):
        NodeId.from_hex(text)


def test_a_contact_is_the_stock_triple() -> None:
    assert Contact(bytes(20), ("192.0.2.1", 7400)).to_wire() == [bytes(20), "192.0.2.1", 7400]
