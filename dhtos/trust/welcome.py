"""What a cluster lets those of another one do here: ask, claim, run; never more.

A `Welcome` names the other cluster by the hash of its root and is signed by an issuer of ours that
may `admin`, or by the root. Nobody of the other cluster needs a key or a certificate of ours: a
*visitor* shows its own chain, of which `visitor` makes what it is here:

    its name        alice@1a2b3c4d, with the first digits of its cluster
    its groups      the one that the welcome names, or none
    what it may     what both its certificate and the welcome give; it is no node and admits nobody
    its serial      a hash of it and of its cluster: who admits there cannot choose one of ours

Of two welcomes for one cluster the one that begins later holds, whatever order they are heard in;
one without capabilities withdraws those before it. A welcome lasts for at most WELCOME_S_MAX and is
remembered for that long after its begin, so that none that it has replaced can come back.
"""

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b

import msgspec

from dhtos.core.limits import WELCOME_S_MAX
from dhtos.errors import MalformedMessage
from dhtos.trust.cert import (
    DELEGABLE,
    KEY_BYTES,
    NAME_BYTES_MAX,
    SERIAL_BYTES,
    VERBS,
    Cert,
    Chain,
    is_group,
)
from dhtos.trust.keys import SIGNATURE_BYTES, Signer, verify
from dhtos.trust.token import ROOT_BYTES, domain

WELCOME_BYTES_MAX = 480
WELCOME_CAPS_MAX = 6
_DIGITS = 8
_KIND = b"welcome"
_SERIAL = b"dhtos-visitor"


class Welcome(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """That whoever is of `cluster` may do this here, in seconds since 1970, `expires` excluded."""

    cluster: bytes  # the hash of its root
    caps: tuple[str, ...]  # none: it is not welcome any more
    group: str  # that its visitors are in, or empty
    begins: int
    expires: int
    signer: bytes
    signature: bytes

    @property
    def order(self) -> tuple[int, bytes]:
        """Of two for one cluster the greater holds."""
        return self.begins, self.signature

    def is_kept(self, wall_s: float) -> bool:
        """Whether one that it has replaced could still be told."""
        return wall_s < self.begins + WELCOME_S_MAX


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Welcome).decode


def make_welcome(
    key: Signer,
    root: bytes,
    cluster: bytes,
    *,
    caps: Iterable[str] = (),
    group: str = "",
    begins: int,
    expires: int,
) -> Welcome:
    """Say in the cluster of this root hash what those of another may; raises MalformedMessage."""
    unsigned = Welcome(
        cluster, tuple(caps), group, begins, expires, key.public, bytes(SIGNATURE_BYTES)
    )
    _check_form(unsigned)
    signature = key.sign(domain(_KIND, root), _text(unsigned))
    return msgspec.structs.replace(unsigned, signature=signature)


def write_welcome(welcome: Welcome) -> bytes:
    """As it is told and kept."""
    return _encode(welcome)


def read_welcome(wire: bytes) -> Welcome:
    """The inverse; raises MalformedMessage. Whether it holds is `is_signed` and its signer's."""
    if len(wire) > WELCOME_BYTES_MAX:
        raise MalformedMessage(f"a welcome has at most {WELCOME_BYTES_MAX} bytes, got {len(wire)}")
    try:
        found = _decode(wire)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage("not a welcome") from error
    _check_form(found)
    return found


def is_signed(welcome: Welcome, root: bytes) -> bool:
    """Whether its signer has signed it, for the cluster of this root hash."""
    return verify(welcome.signer, welcome.signature, domain(_KIND, root), _text(welcome))


def _text(welcome: Welcome) -> bytes:
    one = welcome
    return _encode((one.cluster, one.caps, one.group, one.begins, one.expires))


def _check_form(welcome: Welcome) -> None:
    sizes = (len(welcome.cluster), len(welcome.signer), len(welcome.signature))
    if sizes != (ROOT_BYTES, KEY_BYTES, SIGNATURE_BYTES):
        raise MalformedMessage(
            "a welcome is [cluster, caps, group, begins, expires, signer, signature]"
        )
    if welcome.group and not is_group(welcome.group):
        raise MalformedMessage(f"a welcome names a group or none, got {welcome.group!r}")
    if len(welcome.caps) > WELCOME_CAPS_MAX:
        raise MalformedMessage(f"a welcome gives at most {WELCOME_CAPS_MAX} capabilities")
    for cap in welcome.caps:
        verb, colon, scope = cap.partition(":")
        if verb not in DELEGABLE or (colon and not is_group(scope)):
            raise MalformedMessage(
                f"a welcome gives query, claim or run, each with a :group or none, got {cap!r}"
            )
    lasts_s = welcome.expires - welcome.begins
    if not 0 <= welcome.begins < 2**53 or not 0 < lasts_s <= WELCOME_S_MAX:
        raise MalformedMessage(
            f"a welcome holds from a time on, for {WELCOME_S_MAX // 86_400} days at most"
        )


def may_welcome(issuer: Cert, welcome: Welcome) -> bool:
    """Whether an issuer may say so: it gives what it has, and a group that it may name."""
    if welcome.group and not issuer.may("issue", (welcome.group,)):
        return False
    split = [cap.partition(":") for cap in welcome.caps]
    return issuer.may("admin") and all(
        issuer.may(VERBS[VERBS.index(verb)], (scope,) if scope else ()) for verb, _, scope in split
    )


# --- visitors -------------------------------------------------------------------------------------


def visitor(chain: Chain, welcome: Welcome) -> Chain:
    """What somebody of a welcome cluster is here; its leaf may have no capabilities at all."""
    certs = chain.certs[chain.certs.index(chain.principal) :]
    return replace(
        chain, certs=tuple(_restricted(cert, welcome) for cert in certs), home=welcome.cluster
    )


def _restricted(cert: Cert, welcome: Welcome) -> Cert:
    return Cert(
        cert.subject,
        b"",
        visiting_serial(cert.serial, welcome.cluster),
        visiting_name(cert.name, welcome.cluster),
        (welcome.group,) if welcome.group else (),
        meet(cert.caps, welcome.caps),
        cert.not_before,
        min(cert.expires, welcome.expires),
    )


def visiting_name(name: str, cluster: bytes) -> str:
    """What somebody of another cluster is called here; a long name is cut.

    >>> visiting_name("alice", bytes.fromhex("1a2b3c4d") + bytes(16))
    'alice@1a2b3c4d'
    """
    home = f"@{cluster.hex()[:_DIGITS]}"
    kept = name.encode()[: NAME_BYTES_MAX - len(home)].decode(errors="ignore")
    return kept + home


def visiting_serial(serial: bytes, cluster: bytes) -> bytes:
    """The serial number here of a certificate of another cluster."""
    return blake2b(_SERIAL + cluster + serial, digest_size=SERIAL_BYTES).digest()


def meet(held: Iterable[str], given: Iterable[str]) -> tuple[str, ...]:
    """What two lists of capabilities both give: of one scope and none, that scope.

    >>> meet(("query", "claim:gpu", "publish"), ("query:edge", "claim"))
    ('query:edge', 'claim:gpu')
    """
    found: dict[str, None] = {}
    theirs = [(cap, *cap.partition(":")[::2]) for cap in held]
    for cap in given:
        verb, _, scope = cap.partition(":")
        for own, own_verb, own_scope in theirs:
            if own_verb == verb and (not scope or not own_scope or scope == own_scope):
                found[own if own_scope else cap] = None
    return tuple(found)
