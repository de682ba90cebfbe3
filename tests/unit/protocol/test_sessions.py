"""Sessions: nobody gets in unproven, everybody who belongs does, and what was lost is found."""

import pytest
from trust_world import Authority, secured

from dhtos.sim import Cluster
from dhtos.sim.engines import bootstrap
from dhtos.sim.network import Weather


def joined(count, *, seed=1, authority=None, **options):
    """A cluster of members that joined through the first of them."""
    cluster = Cluster(secured(authority or Authority()), seed=seed, bootstrap=bootstrap, **options)
    nodes = cluster.add(count)
    first = nodes[0].endpoint
    joining = [
        cluster.begin(node, lambda engine, now: engine.base.bootstrap([first], now))
        for node in nodes[1:]
    ]
    cluster.run_for(10.0)
    assert all(operation.done for operation in joining)
    return cluster, nodes, joining


def test_members_join_put_and_get():
    cluster, nodes, joining = joined(20)
    assert not [operation.error for operation in joining if operation.error]
    put = cluster.begin(nodes[3], lambda e, now: e.base.put(b"k" * 20, b"v", now))
    cluster.run_for(2.0)
    assert put.result().stored_on == 20
    got = cluster.begin(nodes[9], lambda e, now: e.base.get(b"k" * 20, now))
    cluster.run_for(2.0)
    assert got.result().value == b"v"
    for node in nodes:
        node.engine.check()
        assert not node.engine.counters["forgeries"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_members_join_through_bad_weather(seed):
    cluster, nodes, joining = joined(15, seed=seed, weather=Weather(loss=0.1, duplication=0.05))
    assert not [operation.error for operation in joining if operation.error]
    cluster.run_for(30.0)
    assert sum(node.engine.counters["replays"] for node in nodes) > 0  # the duplicates
