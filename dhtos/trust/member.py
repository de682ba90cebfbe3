"""What a node of a cluster has to show, and whom it believes.

A `Member` holds the own key and chain, the hash of the root it believes in, and what was revoked.
Certificates of records are remembered by their bytes, so that each costs its signature once.
"""

from collections.abc import Callable, Iterable

from dhtos.errors import MalformedMessage
from dhtos.trust.cert import CLOCK_SKEW_S, Cert, Chain, parse_chain, parse_link
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import Revocation, is_signed
from dhtos.trust.token import root_hash

LINKS_MAX = 16384
ISSUERS_MAX = 64
REVOKED_MAX = 4096


class Member:
    """Who we are in a cluster; without a chain somebody who has not been admitted yet.

    `root` is the cluster's name (`root_hash`), `entropy(n)` gives n secret random bytes, and
    `wall_s()` the seconds since 1970, by which certificates end.
    """

    def __init__(
        self,
        key: KeyPair,
        root: bytes,
        *,
        entropy: Callable[[int], bytes],
        wall_s: Callable[[], float],
        chain: Chain | None = None,
    ) -> None:
        assert chain is None or chain.leaf.subject == key.public
        self.key = key
        self.root = root
        self.chain = chain
        self.entropy = entropy
        self.wall_s = wall_s
        self.revoked: dict[bytes, Revocation] = {}  # by serial number
        self.issuers: dict[bytes, Cert] = {}  # that were seen in any chain, by their key
        self._root_key = b"" if chain is None else chain.root
        self._links: dict[bytes, tuple[Cert, Cert | None]] = {}
        if chain is not None:
            self._learn(chain)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups we are in: what somebody may do to us may depend on them."""
        return () if self.chain is None else self.chain.leaf.groups

    def read(self, wire: bytes) -> Chain:
        """The chain that somebody shows; raises MalformedMessage that says why it is not believed.

        Costs an Ed25519 verification for each certificate that was not read lately.
        """
        chain = parse_chain(wire)
        if root_hash(chain.root) != self.root:
            raise MalformedMessage("a certificate is of another cluster")
        self._learn(chain)
        self.check(chain)
        return chain

    def renew(self, chain: Chain) -> None:
        """Show this chain from now on: it is our own, of a later term."""
        assert chain.leaf.subject == self.key.public
        self.chain = chain
        self._learn(chain)  # an issuer's own may be what others' end with

    def read_link(self, wire: bytes) -> Cert:
        """The certificate that a record carries; raises MalformedMessage as `read` does."""
        found = self._links.get(wire)
        if found is None:
            found = parse_link(wire, self._root_key, self.issuers.values())
            if len(self._links) >= LINKS_MAX:
                del self._links[next(iter(self._links))]
            self._links[wire] = found
        cert, issuer = found
        self._check((cert,) if issuer is None else (issuer, cert))
        return cert

    def check(self, chain: Chain) -> None:
        """Raise MalformedMessage if a chain is believed no more."""
        self._check(chain.certs)

    def _check(self, certs: tuple[Cert, ...]) -> None:
        wall_s = self.wall_s()
        for depth, cert in enumerate(certs):
            cert.check_date(wall_s)
            if self._is_revoked(cert, by_root=depth == 0):
                raise MalformedMessage("a certificate was revoked")

    def _learn(self, chain: Chain) -> None:
        """Remember who may admit, and the key of the root."""
        self._root_key = chain.root
        first = chain.certs[0]
        known = self.issuers.get(first.subject)
        if first.scopes("issue") == frozenset() or (known and known.expires >= first.expires):
            return  # no issuer, or one whose certificate was renewed since
        if known or len(self.issuers) < ISSUERS_MAX:
            self.issuers[first.subject] = first

    # --- what was taken back ----------------------------------------------------------------------

    def revoke(self, revocation: Revocation) -> bool:
        """Believe no more what this takes back; False if it is no news, or its signer may not."""
        serial, signer = revocation.serial, revocation.signer
        if serial in self.revoked or revocation.expires + CLOCK_SKEW_S < self.wall_s():
            return False
        if signer != self._root_key and not self._may_revoke(signer, serial):
            return False
        room = REVOKED_MAX
        if signer != self._root_key:  # of which an issuer leaves the root a share
            room -= REVOKED_MAX // 16
        if len(self.revoked) >= room or not is_signed(revocation, self.root):
            return False
        self.revoked[serial] = revocation
        return True

    def is_revoked(self, link: bytes) -> bool:
        """Whether a certificate that was read before, or its issuer's, was taken back."""
        cert, issuer = self._links.get(link, (None, None))
        if issuer is not None and self._is_revoked(issuer, by_root=True):
            return True
        return cert is not None and self._is_revoked(cert, by_root=issuer is None)

    def _is_revoked(self, cert: Cert, *, by_root: bool) -> bool:
        """Whether it was taken back by who may: what the root has given, by the root alone.

        `revoke` cannot always tell, since it may not have seen that certificate.
        """
        found = self.revoked.get(cert.serial)
        return found is not None and (not by_root or found.signer == self._root_key)

    def restore(self, revocations: Iterable[Revocation]) -> None:
        """Believe again what was believed before a restart: its signers may not be known yet."""
        self.revoked |= {one.serial: one for one in revocations}

    def forget_ended(self) -> None:
        """Drop what would have ended by itself by now."""
        end = self.wall_s() - CLOCK_SKEW_S
        for one in [one for one in self.revoked.values() if one.expires < end]:
            del self.revoked[one.serial]

    def _may_revoke(self, signer: bytes, serial: bytes) -> bool:
        """An issuer takes back what it may admit: never what the root has given."""
        issuer = self.issuers.get(signer)
        if issuer is None or not issuer.may("admin") or issuer.serial in self.revoked:
            return False
        return all(one.serial != serial for one in self.issuers.values())
