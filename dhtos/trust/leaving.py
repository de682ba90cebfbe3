"""Who leaves says so itself, so that nobody is sent away by others.

A signature over the key of a record and the version from which on it is gone, for this cluster
(`dhtos.trust.token.domain`), by the key that published the record.
"""

from typing import TYPE_CHECKING

import msgspec

from dhtos.trust.keys import verify
from dhtos.trust.token import domain

if TYPE_CHECKING:
    from dhtos.trust.member import Member

_encode = msgspec.msgpack.Encoder().encode
_KIND = b"left"


def sign_left(member: "Member", key: bytes, seq: int) -> bytes:
    """What shows that the record of ours at this key is gone at this version."""
    return member.key.sign(domain(_KIND, member.root), _encode([key, seq]))


def has_left(member: "Member", identity: bytes, key: bytes, seq: int, proof: bytes) -> bool:
    """Whether the holder of this public key has said so; costs 45 us."""
    return verify(identity, proof, domain(_KIND, member.root), _encode([key, seq]))
