"""Plans of faults: drawn from a seed, written down, installed, ended."""

from math import inf, nan
from random import Random

import pytest

from dhtos.errors import ConfigError
from dhtos.sim.cluster import Cluster
from dhtos.sim.faults import Crash, FaultPlan, Partition, Pause, Storm
from dhtos.sim.network import CLEAR, Weather
from dhtos.sim.node import NodeState
from dhtos.sim.testing import EchoEngine


@pytest.fixture
def cluster():
    cluster = Cluster(lambda node, now: EchoEngine(), seed=1)
    cluster.add(4)
    return cluster


def _states(cluster):
    return [node.state.value for node in cluster.nodes]


def test_a_crash_takes_the_state_and_ends(cluster):
    before = cluster.nodes[1].engine
    FaultPlan((Crash(1.0, (1, 2), 2.0),)).install(cluster)
    cluster.run_for(1.5)
    assert _states(cluster) == ["up", "down", "down", "up"]
    cluster.run_for(2.0)
    assert _states(cluster) == ["up"] * 4
    assert cluster.nodes[1].engine is not before


def test_a_crash_may_be_for_ever(cluster):
    FaultPlan((Crash(1.0, (0,)),)).install(cluster)
    cluster.run_for(1000.0)
    assert _states(cluster)[0] == "down"


def test_a_pause_keeps_the_state(cluster):
    before = cluster.nodes[3].engine
    FaultPlan((Pause(1.0, (3,), 2.0),)).install(cluster)
    cluster.run_for(1.5)
    assert _states(cluster)[3] == "paused"
    cluster.run_for(2.0)
    assert cluster.nodes[3].engine is before
    assert cluster.nodes[3].up


def test_a_partition_and_a_storm_end(cluster):
    storm = Weather(loss=0.5)
    FaultPlan((Partition(1.0, (0, 1), 2.0), Storm(1.0, storm, 2.0))).install(cluster)
    cluster.run_for(1.5)
    assert cluster.network.cuts == ("fault 0",)
    assert cluster.network.weather is storm
    cluster.run_for(2.0)
    assert cluster.network.cuts == ()
    assert cluster.network.weather is CLEAR


def test_overlapping_faults_touch_only_what_they_stopped(cluster):
    plan = FaultPlan((Crash(1.0, (0, 1), 10.0), Crash(2.0, (1, 2), 1.0), Pause(2.0, (0, 3), 1.0)))
    plan.install(cluster)
    cluster.run_for(2.5)
    assert _states(cluster) == ["down", "down", "down", "paused"]
    cluster.run_for(1.0)
    assert _states(cluster) == ["down", "down", "up", "up"]
    cluster.run_for(10.0)
    assert _states(cluster) == ["up"] * 4


def test_a_node_restarted_by_hand_is_left_alone_by_the_end_of_its_fault(cluster):
    FaultPlan((Crash(1.0, (0,), 5.0),)).install(cluster)
    cluster.run_for(2.0)
    cluster.restart([0])
    cluster.crash([0])
    cluster.run_for(10.0)
    assert cluster.nodes[0].state is NodeState.DOWN


def test_the_later_of_two_storms_ends_by_itself(cluster):
    first, second = Weather(loss=0.1), Weather(loss=0.2)
    FaultPlan((Storm(1.0, first, 2.0), Storm(2.0, second, 4.0))).install(cluster)
    cluster.run_for(4.0)
    assert cluster.network.weather is second
    cluster.run_for(4.0)
    assert cluster.network.weather is CLEAR


def test_times_count_from_the_install(cluster):
    cluster.run_for(100.0)
    FaultPlan((Crash(1.0, (0,), 1.0),)).install(cluster)
    cluster.run_for(1.5)
    assert not cluster.nodes[0].up


@pytest.mark.parametrize("seed", range(5))
def test_a_drawn_plan_stays_inside_its_bounds_and_survives_repr(seed):
    plan = FaultPlan.drawn(Random(seed), nodes=10, duration_s=60.0, count=20)
    assert len(plan.faults) == 20
    assert [f.at_s for f in plan.faults] == sorted(f.at_s for f in plan.faults)
    assert plan.end_s < 60.0
    assert plan == FaultPlan.drawn(Random(seed), nodes=10, duration_s=60.0, count=20)
    assert eval(repr(plan)) == plan  # a plan that a search found can be pasted into a test
    for fault in plan.faults:
        if not isinstance(fault, Storm):
            assert 1 <= len(fault.nodes) <= 2
            assert set(fault.nodes) <= set(range(10))


@pytest.mark.parametrize("seed", range(5))
def test_after_a_drawn_plan_everything_is_as_before(cluster, seed):
    plan = FaultPlan.drawn(Random(seed), nodes=4, duration_s=60.0, count=30, share=0.6)
    plan.install(cluster)
    cluster.run_for(60.0)
    assert _states(cluster) == ["up"] * 4
    assert cluster.network.cuts == ()
    assert cluster.network.weather is CLEAR
    cluster.check()


def test_churn_has_the_asked_sessions():
    plan = FaultPlan.churn(
        Random(3), nodes=range(50), duration_s=1000.0, session_s=100.0, downtime_s=25.0
    )
    assert 50 * 1000 / 125 * 0.8 < len(plan.faults) < 50 * 1000 / 125 * 1.2
    away = [fault.for_s for fault in plan.faults]
    assert 20.0 < sum(away) / len(away) < 30.0
    assert plan.faults == tuple(sorted(plan.faults, key=lambda fault: fault.at_s))


@pytest.mark.parametrize("fault", [Crash(-1.0, (0,)), Crash(nan, (0,)), Pause(1.0, (0,), 0.0)])
def test_impossible_faults_are_refused(fault):
    with pytest.raises(ConfigError, match="a fault starts"):
        FaultPlan((fault,))


def test_an_empty_plan_ends_at_once():
    assert FaultPlan(()).end_s == 0.0
    assert FaultPlan((Crash(1.0, (0,), inf),)).end_s == 0.0
