"""Handshakes with an independent implementation: either end is ours, the other is `noiseprotocol`.

Both are told the same static keys, prologue and payloads; theirs draws ephemeral keys of its own.
"""

import random

import pytest
from nacl.bindings import crypto_scalarmult_base

from dhtos.errors import MalformedMessage
from dhtos.trust.keys import KeyPair, exchange_public
from dhtos.trust.noise import Handshake, seal, unseal

noise = pytest.importorskip("noise.connection", reason="noiseprotocol is not installed here")

PROTOCOL = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
SEEDS = range(8)


class Theirs:
    """One end of theirs, with the names of ours."""

    def __init__(self, secret, remote, prologue):
        self.connection = noise.NoiseConnection.from_name(PROTOCOL)
        self.connection.set_prologue(prologue)
        self.connection.set_keypair_from_private_bytes(noise.Keypair.STATIC, secret)
        if remote is None:
            self.connection.set_as_responder()
        else:
            self.connection.set_keypair_from_public_bytes(noise.Keypair.REMOTE_STATIC, remote)
            self.connection.set_as_initiator()
        self.connection.start_handshake()

    def write(self, payload):
        return bytes(self.connection.write_message(payload))

    def read(self, message):
        return bytes(self.connection.read_message(message))

    @property
    def hash(self):
        return self.connection.get_handshake_hash()

    @property
    def remote(self):
        return self.connection.noise_protocol.handshake_state.rs.public_bytes


def world(seed):
    """The keys of both ends, a prologue and payloads."""
    rng = random.Random(seed)
    a, b = KeyPair(rng.randbytes(32)), KeyPair(rng.randbytes(32))
    prologue = rng.randbytes(rng.choice([0, 8, 32, 300]))
    payloads = [rng.randbytes(rng.choice([0, 1, 64, 900])) for _ in range(2)]
    return rng, a, b, prologue, payloads


def check_data(rng, theirs, sending, receiving):
    """Sealed messages in both directions; theirs counts from 0 by itself."""
    for counter in range(20):
        text = rng.randbytes(rng.choice([0, 1, 300, 1200]))
        assert theirs.decrypt(seal(sending, counter, text)) == text
        text = rng.randbytes(rng.choice([0, 1, 300, 1200]))
        assert unseal(receiving, counter, theirs.encrypt(text)) == text
    with pytest.raises(MalformedMessage):
        unseal(receiving, 0, theirs.encrypt(b"number 20"))


@pytest.mark.parametrize("seed", SEEDS)
def test_we_begin(seed):
    rng, a, b, prologue, (request, response) = world(seed)
    public = exchange_public(b.public)
    ours = Handshake.initiator(a.exchange_secret, public, rng.randbytes(32), prologue)
    theirs = Theirs(b.exchange_secret, None, prologue)
    assert theirs.read(ours.write(request)) == request
    assert theirs.remote == exchange_public(a.public)
    assert ours.read(theirs.write(response)) == response
    assert ours.hash == theirs.hash
    check_data(rng, theirs.connection, *ours.split())


@pytest.mark.parametrize("seed", SEEDS)
def test_they_begin(seed):
    rng, a, b, prologue, (request, response) = world(seed)
    theirs = Theirs(a.exchange_secret, exchange_public(b.public), prologue)
    ours = Handshake.responder(b.exchange_secret, rng.randbytes(32), prologue)
    assert ours.read(theirs.write(request)) == request
    assert ours.remote == exchange_public(a.public)
    assert theirs.read(ours.write(response)) == response
    assert ours.hash == theirs.hash
    check_data(rng, theirs.connection, *ours.split())


def test_another_key_prologue_or_byte_is_refused_by_us():
    rng, a, b, prologue, (request, _) = world(1)
    public = exchange_public(b.public)
    message = Theirs(a.exchange_secret, public, prologue).write(request)
    place = rng.randrange(len(message))
    changed = message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]
    for secret, told, text in (
        (a.exchange_secret, prologue, message),
        (b.exchange_secret, prologue + b"x", message),
        (b.exchange_secret, prologue, changed),
    ):
        with pytest.raises(MalformedMessage):
            Handshake.responder(secret, rng.randbytes(32), told).read(text)


def test_one_key_that_signs_and_exchanges():
    """What libsodium makes of an Ed25519 pair is an X25519 pair to others, too."""
    _, a, _, _, _ = world(2)
    theirs = Theirs(a.exchange_secret, crypto_scalarmult_base(a.exchange_secret), b"")
    own = theirs.connection.noise_protocol.handshake_state.s.public_bytes
    assert own == exchange_public(a.public)
