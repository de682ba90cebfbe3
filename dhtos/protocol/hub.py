"""The hub overlay of one node: its record, its group, its buckets, and their upkeep.

A node's id in a hub is the key of its own record (DESIGN section 2), so it sits among machines
like itself. This module owns that place: it moves the node when its record moves, keeps the
depth of the group right (split above G, merge below G/2), and keeps the summaries of the other
subtrees fresh. The parts have their own modules: `gossip` keeps the group's view, `answer`
serves range queries from it, `walk` asks them, `join` finds the place, `versions` and `union` deal
with machines of another schema.

The first bits of a key are the version of its schema. A group never spans two versions, so all that
members tell each other is in one schema; of the other versions' subtrees a hub knows contacts and
how many live there, which needs no schema.

A hub is *settled* once it knows its group and its buckets; before that it answers no query.
Without a record (a light client) it asks through gateways and never settles.
"""

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

import msgspec

from dhtos.core.buckets import Buckets
from dhtos.core.contact import Contact
from dhtos.core.coordinate import Coordinate
from dhtos.core.curve import VERSION_BITS
from dhtos.core.group import Group, Member
from dhtos.core.hit import Hit
from dhtos.core.ids import Endpoint, Prefix, random_id
from dhtos.core.limits import (
    GROUP_SIZE,
    HUB_BUCKET_CONTACTS_MAX,
    NODE_HEARTBEAT_S,
    VOUCHED_S,
)
from dhtos.core.locator import Locator
from dhtos.core.predicate import EVERYTHING, Predicate
from dhtos.core.record import Record
from dhtos.core.schema import Schema
from dhtos.core.schemas import Schemas
from dhtos.core.summary import Summary
from dhtos.errors import SchemaConflict, Unreachable
from dhtos.protocol.aggregate import Measure
from dhtos.protocol.answer import Answering, Order, Question
from dhtos.protocol.calls import Call
from dhtos.protocol.foreign import Foreign
from dhtos.protocol.frontier import FindResult, check_verify
from dhtos.protocol.gossip import Gossip
from dhtos.protocol.join import Join
from dhtos.protocol.near import NearQuestion, ask_near, is_about, measured_rtt, told_place
from dhtos.protocol.operation import MemberGone, Operation
from dhtos.protocol.rows import Rows
from dhtos.protocol.rpc import Core
from dhtos.protocol.summaries import Summaries
from dhtos.protocol.union import Union, Wish, ask
from dhtos.protocol.versions import Versions
from dhtos.protocol.walk import Walk

UPKEEP_S = 2.0
RESEED_S = 60.0
RETRY_JOIN_S = 5.0
YOUNG_S = 60.0
_EXPIRE_S = 10.0


class Hub:
    """One hub of one node."""

    def __init__(
        self,
        core: Core,
        node_id: bytes,
        schema: Schema,
        *,
        number: int = 0,
        group_size: int = GROUP_SIZE,
        others: Iterable[Schema] = (),
    ) -> None:
        self.core = core
        self.node_id = node_id
        self.schema = schema
        self.schemas = Schemas(schema, others)
        self.number = number
        self.group_size = group_size
        self.own: Record | None = None
        self.key = random_id(core.rng)
        self.group = Group(self.key, group_size, VERSION_BITS)
        self.buckets = Buckets(self.key)
        self.gateways: list[Endpoint] = []
        self.settled = False
        self.settled_at = -inf
        self.closed = False
        self.conflict: SchemaConflict | None = None  # why there is no place for us
        self.everything = msgspec.msgpack.encode(EVERYTHING.to_wire())
        self._match_all = EVERYTHING.bind(schema)
        self._running = False
        self._merge: Walk | None = None
        self._join: Operation[int] | None = None
        self.running: list[Union | NearQuestion] = []  # questions that are more than a walk
        self._pending: list[tuple[Operation[Any], Callable[[float], None]]] = []
        self._expired = self._reseeded = -inf
        self.versions = Versions(self)
        self.answering = Answering(self)
        self.gossip = Gossip(self)
        self.summaries = Summaries(self)
        self.foreign = Foreign(self)
        self.rows = Rows(self)

    # --- the own record ---------------------------------------------------------------------------

    def advertise(self, record: Record, now: float, *, eager: bool = False) -> None:
        """Publish a version of the own record; a new key moves the node to another place.

        In a cluster it is signed here; raises ValueTooLarge if it is too long with that.
        """
        record = self.core.prove(record)
        key = record.key(self.schema)
        previous = self.own
        if previous is not None and key == self.key:
            assert record.seq > previous.seq
            self.own = record
            self.group.put(key, record, now, now)
            whole = record.rev != previous.rev
            self.gossip.spread(key, now, eager=eager or whole, whole=whole)
            return
        if previous is None:
            self._place(key, record, now)
            return
        alone = self.alone
        if self.settled:
            self._say_left(now)
        known = self.known_endpoints()
        joining = self._join is not None and not self._join.done
        self._place(key, record, now)
        if known and (self._running or joining):
            self.join(known, now)
        if self._running and (alone or not known):  # nobody is there to ask for the new place
            self.settle(now)

    def renew(self, now: float, *, at_least: int = 0, eager: bool = False) -> None:
        """Publish the own record again: a heartbeat, or the answer to a rumour of our death."""
        assert self.own is not None
        seq = max(self.own.seq + 1, at_least)
        coordinate = self.locator.published.to_wire()
        self.advertise(self.own.updated(seq, self.own.dynamic, coordinate), now, eager=eager)

    def _place(self, key: bytes, record: Record, now: float) -> None:
        self.own = record
        self.key = key
        self.group = Group(key, self.group_size, VERSION_BITS)
        self.buckets = Buckets(key)
        self.settled = False
        self.group.put(key, record, now, now)

    def known_endpoints(self) -> list[Endpoint]:
        """Who may help to find another place: some members, contacts, and the gateways."""
        known = self.gossip.partners(8)
        for index, _ in self.buckets.inhabited():
            known += [c.endpoint for c in self.buckets.choose(index, self.core.rng, 1)]
        own = self.own.endpoint if self.own else None
        return [e for e in dict.fromkeys([*known[:16], *self.gateways]) if e != own]

    def leave(self, now: float) -> None:
        """Say goodbye: members bury the record, and those of our rows, at once."""
        self.rows.leave(now)
        if self.own is not None and self.settled:
            self._say_left(now)
        self.close(now)

    def close(self, now: float) -> None:
        """Do nothing more."""
        self.closed = True
        if self._join is not None:
            self._join.cancel(now)

    def _say_left(self, now: float) -> None:
        assert self.own is not None
        words = [self.gossip.words_of_end(self.key, self.own.seq + 1)]
        for endpoint in self.gossip.partners(8):
            self.core.calls.notify(endpoint, "dh_push", [self.number, 1, words])
        for index, _ in self.buckets.inhabited():
            for contact in self.buckets.choose(index, self.core.rng, 2):
                self.core.calls.notify(contact.endpoint, "dh_push", [self.number, 0, words])

    # --- asking -----------------------------------------------------------------------------------

    def find(
        self,
        predicate: Predicate,
        now: float,
        *,
        limit: int = 0,
        order: Order | None = None,
        strict: bool = False,
        count_only: bool = False,
        verify: int = 1,
        explain: bool = False,
        measure: Measure | None = None,
        cursor: bytes | None = None,
        here: Coordinate | None = None,
    ) -> Operation[FindResult]:
        """Ask the whole hub; hits stream into the operation as they come.

        Attributes are those of `schemas.vocabulary`: where machines of other versions are known to
        live, and their schema is known, they are asked as well. A `measure` asks for an aggregate
        instead of hits: `partial` of the result, exact where the coverage is complete; with
        `verify` each subtree counts as the member tells that knows of most matches there. Where
        the predicate is about round trips from `here`, what was measured from here decides.
        Raises UsageError for a predicate that other nodes would refuse to read.
        """
        check_verify(verify)
        count_only = count_only or measure is not None
        wish = Wish(predicate, limit, order, strict, count_only, verify, explain, measure)
        if here is not None and is_about(predicate, here):
            return ask_near(self, wish, now, cursor)
        return ask(self, wish, now, cursor)

    def match_all(self) -> Question:
        """The question that everything answers."""
        return Question(self.everything, self._match_all, 0, None)

    def hit(self, record: Record, born: float, now: float) -> Hit:
        """A record as users see it; `born` is when that version was made, on our clock."""
        measured = rtt_s = measured_rtt(self, record, now)
        if measured is None and (self.settled or self.locator.is_placed):
            rtt_s = self.locator.rtt_s(record.endpoint, told_place(record))
        schema = self.schemas.of_tag(record.schema_tag) or self.schema
        age_s, words = max(now - born, 0.0), self.schemas.vocabulary
        return Hit(record, schema, age_s, rtt_s, words, measured is not None)

    def gateway_contacts(self) -> list[Contact]:
        """Whom a node without a place may ask, in random order."""
        gateways = list(self.gateways)
        self.core.rng.shuffle(gateways)
        return [Contact(b"", endpoint) for endpoint in gateways]

    def members(self) -> list[Member]:
        """The own group, in key order."""
        return list(self.group.members.values())

    # --- joining ----------------------------------------------------------------------------------

    def found(self, now: float) -> None:
        """Be the first node of a hub."""
        self.settle(now)

    def join(self, gateways: list[Endpoint], now: float) -> Operation[int]:
        """Join through any of `gateways`; ends with the number of members of the group."""
        if self._join is not None and not self._join.done:
            self._join.cancel(now)
        self.conflict = None
        operation = self._join = Join(self, gateways, now).operation
        self.when_finished(operation, lambda at: self._retry_join(operation, gateways, at))
        return operation

    def _retry_join(self, operation: Operation[int], gateways: list[Endpoint], now: float) -> None:
        """A node without a place tries on until it has one; cancelling ends that."""
        if self.settled or self.closed or not isinstance(operation.error, Unreachable):
            return

        def again(at: float) -> None:
            if not self.settled and not self.closed and self._join is operation:
                self.join(gateways, at)

        self.core.timers.at(now + RETRY_JOIN_S * self.core.rng.uniform(0.5, 1.0), again)

    def check_conflict(self) -> None:
        """Raise SchemaConflict if there is no place for us among nodes of another schema."""
        if self.conflict is not None:
            raise self.conflict

    def enter(self, depth: int, found: list[tuple[bytes, Record, float]], now: float) -> None:
        """Take a place at `depth` bits with the records of its group."""
        self._to_buckets(self.group.narrow(depth), now)
        for key, record, born in found:
            if key != self.key:
                self.group.put(key, record, born, now)

    def settle(self, now: float, *, announce: bool = True) -> None:
        """Know enough to answer: start the upkeep and tell everybody who should know.

        Without `announce` nothing is told: they know (a simulation that starts from the truth).
        """
        self.settled = True
        self.conflict = None
        self._narrow(now)
        if announce:
            self.settled_at = now
            self.gossip.spread(self.key, now, eager=True, whole=True)
            for index, _ in self.buckets.inhabited():
                chosen = self.buckets.choose(index, self.core.rng, 2)
                told = [contact.endpoint for contact in chosen]
                if index < VERSION_BITS:  # they cannot read our record
                    self.summaries.greet(told, now)
                else:
                    self.gossip.push_own(told, now)
        self._reseeded = now
        if not self._running:
            self._running = True
            self.gossip.start(now)
            self.core.timers.at(now + UPKEEP_S * self.core.rng.random(), self._upkeep)

    def when_finished(self, operation: Operation[Any], then: Callable[[float], None]) -> None:
        """Go on inside the engine once an operation of our own has ended."""
        self._pending.append((operation, then))

    def proceed(self, now: float) -> None:
        """Run what waited for operations that have ended; called once per datagram or tick."""
        for seat in list(self.rows.seats.hubs.values()):
            seat.proceed(now)
        for question in self.running:
            question.proceed(now)
        self.running = [question for question in self.running if not question.operation.done]
        while self._pending:
            ended = [entry for entry in self._pending if entry[0].done]
            if not ended:
                return
            self._pending = [entry for entry in self._pending if not entry[0].done]
            for _, then in ended:
                then(now)

    # --- what others tell -------------------------------------------------------------------------

    def serves(self, number: object) -> bool:
        """Whether a request for hub `number` is for us, and we have a place in it."""
        return number == self.number and self.own is not None and not (self.closed or self.conflict)

    @property
    def alone(self) -> bool:
        """Whether we know of no other member, and of nobody in any other subtree."""
        group = self.group
        known = group.serving > 1 or group.depth > group.depth_min or self.buckets.inhabited()
        return self.settled and not known

    def is_young(self, now: float) -> bool:
        """Whether the node has settled lately: then much around it may be new as well."""
        return now - self.settled_at < YOUNG_S

    def lacks(self, key: bytes, seq: int) -> bool:
        """Whether the record of `key` belongs here and is unknown."""
        if key == self.key or not self.group.prefix.holds(key):
            return False
        tombstone = self.group.tombstones.get(key)
        return tombstone is None or tombstone.seq < seq

    def met(self, contact: Contact, heard: float, now: float, *, proven: bool = True) -> None:
        """A node of another subtree showed itself, or was told of."""
        if self.settled and not self.group.prefix.holds(contact.id):
            self.buckets.heard(contact, heard, now, proven=proven)

    @property
    def locator(self) -> Locator:
        """Where this node is: one place in the network, whatever places it has in hubs."""
        return self.core.place.locator

    @property
    def coordinate(self) -> Coordinate:
        """Where this node is now; its record says so once it has moved enough."""
        return self.locator.coordinate

    def measured(self, call: Call, remote: Coordinate, now: float) -> None:
        """A round trip to a member was timed; whose reply may be to a retransmission, was not."""
        if not call.late:
            self.core.place.measured(call.endpoint, remote, now - call.sent_at, now)

    # --- upkeep -----------------------------------------------------------------------------------

    def _upkeep(self, now: float) -> None:
        if self.closed:
            return
        rng = self.core.rng
        self.core.timers.at(now + UPKEEP_S * rng.uniform(0.8, 1.2), self._upkeep)
        assert self.own is not None
        member = self.group.members[self.key]
        age_s = now - member.born
        due = age_s > NODE_HEARTBEAT_S * rng.uniform(0.8, 1.0)
        if due or self.locator.is_news_to(self.own.packed, age_s):
            self.renew(now)
        if now - self._expired > _EXPIRE_S:
            self._expired = now
            self.core.happened += [MemberGone(m.key) for m in self.group.expire(now)]
            self.buckets.expire(now)
            self.versions.expire(now)
        if self.settled:
            self._narrow(now)
            self._widen(now)
            self.summaries.pull(now)
        if now - self._reseeded > RESEED_S and (self._join is None or self._join.done):
            self._reseeded = now
            self.reseed(now)

    def _narrow(self, now: float) -> None:
        self._to_buckets(self.group.narrow(), now)

    def agree(self, key: bytes, depth: int, now: float) -> None:
        """A member has split deeper than we: follow it, one level at a time.

        Between G/2 and G members both depths are right. Were they kept side by side, the deeper
        members would gossip among themselves and the shallower one would hear of half its group
        only by its own probes. Below G/2 the shallower depth wins, by merging. Foreign records in
        a half where nobody serves are let go with it: the deeper members do not know of them, so
        kept here they would be missed by whoever asks those; their gateway takes a seat.
        """
        group = self.group
        if self.settled and depth > group.depth and group.prefix.holds(key):
            crowded = 2 * len(group) > self.group_size
            self._to_buckets(group.narrow(group.next_fork(depth) if crowded else 0), now)

    def _to_buckets(self, outside: list[Member], now: float) -> None:
        by_index: dict[int, list[Member]] = {}
        for member in outside:
            by_index.setdefault(self.buckets.index_of(member.key), []).append(member)
        for index, members in by_index.items():
            nodes = sorted((m for m in members if m.serves), key=lambda m: -m.born)
            for member in nodes[:HUB_BUCKET_CONTACTS_MAX]:
                heard = max(member.born, now - VOUCHED_S)
                self.buckets.heard(Contact(member.key, member.record.endpoint), heard, now)
            summary = Summary.of(self.schema, [m.record for m in members])
            self.buckets.summarise(index, summary, now, self.schema)
            self.foreign.hand_over([m for m in members if not m.serves], nodes, now)

    def _widen(self, now: float) -> None:
        """Merge with the sibling subtree while both together are at most G/2."""
        group = self.group
        if group.depth == group.depth_min or self._merge is not None:
            return
        bucket = self.buckets.get(group.depth - 1)
        if bucket is None:
            group.widen()
            return
        if bucket.summary is None or len(group) + bucket.count > self.group_size // 2:
            return
        prefix = self.buckets.prefix(group.depth - 1)
        contacts = self.buckets.choose(group.depth - 1, self.core.rng, HUB_BUCKET_CONTACTS_MAX)
        self._merge = Walk(self, self.match_all(), now, prefix=prefix, contacts=contacts)
        self.when_finished(self._merge.operation, self._merged)

    def _merged(self, now: float) -> None:
        walk, self._merge = self._merge, None
        assert walk is not None
        index = self.group.depth - 1
        if walk.operation.error is not None or not walk.operation.result().coverage.complete:
            return
        if index < 0 or walk.prefix != self.buckets.prefix(index):
            return  # the group has changed its depth meanwhile
        if len(walk.found) + len(self.group) > self.group_size:
            return
        self.group.widen()
        self.buckets.absorb(index)
        for key, (record, born, _) in walk.found.items():
            self.group.put(key, record, born, now)

    def reseed(self, now: float) -> None:
        """Ask a gateway whether the hub it sees knows us: heals partitions and lost starts."""
        own = self.own.endpoint if self.own else None
        gateways = [endpoint for endpoint in self.gateways if endpoint != own]
        if not gateways:
            return
        if not self.settled or self.alone:
            self.join(gateways, now)
            return
        gateway = Contact(b"", self.core.rng.choice(gateways))
        point = Prefix.of(self.key, 160)
        walk = Walk(self, self.match_all(), now, prefix=point, contacts=[gateway])

        def judge(at: float) -> None:
            operation = walk.operation
            if operation.error is None:
                result = operation.result()
                if result.coverage.asked and result.coverage.complete and not result.matches:
                    self.join(gateways, at)

        self.when_finished(walk.operation, judge)

    # --- for people and checks --------------------------------------------------------------------

    def stats(self) -> Mapping[str, float]:
        """Figures of the hub's state."""
        return {
            "group_members": len(self.group),
            "group_depth": self.group.depth,
            "buckets": len(list(self.buckets.inhabited())),
            "rumours": len(self.gossip.rumours),
            "settled": float(self.settled),
            **self.rows.stats(),
        }

    def check(self) -> None:
        """Assert every invariant of the hub's state."""
        self.group.check()
        self.buckets.check(self.group.depth)
        self.rows.check()
        if self.own is not None:
            assert self.group.members[self.key].record is self.own
            assert self.own.key(self.schema) == self.key
