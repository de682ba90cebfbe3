"""A cluster's keys for tests: a root, an issuer it made, and members the issuer admitted."""

from random import Random
from typing import Any

from dhtos.core.schema import Schema
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.sim.cluster import Factory
from dhtos.sim.node import SimNode
from dhtos.trust.cert import Cert, Chain, sign_cert
from dhtos.trust.keys import KeyPair
from dhtos.trust.member import Member
from dhtos.trust.token import root_hash

DAY_S = 86_400
BEGIN = 1_800_000_000  # what the wall clock of a simulation says at its start
NODE = ("query", "publish", "claim", "run")
USER = ("query", "claim")


class Authority:
    """Whoever can admit: everything follows from the seed."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = Random(seed)
        self.root = KeyPair(self.rng.randbytes(32))
        self.key = KeyPair(self.rng.randbytes(32))
        cert = self.cert(self.key, "issuer", caps=(*NODE, "issue", "admin"), days=300)
        self.chain = sign_cert(self.root, None, cert)
        self.name = root_hash(self.root.public)

    def cert(
        self,
        key: KeyPair,
        name: str,
        *,
        caps: tuple[str, ...] = NODE,
        groups: tuple[str, ...] = (),
        days: float = 30,
    ) -> Cert:
        """What there is to sign; a nonce exactly where it lets publish."""
        nonce = self.rng.randbytes(8) if "publish" in caps else b""
        end = BEGIN + int(days * DAY_S)
        serial = self.rng.randbytes(8)
        return Cert(key.public, nonce, serial, name, groups, caps, BEGIN - DAY_S, end)

    def admit(self, key: KeyPair, name: str, **what: Any) -> Chain:
        """The chain of somebody new."""
        return sign_cert(self.key, self.chain, self.cert(key, name, **what))

    def member(self, name: str = "node", *, now: float = 0.0, **what: Any) -> Member:
        """Somebody with a key and a chain, and a clock that stands still."""
        key = KeyPair(self.rng.randbytes(32))
        return self.holder(key, self.admit(key, name, **what), now=now)

    def holder(self, key: KeyPair, chain: Chain | None, *, now: float = 0.0) -> Member:
        """Whoever has this key and shows this chain."""
        rng = Random(self.rng.random())
        return Member(
            key, self.name, entropy=rng.randbytes, wall_s=lambda: BEGIN + now, chain=chain
        )


def secured(
    authority: Authority, *, schema: Schema | None = None, config: EngineConfig | None = None
) -> Factory[Engine]:
    """A factory for `Cluster`: each node a member; its id is that of its certificate.

    A node that is restarted has its key and its chain still.
    """
    members: dict[int, Member] = {}

    def build(node: SimNode[Engine], now: float) -> Engine:
        member = members.get(node.index)
        if member is None:
            member = members[node.index] = authority.member(f"n{node.index}")
        assert member.chain is not None
        node.id = member.chain.node_id()
        return Engine(node.id, rng=node.rng, now=now, schema=schema, config=config, member=member)

    return build


def member_of(node: SimNode[Engine]) -> Member:
    """Who a node of `secured` is."""
    sessions = node.engine.core.sessions
    assert sessions is not None
    return sessions.member
