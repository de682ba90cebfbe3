"""Files kept in the network under a passphrase: where they are, and what opens them.

    locator 20 | key 32 = Argon2id(passphrase, salt)
    salt                = first 16 bytes of BLAKE2b(root of the cluster | name)
    address             = BLAKE2b-160(locator)
    value               = nonce 24 | XChaCha20-Poly1305(key, nonce, padded files)

Who has the passphrase finds them and reads them, with nothing else at hand; who has not does not
even know where to look: another passphrase is another address. A holder sees some KiB that bear no
name. One that guesses whose they are can try passphrases as fast as it can compute, each try
0.1 s and 64 MiB: so passphrases are made, of 80 random bits (`dhtos.trust.passphrase`).

The key is the same for each version of the files, so each has a nonce of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from dhtos.core.ids import ID_BYTES
from dhtos.core.value import is_printable
from dhtos.errors import MalformedMessage, UsageError
from dhtos.trust.passphrase import NONCE_BYTES, SALT_BYTES, lock, stretch, unlock

NAME_BYTES_MAX = 63
FILES_MAX = 8
FILES_BYTES_MAX = 6000  # of all together: with what is around them they are a value of a cluster
PASSPHRASE_MIN = 12  # characters
_KEY_BYTES = 32
_DOMAIN = b"dhtos-secstore"
_decode = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Place:
    """Where files are, and the key that opens them."""

    address: bytes
    key: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Under which they are put and got."""
        return f"secret:{self.address.hex()}"


def find_place(passphrase: str, root: bytes, name: str) -> Place:
    """The place of files of this name in a cluster. Blocks as `stretch`; raises UsageError."""
    check_passphrase(passphrase)
    if not name or not is_printable(name, NAME_BYTES_MAX):
        raise UsageError(f"a name has 1..{NAME_BYTES_MAX} printable bytes, got {name!r}")
    salt = blake2b(root + name.encode(), digest_size=SALT_BYTES, person=_DOMAIN).digest()
    derived = stretch(passphrase, salt, ID_BYTES + _KEY_BYTES)
    locator, key = derived[:ID_BYTES], derived[ID_BYTES:]
    return Place(blake2b(locator, digest_size=ID_BYTES, person=_DOMAIN).digest(), key)


def check_passphrase(passphrase: str) -> None:
    """Raise UsageError for one that anybody would try first."""
    length = len(passphrase.strip())
    if length < PASSPHRASE_MIN:
        raise UsageError(
            f"a passphrase has at least {PASSPHRASE_MIN} characters, got {length}: holders of what "
            "it opens may try as many as they like; give none and a good one is made"
        )


def lock_files(place: Place, files: Mapping[str, bytes], entropy: Callable[[int], bytes]) -> bytes:
    """The value that holds these files; raises UsageError for what has no room."""
    size = sum(len(name.encode()) + len(content) for name, content in files.items())
    if not 0 < len(files) <= FILES_MAX or size > FILES_BYTES_MAX:
        raise UsageError(
            f"a key store is for keys, of at most {FILES_BYTES_MAX} bytes together with the names "
            f"of their files, got {size}: keep other files elsewhere"
        )
    nonce = entropy(NONCE_BYTES)
    return nonce + lock(_encode(dict(files)), place.key, nonce)


def unlock_files(place: Place, value: object) -> dict[str, bytes]:
    """The files of a value; raises MalformedMessage for one that was not made with this key."""
    if not isinstance(value, bytes) or len(value) <= NONCE_BYTES:
        raise MalformedMessage("it does not open: another has put it there")
    plain = unlock(value[NONCE_BYTES:], place.key, value[:NONCE_BYTES])
    try:
        return _decode(plain)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedMessage("it holds no files") from error
