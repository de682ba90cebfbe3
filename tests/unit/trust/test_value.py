"""The proof of a value: what its owner signed, and nothing that others made of it."""

import random

import msgspec
import pytest
from trust_world import BEGIN, DAY_S, USER, Authority

from dhtos.core.limits import VALUE_TTL_S
from dhtos.errors import MalformedMessage
from dhtos.trust.cert import CLOCK_SKEW_S, sign_cert
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import revoke
from dhtos.trust.value import (
    NOTHING,
    PROOF_BYTES_MAX,
    SALT_BYTES_MAX,
    check_value,
    is_believed,
    owned_key,
    sign_value,
)

KEY = bytes(range(20))
VALUE = msgspec.msgpack.encode("a value")
END = BEGIN + 3600


@pytest.fixture
def authority():
    return Authority(3)


@pytest.fixture
def owner(authority):
    return authority.member("owner", groups=("lab",))


@pytest.fixture
def reader(authority):
    """Who has never met anybody."""
    return authority.member("reader")


def said(owner, key=KEY, value=VALUE, **what):
    return sign_value(owner, key, value, **{"seq": 5, "expires": END, **what})


def refused(reader, proof, key=KEY, value=VALUE):
    with pytest.raises(MalformedMessage) as refusal:
        check_value(reader, key, value, proof)
    return str(refusal.value)


def remade(one, **fields):
    """The proof with other fields, and the signature that it had."""
    names = ("seq", "expires", "salt", "gone", "signature", "chain")
    was = dict(zip(names, msgspec.msgpack.decode(one.proof), strict=True))
    return msgspec.msgpack.encode([(was | fields)[name] for name in names])


class TestBelieved:
    def test_who_reads_it_learns_what_the_owner_said(self, owner, reader):
        one = check_value(reader, KEY, VALUE, said(owner).proof)
        assert (one.seq, one.expires, one.salt, one.gone) == (5, END, None, False)
        assert one.owner.subject == owner.key.public
        assert (one.owner.name, one.owner.groups) == ("owner", ("lab",))
        assert one == said(owner)

    def test_an_owned_one_is_under_the_key_of_its_owner(self, owner, reader):
        key = owned_key(owner.key.public, b"salt")
        one = said(owner, key=key, salt=b"salt")
        assert check_value(reader, key, VALUE, one.proof).salt == b"salt"

    def test_its_life_ends_with_the_certificate(self, authority, reader):
        owner = authority.member("owner", days=0.01)
        one = said(owner)
        assert one.expires == owner.chain.expires < END
        check_value(reader, KEY, VALUE, one.proof)

    def test_one_that_is_gone(self, owner, reader):
        one = said(owner, value=NOTHING, gone=True)
        assert check_value(reader, KEY, NOTHING, one.proof).gone

    def test_the_longest_proof_that_there_is(self, authority, reader):
        groups = tuple(f"{n:032}" for n in range(5))
        owner = authority.member("n" * 63, groups=groups)
        salt = bytes(SALT_BYTES_MAX)
        one = said(owner, key=owned_key(owner.key.public, salt), salt=salt, seq=2**63 - 1)
        print(f"{len(said(authority.member('n')).proof)} to {len(one.proof)} bytes")
        assert len(one.proof) <= PROOF_BYTES_MAX


class TestRefused:
    def test_another_key_value_or_cluster(self, authority, owner, reader):
        proof = said(owner).proof
        assert "signed" in refused(reader, proof, key=bytes(20))
        assert "signed" in refused(reader, proof, value=msgspec.msgpack.encode("another"))
        assert "another cluster" in refused(Authority(4).member(), proof)
        stranger = Authority(4)
        foreign = said(stranger.member()).proof
        assert "another cluster" in refused(reader, foreign)

    def test_the_signature_is_for_this_cluster_alone(self, authority, owner, reader):
        """Also if the same owner is in both: it signs the name of the one it means."""
        elsewhere = authority.holder(owner.key, owner.chain)
        elsewhere.root = bytes(20)
        assert "signed" in refused(reader, said(elsewhere).proof)

    def test_whatever_is_changed(self, owner, reader):
        one = said(owner)
        assert remade(one) == one.proof
        for change in (
            {"seq": 6},
            {"expires": END + 1},
            {"expires": END - 1},
            {"salt": b""},
            {"signature": bytes(64)},
            {"signature": b""},
        ):
            refused(reader, remade(one, **change))
        assert "gone" in refused(reader, remade(one, gone=True))
        assert "signed" in refused(reader, remade(one, gone=True), value=NOTHING)

    def test_every_bit_and_every_truncation(self, owner, reader):
        proof = said(owner).proof
        for at in range(len(proof)):
            refused(reader, proof[:at])
            flipped = proof[:at] + bytes([proof[at] ^ 1 << at % 8]) + proof[at + 1 :]
            refused(reader, flipped)
        refused(reader, proof + b"\0")

    def test_random_bytes(self, reader):
        rng = random.Random(9)
        for _ in range(500):
            refused(reader, rng.randbytes(rng.randrange(600)))
        refused(reader, bytes(PROOF_BYTES_MAX + 1))

    def test_a_second_spelling(self, owner, reader):
        """A number in nine bytes instead of one says the same, in another proof."""
        proof = said(owner).proof
        assert proof[:2] == b"\x96\x05"
        longer = b"\x96\xcf" + (5).to_bytes(8) + proof[2:]
        assert msgspec.msgpack.decode(longer) == msgspec.msgpack.decode(proof)
        assert "one encoding" in refused(reader, longer)

    def test_a_key_of_another_owner(self, authority, owner, reader):
        liar = authority.member("liar")
        key = owned_key(owner.key.public, b"salt")
        assert "another owner" in refused(reader, said(liar, key=key, salt=b"salt").proof, key=key)
        assert "another owner" in refused(reader, said(liar, key=key, salt=b"").proof, key=key)

    def test_the_chain_of_another(self, authority, owner, reader):
        liar = authority.member("liar")
        assert "signed" in refused(reader, remade(said(liar), chain=owner.chain.wire))

    def test_who_may_not_publish(self, authority, reader):
        user = authority.member("user", caps=USER)
        assert "may not publish" in refused(reader, said(user).proof)

    def test_a_delegate(self, authority, owner, reader):
        key = KeyPair(bytes(32))
        cert = authority.cert(key, "job", caps=("query",), days=1)
        job = authority.holder(key, sign_cert(owner.key, owner.chain, cert))
        assert "may not publish" in refused(reader, said(job).proof)

    def test_no_number_and_a_salt_too_long(self, owner, reader):
        assert "version" in refused(reader, said(owner, seq=0).proof)
        assert "salt" in refused(reader, remade(said(owner), salt=bytes(65)))


class TestTime:
    def test_what_has_ended(self, authority, owner):
        one = said(owner)
        late = authority.member("late", now=3600.0)
        assert "lives" in refused(late, one.proof)
        assert not is_believed(late, one)
        check_value(authority.member("just", now=3599.0), KEY, VALUE, one.proof)

    def test_nobody_says_more_than_a_week(self, owner, reader):
        most = int(BEGIN + VALUE_TTL_S + CLOCK_SKEW_S + 1)
        check_value(reader, KEY, VALUE, said(owner, expires=most).proof)
        assert "week" in refused(reader, said(owner, expires=most + 1).proof)

    def test_nor_a_life_beyond_the_certificate(self, authority, reader):
        """Whatever clock the owner has: it signs what it likes, and is not believed."""
        owner = authority.member("owner", days=0.01)
        long = authority.holder(owner.key, authority.admit(owner.key, "owner", days=1))
        proof = remade(said(long, expires=END), chain=owner.chain.wire)
        assert "outlives" in refused(reader, proof)

    def test_a_certificate_that_ended(self, authority):
        owner = authority.member("owner", days=1)
        one = said(owner, expires=BEGIN + 2 * DAY_S)
        assert not is_believed(authority.member("late", now=DAY_S + CLOCK_SKEW_S + 1), one)


def test_whom_is_revoked_is_believed_no_more(authority, owner, reader):
    one = said(owner)
    assert is_believed(reader, one)
    cert = owner.chain.leaf
    assert reader.revoke(revoke(authority.root, authority.name, cert.serial, cert.expires))
    assert not is_believed(reader, one)
    assert "revoked" in refused(reader, one.proof)


def test_owned_keys_are_spread_and_apart():
    one, two = bytes(32), bytes([1]) * 32
    keys = {owned_key(public, salt) for public in (one, two) for salt in (b"", b"a", b"b")}
    assert len(keys) == 6
    assert all(len(key) == 20 for key in keys)
