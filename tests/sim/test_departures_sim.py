"""Nobody is sent away by others: who leaves a cluster says so itself, and the living stay found."""

import pytest
from fleets import SCHEMA, ids, machines
from test_foreign_sim import Gateways
from test_trust_hostile import SecuredFleet
from trust_world import member_of

from dhtos.core.group import State
from dhtos.core.predicate import EVERYTHING
from dhtos.protocol.hubwire import state_rumour
from dhtos.protocol.rows import Row
from dhtos.trust.leaving import sign_left


def warm(seed, replay, count=12, **options):
    fleet = SecuredFleet(count, seed=seed, replay=replay, **options).warm_start()
    fleet.cluster.run_for(5.0)
    return fleet


def holders(fleet, key, but):
    """Who of the others holds a record."""
    return [n for n in fleet.cluster.up() if n is not but and key in n.engine.hub.group.members]


def believed(node, key):
    tombstone = node.engine.hub.group.tombstones.get(key)
    return None if tombstone is None else tombstone.state


def tell(fleet, liar, words):
    """Push a rumour to everybody, who pass on what they believe."""
    told = [node.endpoint for node in fleet.nodes if node is not liar]
    fleet.cluster.begin(liar, lambda e, now: e.hub.gossip.push_words([words], 2, told))


def counted(fleet, name):
    return sum(node.engine.counters[name] for node in fleet.nodes)


def test_who_leaves_is_gone_within_a_second_in_all_groups(sim_seed, sim_replay):
    fleet = warm(sim_seed, sim_replay, 60, group_size=16)
    leaver = fleet.nodes[11]
    key = leaver.engine.hub.key
    mates = holders(fleet, key, leaver)
    assert mates
    fleet.cluster.begin(leaver, lambda e, now: e.hub.leave(now))
    fleet.cluster.run_for(1.0)
    fleet.cluster.crash([leaver])
    assert {believed(mate, key) for mate in mates} == {State.LEFT}
    for asker in fleet.rng.sample(fleet.cluster.up(), 10):
        assert leaver.id not in ids(fleet.ask(asker, EVERYTHING))
    fleet.cluster.run_for(60.0)
    fleet.expect_one_view()
    fleet.check()
    assert counted(fleet, "departures_forged") == 0


@pytest.mark.parametrize("how", ["unsigned", "by the liar", "of another version", "garbage"])
def test_nobody_can_say_that_another_leaves(sim_seed, sim_replay, how):
    fleet = warm(sim_seed, sim_replay)
    liar, victim = fleet.nodes[3], fleet.nodes[7]
    key, seq = victim.engine.hub.key, victim.engine.hub.own.seq
    proof = {
        "unsigned": b"",
        "by the liar": sign_left(member_of(liar), key, seq + 1),
        "of another version": sign_left(member_of(victim), key, seq),
        "garbage": bytes(64),
    }[how]
    tell(fleet, liar, state_rumour(key, seq + 1, State.LEFT, 0.0, proof))
    for _ in range(100):
        fleet.cluster.run_for(0.05)
        assert len(holders(fleet, key, victim)) == 11
    assert counted(fleet, "departures_forged") >= 5  # others have heard the next version by then
    fleet.check()


def test_a_goodbye_of_an_earlier_life_is_no_goodbye(sim_seed, sim_replay):
    fleet = warm(sim_seed, sim_replay)
    liar, victim = fleet.nodes[3], fleet.nodes[7]
    key, seq = victim.engine.hub.key, victim.engine.hub.own.seq
    old = state_rumour(key, seq + 1, State.LEFT, 0.0, sign_left(member_of(victim), key, seq + 1))
    for _ in range(3):
        fleet.publish(victim, eager=True, mem_free=2**30)
        fleet.cluster.run_for(1.0)
    assert victim.engine.hub.own.seq > seq + 1
    tell(fleet, liar, old)
    for _ in range(40):
        fleet.cluster.run_for(0.05)
        assert len(holders(fleet, key, victim)) == 11


@pytest.mark.parametrize("state", [State.SUSPECT, State.DEAD])
def test_who_is_called_dead_stays_found_while_it_says_that_it_lives(sim_seed, sim_replay, state):
    """In open mode a record is missing until its next version has spread."""
    fleet = warm(sim_seed, sim_replay)
    liar, victim = fleet.nodes[3], fleet.nodes[7]
    key = victim.engine.hub.key
    for _ in range(3):
        tell(fleet, liar, state_rumour(key, victim.engine.hub.own.seq, state, 0.0))
        for _ in range(40):
            fleet.cluster.run_for(0.05)
            assert len(holders(fleet, key, victim)) == 11
    assert victim.engine.counters["refutations"] >= 3
    fleet.cluster.run_for(30.0)
    assert len(holders(fleet, key, victim)) == 11
    fleet.expect_one_view()
    fleet.check()


def test_nobody_forgets_whom_he_does_not_hold_because_of_a_lie(sim_seed, sim_replay):
    """Contacts in other subtrees: only who lives at an address says that it leaves there."""
    fleet = warm(sim_seed, sim_replay, 60, group_size=8)
    liar, victim = fleet.nodes[3], fleet.nodes[40]
    key = victim.engine.hub.key

    def knowing():
        return [
            node.index
            for node in fleet.nodes
            if node is not victim
            and (bucket := node.engine.hub.buckets.get(node.engine.hub.buckets.index_of(key)))
            and key in bucket.contacts
        ]

    before = knowing()
    assert len(before) > 3
    for state in (State.DEAD, State.LEFT):
        proof = sign_left(member_of(liar), key, 9)
        tell(fleet, liar, state_rumour(key, 9, state, 0.0, proof))
    fleet.cluster.run_for(0.3)
    assert set(before) <= set(knowing())


def test_who_dies_is_buried_by_all(sim_seed, sim_replay):
    fleet = warm(sim_seed, sim_replay, 20, group_size=32)
    dead = fleet.nodes[5]
    key = dead.engine.hub.key
    fleet.cluster.crash([dead])
    fleet.cluster.run_for(60.0)
    assert holders(fleet, key, dead) == []
    fleet.expect_one_view()
    fleet.check()


def test_a_gateway_takes_back_its_rows_and_nobody_else_does(sim_seed, sim_replay):
    fleet = warm(sim_seed, sim_replay, 16, group_size=32)
    gateway, liar = fleet.nodes[4], fleet.nodes[9]
    table = machines("cloud", 6, fleet.cluster.stream("rows"))
    rows = [Row(f"vm-{i}", values) for i, values in enumerate(table)]
    crowd = Gateways(fleet, [], 0)
    crowd.tell(gateway, rows)
    fleet.cluster.run_for(10.0)
    own = gateway.engine.hub.own
    keys = [row.record(SCHEMA, own, 1).key(SCHEMA) for row in rows]
    others = [node for node in fleet.nodes if node is not gateway]
    for key in keys:
        assert all(key in node.engine.hub.group.members for node in others)
    seq = own.seq + 50
    tell(fleet, liar, state_rumour(keys[0], seq, State.LEFT, 0.0))
    tell(
        fleet,
        liar,
        state_rumour(keys[0], seq, State.LEFT, 0.0, sign_left(member_of(liar), keys[0], seq)),
    )
    fleet.cluster.run_for(2.0)
    assert all(keys[0] in node.engine.hub.group.members for node in others if node is not liar)
    crowd.tell(gateway, rows[2:])
    fleet.cluster.run_for(10.0)
    for node in others:
        held = [key in node.engine.hub.group.members for key in keys]
        assert held == [False] * 2 + [True] * 4
    fleet.cluster.begin(gateway, lambda e, now: e.hub.leave(now))
    fleet.cluster.run_for(5.0)
    fleet.cluster.crash([gateway])
    for node in others:
        assert not any(key in node.engine.hub.group.members for key in keys)
    fleet.check()
