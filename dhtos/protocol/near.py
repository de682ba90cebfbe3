"""Questions about the own distance: coordinates propose, what is measured from here decides.

`rtt(self) < 20ms` travels as a place, and whoever answers judges by prediction. The asker knows
better of those it has measured: members of its own group are judged so before any is chosen, and
hits that come back before they count. Of the hits that nobody here has measured yet, the least sure
are pinged before they are passed on; what is left stays a prediction, and says so
(`Hit.rtt_measured`). Predictions err by a tenth in the middle, and a question for what is near
picks out those that err towards it: this is what a ping mends (docs/explanation/coordinates.md).
"""

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from dhtos.core.bound import Bound
from dhtos.core.coordinate import Coordinate
from dhtos.core.hit import Hit
from dhtos.core.ids import Endpoint
from dhtos.core.limits import MEMORY_S, NEAR_PROBES
from dhtos.core.predicate import Near, Predicate
from dhtos.core.record import Record
from dhtos.core.schema import Schema
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.operation import Operation
from dhtos.protocol.probing import Probing
from dhtos.protocol.union import Wish, ask

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub


def measured_rtt(hub: "Hub", record: Record, now: float) -> float | None:
    """The round trip to a machine in seconds, where it was measured in the last half hour."""
    if record.node_id == hub.node_id:
        return 0.0
    if record.is_foreign:
        return None  # it runs no node: the endpoint is its gateway's
    return peer_rtt(hub, record.endpoint, now)


def peer_rtt(hub: "Hub", endpoint: Endpoint, now: float) -> float | None:
    """The same of whoever is at an endpoint: what places us by it, or what its replies took."""
    rtt_s = hub.locator.memory.rtt_s(endpoint)
    if rtt_s is not None:
        return rtt_s
    peer = hub.core.peers.known(endpoint)
    if peer is None or not peer.srtt or peer.last_heard is None:
        return None
    return peer.srtt if now - peer.last_heard <= MEMORY_S else None


def told_place(record: Record) -> Coordinate | None:
    """Where a machine says it is."""
    return None if record.packed is None else Coordinate.from_bytes(record.packed)


def is_about(predicate: Predicate, here: Coordinate) -> bool:
    """Whether a predicate is about round trips, and those from `here` alone."""
    places = {
        term.coordinate for box in predicate.boxes for term in box.terms if isinstance(term, Near)
    }
    return places == {(*here.position, here.height)}


def ask_near(
    hub: "Hub", wish: Wish, now: float, cursor: bytes | None = None
) -> Operation[FindResult]:
    """Ask what is about the own distance; driven by the hub, and raises, as `ask`."""
    wish = replace(wish, rtt_of=lambda record: measured_rtt(hub, record, now))
    asked = ask(hub, wish, now, cursor)
    if wish.count_only:
        return asked
    near = NearQuestion(hub, wish, asked, now)
    hub.running.append(near)
    return near.operation


class NearQuestion:
    """A running question, its least sure hits pinged before they are passed on."""

    def __init__(self, hub: "Hub", wish: Wish, asked: Operation[FindResult], now: float) -> None:
        self.hub = hub
        self.wish = wish
        self.operation: Operation[FindResult] = hub.core.operation(self._on_cancel)
        self._asked = asked
        self._judges: dict[int, Bound] = {}  # by version of the schema
        self._probings: list[tuple[Probing, list[Hit]]] = []
        self._probed = 0
        self._passed: dict[bytes, Hit] = {}  # by node id
        self.proceed(now)

    def proceed(self, now: float) -> None:
        """Take what has been found, and what pings have told."""
        if self.operation.done:
            return
        fresh = self._take(now) + self._hear()
        self._passed |= {hit.record.node_id: hit for hit in fresh}
        if self.wish.order is None:
            self.operation.push(fresh)
        if self._asked.done and not self._probings:
            self._finish()

    def _take(self, now: float) -> list[Hit]:
        """The hits that need no ping; the least sure of the others are pinged."""
        found = list(self._asked.items)
        self._asked.items.clear()
        unsure = [hit for hit in found if not (hit.rtt_measured or hit.gateway)]
        unsure.sort(key=lambda hit: -inf if hit.rtt_s is None else -hit.rtt_s)
        chosen = unsure[: NEAR_PROBES - self._probed]
        if chosen:
            self._probed += len(chosen)
            asked = {hit.record.endpoint: told_place(hit.record) for hit in chosen}
            probing = Probing(self.hub.core, self.hub.node_id, asked, now)
            self._probings.append((probing, chosen))
        waiting = {hit.record.node_id for hit in chosen}
        return [hit for hit in found if hit.record.node_id not in waiting]

    def _hear(self) -> list[Hit]:
        """The hits whose pings have come back and say that they match."""
        near: list[Hit] = []
        for probing, hits in self._probings:
            for hit in [hit for hit in hits if hit.record.endpoint in probing.found]:
                hits.remove(hit)
                rtt_s = probing.found[hit.record.endpoint]
                if self._judge(hit.schema).matches(hit.record, rtt=rtt_s):
                    near.append(replace(hit, rtt_s=rtt_s, rtt_measured=True))
        self._probings = [entry for entry in self._probings if not entry[0].operation.done]
        return near

    def _judge(self, schema: Schema) -> Bound:
        """What is asked, of machines of one schema."""
        judge = self._judges.get(schema.version)
        if judge is None:
            question = self.wish.question(self.hub, schema)
            assert question is not None, "who matches was asked something"
            judge = self._judges[schema.version] = question.bound
        return judge

    def _finish(self) -> None:
        if self._asked.error is not None:
            self.operation.fail(self._asked.error)
            return
        result = self._asked.result()
        hits = list(self._passed.values())
        if self.wish.order is not None:
            passed = (self._passed.get(hit.record.node_id) for hit in result.hits)
            hits = [hit for hit in passed if hit is not None]
            self.operation.push(hits)
        coverage = replace(
            result.coverage,
            asked=result.coverage.asked + self._probed,
            rtt=result.coverage.rtt + (self._probed > 0),
        )
        self.operation.finish(replace(result, hits=tuple(hits), coverage=coverage))

    def _on_cancel(self, now: float) -> None:
        self._asked.cancel(now)
        for probing, _ in self._probings:
            probing.operation.cancel(now)
        self._probings.clear()
