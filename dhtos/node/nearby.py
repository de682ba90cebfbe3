"""Where machines are: how far one is from another, who is near, who lies between several.

Coordinates predict, pings decide. Only this node can ping, so what lies between two others stays a
prediction; every answer says which of both it is. Pings teach, too: the round trip to a machine
whose record says where it is places this node better, and the next answer knows it as measured.

A member of the fleet is placed by its gossip. A light client has none: it draws some machines at
random and pings them, once in half an hour, when somebody asks about distance.

This module must not know how a node starts or ends.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType

from dhtos.core.centre import centre
from dhtos.core.coordinate import Coordinate, predict
from dhtos.core.hit import Hit
from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    CENTRAL_OTHERS_MAX,
    MEMORY_S,
    PREDICATE_TERMS_MAX,
    RTT_S_MAX,
    SAMPLE_MAX,
)
from dhtos.core.nearest import Nearest
from dhtos.core.predicate import EVERYTHING, Box, Near, Predicate
from dhtos.core.record import Record
from dhtos.core.value import is_number
from dhtos.errors import Unreachable, UsageError
from dhtos.node.asking import Asking, Query
from dhtos.node.distance import Central, Rtt, Where, id_of, predicted
from dhtos.protocol.near import peer_rtt, told_place
from dhtos.protocol.probing import Probing

# docs/explanation/coordinates.md has the figures of both.
CANDIDATES_PER_PROBE = 10  # how many are put in order for each that may be pinged
REACH = 1.5  # how far a prediction may lie beyond a border that is asked for

LANDMARKS = 16  # machines that place a light client: after so many samples little is gained


@dataclass(frozen=True, slots=True)
class _Spot:
    """A machine or place that was named: where it is, as far as that is known here."""

    name: str
    place: Coordinate | None
    node_id: bytes | None = None
    endpoint: Endpoint | None = None  # of the machine itself, not of a gateway


class Nearby(Asking):
    """The questions of a node about distance."""

    _located_at = -inf

    @property
    def coordinate(self) -> Coordinate:
        """Where this node is in the network, in seconds, and how sure it is of that."""
        return self.engine.hub.coordinate

    async def locate(self) -> Coordinate:
        """Learn where this node is, and return it; only a light client has to ask for that.

        A member waits for its place in the fleet. A client draws 16 machines at random and pings
        them, unless it did in the last half hour. `rtt`, `closest`, `within` and `central` do so
        by themselves; `rtt(self)` in a question needs it first. Costs the calls of `sample`, then
        the pings. Raises Unreachable where nobody answers who tells where it is.
        """
        await self.joined()
        now = self.driver.clock()
        if self.config.client and now - self._located_at > MEMORY_S:
            drawn = await self.sample(LANDMARKS)
            if not await self._ping(drawn.hits):
                raise Unreachable("no machine answered a ping that tells where it is: try again")
            self._located_at = now
        return self.coordinate

    async def rtt(self, a: Where, b: Where = "self") -> Rtt:
        """The round trip between two machines in seconds; from this node unless `b` is given.

        Measured where one of them is this node and the other answered it in the last half hour,
        else predicted by coordinates. Asks nobody, but for a node that is not held here and was
        named by its id: its address is looked up and pinged, which only finds how far it is from
        this node. Raises UsageError for what names no machine, or one whose place is not known;
        Unreachable where no node of that id answers.
        """
        one, two = self._spot(a), self._spot(b)
        if one.node_id is not None and one.node_id == two.node_id:
            return Rtt(0.0)
        if self.engine.id in (one.node_id, two.node_id):
            return await self._rtt_from_here(two if one.node_id == self.engine.id else one)
        return predicted(self._placed(one), self._placed(two))

    async def closest(self, k: int = 5, query: Query = EVERYTHING, *, probes: int = 8) -> list[Hit]:
        """The `k` machines nearest to this node among those that match, nearest first.

        Coordinates choose ten candidates for each ping, what this node has measured before puts
        them in order, and the first `k + probes` that run a node are pinged: what is measured
        decides, and is the `rtt_s` of a hit. A machine behind a gateway cannot be pinged and
        counts as predicted; who does not answer is left out, and so is this machine itself. Costs
        the calls of `count`, then the pings; a light client's those of `locate` before. Raises
        UsageError unless k and probes are 1..256, and what `locate` raises.
        """
        _check("k", k, 1)
        _check("probes", probes, 1)
        place = await self.locate()
        found = await self._candidates(query, place, CANDIDATES_PER_PROBE * (k + probes))
        known = [self._known(hit) for hit in self._others(found)]
        first = sorted(known, key=_distance)[: k + probes]
        return (await self._pinged(first, first))[:k]

    async def within(
        self, seconds: float, query: Query = EVERYTHING, *, limit: int = 0, probes: int = 8
    ) -> list[Hit]:
        """The machines that match within so many seconds of this node, nearest first.

        Coordinates choose who may be that near, with half as much again to spare. What this node
        has measured before counts as measured, and of the others the `probes` whose predictions
        are closest to the border are pinged: `rtt_measured` of a hit says which it is. Who does
        not answer a ping is left out, and so is this machine itself; `limit=0` is no limit. Costs
        the calls of `find`, then the pings; a light client's those of `locate` before. Raises
        UsageError for a round trip that is not above 0 s and at most 10 s, and unless probes are
        0..256; and what `locate` raises.
        """
        if not is_number(seconds) or not 0 < seconds <= RTT_S_MAX:
            raise UsageError(
                f"a round trip is above 0 s and at most {RTT_S_MAX:g} s, got {seconds!r}"
            )
        if type(limit) is not int or limit < 0:
            raise UsageError(f"limit must be 0 (none) or more, got {limit!r}")
        _check("probes", probes, 0)
        place = await self.locate()
        most = CANDIDATES_PER_PROBE * (limit + probes) if limit else 0
        found = await self._candidates(query, place, most, seconds * REACH)
        known = [self._known(hit) for hit in self._others(found)]
        unsure = [hit for hit in known if not (hit.gateway or hit.rtt_measured)]
        border = sorted(unsure, key=lambda hit: abs(_distance(hit) - seconds))[:probes]
        near = [hit for hit in await self._pinged(known, border) if _distance(hit) <= seconds]
        return near[:limit] if limit else near

    async def central(
        self, others: Iterable[Where], k: int = 5, query: Query = EVERYTHING, *, probes: int = 8
    ) -> list[Central]:
        """The `k` machines that match whose farthest of `others` is nearest; then by the mean.

        Coordinates choose ten candidates for each ping around the centre of the others and put them
        in order. The first `k + probes` that run a node are pinged to see that they are there; who
        does not answer is left out, and so are the others themselves. `probes=0` pings nobody.
        Between two other machines nothing can be measured from here: those round trips stay
        predictions, and only those to this node, if it is one of the others, are measured. Costs
        the calls of `count`, then the pings. Raises UsageError unless there are 1..64 others whose
        places are known, k is 1..256 and probes are 0..256.
        """
        _check("k", k, 1)
        _check("probes", probes, 0)
        spots = [self._spot(other) for other in others]
        if not 1 <= len(spots) <= CENTRAL_OTHERS_MAX:
            raise UsageError(f"central takes 1..{CENTRAL_OTHERS_MAX} others, got {len(spots)}")
        if any(spot.node_id == self.engine.id for spot in spots):
            await self.locate()
        middle = centre([self._placed(spot) for spot in spots])
        found = await self._candidates(query, middle, CANDIDATES_PER_PROBE * (k + probes))
        named = {spot.node_id for spot in spots}
        known = [
            self._known(hit)
            for hit in found
            if hit.record.node_id not in named and self._told_place(hit.record) is not None
        ]
        first = [one.hit for one in self._ranked(known, spots)[: k + probes]]
        alive = await self._pinged(first, first) if probes else first
        return self._ranked(alive, spots)[:k]

    # --- what is known here -----------------------------------------------------------------------

    def _coordinate_of(self, who: str) -> Coordinate | None:
        """A client that has looked where it is knows it as well as it can."""
        if who == "self" and self._located_at > -inf:
            return self.coordinate
        return super()._coordinate_of(who)

    def _spot(self, who: Where) -> _Spot:
        """What is known of somebody; raises UsageError for what names nobody."""
        match who:
            case Coordinate():
                dimensions = self.engine.hub.locator.memory.dimensions
                if len(who.position) != dimensions:
                    raise UsageError(
                        f"a place has {dimensions} dimensions here, got {len(who.position)}"
                    )
                return _Spot("a coordinate", who)
            case Hit():
                return self._spot_of(who.record)
            case "self":
                return _Spot("this node", None, self.engine.id)
        node_id = id_of(who)
        for member in self.engine.hub.members():
            if member.record.node_id == node_id:
                return self._spot_of(member.record)
        return _Spot(f"node {node_id.hex()}", None, node_id)

    def _spot_of(self, record: Record) -> _Spot:
        endpoint = None if record.is_foreign else record.endpoint
        name = f"node {record.node_id.hex()}"
        return _Spot(name, self._told_place(record), record.node_id, endpoint)

    def _told_place(self, record: Record) -> Coordinate | None:
        """Where a machine says it is, if that says anything here."""
        place = told_place(record)
        same = place and len(place.position) == self.engine.hub.locator.memory.dimensions
        return place if same else None

    def _placed(self, spot: _Spot) -> Coordinate:
        """Where somebody is; raises UsageError if that is not known here."""
        if spot.node_id == self.engine.id:
            return self.coordinate
        if spot.place is None:
            raise UsageError(
                f"the coordinate of {spot.name} is not known here: use a hit that has it"
            )
        return spot.place

    def _known(self, hit: Hit, pings: Mapping[Endpoint, float] = MappingProxyType({})) -> Hit:
        """The hit with its round trip from here: measured now or before, else predicted."""
        if hit.record.node_id == self.engine.id:
            return replace(hit, rtt_s=0.0, rtt_measured=True)
        endpoint = hit.record.endpoint
        measured = None if hit.gateway else pings.get(endpoint) or self._remembered(endpoint)
        if measured is not None:
            return replace(hit, rtt_s=measured, rtt_measured=True)
        place = self._told_place(hit.record)
        rtt_s = None if place is None else predict(self.coordinate, place)
        return replace(hit, rtt_s=rtt_s, rtt_measured=False)

    def _remembered(self, endpoint: Endpoint) -> float | None:
        return peer_rtt(self.engine.hub, endpoint, self.driver.clock())

    def _others(self, hits: Iterable[Hit]) -> list[Hit]:
        return [hit for hit in hits if hit.record.node_id != self.engine.id]

    def _ranked(self, hits: Iterable[Hit], spots: Sequence[_Spot]) -> list[Central]:
        """By the farthest of the others, then by the mean."""
        found = [Central(hit, tuple([self._leg(hit, spot) for spot in spots])) for hit in hits]
        return sorted(found, key=lambda one: (one.worst_s, one.mean_s))

    def _leg(self, hit: Hit, spot: _Spot) -> Rtt:
        if spot.node_id == self.engine.id and hit.rtt_measured:
            assert hit.rtt_s is not None
            return Rtt(hit.rtt_s)
        there = self._told_place(hit.record)
        assert there is not None, "who tells no place is no candidate"
        return predicted(self._placed(spot), there)

    # --- asking others ----------------------------------------------------------------------------

    async def _candidates(
        self, query: Query, place: Coordinate, limit: int, reach_s: float = inf
    ) -> Sequence[Hit]:
        """Matches by predicted round trip to a place, the nearest first."""
        predicate = self.predicate(query)
        if reach_s < inf:
            predicate = _and_near(predicate, place, reach_s)
        order = Nearest.to(place)
        result = await self._answer(
            lambda hub, now: hub.find(predicate, now, limit=limit, order=order)
        )
        return result.hits

    async def _rtt_from_here(self, other: _Spot) -> Rtt:
        here = await self.locate()
        known = None if other.endpoint is None else self._remembered(other.endpoint)
        if known is not None:
            return Rtt(known)
        if other.place is not None:
            return predicted(here, other.place)
        endpoint = other.endpoint or await self._look_up(other)
        now = self.driver.clock()
        pings = await self.driver.wait(
            Probing(self.engine.core, self.engine.id, {endpoint: None}, now).operation
        )
        if endpoint not in pings:
            raise Unreachable(f"{other.name} does not answer: try again in a moment")
        return Rtt(pings[endpoint])

    async def _look_up(self, other: _Spot) -> Endpoint:
        """The address of a node that is known by its id alone."""
        if other.node_id is None:
            raise UsageError(f"the coordinate of {other.name} is not known here")
        near = self.engine.base.find_contacts(other.node_id, self.driver.clock())
        for contact in await self.driver.wait(near):
            if contact.id == other.node_id:
                return contact.endpoint
        raise Unreachable(f"{other.name} is not found: check its id, or use a hit")

    async def _pinged(self, hits: Sequence[Hit], asked: Sequence[Hit]) -> list[Hit]:
        """`hits` nearest first, without those that were asked and did not answer."""
        pings = await self._ping(asked)
        silent = {id(hit) for hit in asked if not self._answered(hit, pings)}
        found = [self._known(hit, pings) for hit in hits if id(hit) not in silent]
        return sorted(found, key=_distance)

    def _answered(self, hit: Hit, pings: Mapping[Endpoint, float]) -> bool:
        """Whether a machine is there, as far as a ping can tell; of a gateway's none can."""
        own = hit.record.node_id == self.engine.id
        return own or hit.gateway or hit.record.endpoint in pings

    async def _ping(self, hits: Iterable[Hit]) -> dict[Endpoint, float]:
        """Who answers, and how soon; what says where it is places this node better."""
        own, now = self.engine.id, self.driver.clock()
        asked = {
            hit.record.endpoint: self._told_place(hit.record)
            for hit in hits
            if not hit.gateway and hit.record.node_id != own
        }
        return await self.driver.wait(Probing(self.engine.core, own, asked, now).operation)


def _distance(hit: Hit) -> float:
    return inf if hit.rtt_s is None else hit.rtt_s


def _check(name: str, value: int, low: int) -> None:
    if type(value) is not int or not low <= value <= SAMPLE_MAX:
        raise UsageError(f"{name} must be {low}..{SAMPLE_MAX}, got {value!r}")


def _and_near(predicate: Predicate, place: Coordinate, reach_s: float) -> Predicate:
    """The predicate, within so many seconds of a place; a box that is full stays as it is."""
    near = Near((*place.position, place.height), -inf, reach_s)
    return Predicate(
        tuple(
            box if len(box.terms) >= PREDICATE_TERMS_MAX else Box((*box.terms, near))
            for box in predicate.boxes
        )
    )
