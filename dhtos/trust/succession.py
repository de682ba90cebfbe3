"""One root after another: the old one names its heir, and until when its own word counts.

A chain shows the successions between the root that names the cluster and the one that signed its
first certificate, so whoever believes in the first root believes such a chain without having heard
of anything. Of two successors of one root a member believes the first that it was shown.
"""

import msgspec

from dhtos.errors import MalformedMessage
from dhtos.trust.token import domain

HEIRS_MAX = 2  # what a chain has room for
_HEIR_BYTES = 32
_KIND = b"succession"


class Succession(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """That `heir` is the root from now on; what the one before has signed holds until `ends`."""

    heir: bytes
    ends: int  # seconds since 1970


write_succession = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Succession).decode


def read_succession(body: bytes) -> Succession:
    """The inverse of `write_succession`; raises MalformedMessage."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedMessage("not a succession") from error
    if len(found.heir) != _HEIR_BYTES or not 0 < found.ends < 2**53:
        raise MalformedMessage("a succession is [public key, end]")
    return found


def succession_domain(cluster: bytes) -> bytes:
    """What a root signs that for; `cluster` is the hash of the first."""
    return domain(_KIND, cluster)
