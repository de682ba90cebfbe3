"""Certificates: who somebody is, what they may do, and who says so.

A `Cert` names a public key and gives it capabilities; whoever gives signs. One key, the root, is
trusted for itself and makes a cluster; all others show a `Chain` of at most three certificates,
from one that the root signed down to their own:

    root -> issuer              a node that may admit others
    root -> issuer -> node      a member: it has an id, advertises and holds records
    root -> issuer -> user      somebody who asks and claims, and is no member
    ... -> delegate             a key that may do some of what its signer may: of a job, for minutes

The root that names the cluster may be followed by others (`dhtos.trust.succession`), of which the
last one signs.

No link gives more than its signer has (attenuation), lives longer, or is believed outside of its
cluster: signatures are over the root's hash too. Only the root makes issuers. Who may not issue may
still delegate, but never `publish`: one admission makes one node.

A chain is parsed and verified once (41 us a link) and then known by its bytes, which are kept as
they came: nothing is encoded again to be verified.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

import msgspec

from dhtos.core.ids import ID_BYTES
from dhtos.core.value import is_printable
from dhtos.errors import MalformedMessage, UsageError
from dhtos.trust.keys import REMEMBERED, Signer, verify
from dhtos.trust.succession import (
    HEIRS_MAX,
    Succession,
    read_succession,
    succession_domain,
    write_succession,
)
from dhtos.trust.token import domain, root_hash

Verb = Literal["query", "publish", "claim", "run", "issue", "admin"]
VERBS: tuple[Verb, ...] = ("query", "publish", "claim", "run", "issue", "admin")
DELEGABLE: frozenset[str] = frozenset({"query", "claim", "run"})

NONCE_BYTES = 8
SERIAL_BYTES = 8
KEY_BYTES = 32
CHAIN_MAX = 3
GROUPS_MAX = 8
CAPS_MAX = 16
NAME_BYTES_MAX = 63
GROUP_BYTES_MAX = 32
CHAIN_BYTES_MAX = 900  # what a handshake has room for
CLOCK_SKEW_S = 90.0
_NODE_DOMAIN = b"dhtos-id"


class Cert(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What a signer says of a key. Times are seconds since 1970, `expires` not included."""

    subject: bytes  # its Ed25519 public key
    nonce: bytes  # of a node: chosen by the issuer, so that nobody chooses an id; else empty
    serial: bytes
    name: str
    groups: tuple[str, ...]
    caps: tuple[str, ...]  # "verb", or "verb:group" where it holds for machines of that group only
    not_before: int
    expires: int
    version: Literal[1] = 1

    def check_date(self, wall_s: float) -> None:
        """Raise MalformedMessage outside of the time in which it holds."""
        if wall_s < self.not_before - CLOCK_SKEW_S:
            early_s = self.not_before - wall_s
            raise MalformedMessage(f"a certificate begins in {early_s:.0f} s: is a clock wrong?")
        if wall_s >= self.expires + CLOCK_SKEW_S:
            raise MalformedMessage(f"a certificate ended {wall_s - self.expires:.0f} s ago")

    def scopes(self, verb: Verb) -> frozenset[str] | None:
        """The groups in which it may do this; None for all of them, empty for nowhere."""
        if verb in self.caps:
            return None
        start = f"{verb}:"
        return frozenset(cap.removeprefix(start) for cap in self.caps if cap.startswith(start))

    def may(self, verb: Verb, groups: Iterable[str] = ()) -> bool:
        """Whether it may do this on a machine of these groups."""
        scopes = self.scopes(verb)
        return scopes is None or not scopes.isdisjoint(groups)

    @property
    def is_node(self) -> bool:
        """Whether it is of a member: one that has an id and a place."""
        return "publish" in self.caps


@dataclass(frozen=True, slots=True)
class Chain:
    """Certificates from the root's own down to a leaf, verified but for the date and the root."""

    root: bytes  # that names the cluster
    certs: tuple[Cert, ...]
    wire: bytes
    heirs: tuple[Succession, ...] = ()  # the roots after it, up to the one that signed
    home: bytes = b""  # of a visitor: the root hash of its cluster, which is not ours

    @property
    def signer(self) -> bytes:
        """The root whose key signed the first certificate."""
        return self.heirs[-1].heir if self.heirs else self.root

    @property
    def leaf(self) -> Cert:
        """The certificate of whoever shows the chain."""
        return self.certs[-1]

    @property
    def principal(self) -> Cert:
        """In whose name it speaks: of a delegate, whoever was admitted and lent it something."""
        first = self.certs[0]
        is_issuer = first.scopes("issue") != frozenset()
        return self.certs[1] if is_issuer and len(self.certs) > 1 else first

    @property
    def expires(self) -> int:
        """When the first of them ends."""
        return min(cert.expires for cert in self.certs)

    @property
    def is_lent(self) -> bool:
        """Whether it is of a delegate."""
        return self.principal is not self.leaf

    @property
    def lender(self) -> "Chain":
        """The chain of whoever lent, of a delegate."""
        read = _decode_wire(self.wire)
        return parse_chain(_written(read.root, read.links[:-1], read.heirs))

    @property
    def link(self) -> bytes:
        """The leaf alone, as `parse_link` reads it."""
        return _encode(_decode_wire(self.wire).links[-1])

    @property
    def first(self) -> "Chain":
        """The chain of its first certificate alone: that of the issuer, where it is one."""
        if len(self.certs) == 1:
            return self
        read = _decode_wire(self.wire)
        wire = _written(self.root, read.links[:1], read.heirs)
        return Chain(self.root, self.certs[:1], wire, self.heirs)

    def node_id(self) -> bytes:
        """The id of the member whose chain this is."""
        return node_id(self.leaf.subject, self.leaf.nonce)


class _Signed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    body: bytes
    signature: bytes


class _Wire(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    root: bytes
    links: tuple[_Signed, ...]
    heirs: tuple[_Signed, ...] = ()  # left out where there are none


_encode = msgspec.msgpack.Encoder().encode
_decode_wire = msgspec.msgpack.Decoder(_Wire).decode
_decode_link = msgspec.msgpack.Decoder(_Signed).decode
_decode_cert = msgspec.msgpack.Decoder(Cert).decode


def node_id(public: bytes, nonce: bytes) -> bytes:
    """The id of a node: BLAKE2b-160 of its public key and its issuer's nonce."""
    return blake2b(_NODE_DOMAIN + public + nonce, digest_size=ID_BYTES).digest()


@lru_cache(REMEMBERED)
def parse_chain(wire: bytes) -> Chain:
    """Read and verify a chain; raises MalformedMessage. The caller compares its root and the date.

    Costs one Ed25519 verification a link; what is too long or of the wrong form costs none.
    """
    if len(wire) > CHAIN_BYTES_MAX:
        raise MalformedMessage(f"a chain has at most {CHAIN_BYTES_MAX} bytes, got {len(wire)}")
    try:
        read = _decode_wire(wire)
        certs = tuple(_decode_cert(link.body) for link in read.links)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"not a chain of certificates: {type(error).__name__}") from error
    if len(read.root) != KEY_BYTES or not 1 <= len(certs) <= CHAIN_MAX:
        raise MalformedMessage(f"a chain is a root and 1..{CHAIN_MAX} certificates")
    heirs = _read_heirs(read)
    signer, parent = heirs[-1].heir if heirs else read.root, None
    wanted = _domain(read.root)
    for link, cert in zip(read.links, certs, strict=True):
        wrong = misfit(cert, parent)
        if wrong is not None:
            raise MalformedMessage(f"a certificate {wrong}")
        if not verify(signer, link.signature, wanted, link.body):
            raise MalformedMessage("a certificate is not signed by the one before it")
        signer, parent = cert.subject, cert
    return Chain(read.root, certs, wire, heirs)


def _read_heirs(read: _Wire) -> tuple[Succession, ...]:
    """The roots after the first, each named by the one before it; raises MalformedMessage."""
    if len(read.heirs) > HEIRS_MAX:
        raise MalformedMessage(f"a chain has at most {HEIRS_MAX} successions")
    signer, heirs = read.root, []
    for one in read.heirs:
        if not verify(signer, one.signature, succession_domain(root_hash(read.root)), one.body):
            raise MalformedMessage("a succession is not signed by the root before it")
        heirs.append(read_succession(one.body))
        signer = heirs[-1].heir
    return tuple(heirs)


def lineage(root: bytes) -> Chain:
    """A root alone, above all certificates; later `succeed` continues it."""
    return Chain(root, (), _written(root, (), ()))


def parse_lineage(wire: bytes) -> Chain:
    """A root and those that came after it, without a certificate; raises MalformedMessage."""
    try:
        read = _decode_wire(wire)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"not a line of roots: {type(error).__name__}") from error
    if len(read.root) != KEY_BYTES or read.links:
        raise MalformedMessage("a line of roots has no certificates")
    return Chain(read.root, (), wire, _read_heirs(read))


def succeed(key: Signer, line: Chain, heir: bytes, ends: int) -> Chain:
    """The line that goes on with this heir of the last root, whose key it is; raises UsageError."""
    assert line.signer == key.public
    if len(line.heirs) >= HEIRS_MAX:
        raise UsageError(f"a root is changed at most {HEIRS_MAX} times: make another cluster")
    found = Succession(heir, ends)
    body = write_succession(found)
    signed = _Signed(body, key.sign(succession_domain(root_hash(line.root)), body))
    wire = _written(line.root, (), (*_decode_wire(line.wire).heirs, signed))
    return Chain(line.root, (), wire, (*line.heirs, found))


def parse_link(
    wire: bytes, root: bytes, issuers: Iterable[Cert], *, signer: bytes = b""
) -> tuple[Cert, Cert | None]:
    """A certificate alone, by one of these issuers or by the root, and by whom (None: the root).

    `signer` is the root that signs, where it is not the one that names the cluster. Raises
    MalformedMessage. It is what a record carries of its publisher's chain: who holds records knows
    the few issuers there are.
    """
    try:
        link = _decode_link(wire)
        cert = _decode_cert(link.body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"not a certificate: {type(error).__name__}") from error
    wanted = _domain(root)
    signers: list[tuple[bytes, Cert | None]] = [(cert.subject, cert) for cert in issuers]
    for public, above in [*signers, (signer or root, None)]:
        if misfit(cert, above) is None and verify(public, link.signature, wanted, link.body):
            return cert, above
    raise MalformedMessage("a certificate is of an issuer that is not known here")


def sign_cert(key: Signer, above: Chain | None, cert: Cert) -> Chain:
    """The chain of a new certificate; without a chain `above` the key is the root itself.

    Also with a `lineage` above. Raises UsageError for what the signer may not give.
    """
    above = lineage(key.public) if above is None else above
    parent = above.leaf if above.certs else None
    assert key.public == (above.signer if parent is None else parent.subject)
    wrong = misfit(cert, parent)
    if wrong is not None:
        raise UsageError(f"this certificate {wrong}")
    root, read = above.root, _decode_wire(above.wire)
    if len(read.links) >= CHAIN_MAX:
        raise UsageError(f"a chain has at most {CHAIN_MAX} certificates: this one cannot go on")
    body = _encode(cert)
    signed = _Signed(body, key.sign(_domain(root), body))
    wire = _written(root, (*read.links, signed), read.heirs)
    if len(wire) > CHAIN_BYTES_MAX:
        raise UsageError(
            f"a chain has at most {CHAIN_BYTES_MAX} bytes, this one {len(wire)}: "
            "shorten names, or give fewer groups and capabilities"
        )
    return Chain(root, (*above.certs, cert), wire, above.heirs)


def _written(root: bytes, links: tuple[_Signed, ...], heirs: tuple[_Signed, ...]) -> bytes:
    return _encode(_Wire(root, links, heirs) if heirs else (root, links))


def lend(
    key: Signer, above: Chain, public: bytes, *, serial: bytes, begin: int, lifetime_s: int
) -> Chain:
    """The chain of a delegate that may all that its lender may lend, for no longer than he may.

    Raises UsageError where he may lend nothing, and what `key` raises.
    """
    leaf = above.leaf
    caps = tuple(cap for cap in leaf.caps if cap.partition(":")[0] in DELEGABLE)
    end = min(begin + lifetime_s, above.expires)
    return sign_cert(
        key, above, Cert(public, b"", serial, leaf.name, leaf.groups, caps, begin, end)
    )


def misfit(cert: Cert, signer: Cert | None) -> str | None:
    """Why nobody may make this certificate, or not this signer (None: the root); None if it may."""
    wrong = _malformed(cert)
    if wrong is not None or signer is None:
        return wrong
    if cert.expires > signer.expires:
        return f"ends after its signer's: give it at most {signer.expires - cert.not_before} s"
    if cert.may("issue") or cert.scopes("issue"):
        return "gives `issue`, which only the root does"
    for cap in cert.caps:
        verb, _, scope = cap.partition(":")
        if not signer.may(_verb(verb), (scope,) if scope else ()):
            return f"gives {cap!r}, which its signer has not"
    return _misfit_groups(cert, signer)


def _misfit_groups(cert: Cert, signer: Cert) -> str | None:
    issues = signer.scopes("issue")
    if issues is None:
        return None
    if not issues:  # no issuer: it may only lend what it has
        lent = {cap.partition(":")[0] for cap in cert.caps}
        if not lent <= DELEGABLE:
            return f"lends {', '.join(sorted(lent - DELEGABLE))}, which only an issuer gives"
        issues = frozenset(signer.groups)
    beyond = sorted(set(cert.groups) - issues)
    return f"names the group {beyond[0]!r}, which its signer may not give" if beyond else None


def _malformed(cert: Cert) -> str | None:
    sizes = (len(cert.subject), len(cert.serial))
    if sizes != (KEY_BYTES, SERIAL_BYTES) or len(cert.nonce) not in (0, NONCE_BYTES):
        return "has a key of 32 bytes, a serial of 8 and a nonce of 8 or none"
    if cert.is_node != (cert.nonce != b""):
        return "has a nonce exactly if it lets its owner publish"
    if not cert.name or not is_printable(cert.name, NAME_BYTES_MAX):
        return f"has a name of 1..{NAME_BYTES_MAX} printable bytes"
    if len(cert.groups) > GROUPS_MAX or len(cert.caps) > CAPS_MAX:
        return f"has at most {GROUPS_MAX} groups and {CAPS_MAX} capabilities"
    for group in cert.groups:
        if not is_group(group):
            return (
                f"names groups by 1..{GROUP_BYTES_MAX} letters, digits, `-`, `_` and `.`, "
                f"got {group!r}"
            )
    for cap in cert.caps:
        if not _is_cap(cap):
            known = ", ".join(VERBS)
            return f"gives capabilities of {known}, each with a :group or none, got {cap!r}"
    if not 0 <= cert.not_before < cert.expires < 2**53:
        return "holds from a time to a later one"
    return None


def is_group(text: str) -> bool:
    """Whether a text can name a group."""
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    return 0 < len(text) <= GROUP_BYTES_MAX and plain.isascii() and plain.isalnum()


def _is_cap(text: str) -> bool:
    verb, colon, scope = text.partition(":")
    return verb in VERBS and (is_group(scope) if colon else True)


def _verb(text: str) -> Verb:
    return VERBS[VERBS.index(text)]


def _domain(root: bytes) -> bytes:
    return domain(b"cert", root_hash(root))
