"""One question to several schema versions, the test being the network: parts, turns, one result."""

from typing import Any

import msgspec
import pytest
from hub_world import (
    ALL,
    GIB,
    SCHEMA,
    Asked,
    Lone,
    at_least,
    bundled,
    endpoint_of,
    machine,
    order,
    told,
)

from dhtos.core.contact import Contact
from dhtos.core.curve import version_prefix
from dhtos.core.ids import Endpoint, Prefix
from dhtos.core.predicate import Box, Exists, Predicate, Range
from dhtos.core.record import Record, make_record
from dhtos.core.scale import Linear
from dhtos.core.schema import Attribute, Schema
from dhtos.core.schemas import Schemas
from dhtos.errors import Closed, NoPeers, SchemaConflict, UsageError
from dhtos.protocol.aggregate import Measure, Partial
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.operation import Operation

OTHER = Schema(
    "machine",
    1,
    (
        Attribute("wide", "number", "static", Linear(0, 9), "", 4),
        Attribute("cores", "number", "dynamic", Linear(0, 5000)),
    ),
    ("wide",),
)
THIRD = Schema("machine", 2, OTHER.attributes, OTHER.key_order)
WHOLE, THERE = Prefix(0, 0), version_prefix(1)
GATE = ("10.2.0.1", 7400)
OWN = machine(1, cores=4, mem=GIB)
MATES = [machine(n, cores=4, mem=n * GIB) for n in range(2, 6)]
WORDS = Schemas(SCHEMA, [OTHER])


def other(number: int, *, seq: int = 1, schema: Schema = OTHER, **values: Any) -> Record:
    """A machine that runs another schema; of the same number is the same machine."""
    return make_record(
        schema,
        values,
        {},
        node_id=number.to_bytes(20),
        endpoint=endpoint_of(number),
        seq=seq,
        identity=number.to_bytes(32),
    )


OTHERS = [other(n, wide=n % 9, cores=n) for n in range(100, 104)]


def member(*schemas: Schema, met: bool = True) -> Lone:
    """A settled node that knows other schemas and has met a machine of version 1."""
    one = Lone(OWN, size=16).settle(MATES)
    one.hub.schemas = Schemas(SCHEMA, schemas)
    if met:
        meet(one, OTHERS[0], OTHER)
    return one


def meet(one: Lone, record: Record, schema: Schema) -> None:
    one.hub.met(Contact(record.key(schema), record.endpoint), one.now, one.now)


def client(*schemas: Schema) -> Lone:
    """A light client that knows a gateway."""
    one = Lone()
    one.hub.schemas = Schemas(SCHEMA, schemas)
    one.hub.gateways = [GATE]
    return one


def find(one: Lone, predicate: Predicate = ALL, **options: Any) -> Operation[FindResult]:
    return one.hub.find(predicate, one.now, **options)


def asks(one: Lone) -> list[Asked]:
    return one.sent("dh_range")


def answers(
    one: Lone, asked: Asked, covers: Prefix | None, *hits: Record, by: int = 0, **options: Any
) -> None:
    """Somebody of that subtree answers."""
    key = ((covers or WHOLE).first)[:-1] + bytes((by or len(hits),))
    one.reply(asked, told(covers, key=key, hits=list(hits), **options))


def named(prefix: Prefix, endpoint: Endpoint = GATE) -> list[Any]:
    """An item for an inhabited subtree."""
    return [prefix.to_wire(), 4, 4.0, None, [[prefix.first, *endpoint]]]


def numbers(result: FindResult) -> list[int]:
    return [int.from_bytes(bytes(hit.id)) for hit in result.hits]


def words(name: str, low: float) -> Predicate:
    return Predicate((Box((Range(WORDS.vocabulary.index(name), low, float("inf")),)),))


# --- parts ----------------------------------------------------------------------------------------


def test_each_version_is_asked_in_its_own_words() -> None:
    one = member(OTHER)
    operation = find(one, words("cores", 4))
    (asked,) = asks(one)
    assert asked.endpoint == OTHERS[0].endpoint
    assert Prefix.from_wire(asked.args[2]) == THERE
    assert msgspec.msgpack.decode(asked.args[3]) == [[[0, 1, 4, None, 0]]]
    assert asked.args[8][:5] == OTHER.mark
    answers(one, asked, THERE, *OTHERS)
    result = operation.result()
    assert sorted(numbers(result)) == [1, 2, 3, 4, 5, 100, 101, 102, 103]
    assert {hit.schema for hit in result.hits} == {SCHEMA, OTHER}
    assert (result.matches, result.coverage.complete, result.cursor) == (9, True, None)
    assert (result.coverage.asked, result.coverage.rtt) == (1, 1)


def test_a_version_that_cannot_match_is_not_asked() -> None:
    one = member(OTHER)
    result = find(one, at_least(mem=GIB)).result()
    assert (len(result.hits), result.coverage.complete, asks(one)) == (5, True, [])


def test_what_only_the_other_version_has_is_asked_there_alone() -> None:
    one = member(OTHER)
    operation = find(one, words("wide", 2))
    (asked,) = asks(one)
    answers(one, asked, THERE, OTHERS[2])
    assert numbers(operation.result()) == [102]
    assert operation.result().coverage.complete


def test_where_nobody_of_another_version_lives_nobody_is_asked() -> None:
    one = member(OTHER, met=False)
    for predicate in (ALL, words("wide", 2)):
        result = find(one, predicate).result()
        assert (result.coverage.complete, result.coverage.asked) == (True, 0)


def test_a_version_whose_schema_is_not_known_is_named() -> None:
    one = member(OTHER)
    stranger = other(200, schema=THIRD, wide=1)
    meet(one, stranger, THIRD)
    operation = find(one)
    (asked,) = asks(one)
    answers(one, asked, THERE, *OTHERS)
    coverage = operation.result().coverage
    assert (coverage.complete, coverage.limited) == (False, False)
    assert coverage.failed_prefixes == (Prefix(1, 1),)
    assert coverage.fraction == pytest.approx(9 / 10)


def test_whether_an_unknown_version_is_there_is_asked_of_a_known_one_beside_it() -> None:
    """Versions 2 and 3 are one bucket of ours; 2 cannot match, and 3 is not known."""
    one = member(THIRD, met=False)
    meet(one, other(200, schema=THIRD, wide=1), THIRD)
    for named_too, complete in ((False, True), (True, False)):
        operation = find(one, at_least(mem=GIB))
        (asked,) = asks(one)
        assert Prefix.from_wire(asked.args[2]) == Prefix(1, 1)
        assert asked.args[8][:5] == THIRD.mark
        items = [named(version_prefix(3))] if named_too else []
        answers(one, asked, version_prefix(2), items=items, by=9)
        coverage = operation.result().coverage
        assert coverage.complete is complete
        assert coverage.failed_prefixes == (() if complete else (version_prefix(3),))


def test_a_question_that_no_version_can_answer_is_refused() -> None:
    index = WORDS.vocabulary.index
    both = Predicate((Box((Exists(index("wide")), Exists(index("mem")))),))
    with pytest.raises(UsageError, match="no version of the schema has all attributes"):
        find(member(OTHER), both)


# --- turns ----------------------------------------------------------------------------------------


def test_a_limit_that_the_first_version_meets_leaves_the_others() -> None:
    one = member(OTHER)
    result = find(one, limit=3).result()
    assert (len(result.hits), asks(one)) == (3, [])
    assert (result.coverage.complete, result.coverage.limited) == (False, True)
    assert result.coverage.failed_prefixes == ()
    second = find(one, limit=4, cursor=result.cursor)
    (asked,) = asks(one)
    assert asked.args[4] == 2, "what is left of the limit"
    answers(one, asked, THERE, *OTHERS[:2], matches=4, after=[OTHERS[1].key(OTHER)])
    page = second.result()
    assert sorted(numbers(page))[-2:] == [100, 101]
    assert len({*numbers(result), *numbers(page)}) == 7
    third = find(one, limit=4, cursor=page.cursor)
    (asked,) = asks(one)
    assert asked.args[7] == [OTHERS[1].key(OTHER)]
    answers(one, asked, THERE, *OTHERS[2:])
    assert (numbers(third.result()), third.result().cursor) == ([102, 103], None)
    assert third.result().coverage.complete


def test_a_version_without_the_order_is_asked_only_if_there_is_room() -> None:
    one = member(OTHER)
    full = find(one, order=order("mem"), limit=4)
    assert (numbers(full.result()), asks(one)) == ([1, 2, 3, 4], [])
    assert full.result().coverage.limited
    operation = find(one, order=order("mem"), limit=7)
    (asked,) = asks(one)
    assert asked.args[4:6] == [0, None]
    assert not operation.items, "nothing is sure before the end"
    answers(one, asked, THERE, *OTHERS)
    assert numbers(operation.result())[:5] == [1, 2, 3, 4, 5]
    last = sorted(OTHERS, key=lambda record: record.key(OTHER))[:2]
    assert numbers(operation.result())[5:] == [int.from_bytes(r.node_id) for r in last]


def test_an_order_is_asked_under_its_place_in_each_version() -> None:
    one = member(OTHER)
    operation = find(one, order=(WORDS.vocabulary.index("cores"), True), limit=2)
    (asked,) = asks(one)
    assert asked.args[4:6] == [2, [1, True]]
    answers(one, asked, THERE, OTHERS[3], OTHERS[2])
    assert numbers(operation.result()) == [103, 102]
    again = find(
        one, order=(WORDS.vocabulary.index("cores"), True), limit=2,
        cursor=operation.result().cursor,
    )  # fmt: skip
    (asked,) = asks(one)
    assert asked.args[7] == [-102, OTHERS[2].key(OTHER)]
    answers(one, asked, THERE, OTHERS[1], OTHERS[0])
    assert numbers(again.result()) == [101, 100]


# --- figures --------------------------------------------------------------------------------------


def test_a_sum_is_that_of_all_versions_that_have_the_attribute() -> None:
    one = member(OTHER)
    index = WORDS.vocabulary.index("cores")
    operation = one.hub.find(ALL, one.now, measure=Measure(index, (4, 101)))
    (asked,) = asks(one)
    assert msgspec.msgpack.decode(asked.args[9]) == [1, 1, [4, 101]]
    parts = bundled([[THERE.first, 3, b"cookie!!", [THERE.to_wire()], 4, None, 0], [], [
        406, 100, 103, [0, 1, 3],
    ]])  # fmt: skip
    one.reply(asked, parts[0])
    result = operation.result()
    assert (result.matches, result.coverage.complete, result.hits) == (9, True, ())
    assert result.partial == Partial(406 + 5 * 4, 4, 103, (0, 6, 3))


def test_a_version_without_the_attribute_has_no_part_in_a_sum() -> None:
    one = member(OTHER)
    operation = one.hub.find(ALL, one.now, measure=Measure(WORDS.vocabulary.index("mem")))
    (asked,) = asks(one)
    answers(one, asked, THERE, matches=4, by=9)
    result = operation.result()
    assert (result.matches, result.partial) == (9, Partial(15 * GIB, GIB, 5 * GIB, (5,)))


# --- a machine that moves -------------------------------------------------------------------------


def test_of_a_machine_in_two_versions_the_newer_record_counts() -> None:
    for seq, schema in ((9, OTHER), (0, SCHEMA)):
        one = member(OTHER)
        operation = find(one)
        (asked,) = asks(one)
        answers(one, asked, THERE, other(2, seq=seq, wide=1), *OTHERS)
        result = operation.result()
        (twice,) = [h for h in result.hits if int.from_bytes(bytes(h.id)) == 2]
        assert twice.schema is schema
        assert (len(result.hits), result.matches) == (9, 9)


# --- clients --------------------------------------------------------------------------------------


def test_a_client_learns_of_versions_from_whoever_answers() -> None:
    one = client(OTHER)
    operation = find(one)
    (first,) = asks(one)
    assert Prefix.from_wire(first.args[2]) == WHOLE
    answers(one, first, version_prefix(0), *MATES, items=[named(THERE, endpoint_of(100))])
    (second,) = asks(one)
    assert (second.endpoint, Prefix.from_wire(second.args[2])) == (endpoint_of(100), THERE)
    assert len(operation.items) == 4, "hits come as they are found"
    answers(one, second, THERE, *OTHERS)
    result = operation.result()
    assert (len(result.hits), result.coverage.complete) == (8, True)
    assert (result.coverage.asked, result.coverage.rtt) == (2, 2)


def test_a_client_that_only_the_other_version_can_answer_asks_that_first() -> None:
    one = client(OTHER)
    operation = find(one, words("wide", 1))
    (first,) = asks(one)
    assert first.args[8][:5] == OTHER.mark
    answers(one, first, THERE, OTHERS[2], items=[named(version_prefix(0))])
    assert numbers(operation.result()) == [102]
    assert operation.result().coverage.complete, "ours has no such attribute"


def test_a_client_among_peers_of_another_schema_is_told_so() -> None:
    one = client()
    operation = find(one)
    for _ in range(4):
        for asked in asks(one):
            one.reply(asked, bundled([None, [], [], 0xBEEF])[0])
    with pytest.raises(SchemaConflict, match="runs another schema as version 0"):
        operation.result()


def test_a_client_that_knows_nobody_says_so() -> None:
    one = client()
    one.hub.gateways = []
    with pytest.raises(NoPeers):
        find(one).result()


# --- ends -----------------------------------------------------------------------------------------


def test_silence_of_a_version_is_named_and_can_be_resumed() -> None:
    one = member(OTHER)
    operation = find(one)
    asks(one)
    one.wait(11.0)
    asks(one)  # again, and of others, in vain
    result = operation.result()
    assert result.coverage.failed_prefixes == (THERE,)
    assert not result.coverage.complete
    again = find(one, cursor=result.cursor)
    (asked,) = asks(one)
    answers(one, asked, THERE, *OTHERS)
    assert sorted(numbers(again.result())) == [100, 101, 102, 103]
    assert (again.result().coverage.complete, again.result().cursor) == (True, None)


def test_cancelling_leaves_nothing() -> None:
    one = member(OTHER)
    operation = find(one)
    (asked,) = asks(one)
    operation.cancel(one.now)
    with pytest.raises(Closed):
        operation.result()
    answers(one, asked, THERE, *OTHERS)
    assert one.core.counters["replies_unasked"] == 1
    assert len(one.core.calls) == 0
    assert one.hub.running == []


@pytest.mark.parametrize(
    "cursor",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([4]),
        msgspec.msgpack.encode([4, [[0, [0, b""]]], [], []]),
        msgspec.msgpack.encode([4, [[7, [0, b""], None]], [], []]),
        msgspec.msgpack.encode([4, [[0, 1, None]], [], []]),
        msgspec.msgpack.encode([4, [[0, [0, b""], 1]], [], []]),
        msgspec.msgpack.encode([4, [], [1], []]),
        msgspec.msgpack.encode([4, [], [], ["x"]]),
        msgspec.msgpack.encode([4, [[2, [2, b"\x80"], None]], [], []]),
        msgspec.msgpack.encode([4, [[1, [2, b"\x40"], b"odd"]], [], []]),
    ],
)
def test_a_cursor_that_no_query_returned_is_refused(cursor: bytes) -> None:
    with pytest.raises(UsageError, match="cursor"):
        find(member(OTHER), cursor=cursor)


def test_a_cursor_of_parts_is_of_no_use_to_an_order() -> None:
    one = member(OTHER)
    cursor = find(one, limit=3).result().cursor
    with pytest.raises(UsageError, match="another order or verify"):
        find(one, order=order("mem"), cursor=cursor)
