"""What a node of a cluster has to show, and whom it believes.

A `Member` holds the own key and chain, the hash of the root it believes in, and what was revoked.
Chains that were verified are remembered by their bytes, so that each costs its signatures once.
"""

from collections.abc import Callable, Iterable

from dhtos.errors import MalformedMessage
from dhtos.trust.cert import Chain, parse_chain
from dhtos.trust.keys import KeyPair
from dhtos.trust.token import root_hash

CHAINS_MAX = 16384


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
        self.revoked: frozenset[bytes] = frozenset()
        self._domain = b" " + root.hex().encode()
        self._verified: dict[bytes, Chain] = {}

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups we are in: what somebody may do to us may depend on them."""
        return () if self.chain is None else self.chain.leaf.groups

    def read(self, wire: bytes) -> Chain:
        """The chain that somebody shows; raises MalformedMessage that says why it is not believed.

        Costs a microsecond if it was read before, 41 us a certificate if not.
        """
        chain = self._verified.get(wire)
        if chain is None:
            chain = parse_chain(wire)
            if root_hash(chain.root) != self.root:
                raise MalformedMessage("a certificate is of another cluster")
            if len(self._verified) >= CHAINS_MAX:
                del self._verified[next(iter(self._verified))]
            self._verified[wire] = chain
        self.check(chain)
        return chain

    def check(self, chain: Chain) -> None:
        """Raise MalformedMessage if a chain is believed no more."""
        chain.check_date(self.wall_s())
        if self.revoked and any(cert.serial in self.revoked for cert in chain.certs):
            raise MalformedMessage("a certificate was revoked")

    def revoke(self, serials: Iterable[bytes]) -> None:
        """Believe no more what has one of these serial numbers."""
        self.revoked |= frozenset(serials)

    def domain(self, kind: bytes) -> bytes:
        """What signatures of one kind are made for: nothing of one cluster holds in another."""
        return kind + self._domain
