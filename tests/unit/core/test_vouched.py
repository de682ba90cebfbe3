"""What a certificate says of a machine, and what questions about it mean."""

import msgspec
import pytest
from trust_world import Authority

from dhtos.core.ids import Prefix
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.predicate import EVERYTHING, Attested, Box, Exists, Predicate
from dhtos.core.record import make_record, row_id
from dhtos.core.vouched import groups_of, values_of
from dhtos.trust.proof import proved

SCHEMA = MACHINE_SCHEMA


def record_of(*groups, row=""):
    """What a member of these groups says of itself, or of a machine without a node."""
    member = Authority().member("node", groups=groups)
    identity = member.key.public
    found = make_record(
        SCHEMA,
        {"cores": 8},
        {"site": "eu-1"},  # what it says itself is no matter
        node_id=row_id(identity, row) if row else member.chain.node_id(),
        endpoint=("10.0.0.1", 7400),
        seq=1,
        identity=identity,
        row=row,
    )
    return proved(member, found)


def test_groups_are_those_of_the_certificate_in_the_proof():
    assert groups_of(record_of("gpu", "site.eu-1")) == ("gpu", "site.eu-1")
    assert groups_of(record_of()) == ()


def test_nobody_vouches_in_open_mode_and_for_what_runs_no_node():
    assert groups_of(msgspec.structs.replace(record_of("gpu"), proof=b"")) is None
    assert groups_of(record_of("gpu", row="ups-1")) is None


@pytest.mark.parametrize("link", [b"", b"x" * 200, b"\x92\xa1x\xa1y", b"\x92\xc4\x01\xc0\xc4\x00"])
def test_what_is_no_certificate_says_nothing(link):
    record = msgspec.structs.replace(record_of("gpu"), proof=bytes(64) + link)
    assert groups_of(record) is None
    assert not Predicate((Box((Attested("gpu", negated=True),)),)).bind(SCHEMA).matches(record)


def test_values_of_a_name():
    groups = ("gpu", "site.eu-1", "team.a", "team.b", "gpux", "rack.7.left", "team")
    assert values_of("gpu", groups) == [""]
    assert values_of("site", groups) == ["eu-1"]
    assert values_of("team", groups) == ["a", "b", ""]
    assert values_of("rack", groups) == ["7.left"]
    assert values_of("rack.7", groups) == ["left"]
    assert values_of("gp", groups) == values_of("eu-1", groups) == values_of("", groups) == []


TEAMS = ("gpu", "site.eu-1", "team.a", "team.b")
CASES = [
    (Attested("gpu"), True),
    (Attested("gpu", negated=True), False),
    (Attested("tpu"), False),
    (Attested("tpu", negated=True), True),
    (Attested("site", ("eu-1",)), True),
    (Attested("site", ("eu-2", "eu-1")), True),
    (Attested("site", ("eu-2",)), False),
    (Attested("site", ("eu-2",), negated=True), True),
    (Attested("site", ("eu-1",), negated=True), False),
    (Attested("rack", ("7",)), False),
    (Attested("rack", ("7",), negated=True), False),  # it says nothing of a rack
    (Attested("team", ("b",)), True),
    (Attested("team", ("b",), negated=True), False),  # also where it says something else too
    (Attested("team", ("c",), negated=True), True),
]


@pytest.mark.parametrize(("term", "matches"), CASES, ids=repr)
def test_a_term_about_a_certificate(term, matches):
    bound = Predicate((Box((term,)),)).bind(SCHEMA)
    assert bound.matches(record_of(*TEAMS)) is matches
    plain = msgspec.structs.replace(record_of(*TEAMS), proof=b"")
    assert not bound.matches(plain)
    assert bound.matches(plain, groups=TEAMS) is matches


def test_it_is_one_condition_of_a_box():
    cores = SCHEMA.index("cores")
    gpu = Attested("gpu")
    assert Predicate((Box((Exists(cores), gpu)),)).bind(SCHEMA).matches(record_of("gpu"))
    missing = Exists(cores, negated=True)
    assert not Predicate((Box((missing, gpu)),)).bind(SCHEMA).matches(record_of("gpu"))
    assert Predicate((Box((missing,)), Box((gpu,)))).bind(SCHEMA).matches(record_of("gpu"))


def test_where_nobody_vouches_a_forged_proof_says_nothing():
    """Open mode checks no proofs: whoever makes one up must not match by it."""
    forged, cores = record_of("gpu"), SCHEMA.index("cores")
    asked = Predicate((Box((Attested("gpu"),)), Box((Exists(cores, negated=True),))))
    assert asked.is_about_certificates
    assert asked.bind(SCHEMA).matches(forged)
    assert not asked.bind(SCHEMA, vouched=False).matches(forged)
    either = Predicate((Box((Attested("gpu"),)), Box((Exists(cores),))))
    assert either.bind(SCHEMA, vouched=False).matches(forged)
    nothing = Predicate((Box((Attested("gpu"),)),)).bind(SCHEMA, vouched=False)
    assert not nothing.matches(forged)
    assert not nothing.intersects(Prefix.of(forged.key(SCHEMA), 8))
    assert not EVERYTHING.is_about_certificates
    assert EVERYTHING.bind(SCHEMA, vouched=False).matches(forged)
