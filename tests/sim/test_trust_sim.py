"""A fleet that believes nobody who was not admitted: it finds as an open one, and no lie enters."""

from functools import partial

import msgspec
import pytest
from fleets import Fleet, ids
from trust_world import Authority, member_of, secured

from dhtos.core.predicate import EVERYTHING
from dhtos.sim.network import Weather


class SecuredFleet(Fleet):
    """A fleet of members of one cluster."""

    def __init__(self, count, *, seed, **options):
        self.authority = Authority(seed)
        super().__init__(count, seed=seed, factory=partial(secured, self.authority), **options)
        self.identity = [member_of(node).key.public for node in self.nodes]

    def counted(self, name):
        return sum(node.engine.counters[name] for node in self.nodes)


@pytest.mark.parametrize("group_size", [16, 256])
def test_a_secured_fleet_answers_exactly(sim_seed, sim_replay, group_size):
    fleet = SecuredFleet(50, seed=sim_seed, replay=sim_replay, group_size=group_size).cold_start()
    fleet.expect_recall(30)
    fleet.cluster.run_for(40.0)
    fleet.expect_one_view()
    fleet.expect_recall(30)
    fleet.check()
    assert fleet.counted("records_forged") == fleet.counted("forgeries") == 0
    assert fleet.counted("requests_denied") == 0


def test_changes_are_signed_as_records_are(sim_seed, sim_replay):
    fleet = SecuredFleet(12, seed=sim_seed, replay=sim_replay).cold_start()
    for node in fleet.nodes[:6]:
        fleet.publish(node, eager=True, mem_free=node.index * 2**30)
    fleet.cluster.run_for(10.0)
    fleet.expect_one_view()
    fleet.cluster.run_for(60.0)
    fleet.expect_one_view()
    assert fleet.counted("records_forged") == 0


def test_a_member_that_changes_what_others_said_is_not_believed(sim_seed, sim_replay):
    """It tells of a machine a hundred times larger, in its own group and in its answers."""
    fleet = SecuredFleet(10, seed=sim_seed, replay=sim_replay).cold_start()
    liar, victim = fleet.nodes[3], fleet.nodes[7]
    group = liar.engine.hub.group
    key = victim.engine.hub.key
    told = group.members[key].record
    forged = msgspec.structs.replace(told, seq=told.seq + 100, dynamic=(10**6, *told.dynamic[1:]))
    group.put(key, forged, fleet.cluster.local(liar), fleet.cluster.local(liar))
    fleet.cluster.begin(liar, lambda e, now: e.hub.gossip.spread(key, now, eager=True, whole=True))
    fleet.cluster.run_for(20.0)
    assert fleet.counted("records_forged") > 0
    for node in fleet.nodes:
        if node is not liar:
            assert node.engine.hub.group.members[key].record.dynamic != forged.dynamic


def test_strangers_of_another_cluster_get_nowhere(sim_seed, sim_replay):
    """They have certificates, of a root of their own, and know the address of every member."""
    fleet = SecuredFleet(8, seed=sim_seed, replay=sim_replay)
    known = [node.endpoint for node in fleet.nodes[:6]]
    other = Authority(sim_seed + 1)
    for node in fleet.nodes[6:]:
        stranger = other.member("stranger")
        node.engine.core.sessions.member = stranger
        node.engine.core.sessions._door._public = stranger.key.public
    fleet.found(fleet.nodes[0])
    for node in fleet.nodes[1:6]:
        fleet.begin_join(node, [fleet.nodes[0]])
    fleet.cluster.run_for(10.0)
    trying = [
        fleet.cluster.begin(node, lambda e, now: e.base.bootstrap(known, now))
        for node in fleet.nodes[6:]
    ]
    fleet.cluster.run_for(20.0)
    assert all("no seed answered" in str(operation.error) for operation in trying)
    strangers = {node.endpoint for node in fleet.nodes[6:]}
    for node in fleet.nodes[:6]:
        assert not strangers & {contact.endpoint for contact in node.engine.base.contacts()}
        assert len(node.engine.hub.group) == 6
    for node in fleet.nodes[6:]:
        assert set(node.engine.core.sessions.refusals.values()) == {
            "it refuses us: a certificate is of another cluster"
        }
    answer = fleet.ask(fleet.nodes[2], EVERYTHING)
    assert ids(answer) == {node.id for node in fleet.nodes[:6]}


def test_a_secured_fleet_lives_through_crashes_and_bad_weather(sim_seed, sim_replay):
    fleet = SecuredFleet(
        30, seed=sim_seed, replay=sim_replay, weather=Weather(loss=0.03, duplication=0.02)
    ).cold_start(settle_s=40.0)
    dead = fleet.rng.sample(fleet.nodes[1:], 6)
    fleet.cluster.crash(dead)
    fleet.cluster.run_for(60.0)
    for node in dead[:3]:
        fleet.cluster.restart([node])
        fleet.begin_join(node, [fleet.nodes[0]], seq=1000)
    fleet.cluster.run_for(60.0)
    fleet.expect_recall(20)
    assert fleet.counted("records_forged") == 0
