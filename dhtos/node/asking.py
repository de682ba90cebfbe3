"""What a running node may be asked: machines, figures, values, paths. `Node` adds the life.

This module must not know how a node starts or ends.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from dhtos.core.coordinate import Coordinate
from dhtos.core.hit import Hit
from dhtos.core.ids import digest
from dhtos.core.limits import VALUE_TTL_S
from dhtos.core.nearest import Nearest
from dhtos.core.predicate import EVERYTHING, Predicate
from dhtos.core.schema import Schema
from dhtos.errors import Closed, PredicateError, Refused, UsageError
from dhtos.node.bandwidth import AGE_S_MAX, Bandwidth, Meter, Peer
from dhtos.node.config import Config
from dhtos.node.figures import Aggregate, Histogram
from dhtos.node.find import Count, Find, FindOptions
from dhtos.node.known import coordinate_of, socket_figures
from dhtos.protocol.aggregate import Measure, check_edges, default_edges, measured
from dhtos.protocol.answer import Order
from dhtos.protocol.engine import Engine
from dhtos.protocol.frontier import FindResult, check_verify
from dhtos.protocol.hub import Hub
from dhtos.protocol.operation import Operation
from dhtos.protocol.put import PutResult
from dhtos.protocol.sample import check_size, sample
from dhtos.protocol.signed import Owner, Terms, public_of
from dhtos.protocol.store import StoredValue, Value
from dhtos.query import Expr, parse, parse_order
from dhtos.transport.driver import Driver
from dhtos.trust.cert import Verb
from dhtos.trust.value import owned_key

if TYPE_CHECKING:
    from dhtos.trust.member import Member

_NO_OWNERS = "in open mode nobody can say whose a value is"

Query = str | Expr | Predicate


class Asking(ABC):
    """The questions of a node."""

    config: Config
    schema: Schema
    _wall_clock: Callable[[], float]
    _put_seq = 0
    _meter: Meter | None = None

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """The engine of the started node; raises Closed before the start."""

    @property
    @abstractmethod
    def driver(self) -> Driver:
        """The driver of the running node; raises Closed before the start and after the end."""

    @abstractmethod
    async def joined(self) -> None:
        """Wait for the place in the hub, which a client has not; raises SchemaConflict."""

    def _require(self, verb: Verb) -> None:
        """Raise Refused for what our certificate lets us do nowhere: nobody would answer."""
        sessions = self.engine.core.sessions
        leaf = None if sessions is None else sessions.member.here
        if sessions is None or leaf is None or leaf.scopes(verb) != frozenset():
            return
        if sessions.member.home:
            raise Refused(f"members of our cluster are not welcome to {verb} in this one")
        given = "a node's" if verb == "publish" else f"one that was made with --cap {verb}"
        raise Refused(f"{leaf.name!r} may not {verb} here: use another token, {given}")

    # --- machines -------------------------------------------------------------------------------

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
        """The machines that match, as they are found: `async for hit in node.find(...)`.

        Where the query is about `rtt(self)` alone, measured round trips decide, and up to eight of
        the least sure hits are pinged first: those that are too far, or do not answer, are left
        out, so there may be fewer than `limit` though the cursor leads to more.
        `order_by` is an attribute, or `rtt(self)` for the nearest first, as coordinates predict
        it; `limit=0` is no limit, `cursor` continues an earlier result, `strict` distrusts young
        summaries, `verify` asks so many members about every subtree, `explain` keeps the steps of
        the walk. Leaving the loop early frees the query. Raises PredicateError and UsageError at
        once.
        """
        if type(limit) is not int or limit < 0:
            raise UsageError(f"limit must be 0 (none) or more, got {limit!r}")
        check_verify(verify)
        predicate, here = self.predicate(query), self._coordinate_of("self")
        order = None if order_by is None else self.order(order_by, descending=descending)
        hub, driver = self.engine.hub, self.driver

        def ask() -> Operation[FindResult]:
            return hub.find(
                predicate,
                driver.clock(),
                limit=limit,
                order=order,
                strict=strict,
                verify=verify,
                explain=explain,
                cursor=cursor,
                here=here,
            )

        return Find(driver, self.joined, ask)

    async def find_all(
        self, query: Query = EVERYTHING, **options: Unpack[FindOptions]
    ) -> FindResult:
        """The whole answer of `find`: `.hits`, `.coverage`, `.matches` and `.cursor`."""
        return await self.find(query, **options).finish()

    async def count(
        self, query: Query = EVERYTHING, *, strict: bool = False, verify: int = 1
    ) -> Count:
        """How many machines match: a number that carries its `coverage`."""
        predicate, here = self.predicate(query), self._coordinate_of("self")
        check_verify(verify)
        result = await self._answer(
            lambda hub, now: hub.find(
                predicate, now, count_only=True, strict=strict, verify=verify, here=here
            )
        )
        return Count(result.matches, result.coverage)

    # --- figures --------------------------------------------------------------------------------

    async def sum(
        self, attribute: str, query: Query = EVERYTHING, *, strict: bool = False, verify: int = 1
    ) -> Aggregate:
        """Sum, mean, minimum and maximum of a number attribute over all matches.

        Exact where `coverage.complete`. Raises UsageError for an attribute that is no number.
        """
        measure = Measure(measured(self.config.vocabulary, attribute))
        result = await self._aggregate(query, measure, strict=strict, verify=verify)
        return Aggregate.of(attribute, result)

    async def histogram(
        self,
        attribute: str,
        query: Query = EVERYTHING,
        *,
        edges: Sequence[float] | None = None,
        strict: bool = False,
        verify: int = 1,
    ) -> Histogram:
        """How many matches lie below the first edge, between any two, and from the last one on.

        Without `edges` they cut the scale of the attribute into sixteen equal steps. Exact where
        `coverage.complete`. Raises UsageError for an attribute that is no number, or edges that
        do not rise.
        """
        index = measured(self.config.vocabulary, attribute)
        if edges is None:
            edges = default_edges(self.config.vocabulary.attributes[index])
        measure = Measure(index, check_edges(edges))
        result = await self._aggregate(query, measure, strict=strict, verify=verify)
        return Histogram.of(attribute, measure.edges, result)

    async def _aggregate(
        self, query: Query, measure: Measure, *, strict: bool, verify: int
    ) -> FindResult:
        predicate = self.predicate(query)
        check_verify(verify)
        return await self._answer(
            lambda hub, now: hub.find(predicate, now, measure=measure, strict=strict, verify=verify)
        )

    async def sample(
        self, k: int, query: Query = EVERYTHING, *, strict: bool = False
    ) -> FindResult:
        """`k` machines drawn at random from all matches, or all of them where there are no more.

        Even and without a call within one group. Beyond, a few groups are asked, in about twice
        the calls of `find` with that limit, and each match has the same chance up to what
        summaries misjudge; machines of one group come together more often than apart. There is
        no cursor: sample again. Raises UsageError unless k is 1..256.
        """
        predicate = self.predicate(query)
        check_size(k)
        return await self._answer(lambda hub, now: sample(hub, predicate, k, now, strict=strict))

    async def _answer(self, begin: Callable[[Hub, float], Operation[FindResult]]) -> FindResult:
        await self.joined()
        return await self.driver.wait(begin(self.engine.hub, self.driver.clock()))

    # --- values ---------------------------------------------------------------------------------

    async def put(
        self,
        key: str | bytes,
        value: str | bytes | float | bool,
        *,
        ttl_s: float = VALUE_TTL_S,
        seq: int | None = None,
        owned: bool = False,
        paths: int = 1,
    ) -> PutResult:
        """Store a value under a name on the k closest nodes; a stock peer can read it too.

        `seq` orders versions; by default the wall clock in milliseconds does. In a cluster the
        value is signed and lives no longer than our certificate. Who first takes a name keeps it
        while its value lives; an `owned` value is under a name of our own, where nobody else can
        write. The holders are found over so many disjoint `paths` (1 to 8): for a name that
        matters four find them past a fifth of liars. Raises ValueTooLarge, Conflict when a newer
        version exists or the name is another's, Unreachable when nobody took it, Refused for a
        user of a cluster who may not.
        """
        return await self._put(key, value, ttl_s, seq, owned=owned, paths=paths)

    async def get(
        self, key: str | bytes, *, owner: Owner | None = None, paths: int = 1
    ) -> StoredValue:
        """The newest value under a name; raises KeyNotFound.

        In a cluster its `.owner` says who signed it. With an `owner`, the `.owner` of a value or
        its public key (32 bytes or their 64 hex digits) or "self", it is the name that is owned by
        that one. `paths` is as for `put`: the newest value of all of them counts.
        """
        member = self._member()
        if owner is None:
            where, public = digest(key), b""
        elif member is None:
            raise UsageError(f"{_NO_OWNERS}: start a cluster with dhtos-node up")
        else:
            public = public_of(owner, member)
            where = owned_key(public, digest(key))
        now = self.driver.clock()
        operation = self.engine.base.get(where, now, owner=public, paths=paths)
        return await self.driver.wait(operation)

    async def remove(self, key: str | bytes, *, owned: bool = False, paths: int = 1) -> PutResult:
        """Take a value of ours back, in a cluster: readers find none, and old copies stay away.

        For a week holders keep that it is gone, which only we could say. Raises as `put` does, and
        UsageError in open mode, where nobody can say whose a value is.
        """
        if self._member() is None:
            raise UsageError(f"{_NO_OWNERS}: give it a short ttl_s, which ends it")
        return await self._put(key, b"", VALUE_TTL_S, None, owned=owned, paths=paths, gone=True)

    async def _put(
        self,
        key: str | bytes,
        value: Value,
        ttl_s: float,
        seq: int | None,
        *,
        owned: bool,
        paths: int,
        gone: bool = False,
    ) -> PutResult:
        self._require("publish")
        where, salt, member = digest(key), None, self._member()
        if owned:
            if member is None:
                raise UsageError(f"{_NO_OWNERS}: start a cluster with dhtos-node up")
            salt = where
            where = owned_key(member.key.public, salt)
        if seq is None:
            seq = self._put_seq = max(int(self._wall_clock() * 1000), self._put_seq + 1)
        operation = self.engine.base.put(
            where,
            value,
            self.driver.clock(),
            ttl_s=ttl_s,
            seq=seq,
            terms=Terms(salt, gone),
            paths=paths,
        )
        return await self.driver.wait(operation)

    def _member(self) -> "Member | None":
        sessions = self.engine.core.sessions
        return None if sessions is None else sessions.member

    # --- paths and views ------------------------------------------------------------------------

    async def bandwidth(self, peer: Peer, *, max_age_s: float = AGE_S_MAX) -> Bandwidth:
        """What the path to a peer carries, in bytes a second; sends up to 4 MB to find out.

        The peer is a hit, the id of a member of the own group, or `host:port`. An estimate of at
        most `max_age_s` is returned as it is; 0 always measures, and one path is measured at a
        time. Raises Unreachable where the peer does not answer, UsageError where the hourly
        budget is used up, or for somebody who cannot be measured.
        """
        if self._meter is None:
            raise Closed("the node has not started: use `async with` or await start()")
        return await self._meter.bandwidth(peer, max_age_s=max_age_s)

    def members(self) -> tuple[Hit, ...]:
        """The records of the own group, as this node believes them now; asks nobody."""
        now, hub = self.driver.clock(), self.engine.hub
        return tuple(hub.hit(m.record, m.born, now) for m in hub.members())

    def stats(self) -> Mapping[str, float]:
        """Counters and sizes of this node; asks nobody."""
        return {**self.engine.stats(), **socket_figures(self.driver.socket)}

    def order(self, text: str, *, descending: bool = False) -> Order:
        """What to order by; raises UsageError, or PredicateError for a place."""
        found = parse_order(text, self.config.vocabulary, coordinate_of=self._coordinate_of)
        if isinstance(found, int):
            return found, descending
        if descending:
            raise UsageError(f"{text} orders by the nearest, and cannot be descending")
        return Nearest.to(Coordinate(found[:-1], found[-1]))

    def predicate(self, query: Query) -> Predicate:
        """The normal form of a query; raises PredicateError."""
        found = parse(query, self.config.vocabulary, coordinate_of=self._coordinate_of)
        if found.is_about_certificates and self.engine.core.sessions is None:
            raise PredicateError(
                "attested(...) asks what certificates say, and this node is in open mode, where "
                "nobody vouches for anything: ask without it, or join a cluster"
            )
        return found

    def _coordinate_of(self, who: str) -> Coordinate | None:
        """Where `self`, or a node of the own group, is; None where that is not known here."""
        return coordinate_of(self.engine.hub, who)
