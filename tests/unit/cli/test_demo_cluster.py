"""The demo's certificates: one seed is one fleet, and each machine is admitted as itself."""

from random import Random

from dhtos.cli.demo_cluster import Badge, DemoCluster


def test_one_seed_admits_the_same_machines():
    ids = [
        [c.node(f"m{n}").node_id for n in range(3)]
        for c in map(DemoCluster, map(Random, (7, 7, 8)))
    ]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])
    assert len(set(ids[0])) == 3


def test_a_badge_crosses_to_a_worker_process():
    badge = DemoCluster(Random(1)).node("m")
    again = Badge.from_wire(badge.to_wire())
    assert again == badge
    assert again.member().key.public == badge.chain.leaf.subject


def test_machines_and_the_asker_believe_each_other():
    cluster = DemoCluster(Random(1))
    node, user = cluster.node("m").member(), cluster.user("asker").member()
    assert user.read(node.chain.wire).leaf.is_node
    asker = node.read(user.chain.wire).leaf
    assert not asker.is_node
    assert asker.may("query")
    assert not asker.may("publish")
