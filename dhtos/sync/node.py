"""The blocking node: each method hands its work to the loop, and waits."""

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Self, TypeVar, Unpack

from dhtos.core.coordinate import Coordinate
from dhtos.core.hit import Hit
from dhtos.core.ids import NodeId
from dhtos.core.limits import LEASE_S, VALUE_TTL_S
from dhtos.core.predicate import EVERYTHING
from dhtos.core.schema import Value
from dhtos.errors import Closed
from dhtos.node import node as asynchronous
from dhtos.node.asking import Query
from dhtos.node.bandwidth import AGE_S_MAX, Bandwidth, Peer
from dhtos.node.command import Executor
from dhtos.node.config import Config
from dhtos.node.distance import Central, Rtt, Where
from dhtos.node.figures import Aggregate, Histogram
from dhtos.node.find import Count, FindOptions
from dhtos.node.find import Find as AsyncFind
from dhtos.node.ganging import GANG_DEADLINE_S, Spread
from dhtos.node.lease import Explanation, Plan
from dhtos.node.lease import Gang as AsyncGang
from dhtos.node.lease import Lease as AsyncLease
from dhtos.node.membership import Membership
from dhtos.node.placing import CANDIDATES
from dhtos.node.replicas import COOL_DOWN_S
from dhtos.node.replicas import Replicas as AsyncReplicas
from dhtos.node.sampler import Sampler
from dhtos.node.usage import UsageRow
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.ledger import Grant
from dhtos.protocol.put import PutResult
from dhtos.protocol.signed import Owner
from dhtos.protocol.store import StoredValue
from dhtos.sched import Need, Scorer
from dhtos.sync.handles import Find, Gang, Lease, Replicas
from dhtos.sync.loop import Loop
from dhtos.transport.udp import UdpSocket
from dhtos.trust.cert import Chain

T = TypeVar("T")


class Node:
    """A node that blocks: `with dhtos.sync.Node(config) as node: node.find_all("cores >= 8")`.

    The arguments are those of `dhtos.Node`. A call that takes too long is ended by closing the
    node from another thread; the engine's own deadlines bound each of them.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        rng: Random | None = None,
        clock: Callable[[], float] | None = None,
        wall_clock: Callable[[], float] = time.time,
        open_socket: Callable[[str, int], UdpSocket] = UdpSocket,
        sampler: Sampler | None = None,
        scorer: Scorer | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._node = asynchronous.Node(
            config,
            rng=rng,
            clock=clock,
            wall_clock=wall_clock,
            open_socket=open_socket,
            sampler=sampler,
            scorer=scorer,
            executor=executor,
        )
        self._loop: Loop | None = None

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen, find the fleet, measure this machine, advertise it."""
        if self._loop is not None:
            raise Closed("a node starts once")
        self._loop = Loop()
        try:
            self._run(self._node.start)
        except BaseException:
            self.close()
            raise

    def joined(self) -> None:
        """Wait until the node has its place in the hub."""
        self._run(self._node.joined)

    def close(self) -> None:
        """Say goodbye and close the socket; may be called again."""
        if self._loop is None:
            return
        with contextlib.suppress(Closed):
            self._run(self._node.aclose)
        self._loop.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- who we are -----------------------------------------------------------------------------

    @property
    def id(self) -> NodeId:
        """The node's id."""
        return self._node.id

    @property
    def endpoint(self) -> str:
        """Where others reach this node: `host:port`."""
        return self._node.endpoint

    @property
    def port(self) -> int:
        """The UDP port the node listens on."""
        return self._node.port

    @property
    def membership(self) -> Membership | None:
        """Which cluster the started node is of, and as what; None in open mode."""
        return self._node.membership

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the own record."""
        return self._node.labels

    @property
    def attributes(self) -> Mapping[str, Value]:
        """What the own record says."""
        return self._node.attributes

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong with the state directory without stopping the node."""
        return self._node.warnings

    # --- telling and asking ---------------------------------------------------------------------

    def advertise(
        self, attributes: Mapping[str, Value | None] | None = None, /, **named: Value | None
    ) -> None:
        """Tell the fleet more about this machine; None withdraws a value told before."""
        self._run(lambda: self._node.advertise(attributes, **named))

    def label(self, labels: Mapping[str, str | None]) -> None:
        """Set free-form labels; None removes one."""
        self._run(lambda: self._node.label(labels))

    def find(
        self,
        query: Query = EVERYTHING,
        *,
        limit: int = 0,
        order_by: str | None = None,
        descending: bool = False,
        strict: bool = False,
        verify: int = 1,
        explain: bool = False,
        cursor: bytes | None = None,
    ) -> Find:
        """The machines that match, as they are found: `for hit in node.find(...)`."""

        async def begin() -> AsyncFind:
            return self._node.find(
                query,
                limit=limit,
                order_by=order_by,
                descending=descending,
                strict=strict,
                verify=verify,
                explain=explain,
                cursor=cursor,
            )

        return Find(self._run(begin), self._run)

    def find_all(self, query: Query = EVERYTHING, **options: Unpack[FindOptions]) -> FindResult:
        """The whole answer of `find`: `.hits`, `.coverage`, `.matches` and `.cursor`."""
        return self._run(lambda: self._node.find_all(query, **options))

    def count(self, query: Query = EVERYTHING, *, strict: bool = False, verify: int = 1) -> Count:
        """How many machines match: a number that carries its `coverage`."""
        return self._run(lambda: self._node.count(query, strict=strict, verify=verify))

    def sum(
        self, attribute: str, query: Query = EVERYTHING, *, strict: bool = False, verify: int = 1
    ) -> Aggregate:
        """Sum, mean, minimum and maximum of a number attribute over all matches."""
        return self._run(lambda: self._node.sum(attribute, query, strict=strict, verify=verify))

    def histogram(
        self,
        attribute: str,
        query: Query = EVERYTHING,
        *,
        edges: Sequence[float] | None = None,
        strict: bool = False,
        verify: int = 1,
    ) -> Histogram:
        """How many matches lie below the first edge, between any two, and from the last one on."""

        async def ask() -> Histogram:
            return await self._node.histogram(
                attribute, query, edges=edges, strict=strict, verify=verify
            )

        return self._run(ask)

    def sample(self, k: int, query: Query = EVERYTHING, *, strict: bool = False) -> FindResult:
        """`k` machines drawn at random from all matches, or all where there are no more."""
        return self._run(lambda: self._node.sample(k, query, strict=strict))

    # --- where machines are -----------------------------------------------------------------------

    @property
    def coordinate(self) -> Coordinate:
        """Where this node is in the network, in seconds, and how sure it is of that."""
        return self._node.coordinate

    def locate(self) -> Coordinate:
        """Learn where this node is; only a light client has to ask for that."""
        return self._run(self._node.locate)

    def rtt(self, a: Where, b: Where = "self") -> Rtt:
        """The round trip between two machines in seconds; from this node unless `b` is given."""
        return self._run(lambda: self._node.rtt(a, b))

    def closest(self, k: int = 5, query: Query = EVERYTHING, *, probes: int = 8) -> list[Hit]:
        """The `k` machines nearest to this node among those that match, nearest first."""
        return self._run(lambda: self._node.closest(k, query, probes=probes))

    def within(
        self, seconds: float, query: Query = EVERYTHING, *, limit: int = 0, probes: int = 8
    ) -> list[Hit]:
        """The machines that match within so many seconds of this node, nearest first."""
        return self._run(lambda: self._node.within(seconds, query, limit=limit, probes=probes))

    def central(
        self, others: Iterable[Where], k: int = 5, query: Query = EVERYTHING, *, probes: int = 8
    ) -> list[Central]:
        """The `k` machines that match whose farthest of `others` is nearest."""
        return self._run(lambda: self._node.central(others, k, query, probes=probes))

    # --- values and views -------------------------------------------------------------------------

    def plan(self, need: Need, *, candidates: int = CANDIDATES, spread: str | None = None) -> Plan:
        """Machines that can take a need, the best first; nothing is claimed."""
        return self._run(lambda: self._node.plan(need, candidates=candidates, spread=spread))

    def place(
        self,
        need: Need,
        *,
        ttl_s: float = LEASE_S,
        deadline_s: float | None = None,
        candidates: int = CANDIDATES,
    ) -> Lease:
        """Claim what is needed on the best machine that grants it: `with node.place(need)`."""

        async def claim() -> AsyncLease:
            return await self._node.place(
                need, ttl_s=ttl_s, deadline_s=deadline_s, candidates=candidates
            )

        return Lease(self._run(claim), self._run)

    def place_gang(
        self,
        need: Need,
        size: int,
        *,
        spread: Spread = None,
        ttl_s: float = LEASE_S,
        deadline_s: float = GANG_DEADLINE_S,
    ) -> Gang:
        """Claim a need for each of `size` members, all of them or none."""

        async def claim() -> AsyncGang:
            return await self._node.place_gang(
                need, size, spread=spread, ttl_s=ttl_s, deadline_s=deadline_s
            )

        return Gang(self._run(claim), self._run)

    def replicas(
        self,
        need: Need,
        count: int,
        *,
        spread: Spread = None,
        ttl_s: float = LEASE_S,
        cool_down_s: float = COOL_DOWN_S,
    ) -> Replicas:
        """Keep `count` leases of a need alive: `with node.replicas(need, 3) as replicas`."""

        async def begin() -> AsyncReplicas:
            replicas = self._node.replicas(
                need, count, spread=spread, ttl_s=ttl_s, cool_down_s=cool_down_s
            )
            return await replicas.__aenter__()

        return Replicas(self._run(begin), self._run)

    def explain(self, need: Need) -> Explanation:
        """Why a need can be met or not: how many machines each resource rules out."""
        return self._run(lambda: self._node.explain(need))

    def leases(self) -> tuple[Grant, ...]:
        """What this node has promised to whom."""

        async def look() -> tuple[Grant, ...]:
            return self._node.leases()

        return self._run(look)

    def usage(self) -> tuple[UsageRow, ...]:
        """What the last commands that ended on this machine have used, the oldest first."""

        async def look() -> tuple[UsageRow, ...]:
            return self._node.usage()

        return self._run(look)

    def drain(self, *, revoke: bool = False) -> None:
        """Grant nothing more; `revoke` also takes back what is granted."""
        self._run(lambda: self._node.drain(revoke=revoke))

    def undrain(self) -> None:
        """Grant again."""
        self._run(self._node.undrain)

    def revoke(self, token: str) -> None:
        """Take one lease back, and tell its owner."""
        self._run(lambda: self._node.revoke(token))

    def put(
        self,
        key: str | bytes,
        value: str | bytes | float | bool,
        *,
        ttl_s: float = VALUE_TTL_S,
        seq: int | None = None,
        owned: bool = False,
        paths: int = 1,
    ) -> PutResult:
        """Store a value under a name on the k closest nodes; `owned`: a name of our own."""
        return self._run(
            lambda: self._node.put(key, value, ttl_s=ttl_s, seq=seq, owned=owned, paths=paths)
        )

    def get(self, key: str | bytes, *, owner: Owner | None = None, paths: int = 1) -> StoredValue:
        """The newest value under a name, or of an `owner` under its own; raises KeyNotFound."""
        return self._run(lambda: self._node.get(key, owner=owner, paths=paths))

    def remove(self, key: str | bytes, *, owned: bool = False, paths: int = 1) -> PutResult:
        """Take a value of ours back, in a cluster: readers find none, and old copies stay away."""
        return self._run(lambda: self._node.remove(key, owned=owned, paths=paths))

    def user(self, name: str) -> Chain | None:
        """The certificates of a user of our cluster; None where nobody of that name has any."""
        return self._run(lambda: self._node.user(name))

    def bandwidth(self, peer: Peer, *, max_age_s: float = AGE_S_MAX) -> Bandwidth:
        """What the path to a peer carries, in bytes a second; sends up to 4 MB to find out."""
        return self._run(lambda: self._node.bandwidth(peer, max_age_s=max_age_s))

    def members(self) -> tuple[Hit, ...]:
        """The records of the own group, as this node believes them now."""

        async def look() -> tuple[Hit, ...]:
            return self._node.members()

        return self._run(look)

    def stats(self) -> Mapping[str, float]:
        """Counters and sizes of this node."""

        async def look() -> Mapping[str, float]:
            return self._node.stats()

        return self._run(look)

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._loop is None:
            raise Closed("the node has not started: use `with` or call start()")
        return self._loop.run(work)
