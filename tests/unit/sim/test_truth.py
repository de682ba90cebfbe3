"""Clusters of the real engine: the factory, the truth they start from, the closest nodes."""

from random import Random

import pytest

from dhtos.core.curve import VERSION_BITS
from dhtos.core.ids import common_prefix_bits, distance
from dhtos.core.limits import HUB_BUCKET_CONTACTS_MAX, NODE_HEARTBEAT_S
from dhtos.core.record import make_record
from dhtos.core.schema import default_schema
from dhtos.protocol.engine import EngineConfig
from dhtos.sim.cluster import Cluster
from dhtos.sim.engines import bootstrap, closest_nodes, engines
from dhtos.sim.truth import base_truth, hub_truth

K = 4


def _cluster(count, *, seed=1, warm=True, schema=None):
    config = EngineConfig(k=K)
    cluster = Cluster(engines(config=config, schema=schema), seed=seed, bootstrap=bootstrap)
    cluster.add(count)
    if warm:
        cluster.warm_start(base_truth())
    return cluster


def test_each_node_has_an_engine_of_its_own():
    cluster = _cluster(3, warm=False)
    assert [node.engine.id for node in cluster.nodes] == [node.id for node in cluster.nodes]
    assert all(node.engine.config.k == K for node in cluster.nodes)
    assert len({id(node.engine.core.rng) for node in cluster.nodes}) == 3


def test_a_schema_gives_a_hub():
    cluster = _cluster(1, warm=False, schema=default_schema())
    assert cluster.nodes[0].engine.hub is not None


def test_bootstrap_joins_the_base_overlay():
    cluster = _cluster(2, warm=False)
    cluster.join()
    assert [len(node.engine.base.contacts()) for node in cluster.nodes] == [1, 1]


@pytest.mark.parametrize("seed", range(3))
def test_the_truth_fills_every_bucket_that_can_be_filled(seed):
    cluster = _cluster(40, seed=seed)
    cluster.check()
    for node in cluster.nodes:
        known = {contact.id for contact in node.engine.base.contacts()}
        buckets = {}
        for other in cluster.nodes:
            if other is not node:
                shared = common_prefix_bits(node.id, other.id)
                buckets.setdefault(shared, []).append(other.id)
        for shared, ids in buckets.items():
            there = [node_id for node_id in ids if node_id in known]
            assert len(there) == min(K, len(ids)), (node, shared)


def test_the_truth_knows_the_true_neighbours():
    cluster = _cluster(60)
    for node in cluster.nodes:
        others = [other for other in cluster.nodes if other is not node]
        nearest = closest_nodes(others, node.id, 1)[0]
        assert node.engine.base.routing.get(nearest.id) is not None


def test_the_truth_names_only_nodes_that_run():
    cluster = _cluster(20, warm=False)
    cluster.crash(range(5))
    cluster.warm_start(base_truth())
    dead = {node.id for node in cluster.nodes[:5]}
    for node in cluster.up():
        assert not dead & {contact.id for contact in node.engine.base.contacts()}


def test_a_tiny_cluster_knows_everybody():
    cluster = _cluster(3)
    assert [len(node.engine.base.contacts()) for node in cluster.nodes] == [2, 2, 2]


def test_closest_nodes_are_those_of_brute_force():
    cluster = _cluster(30, warm=False)
    target = Random(5).randbytes(20)
    chosen = closest_nodes(cluster.nodes, target, 7)
    rest = [node for node in cluster.nodes if node not in chosen]
    far = max(distance(node.id, target) for node in chosen)
    assert len(chosen) == 7
    assert all(distance(node.id, target) > far for node in rest)


# --- the hub ------------------------------------------------------------------------------------

SCHEMA = default_schema()
G = 8


def _advert(node):
    values = {"cores": 2 ** (node.index % 7), "mem": 2**30 * (1 + node.index % 5)}
    return make_record(SCHEMA, values, {}, node_id=node.id, endpoint=node.endpoint, seq=1)


def _hub_cluster(count, seed=1):
    config = EngineConfig(group_size=G)
    cluster = Cluster(engines(config=config, schema=SCHEMA), seed=seed)
    cluster.add(count)
    return cluster


def _warm_hubs(count, seed=1):
    cluster = _hub_cluster(count, seed)
    cluster.warm_start(hub_truth(_advert))
    return cluster, {node.engine.hub.key: node.engine.hub for node in cluster.nodes}


@pytest.mark.parametrize("seed", range(3))
def test_the_hub_truth_is_the_narrowest_group_and_every_other_subtree(seed):
    cluster, hubs = _warm_hubs(60, seed)
    cluster.check()
    for key, hub in hubs.items():
        assert hub.settled
        assert set(hub.group.members) == {k for k in hubs if hub.group.prefix.holds(k)}
        assert len(hub.group) <= G
        assert sum(hub.group.prefix.parent().holds(k) for k in hubs) > G
        outside = {hub.buckets.index_of(k) for k in hubs if not hub.group.prefix.holds(k)}
        assert {index for index, _ in hub.buckets.inhabited()} == outside
        for index, bucket in hub.buckets.inhabited():
            there = [k for k in hubs if hub.buckets.prefix(index).holds(k)]
            assert bucket.summary.count == len(there)
            assert bucket.contacts.keys() <= set(there) - {key}
            assert len(bucket.contacts) == min(len(there), HUB_BUCKET_CONTACTS_MAX)


def test_a_hub_that_fits_in_one_group_is_held_whole():
    cluster, hubs = _warm_hubs(G)
    for node in cluster.nodes:
        assert node.engine.hub.group.depth == VERSION_BITS
        assert node.engine.hub.group.members.keys() == hubs.keys()
        assert node.engine.hub.buckets.inhabited() == []


def test_members_agree_on_how_old_a_record_is():
    cluster, hubs = _warm_hubs(30)
    ages = {}
    for node in cluster.nodes:
        for key, member in node.engine.hub.group.members.items():
            ages.setdefault(key, []).append(cluster.local(node) - member.born)
    assert ages.keys() == hubs.keys()
    for held in ages.values():
        assert max(held) - min(held) < 1e-6
        assert 0 <= min(held) < NODE_HEARTBEAT_S
    assert len({round(held[0], 3) for held in ages.values()}) > 20


def test_a_hub_started_from_the_truth_announces_nothing_and_runs():
    cluster, _ = _warm_hubs(30)
    assert cluster.network.sent == 0
    cluster.run_for(3.0)
    assert cluster.network.sent > 0
    assert all(node.engine.counters["suspicions"] == 0 for node in cluster.nodes)


def test_the_hub_truth_of_another_cluster_is_another_truth():
    fill = hub_truth(_advert)
    for seed in (1, 2):
        cluster = _hub_cluster(20, seed)
        cluster.warm_start(fill)
        own = {node.engine.hub.own.node_id for node in cluster.nodes}
        assert own == {node.id for node in cluster.nodes}
