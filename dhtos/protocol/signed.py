"""Values of a cluster between the wire and the store: signed, believed, and by whom.

In open mode nobody can say whose a value is, and nothing of this is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

from dhtos.core.limits import VALUE_SIGNED_BYTES_MAX, VALUE_TTL_S
from dhtos.errors import MalformedMessage, Refused, UsageError, ValueTooLarge
from dhtos.protocol.store import VALUE_TYPES, Held, Value, ValueOwner
from dhtos.protocol.wire import encode_value
from dhtos.trust.cert import KEY_BYTES
from dhtos.trust.member import Member
from dhtos.trust.value import check_value, owned_key, sign_value

Owner = ValueOwner | str | bytes
"""Who: as a value tells it, a public key, its hex digits, or `self`."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an owner says of a value beside the value itself."""

    salt: bytes | None = None  # of an owned key
    gone: bool = False


SHARED = Terms()


def signed(
    member: Member,
    key: bytes,
    value: Value,
    now: float,
    *,
    seq: int,
    ttl_s: float,
    terms: Terms = SHARED,
) -> Held:
    """A value of ours; raises UsageError, ValueTooLarge, and Refused before we are admitted."""
    if member.chain is None:
        raise Refused("this node has not been admitted to its cluster yet")
    if terms.salt is not None and owned_key(member.key.public, terms.salt) != key:
        raise UsageError("an owned key follows from the own public key and the salt")
    if seq < 1:
        raise UsageError("seq must be 1 or more in a cluster: every version has an owner")
    encoded = encode_value(value)
    if len(encoded) > VALUE_SIGNED_BYTES_MAX:
        raise ValueTooLarge(
            f"a value has at most {VALUE_SIGNED_BYTES_MAX} bytes in a cluster, got {len(encoded)}"
        )
    wall_s = member.wall_s()
    expires = ceil(wall_s + ttl_s)
    said = sign_value(
        member, key, encoded, seq=seq, expires=expires, salt=terms.salt, gone=terms.gone
    )
    return Held(value, seq, now + min(ttl_s, said.expires - wall_s), said)


def public_of(owner: Owner, member: Member) -> bytes:
    """The public key that is meant; raises UsageError."""
    if owner == "self":
        return member.key.public
    key = owner.key if isinstance(owner, ValueOwner) else owner
    if isinstance(key, str):
        try:
            key = bytes.fromhex(key)
        except ValueError:
            key = b""
    if type(key) is not bytes or len(key) != KEY_BYTES:
        raise UsageError(
            f"an owner is `self`, the owner of a value, or a public key of 64 hex digits,"
            f" got {owner!r}"
        )
    return key


def believed(member: Member, key: bytes, value: Any, proof: object, now: float) -> Held:
    """A value that came with its proof; raises MalformedMessage when that is not believed."""
    if type(value) not in VALUE_TYPES or type(proof) is not bytes:
        raise MalformedMessage("a value of a cluster comes with a proof")
    said = check_value(member, key, encode_value(value), proof)
    return Held(value, said.seq, now + min(said.expires - member.wall_s(), VALUE_TTL_S), said)


def reader(
    member: Member, key: bytes, owner: bytes, forged: Callable[[], None]
) -> Callable[[dict[str, Any], float], Held | None]:
    """What reads the replies to `find_value`: of an owned key only its `owner`'s count.

    `forged` is told of each that is not believed, which raises MalformedMessage. What somebody else
    has signed there is as good as nothing.
    """

    def read(reply: dict[str, Any], now: float) -> Held | None:
        try:
            held = believed(member, key, reply.get("value"), reply.get("p"), now)
        except MalformedMessage:
            forged()
            raise
        is_meant = held.owner == owner and held.is_owned if owner else not held.is_owned
        return held if is_meant else None

    return read
