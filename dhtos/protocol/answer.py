"""How a member answers a range query from its own view: hits, what they cover, where else to ask.

    dh_range  args   [hub, cookie, prefix, predicate, limit, order, flags, after, padding, select?]
              reply  a bundle of [header | nil, items | nil, hits | partial]
              header [key, depth, cookie, covers, matches, next, pruned, others?]

An answer covers the asked prefix as far as it lies in the member's group; each sibling subtree
between the asked prefix and the group that may hold a match becomes a frontier item with
contacts. A member that is not below the asked prefix covers nothing and names contacts that are
nearer to it. An asker that wants more than one member to answer is told of some others. One that
wants an aggregate gets that of the covered matches in the place of hits (see `select`).

Nobody can aim us at a third party: an asker that has not proved to receive at its address (by
the cookie, or by having answered us before) gets at most three times the bytes it sent, hits
that do not fit left for the next page. So who wants a long answer at once pads its request.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import nsmallest
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from dhtos.core.bound import Bound
from dhtos.core.contact import Contact
from dhtos.core.coordinate import Coordinate
from dhtos.core.curve import VERSION_BITS
from dhtos.core.group import Member, State
from dhtos.core.ids import Endpoint, Prefix, common_prefix_bits
from dhtos.core.limits import (
    AMPLIFICATION_MAX,
    ANSWER_BYTES_MAX,
    HIT_PARTS_MAX,
    HUB_BUCKET_CONTACTS_MAX,
    ITEM_CONTACTS,
    PREDICATE_WIRE_BYTES_MAX,
    REPLY_BYTES_MAX,
    SELECT_WIRE_BYTES_MAX,
    WALK_HITS_MAX,
)
from dhtos.core.nearest import Nearest
from dhtos.core.predicate import Predicate
from dhtos.core.record import Record
from dhtos.core.schema import Schema
from dhtos.protocol import bundle
from dhtos.protocol.aggregate import Measure, Partial
from dhtos.protocol.hubwire import as_bytes, as_int, as_key, as_prefix, bad, unpack
from dhtos.protocol.rpc import NO_REPLY, Parts
from dhtos.protocol.select import Select, Shuffle, read_select

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

STRICT = 1
COUNT_ONLY = 2
NAME_OTHERS = 4
_BOUND_CACHE = 64
_REQUEST_BYTES = 64  # of a request beside its predicate and its padding, at least

_encode = msgspec.msgpack.Encoder().encode

Order = tuple[int, bool] | Nearest
"""An attribute's index in the schema, and whether the largest come first; or a place."""

RttOf = Callable[[Record], float | None]
"""The measured round trip to a machine, in seconds; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class Question:
    """One range query as every answering member sees it."""

    predicate: bytes  # msgpack of Predicate.to_wire(): also the key of the cache of bound forms
    bound: Bound
    limit: int  # 0 = no limit
    order: Order | None
    strict: bool = False
    count_only: bool = False
    voices: int = 1  # how many members are still to answer for the same subtree
    select: Select | None = None  # what is wanted of the matches instead of the first of them
    rtt_of: RttOf | None = None  # of an asker who wants to know about its own distance

    @property
    def measure(self) -> Measure | None:
        """The aggregate that is asked for."""
        return self.select if isinstance(self.select, Measure) else None

    @property
    def exhausts(self) -> bool:
        """Whether every subtree that may hold a match is to be asked, whatever is found."""
        return not self.limit or isinstance(self.order, Nearest)

    def matches(self, record: Record) -> bool:
        """Whether a record matches, as far as whoever holds the question can tell."""
        rtt_s = None if self.rtt_of is None else self.rtt_of(record)
        return self.bound.matches(record, rtt=rtt_s)

    def place(self, key: bytes, record: Record, schema: Schema) -> list[Any]:
        """The place of a hit in an answer, which is also the cursor to continue behind it."""
        if isinstance(self.select, Shuffle):
            return [self.select.rank(key)]
        return sort_key(key, record, schema, self.order)

    def to_wire(self) -> list[Any]:
        """The fields behind the prefix: predicate, limit, order, and flags last."""
        order: list[Any] | None = None
        if isinstance(self.order, Nearest):
            order = [self.order.place.to_bytes()]
        elif self.order is not None:
            order = list(self.order)
        flags = STRICT * self.strict | COUNT_ONLY * self.count_only
        flags |= NAME_OTHERS * (self.voices > 1)
        return [self.predicate, self.limit, order, flags]


@dataclass(slots=True)
class Item:
    """A subtree that still has to be asked, as one member sees it from outside."""

    prefix: Prefix
    count: int
    estimate: float
    bound: float | None
    contacts: list[Contact]

    def to_wire(self) -> list[Any]:
        """`[prefix, count, estimate, bound, contacts]`: the best contacts; we know more."""
        return [
            self.prefix.to_wire(),
            self.count,
            self.estimate,
            self.bound,
            [contact.to_wire() for contact in self.contacts[:ITEM_CONTACTS]],
        ]


@dataclass(slots=True)
class Answer:
    """A member's whole answer, before it is cut into datagrams."""

    covers: list[Prefix]
    items: list[Item]
    hits: list[Member]
    matches: int
    pruned: int  # subtrees passed over because their summary proves that nothing matches
    more: bool  # whether the limit left hits behind
    others: list[Contact] = field(default_factory=list)  # who else can answer for the same
    partial: Partial | None = None  # the aggregate of what is covered


def order_value(record: Record, schema: Schema, order: Order) -> float:
    """What `order by` sorts on: smaller is better, a missing value is last."""
    if isinstance(order, Nearest):
        return order.rtt_s(record.packed)
    index, descending = order
    attribute = schema.attributes[index]
    part = record.static if attribute.role == "static" else record.dynamic
    value = part[schema.slots[index]]
    if value is None or isinstance(value, str):
        return inf
    return -float(value) if descending else float(value)


def sort_key(member_key: bytes, record: Record, schema: Schema, order: Order | None) -> list[Any]:
    """The place of a hit in key order, or in the order that was asked for."""
    if order is None:
        return [member_key]
    return [order_value(record, schema, order), member_key]


def answer(hub: "Hub", prefix: Prefix, question: Question, after: list[Any] | None) -> Answer:
    """Answer from the own view alone."""
    group = hub.group
    own = group.prefix
    if prefix.covers(own):
        covers = own
        indexes = [i for i, _ in hub.buckets.inhabited() if i >= prefix.length]
    elif own.covers(prefix):
        covers = prefix
        indexes = []
    else:
        return Answer([], [_elsewhere(hub, prefix, question)], [], 0, 0, more=False)
    matching = [m for m in group.under(covers) if question.matches(m.record)]
    hits, more = _select(hub.schema, matching, question, after)
    items, pruned = _frontier(hub, indexes, question)
    others = _others(hub) if question.voices > 1 else []
    found = Answer([covers], items, hits, len(matching), pruned, more, others)
    if question.measure is not None:
        found.partial = question.measure.of([m.record for m in matching], hub.schema)
    return found


def _others(hub: "Hub") -> list[Contact]:
    """Some members of the own group: each of them holds what we hold."""
    alive = [m for m in hub.group.nodes() if m.state is State.ALIVE]
    chosen = hub.core.rng.sample(alive, min(ITEM_CONTACTS, len(alive)))
    return [Contact(m.key, m.record.endpoint) for m in chosen]


def _select(
    schema: Schema, matching: list[Member], question: Question, after: list[Any] | None
) -> tuple[list[Member], bool]:
    if question.count_only or question.measure is not None:
        return [], False
    if question.order is None and question.select is None:  # members come in key order already
        if after is not None:
            matching = [m for m in matching if m.key > after[0]]
        hits = matching[: question.limit or None]
        return hits, len(hits) < len(matching)

    def place(member: Member) -> list[Any]:
        return question.place(member.key, member.record, schema)

    if after is not None:
        matching = [m for m in matching if place(m) > after]
    if question.limit:
        return nsmallest(question.limit, matching, key=place), len(matching) > question.limit
    return sorted(matching, key=place), False


def _frontier(hub: "Hub", indexes: list[int], question: Question) -> tuple[list[Item], int]:
    items = []
    pruned = 0
    for index in indexes:
        prefix = hub.buckets.prefix(index)
        bucket = hub.buckets.get(index)
        if bucket is not None and index < VERSION_BITS:  # the asker must know of it, no more
            contacts = hub.buckets.choose(index, hub.core.rng, HUB_BUCKET_CONTACTS_MAX)
            items.append(_item(prefix, bucket.count, None, contacts, question))
            continue
        if bucket is None or not question.bound.intersects(prefix):
            continue
        summary = bucket.summary
        if summary is not None and not question.bound.may_match(summary, strict=question.strict):
            pruned += 1
            continue
        contacts = hub.buckets.choose(index, hub.core.rng, HUB_BUCKET_CONTACTS_MAX)
        hub.core.rng.shuffle(contacts)
        contacts.sort(key=lambda contact: -question.bound.reach(contact.id))
        items.append(_item(prefix, bucket.count, summary, contacts, question))
    return items, pruned


def _item(
    prefix: Prefix, count: int, summary: Any, contacts: list[Contact], question: Question
) -> Item:
    estimate = float(count)
    bound = None
    if summary is not None:
        estimate = question.bound.estimate(summary)
        if isinstance(question.order, tuple):
            index, descending = question.order
            best = question.bound.order_bound(summary, index, descending)
            bound = -best if descending else best
    return Item(prefix, count, estimate, bound, contacts)


def _elsewhere(hub: "Hub", prefix: Prefix, question: Question) -> Item:
    """For a prefix outside our subtree: who is nearer to it."""
    index = hub.buckets.index_of(prefix.first)
    bucket = hub.buckets.get(index)
    known = [] if bucket is None else [k.contact for k in bucket.contacts.values()]
    known.sort(key=lambda contact: -common_prefix_bits(contact.id, prefix.first))
    inside = [contact for contact in known if prefix.holds(contact.id)]
    return _item(prefix, len(inside), None, inside or known, question)


class Answering:
    """The server side of `dh_range` for one hub."""

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self._bounds: dict[bytes, Bound] = {}
        hub.core.register("dh_range", self._on_range, verb="query", placed=True)

    def _on_range(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        hub = self.hub
        number, cookie, prefix, predicate, limit, order, flags, after = unpack(
            args,
            lambda v: v,
            lambda v: as_bytes(v, 8),
            as_prefix,
            lambda v: as_bytes(v, PREDICATE_WIRE_BYTES_MAX),
            lambda v: as_int(v, 0, WALK_HITS_MAX),
            lambda v: v,
            lambda v: as_int(v, 0, 255),
            lambda v: v,
        )
        if number != hub.number or hub.closed:
            return NO_REPLY
        if not hub.settled:
            return Parts(bundle.cut(_encode([None, [], []]), 0))
        elsewhere = hub.versions.answer(args[8] if len(args) > 8 else b"", prefix, source, now)
        if elsewhere is not None:
            return elsewhere
        order = as_order(order, hub.schema)
        question = Question(
            predicate,
            self.bound(predicate),
            limit,
            order,
            bool(flags & STRICT),
            bool(flags & COUNT_ONLY),
            2 if flags & NAME_OTHERS else 1,
            self._select(args),
        )
        found = answer(hub, prefix, question, as_after(after, order))
        parts = HIT_PARTS_MAX
        if not hub.core.proven(source, cookie):
            rest = [len(as_bytes(one, REPLY_BYTES_MAX)) for one in args[8:10] if one is not None]
            heard = _REQUEST_BYTES + len(predicate) + sum(rest)
            parts = max(1, AMPLIFICATION_MAX * heard // REPLY_BYTES_MAX)
        return Parts(bundle.cut(*self._packed(found, question, source, parts, now)))

    def _select(self, args: list[Any]) -> Select | None:
        if len(args) <= 9 or args[9] is None:
            return None
        return read_select(as_bytes(args[9], SELECT_WIRE_BYTES_MAX), self.hub.schema)

    def bound(self, predicate: bytes) -> Bound:
        """The bound form of a predicate on the wire, from a small cache."""
        bound = self._bounds.get(predicate)
        if bound is None:
            try:
                wire = msgspec.msgpack.decode(predicate)
            except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
                raise bad("a predicate is MessagePack") from error
            schema, secured = self.hub.schema, self.hub.core.sessions is not None
            bound = Predicate.from_wire(wire, schema).bind(schema, vouched=secured)
            if len(self._bounds) >= _BOUND_CACHE:
                del self._bounds[next(iter(self._bounds))]
            self._bounds[predicate] = bound
        return bound

    def _packed(
        self, found: Answer, question: Question, source: Endpoint, parts: int, now: float
    ) -> tuple[bytes, int]:
        """As much of an answer as fits into so many datagrams, and its size.

        Frontier items are never cut off: without one of them the asker would miss a subtree. If
        they alone are too much, the answer is empty but for the cookie to come back with.
        """
        hub = self.hub
        items = [item.to_wire() for item in found.items]
        partial = found.partial and found.partial.to_wire()
        hits = [msgspec.Raw(_encode([now - m.born, m.record])) for m in found.hits]
        count = _as_many_as_fit(hits)
        while True:
            last = None
            if count < len(hits) or (found.more and count):
                member = found.hits[count - 1] if count else None
                last = member and question.place(member.key, member.record, hub.schema)
            header = [
                hub.key,
                hub.group.depth,
                hub.core.cookie(source),
                [prefix.to_wire() for prefix in found.covers],
                found.matches,
                last,
                found.pruned,
            ]
            if question.voices > 1:
                header.append([contact.to_wire() for contact in found.others])
            body = _encode([header, items, partial or hits[:count]])
            packed, size = bundle.pack(body)
            needed = bundle.part_count(packed)
            if needed <= parts or (count <= 1 and parts == HIT_PARTS_MAX):
                return packed, size
            if count <= 1:
                header[3:] = [[], 0, None, 0]
                return bundle.pack(_encode([header, None, []]))
            count = max(1, min(count - 1, count * parts * 15 // (needed * 16)))


def _as_many_as_fit(hits: list[msgspec.Raw]) -> int:
    """How many hits an answer may carry before it is compressed."""
    left = ANSWER_BYTES_MAX // 2  # the other half is for items
    for n, hit in enumerate(hits):
        left -= len(bytes(hit))
        if left < 0:
            return n
    return len(hits)


def as_order(value: object, schema: Schema) -> Order | None:
    """`nil`, `[attribute index, descending]` of a number, or `[coordinate]`: nearest first."""
    if value is None:
        return None
    match value:
        case [int() as index, bool() as descending] if 0 <= index < len(schema.attributes):
            if schema.attributes[index].kind == "number":
                return index, descending
        case [bytes() as packed]:
            return Nearest(Coordinate.from_bytes(packed))
    raise bad("an order is [number attribute, descending] or [coordinate]")


def as_after(value: object, order: Order | None) -> list[Any] | None:
    """The place behind which an answer continues."""
    if value is None:
        return None
    match value:
        case [bytes() as key] if order is None:
            return [as_key(key)]
        case [int() | float() as best, bytes() as key] if order is not None:
            return [best, as_key(key)]
    raise bad("a cursor does not fit its order")
