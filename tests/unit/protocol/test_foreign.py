"""`dh_put` at a member: what it takes, what it refuses, and what it tells a gateway."""

import pytest
from foreign_world import GATEWAY, foreign, key_of
from hub_world import SCHEMA, Lone, contact_of, endpoint_of, machine

from dhtos.core import group as group_module
from dhtos.core.group import State
from dhtos.core.ids import Prefix
from dhtos.core.limits import HUB_BUCKET_CONTACTS_MAX, PUT_RUMOURS_MAX, RECORD_TTL_S
from dhtos.protocol.foreign import Status
from dhtos.protocol.hubwire import delta_rumour, record_rumour, state_rumour

TAKEN, WHOLE, ELSEWHERE, OUTDATED, REFUSED = Status


@pytest.fixture
def member():
    """A node in a group of four."""
    return Lone(machine(1, cores=4)).settle([machine(n, cores=4) for n in (2, 3, 4)])


def put(lone, *rumours, cookie=None, source=GATEWAY):
    """Put rumours, as somebody who has proved the address unless told otherwise."""
    cookie = lone.core.cookie(source) if cookie is None else cookie
    return lone.request("dh_put", [0, cookie, list(rumours)], source)


def statuses(reply):
    return [Status(status) for status in reply[0][3]]


def whole(record, age=0.0):
    return record_rumour(record, age)


def delta(record):
    return delta_rumour(key_of(record), record, 0.0)


def left(record, seq):
    return state_rumour(key_of(record), seq, State.LEFT, 0.0)


# --- taking -----------------------------------------------------------------------------------


def test_a_record_is_taken_and_told_on(member):
    record = foreign()
    key, depth, cookie, found, newest, contacts = put(member, whole(record))[0]
    assert (key, depth, newest) == (member.hub.key, 2, 0)
    assert cookie == member.core.cookie(GATEWAY)
    assert found == [TAKEN]
    assert {contact[0] for contact in contacts} == {key_of(machine(n, cores=4)) for n in (2, 3, 4)}
    held = member.hub.group.members[key_of(record)]
    assert held.record == record
    assert not held.serves
    assert key_of(record) in member.hub.gossip.rumours


def test_a_heartbeat_is_a_delta(member):
    put(member, whole(foreign()))
    later = foreign(seq=2, rev=1)
    assert statuses(put(member, delta(later))) == [TAKEN]
    assert member.hub.group.members[key_of(later)].record.seq == 2


def test_a_delta_of_what_is_not_known_asks_for_the_whole(member):
    assert statuses(put(member, delta(foreign(seq=2, rev=1)))) == [WHOLE]
    put(member, whole(foreign()))
    assert statuses(put(member, delta(foreign(seq=3, rev=2)))) == [WHOLE]


def test_many_at_once_are_answered_one_by_one(member):
    some = [foreign(f"vm-{n}") for n in range(5)]
    assert statuses(put(member, *map(whole, some))) == [TAKEN] * 5
    assert statuses(put(member, whole(some[0]), delta(foreign("x", seq=2, rev=1)))) == [
        TAKEN,
        WHOLE,
    ]


def test_the_end_of_a_row_is_a_tombstone(member):
    record = foreign()
    put(member, whole(record))
    assert statuses(put(member, left(record, 2))) == [TAKEN]
    assert key_of(record) not in member.hub.group.members
    assert member.hub.group.tombstones[key_of(record)].state is State.LEFT


def test_what_is_older_than_known_is_told_the_newest(member):
    record = foreign(seq=7)
    put(member, whole(record))
    reply = put(member, whole(foreign(seq=6)))
    assert (statuses(reply), reply[0][4]) == ([OUTDATED], 7)
    put(member, left(record, 9))
    reply = put(member, whole(foreign(seq=9)))
    assert (statuses(reply), reply[0][4]) == ([OUTDATED], 10)
    assert statuses(put(member, whole(foreign(seq=10)))) == [TAKEN]


def test_a_record_nobody_renews_expires(member):
    put(member, whole(foreign()))
    member.hub.group.expire(member.now + RECORD_TTL_S + 1)
    assert key_of(foreign()) not in member.hub.group.members


# --- keys of other groups ---------------------------------------------------------------------


@pytest.fixture
def split():
    """A node whose group has split: other kinds of machines live elsewhere."""
    others = [machine(20 + n, cores=1024, mem=2**45) for n in range(12)]
    lone = Lone(machine(1, cores=1)).settle([machine(2, cores=1), *others])
    assert lone.hub.group.depth > 0
    return lone


def test_a_key_of_another_group_is_answered_with_who_is_nearer(split):
    record = foreign(cores=1024, mem=2**45)
    reply = put(split, whole(record))
    assert statuses(reply) == [ELSEWHERE]
    contacts = reply[0][5]
    assert 0 < len(contacts) <= HUB_BUCKET_CONTACTS_MAX
    own = split.hub.buckets.index_of(key_of(record))
    assert {split.hub.buckets.index_of(key) for key, _, _ in contacts} == {own}
    assert key_of(record) not in split.hub.group.members


def test_nobody_is_sent_to_the_gateway_in_place_of_a_member(split):
    put(split, whole(foreign(cores=1024, mem=2**45)))
    for _, bucket in split.hub.buckets.inhabited():
        assert all(known.contact.endpoint != GATEWAY for known in bucket.contacts.values())


def test_a_goodbye_to_the_wrong_group_is_passed_on(split):
    record = foreign(cores=1024, mem=2**45)
    cookie = split.core.cookie(GATEWAY)
    split.engine.outbox()
    assert split.request("dh_put", [0, cookie, [left(record, 5)]], GATEWAY)[0][3] == [ELSEWHERE]
    split.engine.check()


# --- refusals ---------------------------------------------------------------------------------


def test_a_stranger_is_asked_to_come_back_before_anything_is_kept(member):
    reply = put(member, whole(foreign()), cookie=b"")
    assert reply[0][2] == member.core.cookie(GATEWAY)
    assert reply[0][3:] == [None, 0, []]
    assert key_of(foreign()) not in member.hub.group.members


def test_a_node_without_a_place_says_come_back(member):
    lone = Lone(machine(1, cores=4))
    assert put(lone, whole(foreign()))[0][3] is None


def test_a_node_that_has_left_is_silent(member):
    member.hub.close(member.now)
    assert put(member, whole(foreign())) == []


@pytest.mark.parametrize(
    "args",
    [
        [],
        [0, b""],
        [0, b"", []],
        [0, b"", "x"],
        [0, "cookie", [[0, 0.0, foreign()]]],
        [0, b"", [[0, 0.0, "record"]]],
        [0, b"", [[0, -1.0, foreign()]]],
        [0, b"", [[7, 0.0, foreign()]]],
        [0, b"", [[0, 0.0, machine(9, cores=4)]]],
        [0, b"", [[2, 0.0, key_of(foreign()), 1, int(State.DEAD)]]],
        [0, b"", [[2, 0.0, key_of(foreign()), 1, int(State.SUSPECT)]]],
        [0, b"", [[2, 0.0, bytes(20), 1, 3]] * (PUT_RUMOURS_MAX + 1)],
    ],
)
def test_a_strange_put_is_counted_and_dropped(member, args):
    assert member.request("dh_put", args, GATEWAY) == []
    assert member.core.counters["malformed"] == 1
    assert len(member.hub.group) == 4


def test_a_gateway_cannot_take_back_a_node(member):
    node = machine(2, cores=4)
    assert statuses(put(member, left(node, 99))) == [REFUSED]
    assert key_of(node) in member.hub.group.members


def test_a_heartbeat_cannot_renew_a_node(member):
    node = machine(2, cores=4, seq=5)
    later = [1, 0.0, key_of(node), 1, 5, list(node.dynamic), None]
    assert statuses(put(member, later)) == [REFUSED]
    assert member.hub.group.members[key_of(node)].record.seq == 1


def test_a_gateway_has_its_share_of_a_group_and_no_more(member, monkeypatch):
    monkeypatch.setattr(group_module, "FOREIGN_PER_GATEWAY_MAX", 3)
    monkeypatch.setattr(group_module, "FOREIGN_PER_GROUP_MAX", 5)
    some = [foreign(f"vm-{n}") for n in range(4)]
    assert statuses(put(member, *map(whole, some))) == [TAKEN] * 3 + [REFUSED]
    other = [foreign(f"pc-{n}", endpoint=("10.77.0.2", 1), identity=bytes(32)) for n in range(3)]
    assert statuses(put(member, *map(whole, other))) == [TAKEN, TAKEN, REFUSED]
    assert statuses(put(member, left(some[0], 2), whole(some[3]))) == [TAKEN, TAKEN]


# --- when the group splits ----------------------------------------------------------------------


def crowd(kinds, count):
    return [machine(100 + n, cores=kinds[n % len(kinds)], mem=2**34) for n in range(count)]


def test_what_came_lately_is_handed_to_the_other_half():
    lone = Lone(machine(1, cores=1), size=8).settle([machine(2, cores=1)])
    record = foreign(cores=1024, mem=2**45)
    put(lone, whole(record))
    for node in (machine(20 + n, cores=1024, mem=2**45) for n in range(8)):
        lone.hub.group.put(key_of(node), node, lone.now, lone.now)
    lone.engine.outbox()
    lone.hub.enter(0, [], lone.now)
    told = [asked for asked in lone.sent("dh_push") if asked.args[2][0][0] == 0]
    assert told
    assert {asked.endpoint for asked in told} <= {endpoint_of(20 + n) for n in range(8)}
    assert all(asked.args[2][0][2][12] == "vm-1" for asked in told)


def test_a_gateway_hears_that_nobody_serves_where_its_row_was():
    lone = Lone(machine(1, cores=4), size=8).settle()
    record = foreign(cores=1024, mem=2**45)
    put(lone, whole(record))
    for node in (machine(20 + n, cores=4) for n in range(9)):
        lone.hub.group.put(key_of(node), node, lone.now, lone.now)
    fork = Prefix.of(lone.hub.key, 0)
    while fork.holds(key_of(record)):
        fork = Prefix.of(lone.hub.key, fork.length + 1)
    told = []
    for _ in range(40):  # each member tells with a chance: some of them do
        lone.hub.foreign.hand_over([member_of(record)], [], lone.now)
        told += lone.sent("dh_push")
    assert 0 < len(told) < 40
    assert {asked.endpoint for asked in told} == {GATEWAY}
    assert {tuple(asked.args[2][0][2:]) for asked in told} == {(key_of(record), 1, int(State.DEAD))}


def member_of(record):
    return group_module.Member(key_of(record), record, 0.0)


def test_the_contacts_of_an_answer_are_members_that_serve(member):
    put(member, *(whole(foreign(f"vm-{n}")) for n in range(6)))
    contacts = put(member, whole(foreign("late")))[0][5]
    assert GATEWAY not in {(host, port) for _, host, port in contacts}
    assert contact_of(machine(2, cores=4)).to_wire() in contacts
    assert SCHEMA is member.hub.schema
