"""How a node finds its place: into a group, into an empty subtree, alone, and in bad company."""

import random
from typing import Any

import pytest
from hub_world import (
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
    item,
    machine,
    told,
)

from dhtos.core.curve import version_prefix
from dhtos.core.group import State
from dhtos.core.ids import ID_BITS, Endpoint, Prefix, common_prefix_bits
from dhtos.core.limits import OPERATION_DEADLINE_S
from dhtos.core.record import Record
from dhtos.core.summary import Summary
from dhtos.errors import Closed, NoPeers, SchemaConflict
from dhtos.protocol.engine import Engine
from dhtos.protocol.hub import RETRY_JOIN_S
from dhtos.protocol.operation import Operation
from dhtos.sim.node import SimNode

GATE: Endpoint = ("10.2.0.1", 7400)
GATES: list[Endpoint] = [("10.2.0.1", 7400), ("10.2.0.2", 7400), ("10.2.0.3", 7400)]
OWN = machine(1, cores=2, mem=4 * GIB)
NEAR = [machine(n, cores=2, mem=4 * GIB) for n in range(2, 6)]
FAR = [machine(n, cores=512, mem=4 * GIB) for n in range(11, 15)]
POINT = Prefix.of(OWN.key(SCHEMA), ID_BITS)
HOME = Prefix.of(OWN.key(SCHEMA), 3)


def join(*gateways: Endpoint) -> tuple[Lone, Operation[int]]:
    lone = Lone(OWN)
    return lone, lone.hub.join(list(gateways), lone.now)


def covering(member: Record, **options: Any) -> list[Any]:
    """An answer of a member whose group holds the own key."""
    return told(POINT, key=member.key(SCHEMA), **options)


def elsewhere(member: Record, *nearer: Record) -> list[Any]:
    """An answer of a member of another subtree, with those it thinks are nearer."""
    contacts = [contact_of(record).to_wire() for record in nearer]
    return told(None, key=member.key(SCHEMA), items=[[POINT.to_wire(), 1, 1.0, None, contacts]])


def summary(member: Record, entries: list[Any] | None = None, *, part: int = 0, parts: int = 1):
    """An answer of `dh_summary`."""
    return [part, parts, member.key(SCHEMA), 3, bytes(4), entries or [], []]


def only(asked: list[Asked], name: str = "dh_range") -> Asked:
    """The one request that was sent."""
    (one,) = asked
    assert one.name == name
    return one


def assert_nothing_open(lone: Lone, timers: int) -> None:
    assert len(lone.core.calls) == 0
    assert len(lone.core.timers) == timers


# --- message by message ---------------------------------------------------------------------------


def test_the_first_node_is_a_hub_of_one() -> None:
    lone = Lone(OWN)
    lone.hub.found(lone.now)
    assert lone.hub.settled
    assert len(lone.hub.group) == 1
    assert lone.hub.group.prefix == version_prefix(SCHEMA.version), "never wider than a version"
    assert lone.sent() == []
    lone.wait(10.0)
    lone.engine.check()


def test_a_gateway_is_asked_about_the_own_point() -> None:
    lone, _ = join(GATE)
    asked = only(lone.sent())
    assert asked.endpoint == GATE
    assert asked.args[:8] == [0, b"", POINT.to_wire(), lone.hub.everything, 1, None, 0, None]
    assert len(asked.args[8]) > 1000  # padding, for it may get three times what it sends


def test_into_a_group_locate_copy_buckets_announce() -> None:
    lone, operation = join(GATE)
    host = NEAR[0]
    lone.reply(only(lone.sent()), elsewhere(FAR[0], host))
    locate = only(lone.sent())
    assert locate.endpoint == host.endpoint
    lone.reply(locate, covering(host, hits=[NEAR[1]]))
    copy = only(lone.sent())
    assert copy.args[:4] == [0, b"cookie!!", HOME.to_wire(), lone.hub.everything]
    assert not lone.hub.settled
    lone.reply(copy, told(HOME, key=host.key(SCHEMA), hits=NEAR))
    buckets = only(lone.sent(), "dh_summary")
    assert buckets.endpoint == host.endpoint
    assert buckets.args == [0, b"cookie!!", OWN.key(SCHEMA), [-1], []]
    assert not operation.done
    packed = Summary.of(SCHEMA, FAR).to_bytes(SCHEMA)
    contacts = [[*contact_of(record).to_wire(), 1.0] for record in FAR]
    lone.reply(buckets, summary(host, [[2, packed, 5.0, contacts]]))
    assert operation.result() == 1 + len(NEAR)
    hub = lone.hub
    assert hub.settled
    assert hub.group.depth == 3
    assert set(hub.group.members) == {record.key(SCHEMA) for record in [OWN, *NEAR]}
    bucket = hub.buckets.get(2)
    assert bucket is not None
    assert set(bucket.contacts) == {record.key(SCHEMA) for record in FAR}
    told_of_us = [one for one in lone.sent("dh_push") if one.args[2][0][0] == 0]
    told_to = {one.endpoint for one in told_of_us}
    assert told_to & {record.endpoint for record in NEAR}
    assert len(told_to & {record.endpoint for record in FAR}) == 2


def test_until_it_is_settled_a_node_answers_no_query() -> None:
    lone, _ = join(GATE)
    args = [0, b"", POINT.to_wire(), lone.hub.everything, 1, None, 0, None]
    assert lone.request("dh_range", args) == [JOINING]
    summary_args = [0, b"", NEAR[0].key(SCHEMA), [], []]
    assert lone.request("dh_summary", summary_args) == []


def test_into_an_empty_subtree_a_group_of_its_own_one_bit_below_the_fork() -> None:
    lone, operation = join(GATE)
    lone.reply(only(lone.sent()), elsewhere(FAR[0]))
    buckets = only(lone.sent(), "dh_summary")
    assert buckets.endpoint == GATE
    lone.reply(buckets, summary(FAR[0], [[2, None, 0.0, []]]))
    assert operation.result() == 1
    fork = common_prefix_bits(OWN.key(SCHEMA), FAR[0].key(SCHEMA))
    assert lone.hub.group.depth == fork + 1
    assert [index for index, _ in lone.hub.buckets.inhabited()] == [fork]


def test_of_several_in_other_subtrees_the_nearest_is_asked_for_its_knowledge() -> None:
    key = OWN.key(SCHEMA)
    by_bits = sorted(
        (machine(n, cores=2**n, mem=2**n * GIB) for n in range(2, 10)),
        key=lambda record: common_prefix_bits(key, record.key(SCHEMA)),
    )
    far, near = by_bits[0], by_bits[-1]
    assert common_prefix_bits(key, far.key(SCHEMA)) < common_prefix_bits(key, near.key(SCHEMA))
    lone, operation = join(GATE)
    lone.reply(only(lone.sent()), elsewhere(far, far, near))
    nearer = only(lone.sent())
    assert nearer.endpoint == near.endpoint  # who is not nearer is not asked
    lone.reply(nearer, elsewhere(near, far))
    buckets = only(lone.sent(), "dh_summary")
    assert buckets.endpoint == near.endpoint
    lone.reply(buckets, summary(near))
    assert operation.result() == 1
    assert lone.hub.group.depth == common_prefix_bits(key, near.key(SCHEMA)) + 1


def test_a_dead_hint_falls_back_to_who_answered() -> None:
    lone, operation = join(GATE)
    lone.reply(only(lone.sent()), elsewhere(FAR[0], NEAR[0]))
    assert only(lone.sent()).endpoint == NEAR[0].endpoint
    buckets = only(lone.until_sent("dh_summary"), "dh_summary")
    assert buckets.endpoint == GATE
    lone.reply(buckets, summary(FAR[0]))
    assert operation.result() == 1


def test_a_slow_gateway_is_not_waited_for_alone() -> None:
    lone, operation = join(*GATES, ("10.2.0.4", 7400))
    first = only(lone.sent())
    assert first.endpoint == GATES[0]
    lone.wait(0.3)
    second = lone.sent()[-1]
    assert second.endpoint == GATES[1]
    lone.reply(second, covering(NEAR[0]))
    assert lone.sent("dh_range")[-1].args[2] == HOME.to_wire()  # it copies already
    lone.reply(first, covering(NEAR[1]))
    assert lone.engine.counters["replies_unasked"] == 1
    assert not operation.done


def test_at_most_three_gateways_are_asked_at_once() -> None:
    lone, _ = join(*[endpoint_of(n) for n in range(20)])
    for _ in range(30):
        lone.wait(0.05)
        assert len(lone.core.calls) <= 3


def test_dead_gateways_are_passed_over_and_none_left_is_an_error() -> None:
    lone, operation = join(*GATES)
    lone.wait(4.0)
    assert {one.endpoint for one in lone.sent("dh_range")} == set(GATES)
    with pytest.raises(NoPeers, match="no dhtos node answered"):
        operation.result()


def test_an_address_named_twice_is_asked_once() -> None:
    lone, operation = join(GATE, GATE, *GATES)
    lone.wait(4.0)
    assert len({one.msg_id for one in lone.sent("dh_range")}) == len(GATES)
    assert operation.error is not None


def test_without_gateways_there_is_nobody_to_ask() -> None:
    lone, operation = join()
    with pytest.raises(NoPeers):
        operation.result()
    assert lone.sent() == []


def test_a_join_that_failed_is_tried_again_until_it_succeeds() -> None:
    lone, operation = join(GATE)
    lone.wait(1.5)
    assert operation.error is not None
    lone.sent()
    again = only(lone.until_sent("dh_range", RETRY_JOIN_S + 0.1))
    lone.reply(again, covering(NEAR[0]))
    copy = only(lone.sent())
    lone.reply(copy, told(HOME, key=NEAR[0].key(SCHEMA), hits=NEAR[:1]))
    lone.reply(only(lone.sent(), "dh_summary"), summary(NEAR[0]))
    assert lone.hub.settled


@pytest.mark.parametrize("end", ["leave", "found"])
def test_nothing_is_tried_again_for_a_node_that_left_or_found_its_place(end: str) -> None:
    lone, _ = join(GATE)
    lone.wait(1.5)
    lone.sent()
    getattr(lone.hub, end)(lone.now)
    lone.wait(2 * RETRY_JOIN_S)
    assert lone.sent("dh_range") == []


def test_gateways_that_are_joining_themselves_are_asked_again() -> None:
    lone, operation = join(*GATES[:2])
    for _ in range(2):
        lone.reply(only(lone.sent()), JOINING)
    assert lone.sent() == []
    again = only(lone.until_sent("dh_range", 0.5))
    lone.reply(again, covering(NEAR[0]))
    assert only(lone.sent()).args[2] == HOME.to_wire()
    assert not operation.done


def test_one_who_has_a_place_is_better_than_others_who_are_joining() -> None:
    lone, operation = join(*GATES[:2])
    lone.reply(only(lone.sent()), JOINING)
    lone.reply(only(lone.sent()), elsewhere(FAR[0]))
    lone.reply(only(lone.sent(), "dh_summary"), summary(FAR[0]))
    assert operation.result() == 1


def test_a_copy_of_the_own_record_is_no_place() -> None:
    """After a restart a member may still answer for the own key under the own key."""
    lone, _ = join(*GATES[:2])
    lone.reply(only(lone.sent()), covering(OWN))
    second = only(lone.sent())
    assert second.endpoint == GATES[1]
    lone.reply(second, covering(NEAR[0]))
    assert only(lone.sent()).args[2] == HOME.to_wire()


def test_a_cookie_is_shown_once() -> None:
    lone, operation = join(*GATES[:2])
    header = [FAR[0].key(SCHEMA), 3, b"12345678", [], 0, None, 0]
    lone.reply(only(lone.sent()), *bundled([header, None, []]))
    again = only(lone.sent())
    assert (again.endpoint, again.args[1]) == (GATES[0], b"12345678")
    header[2] = b"87654321"
    lone.reply(again, *bundled([header, None, []]))
    assert only(lone.sent()).endpoint == GATES[1]
    assert not operation.done


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [[], []],
        [5, [], []],
        [[bytes(20)], [], []],
        [[b"short", 3, b"", [], 0, None, 0], [], []],
        [[bytes(20), 161, b"", [], 0, None, 0], [], []],
        [[bytes(20), 3, bytes(9), [], 0, None, 0], [], []],
        [[bytes(20), 3, b"", [[1, b""]], 0, None, 0], [], []],
        [[bytes(20), 3, b"", [[0, b""]] * 2, 0, None, 0], [], []],
        body_of(None, items=[5]),
        body_of(None, items=[[]]),
        body_of(None, items=[{}]),
        body_of(None, items=[item(HOME)[:4]]),
        body_of(None, items=[[*item(HOME)[:4], 5]]),
        body_of(None, items=[[*item(HOME)[:4], [[bytes(20), "host"]]]]),
        body_of(None, items=[item(HOME)] * 161),
    ],
)
def test_a_malformed_answer_is_counted_and_the_next_gateway_asked(value: Any) -> None:
    lone, operation = join(*GATES[:2])
    asked = only(lone.sent())
    for part in bundled(value):
        lone.reply(asked, part)
    assert lone.engine.counters["malformed"] == 1
    assert only(lone.sent()).endpoint == GATES[1]
    assert len(lone.core.calls) == 1
    assert not operation.done


def copying() -> tuple[Lone, Operation[int], Asked]:
    """A join that has asked for the records of its group."""
    lone, operation = join(GATE)
    lone.reply(only(lone.sent()), covering(NEAR[0]))
    return lone, operation, only(lone.sent())


def test_a_group_that_cannot_be_copied_whole_is_not_entered() -> None:
    lone, operation, copy = copying()
    inner = Prefix.of(OWN.key(SCHEMA), 4)
    rest = item(inner.sibling(), endpoint_of(77))
    lone.reply(copy, told(inner, key=NEAR[0].key(SCHEMA), hits=[], items=[rest]))
    lone.wait(5.0)
    assert operation.done
    with pytest.raises(NoPeers, match="could not be copied"):
        operation.result()
    assert lone.hub.group.prefix == version_prefix(SCHEMA.version)


def test_a_copy_follows_those_who_have_split() -> None:
    lone, operation, copy = copying()
    inner = Prefix.of(OWN.key(SCHEMA), 4)
    rest = item(inner.sibling(), endpoint_of(77))
    lone.reply(copy, told(inner, key=NEAR[0].key(SCHEMA), hits=NEAR, items=[rest]))
    lone.reply(only(lone.sent()), told(inner.sibling()))
    assert only(lone.sent(), "dh_summary").endpoint == GATE
    assert lone.hub.group.depth == 3
    assert not operation.done


def test_when_the_nearest_dies_while_we_join_the_attempt_ends() -> None:
    lone, operation, copy = copying()
    lone.reply(copy, told(HOME, key=NEAR[0].key(SCHEMA), hits=NEAR))
    only(lone.sent(), "dh_summary")
    lone.wait(3.0)
    with pytest.raises(NoPeers, match="nearest node died"):
        operation.result()
    assert not lone.hub.settled


def test_knowledge_of_other_subtrees_comes_in_parts() -> None:
    lone, operation, copy = copying()
    lone.reply(copy, told(HOME, key=NEAR[0].key(SCHEMA), hits=NEAR))
    asked = only(lone.sent(), "dh_summary")
    entry = [2, None, 0.0, [[*contact_of(FAR[0]).to_wire(), 0.0]]]
    lone.reply(asked, summary(NEAR[0], [entry], part=1, parts=2))
    lone.reply(asked, summary(NEAR[0], [entry], part=1, parts=2))
    assert not operation.done
    lone.reply(asked, summary(NEAR[0], part=0, parts=2))
    assert operation.result() == 1 + len(NEAR)
    assert lone.hub.buckets.get(2) is not None


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [0, 1, NEAR[0].key(SCHEMA), 3, bytes(4), [5], []],
        [1, 1, NEAR[0].key(SCHEMA), 3, bytes(4), [], []],
        [0, 1, OWN.key(SCHEMA), 3, bytes(4), [], []],
        [0, 1, NEAR[0].key(SCHEMA), 3, bytes(4), [[2, b"summary", 0.0, []]], []],
        [0, 1, NEAR[0].key(SCHEMA), 3, bytes(4), [[2, None, -1.0, []]], []],
        [0, 1, NEAR[0].key(SCHEMA), 3, bytes(4), [[2, None, 0.0, [[bytes(20)]]]], []],
        [0, 1, NEAR[0].key(SCHEMA), 3, bytes(25), [], []],
        [0, 1, NEAR[0].key(SCHEMA), 3, bytes(3), [], []],
    ],
)
def test_malformed_knowledge_ends_the_attempt(value: Any) -> None:
    lone, operation, copy = copying()
    lone.reply(copy, told(HOME, key=NEAR[0].key(SCHEMA), hits=NEAR))
    lone.reply(only(lone.sent(), "dh_summary"), value)
    assert lone.engine.counters["malformed"] == 1
    assert operation.error is not None
    assert len(lone.core.calls) == 0


def test_a_join_has_a_deadline() -> None:
    lone, operation = join(GATE)
    begun = lone.now
    while not operation.done:
        for asked in lone.sent("dh_range"):
            lone.reply(asked, JOINING)
        lone.wait(0.1)
    assert lone.now - begun == pytest.approx(OPERATION_DEADLINE_S, abs=0.5)
    with pytest.raises(NoPeers, match="in time"):
        operation.result()


def test_cancelling_leaves_nothing_at_any_stage() -> None:
    timers = len(Lone(OWN).core.timers)

    lone, operation = join(*GATES)
    operation.cancel(lone.now)  # while it locates
    assert_nothing_open(lone, timers)

    lone, operation = join(GATE)
    lone.reply(only(lone.sent()), JOINING)
    operation.cancel(lone.now)  # while it waits for a gateway that joins itself
    assert_nothing_open(lone, timers)

    lone, operation, copy = copying()
    operation.cancel(lone.now)
    lone.reply(copy, told(HOME, hits=NEAR))
    assert_nothing_open(lone, timers)
    assert not lone.hub.settled

    lone, operation, copy = copying()
    lone.reply(copy, told(HOME, key=NEAR[0].key(SCHEMA), hits=NEAR))
    operation.cancel(lone.now)  # while it asks about other subtrees
    assert_nothing_open(lone, timers)
    with pytest.raises(Closed):
        operation.result()
    lone.wait(3 * RETRY_JOIN_S)
    assert not lone.hub.settled  # a cancelled join is not tried again


def test_a_second_join_replaces_the_first() -> None:
    lone, first = join(GATE)
    second = lone.hub.join(GATES[1:], lone.now)
    assert isinstance(first.error, Closed)
    assert not second.done
    assert len(lone.core.calls) == 1


# --- in a hub -------------------------------------------------------------------------------------


def members(node: SimNode[Engine]) -> set[bytes]:
    """The groups of two nodes are equal if these are."""
    return set(node.engine.hub.group.members)


def small(number: int) -> dict[str, Any]:
    return {"cores": 2, "mem": (4 + number) * GIB}


def big(number: int) -> dict[str, Any]:
    return {"cores": 512, "mem": (4 + number) * GIB}


def fleet_of(count: int, *, size: int = 32, seed: int = 1) -> Fleet:
    """So many small machines that know each other."""
    fleet = Fleet(seed=seed, size=size)
    for number in range(count):
        node = fleet.start(**small(number))
        if number == 0:
            fleet.cluster.begin(node, lambda e, now: e.hub.found(now))
        else:
            fleet.cluster.wait([fleet.join(node, fleet.cluster.nodes[0])])
    fleet.cluster.run_for(3.0)
    return fleet


def test_a_newcomer_and_its_group_know_each_other() -> None:
    fleet = fleet_of(10)
    node = fleet.start(**small(11))
    operation = fleet.join(node, fleet.cluster.nodes[4])
    fleet.cluster.wait([operation])
    assert operation.result() == 11
    fleet.cluster.run_for(3.0)
    assert all(members(one) == members(node) for one in fleet.cluster.nodes)
    assert len(members(node)) == 11
    fleet.cluster.check()


def test_a_newcomer_unlike_all_others_is_found_by_them_at_once() -> None:
    fleet = fleet_of(10, size=8)
    assert all(node.engine.hub.group.depth > 0 for node in fleet.cluster.nodes)
    node = fleet.start(**big(1))
    assert fleet.cluster.do(node, lambda e, now: e.hub.join([fleet.cluster.nodes[3].endpoint], now))
    fleet.cluster.run_for(5.0)
    for asker in fleet.cluster.nodes:
        result = fleet.find(asker, at_least(cores=100))
        assert [hit.record.node_id for hit in result.hits] == [node.id]
        everything = fleet.find(asker, at_least(cores=1))
        assert len(everything.hits) == 11
        assert everything.coverage.complete
    fleet.cluster.check()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_at_once_into_the_same_empty_subtree_meet(seed: int) -> None:
    fleet = fleet_of(10, size=8, seed=seed)
    pair = [fleet.start(**big(number)) for number in (1, 2)]
    gateways = random.Random(seed).sample(fleet.cluster.nodes[:10], 2)
    operations = [fleet.join(*two) for two in zip(pair, gateways, strict=True)]
    fleet.cluster.wait(operations)
    fleet.cluster.run_for(40.0)
    assert members(pair[0]) == members(pair[1])
    for asker in fleet.cluster.nodes:
        assert len(fleet.find(asker, at_least(cores=100)).hits) == 2
    fleet.cluster.check()


def test_a_whole_fleet_may_start_at_once_through_one_node() -> None:
    fleet = Fleet(seed=4, size=8)
    first = fleet.start(**small(0))
    fleet.cluster.begin(first, lambda e, now: e.hub.found(now))
    others = [fleet.start() for _ in range(15)]
    fleet.cluster.wait([fleet.join(node, first) for node in others])
    fleet.cluster.run_for(60.0)
    for asker in fleet.cluster.nodes:
        result = fleet.find(asker, at_least(cores=1))
        assert (len(result.hits), result.coverage.complete) == (16, True)
    fleet.cluster.check()


def test_a_dead_gateway_and_one_that_speaks_stock_do_not_keep_a_node_out() -> None:
    fleet = fleet_of(4)
    rng = random.Random(5)
    stock = fleet.cluster.add_guest(Engine(rng.randbytes(20), rng=rng, now=0.0), None, 0)
    dead = fleet.start(**small(7))
    fleet.cluster.crash([dead])
    node = fleet.start(**small(8))
    operation = fleet.join(node, dead, stock, fleet.cluster.nodes[2])
    fleet.cluster.wait([operation])
    assert operation.result() == 5
    assert stock.engine.counters["requests_unknown"] > 0


def test_a_gateway_that_is_joining_lets_others_in_when_it_has_its_place() -> None:
    fleet = fleet_of(4)
    middle, last = fleet.start(**small(5)), fleet.start(**small(6))
    through = fleet.join(last, middle)
    fleet.cluster.run_for(0.3)
    assert not through.done
    assert fleet.cluster.do(
        middle, lambda e, now: e.hub.join([fleet.cluster.nodes[0].endpoint], now)
    )
    fleet.cluster.wait([through])
    assert through.result() == 6


def test_a_restarted_node_takes_its_place_again_with_a_higher_version() -> None:
    fleet = fleet_of(8)
    node = fleet.cluster.nodes[5]
    key = node.engine.hub.key
    fleet.cluster.crash([node])
    fleet.cluster.run_for(20.0)
    survivors = [one for one in fleet.cluster.nodes if one is not node]
    assert all(key not in members(one) for one in survivors)
    assert all(one.engine.hub.group.tombstones[key].state is State.DEAD for one in survivors)
    fleet.cluster.restart([node])
    fleet.advertise(node, seq=1000, **small(5))
    fleet.cluster.wait([fleet.join(node, fleet.cluster.nodes[0])])
    fleet.cluster.run_for(3.0)
    assert node.engine.hub.key == key
    for one in fleet.cluster.nodes:
        assert one.engine.hub.group.members[key].record.seq >= 1000
        assert members(one) == members(node)
    fleet.cluster.check()


def test_a_node_restarted_with_an_old_version_learns_of_its_end_and_outbids_it() -> None:
    """Its tombstone says more than it does, so it publishes a newer version of itself."""
    fleet = fleet_of(6)
    node = fleet.cluster.nodes[3]
    key = node.engine.hub.key
    fleet.cluster.crash([node])
    fleet.cluster.run_for(20.0)
    fleet.cluster.restart([node])
    fleet.advertise(node, seq=1, **small(3))
    fleet.cluster.wait([fleet.join(node, fleet.cluster.nodes[0])])
    fleet.cluster.run_for(10.0)
    assert node.engine.counters["refutations"] > 0
    assert all(key in members(one) for one in fleet.cluster.nodes)
    fleet.cluster.check()


def test_a_record_that_moves_takes_its_node_to_another_place() -> None:
    fleet = fleet_of(12, size=8)
    node = fleet.cluster.nodes[5]
    before = node.engine.hub.key
    fleet.advertise(node, seq=50, **big(1))
    assert node.engine.hub.key != before
    fleet.cluster.run_for(40.0)
    assert node.engine.hub.settled
    for asker in fleet.cluster.nodes:
        result = fleet.find(asker, at_least(cores=1))
        assert len(result.hits) == 12
        assert [hit["cores"] for hit in result.hits].count(512) == 1
    fleet.cluster.check()


# --- other schemas --------------------------------------------------------------------------------

CONFLICT = bundled([None, [], [], 0xBEEF])[0]


def test_peers_of_another_schema_under_our_version_end_a_join() -> None:
    lone, operation = join(GATE, endpoint_of(62))
    lone.reply(only(lone.sent()), CONFLICT)
    assert not operation.done, "the other gateway may be one of ours"
    lone.reply(only(lone.sent()), CONFLICT)
    with pytest.raises(SchemaConflict, match=r"10\.1\.0\.62:7400 runs another schema as version 0"):
        operation.result()
    assert isinstance(lone.hub.conflict, SchemaConflict)
    assert lone.core.counters["schema_conflicts"] == 2
    lone.wait(3 * RETRY_JOIN_S)
    assert lone.sent() == [], "it is not tried again: nothing would be different"
    assert not lone.hub.serves(0)


def test_one_of_our_schema_is_joined_whoever_else_is_there() -> None:
    lone, operation = join(GATE, endpoint_of(62))
    lone.reply(only(lone.sent()), CONFLICT)
    lone.reply(only(lone.sent()), covering(NEAR[0]))
    copy = only(lone.sent())
    lone.reply(copy, told(HOME, key=NEAR[0].key(SCHEMA), hits=NEAR))
    lone.reply(only(lone.sent(), "dh_summary"), summary(NEAR[0]))
    assert operation.result() == 1 + len(NEAR)
    assert lone.hub.conflict is None


def test_beside_a_conflict_no_group_of_its_own_is_begun() -> None:
    """It would be in the subtree of those whose records it cannot read."""
    lone, operation = join(GATE, endpoint_of(62))
    lone.reply(only(lone.sent()), elsewhere(FAR[0]))
    lone.reply(only(lone.sent()), CONFLICT)
    with pytest.raises(SchemaConflict):
        operation.result()
    assert not lone.hub.settled


def test_a_conflict_is_what_a_late_join_tells() -> None:
    lone, operation = join(GATE, endpoint_of(62))
    lone.reply(only(lone.sent()), CONFLICT)
    lone.reply(only(lone.sent()), JOINING)
    lone.wait(OPERATION_DEADLINE_S + 1)
    with pytest.raises(SchemaConflict):
        operation.result()


def test_the_first_of_a_version_begins_among_those_of_another() -> None:
    lone, _ = join(GATE)
    stranger = (1 << 158 | 7).to_bytes(20)
    lone.reply(only(lone.sent()), told(None, key=stranger))
    asked = only(lone.sent(), "dh_summary")
    assert asked.endpoint == GATE
    entry = [1, (12).to_bytes(4), 0.0, [[stranger, *GATE, 0.0]]]
    lone.reply(asked, [0, 1, stranger, 2, bytes(4), [entry], []])
    assert lone.hub.settled
    assert lone.hub.group.prefix == version_prefix(0)
    bucket = lone.hub.buckets.get(1)
    assert bucket is not None
    assert (bucket.count, bucket.summary) == (12, Summary.of_count(12))
    greeting = only(lone.sent(), "dh_summary")
    assert (greeting.endpoint, greeting.args[2:4]) == (GATE, [lone.hub.key, []]), "no record"
