"""The proof of a record: who said so, and what is not believed."""

from random import Random

import msgspec
import pytest
from trust_world import BEGIN, DAY_S, USER, Authority

from dhtos.core.limits import RECORD_BYTES_MAX
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import check_delta, check_record, make_record, record_size, row_id
from dhtos.errors import MalformedMessage, ValueTooLarge
from dhtos.trust.keys import SIGNATURE_BYTES
from dhtos.trust.proof import check_proof, proved
from dhtos.trust.token import domain

HERE = ("192.0.2.1", 7400)


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def judge(authority):
    return authority.member("judge")


def record_of(member, *, row="", **changes):
    """What a member says, not signed yet."""
    identity = member.key.public
    values = {
        "attributes": {"cores": 8, "mem": 2**34, "load1": 0.5, "arch": "x86_64"},
        "labels": {"team": "blue"},
        "node_id": row_id(identity, row) if row else member.chain.node_id(),
        "endpoint": HERE,
        "seq": 7,
        "identity": identity,
        "row": row,
        **changes,
    }
    attributes, labels = values.pop("attributes"), values.pop("labels")
    return make_record(MACHINE_SCHEMA, attributes, labels, **values)


def refused(judge, record, why):
    with pytest.raises(MalformedMessage, match=why):
        check_proof(judge, record)


def test_what_was_signed_is_believed(authority, judge):
    member = authority.member("node")
    record = proved(member, record_of(member))
    check_proof(judge, record)
    assert proved(member, record) == record  # the same each time, and signed once only
    assert record_size(record) - record_size(record_of(member)) < 260
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(record))
    assert check_record(MACHINE_SCHEMA, wire) == record


def test_a_change_is_signed_too(authority, judge):
    member = authority.member("node")
    first = proved(member, record_of(member))
    later = proved(member, first.updated(8, first.dynamic[::-1], None))
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(later.delta(MACHINE_SCHEMA)))
    held = first.apply(check_delta(MACHINE_SCHEMA, wire))
    assert held == later
    check_proof(judge, held)
    unsigned = msgspec.structs.replace(later.delta(MACHINE_SCHEMA), signature=b"")
    refused(judge, first.apply(unsigned), "not signed")
    old = msgspec.structs.replace(
        later.delta(MACHINE_SCHEMA), signature=first.proof[:SIGNATURE_BYTES]
    )
    refused(judge, first.apply(old), "not what its publisher signed")


def test_a_gateway_signs_for_its_rows(authority, judge):
    gateway = authority.member("gateway")
    check_proof(judge, proved(gateway, record_of(gateway, row="machine-1")))
    other = authority.member("other")
    theirs = record_of(other, row="machine-1")
    mine = proved(gateway, record_of(gateway, row="machine-1"))
    refused(judge, msgspec.structs.replace(theirs, proof=mine.proof), "another than its publisher")


@pytest.mark.parametrize("proof", [b"", b"x", bytes(64)])
def test_what_is_not_signed(authority, judge, proof):
    record = msgspec.structs.replace(record_of(authority.member("node")), proof=proof)
    refused(judge, record, "not signed")


def test_nobody_speaks_for_another(authority, judge):
    victim, liar = authority.member("victim"), authority.member("liar")
    # Its own signature under the other's identity.
    record = record_of(victim)
    signature = liar.key.sign(domain(b"record", liar.root), msgspec.msgpack.encode(record))
    forged = msgspec.structs.replace(record, proof=signature + liar.chain.link)
    refused(judge, forged, "another than its publisher")
    # And with the other's certificate, which everybody has.
    forged = msgspec.structs.replace(record, proof=signature + victim.chain.link)
    refused(judge, forged, "not what its publisher signed")
    # Its own identity under the other's id.
    stolen = record_of(liar, node_id=victim.chain.node_id())
    refused(judge, proved(liar, stolen), "the id of another node")


def test_a_signature_for_something_else_is_none(authority, judge):
    member = authority.member("node")
    record = record_of(member)
    text = msgspec.msgpack.encode(record)
    for kind in (b"cert", b"revoked", b"recor", b"records"):
        signature = member.key.sign(domain(kind, member.root), text)
        forged = msgspec.structs.replace(record, proof=signature + member.chain.link)
        refused(judge, forged, "not what its publisher signed")


def test_users_publish_nothing(authority, judge):
    user = authority.member("user", caps=USER)
    record = record_of(user)
    signature = user.key.sign(domain(b"record", user.root), msgspec.msgpack.encode(record))
    forged = msgspec.structs.replace(record, proof=signature + user.chain.link)
    refused(judge, forged, "another than its publisher")


def test_another_cluster_is_not_believed(authority):
    """Its records, its issuers, and the same member admitted to both."""
    member = authority.member("node")
    record = proved(member, record_of(member))
    foreign = Authority(2)
    elsewhere = foreign.member("judge")
    refused(elsewhere, record, "an issuer that is not known here")
    twice = foreign.holder(member.key, foreign.admit(member.key, "node"))
    proof = record.proof[:SIGNATURE_BYTES] + twice.chain.link
    replayed = msgspec.structs.replace(record, node_id=twice.chain.node_id(), proof=proof)
    refused(elsewhere, replayed, "not what its publisher signed")


def test_a_record_ends_with_its_certificate(authority):
    member = authority.member("node", days=1)
    record = proved(member, record_of(member))
    judge = authority.member("judge")
    check_proof(judge, record)
    judge.wall_s = lambda: BEGIN + DAY_S + 91
    refused(judge, record, "ended 91 s ago")
    check_proof(authority.member("judge", now=DAY_S + 89), record)


def test_a_record_that_is_too_long_with_its_proof(authority):
    member = authority.member("node", groups=("a" * 32, "b" * 32, "c" * 32))
    labels = {f"label-{n:02}": "x" * 30 for n in range(16)}
    record = record_of(member, labels=labels)
    assert record_size(record) <= RECORD_BYTES_MAX
    with pytest.raises(ValueTooLarge, match="of its certificate: shorten texts or labels"):
        proved(member, record)


@pytest.mark.parametrize("seed", range(3))
def test_every_bit_of_a_proof_counts(authority, judge, seed):
    rng = Random(seed)
    member = authority.member("node")
    record = proved(member, record_of(member))
    for at in range(len(record.proof)):
        spoilt = bytearray(record.proof)
        spoilt[at] ^= 1 << rng.randrange(8)
        refused(judge, msgspec.structs.replace(record, proof=bytes(spoilt)), ".")
