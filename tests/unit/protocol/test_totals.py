"""Aggregates over a hub: what is asked, what is believed, and what an answer carries instead."""

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
    body_of,
    bundled,
    endpoint_of,
    item,
    machine,
    question,
    told,
    unbundled,
)

from dhtos.core.ids import Endpoint, Prefix
from dhtos.core.limits import (
    AMPLIFICATION_MAX,
    HISTOGRAM_EDGES_MAX,
    REPLY_BYTES_MAX,
    REQUEST_PAYLOAD_BYTES_MAX,
)
from dhtos.core.predicate import Box, OneOf, Predicate, Range
from dhtos.core.scale import Linear
from dhtos.core.schema import Attribute, Schema
from dhtos.core.schemas import Schemas
from dhtos.errors import NoPeers, UsageError
from dhtos.protocol.aggregate import Measure, Partial
from dhtos.protocol.answer import COUNT_ONLY, answer
from dhtos.protocol.operation import Operation
from dhtos.protocol.sample import sample
from dhtos.protocol.select import read_select, select_to_wire
from dhtos.protocol.wire import encode_request

GATE: Endpoint = ("10.2.0.1", 7400)
OTHER: Endpoint = ("10.2.0.2", 7400)
SOURCE: Endpoint = ("10.9.9.9", 9)
WHOLE = Prefix(0, 0)
LOW, HIGH = Prefix(0b000, 3), Prefix(0b001, 3)  # of version 0, by the first bit of the cores
CORES = SCHEMA.index("cores")
MEASURE = Measure(CORES, (4,))
MACHINES = [machine(n, cores=n, mem=8 * GIB) for n in range(1, 7)]


def client(*gateways: Endpoint) -> Lone:
    lone = Lone()
    lone.hub.gateways = list(gateways)
    return lone


def ask(lone: Lone, predicate: Any = ALL, **options: Any) -> Operation[Any]:
    return lone.hub.find(predicate, lone.now, measure=MEASURE, **options)


def asks(lone: Lone) -> list[Asked]:
    return lone.sent("dh_range")


def partial_of(covers: Prefix | None, matches: int, partial: Any, **options: Any) -> list[Any]:
    """An answer with an aggregate in the place of its hits."""
    body = body_of(covers, matches=matches, **options)
    body[2] = partial
    (part,) = bundled(body)
    return part


# --- the asker ------------------------------------------------------------------------------------


def test_an_aggregate_is_asked_as_a_count_with_one_field_more() -> None:
    lone = client(GATE)
    operation = ask(lone)
    (asked,) = asks(lone)
    assert asked.args[4:8] == [0, None, COUNT_ONLY, None]
    assert read_select(asked.args[9], SCHEMA) == MEASURE
    lone.reply(asked, partial_of(WHOLE, 5, [12, 1, 6, [1, 3]]))
    result = operation.result()
    assert result.partial == Partial(12, 1, 6, (1, 3))
    assert (result.matches, result.hits, result.cursor) == (5, (), None)
    assert result.coverage.complete


def test_a_plain_question_has_no_such_field() -> None:
    lone = client(GATE)
    lone.hub.find(ALL, lone.now, count_only=True)
    (asked,) = asks(lone)
    assert len(asked.args) == 9


def test_the_largest_request_fits() -> None:
    """The padding of a stranger's question makes room for what is selected."""
    lone = client(GATE)
    edges = tuple(2**60 + n for n in range(HISTOGRAM_EDGES_MAX))
    lone.hub.find(ALL, lone.now, measure=Measure(CORES, edges))
    (asked,) = asks(lone)
    assert len(encode_request(b"m" * 20, "dh_range", asked.args)) <= REPLY_BYTES_MAX
    words = tuple(f"{n:03}" + "x" * 84 for n in range(60))
    long = Predicate((Box((OneOf(SCHEMA.index("site"), words),)),))
    lone = client(GATE)
    lone.hub.find(long, lone.now, measure=Measure(CORES, edges))
    (asked,) = asks(lone)
    assert len(asked.args[3]) > 5000
    assert len(encode_request(b"m" * 20, "dh_range", asked.args)) <= REQUEST_PAYLOAD_BYTES_MAX


def test_partials_of_all_subtrees_are_merged_once() -> None:
    lone = client(GATE)
    operation = ask(lone)
    (first,) = asks(lone)
    lone.reply(first, partial_of(LOW, 2, [3, 1, 2, [2, 0]], items=[item(HIGH, endpoint_of(8))]))
    (second,) = asks(lone)
    lone.reply(second, partial_of(HIGH, 3, [30, 8, 14, [0, 3]]))
    result = operation.result()
    assert result.partial == Partial(33, 1, 14, (2, 3))
    assert result.matches == 5


def test_a_member_whose_subtree_is_wider_counts_instead_of_those_inside() -> None:
    """Who names a subtree and its own parent again must not make machines count twice."""
    lone = client(GATE)
    operation = ask(lone)
    (first,) = asks(lone)
    inside = HIGH.child(0)
    items = [item(HIGH, endpoint_of(8))]
    lone.reply(first, partial_of(inside, 2, [20, 10, 10, [0, 2]], items=items))
    (second,) = asks(lone)
    lone.reply(second, partial_of(HIGH, 3, [30, 10, 10, [0, 3]]))
    assert operation.result().partial == Partial(30, 10, 10, (0, 3))
    assert operation.result().matches == 3


@pytest.mark.parametrize("partial", [[], [[0.5, MACHINES[0]]], [1, 1, 1, [9, 0]], [1, 1, 1, [1]]])
def test_who_does_not_understand_is_not_believed(partial: Any) -> None:
    """A node that knows no aggregates answers a count with no hits, another may lie."""
    lone = client(GATE, OTHER)
    operation = ask(lone)
    (first,) = asks(lone)
    lone.reply(first, partial_of(WHOLE, 2, partial))
    assert lone.engine.counters["malformed"] == 1
    (second,) = asks(lone)
    assert second.endpoint != first.endpoint
    lone.reply(second, partial_of(WHOLE, 2, [3, 1, 2, [2, 0]]))
    assert operation.result().partial == Partial(3, 1, 2, (2, 0))


def test_who_covers_nothing_needs_no_partial() -> None:
    lone = client(GATE)
    operation = ask(lone)
    (first,) = asks(lone)
    lone.reply(first, told(None, items=[item(WHOLE, OTHER)]))
    (second,) = asks(lone)
    assert second.endpoint == OTHER
    lone.reply(second, partial_of(WHOLE, 1, [3, 3, 3, [1, 0]]))
    assert operation.result().matches == 1


def test_a_silent_subtree_is_named_and_the_rest_is_there() -> None:
    lone = client(GATE)
    operation = ask(lone)
    (first,) = asks(lone)
    lone.reply(first, partial_of(LOW, 2, [3, 1, 2, [2, 0]], items=[item(HIGH, endpoint_of(8))]))
    lone.wait(20.0)
    result = operation.result()
    assert result.partial == Partial(3, 1, 2, (2, 0))
    assert result.coverage.failed_prefixes == (HIGH,)
    assert not result.coverage.complete


def test_with_verify_the_member_counts_that_knows_of_most() -> None:
    lone = client(GATE)
    operation = ask(lone, verify=2)
    (first,) = asks(lone)
    others = [machine(21, cores=1), machine(22, cores=1)]
    lone.reply(first, partial_of(WHOLE, 2, [3, 1, 2, [2, 0]], others=others))
    (second,) = asks(lone)
    reply = partial_of(WHOLE, 3, [9, 1, 6, [2, 1]], key=others[0].key(SCHEMA), others=others)
    lone.reply(second, reply)
    result = operation.result()
    assert result.partial == Partial(9, 1, 6, (2, 1))
    assert (result.matches, result.coverage.verified) == (3, 2)


def test_what_others_would_refuse_is_refused_at_once() -> None:
    lone = client(GATE)
    loose = Predicate((Box((Range(CORES, 8.0, float("inf")),)),))
    with pytest.raises(UsageError, match=r"as Schema\.check returns them"):
        ask(lone, loose)
    with pytest.raises(UsageError, match="verify must be"):
        ask(lone, verify=9)
    assert lone.sent() == []
    with pytest.raises(NoPeers):
        ask(client()).result()


def test_what_only_another_schema_version_has_is_asked_there_or_refused() -> None:
    lone = client(GATE)
    other = Schema("machine", 1, (Attribute("quux", "number", "static", Linear(0, 1)),))
    lone.hub.schemas = Schemas(SCHEMA, [other])
    quux = lone.hub.schemas.vocabulary.index("quux")
    predicate = Predicate((Box((Range(quux, 1, float("inf")),)),))
    with pytest.raises(UsageError, match="another schema version can match; use find"):
        sample(lone.hub, predicate, 3, lone.now)
    assert lone.sent() == []
    ask(lone, predicate)
    (asked,) = asks(lone)
    assert asked.args[8][:5] == other.mark, "a sum is asked of the others"


def test_one_group_is_summed_without_a_call() -> None:
    lone = Lone(MACHINES[0]).settle(MACHINES[1:])
    result = ask(lone, at_least(cores=3)).result()
    assert result.partial == Partial(18, 3, 6, (1, 3))
    assert (result.matches, result.coverage.asked) == (4, 0)
    assert lone.sent("dh_range") == []


# --- the member -----------------------------------------------------------------------------------


@pytest.fixture
def member() -> Lone:
    return Lone(MACHINES[0]).settle(MACHINES[1:])


def request(lone: Lone, select: Any, *, cookie: bool = True, padding: bytes = b"") -> list[Any]:
    shown = lone.core.cookie(SOURCE) if cookie else b""
    everything = lone.hub.everything
    args = [lone.hub.number, shown, WHOLE.to_wire(), everything, 0, None, COUNT_ONLY, None]
    return lone.request("dh_range", [*args, padding, select], SOURCE)


def test_a_member_answers_with_its_partial_in_the_place_of_hits(member: Lone) -> None:
    header, items, partial = unbundled(request(member, select_to_wire(MEASURE)))
    assert header[4] == 6
    assert items == []
    assert partial == [21, 1, 6, [3, 3]]


def test_matches_are_those_of_the_predicate(member: Lone) -> None:
    found = answer(member.hub, WHOLE, question(at_least(cores=5), select=MEASURE), None)
    assert found.partial == Partial(11, 5, 6, (0, 2))
    assert (found.hits, found.more, found.matches) == ([], False, 2)
    assert answer(member.hub, WHOLE, question(), None).partial is None


@pytest.mark.parametrize(
    "select",
    [
        b"",
        b"\xc1",
        bytes(1025),
        "text",
        7,
        msgspec.msgpack.encode([1, SCHEMA.index("arch"), []]),
        msgspec.msgpack.encode([1, 99, []]),
        msgspec.msgpack.encode([2, b"short"]),
    ],
)
def test_a_malformed_wish_is_counted_and_dropped(member: Lone, select: Any) -> None:
    assert request(member, select) == []
    assert member.engine.counters["malformed"] == 1
    assert len(request(member, None)) == 1


def test_a_stranger_gets_no_more_than_three_times_what_it_sent(member: Lone) -> None:
    edges = tuple(range(1, HISTOGRAM_EDGES_MAX + 1))
    wish = select_to_wire(Measure(CORES, edges))
    sizes = []
    for padding in (b"", bytes(500)):
        parts = request(member, wish, cookie=False, padding=padding)
        sizes.append(sum(len(part[4]) for part in parts))
        sent = len(wish) + len(padding) + len(member.hub.everything)
        assert len(parts) <= max(1, AMPLIFICATION_MAX * (sent + 64) // REPLY_BYTES_MAX)
    assert all(sizes)
