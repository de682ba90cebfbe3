"""Taking a certificate back before it ends.

A revocation names a serial number, which a certificate keeps when it is renewed, by whomever. It is
signed by the root, or by an issuer that may `admin`; an issuer's own certificate only the root
takes back. Revocations never change and never contradict each other, so a member keeps the union of
all it hears of, whoever tells it; each is dropped when the last certificate of that number would
have ended by itself.
"""

import msgspec

from dhtos.errors import MalformedMessage
from dhtos.trust.cert import KEY_BYTES, SERIAL_BYTES
from dhtos.trust.keys import SIGNATURE_BYTES, KeyPair, verify
from dhtos.trust.token import domain

REVOCATION_BYTES_MAX = 160
_KIND = b"revoked"


class Revocation(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """That certificates of this serial number hold no more; the last of them ends at `expires`."""

    serial: bytes
    expires: int
    signer: bytes
    signature: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Revocation).decode


def revoke(key: KeyPair, cluster: bytes, serial: bytes, expires: int) -> Revocation:
    """Take the certificate of this number and end back; `cluster` is the root's hash."""
    signature = key.sign(domain(_KIND, cluster), _encode((serial, expires)))
    return Revocation(serial, expires, key.public, signature)


def write_revocation(revocation: Revocation) -> bytes:
    """As it is told and kept."""
    return _encode(revocation)


def read_revocation(wire: bytes) -> Revocation:
    """The inverse; raises MalformedMessage. Whether it holds is `is_signed` and its signer's."""
    try:
        found = _decode(wire)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedMessage("not a revocation") from error
    sizes = (len(found.serial), len(found.signer), len(found.signature))
    if sizes != (SERIAL_BYTES, KEY_BYTES, SIGNATURE_BYTES) or not 0 < found.expires < 2**53:
        raise MalformedMessage("a revocation is [serial, expires, signer, signature]")
    return found


def is_signed(revocation: Revocation, cluster: bytes) -> bool:
    """Whether its signer has signed it, for this cluster."""
    text = _encode((revocation.serial, revocation.expires))
    return verify(revocation.signer, revocation.signature, domain(_KIND, cluster), text)
