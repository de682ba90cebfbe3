"""That a record is gone is said by who published it, of one version, in one cluster."""

import pytest
from trust_world import Authority

from dhtos.trust.keys import SIGNATURE_BYTES
from dhtos.trust.leaving import has_left, sign_left

KEY, OTHER = b"k" * 20, b"o" * 20


@pytest.fixture
def authority():
    return Authority()


def test_who_leaves_is_believed_by_members(authority):
    leaver, judge = authority.member("leaver"), authority.member("judge")
    proof = sign_left(leaver, KEY, 7)
    assert len(proof) == SIGNATURE_BYTES
    assert has_left(judge, leaver.key.public, KEY, 7, proof)


def test_it_is_of_one_record_one_version_and_one_key(authority):
    leaver, judge = authority.member("leaver"), authority.member("judge")
    proof, public = sign_left(leaver, KEY, 7), leaver.key.public
    assert not has_left(judge, public, OTHER, 7, proof)
    assert not has_left(judge, public, KEY, 8, proof)
    assert not has_left(judge, authority.member("other").key.public, KEY, 7, proof)
    assert not has_left(judge, public, KEY, 7, b"")
    assert not has_left(judge, b"", KEY, 7, proof)  # of a record without a key
    assert not has_left(Authority(2).member("elsewhere"), public, KEY, 7, proof)


def test_every_bit_of_it_counts(authority):
    leaver = authority.member("leaver")
    proof = sign_left(leaver, KEY, 7)
    for bit in range(0, 8 * SIGNATURE_BYTES, 5):
        changed = bytearray(proof)
        changed[bit // 8] ^= 1 << bit % 8
        assert not has_left(leaver, leaver.key.public, KEY, 7, bytes(changed))
