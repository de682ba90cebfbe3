"""Key pairs: one Ed25519 seed signs, and its X25519 form takes part in handshakes.

Every signature names what it is for, its domain, so that one made for a record can never be
shown as one for a certificate. What is signed is `dhtos/1 <domain>`, a zero byte, the message:
the domain holds no zero byte, so no two pairs of domain and message read alike.

Using one key for both is libsodium's own conversion, and sound for these two schemes
(Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM", 2021).

PyNaCl is imported where it is first called: a node in open mode signs nothing.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

SEED_BYTES = 32
PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
REMEMBERED = 1024  # answers that only depend on what was asked

_PREFIX = b"dhtos/1 "


class Signer(Protocol):
    """Whoever can sign with an Ed25519 key: that holds it, or asks who does."""

    @property
    def public(self) -> bytes:
        """The public key."""
        ...

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """The signature of a message for one purpose."""
        ...


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key pair; equal seeds are equal pairs."""

    seed: bytes = field(repr=False)
    public: bytes = field(init=False, compare=False)
    exchange_secret: bytes = field(init=False, repr=False, compare=False)
    _signing: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from nacl.bindings import crypto_sign_ed25519_sk_to_curve25519, crypto_sign_seed_keypair

        assert len(self.seed) == SEED_BYTES, f"a seed has {SEED_BYTES} bytes, got {len(self.seed)}"
        public, signing = crypto_sign_seed_keypair(self.seed)
        object.__setattr__(self, "public", public)
        object.__setattr__(self, "exchange_secret", crypto_sign_ed25519_sk_to_curve25519(signing))
        object.__setattr__(self, "_signing", signing)

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """The signature of a message for one purpose; the same each time."""
        from nacl.bindings import crypto_sign

        return crypto_sign(signed_text(domain, message), self._signing)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"<KeyPair {self.public[:4].hex()}>"


@lru_cache(REMEMBERED)
def verify(public: bytes, signature: bytes, domain: bytes, message: bytes) -> bool:
    """Whether the holder of this key signed the message for this purpose; never raises.

    The last ones are remembered: what is signed once is heard from many. Keys of small order, which
    "sign" everything, and second spellings of a signature are refused.
    """
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    signed = signed_text(domain, message)
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + signed, public)
    except BadSignatureError:
        return False
    return True


@lru_cache(REMEMBERED)
def exchange_public(public: bytes) -> bytes | None:
    """The X25519 form of an Ed25519 public key; None for what is no key.

    A key and its negative have the same form: who proves to hold one of them holds both.
    """
    from nacl.bindings import crypto_sign_ed25519_pk_to_curve25519
    from nacl.exceptions import CryptoError

    try:
        return crypto_sign_ed25519_pk_to_curve25519(public)
    except CryptoError:  # of another length, not on the curve or outside the group of prime order
        return None


def signed_text(domain: bytes, message: bytes) -> bytes:
    """What a signature is over."""
    assert b"\0" not in domain, f"a domain has no zero byte: {domain!r}"
    return b"%b%b\0%b" % (_PREFIX, domain, message)
