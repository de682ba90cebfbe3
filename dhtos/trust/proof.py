"""Who said so: the proof that a record carries, and how it is believed.

    proof = Ed25519 signature(64) | the publisher's own certificate

The signature is over the record without its proof, in the one encoding there is, for this cluster
(`dhtos.trust.token.domain`). So nobody can advertise in the name of another, hand on a record that
was changed, or bring one from another cluster; and the certificate says that the publisher was
admitted as a node. It is the leaf of its chain only: who its issuer is, is known to whoever has a
session with anybody the same issuer admitted, and the whole chain makes 670 bytes of a record that
has 460 so. A change of the dynamic part carries the 64 bytes for the version that it makes, which
keeps the certificate.
"""

import msgspec

from dhtos.core.limits import RECORD_BYTES_MAX
from dhtos.core.record import Record, record_size
from dhtos.errors import MalformedMessage, ValueTooLarge
from dhtos.trust.cert import node_id
from dhtos.trust.keys import SIGNATURE_BYTES, verify
from dhtos.trust.member import Member
from dhtos.trust.token import domain

_encode = msgspec.msgpack.Encoder().encode
_KIND = b"record"


def proved(member: Member, record: Record) -> Record:
    """The record as its publisher shows it; raises ValueTooLarge when it fits in no datagram.

    Costs a signature, 25 us.
    """
    chain = member.chain
    assert chain is not None
    assert record.identity == member.key.public
    plain = _plain(record)
    signature = member.key.sign(domain(_KIND, member.root), _encode(plain))
    found = msgspec.structs.replace(plain, proof=signature + chain.link)
    size = record_size(found)
    if size > RECORD_BYTES_MAX:
        raise ValueTooLarge(
            f"a record has at most {RECORD_BYTES_MAX} bytes, this one {size} with the "
            f"{size - record_size(plain)} of its certificate: shorten texts or labels"
        )
    return found


def certificate_of(record: Record) -> bytes:
    """The certificate in a proof, as `Member.read_link` takes it; empty in open mode."""
    return record.proof[SIGNATURE_BYTES:]


def check_proof(member: Member, record: Record) -> None:
    """Raise MalformedMessage unless an admitted node said just this.

    Costs 45 us, and as much again for each certificate that was not seen before.
    """
    proof = record.proof
    if len(proof) <= SIGNATURE_BYTES:
        raise MalformedMessage("a record is not signed")
    leaf = member.read_link(certificate_of(record))
    if not leaf.is_node or leaf.subject != record.identity:
        raise MalformedMessage("a record is signed by another than its publisher")
    if not record.is_foreign and record.node_id != node_id(leaf.subject, leaf.nonce):
        raise MalformedMessage("a record has the id of another node")
    text = _encode(_plain(record))
    if not verify(leaf.subject, proof[:SIGNATURE_BYTES], domain(_KIND, member.root), text):
        raise MalformedMessage("a record is not what its publisher signed")


def _plain(record: Record) -> Record:
    return msgspec.structs.replace(record, proof=b"")
