"""Handshakes and sealed messages from liars: whatever is changed on the way is refused.

Payloads of any size; every byte of both messages flipped, every length cut, messages doubled,
swapped and replayed. Only `MalformedMessage` may come out, and no key ever does.
"""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_base

from dhtos.errors import MalformedMessage, UsageError
from dhtos.trust.keys import KeyPair, exchange_public, verify
from dhtos.trust.noise import MESSAGE_1_BYTES, MESSAGE_2_BYTES, Handshake, seal, unseal
from dhtos.trust.token import Token

A, B, EA, EB, OTHER = (bytes([n]) * 32 for n in (1, 2, 3, 4, 5))
PUBLIC_B = crypto_scalarmult_base(B)

secrets = st.binary(min_size=32, max_size=32)
payloads = st.binary(max_size=1400)


def pair(prologue=b""):
    """Both ends before the first message."""
    return (
        Handshake.initiator(A, PUBLIC_B, EA, prologue),
        Handshake.responder(B, EB, prologue),
    )


@cache
def messages():
    """Both messages of one handshake; with fixed keys they are the same each time."""
    initiator, responder = pair()
    one = initiator.write(b"request")
    assert responder.read(one) == b"request"
    two = responder.write(b"response")
    assert initiator.read(two) == b"response"
    return one, two


def waiting(number):
    """The end that waits for message 1 or 2, just before it comes."""
    initiator, responder = pair()
    initiator.write(b"request")
    return responder if number == 1 else initiator


def assert_refused(handshake, message):
    """Refused, and nothing is left that anybody could go on with."""
    with pytest.raises(MalformedMessage):
        handshake.read(message)
    with pytest.raises(MalformedMessage):
        handshake.read(message)
    with pytest.raises(AssertionError):
        handshake.split()
    with pytest.raises(AssertionError):
        handshake.write(b"")


# --- handshakes -----------------------------------------------------------------------------------


@given(secrets, secrets, secrets, secrets, st.binary(max_size=64), payloads, payloads)
def test_any_keys_and_payloads(a, b, ea, eb, prologue, first, second):
    initiator = Handshake.initiator(a, crypto_scalarmult_base(b), ea, prologue)
    responder = Handshake.responder(b, eb, prologue)
    one = initiator.write(first)
    assert len(one) == MESSAGE_1_BYTES + len(first)
    assert responder.read(one) == first
    assert responder.remote == crypto_scalarmult_base(a)
    two = responder.write(second)
    assert len(two) == MESSAGE_2_BYTES + len(second)
    assert initiator.read(two) == second
    assert initiator.hash == responder.hash
    assert initiator.split() == responder.split()[::-1]


@pytest.mark.parametrize("number", [1, 2])
def test_a_flip_in_any_byte_is_refused(number):
    message = messages()[number - 1]
    for place in range(len(message)):
        for bit in (0x01, 0x10, 0x40, 0xFF):
            changed = bytearray(message)
            changed[place] ^= bit
            assert_refused(waiting(number), bytes(changed))


@pytest.mark.parametrize("number", [1, 2])
def test_the_top_bit_of_an_ephemeral_key_is_refused(number):
    """X25519 ignores it (RFC 7748, section 5), so only the hash tells the two spellings apart."""
    message = bytearray(messages()[number - 1])
    message[31] ^= 0x80
    assert_refused(waiting(number), bytes(message))


@pytest.mark.parametrize("number", [1, 2])
def test_every_cut_is_refused(number):
    message = messages()[number - 1]
    for length in range(len(message)):
        assert_refused(waiting(number), message[:length])
        assert_refused(waiting(number), message[len(message) - length :])


@given(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=200))
def test_what_follows_a_message_is_refused(number, more):
    message = messages()[number - 1]
    assert_refused(waiting(number), message + more)
    assert_refused(waiting(number), more + message)


@given(st.sampled_from([1, 2]), st.binary(max_size=400))
def test_noise_that_is_none(number, text):
    assert_refused(waiting(number), text)


@given(st.sampled_from([1, 2]), st.data())
def test_bytes_that_change_places(number, data):
    message = messages()[number - 1]
    i = data.draw(st.integers(0, len(message) - 1))
    j = data.draw(st.integers(0, len(message) - 1).filter(lambda j: message[j] != message[i]))
    changed = bytearray(message)
    changed[i], changed[j] = changed[j], changed[i]
    assert_refused(waiting(number), bytes(changed))


@given(payloads, payloads, secrets.filter(lambda e: e not in (EA, EB)))
def test_halves_of_two_handshakes_do_not_fit(first, second, ephemeral):
    """Between the same two, at the same time, with the same prologue: the keys are others."""
    ours, theirs = pair(), pair()
    other = Handshake.initiator(A, PUBLIC_B, ephemeral, b"")
    one, strange = ours[0].write(first), other.write(first)
    for cut in (32, 80):  # behind e, behind s
        assert_refused(Handshake.responder(B, EB, b""), one[:cut] + strange[cut:])
        assert_refused(Handshake.responder(B, EB, b""), strange[:cut] + one[cut:])
    assert ours[1].read(one) == first
    answering = Handshake.responder(B, ephemeral, b"")
    answering.read(one)
    two, strange = ours[1].write(second), answering.write(second)
    assert_refused(ours[0], two[:32] + strange[32:])
    theirs[0].write(first)
    assert_refused(theirs[0], strange[:32] + two[32:])


def test_replays_and_the_wrong_order():
    one, two = messages()
    assert_refused(waiting(1), two)
    assert_refused(waiting(2), one)
    # Message 1 reads the same a second time: what tells a replay is the prologue.
    assert waiting(1).read(one) == b"request"
    assert_refused(Handshake.responder(B, EB, b"another cookie"), one)
    # Message 2 answers one ephemeral key only.
    again = Handshake.initiator(A, PUBLIC_B, OTHER, b"")
    again.write(b"request")
    assert_refused(again, two)


def test_messages_sent_back_to_their_writer():
    """Reflection: also where both ends have one key."""
    initiator = Handshake.initiator(A, crypto_scalarmult_base(A), EA, b"")
    one = initiator.write(b"")
    assert_refused(initiator, one)
    responder = Handshake.responder(A, EB, b"")
    responder.read(one)
    two = responder.write(b"")
    with pytest.raises(MalformedMessage):
        responder.read(two)


@given(st.lists(st.sampled_from(["one", "two", "junk"]), max_size=6))
def test_any_order_of_messages_ends_well_or_not_at_all(order):
    """An end that has finished holds the honest keys; strange messages cannot make others."""
    one, two = messages()
    texts = {"one": one, "two": two, "junk": bytes(120)}
    initiator, responder = pair()
    initiator.write(b"request")
    answered = False
    for name in order:
        for end in (initiator, responder):
            try:
                payload = end.read(texts[name])
            except MalformedMessage:
                continue
            assert payload == (b"request" if end is responder else b"response")
            if end is responder:
                answered = responder.write(b"response") == two
    fresh_initiator, fresh_responder = pair()
    fresh_responder.read(fresh_initiator.write(b"request"))
    fresh_initiator.read(fresh_responder.write(b"response"))
    if order[:1] == ["two"]:
        assert initiator.split() == fresh_initiator.split()
    if order[:1] == ["one"]:
        assert answered
        assert responder.split() == fresh_responder.split()


# --- sealed messages ------------------------------------------------------------------------------


@given(
    secrets,
    st.lists(st.binary(max_size=64), max_size=12),
    st.integers(0, 2**64 - 20),
    st.binary(max_size=40),
    st.randoms(use_true_random=False),
)
def test_a_text_cut_anywhere_comes_whole_in_any_order(key, parts, first, associated, rng):
    sealed = [(first + n, seal(key, first + n, part, associated)) for n, part in enumerate(parts)]
    rng.shuffle(sealed)
    opened = {n: unseal(key, n, text, associated) for n, text in sealed}
    assert [opened[n] for n in sorted(opened)] == parts


@given(secrets, st.integers(0, 2**64 - 2), st.binary(max_size=100), st.binary(max_size=20))
def test_a_mutation_of_a_sealed_message_is_refused(key, counter, plaintext, associated):
    sealed = seal(key, counter, plaintext, associated)
    assert len(sealed) == len(plaintext) + 16
    changed = [sealed[:length] for length in range(len(sealed))]
    changed += [sealed + b"\0", b"\0" + sealed, sealed + sealed]
    for place in range(len(sealed)):
        text = bytearray(sealed)
        text[place] ^= 1 << place % 8
        changed.append(bytes(text))
    for text in changed:
        with pytest.raises(MalformedMessage):
            unseal(key, counter, text, associated)
    assert unseal(key, counter, sealed, associated) == plaintext


@given(secrets, st.integers(0, 2**64 - 2), payloads, st.binary(max_size=20), st.data())
def test_a_sealed_message_has_one_place(key, counter, plaintext, associated, data):
    sealed = seal(key, counter, plaintext, associated)
    others = st.integers(0, 2**64 - 2).filter(lambda other: other != counter)
    with pytest.raises(MalformedMessage):
        unseal(key, data.draw(others), sealed, associated)
    heads = st.binary(max_size=20).filter(lambda other: other != associated)
    with pytest.raises(MalformedMessage):
        unseal(key, counter, sealed, data.draw(heads))
    bit = data.draw(st.integers(0, 255))
    other = (int.from_bytes(key) ^ 1 << bit).to_bytes(32)
    with pytest.raises(MalformedMessage):
        unseal(other, counter, sealed, associated)


@given(secrets, st.integers(-(2**70), 2**70), st.binary(max_size=200), st.binary(max_size=20))
def test_anything_at_all_is_refused(key, counter, text, associated):
    with pytest.raises(MalformedMessage):
        unseal(key, counter, text, associated)


# --- keys and tokens ------------------------------------------------------------------------------


@given(secrets, secrets, st.binary(max_size=300))
def test_any_seeds_sign_and_exchange(seed, other, message):
    ours, theirs = KeyPair(seed), KeyPair(other)
    signature = ours.sign(b"record", message)
    assert verify(ours.public, signature, b"record", message)
    assert verify(theirs.public, signature, b"record", message) == (seed == other)
    assert exchange_public(ours.public) == crypto_scalarmult_base(ours.exchange_secret)


@given(st.binary(max_size=80), st.binary(max_size=130), st.binary(max_size=80))
def test_any_bytes_are_no_signature(public, signature, message):
    assert verify(public, signature, b"record", message) is False
    form = exchange_public(public)
    assert form is None or len(form) == 32


def is_host(address):
    """Whether one can send to it, be it written as IPv4 or as IPv6."""
    address = getattr(address, "ipv4_mapped", None) or address
    return not (address.is_unspecified or address.is_multicast)


hosts = st.ip_addresses().filter(is_host).map(str)
tokens = st.builds(
    Token,
    st.binary(min_size=20, max_size=20),
    st.binary(min_size=16, max_size=16),
    st.lists(st.tuples(hosts, st.integers(1, 65535)), min_size=1, max_size=8).map(tuple),
)


@given(tokens)
def test_tokens_come_back(token):
    assert Token.parse(str(token)) == token


@given(tokens, st.data())
def test_a_typo_in_a_token_is_told(token, data):
    text = str(token)
    place = data.draw(st.integers(len("dhtos1-"), len(text) - 1))
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    letter = data.draw(st.sampled_from(letters.replace(text[place], "")))
    end = data.draw(st.integers(len("dhtos1-"), len(text) - 1))
    for wrong in (
        text[:place] + letter + text[place + 1 :],
        text[:end],
        text[:place] + text[place + 1 :],
        text[:place] + letter + text[place:],
    ):
        with pytest.raises(UsageError, match="mistyped or cut off"):
            Token.parse(wrong)


@given(st.text(max_size=120) | st.text("dhtos1-abcdefgh234567=", max_size=120))
def test_any_text_is_no_token(text):
    with pytest.raises(UsageError):
        Token.parse(text)
    with pytest.raises(UsageError):
        Token.parse("dhtos1-" + text)
