"""What a passphrase opens: bytes sealed under it, and passphrases that are worth something.

    salt 16 | XChaCha20-Poly1305(key, nonce = 0, padded bytes)
    key = Argon2id(passphrase, salt, 64 MiB, 3 passes), RFC 9106

Whoever has the sealed bytes may try passphrases for as long as he likes: each try costs what
opening costs, a tenth to a half of a second and 64 MiB. A passphrase that was made here has 80
random bits, and nobody tries so many; one that a person has thought of has 20 to 40.

Made passphrases are five words of 16 bits, each consonant, vowel, consonant, vowel, consonant
(Wilkerson, "A Proposal for Proquints", 2009).
"""

from collections.abc import Callable

from dhtos.errors import MalformedMessage

SALT_BYTES = 16
WORDS = 5
NONCE_BYTES = 24
_KEY_BYTES = 32
_TAG_BYTES = 16
_PASSES = 3
_MEMORY_BYTES = 64 * 2**20
_BLOCK_BYTES = 1024  # sizes are rounded up to this, and so tell little
_LENGTH_BYTES = 4
_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aiou"


def make_passphrase(entropy: Callable[[int], bytes]) -> str:
    """Five words of 16 random bits each, as `lusab-babad-gutih-tugad-nodiv`."""
    data = entropy(2 * WORDS)
    return "-".join(_word(int.from_bytes(data[at : at + 2])) for at in range(0, len(data), 2))


def _word(number: int) -> str:
    letters = [
        _CONSONANTS[number >> 12],
        _VOWELS[number >> 10 & 3],
        _CONSONANTS[number >> 6 & 15],
        _VOWELS[number >> 4 & 3],
        _CONSONANTS[number & 15],
    ]
    return "".join(letters)


def stretch(passphrase: str, salt: bytes, size: int) -> bytes:
    """So many bytes that only the passphrase gives, at the cost of a try. Blocks for 0.1 to 0.5 s.

    Blanks around it, which come by copying, do not matter.
    """
    from nacl.pwhash.argon2id import kdf

    assert len(salt) == SALT_BYTES, f"a salt has {SALT_BYTES} bytes"
    text = passphrase.strip().encode()
    return kdf(size, text, salt, opslimit=_PASSES, memlimit=_MEMORY_BYTES)


def lock(plain: bytes, key: bytes, nonce: bytes = bytes(NONCE_BYTES)) -> bytes:
    """Bytes that only the key opens, of a size that tells little.

    A pair of key and nonce is used once: without a nonce, the key.
    """
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

    assert (len(key), len(nonce)) == (_KEY_BYTES, NONCE_BYTES)
    padded = len(plain).to_bytes(_LENGTH_BYTES) + plain
    padded += bytes(-(len(padded) + _TAG_BYTES) % _BLOCK_BYTES)
    return encrypt(padded, None, nonce, key)


def unlock(locked: bytes, key: bytes, nonce: bytes = bytes(NONCE_BYTES)) -> bytes:
    """The inverse; raises MalformedMessage for another key, and for what was changed."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
    from nacl.exceptions import CryptoError

    try:
        padded = decrypt(locked, None, nonce, key)
    except (CryptoError, ValueError) as error:
        raise MalformedMessage("it does not open: another passphrase, or it was changed") from error
    size = int.from_bytes(padded[:_LENGTH_BYTES])
    plain = padded[_LENGTH_BYTES : _LENGTH_BYTES + size]
    if len(plain) != size:
        raise MalformedMessage("it is cut off")
    return plain


def seal_with(passphrase: str, plain: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """Bytes that only the passphrase opens. Blocks as `stretch`."""
    salt = entropy(SALT_BYTES)
    return salt + lock(plain, stretch(passphrase, salt, _KEY_BYTES))


def open_with(passphrase: str, sealed: bytes) -> bytes:
    """The inverse; raises MalformedMessage for another passphrase, and for what was changed."""
    if len(sealed) < SALT_BYTES + _TAG_BYTES:
        raise MalformedMessage("it is cut off")
    salt, locked = sealed[:SALT_BYTES], sealed[SALT_BYTES:]
    return unlock(locked, stretch(passphrase, salt, _KEY_BYTES))
