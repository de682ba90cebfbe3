"""The walk: whom it asks, what it believes, when it stops, and what it says about itself."""

from math import inf
from typing import Any
from zlib import crc32

import msgspec
import pytest
from foreign_world import foreign
from hub_world import (
    ALL,
    GIB,
    JOINING,
    SCHEMA,
    Asked,
    Fleet,
    Lone,
    at_least,
    body_of,
    bundled,
    contact_of,
    endpoint_of,
    equal,
    item,
    machine,
    order,
    told,
)

from dhtos.core.ids import Endpoint, Prefix
from dhtos.core.limits import (
    ITEM_CALLS_MAX,
    OPERATION_DEADLINE_S,
    RTO_FLOOR_S,
    RTO_SAMPLES_MIN,
    RTO_UNKNOWN_S,
    WALK_ALPHA,
    WALK_ALPHA_MAX,
    WALK_HITS_MAX,
)
from dhtos.core.predicate import Box, Predicate, Range
from dhtos.core.record import Record
from dhtos.errors import Closed, NoPeers, UsageError
from dhtos.protocol import walk as walk_module
from dhtos.protocol.answer import COUNT_ONLY, NAME_OTHERS, order_value
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.operation import Operation

GATE: Endpoint = ("10.2.0.1", 7400)
GATES: list[Endpoint] = [("10.2.0.1", 7400), ("10.2.0.2", 7400), ("10.2.0.3", 7400)]
WHOLE = Prefix(0, 0)
# The schema's version is 0, so all keys begin with 00; the next bit is that of the cores.
LOW, HIGH = Prefix(0b000, 3), Prefix(0b001, 3)
SMALL = [machine(n, cores=2, mem=4 * GIB, price=round(0.1 * n, 2)) for n in range(1, 7)]
BIG = [machine(n, cores=512, mem=4 * GIB, price=round(0.07 * n, 2)) for n in range(11, 17)]


def client(*gateways: Endpoint) -> Lone:
    """A light client: no record, no place, a few addresses."""
    lone = Lone()
    lone.hub.gateways = list(gateways)
    return lone


def find(lone: Lone, predicate: Any = ALL, **options: Any) -> Operation[FindResult]:
    return lone.hub.find(predicate, lone.now, **options)


def prefix_of(asked: Asked) -> Prefix:
    return Prefix.from_wire(asked.args[2])


def asks(lone: Lone) -> list[Asked]:
    return lone.sent("dh_range")


def until_asks(lone: Lone, endpoint: Endpoint) -> Asked:
    """Let time pass until it asks that endpoint, whatever else it sends again meanwhile."""
    for _ in range(20):
        for asked in lone.until_sent("dh_range"):
            if asked.endpoint == endpoint:
                return asked
    raise AssertionError(f"{endpoint} was never asked")


def ids(result: FindResult) -> set[bytes]:
    return {bytes(hit.id) for hit in result.hits}


def nodes(records: list[Record]) -> set[bytes]:
    return {record.node_id for record in records}


# --- beginning ------------------------------------------------------------------------------------


def test_a_client_without_gateways_has_nobody_to_ask() -> None:
    lone = client()
    timers = len(lone.core.timers)
    operation = find(lone)
    with pytest.raises(NoPeers, match="seed"):
        operation.result()
    assert len(lone.core.timers) == timers
    assert len(lone.core.calls) == 0


def test_a_predicate_that_others_would_refuse_is_refused_at_once() -> None:
    lone = client(GATE)
    loose = Predicate((Box((Range(SCHEMA.index("cores"), 8.0, inf),)),))
    with pytest.raises(UsageError, match=r"as Schema\.check returns them"):
        find(lone, loose)
    assert lone.sent() == []
    assert len(lone.core.timers) == len(client(GATE).core.timers)


def test_a_client_asks_a_gateway_about_everything() -> None:
    lone = client(GATE)
    operation = find(lone, limit=9)
    (asked,) = asks(lone)
    assert asked.endpoint == GATE
    assert asked.args[:3] == [lone.hub.number, b"", WHOLE.to_wire()]
    assert asked.args[4:8] == [9, None, 0, None]
    lone.reply(asked, told(WHOLE, hits=SMALL, pruned=2))
    result = operation.result()
    assert ids(result) == nodes(SMALL)
    assert [hit.age_s for hit in result.hits] == [0.5] * len(SMALL)
    assert (result.matches, result.cursor) == (len(SMALL), None)
    coverage = result.coverage
    assert (coverage.fraction, coverage.complete, coverage.limited) == (1.0, True, False)
    assert (coverage.asked, coverage.rtt, coverage.pruned) == (1, 1, 2)
    assert coverage.max_age_s == 0.5
    assert list(operation.items) == list(result.hits)


def test_in_a_hub_of_one_group_no_datagram_is_sent() -> None:
    lone = Lone(SMALL[0], size=16).settle([*SMALL[1:], *BIG])
    result = find(lone, at_least(cores=4)).result()
    assert ids(result) == nodes(BIG)
    assert (result.coverage.asked, result.coverage.rtt) == (0, 0)
    assert result.coverage.complete
    assert asks(lone) == []


def test_a_member_asks_only_about_what_it_does_not_hold() -> None:
    lone = Lone(SMALL[0], size=8).settle([*SMALL[1:], *BIG])
    operation = find(lone)
    (asked,) = asks(lone)
    assert prefix_of(asked) == HIGH
    assert asked.endpoint in {record.endpoint for record in BIG}
    lone.reply(asked, told(HIGH, hits=BIG))
    result = operation.result()
    assert ids(result) == nodes([*SMALL, *BIG])
    assert result.coverage.complete


# --- whom it asks ---------------------------------------------------------------------------------


def test_the_largest_yield_is_asked_first_and_at_most_alpha_at_once() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    lengths = [*range(3, 3 + WALK_ALPHA + 2)]
    items = [item(Prefix(1, n), endpoint_of(n), estimate=float(n)) for n in lengths]
    lone.reply(gate, told(Prefix(0, lengths[-1]), items=items))
    first = asks(lone)
    assert [prefix_of(one).length for one in first] == lengths[::-1][:WALK_ALPHA]
    lone.reply(first[0], told(prefix_of(first[0])))
    (next_one,) = asks(lone)
    assert prefix_of(next_one).length == lengths[1]
    lone.reply(next_one, told(prefix_of(next_one)))
    (last,) = asks(lone)
    for asked in [*first[1:], last]:
        assert not operation.done
        lone.reply(asked, told(prefix_of(asked)))
    coverage = operation.result().coverage
    assert coverage.complete
    assert (coverage.asked, coverage.rtt) == (1 + len(lengths), 2)


def test_an_order_asks_the_best_bound_first() -> None:
    lone = client(GATE)
    find(lone, order=order("price"))
    (gate,) = asks(lone)
    bounds = {3: 0.9, 4: None, 5: 0.1, 6: 0.5, 7: 0.7}
    items = [item(Prefix(1, n), endpoint_of(n), bound=bound) for n, bound in bounds.items()]
    lone.reply(gate, told(Prefix(0, 7), items=items))
    assert [prefix_of(one).length for one in asks(lone)] == [4, 5, 6, 7]


def test_no_more_is_asked_than_the_limit_is_likely_to_need() -> None:
    lone = client(GATE)
    operation = find(lone, limit=4)
    (gate,) = asks(lone)
    items = [item(Prefix(1, n), endpoint_of(n), estimate=10.0 - n) for n in range(3, 7)]
    lone.reply(gate, told(Prefix(0, 6), items=items))
    (first,) = asks(lone)  # it may well yield more than enough
    assert prefix_of(first) == HIGH
    lone.reply(first, told(HIGH, hits=BIG[:1]))
    (second,) = asks(lone)
    assert second.args[4] == 3  # what is still missing
    assert not operation.done


def test_a_late_answer_is_hedged_and_the_first_of_both_counts() -> None:
    lone = client(*GATES)
    operation = find(lone)
    (first,) = asks(lone)
    (again, second) = lone.until_sent("dh_range")
    assert again.msg_id == first.msg_id
    assert second.endpoint != first.endpoint
    assert len(lone.core.calls) == 2
    lone.reply(second, told(WHOLE, hits=SMALL))
    assert len(lone.core.calls) == 0
    lone.reply(first, told(WHOLE, hits=BIG))  # nobody waits for it any more
    assert ids(operation.result()) == nodes(SMALL)
    assert lone.engine.counters["replies_unasked"] == 1
    assert operation.result().coverage.asked == 2


def test_while_contacts_are_late_more_are_asked_up_to_a_bound() -> None:
    lone = client(GATE)
    for n in range(RTO_SAMPLES_MIN):  # all are near, so silence is noticed soon
        lone.core.peers.of(endpoint_of(500 + n)).sample(0.01)
    find(lone)
    (gate,) = asks(lone)
    contacts = [*map(endpoint_of, range(1, 12))]
    lone.reply(gate, told(LOW, items=[item(HIGH, *contacts)]))
    for n in range(1, ITEM_CALLS_MAX + 1):
        assert len(lone.core.calls) == n
        lone.wait(2 * RTO_FLOOR_S + 0.001)
    assert len(lone.core.calls) == ITEM_CALLS_MAX  # until the first of them has failed
    assert len({one.endpoint for one in asks(lone)}) == ITEM_CALLS_MAX


def test_the_last_contact_being_late_somebody_is_asked_for_others_at_once() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    late, alive = endpoint_of(1), endpoint_of(2)
    lone.reply(gate, told(LOW, items=[item(HIGH, late)]))
    asks(lone)
    lone.wait(RTO_UNKNOWN_S + 0.001)  # late, and far from failed
    assert len(lone.core.calls) == 2
    detour = asks(lone)[-1]
    assert detour.endpoint == GATE
    lone.reply(detour, told(None, items=[item(HIGH, alive)]))
    (second,) = asks(lone)
    assert second.endpoint == alive
    lone.reply(second, told(HIGH, hits=BIG))
    assert operation.result().coverage.complete
    assert len(lone.core.calls) == 0


def test_a_quarter_of_a_long_frontier_is_asked_about_at_once_if_all_is_wanted() -> None:
    for limit, asked in ((0, 8), (1000, WALK_ALPHA)):
        lone = client(GATE)
        find(lone, limit=limit)
        (gate,) = asks(lone)
        items = [item(Prefix(1, n), endpoint_of(n)) for n in range(3, 43)]
        lone.reply(gate, told(Prefix(0, 42), items=items))
        assert len(asks(lone)) == asked  # each that is asked about makes the frontier shorter


def test_the_widest_walk_has_a_bound() -> None:
    lone = client(GATE)
    find(lone)
    (gate,) = asks(lone)
    items = [item(Prefix(1, n), endpoint_of(n)) for n in range(3, 143)]
    for part in bundled(body_of(Prefix(0, 142), items=items, hits=[])):
        lone.reply(gate, part)
    assert len(asks(lone)) == WALK_ALPHA_MAX


def test_a_dead_contact_is_followed_by_the_next_and_forgotten() -> None:
    lone = Lone(SMALL[0], size=8).settle([*SMALL[1:], *BIG])
    operation = find(lone)
    (first,) = asks(lone)
    bucket = lone.hub.buckets.get(2)
    assert bucket is not None
    lone.wait(1.5)
    assert first.endpoint not in {known.contact.endpoint for known in bucket.contacts.values()}
    answered = asks(lone)[-1]
    lone.reply(answered, told(HIGH, hits=BIG))
    assert ids(operation.result()) == nodes([*SMALL, *BIG])
    assert operation.result().coverage.complete


def test_with_all_contacts_dead_two_others_are_asked_for_new_ones() -> None:
    """A detour: whoever has answered already may know other contacts of the subtree."""
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    dead, alive = endpoint_of(1), endpoint_of(2)
    lone.reply(gate, told(LOW, items=[item(HIGH, dead)]))
    asks(lone)
    detour = until_asks(lone, GATE)
    assert prefix_of(detour) == HIGH
    lone.reply(detour, told(None, items=[item(HIGH, dead, alive)]))
    (second,) = asks(lone)
    assert second.endpoint == alive
    lone.reply(second, told(HIGH, hits=BIG))
    assert operation.result().coverage.complete


def test_a_subtree_nobody_answers_for_is_reported() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    items = [item(HIGH, endpoint_of(1), estimate=6.0)]
    lone.reply(gate, told(LOW, items=items, hits=SMALL))
    lone.wait(OPERATION_DEADLINE_S / 2)
    result = operation.result()
    coverage = result.coverage
    assert coverage.failed_prefixes == (HIGH,)
    assert (coverage.complete, coverage.limited) == (False, False)
    assert coverage.fraction == pytest.approx(0.5)
    assert ids(result) == nodes(SMALL)
    assert result.cursor is not None
    assert len(lone.core.calls) == 0


def test_a_detour_that_knows_nobody_new_ends_the_item() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    lone.reply(gate, told(LOW, items=[item(HIGH, endpoint_of(1))]))
    detour = until_asks(lone, GATE)
    lone.reply(detour, told(None, items=[item(HIGH, endpoint_of(1))]))
    assert not operation.done  # the one who should know may only be slow
    while not operation.done:
        lone.now = lone.engine.next_deadline()
        lone.engine.tick(lone.now)
    assert operation.result().coverage.failed_prefixes == (HIGH,)


def test_who_covers_a_subtree_and_is_slow_is_waited_for_while_others_hand_on() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    lone.reply(gate, told(LOW, items=[item(HIGH, endpoint_of(1))]))
    (slow,) = asks(lone)
    detour = until_asks(lone, GATE)
    lone.reply(detour, told(None, items=[item(HIGH, endpoint_of(1))]))
    lone.reply(slow, told(HIGH))
    assert operation.result().coverage.complete


def test_a_contact_that_covers_nothing_hands_on_to_nearer_ones() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    near = [endpoint_of(n) for n in (1, 2, 3)]
    lone.reply(gate, told(None, items=[item(HIGH, *near[:2]), item(LOW, near[2])]))
    (first,) = asks(lone)
    assert first.endpoint == near[2]  # nearest to the beginning of the subtree
    lone.reply(first, told(None, items=[item(LOW, GATE, near[2])]))
    (second,) = asks(lone)
    assert second.endpoint == near[0]  # who was asked is not asked again
    lone.reply(second, told(WHOLE))
    assert operation.result().coverage.rtt == 3


def test_handing_on_has_an_end() -> None:
    """Two liars who name ever new contacts keep a walk for a bounded number of hops."""
    lone = client(GATE)
    operation = find(lone)
    for number in range(1, 100):
        asked = asks(lone)
        if not asked:
            break
        lone.reply(asked[0], told(None, items=[item(LOW, endpoint_of(number))]))
    assert operation.result().coverage.asked < 30
    assert operation.result().coverage.failed_prefixes == (WHOLE,)


# --- what it believes -----------------------------------------------------------------------------


def test_hits_that_lie_about_their_place_or_do_not_match_are_refused() -> None:
    lone = client(GATE)
    operation = find(lone, at_least(price=0.25))
    (gate,) = asks(lone)
    lone.reply(gate, told(LOW, items=[item(HIGH, endpoint_of(1))], hits=[*SMALL, *BIG]))
    (asked,) = asks(lone)
    lone.reply(asked, told(HIGH, hits=BIG))
    expected = [r for r in [*SMALL, *BIG] if r.attributes(SCHEMA)["price"] >= 0.25]
    assert ids(operation.result()) == nodes(expected)
    assert lone.engine.counters["hits_refused"] == 2 + len(BIG)  # two too cheap, six elsewhere


def test_of_two_versions_of_a_machine_the_newer_is_kept() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    old, new = (machine(1, cores=2, mem=4 * GIB, seq=seq, load1=1.5) for seq in (5, 6))
    inner = Prefix.of(old.key(SCHEMA), 90)
    lone.reply(gate, told(LOW, hits=[new], items=[item(HIGH, endpoint_of(1))]))
    (asked,) = asks(lone)
    lone.reply(asked, told(HIGH, hits=[old]))  # not there: refused
    assert [hit.seq for hit in operation.result().hits] == [6]

    operation = find(lone)
    (gate,) = asks(lone)
    lone.reply(gate, told(inner, hits=[old, new, old], items=[item(HIGH, endpoint_of(1))]))
    (asked,) = asks(lone)
    lone.reply(asked, told(HIGH))
    assert [hit.seq for hit in operation.result().hits] == [6]
    assert len(operation.items) == 1  # streamed once


def test_an_answer_that_covers_what_was_not_asked_is_refused() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    lone.reply(gate, told(LOW, items=[item(HIGH, endpoint_of(1), endpoint_of(2))]))
    (asked,) = asks(lone)
    for covers in (WHOLE, LOW):
        lone.reply(asked, told(covers, hits=SMALL))
        (asked,) = asks(lone)
    lone.reply(asked, told(HIGH))
    assert lone.engine.counters["malformed"] == 2
    result = operation.result()
    assert (result.hits, result.coverage.complete) == ((), True)


def test_frontier_items_that_lead_in_circles_are_ignored() -> None:
    """An item must lie inside what was asked, be smaller, and not be answered for already."""
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    answered = Prefix(0b0000, 4)
    circles = [WHOLE, answered, answered.child(0), Prefix(0b11, 2)]
    items = [item(HIGH, endpoint_of(1)), item(Prefix(0b0001, 4), endpoint_of(2))]
    within = [item(one, endpoint_of(9)) for one in (answered, answered.child(0))]
    lone.reply(gate, told(answered, items=[*within, *items]))
    first, second = asks(lone)
    lone.reply(first, told(HIGH, items=[item(one, endpoint_of(9)) for one in [*circles, HIGH]]))
    assert asks(lone) == []
    assert not operation.done
    lone.reply(second, told(prefix_of(second)))
    assert operation.result().coverage.complete
    assert operation.result().coverage.asked == 3


def test_an_item_where_no_key_can_match_is_not_asked() -> None:
    lone = client(GATE)
    operation = find(lone, equal(cores=2))
    (gate,) = asks(lone)
    lone.reply(gate, told(LOW, items=[item(HIGH, endpoint_of(1))]))
    assert asks(lone) == []
    assert operation.result().coverage.complete


def test_a_node_that_is_still_joining_is_passed_over() -> None:
    lone = client(*GATES[:2])
    operation = find(lone)
    (first,) = asks(lone)
    lone.reply(first, JOINING)
    (second,) = asks(lone)
    assert second.endpoint != first.endpoint
    lone.reply(second, told(WHOLE))
    assert operation.result().coverage.complete


def test_when_all_gateways_are_joining_the_whole_is_missing() -> None:
    lone = client(GATE)
    operation = find(lone)
    (first,) = asks(lone)
    lone.reply(first, JOINING)
    result = operation.result()
    assert result.coverage.failed_prefixes == (WHOLE,)
    assert result.coverage.fraction == 0.0


def changed(value: list[Any], at: tuple[int, ...], new: Any) -> list[Any]:
    """A copy of a nested list with one place changed."""
    copy = list(value)
    copy[at[0]] = new if len(at) == 1 else changed(copy[at[0]], at[1:], new)
    return copy


GOOD = body_of(LOW, items=[item(HIGH, endpoint_of(1), bound=1.0)], hits=SMALL[:1])


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        {},
        [],
        GOOD[:2],
        GOOD + [0] * 6,
        changed(GOOD, (0,), 5),
        changed(GOOD, (0,), [bytes(20)]),
        changed(GOOD, (0, 0), b"short"),
        changed(GOOD, (0, 2), bytes(9)),
        changed(GOOD, (0, 3), [LOW.to_wire(), HIGH.to_wire()]),
        changed(GOOD, (0, 3), [[3, b""]]),
        changed(GOOD, (0, 4), -1),
        changed(GOOD, (0, 4), WALK_HITS_MAX + 1),
        changed(GOOD, (0, 5), [1.0, bytes(20)]),
        changed(GOOD, (0, 6), "many"),
        changed(GOOD, (1,), [7]),
        changed(GOOD, (1,), [item(HIGH)] * 161),
        changed(GOOD, (1, 0), item(HIGH)[:4]),
        changed(GOOD, (1, 0, 1), -1),
        changed(GOOD, (1, 0, 2), 5),
        changed(GOOD, (1, 0, 2), float("nan")),
        changed(GOOD, (1, 0, 2), float("inf")),
        changed(GOOD, (1, 0, 3), float("nan")),
        changed(GOOD, (1, 0, 3), 1),
        changed(GOOD, (1, 0, 4), [[bytes(20), "host", 0]]),
        changed(GOOD, (1, 0, 4), [[bytes(20), "", 7400]]),
        changed(GOOD, (2,), [[0.5]]),
        changed(GOOD, (2, 0, 0), -1.0),
        changed(GOOD, (2, 0, 0), float("nan")),
        changed(GOOD, (2, 0, 1), ["not", "a", "record"]),
        changed(GOOD, (2, 0, 1), [[[[[[[[[[]]]]]]]]]]),
    ],
)
def test_a_malformed_answer_is_counted_and_the_next_contact_is_asked(value: Any) -> None:
    lone = client(*GATES[:2])
    operation = find(lone)
    (first,) = asks(lone)
    for part in bundled(value):
        lone.reply(first, part)
    assert lone.engine.counters["malformed"] == 1
    assert operation.items == type(operation.items)()
    (second,) = asks(lone)
    assert second.endpoint != first.endpoint
    assert len(lone.core.calls) == 1
    lone.reply(second, told(WHOLE))
    assert operation.result().coverage.complete


def test_the_first_good_answer_is_believed() -> None:
    lone = client(GATE)
    operation = find(lone)
    (first,) = asks(lone)
    (part,) = bundled([*GOOD, "of a later version"])
    lone.reply(first, [*part, "and this too"])
    (second,) = asks(lone)
    assert second.endpoint == endpoint_of(1)
    lone.reply(second, told(HIGH))
    assert operation.result().coverage.complete


# --- cookies and parts ----------------------------------------------------------------------------


def stranger(cookie: bytes = b"12345678") -> list[Any]:
    """What a member says to who has not proved its address."""
    (part,) = bundled([[bytes(20), 3, cookie, [], 0, None, 0], None, []])
    return part


def test_a_cookie_is_shown_and_kept() -> None:
    lone = client(GATE)
    operation = find(lone)
    (first,) = asks(lone)
    lone.reply(first, stranger())
    (second,) = asks(lone)
    assert (second.endpoint, second.args[1]) == (GATE, b"12345678")
    lone.reply(second, told(WHOLE))
    assert operation.result().coverage.asked == 2
    find(lone)
    (third,) = asks(lone)
    assert third.args[1] == b"cookie!!"  # the latest


def test_two_items_may_show_the_same_cookie() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    halves = [HIGH.child(0), HIGH.child(1)]
    lone.reply(gate, told(LOW, items=[item(half, endpoint_of(1)) for half in halves]))
    for asked in asks(lone):
        lone.reply(asked, stranger())
    again = asks(lone)
    assert [one.args[1] for one in again] == [b"12345678"] * 2
    for asked in again:
        lone.reply(asked, told(prefix_of(asked)))
    assert operation.result().coverage.complete


def test_who_always_asks_for_another_cookie_is_passed_over() -> None:
    lone = client(*GATES[:2])
    operation = find(lone)
    (first,) = asks(lone)
    lone.reply(first, stranger(b"cookie-1"))
    (second,) = asks(lone)
    lone.reply(second, stranger(b"cookie-2"))
    assert lone.engine.counters["malformed"] == 1
    (third,) = asks(lone)
    assert third.endpoint != first.endpoint
    lone.reply(third, told(WHOLE))
    assert operation.result().coverage.complete


def parts_of(count: int, records: list[Record] = SMALL) -> list[list[Any]]:
    """An answer of so many hits, cut into as many datagrams."""
    body = msgspec.msgpack.encode(body_of(WHOLE, hits=records[:count]))
    step = -(-len(body) // count)
    chunks = [body[at : at + step] for at in range(0, len(body), step)]
    return [[n, count, crc32(body), 0, chunk] for n, chunk in enumerate(chunks)]


def test_parts_may_come_in_any_order_and_twice() -> None:
    lone = client(GATE)
    operation = find(lone)
    (asked,) = asks(lone)
    parts = parts_of(3)
    for part in (parts[2], parts[0], parts[2], parts[0]):
        lone.reply(asked, part)
        assert not operation.done
    lone.reply(asked, parts[1])
    assert ids(operation.result()) == nodes(SMALL[:3])
    assert len(lone.core.calls) == 0


@pytest.mark.parametrize("counts", [(6, 2), (2, 2)])
def test_parts_of_two_answers_are_not_mixed(counts: tuple[int, int]) -> None:
    """A retransmission may be answered from a newer state, in as many datagrams or in others."""
    older, newer = parts_of(counts[0]), parts_of(counts[1], SMALL[1:])
    lone = client(GATE)
    operation = find(lone)
    (asked,) = asks(lone)
    lone.reply(asked, older[-1])
    lone.reply(asked, newer[1])
    assert not operation.done
    assert lone.engine.counters["malformed"] == 0
    lone.reply(asked, newer[0])
    assert len(ids(operation.result())) == 2


def test_when_a_part_is_lost_the_next_contact_is_asked() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    lone.reply(gate, told(LOW, items=[item(HIGH, endpoint_of(1), endpoint_of(2))]))
    (asked,) = asks(lone)
    lone.reply(asked, parts_of(3)[1])
    second = until_asks(lone, endpoint_of(2))
    lone.reply(second, told(HIGH, hits=BIG))
    assert ids(operation.result()) == nodes(BIG)


# --- limits and pages -----------------------------------------------------------------------------


def test_a_limit_is_kept_exactly_and_the_rest_is_in_the_cursor() -> None:
    lone = client(GATE)
    operation = find(lone, limit=4)
    (gate,) = asks(lone)
    ordered = sorted(SMALL, key=lambda record: record.key(SCHEMA))
    lone.reply(gate, told(LOW, hits=ordered, items=[item(HIGH, endpoint_of(1))]))
    first = operation.result()
    assert [bytes(hit.id) for hit in first.hits] == [record.node_id for record in ordered[:4]]
    assert (first.coverage.limited, first.coverage.complete) == (True, False)
    assert first.coverage.failed_prefixes == ()
    assert first.matches == 6
    assert first.cursor is not None

    operation = find(lone, limit=4, cursor=first.cursor)
    asked = {prefix_of(one): one for one in asks(lone)}
    assert set(asked) == {LOW, HIGH}
    assert asked[LOW].args[7] == [ordered[3].key(SCHEMA)]
    assert asked[HIGH].args[7] is None
    assert asked[HIGH].endpoint == endpoint_of(1)
    assert asked[LOW].endpoint == GATE  # whoever answered did not say who else can
    lone.reply(asked[LOW], told(LOW, hits=ordered[4:], matches=6))
    lone.reply(asked[HIGH], told(HIGH, hits=BIG[:1]))
    second = operation.result()
    assert ids(second) == nodes([*ordered[4:], BIG[0]])
    assert second.coverage.complete
    assert second.matches == 1  # those of the page were counted by the first query
    assert second.cursor is None


def test_a_full_answer_that_says_there_is_more_is_resumed_there() -> None:
    lone = client(GATE)
    operation = find(lone, limit=3)
    (gate,) = asks(lone)
    ordered = sorted(SMALL, key=lambda record: record.key(SCHEMA))
    after = [ordered[2].key(SCHEMA)]
    lone.reply(gate, told(WHOLE, hits=ordered[:3], matches=6, after=after))
    result = operation.result()
    assert (result.coverage.complete, result.coverage.limited) == (False, True)
    find(lone, limit=3, cursor=result.cursor)
    (asked,) = asks(lone)
    assert asked.args[7] == after
    assert asked.endpoint == GATE


def test_when_the_limit_was_met_elsewhere_an_answer_is_left_whole() -> None:
    lone = client(GATE)
    operation = find(lone, limit=2)
    (gate,) = asks(lone)
    halves = [HIGH.child(0), HIGH.child(1)]
    items = [item(half, endpoint_of(n), estimate=1.0) for n, half in enumerate(halves)]
    lone.reply(gate, told(LOW, hits=SMALL[:1], items=items))
    first = asks(lone)[0]
    inside = [record for record in BIG if prefix_of(first).holds(record.key(SCHEMA))]
    assert inside
    lone.reply(first, told(prefix_of(first), hits=inside[:1], matches=len(inside)))
    result = operation.result()
    assert len(result.hits) == 2
    assert result.cursor is not None
    assert len(lone.core.calls) == 0


def test_a_page_is_asked_of_the_same_contact_first() -> None:
    lone = client(*GATES[:2])
    operation = find(lone)
    (gate,) = asks(lone)
    ordered = sorted(SMALL, key=lambda record: record.key(SCHEMA))
    after = [ordered[2].key(SCHEMA)]
    lone.reply(gate, told(WHOLE, hits=ordered[:3], matches=6, after=after))
    (page,) = asks(lone)
    assert (page.endpoint, page.args[7]) == (gate.endpoint, after)
    lone.reply(page, told(WHOLE, hits=ordered[3:], matches=6))
    result = operation.result()
    assert ids(result) == nodes(SMALL)
    assert (result.matches, result.coverage.rtt) == (6, 2)


def test_a_page_of_who_has_split_since_loses_nothing() -> None:
    """The rest of the page lies in its sibling subtrees, behind the same place."""
    lone = client(*GATES[:2])
    operation = find(lone)
    (gate,) = asks(lone)
    records = sorted([*SMALL, *BIG], key=lambda record: record.key(SCHEMA))
    after = [records[2].key(SCHEMA)]
    lone.reply(gate, told(WHOLE, hits=records[:3], matches=12, after=after))
    (page,) = asks(lone)
    items = [item(HIGH, endpoint_of(1))]
    lone.reply(page, told(LOW, hits=records[3:6], matches=6, items=items))
    (rest,) = asks(lone)
    assert (prefix_of(rest), rest.args[7]) == (HIGH, after)
    lone.reply(rest, told(HIGH, hits=records[6:], matches=6))
    result = operation.result()
    assert ids(result) == nodes(records)
    assert (result.matches, result.coverage.complete) == (12, True)


def test_counting_asks_everybody_and_keeps_nothing() -> None:
    lone = client(GATE)
    operation = find(lone, limit=2, count_only=True)
    (gate,) = asks(lone)
    assert gate.args[6] == 2
    lone.reply(gate, told(LOW, matches=40, items=[item(HIGH, endpoint_of(1))]))
    (asked,) = asks(lone)
    lone.reply(asked, told(HIGH, matches=2))
    result = operation.result()
    assert (result.matches, result.hits) == (42, ())
    assert result.coverage.complete


def test_a_frontier_over_its_limit_is_reported_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "WALK_FRONTIER_MAX", 2)
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    items = [item(Prefix(1, n), endpoint_of(n)) for n in range(3, 7)]
    lone.reply(gate, told(Prefix(0, 6), items=items))
    for asked in asks(lone):
        lone.reply(asked, told(prefix_of(asked)))
    coverage = operation.result().coverage
    assert len(coverage.failed_prefixes) == 2
    assert not coverage.complete
    assert lone.engine.counters["frontier_overflows"] == 2


# --- orders ---------------------------------------------------------------------------------------


def by_price(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.attributes(SCHEMA)["price"])


def test_an_ordered_query_ends_when_no_bound_can_beat_what_it_has() -> None:
    lone = client(GATE)
    operation = find(lone, limit=2, order=order("price"))
    (gate,) = asks(lone)
    items = [
        item(HIGH, endpoint_of(1), bound=0.15, estimate=2.0),
        item(Prefix(0b0001, 4), endpoint_of(2), bound=0.3, estimate=2.0),
    ]
    lone.reply(gate, told(Prefix(0b0000, 4), hits=[], items=items))
    first, second = asks(lone)
    assert prefix_of(first) == HIGH
    lone.reply(second, told(prefix_of(second)))
    assert not operation.done
    lone.reply(first, told(HIGH, hits=BIG))
    result = operation.result()
    assert [hit["price"] for hit in result.hits] == [
        record.attributes(SCHEMA)["price"] for record in by_price(BIG)[:2]
    ]
    assert list(operation.items) == list(result.hits)  # streamed at the end, in order


def test_where_enough_is_expected_the_next_best_bound_waits() -> None:
    """What comes may beat its bound: then it is never asked."""
    lone = client(GATE)
    operation = find(lone, limit=2, order=order("price"))
    (gate,) = asks(lone)
    items = [
        item(HIGH, endpoint_of(1), bound=0.15, estimate=3.0),
        item(Prefix(0b0001, 4), endpoint_of(2), bound=9.0, estimate=3.0),
    ]
    lone.reply(gate, told(Prefix(0b0000, 4), items=items))
    (first,) = asks(lone)
    assert prefix_of(first) == HIGH
    lone.reply(first, told(HIGH, hits=BIG))
    assert asks(lone) == []
    assert operation.result().coverage.asked == 2


def test_a_subtree_whose_bound_is_worse_is_not_asked() -> None:
    lone = client(GATE)
    operation = find(lone, limit=2, order=order("price"))
    (gate,) = asks(lone)
    lone.reply(gate, told(LOW, hits=SMALL, items=[item(HIGH, endpoint_of(1), bound=0.21)]))
    assert asks(lone) == []
    result = operation.result()
    assert [bytes(hit.id) for hit in result.hits] == [r.node_id for r in SMALL[:2]]
    assert result.coverage.limited
    assert not result.coverage.complete


@pytest.mark.parametrize(("bound", "asked"), [(0.2, 0), (0.19, 1)])
def test_at_a_tie_the_key_decides_whether_a_subtree_is_asked(bound: float, asked: int) -> None:
    """What the next page would begin behind must not lie behind it already."""
    lone = client(GATE)
    find(lone, limit=2, order=order("price"))
    (gate,) = asks(lone)
    lone.reply(gate, told(LOW, hits=SMALL, items=[item(HIGH, endpoint_of(1), bound=bound)]))
    assert len(asks(lone)) == asked

    find(lone, limit=2, order=order("cores", descending=True))
    (gate,) = asks(lone)
    lone.reply(gate, told(HIGH, hits=BIG, items=[item(LOW, endpoint_of(1), bound=-512.0)]))
    (one,) = asks(lone)
    assert prefix_of(one) == LOW  # its keys come first


def test_a_page_that_cannot_be_better_is_not_asked_for() -> None:
    lone = client(GATE)
    operation = find(lone, limit=2, order=order("price"))
    (gate,) = asks(lone)
    cheap = by_price(SMALL)
    after = [0.3, cheap[2].key(SCHEMA)]
    lone.reply(gate, told(WHOLE, hits=cheap[:3], matches=6, after=after))
    assert asks(lone) == []
    assert operation.result().cursor is not None


def test_a_page_that_may_be_better_is_asked_for() -> None:
    lone = client(GATE)
    operation = find(lone, limit=3, order=order("price"))
    (gate,) = asks(lone)
    cheap = by_price(SMALL)
    after = [0.1, cheap[0].key(SCHEMA)]
    lone.reply(gate, told(WHOLE, hits=cheap[:1], matches=6, after=after))
    (page,) = asks(lone)
    assert page.args[7] == after
    after = [0.3, cheap[2].key(SCHEMA)]
    lone.reply(page, told(WHOLE, hits=cheap[1:3], matches=6, after=after))
    result = operation.result()
    assert [bytes(hit.id) for hit in result.hits] == [r.node_id for r in cheap[:3]]


def test_an_ordered_query_waits_for_pages_that_are_under_way() -> None:
    lone = client(GATE)
    operation = find(lone, limit=2, order=order("price"))
    (gate,) = asks(lone)
    cheap, big = by_price(SMALL), by_price(BIG)
    items = [item(HIGH, endpoint_of(1), bound=0.01)]
    after = [0.1, cheap[0].key(SCHEMA)]
    lone.reply(gate, told(LOW, hits=cheap[:1], matches=6, items=items, after=after))
    asked = {prefix_of(one): one for one in asks(lone)}
    lone.reply(asked[HIGH], told(HIGH, hits=big[:2], matches=6))
    assert not operation.done
    lone.reply(asked[LOW], told(LOW, hits=cheap[1:], matches=6))
    assert [bytes(hit.id) for hit in operation.result().hits] == [
        record.node_id for record in by_price([*SMALL, *BIG])[:2]
    ]


def test_an_order_without_limit_gives_everything_in_order() -> None:
    lone = client(GATE)
    operation = find(lone, order=order("price", descending=True))
    (gate,) = asks(lone)
    lone.reply(gate, told(WHOLE, hits=[*SMALL, *BIG]))
    result = operation.result()
    truth = by_price([*SMALL, *BIG])[::-1]
    assert [bytes(hit.id) for hit in result.hits] == [record.node_id for record in truth]
    assert result.cursor is None


# --- the end --------------------------------------------------------------------------------------


def test_a_deadline_ends_every_walk_and_says_what_is_missing() -> None:
    lone = client(GATE)
    operation = find(lone)
    begun = lone.now
    (asked,) = asks(lone)
    number = 0
    while not operation.done:
        number += 1
        lone.wait(0.2)
        halves = [HIGH.child(number % 2), HIGH.child(1 - number % 2)]
        fresh = [item(one, endpoint_of(number)) for one in halves]
        lone.reply(asked, told(None, items=fresh))
        asked = next(iter(asks(lone)), asked)
        if number > 20:
            lone.wait(0.4)
    assert lone.now - begun <= OPERATION_DEADLINE_S + 1.0
    assert not operation.result().coverage.complete
    assert len(lone.core.calls) == 0


def test_at_the_deadline_what_waits_and_what_is_asked_has_failed() -> None:
    lone = client(GATE)
    operation = find(lone)
    (gate,) = asks(lone)
    lengths = range(3, 23)
    items = [item(Prefix(1, n), *map(endpoint_of, range(n * 20, n * 20 + 16))) for n in lengths]
    for part in bundled(body_of(Prefix(0, 22), items=items, hits=[])):
        lone.reply(gate, part)
    lone.wait(OPERATION_DEADLINE_S - 0.01)
    assert not operation.done
    lone.wait(0.02)
    coverage = operation.result().coverage
    assert {prefix.length for prefix in coverage.failed_prefixes} == {*lengths}
    assert not coverage.limited
    assert len(lone.core.calls) == 0
    asks(lone)
    lone.wait(5.0)
    assert asks(lone) == []


def test_a_cancelled_walk_leaves_no_call_and_no_timer() -> None:
    lone = client(GATE)
    timers = len(lone.core.timers)
    operation = find(lone)
    (gate,) = asks(lone)
    items = [item(Prefix(1, n), endpoint_of(n)) for n in range(3, 9)]
    lone.reply(gate, told(Prefix(0, 8), items=items))
    late = asks(lone)
    assert len(late) == WALK_ALPHA
    operation.cancel(lone.now)
    with pytest.raises(Closed):
        operation.result()
    assert len(lone.core.calls) == 0
    assert len(lone.core.timers) == timers
    for asked in late:
        lone.reply(asked, told(prefix_of(asked)))
    assert lone.engine.counters["replies_unasked"] == WALK_ALPHA
    operation.cancel(lone.now)


def test_a_finished_walk_leaves_no_call_and_no_timer() -> None:
    lone = client(GATE)
    timers = len(lone.core.timers)
    find(lone, limit=1)
    (gate,) = asks(lone)
    items = [item(Prefix(1, n), endpoint_of(n), estimate=0.1) for n in range(3, 9)]
    lone.reply(gate, told(Prefix(0, 8), items=items))
    asked = asks(lone)
    high = next(one for one in asked if prefix_of(one) == HIGH)
    lone.reply(high, told(HIGH, hits=BIG[:1]))
    assert len(lone.core.calls) == 0
    assert len(lone.core.timers) == timers


# --- cursors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cursor", [b"", b"\xc1", b"\x92\x01", b"\x92\x03\x90", b"abc", bytes(70000)]
)
def test_a_foreign_cursor_is_the_callers_fault(cursor: bytes) -> None:
    lone = client(GATE)
    timers = len(lone.core.timers)
    with pytest.raises(UsageError, match="cursor"):
        find(lone, cursor=cursor)
    assert asks(lone) == []
    assert len(lone.core.timers) == timers


def test_a_cursor_of_another_order_is_refused() -> None:
    lone = Lone(SMALL[0], size=16).settle(SMALL[1:])
    by = order("price")
    plain, ordered = find(lone, limit=2).result(), find(lone, limit=2, order=by).result()
    with pytest.raises(UsageError, match="another order"):
        find(lone, limit=2, order=by, cursor=plain.cursor)
    with pytest.raises(UsageError, match="another order"):
        find(lone, limit=2, cursor=ordered.cursor)


@pytest.mark.parametrize("by", [None, order("price"), order("cores", descending=True)])
def test_pages_of_the_own_group_are_whole(by: Any) -> None:
    lone = Lone(SMALL[0], size=16).settle([*SMALL[1:], *BIG])
    seen: list[bytes] = []
    cursor = None
    while True:
        result = find(lone, limit=5, order=by, cursor=cursor).result()
        seen += [bytes(hit.id) for hit in result.hits]
        cursor = result.cursor
        if cursor is None:
            break
    assert len(seen) == 12
    assert set(seen) == nodes([*SMALL, *BIG])


def test_resuming_where_nobody_is_known_any_more_is_a_gap_not_an_error() -> None:
    lone = Lone(SMALL[0], size=8).settle([*SMALL[1:], *BIG])
    operation = find(lone, limit=len(SMALL))
    first = operation.result()
    assert first.coverage.limited
    for record in BIG:
        lone.hub.buckets.forget(record.key(SCHEMA))
    operation = find(lone, limit=9, cursor=first.cursor)
    for _ in range(10):
        lone.wait(2.0)
    result = operation.result()
    assert result.coverage.failed_prefixes == (HIGH,)


def test_resuming_asks_those_named_by_the_cursor_too() -> None:
    lone = Lone(SMALL[0], size=8).settle([*SMALL[1:], *BIG])
    cursor = find(lone, limit=len(SMALL)).result().cursor
    known = {record.endpoint for record in BIG}
    for record in BIG:
        lone.hub.buckets.forget(record.key(SCHEMA))
    operation = find(lone, limit=9, cursor=cursor)
    (asked,) = asks(lone)
    assert asked.endpoint in known
    lone.reply(asked, told(HIGH, hits=BIG))
    assert ids(operation.result()) == nodes(BIG)


def test_a_resumed_subtree_of_others_is_asked_of_its_contacts() -> None:
    lone = Lone(SMALL[0], size=8).settle([*SMALL[1:], *BIG])
    assert {contact_of(record).id for record in BIG}  # they are met, not members
    cursor = find(lone, limit=len(SMALL)).result().cursor
    operation = find(lone, limit=9, cursor=cursor)
    (asked,) = asks(lone)
    assert prefix_of(asked) == HIGH
    lone.reply(asked, told(HIGH, hits=BIG))
    assert ids(operation.result()) == nodes(BIG)
    assert operation.result().coverage.complete


# --- a real hub -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """Forty machines in groups of at most eight, with ties and missing values."""
    fleet = Fleet(seed=7, size=8)
    fleet.grow(40)
    assert len({node.engine.hub.group.prefix for node in fleet.cluster.nodes}) > 5
    return fleet


def test_every_match_is_found(fleet: Fleet) -> None:
    for _ in range(40):
        predicate, node = fleet.some_predicate(), fleet.rng.choice(fleet.cluster.nodes)
        result = fleet.find(node, predicate)
        assert ids(result) == nodes(fleet.truth(predicate))
        assert (result.coverage.complete, result.coverage.fraction) == (True, 1.0)
        assert result.matches == len(result.hits)
        counted = fleet.find(node, predicate, count_only=True)
        assert (counted.matches, counted.hits) == (result.matches, ())


def test_a_light_client_finds_the_same(fleet: Fleet) -> None:
    (node,) = fleet.cluster.add()
    hub = node.engine.hub
    for _ in range(10):
        hub.gateways = [fleet.rng.choice(fleet.cluster.nodes[:40]).endpoint]
        predicate = fleet.some_predicate()
        result = fleet.find(node, predicate)
        assert ids(result) == nodes(fleet.truth(predicate))
        assert result.coverage.complete
    fleet.cluster.crash([node])


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_pages_give_every_match_once(fleet: Fleet, limit: int) -> None:
    for _ in range(10):
        predicate, node = fleet.some_predicate(), fleet.rng.choice(fleet.cluster.up())
        truth = nodes(fleet.truth(predicate))
        seen: list[bytes] = []
        cursor = None
        for _ in range(100):
            result = fleet.find(node, predicate, limit=limit, cursor=cursor)
            seen += [bytes(hit.id) for hit in result.hits]
            assert len(result.hits) == min(limit, len(truth) - len(seen) + len(result.hits))
            cursor = result.cursor
            if cursor is None:
                break
        assert len(seen) == len(set(seen))
        assert set(seen) == truth


@pytest.mark.parametrize("name", ["cores", "price", "mem", "load1"])
@pytest.mark.parametrize("descending", [False, True])
def test_the_best_are_exact_and_pages_go_on_from_there(
    fleet: Fleet, name: str, descending: bool
) -> None:
    by = order(name, descending=descending)
    for _ in range(4):
        predicate, node = fleet.some_predicate(), fleet.rng.choice(fleet.cluster.up())
        matching = fleet.truth(predicate)
        truth = sorted(order_value(record, SCHEMA, by) for record in matching)
        seen: list[Record] = []
        cursor = None
        for _ in range(100):
            result = fleet.find(node, predicate, limit=4, order=by, cursor=cursor)
            seen += [hit.record for hit in result.hits]
            cursor = result.cursor
            if cursor is None:
                break
        assert [order_value(record, SCHEMA, by) for record in seen] == truth
        assert nodes(seen) == nodes(matching)


def test_after_a_third_died_at_once_nothing_alive_is_lost_in_silence() -> None:
    fleet = Fleet(seed=9, size=8)
    everyone = fleet.grow(40)
    fleet.cluster.crash(fleet.rng.sample(everyone, 13))
    for _ in range(15):
        predicate, node = fleet.some_predicate(), fleet.rng.choice(fleet.cluster.up())
        result = fleet.find(node, predicate)
        got = ids(result)
        for record in fleet.truth(predicate):
            place = record.key(SCHEMA)
            failed = any(prefix.holds(place) for prefix in result.coverage.failed_prefixes)
            assert record.node_id in got or failed
        assert result.coverage.complete == (not result.coverage.failed_prefixes)
    fleet.cluster.check()


# --- several members for one subtree --------------------------------------------------------------


def answers(lone: Lone, asked: Asked, covers: Prefix, by: Record, **options: Any) -> None:
    """Let the node of `by` answer."""
    lone.reply(asked, told(covers, key=by.key(SCHEMA), **options))


@pytest.mark.parametrize("verify", [0, 5, True, 2.0, None])
def test_a_number_of_members_that_cannot_be_is_refused(verify: Any) -> None:
    lone = client(GATE)
    with pytest.raises(UsageError, match=r"verify must be 1\.\.4 members, got"):
        find(lone, verify=verify)
    assert asks(lone) == []


def test_a_second_member_adds_what_the_first_one_missed() -> None:
    lone = client(GATE)
    operation = find(lone, verify=2)
    (first,) = asks(lone)
    assert first.args[6] == NAME_OTHERS
    answers(lone, first, WHOLE, SMALL[0], hits=SMALL[:4], others=SMALL[1:3])
    assert ids_of(operation) == nodes(SMALL[:4])  # nobody waits for the second to see these
    (second,) = asks(lone)
    assert (prefix_of(second), second.endpoint) == (WHOLE, SMALL[1].endpoint)
    assert second.args[6] == 0  # it is the last: no others are wanted
    answers(lone, second, WHOLE, SMALL[1], hits=SMALL[2:])
    result = operation.result()
    assert ids(result) == nodes(SMALL)
    assert result.matches == len(SMALL)  # not the four that each of them knows
    assert len(operation.items) == len(SMALL)
    coverage = result.coverage
    assert (coverage.complete, coverage.verified, coverage.asked, coverage.rtt) == (True, 2, 2, 2)


def ids_of(operation: Operation[FindResult]) -> set[bytes]:
    return {bytes(hit.id) for hit in operation.items}


def test_of_two_versions_the_newer_is_in_the_result_whoever_had_it() -> None:
    lone = client(GATE)
    operation = find(lone, verify=2)
    (first,) = asks(lone)
    old, new = (machine(1, cores=2, mem=4 * GIB, seq=seq) for seq in (5, 6))
    answers(lone, first, WHOLE, BIG[0], hits=[old], others=BIG[1:2])
    (second,) = asks(lone)
    answers(lone, second, WHOLE, BIG[1], hits=[new])
    result = operation.result()
    assert [hit.seq for hit in result.hits] == [6]
    assert result.matches == 1


def test_without_a_hint_the_members_among_the_hits_are_asked() -> None:
    lone = client(GATE)
    operation = find(lone, verify=2)
    (first,) = asks(lone)
    rows = [foreign("vm-1"), foreign("vm-2")]
    answers(lone, first, WHOLE, SMALL[2], hits=[*rows, *SMALL[2:4]])
    (second,) = asks(lone)
    assert second.endpoint == SMALL[3].endpoint  # neither a row nor itself
    answers(lone, second, WHOLE, SMALL[3], hits=[*rows, *SMALL[2:4]])
    assert operation.result().coverage.verified == 2


def test_contacts_of_the_subtree_are_asked_before_those_the_first_one_names() -> None:
    lone = client(GATE)
    operation = find(lone, verify=2)
    (gate,) = asks(lone)
    answers(lone, gate, LOW, SMALL[0], items=[item(HIGH, *GATES[1:])], others=SMALL[1:2])
    by_prefix = {prefix_of(asked): asked for asked in asks(lone)}
    assert by_prefix[LOW].endpoint == SMALL[1].endpoint
    answers(lone, by_prefix[LOW], LOW, SMALL[1])
    answers(lone, by_prefix[HIGH], HIGH, BIG[0], hits=BIG, others=BIG[1:2])
    (check,) = asks(lone)
    assert (prefix_of(check), check.endpoint) == (HIGH, GATES[2])
    answers(lone, check, HIGH, BIG[2], hits=BIG)
    assert operation.result().coverage.verified == 2


def test_who_answers_under_another_address_does_not_count_twice() -> None:
    lone = client(*GATES[:1])
    operation = find(lone, verify=2)
    (first,) = asks(lone)
    named = [machine(40, cores=2), machine(41, cores=2)]
    answers(lone, first, WHOLE, SMALL[0], hits=SMALL, others=named)
    (second,) = asks(lone)
    answers(lone, second, WHOLE, SMALL[0], hits=SMALL)
    (third,) = asks(lone)
    assert {second.endpoint, third.endpoint} == {record.endpoint for record in named}
    answers(lone, third, WHOLE, SMALL[1], hits=SMALL)
    assert operation.result().coverage.verified == 2


def test_where_nobody_else_is_the_coverage_says_so_and_nothing_has_failed() -> None:
    lone = client(GATE)
    operation = find(lone, verify=2)
    (first,) = asks(lone)
    answers(lone, first, WHOLE, SMALL[0], hits=SMALL[:1], others=[])
    coverage = operation.result().coverage
    assert (coverage.complete, coverage.fraction, coverage.verified) == (True, 1.0, 1)
    assert (coverage.failed_prefixes, operation.result().cursor) == ((), None)


def test_where_no_key_can_match_nobody_is_asked_twice() -> None:
    lone = Lone(SMALL[0], size=8).settle([*SMALL[1:], *BIG])
    operation = find(lone, at_least(cores=64), verify=2)
    (first,) = asks(lone)
    answers(lone, first, HIGH, BIG[0], hits=BIG)
    (check,) = asks(lone)  # about those, not about the own group of small machines
    assert prefix_of(check) == HIGH
    answers(lone, check, HIGH, BIG[1], hits=BIG)
    assert operation.result().coverage.verified == 2


def test_a_dead_second_member_is_followed_by_another() -> None:
    lone = client(GATE)
    operation = find(lone, verify=2)
    (first,) = asks(lone)
    answers(lone, first, WHOLE, SMALL[0], others=SMALL[1:3])
    (dead,) = asks(lone)
    alive = until_asks(lone, SMALL[2].endpoint)
    assert dead.endpoint == SMALL[1].endpoint
    answers(lone, alive, WHOLE, SMALL[2])
    assert operation.result().coverage.verified == 2


def test_a_subtree_nobody_answered_for_was_verified_by_none() -> None:
    lone = client(GATE)
    operation = find(lone)
    asks(lone)
    lone.wait(OPERATION_DEADLINE_S + 1)
    assert operation.result().coverage.verified == 0


def test_a_second_member_of_a_smaller_group_leaves_the_rest_to_others() -> None:
    """They draw the line differently: what each covers is compared where they overlap."""
    lone = client(GATE)
    operation = find(lone, verify=2)
    (first,) = asks(lone)
    answers(lone, first, WHOLE, SMALL[0], hits=SMALL[:5], others=SMALL[1:2])
    (second,) = asks(lone)
    items = [item(HIGH, SMALL[0].endpoint, endpoint_of(99))]
    items[0][4][0][0] = SMALL[0].key(SCHEMA)
    answers(lone, second, LOW, SMALL[1], hits=SMALL[1:], items=items)
    (rest,) = asks(lone)
    assert (prefix_of(rest), rest.endpoint) == (HIGH, endpoint_of(99))
    answers(lone, rest, HIGH, BIG[0], hits=BIG[:1])
    result = operation.result()
    assert ids(result) == nodes([*SMALL, BIG[0]])
    assert (result.matches, result.coverage.verified) == (7, 2)


def test_the_own_group_is_verified_too() -> None:
    own, *members = SMALL
    lone = Lone(own, size=16).settle(members)
    operation = find(lone, verify=3)
    (second,) = asks(lone)
    assert second.endpoint in {record.endpoint for record in members}
    by = next(record for record in members if record.endpoint == second.endpoint)
    others = [record for record in members if record is not by]
    answers(lone, second, prefix_of(second), by, hits=BIG[:1], others=others)
    (third,) = asks(lone)
    assert third.endpoint not in {own.endpoint, by.endpoint}
    last = next(record for record in members if record.endpoint == third.endpoint)
    answers(lone, third, prefix_of(third), last, hits=BIG[1:2])
    result = operation.result()
    assert ids(result) == nodes([*SMALL, *BIG[:2]])
    assert (result.matches, result.coverage.verified, result.coverage.rtt) == (8, 3, 2)


def test_a_node_alone_verifies_with_itself() -> None:
    result = find(Lone(SMALL[0], size=16).settle(), verify=2).result()
    assert (result.coverage.verified, result.coverage.complete) == (1, True)


def test_a_count_takes_the_largest_word_for_each_subtree() -> None:
    lone = client(GATE)
    operation = find(lone, verify=2, count_only=True)
    (first,) = asks(lone)
    assert first.args[6] == COUNT_ONLY | NAME_OTHERS
    items = [item(HIGH, endpoint_of(5), endpoint_of(6))]
    answers(lone, first, LOW, SMALL[0], matches=40, others=SMALL[1:2], items=items)
    for asked in asks(lone):
        by, matches = (SMALL[1], 39) if prefix_of(asked) == LOW else (BIG[0], 6)
        answers(lone, asked, prefix_of(asked), by, matches=matches)
    (last,) = asks(lone)
    answers(lone, last, HIGH, BIG[1], matches=8)
    assert operation.result().matches == 48


def test_a_check_is_made_after_the_last_page_and_asks_from_the_beginning() -> None:
    lone = client(GATE)
    operation = find(lone, verify=2)
    (first,) = asks(lone)
    ordered = sorted(SMALL, key=lambda record: record.key(SCHEMA))
    after = [ordered[2].key(SCHEMA)]
    answers(
        lone, first, WHOLE, SMALL[0], hits=ordered[:3], matches=5, after=after, others=SMALL[:3]
    )
    (page,) = asks(lone)
    assert page.args[7] == after
    answers(lone, page, WHOLE, SMALL[0], hits=ordered[3:5], matches=5, others=SMALL[:3])
    (check,) = asks(lone)
    assert (check.args[7], check.endpoint != SMALL[0].endpoint) == (None, True)
    answers(lone, check, WHOLE, SMALL[1], hits=ordered)
    result = operation.result()
    assert ids(result) == nodes(SMALL)
    assert (result.matches, result.coverage.verified) == (6, 2)


def test_a_limit_met_by_the_first_member_leaves_the_check_to_the_cursor() -> None:
    lone = client(GATE)
    operation = find(lone, verify=2, limit=3)
    (first,) = asks(lone)
    ordered = sorted(SMALL, key=lambda record: record.key(SCHEMA))
    seen = ordered[1:4]  # it has missed the very first
    answers(lone, first, WHOLE, SMALL[0], hits=seen, others=SMALL[1:3])
    page = operation.result()
    assert ids(page) == nodes(seen)
    coverage = page.coverage
    assert (coverage.limited, coverage.complete, coverage.verified) == (True, False, 1)
    assert coverage.fraction == 1.0

    operation = find(lone, verify=2, limit=3, cursor=page.cursor)
    (check,) = asks(lone)
    assert check.endpoint in {record.endpoint for record in SMALL[1:3]}
    assert check.args[4] == 6  # three may be those that were given already
    answers(lone, check, WHOLE, SMALL[1], hits=ordered[:5])
    page = operation.result()
    assert ids(page) == nodes([ordered[0], ordered[4]])
    assert (page.cursor, page.coverage.verified, page.coverage.complete) == (None, 2, True)


def test_a_cursor_of_other_members_is_refused() -> None:
    lone = client(GATE)
    cursors = {}
    for verify in (1, 2, 3):
        operation = find(lone, verify=verify, limit=1)
        answers(lone, asks(lone)[0], WHOLE, SMALL[0], hits=SMALL[:2], others=SMALL[1:3])
        cursors[verify] = operation.result().cursor
    for made, cursor in cursors.items():
        for verify in {1, 2, 3} - {made}:
            with pytest.raises(UsageError, match="another order or verify"):
                find(lone, verify=verify, limit=1, cursor=cursor)


def test_the_best_are_verified_where_they_may_be_better() -> None:
    lone = client(GATE)
    operation = find(lone, order=order("price"), limit=1, verify=2)
    (first,) = asks(lone)
    cheap, dear = sorted(SMALL, key=lambda record: record.attributes(SCHEMA)["price"])[:2]
    items = [item(HIGH, endpoint_of(9), bound=0.5)]
    answers(lone, first, LOW, SMALL[4], hits=[dear], others=SMALL[1:2], items=items)
    asked = {prefix_of(one): one for one in asks(lone)}
    answers(lone, asked[LOW], LOW, SMALL[1], hits=[cheap])
    result = operation.result()
    assert ids(result) == {cheap.node_id}
    assert result.coverage.verified == 2  # the other subtree was proved to be dearer


def test_pages_of_verified_answers_give_every_match_once(fleet: Fleet) -> None:
    client_node = fleet.cluster.add()[0]
    client_node.engine.hub.gateways = [fleet.cluster.nodes[0].endpoint]
    predicate = at_least(cores=4)
    asker = fleet.cluster.nodes[3]
    whole = fleet.find(asker, predicate, verify=2)
    assert whole.coverage.verified == 2
    for node in (asker, client_node):
        cursor, got = None, []
        for _ in range(100):
            page = fleet.find(node, predicate, limit=7, verify=2, cursor=cursor)
            got += [bytes(hit.id) for hit in page.hits]
            cursor = page.cursor
            if cursor is None:
                break
        assert sorted(got) == sorted(ids(whole))
