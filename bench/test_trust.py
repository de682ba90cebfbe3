"""What a session costs: its handshake, each datagram it seals, a signature.

Baselines: `noiseprotocol` for the handshake, which is four exchanges at either end whoever does it;
the wrappers of PyNaCl for the datagrams, where the gate is a ratio, never wall time.
"""

import timeit
from collections.abc import Callable

import pytest
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
)
from pytest_benchmark.fixture import BenchmarkFixture

from dhtos.trust.keys import KeyPair, exchange_public, verify
from dhtos.trust.noise import Handshake, seal, unseal

noise = pytest.importorskip("noise.connection", reason="noiseprotocol is not installed here")

PROTOCOL = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
OURS, THEIRS = KeyPair(b"\x01" * 32), KeyPair(b"\x02" * 32)
PUBLIC = exchange_public(THEIRS.public)
assert PUBLIC is not None
KEY = bytes(range(32))
HEAD = b"\xd4" + bytes(12)
NONCE = bytes(4) + (7).to_bytes(8, "little")
DATAGRAM = bytes(300)  # a request or a reply of the usual size
RECORD = bytes(300)
CERTIFICATE = bytes(200)  # the payload of a handshake message
SEALING_GAIN_MIN = 1.2  # seen: 2.5 alone, 1.6 on a busy machine; for none the wrappers would do


def shake_ours() -> tuple[bytes, bytes]:
    """A handshake, both ends."""
    initiator = Handshake.initiator(OURS.exchange_secret, PUBLIC, b"\x03" * 32, b"cookie")
    responder = Handshake.responder(THEIRS.exchange_secret, b"\x04" * 32, b"cookie")
    responder.read(initiator.write(CERTIFICATE))
    initiator.read(responder.write(CERTIFICATE))
    assert responder.split() == initiator.split()[::-1]
    return initiator.hash, responder.hash


def shake_theirs() -> tuple[bytes, bytes]:
    """The same with noiseprotocol, which draws its ephemeral keys."""
    ends = [noise.NoiseConnection.from_name(PROTOCOL) for _ in range(2)]
    initiator, responder = ends
    for end, pair in zip(ends, (OURS, THEIRS), strict=True):
        end.set_prologue(b"cookie")
        end.set_keypair_from_private_bytes(noise.Keypair.STATIC, pair.exchange_secret)
    initiator.set_keypair_from_public_bytes(noise.Keypair.REMOTE_STATIC, PUBLIC)
    initiator.set_as_initiator()
    responder.set_as_responder()
    for end in ends:
        end.start_handshake()
    responder.read_message(initiator.write_message(CERTIFICATE))
    initiator.read_message(responder.write_message(CERTIFICATE))
    return initiator.get_handshake_hash(), responder.get_handshake_hash()


def pass_ours() -> bytes:
    """A datagram from one end to the other."""
    return unseal(KEY, 7, seal(KEY, 7, DATAGRAM, HEAD), HEAD)


def pass_wrapped() -> bytes:
    """The same through `nacl.bindings`."""
    sealed = crypto_aead_chacha20poly1305_ietf_encrypt(DATAGRAM, HEAD, NONCE, KEY)
    return crypto_aead_chacha20poly1305_ietf_decrypt(sealed, HEAD, NONCE, KEY)


@pytest.mark.benchmark(group="a handshake, both ends")
@pytest.mark.parametrize("shake", [shake_ours, shake_theirs])
def test_handshake(benchmark: BenchmarkFixture, shake: Callable[[], tuple[bytes, bytes]]) -> None:
    """How long does a handshake with payloads of 200 bytes keep both ends busy?"""
    one, other = benchmark(shake)
    assert one == other


@pytest.mark.benchmark(group="seal and unseal 300 bytes")
@pytest.mark.parametrize("send", [pass_ours, pass_wrapped])
def test_sealing(benchmark: BenchmarkFixture, send: Callable[[], bytes]) -> None:
    """How long does a datagram of 300 bytes keep both ends busy?"""
    assert benchmark(send) == DATAGRAM


@pytest.mark.benchmark(group="Ed25519, 300 bytes")
def test_sign(benchmark: BenchmarkFixture) -> None:
    """How long does a record take to sign?"""
    signature = benchmark(OURS.sign, b"record", RECORD)
    assert verify(OURS.public, signature, b"record", RECORD)


@pytest.mark.benchmark(group="Ed25519, 300 bytes")
def test_verify(benchmark: BenchmarkFixture) -> None:
    """And to check?"""
    signature = OURS.sign(b"record", RECORD)
    once = verify.__wrapped__  # without what it remembers
    assert benchmark(once, OURS.public, signature, b"record", RECORD)


@pytest.mark.benchmark(group="keys")
def test_key_pair(benchmark: BenchmarkFixture) -> None:
    """How long does it take to make a key pair of a seed, both forms?"""
    assert benchmark(KeyPair, OURS.seed) == OURS


@pytest.mark.benchmark(group="keys")
def test_exchange_public(benchmark: BenchmarkFixture) -> None:
    """And the X25519 form of a key that came with a datagram?"""
    assert benchmark(exchange_public, THEIRS.public) == PUBLIC


def test_sealing_ratio() -> None:
    """Is it worth calling libsodium without the wrappers of PyNaCl?"""
    assert pass_ours() == pass_wrapped() == DATAGRAM
    ratio = min(seconds(pass_wrapped) for _ in range(3)) / min(seconds(pass_ours) for _ in range(3))
    print(f"sealing: x{ratio:.1f}")
    assert ratio >= SEALING_GAIN_MIN


def seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """The fastest of a few runs of about 5 ms, per call."""
    count = max(1, int(0.005 / min(timeit.repeat(call, number=1, repeat=3))))
    return min(timeit.repeat(call, number=count, repeat=repeats)) / count
