"""ChaCha20-Poly1305 (RFC 8439) of sessions: the cipher is libsodium's, which PyNaCl brings.

A nonce is four bytes of zero and the counter, the lowest byte first, as Noise has it.
"""

from struct import Struct
from typing import Any

KEY_BYTES = 32
TAG_BYTES = 16
_nonce = Struct("<4xQ").pack
_SIZE = "unsigned long long"
_BYTES = "unsigned char *"
_ENCRYPT = (_BYTES, f"{_SIZE} *", _BYTES, _SIZE, _BYTES, _SIZE, _BYTES, _BYTES, _BYTES)
_DECRYPT = (_BYTES, f"{_SIZE} *", _BYTES, _BYTES, _SIZE, _BYTES, _SIZE, _BYTES, _BYTES)


class Aead:
    """The cipher whose two functions are at these addresses: of `..._ietf_encrypt` and `_decrypt`.

    Each raises ValueError for a key of another size, OverflowError for a counter that is no number
    of 64 bits, TypeError for what is no bytes.
    """

    def __init__(self, encrypt: int, decrypt: int) -> None:
        from nacl._sodium import ffi

        self._ffi = ffi
        self._encrypt = self._function(_ENCRYPT, encrypt)
        self._decrypt = self._function(_DECRYPT, decrypt)

    def _function(self, arguments: tuple[str, ...], address: int) -> Any:  # noqa: ANN401 - of cffi
        return self._ffi.cast(f"int (*)({', '.join(arguments)})", address)

    def seal(self, key: bytes, counter: int, plaintext: bytes, associated: bytes) -> bytes:
        """Encrypt and authenticate, TAG_BYTES longer; a counter may be used once under a key."""
        _check(key, plaintext, associated)
        length, nonce = len(plaintext), _number(counter)
        out = self._ffi.new("unsigned char[]", length + TAG_BYTES)
        null, count = self._ffi.NULL, len(associated)
        self._encrypt(out, null, plaintext, length, associated, count, null, nonce, key)
        return bytes(self._ffi.buffer(out))

    def seal_after(self, key: bytes, counter: int, plaintext: bytes, head: bytes) -> bytes:
        """The head as it is, and what was sealed with it."""
        return head + self.seal(key, counter, plaintext, head)

    def unseal(self, key: bytes, counter: int, sealed: bytes, associated: bytes) -> bytes | None:
        """What was sealed with the same key, counter and associated data; None if nothing was."""
        _check(key, sealed, associated)
        length, nonce = len(sealed), _number(counter)
        if length < TAG_BYTES:
            return None
        out = self._ffi.new("unsigned char[]", length - TAG_BYTES)
        null, count = self._ffi.NULL, len(associated)
        failed = self._decrypt(out, null, null, sealed, length, associated, count, nonce, key)
        return None if failed else bytes(self._ffi.buffer(out))

    def unseal_after(self, key: bytes, counter: int, datagram: bytes, head: int) -> bytes | None:
        """What was sealed after a head of so many bytes."""
        if not 0 <= head <= len(datagram):
            return None
        return self.unseal(key, counter, datagram[head:], datagram[:head])


def _check(key: bytes, text: bytes, associated: bytes) -> None:
    for one in (key, text, associated):
        if type(one) is not bytes:
            raise TypeError(f"expected bytes, got {type(one).__name__}")
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, got {len(key)}")


def _number(counter: int) -> bytes:
    if not 0 <= counter < 2**64:
        raise OverflowError(f"a counter has 64 bits, got {counter}")
    return _nonce(counter)
