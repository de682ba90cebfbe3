"""What a node of a cluster has to show, and whom it believes.

A `Member` holds the own key and chain, the hash of the root it believes in, what was revoked, and
which other clusters are welcome. It may be a *visitor*, whose own chain is of another cluster.
Certificates of records are remembered by their bytes, so that each costs its signature once.
"""

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from dhtos.core.limits import WELCOMES_MAX
from dhtos.errors import MalformedMessage
from dhtos.trust.cert import CLOCK_SKEW_S, DELEGABLE, Cert, Chain, parse_chain, parse_link
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import Revocation, is_signed
from dhtos.trust.succession import Succession
from dhtos.trust.token import root_hash
from dhtos.trust.welcome import Welcome, may_welcome, meet, visiting_name, visiting_serial, visitor
from dhtos.trust.welcome import is_signed as is_welcome_signed

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
        self.welcomes: dict[bytes, Welcome] = {}  # by cluster, also those that are over
        self.issuers: dict[bytes, Cert] = {}  # that were seen in any chain, by their key
        self._introduced: dict[bytes, Chain] = {}  # the chain of each of them
        self.fresh: deque[bytes] = deque(maxlen=ISSUERS_MAX)  # those that were not told on yet
        self.heirs: tuple[Succession, ...] = ()  # of the first root, one after the other
        self.home = b""  # of a visitor: the root hash of its own cluster
        self._root_key = b""
        self._links: dict[bytes, tuple[Cert, Cert | None, int]] = {}  # and the rank of the root
        if chain is not None and root_hash(chain.root) != root:
            self.home = root_hash(chain.root)
        elif chain is not None:
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
        self.check(chain)
        self._learn(chain)
        return chain

    def renew(self, chain: Chain) -> None:
        """Show this chain from now on: it is our own, of a later term."""
        assert chain.leaf.subject == self.key.public
        self.chain = chain
        if not self.home:
            self._learn(chain)  # an issuer's own may be what others' end with

    def read_link(self, wire: bytes) -> Cert:
        """The certificate that a record carries; raises MalformedMessage as `read` does."""
        found = self._links.get(wire)
        if found is None or self._is_over(found[2]):  # its issuer may have another by now
            found = self._parse_link(wire)
            if len(self._links) >= LINKS_MAX:
                del self._links[next(iter(self._links))]
            self._links[wire] = found
        cert, issuer, rank = found
        self._check((cert,) if issuer is None else (issuer, cert), rank)
        return cert

    def _parse_link(self, wire: bytes) -> tuple[Cert, Cert | None, int]:
        keys = self._root_keys()
        issuers = list(self.issuers.values())
        for rank in range(len(keys) - 1, -1, -1):
            try:
                cert, issuer = parse_link(wire, self._root_key, issuers, signer=keys[rank])
            except MalformedMessage:
                if rank == 0:
                    raise
                issuers = []  # these were tried
                continue
            return cert, issuer, rank if issuer is None else self.rank_of(issuer.subject)
        raise AssertionError("there is a root")

    def check(self, chain: Chain) -> None:
        """Raise MalformedMessage if a chain is believed no more, or of a visitor is another now."""
        if chain.home:
            if self._visitor(parse_chain(chain.wire), chain.home) != chain:
                raise MalformedMessage("a cluster is welcome otherwise than it was")
            return
        for ours, theirs in zip(self.heirs, chain.heirs, strict=False):
            if ours.heir != theirs.heir:
                raise MalformedMessage("a certificate is of another successor of the root")
        self._check(chain.certs, len(chain.heirs))

    def _check(self, certs: tuple[Cert, ...], rank: int) -> None:
        wall_s = self.wall_s()
        if self._is_over(rank):
            raise MalformedMessage("a certificate is of a root that has a successor")
        for depth, cert in enumerate(certs):
            cert.check_date(wall_s)
            if self._is_revoked(cert, rank if depth == 0 else None):
                raise MalformedMessage("a certificate was revoked")

    def _learn(self, chain: Chain) -> None:
        """Remember who may admit, the key of the root, and who comes after it."""
        self._root_key = chain.root
        self.heirs += chain.heirs[len(self.heirs) :]  # of two the first that was shown
        first = chain.certs[0]
        known = self._introduced.get(first.subject)
        if first.scopes("issue") == frozenset() or (known and _term(known) >= _term(chain)):
            return  # no issuer, or one whose certificate was renewed since
        if known or len(self.issuers) < ISSUERS_MAX:
            self.issuers[first.subject] = first
            self._introduced[first.subject] = chain.first
            self.fresh.append(chain.first.wire)

    def certificates(self) -> list[Cert]:
        """Those that records carried lately."""
        return [cert for cert, *_ in self._links.values()]

    # --- roots ------------------------------------------------------------------------------------

    def is_outdated(self, chain: Chain) -> bool:
        """Whether the root that a chain ends in has a successor."""
        return len(chain.heirs) < len(self.heirs)

    def _root_keys(self) -> list[bytes]:
        return [self._root_key, *(one.heir for one in self.heirs)]

    def _rank(self, signer: bytes) -> int:
        """How many roots were before this one; -1 of what is no root."""
        keys = self._root_keys()
        return keys.index(signer) if signer in keys else -1

    def rank_of(self, issuer: bytes) -> int:
        """How many roots were before the one that has signed for a known issuer."""
        return len(self._introduced[issuer].heirs)

    def _is_over(self, rank: int) -> bool:
        """Whether a root's word counts no more, its successor's does."""
        return rank < len(self.heirs) and self.wall_s() >= self.heirs[rank].ends + CLOCK_SKEW_S

    # --- who admits -------------------------------------------------------------------------------

    def introductions(self) -> dict[bytes, bytes]:
        """The chains of the issuers that are believed, by their keys: others need them, too."""
        return {key: one.wire for key, one in self._introduced.items() if self._is_issuer(one)}

    def _is_issuer(self, chain: Chain) -> bool:
        rank = len(chain.heirs)
        return not self._is_over(rank) and not self._is_revoked(chain.leaf, rank)

    def meet(self, wire: bytes) -> bool:
        """Learn of an issuer from its chain; whether that is news. Raises MalformedMessage.

        Whom it admitted is believed of by the certificate alone (`read_link`) once it is known.
        """
        chain = parse_chain(wire)
        if root_hash(chain.root) != self.root or len(chain.certs) != 1:
            return False
        if self._introduced.get(chain.leaf.subject) == chain:
            return False
        try:
            self.check(chain)
        except MalformedMessage:  # it is over or was revoked, which its teller has missed
            return False
        self._learn(chain)
        return self._introduced.get(chain.leaf.subject) == chain

    # --- other clusters ---------------------------------------------------------------------------

    def admit(self, wire: bytes) -> Chain:
        """As `read`, and of who is of a welcome cluster what it is here.

        Nothing is learned from that: neither who admits there, nor who comes after its root.
        """
        chain = parse_chain(wire)
        cluster = root_hash(chain.root)
        return self._visitor(chain, cluster) if cluster in self.welcomes else self.read(wire)

    def _visitor(self, chain: Chain, cluster: bytes) -> Chain:
        welcome, wall_s = self.welcomes.get(cluster), self.wall_s()
        if welcome is None or not self.is_welcome(welcome):
            raise MalformedMessage("a certificate is of another cluster, which is not welcome now")
        for cert in chain.certs:
            cert.check_date(wall_s)
            if visiting_serial(cert.serial, cluster) in self.revoked:
                raise MalformedMessage("a certificate was revoked")
        found = visitor(chain, welcome)
        if not found.leaf.caps:
            raise MalformedMessage("a certificate gives nothing that its cluster is welcome for")
        return found

    def is_welcome(self, welcome: Welcome) -> bool:
        """Whether this one lets anybody in now: by its date, and by who has signed it."""
        begun = welcome.begins - CLOCK_SKEW_S <= self.wall_s() < welcome.expires
        return begun and bool(welcome.caps) and self._may_welcome(welcome)

    def welcome(self, welcome: Welcome) -> bool:
        """Keep what this says of another cluster; False if it is no news, or its signer may not."""
        known, wall_s = self.welcomes.get(welcome.cluster), self.wall_s()
        if not welcome.is_kept(wall_s) or welcome.begins > wall_s + CLOCK_SKEW_S:
            return False
        if welcome.cluster == self.root or (known and known.order >= welcome.order):
            return False
        if known is None and len(self.welcomes) >= WELCOMES_MAX:
            return False
        if not self._may_welcome(welcome) or not is_welcome_signed(welcome, self.root):
            return False
        self.welcomes[welcome.cluster] = welcome
        return True

    def welcomed(self) -> list[Welcome]:
        """What others are told of: also of clusters that are not welcome any more."""
        kept = [one for one in self.welcomes.values() if one.is_kept(self.wall_s())]
        return [one for one in kept if self._may_welcome(one)]

    def _may_welcome(self, welcome: Welcome) -> bool:
        """An issuer gives others what it has, and names the groups that it may name."""
        rank = self._rank(welcome.signer)
        if rank >= 0:
            return not self._is_over(rank)
        issuer = self.issuers.get(welcome.signer)
        if issuer is None or not self._is_admin(issuer):
            return False
        return may_welcome(issuer, welcome)

    @property
    def here(self) -> Cert | None:
        """Our own certificate as members of this cluster take it, as far as a visitor knows."""
        chain, welcome = self.chain, self.welcomes.get(self.home)
        if chain is None or not self.home:
            return None if chain is None else chain.leaf
        if welcome is not None:
            return visitor(chain, welcome).leaf
        return msgspec.structs.replace(chain.leaf, caps=meet(chain.leaf.caps, sorted(DELEGABLE)))

    def known_as(self, cert: Cert) -> str:
        """What a certificate of our own chain is called by the members of this cluster."""
        return visiting_name(cert.name, self.home) if self.home else cert.name

    # --- what was taken back ----------------------------------------------------------------------

    def revoke(self, revocation: Revocation) -> bool:
        """Believe no more what this takes back; False if it is no news, or its signer may not.

        What an issuer took back the root may take back as well: it may be of the root's own. Of
        several roots it is the last.
        """
        serial, rank = revocation.serial, self._rank(revocation.signer)
        by_root = rank == len(self.heirs)
        if revocation.expires + CLOCK_SKEW_S < self.wall_s() or (rank >= 0 and not by_root):
            return False
        known = self.revoked.get(serial)
        if known is not None and self._rank(known.signer) >= rank:
            return False
        if not by_root and not self._may_revoke(revocation.signer, serial):
            return False
        room = REVOKED_MAX if by_root else REVOKED_MAX - REVOKED_MAX // 16  # the root's share
        if known is None and len(self.revoked) >= room:
            return False
        if not is_signed(revocation, self.root):
            return False
        self.revoked[serial] = revocation
        return True

    def is_revoked(self, link: bytes) -> bool:
        """Whether a certificate that was read before, or its issuer's, was taken back."""
        cert, issuer, rank = self._links.get(link, (None, None, 0))
        if issuer is not None and self._is_revoked(issuer, rank):
            return True
        return cert is not None and self._is_revoked(cert, rank if issuer is None else None)

    def _is_revoked(self, cert: Cert, rank: int | None) -> bool:
        """Whether it was taken back by who may: what a root of this rank has given, by no other.

        Or by a later root. `revoke` cannot always tell, since it may not have seen that
        certificate.
        """
        found = self.revoked.get(cert.serial)
        return found is not None and (rank is None or self._rank(found.signer) >= rank)

    def revoked_by_roots(self) -> list[Revocation]:
        """What roots took back, which a new one has to say again."""
        return [one for one in self.revoked.values() if self._rank(one.signer) >= 0]

    def restore(self, revocations: Iterable[Revocation], welcomes: Iterable[Welcome] = ()) -> None:
        """Believe again what was believed before a restart: its signers may not be known yet."""
        self.revoked |= {one.serial: one for one in revocations}
        self.welcomes |= {one.cluster: one for one in welcomes}

    def forget_ended(self) -> None:
        """Drop what would have ended by itself by now."""
        end = self.wall_s() - CLOCK_SKEW_S
        for one in [one for one in self.revoked.values() if one.expires < end]:
            del self.revoked[one.serial]
        for told in [one for one in self.welcomes.values() if not one.is_kept(end)]:
            del self.welcomes[told.cluster]
        for key in [key for key, cert in self.issuers.items() if cert.expires < end]:
            del self.issuers[key], self._introduced[key]

    def told(self) -> list[bytes]:
        """What is revoked, who admits and who is welcome, to compare sets by; in order."""
        revoked = self.revoked.values()
        taken = [one.serial + bytes([self._rank(one.signer) + 1]) for one in revoked]
        welcomed = [one.signature for one in self.welcomed()]
        return sorted(taken) + sorted(self.introductions().values()) + sorted(welcomed)

    def _may_revoke(self, signer: bytes, serial: bytes) -> bool:
        """An issuer takes back what it may admit: never what the root has given."""
        issuer = self.issuers.get(signer)
        if issuer is None or not self._is_admin(issuer):
            return False
        return all(one.serial != serial for one in self.issuers.values())

    def _is_admin(self, issuer: Cert) -> bool:
        return issuer.may("admin") and self._is_issuer(self._introduced[issuer.subject])


def _term(chain: Chain) -> tuple[int, int]:
    """Of two chains for one issuer the later one has the greater: by the root, then by its end."""
    return len(chain.heirs), chain.certs[0].expires
