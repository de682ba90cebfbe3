"""Schedulers that know nothing of each other race for a few machines, in bad weather and worse.

Each story runs under `Believing`, after every moment: what owners believe is theirs never adds up
to more than a machine has. `--sim-runs=1000` looks for a story that breaks it.
"""

import pytest
from claims_world import CORES, World

from dhtos.core.limits import LEASE_MARGIN
from dhtos.protocol import claims, ledger
from dhtos.sim import FaultPlan, SimulationError, Weather
from dhtos.sim.faults import Crash, Partition, Pause

RAIN = Weather(loss=0.1, duplication=0.1, reordering=0.1, jitter=1.0, held_back_s=6.0)


STORM_S = 30.0


def storm(seed, replay=None, *, storms=2, **options):
    """All of it at once: rain, crashes, pauses, cuts, clocks of different speed, full disks."""
    world = World(seed, weather=RAIN, replay=replay, **options)
    nodes, faults = len(world.cluster.nodes), world.cluster.stream("faults")
    for _ in range(storms):
        plan = FaultPlan.drawn(faults, nodes=nodes, duration_s=STORM_S, count=8, share=0.3)
        plan.install(world.cluster)
        world.meddle(STORM_S)
        for number in range(2):
            one_way(world, number, STORM_S)
        world.race(STORM_S)
        world.cluster.run_for(1.0)
    world.cluster.network.weather = Weather()
    world.expect_whole()
    return world


def one_way(world, number, duration_s):
    """For a while a scheduler is heard by a machine that it does not hear, or the other way."""
    pair = [world.rng.choice(world.schedulers)], [world.rng.choice(world.hosts)]
    silent, deaf = pair if world.rng.random() < 0.5 else pair[::-1]
    start_s = world.rng.uniform(0, duration_s * 0.7)
    network, name = world.cluster.network, f"one way {number}"
    now = world.cluster.now
    world.cluster.call_at(now + start_s, lambda: network.cut_one_way(name, silent, deaf))
    end_s = start_s + world.rng.uniform(1, duration_s * 0.25)
    world.cluster.call_at(now + end_s, lambda: network.heal(name))


def test_nobody_is_oversold_on_a_clear_day(sim_seed, sim_replay):
    world = World(sim_seed, replay=sim_replay)
    world.race(20.0)
    assert world.claims > 500
    assert world.granted > 100
    assert world.lost == 0
    assert world.preempted > 20
    assert world.believing.highest == CORES  # they did compete for the last core
    world.expect_whole()


def test_nobody_is_oversold_in_any_weather(sim_seed, sim_replay):
    world = storm(sim_seed, sim_replay)
    assert world.claims > 500
    assert world.granted > 100
    assert world.preempted > 10
    assert world.cluster.network.fates["lost"] > 100


def test_the_file_of_a_node_is_as_good_as_paper(tmp_path):
    world = storm(3, storms=2, directory=tmp_path)
    assert world.granted > 50
    assert max(disk.file.epoch for disk in world.papers) > 2
    for disk in world.papers:
        disk.file.close()


def test_one_seed_replays_one_race():
    first, again = storm(5, storms=1), storm(5, storms=1)
    assert first.cluster.trace.digest == again.cluster.trace.digest
    assert (first.claims, first.granted) == (again.claims, again.granted)


def test_machines_that_crash_again_and_again_keep_their_word(sim_seed, sim_replay):
    """Down for less than a term: owners go on believing, and find their lease again."""
    world = World(sim_seed, replay=sim_replay, weather=RAIN)
    FaultPlan(
        tuple(Crash(2.0 + 3 * n, (n % 3,), 0.2 + n % 4) for n in range(8))
    ).install(world.cluster)  # fmt: skip
    world.race(30.0)
    world.cluster.network.weather = Weather()
    assert max(paper.epoch for paper in world.papers) > 2
    world.expect_whole()


def test_a_lease_outlives_the_restart_of_its_machine(sim_seed, sim_replay):
    world = World(sim_seed, machines=1, schedulers=1, replay=sim_replay)
    (node,) = world.schedulers
    world.rng.expovariate = lambda _: 100.0  # it is not released before
    world.claim(node, world.hosts, CORES, 20.0)
    world.cluster.run_for(1.0)
    (tenancy,) = node.engine.tenants.kept.values()
    for _ in range(5):
        world.cluster.crash([0])
        world.cluster.run_for(4.0)
        world.cluster.restart([0])
        world.cluster.run_for(5.0)
    world.cluster.expect(not tenancy.operation.done, "the lease was kept")
    world.cluster.expect(not world.hosts[0].engine.grants.ledger.free()["cores"], "and set aside")
    world.cluster.run_for(60.0)
    world.expect_whole()


@pytest.mark.parametrize("kind", [Pause, Partition, Crash])
def test_who_is_away_for_longer_than_its_term_has_lost(sim_seed, sim_replay, kind):
    """Of two owners each: the machine is granted to others while the first is away."""
    world = World(sim_seed, machines=1, schedulers=2, replay=sim_replay)
    first, second = world.schedulers
    world.rng.expovariate = lambda _: 100.0
    world.claim(first, world.hosts, CORES, 5.0)
    world.cluster.run_for(1.0)
    FaultPlan((kind(0.0, (first.index,), 8.0),)).install(world.cluster)
    world.cluster.run_for(7.0)
    world.claim(second, world.hosts, CORES, 5.0)
    world.cluster.run_for(10.0)
    assert world.granted == 2
    assert len(second.engine.tenants.kept) == 1
    assert not first.engine.tenants.kept
    world.cluster.run_for(60.0)
    world.expect_whole()


def test_a_machine_that_remembers_no_token_sells_nothing_twice(monkeypatch, sim_seed, sim_replay):
    """Strangers can fill that memory: what is revived by late copies is set aside for nobody."""
    monkeypatch.setattr(ledger, "TOKENS_GONE_MAX", 1)
    world = storm(sim_seed, sim_replay, storms=1)
    assert world.granted > 50


# --- the checker has teeth ------------------------------------------------------------------------


def _believe_longer(monkeypatch):
    monkeypatch.setattr(claims, "LEASE_MARGIN", -0.5)


def _free_at_once(monkeypatch):
    monkeypatch.setattr(ledger.Ledger, "revoke", ledger.Ledger.release)


def _sell_twice(monkeypatch):
    monkeypatch.setattr(ledger.Ledger, "_free", lambda self, name: self._capacity[name])


def _forget_leases(monkeypatch):
    monkeypatch.setattr("claims_world.Paper.restored", lambda self, _now: self.leases.clear() or [])


def _wait_for_nobody(monkeypatch):
    def at_once(_, grant, now):
        grant.state, grant.expires = ledger.State.HELD, now + ledger.HOLD_S

    monkeypatch.setattr(ledger.Ledger, "arrived", at_once)


@pytest.mark.parametrize(
    "fault", [_believe_longer, _free_at_once, _sell_twice, _forget_leases, _wait_for_nobody]
)  # fmt: skip
def test_a_protocol_that_is_wrong_is_found_out(monkeypatch, fault):
    fault(monkeypatch)
    with pytest.raises(SimulationError, match=r"of which|is granted|came twice"):
        _storms(6)


def _storms(count):
    for seed in range(count):
        storm(seed, storms=1)


@pytest.mark.parametrize("margin", [0.0, LEASE_MARGIN])
def test_clocks_of_different_speed_need_the_margin(monkeypatch, margin):
    """An owner whose clock is slow, an instant path, and a machine that it cannot hear any more."""
    monkeypatch.setattr(claims, "LEASE_MARGIN", margin)

    def story():
        world = World(1, machines=1, schedulers=1, delay=1e-4)
        world.hosts[0].engine.rate, world.schedulers[0].engine.rate = 1.0005, 0.9995
        world.rng.expovariate = lambda _: 100.0
        world.claim(world.schedulers[0], world.hosts, CORES, 20.0)
        world.cluster.run_for(1.0)
        assert world.granted == 1
        world.cluster.network.cut("all", world.hosts)
        world.cluster.run_for(30.0)

    if margin:
        story()
    else:
        with pytest.raises(SimulationError, match="of which"):
            story()
