"""Seats: whom a request to an address with several hubs is for, and when a seat is given up."""

import pytest
from foreign_world import key_of
from hub_world import Lone, endpoint_of, machine

from dhtos.core.contact import Contact
from dhtos.core.ids import Prefix, common_prefix_bits
from dhtos.core.limits import FOREIGN_COPIES, GATEWAY_SEATS_MAX
from dhtos.protocol import seats as module
from dhtos.protocol.rows import Row

FAR = {"cores": 1024, "mem": 2**45}
NEAR = machine(1, cores=1)


@pytest.fixture
def lone():
    """A gateway among machines with one core, and its settled seat far from them."""
    lone = Lone(NEAR, size=8).settle(machine(2 + n, cores=1) for n in range(12))
    lone.hub.rows.advertise([Row(f"far-{n}", FAR) for n in range(3)], lone.now)
    seat = seat_of(lone)
    seat.enter(common_prefix_bits(lone.hub.key, seat.key) + 1, [], lone.now)
    seat.buckets.heard(Contact(lone.hub.key, lone.hub.own.endpoint), lone.now, lone.now)
    seat.settle(lone.now)
    lone.wait(5.0)
    lone.engine.outbox()
    return lone


def seat_of(lone):
    (seat,) = lone.hub.rows.seats.hubs.values()
    return seat


def gossip(lone, key):
    """The key that answers when a member of that key gossips."""
    args = [0, key, 0, 0, bytes(4), None, [], 0]
    return lone.request("dh_gossip", args, endpoint_of(90))[0][0]


def test_members_reach_the_hub_of_their_own_group(lone):
    assert gossip(lone, key_of(machine(2, cores=1))) == lone.hub.key
    assert gossip(lone, key_of(machine(60, **FAR))) == seat_of(lone).key


def test_a_question_goes_to_who_holds_the_prefix(lone):
    seat, seats = seat_of(lone), lone.hub.rows.seats
    for hub in (lone.hub, seat):
        point = Prefix.of(hub.key, 160).to_wire()
        assert seats._meant("dh_range", [0, b"", point]) is hub
        assert seats._meant("dh_sync", [0, hub.group.prefix.to_wire()]) is hub
        assert seats._meant("dh_fetch", [0, [hub.key]]) is hub
        assert seats._meant("dh_probe", [0, hub.key, "h", 1]) is hub
    assert seats._meant("dh_range", [0, b"", Prefix(0, 0).to_wire()]) is lone.hub


@pytest.mark.parametrize("name", ["dh_range", "dh_gossip", "dh_sync", "dh_fetch", "dh_probe"])
def test_a_request_that_names_nobody_is_dropped(lone, name):
    for args in ([], [0], [0, "x"], [0, b"", "prefix"]):
        before = lone.core.counters["malformed"]
        assert lone.request(name, args) == []
        assert lone.core.counters["malformed"] == before + 1


def test_one_answer_describes_every_place(lone):
    asker = key_of(machine(70, cores=2**9, gpus=8))
    cookie = lone.core.cookie(endpoint_of(90))
    args = [0, cookie, asker, [], []]
    parts = lone.request("dh_summary", args, endpoint_of(90))
    assert {part[2] for part in parts} == {lone.hub.key, seat_of(lone).key}
    assert [part[0] for part in parts] == list(range(len(parts)))
    assert {part[1] for part in parts} == {len(parts)}
    assert len(lone.request("dh_summary", [0, b"", asker, [], []], endpoint_of(91))) == 1


def test_news_reaches_every_place(lone):
    near, far = machine(80, cores=1), machine(81, **FAR)
    words = [[0, 0.0, near], [0, 0.0, far]]
    lone.request("dh_push", [0, 0, words], endpoint_of(90))
    assert key_of(far) in seat_of(lone).group.members
    if lone.hub.group.prefix.holds(key_of(near)):
        assert key_of(near) in lone.hub.group.members


def test_a_seat_among_enough_nodes_is_given_up(lone):
    seat = seat_of(lone)
    for number in range(FOREIGN_COPIES):
        lone.request("dh_push", [0, 0, [[0, 0.0, machine(60 + number, **FAR)]]], endpoint_of(90))
    lone.wait(3.0)
    assert not seat.closed, "with fewer beside it there would be too few without it"
    lone.request("dh_push", [0, 0, [[0, 0.0, machine(69, **FAR)]]], endpoint_of(90))
    lone.wait(3.0)
    assert seat.closed
    assert lone.hub.rows.seats.hubs == {}
    told = {words[0] for asked in lone.sent("dh_put") for words in asked.args[2]}
    assert told <= {0, 1}


def test_whoever_asks_where_a_seat_was_hears_nothing(lone):
    seat = seat_of(lone)
    point = Prefix.of(seat.key, 160).to_wire()
    args = [0, lone.core.cookie(endpoint_of(90)), point, lone.hub.everything, 0, None, 0, None, b""]
    assert lone.request("dh_range", args, endpoint_of(90))
    lone.hub.rows.advertise([], lone.now)
    assert lone.request("dh_range", args, endpoint_of(90)) == []


def test_seats_are_taken_one_by_one_and_bounded(lone, monkeypatch):
    seats = lone.hub.rows.seats
    record = Row("other", {"cores": 32, "gpus": 16}).record(lone.hub.schema, lone.hub.own, 1)
    monkeypatch.setattr(module, "GATEWAY_SEATS_MAX", 1)
    assert not seats.take(record, lone.now)
    monkeypatch.setattr(module, "GATEWAY_SEATS_MAX", GATEWAY_SEATS_MAX)
    assert seats.take(record, lone.now)
    assert seats.joining
    again = Row("third", {"cores": 8, "gpus": 4}).record(lone.hub.schema, lone.hub.own, 1)
    assert not seats.take(again, lone.now)
