"""Clusters of the real engine: the factory, the truth, the closest nodes."""

from random import Random

import pytest

from dhtos.core.ids import common_prefix_bits, distance
from dhtos.core.schema import default_schema
from dhtos.protocol.engine import EngineConfig
from dhtos.sim.cluster import Cluster
from dhtos.sim.engines import base_truth, bootstrap, closest_nodes, engines

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
