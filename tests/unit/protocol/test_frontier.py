"""The parts of a walk on the wire: items, hits, and cursors, which come back from callers."""

from math import inf, nan
from typing import Any

import msgspec
import pytest
from hub_world import SCHEMA, machine, order

from dhtos.core.contact import Contact
from dhtos.core.ids import Prefix
from dhtos.core.limits import CURSOR_BYTES_MAX, NODE_TTL_S
from dhtos.errors import MalformedMessage, UsageError
from dhtos.protocol.answer import Item
from dhtos.protocol.frontier import WalkItem, read_cursor, read_hit, read_item, write_cursor

KEY = bytes(range(20))
BY = order("price")


def over_the_wire(value: object) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


def walk_item(length: int, *, after: list[Any] | None = None, contacts: int = 0) -> WalkItem:
    told = [Contact((n + 1).to_bytes(20), (f"10.0.0.{n}", 7400 + n)) for n in range(contacts)]
    item = WalkItem(Prefix.of(KEY, length), told, 2)
    item.after = after
    return item


def shape(items: list[WalkItem]) -> list[tuple[Prefix, list[Any] | None, list[Contact]]]:
    return [(item.prefix, item.after, item.contacts) for item in items]


# --- items and hits -------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [None, -inf, -3.5, 0.0, inf])
def test_an_item_comes_back_as_it_was_sent(bound: float | None) -> None:
    contacts = [Contact(KEY, ("10.0.0.1", 7400)), Contact(bytes(20), ("::1", 1))]
    item = Item(Prefix.of(KEY, 9), 12, 3.5, bound, contacts)
    assert read_item(over_the_wire(item.to_wire())) == item
    assert read_item([*over_the_wire(item.to_wire()), "of a later version"]) == item


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, [161, bytes(21)]),
        (0, None),
        (1, -1),
        (1, 2**32 + 1),
        (1, 1.0),
        (2, 1),
        (2, -0.5),
        (2, inf),
        (2, nan),
        (3, 1),
        (3, nan),
        (3, "low"),
        (4, None),
        (4, [[KEY, "10.0.0.1"]]),
        (4, [[KEY, "10.0.0.1", 65536]]),
        (4, [[KEY, "h" * 65, 7400]]),
        (4, [[KEY[:19], "10.0.0.1", 7400]]),
        (4, [[KEY, "10.0.0.1", 7400]] * 17),
    ],
)
def test_a_malformed_item_is_refused(field: int, value: object) -> None:
    wire = over_the_wire(Item(Prefix.of(KEY, 9), 12, 3.5, None, []).to_wire())
    wire[field] = value
    with pytest.raises(MalformedMessage):
        read_item(wire)
    with pytest.raises(MalformedMessage):
        read_item(wire[:4])


def test_the_key_of_a_hit_comes_from_its_record() -> None:
    record = machine(3, cores=4)
    wire = over_the_wire([12.5, record])
    assert read_hit(wire, SCHEMA, 100.0) == (record.key(SCHEMA), record, 87.5)


def test_a_hit_cannot_be_older_than_records_get_nor_from_the_future() -> None:
    wire = over_the_wire([1e9, machine(3, cores=4)])
    assert read_hit(wire, SCHEMA, 1000.0)[2] == 1000.0 - (NODE_TTL_S + 1)
    for age in (-0.1, nan, inf, "old", None, True):
        with pytest.raises(MalformedMessage):
            read_hit([age, wire[1]], SCHEMA, 1000.0)


@pytest.mark.parametrize("value", [None, [], [1.0], [1.0, None], [1.0, []], [1, 2, 3, 4, 5]])
def test_a_malformed_hit_is_refused(value: object) -> None:
    with pytest.raises(MalformedMessage):
        read_hit(value, SCHEMA, 0.0)


def test_an_item_never_weighs_nothing() -> None:
    item = walk_item(3)
    item.estimate = 0.01
    assert item.weight == 1.0
    item.estimate = 40.0
    assert item.weight == 40.0


# --- cursors --------------------------------------------------------------------------------------


def test_nothing_left_has_no_cursor() -> None:
    assert write_cursor([], None) is None


def test_a_cursor_keeps_what_is_left_and_whom_to_ask() -> None:
    left = [walk_item(0), walk_item(7, after=[KEY], contacts=2), walk_item(160, contacts=9)]
    cursor = write_cursor(left, None)
    assert cursor is not None
    items, after = read_cursor(cursor, None).items, read_cursor(cursor, None).after
    assert after is None
    assert shape(items) == [
        (Prefix(0, 0), None, []),
        (Prefix.of(KEY, 7), [KEY], left[1].contacts),
        (Prefix.of(KEY, 160), None, left[2].contacts[:3]),
    ]
    assert all(item.round == 0 for item in items)


def test_gateways_are_not_named_in_a_cursor() -> None:
    """Their key is not known; who resumes has gateways of its own."""
    item = walk_item(3, contacts=1)
    item.contacts.insert(0, Contact(b"", ("10.9.9.9", 7400)))
    cursor = write_cursor([item], None)
    assert cursor is not None
    assert shape(read_cursor(cursor, None).items) == [(item.prefix, None, item.contacts[1:])]


@pytest.mark.parametrize("best", [0.25, -inf, inf, 3.0])
def test_an_ordered_cursor_is_the_place_of_the_last_hit(best: float) -> None:
    cursor = write_cursor([walk_item(5)], [best, KEY])
    assert cursor is not None
    items, after = read_cursor(cursor, BY).items, read_cursor(cursor, BY).after
    assert after == [best, KEY]
    assert shape(items) == [(Prefix(0, 0), None, [])]


def test_a_cursor_that_would_be_too_large_is_not_given() -> None:
    left = [walk_item(160, after=[KEY], contacts=3) for _ in range(1000)]
    assert write_cursor(left, None) is None
    few = write_cursor(left[:300], None)
    assert few is not None
    assert len(few) <= CURSOR_BYTES_MAX


def packed(body: object) -> bytes:
    return msgspec.msgpack.encode(body)


@pytest.mark.parametrize(
    "cursor",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\x81\x81\x01\x01\x01",
        b"\x91" * 100_000,
        b"\x91" * 60_000,
        bytes(CURSOR_BYTES_MAX + 1),
        packed(None),
        packed({}),
        packed([]),
        packed([1]),
        packed([1, None]),
        packed([1, [], 3]),
        packed([1, [None]]),
        packed([1, [[[0, b""], None]]]),
        packed([1, [[[0, b""], None, [], 4]]]),
        packed([1, [[[9, b""], None, []]]]),
        packed([1, [[[0, b""], [1.0, KEY], []]]]),
        packed([1, [[[0, b""], None, [[KEY, "", 7400]]]]]),
        packed([1, [[[0, b""], None, [[KEY, "h", 7400]] * 9]]]),
        "text",
        None,
    ],
)
def test_what_no_query_returned_is_the_callers_fault(cursor: Any) -> None:
    with pytest.raises(UsageError, match="cursor"):
        read_cursor(cursor, None)


@pytest.mark.parametrize("body", [[2], [2, [KEY]], [2, ["low", KEY]], [2, [1.0, KEY[:19]]]])
def test_an_ordered_cursor_that_no_query_returned_is_refused_too(body: object) -> None:
    with pytest.raises(UsageError, match="not one that a query returned"):
        read_cursor(packed(body), BY)


def test_a_cursor_belongs_to_its_order() -> None:
    plain, ordered = write_cursor([walk_item(3)], None), write_cursor([], [1.0, KEY])
    assert plain is not None
    assert ordered is not None
    for cursor, by in ((plain, BY), (ordered, None), (packed([3, 2, [], []]), None)):
        with pytest.raises(UsageError, match="another order"):
            read_cursor(cursor, by)


def test_a_verified_cursor_keeps_who_answered_and_what_was_given() -> None:
    page, check = walk_item(7, after=[KEY], contacts=1), walk_item(8).check(Prefix.of(KEY, 9), [])
    page.spoke = frozenset({KEY})
    check.heard = frozenset({KEY, bytes(20)})
    untouched = WalkItem(Prefix(0b111, 3), [], 0)
    given = {KEY, b"\xff" * 20}
    cursor = write_cursor([page, check, untouched], None, 2, given)
    assert cursor is not None
    back = read_cursor(cursor, None, 2)
    assert [(i.prefix, i.after, i.voice, i.heard, i.spoke) for i in back.items] == [
        (page.prefix, [KEY], 1, frozenset(), page.spoke),
        (check.prefix, None, 2, check.heard, frozenset()),
        (untouched.prefix, None, 1, frozenset(), frozenset()),
    ]
    assert back.given == {KEY}  # nothing of the other subtree was given twice
    assert [item.estimate for item in back.items] == [1.0, 0.0, 1.0]
    assert read_cursor(cursor, None, 2).after is None
    for voices in (1, 3):
        with pytest.raises(UsageError, match="another order or verify"):
            read_cursor(cursor, None, voices)


ENTRY = [[0, b""], None, [], 1, [], []]


@pytest.mark.parametrize(
    "body",
    [
        [3, 2, None, []],
        [3, 2, [ENTRY], [KEY[:19]]],
        [3, 2, [ENTRY[:5]], []],
        [3, 2, [[*ENTRY[:3], 0, [], []]], []],
        [3, 2, [[*ENTRY[:3], 3, [], []]], []],
        [3, 2, [[*ENTRY[:3], 2, [None], []]], []],
        [3, 2, [[*ENTRY[:3], 2, [], [KEY] * 65]], []],
    ],
)
def test_a_verified_cursor_that_no_query_returned_is_refused(body: object) -> None:
    with pytest.raises(UsageError, match="not one that a query returned"):
        read_cursor(packed(body), None, 2)
