"""Receipts: what somebody has had of a machine, signed by the machine and then by whoever had it.

The node that granted a lease writes it when the lease has ended, and signs. The owner of the lease
compares it with what he knows and signs the same bytes, or says why he does not. Neither can change
it afterwards, or say that it was never so: each keeps both signatures. Amounts of resources are
those of the lease, for all of its time; what commands have used is by the word of the machine.
"""

from collections.abc import Mapping
from hashlib import blake2b
from math import isfinite

import msgspec

from dhtos.core.ids import ID_BYTES
from dhtos.core.limits import CLAIM_RESOURCES_MAX, RECEIPT_BYTES_MAX
from dhtos.core.value import is_printable
from dhtos.errors import MalformedMessage
from dhtos.trust.cert import KEY_BYTES, NAME_BYTES_MAX
from dhtos.trust.keys import Signer, verify
from dhtos.trust.token import domain

LEASE_BYTES = 16
_RESOURCE_BYTES_MAX = 32
_NUMBER_MAX = 2.0**80
_HOST, _OWNER = b"receipt", b"received"


class Receipt(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What one lease came to. Times are seconds since 1970, by the clock of the machine."""

    lease: bytes  # `lease_hash` of its token, which stays secret
    node_id: bytes
    user: str  # whose it was, by his certificate
    subject: bytes  # and his key
    resources: tuple[tuple[str, float], ...]
    began: float
    ended: float
    price: float | None = None  # an hour, as it was quoted at the claim
    cpu_s: float = 0.0  # used by commands
    memory_byte_s: float = 0.0  # their peak, for as long as each ran

    @property
    def seconds(self) -> float:
        """How long it was his."""
        return self.ended - self.began

    @property
    def cost(self) -> float:
        """What it comes to at its price; nothing where no price was said."""
        return (self.price or 0.0) * self.seconds / 3600


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Receipt).decode


def lease_hash(token: bytes) -> bytes:
    """What names a lease to people who may not use it."""
    return blake2b(token, digest_size=LEASE_BYTES, person=b"dhtos-lease").digest()


def amounts(resources: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Resources as a receipt names them: in order, so that equal ones are equal bytes."""
    return tuple(sorted((name, float(amount)) for name, amount in resources.items()))


def write_receipt(receipt: Receipt) -> bytes:
    """The bytes that are signed."""
    return _encode(receipt)


def read_receipt(wire: bytes) -> Receipt:
    """The inverse; raises MalformedMessage. Who signed it is `is_signed`."""
    if len(wire) > RECEIPT_BYTES_MAX:
        raise MalformedMessage(f"a receipt has at most {RECEIPT_BYTES_MAX} bytes, got {len(wire)}")
    try:
        receipt = _decode(wire)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage("not a receipt") from error
    wrong = _misfit(receipt)
    if wrong:
        raise MalformedMessage(f"a receipt {wrong}")
    if _encode(receipt) != wire:
        raise MalformedMessage("a receipt has one form, and this is another")
    return receipt


def _misfit(receipt: Receipt) -> str:
    sizes = (len(receipt.lease), len(receipt.node_id), len(receipt.subject))
    if sizes != (LEASE_BYTES, ID_BYTES, KEY_BYTES):
        return "names a lease, a node and a key"
    if not receipt.user or not is_printable(receipt.user, NAME_BYTES_MAX):
        return "names a user"
    names = [name for name, _ in receipt.resources]
    if len(names) > CLAIM_RESOURCES_MAX or names != sorted(set(names)):
        return f"has at most {CLAIM_RESOURCES_MAX} resources, each once and in order"
    if not all(name and is_printable(name, _RESOURCE_BYTES_MAX) for name in names):
        return "names its resources"
    numbers = [amount for _, amount in receipt.resources]
    numbers += [receipt.began, receipt.ended, receipt.cpu_s, receipt.memory_byte_s]
    numbers.append(receipt.price or 0.0)
    if not all(isfinite(number) and 0 <= number <= _NUMBER_MAX for number in numbers):
        return "has numbers of 0 or more"
    return "" if receipt.began <= receipt.ended else "begins before it ends"


# --- signatures -----------------------------------------------------------------------------------


def sign_as_host(key: Signer, cluster: bytes, wire: bytes) -> bytes:
    """By the machine that granted the lease."""
    return key.sign(domain(_HOST, cluster), wire)


def sign_as_owner(key: Signer, cluster: bytes, wire: bytes) -> bytes:
    """By whoever had it; another purpose, so that none of them can be shown as the other's."""
    return key.sign(domain(_OWNER, cluster), wire)


def is_signed_by_host(public: bytes, cluster: bytes, wire: bytes, signature: bytes) -> bool:
    """Whether the machine of this key signed the bytes."""
    return verify(public, signature, domain(_HOST, cluster), wire)


def is_signed_by_owner(public: bytes, cluster: bytes, wire: bytes, signature: bytes) -> bool:
    """Whether the holder of this key signed the bytes, as whoever had it."""
    return verify(public, signature, domain(_OWNER, cluster), wire)
