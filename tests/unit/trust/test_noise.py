"""The handshake against published vectors, its states, and what it refuses."""

import json
from hashlib import blake2s
from pathlib import Path

import pytest
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult_base,
)

from dhtos.errors import MalformedMessage
from dhtos.trust.noise import (
    COUNTER_MAX,
    MESSAGE_1_BYTES,
    MESSAGE_2_BYTES,
    MESSAGE_BYTES_MAX,
    TAG_BYTES,
    Handshake,
    seal,
    unseal,
)

VECTORS = json.loads((Path(__file__).parent / "noise_vectors.json").read_text())["vectors"]
A, B, EA, EB = (bytes([n]) * 32 for n in (1, 2, 3, 4))
KEY = bytes(range(32))

# Public keys of small order, whose shared secret with anybody is zero (RFC 7748, section 6.1).
FIELD = 2**255 - 19
SMALL = [
    y.to_bytes(32, "little")
    for y in (
        0,
        1,
        FIELD - 1,
        FIELD,
        FIELD + 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
]


def pair(prologue=b"cookie"):
    """Both ends before the first message."""
    return (
        Handshake.initiator(A, crypto_scalarmult_base(B), EA, prologue),
        Handshake.responder(B, EB, prologue),
    )


def finished():
    """Both ends after the second message."""
    initiator, responder = pair()
    responder.read(initiator.write(b""))
    initiator.read(responder.write(b""))
    return initiator, responder


# --- as it should be ------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS)
def test_published_vectors(vector):
    init_static, resp_static, init_ephemeral, resp_ephemeral, prologue = (
        bytes.fromhex(vector[name])
        for name in (
            "init_static",
            "resp_static",
            "init_ephemeral",
            "resp_ephemeral",
            "prologue",
        )
    )
    messages = [
        (bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"]))
        for message in vector["messages"]
    ]
    remote = crypto_scalarmult_base(resp_static)
    initiator = Handshake.initiator(init_static, remote, init_ephemeral, prologue)
    responder = Handshake.responder(resp_static, resp_ephemeral, prologue)
    for writer, reader in ((initiator, responder), (responder, initiator)):
        payload, message = messages.pop(0)
        assert writer.write(payload) == message
        assert reader.read(message) == payload
    ours, theirs = initiator.split(), responder.split()
    for (sending, _), (_, receiving) in ((ours, theirs), (theirs, ours)):
        payload, message = messages.pop(0)
        assert seal(sending, 0, payload) == message
        assert unseal(receiving, 0, message) == payload
    assert not messages


def test_two_messages_make_a_session():
    initiator, responder = pair()
    first = initiator.write(b"request")
    assert len(first) == MESSAGE_1_BYTES + len(b"request") == 96 + 7
    assert responder.read(first) == b"request"
    assert responder.remote == crypto_scalarmult_base(A)
    second = responder.write(b"response")
    assert len(second) == MESSAGE_2_BYTES + len(b"response") == 48 + 8
    assert initiator.read(second) == b"response"
    assert initiator.remote == crypto_scalarmult_base(B)
    assert initiator.hash == responder.hash
    sending, receiving = initiator.split()
    assert responder.split() == (receiving, sending)
    assert sending != receiving
    assert initiator.hash == responder.hash, "the hash outlives the secrets"


def test_every_input_makes_other_keys():
    """Ephemeral and static keys, prologue and payloads: each is in the hash."""

    def run(a=A, b=B, ea=EA, eb=EB, prologue=b"", payloads=(b"", b"")):
        initiator = Handshake.initiator(a, crypto_scalarmult_base(b), ea, prologue)
        responder = Handshake.responder(b, eb, prologue)
        responder.read(initiator.write(payloads[0]))
        initiator.read(responder.write(payloads[1]))
        return initiator.hash, initiator.split()

    other = bytes([9]) * 32
    runs = [
        run(),
        run(a=other),
        run(b=other),
        run(ea=other),
        run(eb=other),
        run(prologue=b"x"),
        run(payloads=(b"x", b"")),
        run(payloads=(b"", b"x")),
    ]
    assert len({seen for seen, _ in runs}) == len(runs)
    assert len({keys for _, keys in runs}) == len(runs) - 3, "only what is secret makes keys"


def test_the_hash_begins_with_the_prologue():
    """Before any message it binds what both were told (section 5.3)."""
    _, responder = pair(b"cookie")
    name = blake2s(b"Noise_IK_25519_ChaChaPoly_BLAKE2s").digest()
    hashed = blake2s(name + b"cookie").digest()
    assert responder.hash == blake2s(hashed + crypto_scalarmult_base(B)).digest()


# --- strangers ------------------------------------------------------------------------------------


def test_the_responder_must_be_the_one_who_was_meant():
    initiator = Handshake.initiator(A, crypto_scalarmult_base(A), EA, b"")
    with pytest.raises(MalformedMessage):
        Handshake.responder(B, EB, b"").read(initiator.write(b""))


def test_both_must_have_been_told_the_same():
    initiator = Handshake.initiator(A, crypto_scalarmult_base(B), EA, b"cookie of today")
    with pytest.raises(MalformedMessage):
        Handshake.responder(B, EB, b"cookie of yesterday").read(initiator.write(b""))


def test_nobody_else_can_answer():
    """Someone who saw message 1 but does not hold the responder's secret."""
    initiator, _ = pair()
    initiator.write(b"")
    liar = Handshake.responder(B, EB, b"cookie")
    liar.read(pair()[0].write(b""))
    liar._symmetric.mix_key(b"a guess")
    with pytest.raises(MalformedMessage):
        initiator.read(liar.write(b""))


def test_an_answer_belongs_to_one_question():
    """Of two handshakes between the same two, only the ephemeral keys differ."""
    initiator, responder = pair()
    responder.read(initiator.write(b""))
    again = Handshake.initiator(A, crypto_scalarmult_base(B), bytes([9]) * 32, b"cookie")
    again.write(b"")
    with pytest.raises(MalformedMessage):
        again.read(responder.write(b""))


@pytest.mark.parametrize("key", SMALL, ids=bytes.hex)
def test_small_keys_are_refused(key):
    with pytest.raises(MalformedMessage, match="small order"):
        Handshake.initiator(A, key, EA, b"").write(b"")
    with pytest.raises(MalformedMessage, match="small order"):
        Handshake.responder(B, EB, b"").read(key + bytes(MESSAGE_1_BYTES))
    initiator, _ = pair()
    initiator.write(b"")
    with pytest.raises(MalformedMessage, match="small order"):
        initiator.read(key + bytes(TAG_BYTES))


@pytest.mark.parametrize("key", SMALL, ids=bytes.hex)
def test_a_small_static_key_is_refused(key, monkeypatch):
    """A peer may seal whatever it likes where its own key should be."""
    initiator, responder = pair()
    base = crypto_scalarmult_base
    monkeypatch.setattr(
        "dhtos.trust.noise.crypto_scalarmult_base", lambda n: key if n == A else base(n)
    )
    first = initiator.write(b"")
    with pytest.raises(MalformedMessage, match="small order"):
        responder.read(first)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 80, 95])
def test_a_first_message_that_is_too_short(length):
    initiator, responder = pair()
    with pytest.raises(MalformedMessage, match=f"first handshake message has {length} bytes"):
        responder.read(initiator.write(b"")[:length])


@pytest.mark.parametrize("length", [0, 1, 31, 32, 47])
def test_a_second_message_that_is_too_short(length):
    initiator, responder = pair()
    responder.read(initiator.write(b""))
    with pytest.raises(MalformedMessage, match=f"second handshake message has {length} bytes"):
        initiator.read(responder.write(b"")[:length])


def test_a_message_has_at_most_65535_bytes():
    initiator, responder = pair()
    payload = bytes(MESSAGE_BYTES_MAX - MESSAGE_1_BYTES)
    first = initiator.write(payload)
    assert len(first) == MESSAGE_BYTES_MAX
    assert responder.read(first) == payload
    with pytest.raises(MalformedMessage, match="65536 bytes"):
        pair()[1].read(first + b"x")
    with pytest.raises(AssertionError, match="too long"):
        pair()[0].write(payload + b"x")


# --- states ---------------------------------------------------------------------------------------


def test_a_failed_read_ends_the_handshake():
    initiator, responder = pair()
    first = initiator.write(b"")
    with pytest.raises(MalformedMessage):
        responder.read(first[:-1] + bytes([first[-1] ^ 1]))
    with pytest.raises(MalformedMessage, match="none was due"):
        responder.read(first)
    with pytest.raises(AssertionError, match="not known"):
        _ = responder.remote
    with pytest.raises(AssertionError, match="failed"):
        _ = responder.hash
    with pytest.raises(AssertionError, match="not to write"):
        responder.write(b"")
    with pytest.raises(AssertionError, match="not to split"):
        responder.split()
    assert not secrets(responder)


def test_a_failed_answer_ends_it_too():
    initiator, responder = pair()
    responder.read(initiator.write(b""))
    second = responder.write(b"")
    with pytest.raises(MalformedMessage):
        initiator.read(second + b"x")
    with pytest.raises(MalformedMessage, match="none was due"):
        initiator.read(second)
    with pytest.raises(AssertionError, match="not to split"):
        initiator.split()
    assert initiator.remote == crypto_scalarmult_base(B), "whom we asked is still known"
    assert not secrets(initiator)


def secrets(handshake):
    """What a handshake still knows and nobody else may."""
    symmetric = handshake._symmetric
    held = (handshake._secret, handshake._ephemeral, symmetric.ck, symmetric.k)
    return [secret for secret in held if secret]


def test_a_message_that_is_not_due_changes_nothing():
    initiator, responder = pair()
    with pytest.raises(MalformedMessage, match="none was due"):
        initiator.read(bytes(MESSAGE_2_BYTES))
    first = initiator.write(b"request")
    assert responder.read(first) == b"request"
    with pytest.raises(MalformedMessage, match="none was due"):
        responder.read(first)
    second = responder.write(b"response")
    with pytest.raises(MalformedMessage, match="none was due"):
        responder.read(second)
    assert initiator.read(second) == b"response"
    with pytest.raises(MalformedMessage, match="none was due"):
        initiator.read(second)
    assert initiator.split() == responder.split()[::-1]
    with pytest.raises(MalformedMessage, match="none was due"):
        initiator.read(second)


def test_our_own_turns_are_asserted():
    initiator, responder = pair()
    with pytest.raises(AssertionError, match="not to write"):
        responder.write(b"")
    with pytest.raises(AssertionError, match="not to split"):
        initiator.split()
    with pytest.raises(AssertionError, match="not known"):
        _ = responder.remote
    first = initiator.write(b"")
    with pytest.raises(AssertionError, match="not to write"):
        initiator.write(b"")
    responder.read(first)
    with pytest.raises(AssertionError, match="not to split"):
        responder.split()


def test_keys_are_told_once():
    for handshake in finished():
        assert len(secrets(handshake)) == 4
        handshake.split()
        assert not secrets(handshake)
        with pytest.raises(AssertionError, match="not to split"):
            handshake.split()


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_have_32_bytes(length):
    key = bytes(length)
    for make in (
        lambda: Handshake.initiator(key, A, EA, b""),
        lambda: Handshake.initiator(A, key, EA, b""),
        lambda: Handshake.initiator(A, B, key, b""),
        lambda: Handshake.responder(key, EB, b""),
        lambda: Handshake.responder(B, key, b""),
        lambda: seal(key, 0, b""),
        lambda: unseal(key, 0, bytes(16)),
    ):
        with pytest.raises((AssertionError, ValueError)):
            make()


def test_a_handshake_shows_no_secret():
    initiator, responder = pair()
    assert repr(initiator) == "<Handshake initiator, next: write the next message>"
    assert repr(responder) == "<Handshake responder, next: read the next message>"


# --- sealed messages ------------------------------------------------------------------------------


@pytest.mark.parametrize("counter", [0, 1, 255, 256, 2**32, 2**63, COUNTER_MAX])
@pytest.mark.parametrize("associated", [b"", b"head"])
def test_sealing_is_chacha20_poly1305(counter, associated):
    """As RFC 8439, with the nonce of section 12.3 of Noise; a wrapper of the same as the twin."""
    nonce = bytes(4) + counter.to_bytes(8, "little")
    for plaintext in (b"", b"x", bytes(300), bytes(MESSAGE_BYTES_MAX)):
        sealed = crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, associated, nonce, KEY)
        assert seal(KEY, counter, plaintext, associated) == sealed
        assert unseal(KEY, counter, sealed, associated) == plaintext
        sealed = seal(KEY, counter, plaintext, associated)
        opened = crypto_aead_chacha20poly1305_ietf_decrypt(sealed, associated, nonce, KEY)
        assert opened == plaintext


def test_nothing_else_opens_it():
    sealed = seal(KEY, 7, b"data", b"head")
    assert unseal(KEY, 7, sealed, b"head") == b"data"
    for key, counter, text, associated in (
        (KEY[::-1], 7, sealed, b"head"),
        (KEY, 8, sealed, b"head"),
        (KEY, 7 + 2**32, sealed, b"head"),
        (KEY, 7, sealed + b"\0", b"head"),
        (KEY, 7, b"\0" + sealed, b"head"),
        (KEY, 7, sealed, b""),
        (KEY, 7, sealed, b"head\0"),
    ):
        with pytest.raises(MalformedMessage, match="not what its sender sealed"):
            unseal(key, counter, text, associated)


@pytest.mark.parametrize("length", range(TAG_BYTES))
def test_what_is_shorter_than_a_tag_is_cut_off(length):
    with pytest.raises(MalformedMessage, match="cut off"):
        unseal(KEY, 0, bytes(length))


@pytest.mark.parametrize("counter", [-1, COUNTER_MAX + 1, 2**64, 2**80])
def test_counters_end(counter):
    """The last number is reserved, and none comes twice."""
    with pytest.raises(AssertionError, match="used up"):
        seal(KEY, counter, b"")
    with pytest.raises(MalformedMessage, match="no counter"):
        unseal(KEY, counter, bytes(16))
