"""A cluster's keys for tests: a root, an issuer it made, members it admitted, a wire for two."""

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from dhtos.core.ids import Endpoint
from dhtos.core.schema import Schema
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.sessions import Sessions
from dhtos.protocol.timers import Timers
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


class Clock:
    """A wall clock that is set by hand, of one machine or of all."""

    def __init__(self, now: float = BEGIN) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


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
    authority: Authority,
    *,
    schema: Schema | None = None,
    config: EngineConfig | None = None,
    groups_of: Callable[[int], tuple[str, ...]] = lambda _index: (),
) -> Factory[Engine]:
    """A factory for `Cluster`: each node a member; its id is that of its certificate.

    A node that is restarted has its key and its chain still. `groups_of` says which groups the
    n-th node is in.
    """
    members: dict[int, Member] = {}

    def build(node: SimNode[Engine], now: float) -> Engine:
        member = members.get(node.index)
        if member is None:
            member = members[node.index] = authority.member(
                f"n{node.index}", groups=groups_of(node.index)
            )
        assert member.chain is not None
        node.id = member.chain.node_id()
        return Engine(node.id, rng=node.rng, now=now, schema=schema, config=config, member=member)

    return build


def member_of(node: SimNode[Engine]) -> Member:
    """Who a node of `secured` is."""
    sessions = node.engine.core.sessions
    assert sessions is not None
    return sessions.member


class End:
    """The sessions of one member without an engine: what came out of them is `got`."""

    def __init__(self, member: Member, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.timers = Timers()
        self.outbox: list[tuple[bytes, Endpoint]] = []
        self.counters: Counter[str] = Counter()
        self.sessions = Sessions(member, self.timers, self.outbox, self.counters)
        self.got: list[bytes] = []

    @property
    def counted(self) -> dict[str, int]:
        """Every counter that is not zero."""
        return {name: count for name, count in self.counters.items() if count}


class Wire:
    """A clock, ends, and 10 ms between any two; `tapped` is all that was ever sent."""

    DELAY_S = 0.01

    def __init__(self, *ends: End) -> None:
        self.now = 0.0
        self.ends = {end.endpoint: end for end in ends}
        self.tapped: list[tuple[bytes, Endpoint, Endpoint]] = []
        self.loses: Callable[[bytes, Endpoint], bool] = lambda _datagram, _to: False
        self._flying: list[tuple[float, int, bytes, Endpoint, Endpoint]] = []

    def send(self, end: End, datagram: bytes, to: End) -> None:
        """What an engine would do."""
        end.sessions.seal([(datagram, to.endpoint)])
        self._collect()

    def inject(self, datagram: bytes, source: Endpoint, to: End) -> list[bytes]:
        """A datagram that says it is from `source`; what is sent there at once because of it."""
        before = len(to.outbox)
        plain = to.sessions.receive(datagram, source, self.now)
        if plain is not None:
            to.got.append(plain)
        answers = [answer for answer, where in to.outbox[before:] if where == source]
        self._collect()
        return answers

    def run_for(self, seconds: float) -> None:
        """Let time pass, from one thing that is due to the next."""
        end_at = self.now + seconds
        while True:
            due = min(end.timers.next_deadline() for end in self.ends.values())
            if self._flying:
                due = min(due, self._flying[0][0])
            if due > end_at:
                break
            self.now = max(self.now, due)
            while self._flying and self._flying[0][0] <= self.now:
                _, _, datagram, source, to = heappop(self._flying)
                if to in self.ends:
                    self.inject(datagram, source, self.ends[to])
            for end in self.ends.values():
                end.timers.run(self.now)
            self._collect()
        self.now = end_at

    def until(self, done: Callable[[], bool], limit_s: float = 10.0) -> float:
        """Run until that holds; after how many seconds it did."""
        began = self.now
        while not done():
            assert self.now < began + limit_s, "it never came to that"
            self.run_for(self.DELAY_S)
        return self.now - began

    def first(self, kind: int) -> tuple[bytes, Endpoint, Endpoint]:
        """The first datagram of a kind that was sent."""
        return next(one for one in self.tapped if one[0][0] == kind)

    def _collect(self) -> None:
        for source, end in self.ends.items():
            for datagram, to in end.outbox:
                self.tapped.append((datagram, source, to))
                if not self.loses(datagram, to):
                    flight = (self.now + self.DELAY_S, len(self.tapped), datagram, source, to)
                    heappush(self._flying, flight)
            end.outbox.clear()
