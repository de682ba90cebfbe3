"""A fleet that believes nobody who was not admitted: it finds as an open one, and no lie enters."""

import os
from functools import partial

import msgspec
import pytest
from fleets import Fleet, ids
from trust_world import Authority, member_of, secured

from dhtos.core.predicate import EVERYTHING
from dhtos.sim import Cluster
from dhtos.sim.network import Weather
from dhtos.trust.revocation import revoke


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


# --- revocation -----------------------------------------------------------------------------------


def informed(nodes, serial):
    """How many know; nobody tells the one it is about, who is shut out."""
    return sum(serial in member_of(node).revoked for node in nodes)


def test_whom_is_revoked_is_out_in_seconds(sim_seed, sim_replay):
    """One issuer says so; all hear of it, drop it from all tables, and let it in no more."""
    fleet = SecuredFleet(40, seed=sim_seed, replay=sim_replay, group_size=16).cold_start()
    thief, teller = fleet.nodes[5], fleet.nodes[17]
    cert = member_of(thief).chain.leaf
    revocation = revoke(fleet.authority.key, fleet.authority.name, cert.serial, cert.expires)
    began = fleet.cluster.now
    fleet.cluster.begin(teller, lambda e, now: e.revocations.add([revocation], now))
    others = [node for node in fleet.nodes if node is not thief]
    fleet.cluster.run_until(lambda: informed(others, cert.serial) == 39, 30.0)
    print(f"all know after {fleet.cluster.now - began:.2f} s")
    fleet.cluster.run_for(10.0)
    for node in others:
        assert thief.id not in {contact.id for contact in node.engine.base.contacts()}
        assert thief.engine.hub.key not in node.engine.hub.group.members
        assert node.engine.core.sessions.keyless(thief.endpoint)
    answer = fleet.ask(others[3], EVERYTHING)
    assert ids(answer) == {node.id for node in others}
    fleet.cluster.begin(thief, lambda e, now: e.base.put(b"k" * 20, b"v", now, seq=1))
    fleet.cluster.run_for(10.0)
    for node in others:
        assert node.engine.base.store.get(b"k" * 20, fleet.cluster.local(node)) is None


def test_a_crowd_hears_of_a_revocation(sim_seed, sim_replay):
    """Within 30 s 99.9 % of them: of 1,000 (`TRUST_NODES=1000`) after 8.5 s, of 150 after 5."""
    count = int(os.environ.get("TRUST_NODES", "150"))
    cluster = Cluster(secured(Authority(sim_seed)), seed=sim_seed, replay=sim_replay)
    nodes = cluster.add(count)
    rng = cluster.stream("test")
    for node in nodes[1:]:
        seeds = [rng.choice(nodes[: node.index]).endpoint]
        cluster.begin(node, lambda e, now, seeds=seeds: e.base.bootstrap(seeds, now))
    cluster.run_for(6.0)
    authority = Authority(sim_seed)
    cert = member_of(nodes[1]).chain.leaf
    revocation = revoke(authority.key, authority.name, cert.serial, cert.expires)
    began = cluster.now
    cluster.begin(nodes[2], lambda e, now: e.revocations.add([revocation], now))
    others = [node for node in nodes if node is not nodes[1]]
    while informed(others, cert.serial) < 0.999 * len(others) and cluster.now < began + 30.0:
        cluster.run_for(0.25)
    known = informed(others, cert.serial)
    print(f"{known} of {len(others)} know after {cluster.now - began:.2f} s")
    assert known >= 0.999 * len(others)


def test_who_was_away_hears_of_it_when_it_comes_back(sim_seed, sim_replay):
    fleet = SecuredFleet(12, seed=sim_seed, replay=sim_replay).cold_start()
    away = fleet.nodes[4]
    fleet.cluster.pause([away])
    serials = []
    for node in fleet.nodes[6:9]:
        cert = member_of(node).chain.leaf
        serials.append(cert.serial)
        revocation = revoke(fleet.authority.root, fleet.authority.name, cert.serial, cert.expires)
        fleet.cluster.begin(
            fleet.nodes[0], lambda e, now, one=revocation: e.revocations.add([one], now)
        )
    fleet.cluster.run_for(15.0)
    fleet.cluster.unpause([away])
    fleet.cluster.run_for(25.0)
    assert set(member_of(away).revoked) == set(serials)


def test_only_who_may_takes_back(sim_seed):
    """Not a node, not an issuer of another cluster, and not an issuer the root's own word."""
    authority, other = Authority(sim_seed), Authority(sim_seed + 1)
    member, victim = authority.member("one"), authority.member("two")
    cert = victim.chain.leaf
    assert not member.revoke(revoke(victim.key, authority.name, cert.serial, cert.expires))
    assert not member.revoke(revoke(other.key, authority.name, cert.serial, cert.expires))
    assert not member.revoke(revoke(other.root, other.name, cert.serial, cert.expires))
    assert not member.revoke(revoke(authority.key, other.name, cert.serial, cert.expires))
    own = authority.chain.leaf
    assert not member.revoke(revoke(authority.key, authority.name, own.serial, own.expires))
    assert member.revoke(revoke(authority.key, authority.name, cert.serial, cert.expires))
    assert not member.revoke(revoke(authority.key, authority.name, cert.serial, cert.expires))
    by_root = revoke(authority.root, authority.name, cert.serial, cert.expires)
    assert member.revoke(by_root)  # which counts for more
    assert not member.revoke(by_root)
    assert member.revoke(revoke(authority.root, authority.name, own.serial, own.expires))
