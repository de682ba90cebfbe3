"""The rows of a gateway: versions, changes, heartbeats, goodbyes; and how they are delivered."""

import pytest
from foreign_world import foreign, gateway, key_of, rows
from hub_world import SCHEMA, Lone, contact_of, endpoint_of, machine

from dhtos.core.contact import Contact
from dhtos.core.group import State
from dhtos.core.ids import Prefix, common_prefix_bits
from dhtos.core.limits import (
    FOREIGN_COPIES,
    GATEWAY_PUTS_MAX,
    HEARTBEAT_S,
    REPLY_BYTES_MAX,
    SEQ_LEAD_MAX,
)
from dhtos.errors import UsageError
from dhtos.protocol.foreign import Status
from dhtos.protocol.rows import Row

FAR = {"cores": 1024, "mem": 2**45}


def advertise(lone, told, **options):
    lone.hub.rows.advertise(told, lone.now, **options)
    lone.engine.check()


def stats(lone):
    return lone.hub.rows.stats()


@pytest.fixture
def apart():
    """A gateway whose hub has another subtree, of which it knows five members."""
    lone = Lone(machine(1, cores=1), size=8)
    return lone.settle([machine(2, cores=1), *(machine(20 + n, **FAR) for n in range(12))])


def far_rows(count):
    return [Row(f"far-{n}", FAR) for n in range(count)]


def far_members(lone):
    return [contact for _, b in lone.hub.buckets.inhabited() for contact in b.contacts]


def answer(lone, asked, status=Status.TAKEN, *, depth=None, contacts=None, key=None, newest=0):
    """Answer a put as the member it went to, for all of its rumours."""
    key = key or next(
        k.contact.id
        for _, b in lone.hub.buckets.inhabited()
        for k in b.contacts.values()
        if k.contact.endpoint == asked.endpoint
    )
    some = [machine(20 + n, **FAR) for n in range(8)] if contacts is None else contacts
    told = [c if isinstance(c, list) else contact_of(c).to_wire() for c in some]
    depth = lone.hub.group.depth if depth is None else depth
    statuses = [int(status)] * len(asked.args[2])
    lone.reply(asked, [key, depth, b"cookie!!", statuses, newest, told])


# --- a group of our own -------------------------------------------------------------------------


def test_a_group_of_our_own_holds_the_rows_at_once():
    lone = gateway(members=3)
    advertise(lone, rows(5))
    assert stats(lone) == {"rows": 5, "rows_advertised": 5, "rows_waiting": 0, "seats": 0}
    assert len(lone.hub.group) == 9
    assert lone.hub.group.serving == 4
    assert lone.sent("dh_put") == []


def test_a_node_without_rows_does_nothing():
    lone = gateway(members=2)
    before = len(lone.core.timers)
    advertise(lone, [])
    assert len(lone.core.timers) == before
    assert stats(lone)["rows"] == 0


def test_rows_wait_until_the_gateway_has_its_place():
    lone = Lone(machine(1, cores=4))
    advertise(lone, rows(3))
    assert stats(lone)["rows_waiting"] == 3
    lone.settle()
    lone.wait(5.0)
    assert stats(lone)["rows_advertised"] == 3


def test_a_heartbeat_renews_every_row():
    lone = gateway()
    advertise(lone, rows(4), seq=10)
    lone.wait(HEARTBEAT_S + 5.0)
    foreigners = [m for m in lone.hub.group.members.values() if not m.serves]
    assert {m.record.seq for m in foreigners} == {11}
    assert {m.record.rev for m in foreigners} == {10}
    assert all(lone.now - m.born < HEARTBEAT_S for m in foreigners)


def test_changes_touch_only_what_changed():
    lone = gateway()
    advertise(lone, [Row("a", {"cores": 4}), Row("b", {"cores": 4}), Row("c", {"cores": 4})])
    advertise(lone, [Row("a", {"cores": 4}), Row("b", {"cores": 8}), Row("d", {"cores": 4})])
    records = {m.record.row: m.record for m in lone.hub.group.members.values() if not m.serves}
    assert set(records) == {"a", "b", "d"}
    assert records["a"].seq < records["b"].seq
    assert records["b"].attributes(SCHEMA) == {"cores": 8}
    assert {t.state for t in lone.hub.group.tombstones.values()} == {State.LEFT}
    assert len(lone.hub.group.tombstones) == 2  # `c`, and `b` at its former key


def test_a_row_that_comes_back_is_newer_than_its_end():
    lone = gateway()
    for told in (rows(2), rows(1), rows(2)):
        advertise(lone, told)
    assert stats(lone)["rows_advertised"] == 2
    assert not lone.hub.group.tombstones


def test_one_bad_row_changes_nothing():
    lone = gateway()
    advertise(lone, rows(2))
    with pytest.raises(UsageError, match="unknown attribute"):
        lone.hub.rows.advertise([Row("x", {"colour": 1})], lone.now)
    lone.engine.check()
    assert stats(lone)["rows"] == 2


def test_a_row_taken_for_dead_is_told_anew():
    lone = gateway()
    advertise(lone, rows(1))
    (key,) = [m.key for m in lone.hub.group.members.values() if not m.serves]
    seq = lone.hub.group.members[key].record.seq
    words = [[2, 0.0, key, seq, int(State.LEFT)]]
    lone.request("dh_push", [0, 0, words], endpoint_of(3))
    assert key not in lone.hub.group.members
    lone.wait(5.0)
    assert lone.hub.group.members[key].record.seq > seq


def test_leaving_tells_the_members_of_our_group():
    lone = gateway(members=5)
    advertise(lone, rows(3))
    lone.engine.outbox()
    lone.hub.leave(lone.now)
    told = lone.sent("dh_put")
    assert len(told) == FOREIGN_COPIES
    assert all(len(one.args[2]) == 3 for one in told)
    assert {words[0] for one in told for words in one.args[2]} == {2}


# --- groups of others -----------------------------------------------------------------------------


def test_an_unknown_group_is_looked_for_with_few_then_told_the_rest(apart):
    advertise(apart, far_rows(40))
    first = apart.sent("dh_put")
    assert 0 < len(first) <= 8
    assert all(len(asked.args[2]) == 1 for asked in first)
    answer(apart, first[0])
    rest = apart.sent("dh_put")
    told = [words for asked in rest for words in asked.args[2]]
    assert len(told) >= FOREIGN_COPIES * (40 - len(first))
    assert max(len(asked.args[2]) for asked in rest) > 3, "several records share a datagram"
    assert len({asked.endpoint for asked in rest}) >= FOREIGN_COPIES


def test_no_put_is_larger_than_a_datagram_should_be(apart):
    advertise(apart, far_rows(40))
    (first, *_) = apart.sent("dh_put")
    answer(apart, first)
    sizes = [len(datagram) for datagram, _ in apart.engine.outbox()]
    assert max(sizes) <= REPLY_BYTES_MAX + 8


def placed(apart, count=5):
    """A gateway whose far rows have all been taken."""
    advertise(apart, far_rows(count))
    for _ in range(10):
        for asked in apart.sent("dh_put"):
            answer(apart, asked, key=key_in(apart))
    assert stats(apart)["rows_advertised"] == count
    assert stats(apart)["rows_waiting"] == 0
    return apart


def key_in(lone):
    """The key of a far member, and so the prefix of its group."""
    return key_of(machine(20, **FAR))


def test_a_heartbeat_to_a_known_group_is_small(apart):
    placed(apart)
    beat = apart.until_sent("dh_put", HEARTBEAT_S + 5.0)
    assert len(beat) == FOREIGN_COPIES
    assert {words[0] for asked in beat for words in asked.args[2]} == {1}
    assert all(len(asked.args[2]) == 5 for asked in beat)


def test_a_member_that_lacks_the_static_part_gets_it(apart):
    placed(apart)
    asked = apart.until_sent("dh_put", HEARTBEAT_S + 5.0)[0]
    answer(apart, asked, Status.WHOLE, key=key_in(apart))
    (again,) = apart.sent("dh_put")
    assert again.endpoint == asked.endpoint
    assert {words[0] for words in again.args[2]} == {0}


def test_a_dead_member_is_replaced_at_once(apart):
    placed(apart)
    beat = apart.until_sent("dh_put", HEARTBEAT_S + 5.0)
    asked = {one.endpoint for one in beat}
    for one in beat[1:]:
        answer(apart, one, key=key_in(apart))
    others = []
    while not others:  # first the retransmission to the dead one
        others = [one for one in apart.until_sent("dh_put") if one.endpoint not in asked]
    (other,) = others
    answer(apart, other, key=key_in(apart))
    apart.wait(5.0)
    assert apart.sent("dh_put") == [], "three have it again"


def test_three_dead_members_are_replaced_by_three_others(apart):
    placed(apart)
    beat = {one.endpoint for one in apart.until_sent("dh_put", HEARTBEAT_S + 5.0)}
    later = set()
    for _ in range(30):
        apart.wait(0.1)
        later |= {one.endpoint for one in apart.sent("dh_put")}
    assert len(later - beat) >= FOREIGN_COPIES


def test_a_group_that_has_split_is_looked_for_again(apart):
    placed(apart)
    beat = apart.until_sent("dh_put", HEARTBEAT_S + 5.0)
    for one in beat:
        answer(apart, one, Status.ELSEWHERE, depth=150, contacts=[], key=key_in(apart))
    assert not any(place.length < 150 for place in apart.hub.rows.delivery.places)
    again = []
    for _ in range(30):
        apart.wait(0.1)
        again += apart.sent("dh_put")
    assert again


def test_members_that_know_better_raise_the_version(apart):
    advertise(apart, far_rows(1))
    (asked,) = apart.sent("dh_put")
    answer(apart, asked, Status.OUTDATED, newest=500)
    (again,) = apart.until_sent("dh_put", 5.0)[:1]
    assert again.args[2][0][2][8] == 501


def test_members_that_know_too_much_better_are_not_believed(apart):
    advertise(apart, far_rows(1))
    (asked,) = apart.sent("dh_put")
    before = apart.hub.rows.seq
    answer(apart, asked, Status.OUTDATED, newest=before + SEQ_LEAD_MAX + 1)
    assert apart.hub.rows.seq == before
    assert apart.engine.counters["rumours_ahead"] == 1


def test_what_is_refused_waits_for_the_next_heartbeat(apart):
    advertise(apart, far_rows(1))
    (asked,) = apart.sent("dh_put")
    answer(apart, asked, Status.REFUSED)
    assert apart.core.counters["rows_refused"] == 1
    apart.wait(10.0)
    assert apart.sent("dh_put") == []
    assert stats(apart)["rows_advertised"] == 0


def test_a_cookie_is_shown_and_kept(apart):
    advertise(apart, far_rows(1))
    (asked,) = apart.sent("dh_put")
    apart.reply(asked, [key_in(apart), 1, b"newproof", None, 0, []])
    (again,) = apart.sent("dh_put")
    assert (again.endpoint, again.args[1]) == (asked.endpoint, b"newproof")
    apart.reply(again, [key_in(apart), 1, b"newproof", None, 0, []])
    (other,) = apart.sent("dh_put")[:1]
    assert other.endpoint != asked.endpoint, "it is still joining: another is asked"


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [b"short", 1, b"", [0], 0, []],
        [bytes(20), 161, b"", [0], 0, []],
        [bytes(20), 1, b"", [0, 0], 0, []],
        [bytes(20), 1, b"", [9], 0, []],
        [bytes(20), 1, b"", [0], -1, []],
        [bytes(20), 1, b"", [0], 0, [["x"]]],
    ],
)
def test_a_strange_answer_is_counted_and_another_is_asked(apart, value):
    advertise(apart, far_rows(1))
    (asked,) = apart.sent("dh_put")
    apart.reply(asked, value)
    assert apart.core.counters["malformed"] == 1
    (other,) = apart.sent("dh_put")
    assert other.endpoint != asked.endpoint


def test_calls_in_flight_are_bounded(apart):
    advertise(apart, [Row(f"far-{n}", FAR, {"note": "x" * 60}) for n in range(400)])
    answer(apart, apart.sent("dh_put")[0])
    assert len(apart.hub.rows.delivery._open) <= GATEWAY_PUTS_MAX + FOREIGN_COPIES * 200
    apart.engine.check()


def test_leaving_tells_known_groups_without_waiting(apart):
    placed(apart)
    apart.engine.outbox()
    apart.hub.leave(apart.now)
    told = apart.sent("dh_put")
    assert len(told) == FOREIGN_COPIES
    assert all({words[0] for words in one.args[2]} == {2} for one in told)
    assert stats(apart)["rows"] == 0


# --- where nobody serves --------------------------------------------------------------------------


def test_an_empty_subtree_becomes_a_seat_of_the_gateway():
    lone = Lone(machine(1, cores=1), size=8)
    lone.settle(machine(2 + n, cores=1) for n in range(12))
    assert lone.hub.group.depth > 0
    fork = common_prefix_bits(lone.hub.key, key_of(foreign(**FAR)))
    assert lone.hub.buckets.get(fork) is None
    advertise(lone, far_rows(3))
    assert stats(lone)["seats"] == 1
    (seat,) = lone.hub.rows.seats.hubs.values()
    assert seat.own.serves
    assert seat.own.row.startswith("far-")
    lone.wait(12.0)  # nobody answers, so it goes on trying
    assert not seat.settled
    sit(lone, seat, fork + 1)
    lone.wait(5.0)
    assert stats(lone)["rows_advertised"] == 3
    assert seat.group.serving == 1
    assert len(seat.group) == 3
    assert Prefix.of(seat.key, fork + 1) == seat.group.prefix
    assert lone.hub.rows.seats.holder(seat.key) is seat


def sit(lone, seat, depth):
    """Give a seat its place, as its join would."""
    seat.enter(depth, [], lone.now)
    seat.buckets.heard(Contact(lone.hub.key, lone.hub.own.endpoint), lone.now, lone.now)
    seat.settle(lone.now)


def test_the_row_of_a_seat_leaves_with_it():
    lone = Lone(machine(1, cores=1), size=8)
    lone.settle(machine(2 + n, cores=1) for n in range(12))
    advertise(lone, far_rows(2))
    (seat,) = lone.hub.rows.seats.hubs.values()
    sit(lone, seat, common_prefix_bits(lone.hub.key, seat.key) + 1)
    lone.wait(5.0)
    left = [row for row in far_rows(2) if row.name != seat.own.row]
    advertise(lone, left)
    assert seat.closed
    lone.wait(1.0)
    assert seat not in lone.hub.rows.seats.hubs.values()
    assert stats(lone)["rows"] == 1
