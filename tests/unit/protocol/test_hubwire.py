"""The parsers of hub messages: each value comes back as it was sent, or is refused."""

import random
from collections.abc import Callable
from itertools import pairwise
from math import inf, nan
from typing import Any

import msgspec
import pytest
from hub_world import SCHEMA, machine

from dhtos.core.contact import Contact
from dhtos.core.group import State
from dhtos.core.ids import Prefix
from dhtos.core.limits import NODE_TTL_S, REPLY_BYTES_MAX
from dhtos.errors import MalformedMessage, OtherSchema
from dhtos.protocol.hubwire import (
    SEQ_MAX,
    News,
    as_age,
    as_bytes,
    as_contact,
    as_endpoint,
    as_int,
    as_key,
    as_list,
    as_news,
    as_prefix,
    bad,
    delta_rumour,
    pack,
    packs,
    readable_news,
    record_rumour,
    state_rumour,
    unpack,
)

KEY = bytes(range(20))


def over_the_wire(value: object) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


# --- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "value", "expected"),
    [
        (as_key, KEY, KEY),
        (lambda v: as_int(v, 0, 5), 0, 0),
        (lambda v: as_int(v, 0, 5), 5, 5),
        (lambda v: as_int(v, -1, 5), -1, -1),
        (lambda v: as_list(v, 2), [1, 2], [1, 2]),
        (lambda v: as_list(v, 0), [], []),
        (lambda v: as_bytes(v, 2), b"ab", b"ab"),
        (lambda v: as_bytes(v, 2), b"", b""),
        (as_age, 0, 0.0),
        (as_age, 2, 2.0),
        (as_age, 0.25, 0.25),
        (as_age, NODE_TTL_S + 1, NODE_TTL_S + 1),
        (as_age, 1e300, NODE_TTL_S + 1),
        (as_age, 2**64 - 1, NODE_TTL_S + 1),
        (as_prefix, [0, b""], Prefix(0, 0)),
        (as_prefix, [3, b"\xa0"], Prefix(0b101, 3)),
        (as_prefix, [160, KEY], Prefix.of(KEY, 160)),
        (as_contact, [KEY, "10.0.0.1", 7400], Contact(KEY, ("10.0.0.1", 7400))),
        (as_contact, [KEY, "::1", 1, "later"], Contact(KEY, ("::1", 1))),
    ],
)
def test_a_good_field_is_taken(
    parse: Callable[[object], object], value: object, expected: object
) -> None:
    parsed = parse(value)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("parse", "values"),
    [
        (as_key, [None, KEY[:19], KEY + b"x", bytearray(KEY), "k" * 20, [*KEY]]),
        (lambda v: as_int(v, 0, 5), [None, -1, 6, 1.0, True, "1", [1]]),
        (lambda v: as_list(v, 2), [None, (1, 2), [1, 2, 3], {1: 2}, "ab", b"ab"]),
        (lambda v: as_bytes(v, 2), [None, b"abc", "ab", 2, [1, 2], bytearray(2)]),
        (as_age, [None, -1, -0.001, nan, inf, -inf, True, "1", [1]]),
        (
            as_prefix,
            [None, [], [0], [0, b"x"], [161, bytes(21)], [-1, b""], [8, b""], [1.0, b"x"], "01"],
        ),
        (
            as_contact,
            [
                None,
                [],
                [KEY, "10.0.0.1"],
                [KEY, "10.0.0.1", 7400, 1, 2],
                [KEY[:19], "10.0.0.1", 7400],
                [KEY, "", 7400],
                [KEY, "h" * 65, 7400],
                [KEY, b"10.0.0.1", 7400],
                [KEY, "10.0.0.1", 0],
                [KEY, "10.0.0.1", 65536],
                [KEY, "10.0.0.1", "7400"],
            ],
        ),
    ],
)
def test_any_other_field_is_refused(parse: Callable[[object], object], values: list[Any]) -> None:
    for value in values:
        with pytest.raises(MalformedMessage, match="hub message"):
            parse(value)


def test_an_endpoint_is_a_short_host_and_a_port() -> None:
    assert as_endpoint("h" * 64, 65535) == ("h" * 64, 65535)
    for host, port in (("", 1), (None, 1), ("h" * 65, 1), ("h", 0), ("h", True)):
        with pytest.raises(MalformedMessage):
            as_endpoint(host, port)


def test_fields_are_parsed_in_order_and_later_ones_ignored() -> None:
    parsers = (as_key, as_age)
    assert unpack([KEY, 2], *parsers) == [KEY, 2.0]
    assert unpack([KEY, 2, "of a later version"], *parsers) == [KEY, 2.0]
    with pytest.raises(MalformedMessage, match="expected 2 fields, got 1"):
        unpack([KEY], *parsers)
    with pytest.raises(MalformedMessage, match="20 bytes"):
        unpack([2, KEY], *parsers)


def test_a_refusal_says_what_was_expected() -> None:
    assert str(bad("a key has 20 bytes")) == "hub message: a key has 20 bytes"


# --- rumours --------------------------------------------------------------------------------------


def test_a_whole_record_is_told_with_its_age() -> None:
    record = machine(5, cores=4, load1=0.5, labels={"team": "video"})
    news = as_news(over_the_wire(record_rumour(record, 3.5)), SCHEMA)
    assert news == News(record.key(SCHEMA), record.seq, 3.5, record=record)


def test_a_delta_is_all_that_a_holder_needs() -> None:
    old = machine(5, cores=4, load1=0.5)
    new = old.updated(9, (None,) * len(old.dynamic), (0.1, 0.2, 0.3, 0.4, 0.01, 0.5))
    key = old.key(SCHEMA)
    news = as_news(over_the_wire(delta_rumour(key, new, 1.0)), SCHEMA)
    assert (news.key, news.seq, news.age, news.record, news.state) == (key, 9, 1.0, None, None)
    assert news.delta is not None
    assert old.apply(news.delta) == new


@pytest.mark.parametrize("state", [State.SUSPECT, State.DEAD, State.LEFT])
def test_a_state_is_told_of_a_version(state: State) -> None:
    news = as_news(over_the_wire(state_rumour(KEY, 7, state, 2.0)), SCHEMA)
    assert news == News(KEY, 7, 2.0, state=state)
    assert news.state is state


def test_who_has_left_shows_that_where_there_is_something_to_show() -> None:
    words = state_rumour(KEY, 7, State.LEFT, 2.0, b"p" * 64)
    assert as_news(over_the_wire(words), SCHEMA).proof == b"p" * 64
    assert len(state_rumour(KEY, 7, State.LEFT, 2.0)) == 5  # in open mode, as ever
    for wrong in ("p" * 64, b"p" * 65, None, 7):
        with pytest.raises(MalformedMessage):
            as_news(over_the_wire([2, 2.0, KEY, 7, 3, wrong]), SCHEMA)


def test_nobody_is_told_to_be_alive_without_a_version() -> None:
    with pytest.raises(MalformedMessage):
        as_news(over_the_wire(state_rumour(KEY, 7, State.ALIVE, 2.0)), SCHEMA)


RECORD = over_the_wire(machine(5, cores=4))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [0, 1.0],
        [0, -1.0, RECORD],
        [0, nan, RECORD],
        [0, 1.0, RECORD[:5]],
        [0, 1.0, None],
        [1, 1.0, KEY, 1, 1],
        [1, 1.0, KEY[:3], 1, 1, [None] * 6, None],
        [1, 1.0, KEY, 2, 1, [None] * 6, None],
        [1, 1.0, KEY, 1, 1, [None] * 5, None],
        [2, 1.0, KEY],
        [2, 1.0, KEY, 1],
        [2, 1.0, KEY, -1, 2],
        [2, 1.0, KEY, SEQ_MAX + 1, 2],
        [2, 1.0, KEY, 1, 4],
        [2, 1.0, KEY, 1, 0],
        [2, 1.0, KEY[:19], 1, 2],
        [3, 1.0, KEY, 1, 2],
        [None, 1.0, KEY, 1, 2],
        ["0", 1.0, RECORD],
        [0] * 17,
    ],
)
def test_a_malformed_rumour_is_refused(value: object) -> None:
    with pytest.raises(MalformedMessage):
        as_news(value, SCHEMA)


# --- cutting --------------------------------------------------------------------------------------


def sizes(lists: list[list[Any]]) -> list[int]:
    return [sum(len(bytes(raw)) for raw in packed) for packed in lists]


def test_as_many_as_fit_are_packed_and_counted() -> None:
    items = [b"x" * 98] * 30  # 100 bytes each
    packed, count = pack(items, 1000)
    assert count == len(packed) == 10
    assert over_the_wire(packed) == items[:10]
    assert pack(items, 999)[1] == 9
    assert pack(items[:3], 1000)[1] == 3
    assert pack([], 1000) == ([], 0)


def test_one_item_is_always_packed() -> None:
    """An answer that carries nothing would be asked for for ever."""
    packed, count = pack([b"x" * 5000, b"y"], 100)
    assert (count, over_the_wire(packed)) == (1, [b"x" * 5000])


def test_packing_takes_no_more_than_it_needs() -> None:
    taken = []

    def source() -> Any:
        for number in range(100):
            taken.append(number)
            yield b"x" * 98

    pack(source(), 300)
    assert taken == [0, 1, 2, 3]


def test_everything_is_packed_into_lists_of_bounded_size() -> None:
    rng = random.Random(4)
    items = [rng.randbytes(rng.randrange(1, 200)) for _ in range(60)]
    lists = packs(items, 500)
    assert over_the_wire([item for packed in lists for item in packed]) == items
    assert max(sizes(lists)) <= 500
    for one, following in pairwise(lists):
        assert sizes([one])[0] + len(bytes(following[0])) > 500  # no list ends early
    assert packs([], 500) == [[]]


def test_a_packed_list_never_begins_empty() -> None:
    lists = packs([b"x" * 5000, b"y", b"z" * 5000], 100)
    assert [len(packed) for packed in lists] == [1, 1, 1]


def test_the_usual_room_leaves_a_frame() -> None:
    packed, _ = pack([b"x" * 10] * 1000)
    assert REPLY_BYTES_MAX - 140 < sizes([packed])[0] <= REPLY_BYTES_MAX - 100
    assert max(sizes(packs([b"x" * 10] * 1000))) <= REPLY_BYTES_MAX - 100


# --- of another schema ----------------------------------------------------------------------------


def test_news_of_another_schema_are_passed_over_and_others_read() -> None:
    record = machine(1, cores=4)
    other = msgspec.structs.replace(record, schema_tag=record.schema_tag ^ 1)
    elsewhere = (1 << 158 | 5).to_bytes(20)
    mine = [record_rumour(record, 1.0), delta_rumour(record.key(SCHEMA), record, 1.0)]
    theirs = [record_rumour(other, 1.0), delta_rumour(elsewhere, record, 1.0)]
    end = state_rumour(elsewhere, 3, State.LEFT, 0.0)  # says nothing that needs a schema
    words = over_the_wire([*mine, *theirs, end])
    found = readable_news(words, SCHEMA)
    assert [news.key for news in found] == [record.key(SCHEMA)] * 2 + [elsewhere]
    for one in over_the_wire(theirs):
        with pytest.raises(OtherSchema):
            as_news(one, SCHEMA)
    with pytest.raises(MalformedMessage):
        readable_news([*words, [9, 1.0, 0]], SCHEMA)
