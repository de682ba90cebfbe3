"""Signatures count for one key, one purpose and one message; keys that are none are refused."""

import pickle

import pytest
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.signing import SigningKey

from dhtos.trust.keys import KeyPair, exchange_public, verify

ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group (RFC 8032, section 5.1)
FIELD = 2**255 - 19
# Every point of small order: of 1, 2, 4 and 8, with the spellings that go over the field.
SMALL = [
    value.to_bytes(32, "little")
    for y in (
        0,
        1,
        FIELD - 1,
        FIELD,
        FIELD + 1,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    )
    for value in (y, y | 1 << 255)
]
PAIR = KeyPair(bytes(range(32)))
OTHER = KeyPair(bytes(32))
MESSAGE = b"what is signed"


def test_the_key_of_rfc_8032():
    """Test 1 of section 7.1; the domain makes our signatures others than the RFC's."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    pair = KeyPair(seed)
    assert pair.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_what_is_signed_is_as_told():
    """Any Ed25519 library can make and check it."""
    signature = PAIR.sign(b"record", MESSAGE)
    assert signature == SigningKey(PAIR.seed).sign(b"dhtos/1 record\0" + MESSAGE).signature
    assert len(signature) == 64
    assert PAIR.sign(b"record", MESSAGE) == signature
    assert verify(PAIR.public, signature, b"record", MESSAGE)


@pytest.mark.parametrize(
    ("public", "domain", "message"),
    [
        (OTHER.public, b"record", MESSAGE),
        (PAIR.public, b"cert", MESSAGE),
        (PAIR.public, b"recor", b"d" + MESSAGE),
        (PAIR.public, b"record", MESSAGE + b"\0"),
        (PAIR.public, b"record", b""),
        (PAIR.public, b"", b"record\0" + MESSAGE),
    ],
)
def test_a_signature_serves_nothing_else(public, domain, message):
    assert not verify(public, PAIR.sign(b"record", MESSAGE), domain, message)


def test_every_bit_counts():
    signature = PAIR.sign(b"record", MESSAGE)
    for bit in range(512):
        changed = (int.from_bytes(signature) ^ 1 << bit).to_bytes(64)
        assert not verify(PAIR.public, changed, b"record", MESSAGE), bit
    for bit in range(256):
        changed = (int.from_bytes(PAIR.public) ^ 1 << bit).to_bytes(32)
        assert not verify(changed, signature, b"record", MESSAGE), bit


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_keys_of_other_lengths_sign_nothing(length):
    signature = PAIR.sign(b"record", MESSAGE)
    assert not verify((PAIR.public * 2)[:length], signature, b"record", MESSAGE)
    assert exchange_public((PAIR.public * 2)[:length]) is None


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128])
def test_signatures_of_other_lengths_are_none(length):
    signature = (PAIR.sign(b"record", MESSAGE) * 2)[:length]
    assert not verify(PAIR.public, signature, b"record", MESSAGE)


def test_a_longer_signature_does_not_eat_the_message():
    """The bytes of both stand side by side when they are checked."""
    signature = PAIR.sign(b"record", MESSAGE)
    assert not verify(PAIR.public, signature + b"dhtos/1 ", b"record", MESSAGE)
    assert not verify(PAIR.public, signature[:-1], b"record", MESSAGE)


@pytest.mark.parametrize("key", SMALL, ids=bytes.hex)
def test_keys_of_small_order_are_no_keys(key):
    """With one of them a signature of zeros counts for every eighth message, or for all."""
    for number in range(16):
        assert not verify(key, key + bytes(32), b"record", bytes([number]))
        assert not verify(key, bytes(64), b"record", bytes([number]))
    assert exchange_public(key) is None


def test_a_signature_has_one_spelling():
    """S + L would be a second one (RFC 8032, section 8.4)."""
    signature = PAIR.sign(b"record", MESSAGE)
    s = int.from_bytes(signature[32:], "little") + ORDER
    assert not verify(PAIR.public, signature[:32] + s.to_bytes(32, "little"), b"record", MESSAGE)


@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_a_key_has_one_spelling(sign):
    """y and y + p are the same number to the curve; those y that fit twice are no keys at all."""
    for y in range(19):
        assert exchange_public((y + sign).to_bytes(32, "little")) is None
        assert exchange_public((y + FIELD + sign).to_bytes(32, "little")) is None


def test_a_key_moved_by_a_point_of_order_two_is_none():
    """(-x, -y), which libsodium took for a key until the end of 2025 (CVE-2025-69277)."""
    for pair in (PAIR, OTHER):
        number = int.from_bytes(pair.public, "little")
        sign, y = number >> 255, number % 2**255
        moved = (FIELD - y) | (1 - sign) << 255
        assert exchange_public(moved.to_bytes(32, "little")) is None


def test_numbers_that_are_no_point_are_no_keys():
    kinds = {exchange_public(bytes([n]) + bytes(31)) is None for n in range(64)}
    assert kinds == {True, False}, "about half of all numbers are"


def test_both_ends_agree_on_the_exchange():
    assert crypto_scalarmult_base(PAIR.exchange_secret) == exchange_public(PAIR.public)
    ours = crypto_scalarmult(PAIR.exchange_secret, exchange_public(OTHER.public) or b"")
    theirs = crypto_scalarmult(OTHER.exchange_secret, exchange_public(PAIR.public) or b"")
    assert ours == theirs
    signing = SigningKey(PAIR.seed)
    assert PAIR.exchange_secret == bytes(signing.to_curve25519_private_key())


def test_a_domain_holds_no_zero():
    """It ends at the first one."""
    with pytest.raises(AssertionError, match="zero byte"):
        PAIR.sign(b"rec\0ord", MESSAGE)
    with pytest.raises(AssertionError, match="zero byte"):
        verify(PAIR.public, bytes(64), b"rec\0ord", MESSAGE)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length):
    with pytest.raises(AssertionError, match=f"32 bytes, got {length}"):
        KeyPair(bytes(length))


def test_a_pair_shows_no_secret():
    for text in (repr(PAIR), str(PAIR), f"{PAIR}", repr([PAIR])):
        assert PAIR.public[:4].hex() in text
        assert PAIR.seed.hex()[:8] not in text
        assert PAIR.exchange_secret.hex()[:8] not in text
        assert len(text) < 40


def test_a_pair_is_a_value():
    again = KeyPair(PAIR.seed)
    assert again == PAIR
    assert hash(again) == hash(PAIR)
    assert PAIR != OTHER
    assert pickle.loads(pickle.dumps(PAIR)).sign(b"x", b"") == PAIR.sign(b"x", b"")
    with pytest.raises(AttributeError):
        PAIR.seed = bytes(32)
