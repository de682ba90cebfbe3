"""Forged records: a hundred thousand mutations of what was signed, and none is believed.

`TRUST_MUTATIONS` says how many are tried; a mutation that decodes to the very same record is none.
"""

import os
from random import Random

import msgspec
import pytest
from trust_world import Authority

from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import check_delta, check_record, make_record
from dhtos.errors import MalformedMessage, OtherSchema
from dhtos.trust.proof import check_proof, proved

MUTATIONS = int(os.environ.get("TRUST_MUTATIONS", "100000"))
SEED = 20
_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode


def machine(rng):
    """What some machine says of itself."""
    cores = rng.choice((2, 4, 8, 64))
    return {
        "cores": cores,
        "mem": cores * 2**32,
        "arch": rng.choice(("x86_64", "arm64")),
        "price": round(rng.uniform(0.01, 3), 4),
        "mem_free": rng.randrange(2**36),
        "load1": round(rng.random() * cores, 2),
        "cpu_free": rng.randrange(100),
    }


def told(member, rng, *, seq=1, **labels):
    """A record as its publisher tells it."""
    record = make_record(
        MACHINE_SCHEMA,
        machine(rng),
        labels,
        node_id=member.chain.node_id(),
        endpoint=(f"10.0.0.{rng.randrange(256)}", 7400),
        seq=seq,
        identity=member.key.public,
        coordinate=(0.01, -0.02, 0.03, 0.0, 0.005, 0.001, 0.3),
    )
    return proved(member, record)


def mutated(value, rng, others):
    """One place of a decoded message is another value, of the same kind more often than not."""
    if isinstance(value, list) and value and rng.random() < 0.97:
        at = rng.randrange(len(value))
        other = rng.choice(others)
        beside = other[at] if isinstance(other, list) and at < len(other) else other
        changed = mutated(value[at], rng, [beside])
        return [*value[:at], changed, *value[at + 1 :]]
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(others)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, value ^ 1 << rng.randrange(40), 0, float(value)))
    if isinstance(value, float):
        return rng.choice((value * 10, -value, value + 1e-9, int(value)))
    if isinstance(value, bytes) and value:
        at = rng.randrange(len(value))
        flipped = value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :]
        return rng.choice((flipped, value[:at], value + b"\0", value[at:] + value[:at]))
    if isinstance(value, str):
        return rng.choice((value + "x", value[:-1], value.upper(), value.swapcase()))
    return rng.choice((None, 0, 1, 0.5, "x", b"", [], True))


def flipped(wire, rng):
    """The bytes of a message, one to three of them changed."""
    spoilt = bytearray(wire)
    for _ in range(rng.randint(1, 3)):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def read(judge, wire):
    """The record that a message carries, if its form is right and it is believed."""
    try:
        record = check_record(MACHINE_SCHEMA, _decode(wire))
    except (MalformedMessage, OtherSchema, msgspec.DecodeError, ValueError, TypeError):
        return None, False
    try:
        check_proof(judge, record)
    except MalformedMessage:
        return record, False
    return record, True


@pytest.fixture(scope="module")
def world():
    """Three members with two versions each, all of which are believed."""
    rng = Random(SEED)
    authority = Authority(SEED)
    members = [authority.member(f"n{n}", groups=("a",) if n else ()) for n in range(3)]
    told_by = [[told(member, rng, seq=seq, team="x") for seq in (1, 2)] for member in members]
    judge = authority.member("judge")
    records = [record for versions in told_by for record in versions]
    for record in records:
        assert read(judge, _encode(record)) == (record, True)
    return authority, judge, members, records


def test_no_mutation_of_a_record_is_believed(world):
    _, judge, _, records = world
    rng = Random(SEED + 1)
    genuine = set(map(_encode, records))
    decoded = [_decode(_encode(record)) for record in records]
    parsed = believed = same = 0
    for number in range(MUTATIONS // 2):
        at = rng.randrange(len(records))
        if number % 2:
            wire = flipped(_encode(records[at]), rng)
        else:
            wire = _encode(mutated(decoded[at], rng, decoded))
        record, accepted = read(judge, wire)
        parsed += record is not None
        if accepted and _encode(record) in genuine:
            same += 1  # of another spelling on the wire, or what another has said
        elif accepted:
            believed += 1
            print(f"believed: {record}")
    print(f"{MUTATIONS // 2} mutations: {parsed} parsed, {same} the same, {believed} believed")
    assert believed == 0
    assert parsed > MUTATIONS // 10  # the signature had to decide, not only the form


def test_no_mutation_of_a_change_is_believed(world):
    _, judge, members, records = world
    rng = Random(SEED + 2)
    pairs = []
    for member, held in zip(members, records[1::2], strict=True):
        for seq in (3, 4):
            dynamic = tuple(None if v is None else v * 0.5 for v in held.dynamic)
            dynamic = tuple(int(v) if v is not None and v == int(v) else v for v in dynamic)
            changed = proved(member, held.updated(seq, dynamic, held.coordinate))
            wire = _decode(_encode(changed.delta(MACHINE_SCHEMA)))
            applied = held.apply(check_delta(MACHINE_SCHEMA, wire))
            assert applied == changed
            check_proof(judge, applied)
            pairs.append((held, wire, changed))
    wires = [wire for _, wire, _ in pairs]
    genuine = {_encode(changed) for _, _, changed in pairs}
    applied_count = believed = same = 0
    for number in range(MUTATIONS // 2):
        held, wire, _ = rng.choice(pairs)
        try:
            if number % 2:
                spoilt = _decode(flipped(_encode(wire), rng))
            else:
                spoilt = mutated(wire, rng, wires)
            delta = check_delta(MACHINE_SCHEMA, spoilt)
            if delta.rev != held.rev or delta.seq <= held.seq:
                continue  # a holder does not look at it
            record = held.apply(delta)
            applied_count += 1
            check_proof(judge, record)
        except (MalformedMessage, msgspec.DecodeError, ValueError, TypeError):
            continue
        if _encode(record) in genuine:
            same += 1
        else:
            believed += 1
            print(f"believed: {record}")
    print(
        f"{MUTATIONS // 2} mutations of changes: {applied_count} applied, {same} the same, "
        f"{believed} believed"
    )
    assert believed == 0
    assert applied_count > MUTATIONS // 20


def test_nothing_of_another_cluster_is_believed():
    """A thousand records, all in order where they come from."""
    rng = Random(SEED)
    here, elsewhere = Authority(1), Authority(2)
    judge, theirs = here.member("judge"), elsewhere.member("judge")
    believed = 0
    for number in range(1000):
        record = told(elsewhere.member(f"n{number}"), rng)
        check_proof(theirs, record)
        believed += read(judge, _encode(record))[1]
    print(f"{believed} of 1000 records of another cluster believed")
    assert believed == 0
