"""The parts of a walk: its items, its result, its cursor, and the parsers of answers.

cursor = [1, [[prefix, after, [contact...]]...]]   what was not answered, and where a page ended
       | [2, after]                                ordered: the place of the last hit given out
       | [3, verify, [[prefix, after, [contact...], voice, heard, spoke]...], [key...]]
                                                   verified: also who answered, and what was given
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, isnan
from typing import TYPE_CHECKING, Any

import msgspec

from dhtos.core.contact import Contact
from dhtos.core.coverage import Coverage
from dhtos.core.hit import Hit
from dhtos.core.ids import ID_BITS, Endpoint, Prefix
from dhtos.core.limits import CURSOR_BYTES_MAX, ITEM_CONTACTS, VERIFY_MAX, WALK_HITS_MAX
from dhtos.core.record import Record, check_record
from dhtos.core.schema import Schema
from dhtos.errors import MalformedMessage, UsageError
from dhtos.protocol.aggregate import Partial
from dhtos.protocol.answer import Item, Order, Question, as_after
from dhtos.protocol.bundle import Assembly
from dhtos.protocol.calls import Call
from dhtos.protocol.explain import Step
from dhtos.protocol.hubwire import (
    as_age,
    as_bytes,
    as_contact,
    as_int,
    as_key,
    as_list,
    as_prefix,
    bad,
)
from dhtos.protocol.select import select_to_wire

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

_PADDED_BYTES = 1070  # of predicate and padding: makes a request nearly one full datagram
_CURSOR_CONTACTS = 3
_CURSOR_ITEMS_MAX = 8192
_UNREADABLE = (
    MalformedMessage, msgspec.DecodeError, ValueError, TypeError, IndexError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FindResult:
    """The end of a range query: the hits, what they cover, and where to continue.

    `matches` counts all matches in the answered subtrees, also those beyond the limit. `steps` is
    how the walk went, where it was to be explained; `partial` the aggregate, where one was asked
    for.
    """

    hits: tuple[Hit, ...]
    coverage: Coverage
    matches: int
    cursor: bytes | None
    steps: tuple[Step, ...] = ()
    partial: Partial | None = None


def check_verify(verify: int) -> None:
    """Raise UsageError for a number of members that cannot be asked."""
    if type(verify) is not int or not 1 <= verify <= VERIFY_MAX:
        raise UsageError(f"verify must be 1..{VERIFY_MAX} members, got {verify!r}")


class WalkItem:
    """One subtree of the frontier."""

    __slots__ = (
        "after", "asked", "bound", "contacts", "detours", "estimate", "heard", "hops", "open",
        "parts", "prefix", "proved", "round", "spoke", "voice",
    )  # fmt: skip

    def __init__(self, prefix: Prefix, contacts: list[Contact], round_: int) -> None:
        self.prefix = prefix
        self.contacts = contacts
        self.round = round_
        self.estimate = 1.0
        self.bound = -inf
        self.after: list[Any] | None = None
        self.asked: set[Endpoint] = set()
        self.proved: set[Endpoint] = set()  # whom we showed a cookie to get the whole answer
        self.open: list[Call] = []
        self.parts: dict[Call, Assembly] = {}
        self.detours = 0
        self.hops = 0
        self.voice = 1  # 2: the second member is asked about the same
        self.heard: frozenset[bytes] = frozenset()  # keys of the members of earlier voices
        self.spoke: frozenset[bytes] = frozenset()  # and of who gave the pages before `after`

    @property
    def weight(self) -> float:
        """Matches that may be missed if the item is never answered: never nothing."""
        return max(self.estimate, 1.0)

    def part(self, prefix: Prefix, contacts: list[Contact]) -> "WalkItem":
        """Of the same question, another subtree or page, to be asked after this one."""
        item = WalkItem(prefix, contacts, self.round + 1)
        item.after, item.voice = self.after, self.voice
        item.heard, item.spoke = self.heard, self.spoke
        return item

    def page(self, prefix: Prefix, after: list[Any] | None, contacts: list[Contact]) -> "WalkItem":
        """What is left behind `after`."""
        item = self.part(prefix, contacts)
        item.after = after
        return item

    def check(self, prefix: Prefix, contacts: list[Contact]) -> "WalkItem":
        """The same, to be asked of somebody who has not answered for it."""
        known = [contact for contact in self.contacts if contact.id and prefix.holds(contact.id)]
        item = WalkItem(prefix, [*known, *contacts], self.round + 1)
        item.voice = self.voice + 1
        item.heard = self.heard | self.spoke
        item.estimate, item.bound = 0.0, self.bound
        return item


def range_args(
    hub: "Hub", endpoint: Endpoint, prefix: Prefix, question: Question, after: list[Any] | None
) -> list[Any]:
    """The arguments of `dh_range` to a node: with its cookie, or padded to one full datagram."""
    cookie = hub.core.cookies.get(endpoint, b"")
    predicate, limit, order, flags = question.to_wire()
    extra = [] if question.select is None else [select_to_wire(question.select)]
    said = len(predicate) + sum(map(len, extra))
    padding = question.bound.schema.mark
    padding += b"" if cookie else bytes(max(0, _PADDED_BYTES - len(padding) - said))
    told = prefix.to_wire()
    return [hub.number, cookie, told, predicate, limit, order, flags, after, padding, *extra]


Told = tuple[list[Any], list[Any] | None, list[Any]]


def read_answer(body: object) -> Told | None:
    """The header, the items and the hits (or the partial) of an answer, still to be read.

    None is the answer of a node that has no place yet. No items at all (rather than an empty
    list) is that of one that wants our address proved first.
    """
    fields = as_list(body, 8)
    if len(fields) < 3:
        raise bad("a range answer has 3 fields")
    if fields[0] is None:
        return None
    header = as_list(fields[0], 16)
    if len(header) < 7:
        raise bad("a range header has 7 fields")
    items = None if fields[1] is None else as_list(fields[1], ID_BITS)
    return header, items, as_list(fields[2], WALK_HITS_MAX)


def read_item(value: Any) -> Item:
    """A frontier item of an answer."""
    fields = as_list(value, 8)
    if len(fields) < 5:
        raise bad("a frontier item has 5 fields")
    estimate, bound = fields[2], fields[3]
    if type(estimate) is not float or not 0 <= estimate < inf:
        raise bad("an estimate is a number")
    if bound is not None and (type(bound) is not float or isnan(bound)):
        raise bad("a bound is a number")
    return Item(
        as_prefix(fields[0]),
        as_int(fields[1], 0, 2**32),
        estimate,
        bound,
        [as_contact(contact) for contact in as_list(fields[4], 16)],
    )


def read_hit(value: Any, schema: Schema, now: float) -> tuple[bytes, Record, float]:
    """A hit of an answer: its key, derived from its record, the record, when it was made."""
    fields = as_list(value, 4)
    if len(fields) < 2:
        raise bad("a hit is [age, record]")
    record = check_record(schema, fields[1])
    return record.key(schema), record, now - as_age(fields[0])


def members_among(hits: list[tuple[bytes, Record, float]]) -> list[Contact]:
    """The nodes among some hits: each is a member where its record lies."""
    nodes = [(key, record) for key, record, _ in hits if record.serves]
    return [Contact(key, record.endpoint) for key, record in nodes[:ITEM_CONTACTS]]


def read_others(header: list[Any]) -> list[Contact]:
    """Who else can answer for the same, if the member was asked to name some."""
    told = header[7] if len(header) > 7 else []
    return [as_contact(contact) for contact in as_list(told, ITEM_CONTACTS)]


def write_cursor(
    left: list[WalkItem], last: list[Any] | None, voices: int = 1, given: Iterable[bytes] = ()
) -> bytes | None:
    """Where to continue: behind `last` in an ordered query, else with what is `left`.

    A subtree that waits for its second voice has given hits already: `given` keeps them from
    being given twice.
    """
    if last is not None:
        body: list[Any] = [2, last]
    elif not left:
        return None
    elif voices == 1:
        body = [1, [_write_entry(item) for item in left]]
    else:
        touched = [item.prefix for item in left if item.voice > 1 or item.after is not None]
        keys = [key for key in given if any(prefix.holds(key) for prefix in touched)]
        entries = [
            [*_write_entry(item), item.voice, sorted(item.heard), sorted(item.spoke)]
            for item in left
        ]
        body = [3, voices, entries, sorted(keys)]
    cursor = msgspec.msgpack.encode(body)
    return cursor if len(cursor) <= CURSOR_BYTES_MAX else None


def _write_entry(item: WalkItem) -> list[Any]:
    placed = [contact for contact in item.contacts if contact.id]  # gateways have no known key
    contacts = [contact.to_wire() for contact in placed[:_CURSOR_CONTACTS]]
    return [item.prefix.to_wire(), item.after, contacts]


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a cursor says: the items to begin with, or where an order goes on; hits given out."""

    items: list[WalkItem]
    after: list[Any] | None = None
    given: frozenset[bytes] = frozenset()


def read_cursor(cursor: bytes, order: Order | None, voices: int = 1) -> Resumption:
    """Where to begin.

    Raises UsageError for anything that `write_cursor` did not make for such a query.
    """
    try:
        match as_list(msgspec.msgpack.decode(as_bytes(cursor, CURSOR_BYTES_MAX)), 4):
            case [2, after] if order is not None:
                return Resumption([WalkItem(Prefix(0, 0), [], 0)], as_after(after, order))
            case [1, entries] if order is None and voices == 1:
                listed = as_list(entries, _CURSOR_ITEMS_MAX)
                return Resumption([_read_entry(entry) for entry in listed])
            case [3, told, entries, given] if order is None and voices == told:
                listed = as_list(entries, _CURSOR_ITEMS_MAX)
                items = [_read_verified(entry, voices) for entry in listed]
                return Resumption(items, None, _read_keys(given, CURSOR_BYTES_MAX))
            case [1, _] | [2, _] | [3, int(), _, _]:
                raise UsageError("the cursor belongs to a query with another order or verify")
    except _UNREADABLE as error:
        raise UsageError("the cursor is not one that a query returned") from error
    raise UsageError("the cursor is not one that a query returned")


def _read_entry(entry: Any) -> WalkItem:
    prefix, after, contacts = as_list(entry, 3)
    item = WalkItem(as_prefix(prefix), [as_contact(c) for c in as_list(contacts, 8)], 0)
    item.after = as_after(after, None)
    return item


def _read_verified(entry: Any, voices: int) -> WalkItem:
    fields = as_list(entry, 6)
    item = _read_entry(fields[:3])
    item.voice = as_int(fields[3], 1, voices)
    item.heard, item.spoke = _read_keys(fields[4], 64), _read_keys(fields[5], 64)
    if item.voice > 1:
        item.estimate = 0.0
    return item


def _read_keys(value: Any, limit: int) -> frozenset[bytes]:
    return frozenset(as_key(key) for key in as_list(value, limit))
