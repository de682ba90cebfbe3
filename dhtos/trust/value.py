"""Whose value it is: the proof that a value of `put` carries, and how it is believed.

    proof = [seq, expires, salt | nil, gone, Ed25519 signature(64), the owner's own chain]

The signature is over the key, the salt, what the proof says and a hash of the value's encoding, for
this cluster (`dhtos.trust.token.domain`). So nobody can change a value, bring it from another
cluster or another key, or lengthen its life: `expires` is in seconds since 1970, and never after
the owner's certificate. A value that is `gone` says that there was one: it keeps older copies away.

The key of an *owned* value follows from its owner's public key and the salt (as in BEP 44), so that
nobody else can write there; a value without a salt is under a *shared* key, whoever came first.

The proof has the whole chain, unlike that of a record: a value is read by who may never have met
anybody that the same issuer admitted, and there is room for it.
"""

from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from dhtos.core.ids import ID_BYTES
from dhtos.core.limits import VALUE_TTL_S
from dhtos.errors import MalformedMessage
from dhtos.trust.cert import CHAIN_BYTES_MAX, CLOCK_SKEW_S, Cert
from dhtos.trust.keys import verify
from dhtos.trust.member import Member
from dhtos.trust.token import domain

SALT_BYTES_MAX = 64
PROOF_BYTES_MAX = CHAIN_BYTES_MAX + 200
NUMBER_MAX = 2**63 - 1  # of a version
NOTHING = b"\xc4\x00"  # how a value that is gone is encoded: no bytes
_KIND = b"value"
_OWNED = b"dhtos-owned"


class _Proof(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    seq: int
    expires: int
    salt: bytes | None
    gone: bool
    signature: bytes
    chain: bytes


@dataclass(frozen=True, slots=True)
class Said:
    """What the owner of a value has said of it, and the proof as it came."""

    owner: Cert
    seq: int
    expires: int
    salt: bytes | None
    gone: bool
    proof: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Proof).decode


def owned_key(public: bytes, salt: bytes) -> bytes:
    """Where only the holder of this key can write."""
    assert len(salt) <= SALT_BYTES_MAX
    return blake2b(_OWNED + public + salt, digest_size=ID_BYTES).digest()


def sign_value(
    member: Member,
    key: bytes,
    value: bytes,
    *,
    seq: int,
    expires: int,
    salt: bytes | None = None,
    gone: bool = False,
) -> Said:
    """Say that an encoded value is ours; its life ends with our certificate. Costs 25 us."""
    chain = member.chain
    assert chain is not None
    expires = min(expires, chain.expires)
    text = _text(key, value, seq, expires, salt, gone=gone)
    signature = member.key.sign(domain(_KIND, member.root), text)
    proof = _encode(_Proof(seq, expires, salt, gone, signature, chain.wire))
    return Said(chain.principal, seq, expires, salt, gone, proof)


def check_value(member: Member, key: bytes, value: bytes, proof: bytes) -> Said:
    """What its owner said of an encoded value; raises MalformedMessage if that is not believed.

    Costs 45 us, and as much again for each certificate that was not seen before.
    """
    if len(proof) > PROOF_BYTES_MAX:
        raise MalformedMessage(f"the proof of a value has at most {PROOF_BYTES_MAX} bytes")
    try:
        read = _decode(proof)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"not the proof of a value: {type(error).__name__}") from error
    _check_form(read, value, member.wall_s())
    if _encode(read) != proof:
        raise MalformedMessage("the proof of a value has one encoding")
    chain = member.read(read.chain)
    owner = chain.principal
    if owner is not chain.leaf or owner.scopes("publish") == frozenset():
        raise MalformedMessage("a value is of somebody who may not publish")
    if read.salt is not None and owned_key(owner.subject, read.salt) != key:
        raise MalformedMessage("a value is under the key of another owner")
    if read.expires > chain.expires:
        raise MalformedMessage("a value outlives the certificate of its owner")
    text = _text(key, value, read.seq, read.expires, read.salt, gone=read.gone)
    if not verify(owner.subject, read.signature, domain(_KIND, member.root), text):
        raise MalformedMessage("a value is not what its owner signed")
    return Said(owner, read.seq, read.expires, read.salt, read.gone, proof)


def is_believed(member: Member, said: Said) -> bool:
    """Whether what was verified once still holds: the owner's certificates, and the date."""
    if said.expires <= member.wall_s():
        return False
    try:
        member.read(_decode(said.proof).chain)
    except MalformedMessage:
        return False
    return True


def _check_form(read: _Proof, value: bytes, wall_s: float) -> None:
    if not 0 < read.seq <= NUMBER_MAX:
        raise MalformedMessage("the version of a value is 1..2**63-1")
    if read.salt is not None and len(read.salt) > SALT_BYTES_MAX:
        raise MalformedMessage(f"a salt has at most {SALT_BYTES_MAX} bytes")
    if read.gone and value != NOTHING:
        raise MalformedMessage("a value that is gone is empty")
    if not wall_s < read.expires <= wall_s + VALUE_TTL_S + CLOCK_SKEW_S + 1:
        raise MalformedMessage("a value lives for a week at most, and this one not now")


def _text(
    key: bytes, value: bytes, seq: int, expires: int, salt: bytes | None, *, gone: bool
) -> bytes:
    return _encode((key, salt, blake2b(value).digest(), seq, expires, gone))
