"""The demo's cluster: a root, an issuer, and a certificate for every machine of the fleet.

The keys follow from the demo's seed, so that one seed is one fleet; they are worth nothing
anywhere else.
"""

import os
import time
from dataclasses import dataclass
from random import Random

from dhtos.node.authority import DAY_S, NODE_CAPS, USER_CAPS
from dhtos.trust.cert import NONCE_BYTES, SERIAL_BYTES, Cert, Chain, Verb, parse_chain, sign_cert
from dhtos.trust.keys import SEED_BYTES, KeyPair
from dhtos.trust.member import Member
from dhtos.trust.token import root_hash


@dataclass(frozen=True, slots=True)
class Badge:
    """What somebody shows: a key and its chain."""

    key: KeyPair
    chain: Chain

    @property
    def node_id(self) -> bytes:
        """The id of the machine that has it."""
        return self.chain.node_id()

    def member(self) -> Member:
        """Who an engine is with it."""
        return Member(
            self.key,
            root_hash(self.chain.root),
            entropy=os.urandom,
            wall_s=time.time,
            chain=self.chain,
        )

    def to_wire(self) -> list[str]:
        """For a worker process; `from_wire` is the inverse."""
        return [self.key.seed.hex(), self.chain.wire.hex()]

    @classmethod
    def from_wire(cls, words: list[str]) -> "Badge":
        """The badge that a parent process sends."""
        seed, chain = map(bytes.fromhex, words)
        return cls(KeyPair(seed), parse_chain(chain))


class DemoCluster:
    """Whoever admits the machines of one demo, for a day."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._begin = int(time.time())
        root = self._key()
        self._key_of_issuer = self._key()
        cert = self._cert(self._key_of_issuer, "issuer", (*NODE_CAPS, "issue"))
        self._chain = sign_cert(root, None, cert)

    def node(self, name: str) -> Badge:
        """Admit a machine."""
        return self._admit(name, NODE_CAPS)

    def user(self, name: str) -> Badge:
        """Admit somebody who only asks."""
        return self._admit(name, USER_CAPS)

    def _admit(self, name: str, caps: tuple[Verb, ...]) -> Badge:
        key = self._key()
        return Badge(key, sign_cert(self._key_of_issuer, self._chain, self._cert(key, name, caps)))

    def _key(self) -> KeyPair:
        return KeyPair(self._rng.randbytes(SEED_BYTES))

    def _cert(self, key: KeyPair, name: str, caps: tuple[Verb, ...]) -> Cert:
        nonce = self._rng.randbytes(NONCE_BYTES) if "publish" in caps else b""
        serial = self._rng.randbytes(SERIAL_BYTES)
        begin = self._begin
        return Cert(key.public, nonce, serial, name, (), caps, begin, begin + DAY_S)
