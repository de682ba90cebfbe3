"""`dhtos.sync.Node`: the same node without asyncio.

A thread of its own runs the event loop; every method hands its work over and waits. The methods
are those of `dhtos.node.node.Node`, written out so that editors and type checkers see them. Any
thread may call them; Ctrl-C in the waiting one cancels the work in the loop.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

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
from dhtos.node.config import Config
from dhtos.node.distance import Central, Rtt, Where
from dhtos.node.figures import Aggregate, Histogram
from dhtos.node.find import Count, FindOptions
from dhtos.node.find import Find as AsyncFind
from dhtos.node.lease import Explanation, Plan
from dhtos.node.lease import Lease as AsyncLease
from dhtos.node.placing import CANDIDATES, DEADLINE_S
from dhtos.node.sampler import Sampler
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.ledger import Grant
from dhtos.protocol.put import PutResult
from dhtos.protocol.store import StoredValue
from dhtos.sched import Need
from dhtos.transport.udp import UdpSocket

T = TypeVar("T")


class _Loop:
    """An event loop in a thread; `run` is the only way in."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="dhtos", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work()` in the loop; an interrupted caller cancels it."""

        async def awaited() -> T:
            return await work()

        if not self._thread.is_alive():
            raise Closed("the node is closed")
        future: Future[T] = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise Closed("the node was closed") from error
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


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
    ) -> None:
        self._node = asynchronous.Node(
            config,
            rng=rng,
            clock=clock,
            wall_clock=wall_clock,
            open_socket=open_socket,
            sampler=sampler,
        )
        self._loop: _Loop | None = None

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen, find the fleet, measure this machine, advertise it."""
        if self._loop is not None:
            raise Closed("a node starts once")
        self._loop = _Loop()
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
    ) -> "Find":
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
        deadline_s: float = DEADLINE_S,
        candidates: int = CANDIDATES,
    ) -> "Lease":
        """Claim what is needed on the best machine that grants it: `with node.place(need)`."""

        async def claim() -> AsyncLease:
            return await self._node.place(
                need, ttl_s=ttl_s, deadline_s=deadline_s, candidates=candidates
            )

        return Lease(self._run(claim), self._run)

    def explain(self, need: Need) -> Explanation:
        """Why a need can be met or not: how many machines each resource rules out."""
        return self._run(lambda: self._node.explain(need))

    def leases(self) -> tuple[Grant, ...]:
        """What this node has promised to whom."""

        async def look() -> tuple[Grant, ...]:
            return self._node.leases()

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
    ) -> PutResult:
        """Store a value under a name on the k closest nodes."""
        return self._run(lambda: self._node.put(key, value, ttl_s=ttl_s, seq=seq))

    def get(self, key: str | bytes) -> StoredValue:
        """The newest value under a name; raises KeyNotFound."""
        return self._run(lambda: self._node.get(key))

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


class Find:
    """Hits as they come: an iterator that is a context manager; leaving it frees the query."""

    def __init__(self, find: AsyncFind, run: Callable[[Callable[[], Awaitable[Any]]], Any]) -> None:
        self._find = find
        self._run = run

    @property
    def result(self) -> FindResult:
        """The end of the query: coverage, cursor, all hits; raises UsageError before it."""
        return self._find.result

    def close(self) -> None:
        """Free the query; may be called again."""
        self._run(self._find.aclose)

    def __iter__(self) -> Iterator[Hit]:
        return self

    def __next__(self) -> Hit:
        hit: Hit | None = self._run(self._step)
        if hit is None:
            raise StopIteration
        return hit

    async def _step(self) -> Hit | None:
        return await anext(self._find, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Lease:
    """A part of a machine that is ours until it is released or lost; renewed in the background.

    A context manager that releases it; where it was lost meanwhile, LeaseLost comes out at the end.
    """

    def __init__(
        self, lease: AsyncLease, run: Callable[[Callable[[], Awaitable[Any]]], Any]
    ) -> None:
        self._lease = lease
        self._run = run

    @property
    def hit(self) -> Hit:
        """The machine as it was found."""
        return self._lease.hit

    @property
    def node(self) -> NodeId:
        """Who granted it."""
        return self._lease.node

    @property
    def endpoint(self) -> str:
        """Where that node listens: `host:port`."""
        return self._lease.endpoint

    @property
    def token(self) -> str:
        """What only its owner and the node know, in hexadecimal."""
        return self._lease.token

    @property
    def fence(self) -> int:
        """Larger than that of every earlier lease of the node."""
        return self._lease.fence

    @property
    def resources(self) -> Mapping[str, float]:
        """How much of what is ours."""
        return self._lease.resources

    @property
    def expires_s(self) -> float:
        """In how many seconds it ends if no renewal is heard; 0 once it has ended."""
        return self._lease.expires_s

    @property
    def lost(self) -> bool:
        """Whether the node took it back, or was not heard for a whole term."""
        return self._lease.lost

    def ended(self) -> None:
        """Wait for its end; raises LeaseLost where that was not a release."""
        self._run(self._lease.ended)

    def release(self) -> None:
        """Give it back; may be called again."""
        self._run(self._lease.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = self.lost
        self.release()
        if lost and kind is None:
            self.ended()
