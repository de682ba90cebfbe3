"""The handshake and the sealed messages of a session: Noise_IK_25519_ChaChaPoly_BLAKE2s.

After "The Noise Protocol Framework" (Perrin, revision 34, 2018), whose names are kept. IK is
section 7.5: the initiator knows the key of the responder and gives its own in the first message.

    <- s
    ...
    -> e, es, s, ss     message 1, MESSAGE_1_BYTES more than its payload
    <- e, ee, se        message 2, MESSAGE_2_BYTES more than its payload

The payload of message 1 may be replayed, and is read and forged by whoever later has the secret of
the responder; who answers it must stand that, or put something fresh into the prologue. Message 2
answers one message 1 only. The initiator's first sealed message shows that it is there now, and
what follows that stays secret though both static secrets get lost (section 7.7).

States: WRITE or READ is what comes next, DONE has split, FAILED has read something strange and
forgot all it knew. A strange message is a peer's doing (MalformedMessage), also one that comes
when none is due; writing or splitting out of turn is our own (an assertion).
"""

import hmac
from enum import Enum
from hashlib import blake2s
from typing import Self

from nacl._sodium import ffi, lib  # libsodium itself: the kernel calls it without what is around
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from dhtos.errors import MalformedMessage
from dhtos.kernels import Aead

KEY_BYTES = 32  # of X25519, secret and public, and of ChaCha20-Poly1305
TAG_BYTES = 16  # what sealing adds
MESSAGE_1_BYTES = 2 * KEY_BYTES + 2 * TAG_BYTES  # e, the sealed s, the tag of the payload
MESSAGE_2_BYTES = KEY_BYTES + TAG_BYTES
MESSAGE_BYTES_MAX = 65535  # section 3
COUNTER_MAX = 2**64 - 2  # the last number is reserved (section 5.1)

_PROTOCOL = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"


def _address(name: str) -> int:
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))


_aead = Aead(
    _address("crypto_aead_chacha20poly1305_ietf_encrypt"),
    _address("crypto_aead_chacha20poly1305_ietf_decrypt"),
)
seal_after, unseal_after = _aead.seal_after, _aead.unseal_after
"""`seal` and `unseal` of what begins with its associated data; None for what was not sealed so."""


def seal(key: bytes, counter: int, plaintext: bytes, associated: bytes = b"") -> bytes:
    """Encrypt and authenticate; a counter may be used once under a key."""
    assert 0 <= counter <= COUNTER_MAX, f"the counters of a key are used up: {counter}"
    return _aead.seal(key, counter, plaintext, associated)


def unseal(key: bytes, counter: int, sealed: bytes, associated: bytes = b"") -> bytes:
    """What was sealed with the same key, counter and associated data; MalformedMessage if not."""
    if len(sealed) < TAG_BYTES or not 0 <= counter <= COUNTER_MAX:
        raise MalformedMessage("a sealed message is cut off or has no counter")
    plain = _aead.unseal(key, counter, sealed, associated)
    if plain is None:
        raise MalformedMessage("a sealed message is not what its sender sealed")
    return plain


class _State(Enum):
    WRITE = "write the next message"
    READ = "read the next message"
    SPLIT = "split"
    DONE = "end"
    FAILED = "end: it failed"


class Handshake:
    """One side of one handshake: two messages, then a key for each direction.

    Made by `initiator` and `responder`; both must be told the same prologue. An ephemeral secret
    is 32 random bytes that serve one handshake only.
    """

    __slots__ = ("_ephemeral", "_initiates", "_remote", "_secret", "_state", "_symmetric", "_their")

    def __init__(self, secret: bytes, ephemeral: bytes, remote: bytes, *, initiates: bool) -> None:
        assert len(secret) == KEY_BYTES, f"a secret has {KEY_BYTES} bytes, got {len(secret)}"
        assert len(ephemeral) == KEY_BYTES, f"a secret has {KEY_BYTES} bytes, got {len(ephemeral)}"
        self._secret = secret
        self._ephemeral = ephemeral
        self._remote = remote
        self._their = b""  # ephemeral key, public
        self._initiates = initiates
        self._state = _State.WRITE if initiates else _State.READ
        self._symmetric = _Symmetric()

    @classmethod
    def initiator(cls, secret: bytes, remote: bytes, ephemeral: bytes, prologue: bytes) -> Self:
        """The side that writes first, to the holder of the public key `remote`."""
        assert len(remote) == KEY_BYTES, f"a key has {KEY_BYTES} bytes, got {len(remote)}"
        handshake = cls(secret, ephemeral, remote, initiates=True)
        handshake._symmetric.mix_hash(prologue)
        handshake._symmetric.mix_hash(remote)
        return handshake

    @classmethod
    def responder(cls, secret: bytes, ephemeral: bytes, prologue: bytes) -> Self:
        """The side that reads first, from anybody."""
        handshake = cls(secret, ephemeral, b"", initiates=False)
        handshake._symmetric.mix_hash(prologue)
        handshake._symmetric.mix_hash(crypto_scalarmult_base(secret))
        return handshake

    @property
    def remote(self) -> bytes:
        """The peer's static X25519 key; a responder knows it once it has read message 1."""
        assert self._remote, "the peer's key is not known yet"
        return self._remote

    @property
    def hash(self) -> bytes:
        """What both sides have seen: the same 32 bytes on both, and in no other handshake."""
        assert self._state is not _State.FAILED, "a failed handshake has no hash"
        return self._symmetric.h

    def write(self, payload: bytes) -> bytes:
        """The next message; MalformedMessage where the peer's key is of small order."""
        assert self._state is _State.WRITE, f"a handshake was to {self._state.value}, not to write"
        try:
            message = self._write_1(payload) if self._initiates else self._write_2(payload)
        except MalformedMessage:
            self._forget(_State.FAILED)
            raise
        assert len(message) <= MESSAGE_BYTES_MAX, f"a payload of {len(payload)} bytes is too long"
        self._state = _State.READ if self._initiates else _State.SPLIT
        return message

    def read(self, message: bytes) -> bytes:
        """The payload of the peer's next message.

        MalformedMessage for anything else, which ends the handshake; where no message is due it
        goes on.
        """
        if self._state is not _State.READ:
            raise MalformedMessage("a message of a handshake came when none was due")
        try:
            payload = self._read_2(message) if self._initiates else self._read_1(message)
        except MalformedMessage:
            self._forget(_State.FAILED)
            raise
        self._state = _State.SPLIT if self._initiates else _State.WRITE
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """The key we send with and the one we receive with; once."""
        assert self._state is _State.SPLIT, f"a handshake was to {self._state.value}, not to split"
        first, second = _hkdf(self._symmetric.ck, b"")
        self._forget(_State.DONE)
        return (first, second) if self._initiates else (second, first)

    def _write_1(self, payload: bytes) -> bytes:
        symmetric = self._symmetric
        e = crypto_scalarmult_base(self._ephemeral)
        symmetric.mix_hash(e)
        symmetric.mix_key(_dh(self._ephemeral, self._remote))  # es
        s = symmetric.encrypt_and_hash(crypto_scalarmult_base(self._secret))
        symmetric.mix_key(_dh(self._secret, self._remote))  # ss
        return e + s + symmetric.encrypt_and_hash(payload)

    def _read_1(self, message: bytes) -> bytes:
        if not MESSAGE_1_BYTES <= len(message) <= MESSAGE_BYTES_MAX:
            raise MalformedMessage(f"the first handshake message has {len(message)} bytes")
        symmetric = self._symmetric
        end = KEY_BYTES + KEY_BYTES + TAG_BYTES
        self._their = message[:KEY_BYTES]
        symmetric.mix_hash(self._their)
        symmetric.mix_key(_dh(self._secret, self._their))  # es
        self._remote = symmetric.decrypt_and_hash(message[KEY_BYTES:end])
        symmetric.mix_key(_dh(self._secret, self._remote))  # ss
        return symmetric.decrypt_and_hash(message[end:])

    def _write_2(self, payload: bytes) -> bytes:
        symmetric = self._symmetric
        e = crypto_scalarmult_base(self._ephemeral)
        symmetric.mix_hash(e)
        symmetric.mix_key(_dh(self._ephemeral, self._their))  # ee
        symmetric.mix_key(_dh(self._ephemeral, self._remote))  # se
        return e + symmetric.encrypt_and_hash(payload)

    def _read_2(self, message: bytes) -> bytes:
        if not MESSAGE_2_BYTES <= len(message) <= MESSAGE_BYTES_MAX:
            raise MalformedMessage(f"the second handshake message has {len(message)} bytes")
        symmetric = self._symmetric
        self._their = message[:KEY_BYTES]
        symmetric.mix_hash(self._their)
        symmetric.mix_key(_dh(self._ephemeral, self._their))  # ee
        symmetric.mix_key(_dh(self._secret, self._their))  # se
        return symmetric.decrypt_and_hash(message[KEY_BYTES:])

    def _forget(self, state: _State) -> None:
        """Keep no secret; what a failed handshake has read of its peer is not to be believed."""
        self._state = state
        self._secret = self._ephemeral = self._symmetric.ck = self._symmetric.k = b""
        if state is _State.FAILED and not self._initiates:
            self._remote = b""

    def __repr__(self) -> str:
        side = "initiator" if self._initiates else "responder"
        return f"<Handshake {side}, next: {self._state.value}>"


class _Symmetric:
    """SymmetricState of section 5.2: a chaining key, a hash of all that was said, a cipher key.

    In IK every cipher key seals one thing, so the nonce is always zero.
    """

    __slots__ = ("ck", "h", "k")

    def __init__(self) -> None:
        self.ck = self.h = blake2s(_PROTOCOL).digest()
        self.k = b""

    def mix_hash(self, data: bytes) -> None:
        self.h = blake2s(self.h + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.ck, self.k = _hkdf(self.ck, material)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = seal(self.k, 0, plaintext, self.h)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        plaintext = unseal(self.k, 0, sealed, self.h)
        self.mix_hash(sealed)
        return plaintext


def _hkdf(ck: bytes, material: bytes) -> tuple[bytes, bytes]:
    """HKDF with two outputs (section 4.3)."""
    temporary = hmac.digest(ck, material, "blake2s")
    first = hmac.digest(temporary, b"\x01", "blake2s")
    return first, hmac.digest(temporary, first + b"\x02", "blake2s")


def _dh(secret: bytes, public: bytes) -> bytes:
    """The shared secret; libsodium refuses one of all zeros, which a key of small order makes."""
    try:
        return crypto_scalarmult(secret, public)
    except CryptoError as error:
        raise MalformedMessage("a handshake names a key of small order") from error
