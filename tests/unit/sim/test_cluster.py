"""The cluster: moments, wake-ups, lives of nodes, operations, failures."""

from math import inf

import pytest

from dhtos.errors import KeyNotFound, NoPeers, UsageError
from dhtos.sim.checkers import Checker
from dhtos.sim.cluster import OFFSET_MAX_S, SPINS_MAX, Cluster, endpoint_of
from dhtos.sim.failure import SimulationError
from dhtos.sim.network import Weather
from dhtos.sim.testing import EchoEngine


class Pending:
    """An operation of the test's own engine."""

    def __init__(self):
        self.done = False
        self.error = None
        self.value = None

    def result(self):
        assert self.done
        if self.error is not None:
            raise self.error
        return self.value


class AskingEngine(EchoEngine):
    """An echo engine with one operation, `ask`, and a journal of what was done to it."""

    def __init__(self, beat_s=inf, now=0.0):
        super().__init__(beat_s, now)
        self.journal = []
        self.asked = []
        self.happened = []
        self.seeds = None

    def ask(self, target):
        operation = Pending()
        self.asked.append(operation)
        self.send(b"hello", target)
        return operation

    def bootstrap(self, seeds, now):
        self.seeds = seeds
        return self.ask(seeds[0])

    def receive(self, datagram, source, now):
        super().receive(datagram, source, now)
        self.journal.append(("receive", now))
        if datagram[:1] == b"r" and self.asked:
            operation = self.asked.pop(0)
            operation.done, operation.value = True, datagram
            self.happened.append(operation)

    def tick(self, now):
        super().tick(now)
        self.journal.append(("tick", now))

    def events(self):
        taken, self.happened = self.happened, []
        return taken


def _cluster(count=2, *, seed=1, beat_s=inf, **options):
    cluster = Cluster(lambda node, now: AskingEngine(beat_s, now), seed=seed, **options)
    cluster.add(count)
    return cluster


def _hello(cluster, source, target):
    endpoint = cluster.nodes[target].endpoint
    cluster.begin(source, lambda engine, now: engine.send(b"hello", endpoint))


# --- moments --------------------------------------------------------------------------------------


def test_datagrams_of_one_moment_are_received_before_one_tick():
    cluster = _cluster(3, delay=0.1)
    _hello(cluster, 0, 2)
    _hello(cluster, 1, 2)
    _hello(cluster, 1, 2)
    cluster.run_for(0.15)
    verbs = [verb for verb, _ in cluster.nodes[2].engine.journal]
    assert verbs == ["receive", "receive", "receive", "tick"]
    assert cluster.moments == 1


def test_a_node_reads_its_own_clock():
    cluster = _cluster(2, delay=0.25)
    first, second = cluster.nodes
    assert first.offset_s != second.offset_s
    assert 0 <= second.offset_s <= OFFSET_MAX_S
    _hello(cluster, first, 1)
    cluster.run_for(1.0)
    assert second.engine.journal[0] == ("receive", 0.25 + second.offset_s)
    assert cluster.local(second) == 1.0 + second.offset_s
    assert cluster.local(1) == cluster.local(second)


def test_beats_come_when_they_are_due():
    cluster = _cluster(3, beat_s=10.0)
    cluster.run_for(35.0)
    assert [node.engine.ticks for node in cluster.nodes] == [3, 3, 3]
    assert cluster.now == 35.0


def test_an_idle_cluster_costs_nothing():
    cluster = _cluster(3)
    cluster.run_for(1e6)
    assert cluster.moments == 0
    assert cluster.now == 1e6


def test_a_deadline_that_moved_away_does_not_tick():
    cluster = _cluster(1, beat_s=1.0)
    engine = cluster.nodes[0].engine
    engine._due += 4.0
    cluster.run_for(2.0)
    assert engine.journal == []
    cluster.run_for(3.5)
    assert engine.ticks == 1
    engine._due = inf
    cluster.run_for(10.0)
    assert engine.ticks == 1
    assert not cluster.clock.heap


def test_a_deadline_that_moved_closer_replaces_the_wake_up():
    cluster = _cluster(1, beat_s=100.0)
    cluster.begin(0, lambda engine, now: setattr(engine, "_due", now + 1.0))
    cluster.run_for(2.0)
    assert cluster.nodes[0].engine.ticks == 1
    cluster.run_for(100.0)
    assert cluster.nodes[0].engine.ticks == 2  # and the stale wake-up ticked nothing
    cluster.check()


def test_an_engine_that_is_always_due_is_caught():
    cluster = _cluster(1, beat_s=0.0, seed=5)
    with pytest.raises(SimulationError, match="it spins"):
        cluster.run_for(1.0)
    assert len(cluster.nodes[0].engine.journal) <= SPINS_MAX + 1


# --- determinism ----------------------------------------------------------------------------------


def _busy_digest(seed):
    weather = Weather(loss=0.1, duplication=0.1, reordering=0.2, jitter=0.5)
    cluster = _cluster(10, seed=seed, weather=weather)
    for index in range(10):
        _hello(cluster, index, (index + 3) % 10)
    cluster.crash([4])
    cluster.run_for(1.0)
    return cluster.trace.digest, cluster.nodes[3].id, cluster.nodes[3].offset_s


def test_same_seed_same_trace_other_seed_other_trace():
    assert _busy_digest(1) == _busy_digest(1)
    assert all(a != b for a, b in zip(_busy_digest(1), _busy_digest(2), strict=True))


def test_streams_are_independent_of_their_order():
    cluster = _cluster()
    first = cluster.stream("a").random()
    cluster.stream("b").random()
    assert cluster.stream("a").random() == first != cluster.stream("b").random()


# --- nodes ----------------------------------------------------------------------------------------


def test_nodes_have_distinct_ids_and_private_endpoints():
    cluster = _cluster(300)
    assert len({node.id for node in cluster.nodes}) == 300
    assert cluster.nodes[0].endpoint == ("10.0.0.1", 7400)
    assert cluster.nodes[255].endpoint == ("10.0.1.0", 7400)
    assert endpoint_of(2**16)[0] == "10.1.0.1"


def test_ids_may_be_given():
    cluster = _cluster(0)
    (node,) = cluster.add(ids=[b"\x01" * 20])
    assert node.id == b"\x01" * 20


def test_a_cluster_has_a_size_limit():
    with pytest.raises(UsageError, match="at most"):
        _cluster(0).add(2**24)


def test_a_crashed_node_is_silent_and_restarts_empty():
    cluster = _cluster(delay=0.1)
    old = cluster.nodes[1].engine
    cluster.crash([1])
    _hello(cluster, 0, 1)
    cluster.run_for(1.0)
    assert cluster.network.fates["node down"] == 1
    assert cluster.up() == [cluster.nodes[0]]
    cluster.restart([1])
    _hello(cluster, 0, 1)
    cluster.run_for(1.0)
    assert old.received == 0
    assert cluster.nodes[1].engine.received == 1
    cluster.check()


def test_a_crash_forgets_the_wake_up_and_a_restart_plans_a_new_one():
    cluster = _cluster(1, beat_s=10.0)
    old = cluster.nodes[0].engine
    cluster.run_for(5.0)
    cluster.crash([0])
    cluster.run_for(20.0)
    assert old.ticks == 0
    cluster.restart([0])
    cluster.run_for(9.0)
    assert cluster.nodes[0].engine.ticks == 0
    cluster.run_for(2.0)
    assert cluster.nodes[0].engine.ticks == 1


def test_a_factory_may_carry_state_over_a_restart():
    kept = []

    def factory(node, now):
        kept.append(node.previous)
        return AskingEngine()

    cluster = Cluster(factory, seed=1)
    cluster.add(1)
    first = cluster.nodes[0].engine
    cluster.crash([0])
    cluster.restart([0])
    assert kept == [None, first]


def test_a_restart_has_other_chances_than_the_first_life():
    cluster = _cluster(1)
    first = cluster.stream("node/0/0").random()
    cluster.crash([0])
    cluster.restart([0])
    assert cluster.nodes[0].rng.random() != first


def test_on_restart_may_let_the_node_rejoin():
    cluster = _cluster(3, on_restart=Cluster.rejoin)
    cluster.crash([2])
    cluster.restart([2])
    assert cluster.nodes[2].engine.seeds[0] in [node.endpoint for node in cluster.nodes[:2]]


def test_a_lone_node_has_nobody_to_rejoin():
    cluster = _cluster(1, on_restart=Cluster.rejoin)
    cluster.crash([0])
    cluster.restart([0])
    assert cluster.nodes[0].engine.seeds is None


def test_a_paused_node_reads_its_buffer_when_it_goes_on():
    cluster = _cluster(delay=0.1, beat_s=1.0)
    node = cluster.nodes[1]
    cluster.pause([node])
    _hello(cluster, 0, 1)
    cluster.run_for(5.5)
    assert node.engine.journal == []
    cluster.unpause([node])
    cluster.run_for(0.0)
    verbs = [verb for verb, _ in node.engine.journal]
    assert verbs[0] == "receive"
    assert node.engine.ticks == 1
    cluster.check()


@pytest.mark.parametrize(
    ("before", "verb", "message"),
    [
        ([], "restart", "crash it first"),
        ([], "unpause", "is not paused"),
        (["crash"], "crash", "already down"),
        (["crash"], "pause", "does not run"),
        (["pause"], "pause", "does not run"),
        (["pause"], "restart", "crash it first"),
    ],
)
def test_impossible_lives_are_refused(before, verb, message):
    cluster = _cluster()
    for step in before:
        getattr(cluster, step)([0])
    with pytest.raises(UsageError, match=message):
        getattr(cluster, verb)([0])


# --- operations -----------------------------------------------------------------------------------


def test_do_runs_until_the_operation_ends():
    cluster = _cluster(delay=0.1)
    target = cluster.nodes[1].endpoint
    assert cluster.do(0, lambda engine, now: engine.ask(target)) == b"rhello"
    assert cluster.now == pytest.approx(0.2)


def test_do_raises_what_the_operation_raises():
    cluster = _cluster()

    def failing(engine, now):
        operation = Pending()
        operation.done, operation.error = True, KeyNotFound("k")
        return operation

    with pytest.raises(KeyNotFound):
        cluster.do(0, failing)


def test_do_fails_with_the_seed_when_nothing_comes():
    cluster = _cluster(seed=77, replay="pytest here --sim-seed=77")
    cluster.crash([1])
    target = cluster.nodes[1].endpoint
    with pytest.raises(SimulationError, match=r"expected within 3\.0 s") as caught:
        cluster.do(0, lambda engine, now: engine.ask(target), limit_s=3.0)
    assert caught.value.seed == 77
    assert caught.value.time_s == 3.0
    assert "replay: pytest here --sim-seed=77" in str(caught.value)


def test_nothing_can_be_asked_of_a_node_that_does_not_run():
    cluster = _cluster()
    cluster.crash([0])
    with pytest.raises(UsageError, match="does not run"):
        cluster.begin(0, lambda engine, now: None)


def test_wait_needs_all():
    cluster = _cluster(3, delay=0.1)
    near = cluster.begin(0, lambda e, now: e.ask(cluster.nodes[1].endpoint))
    cluster.run_for(0.1)
    late = cluster.begin(0, lambda e, now: e.ask(cluster.nodes[2].endpoint))
    cluster.wait([near, late])
    assert near.done
    assert late.done
    assert cluster.now == pytest.approx(0.3)


def test_join_asks_every_node_but_the_seeds_with_the_seeds():
    cluster = _cluster(4, delay=0.1)
    cluster.join(seeds=[0, 1], spacing_s=1.0)
    seeds = [node.endpoint for node in cluster.nodes[:2]]
    assert [node.engine.seeds for node in cluster.nodes] == [None, None, seeds, seeds]
    assert cluster.now == pytest.approx(1.2)


def test_join_of_chosen_nodes():
    cluster = _cluster(4)
    cluster.join([3], seeds=[1])
    assert [node.engine.seeds is not None for node in cluster.nodes] == [False, False, False, True]
    cluster.join([])


def test_a_node_that_cannot_join_fails_the_run():
    def refuse(engine, seeds, now):
        operation = Pending()
        operation.done, operation.error = True, NoPeers("no seed answered")
        return operation

    cluster = _cluster(2, seed=6, bootstrap=refuse)
    with pytest.raises(SimulationError, match="did not join: no seed answered\n  seed=6"):
        cluster.join()


def test_warm_start_shows_every_engine_the_truth_and_reads_its_deadline():
    cluster = _cluster(3)
    cluster.crash([2])
    filled = []

    def fill(engine, nodes, now):
        filled.append((engine, [node.index for node in nodes], now))
        engine._due = now + 1.0

    cluster.warm_start(fill)
    assert [indexes for _, indexes, _ in filled] == [[0, 1], [0, 1]]
    assert filled[1][0] is cluster.nodes[1].engine
    assert filled[1][2] == cluster.local(1)
    cluster.run_for(1.5)
    assert [node.engine.ticks for node in cluster.nodes] == [1, 1, 0]


def test_events_are_drained_and_shown():
    cluster = _cluster()
    seen = []
    target = cluster.nodes[1].endpoint
    cluster.do(0, lambda engine, now: engine.ask(target))  # nobody looks
    cluster.on_event = lambda node, event: seen.append((node.index, event))
    operation = cluster.begin(0, lambda engine, now: engine.ask(target))
    cluster.run_for(1.0)
    assert seen == [(0, operation)]


# --- time -----------------------------------------------------------------------------------------


def test_run_until_stops_at_the_moment():
    cluster = _cluster(delay=0.1)
    _hello(cluster, 0, 1)
    cluster.run_until(lambda: cluster.nodes[0].engine.received == 1, 5.0)
    assert cluster.now == pytest.approx(0.2)
    cluster.run_until(lambda: True, 0.0)


def test_step_lives_one_moment():
    cluster = _cluster(delay=0.1)
    _hello(cluster, 0, 1)
    assert not cluster.step(0.05)
    assert cluster.step(0.15)
    assert cluster.now == 0.1
    assert cluster.step()
    assert not cluster.step()


def test_a_guest_brings_its_own_engine_and_may_leave():
    cluster = _cluster(delay=0.1)
    guest = cluster.add_guest(AskingEngine(), None, 0)
    assert guest.endpoint == endpoint_of(2)
    _hello(cluster, guest, 1)
    cluster.run_for(0.15)
    cluster.remove_guest(guest)
    cluster.run_for(1.0)
    assert guest.engine.received == 0
    assert cluster.network.fates["node down"] == 1
    again = cluster.add_guest(AskingEngine(), *guest.endpoint)
    cluster.crash([again])
    cluster.remove_guest(again)
    assert cluster.network.at(again.endpoint) is None
    cluster.check()


def test_run_until_fails_at_its_limit():
    cluster = _cluster()
    with pytest.raises(SimulationError, match="that pigs fly; it did not come"):
        cluster.run_until(lambda: False, 2.0, "pigs fly")
    assert cluster.now == 2.0


@pytest.mark.parametrize("seconds", [-1.0, inf, float("nan")])
def test_run_for_takes_a_time(seconds):
    with pytest.raises(UsageError):
        _cluster().run_for(seconds)


def test_an_action_may_crash_nodes_but_not_run_the_cluster():
    cluster = _cluster(delay=0.1)
    _hello(cluster, 0, 1)
    cluster.call_at(0.1, lambda: cluster.crash([1]))  # the moment of the arrival, after it
    cluster.run_for(1.0)
    assert cluster.nodes[1].engine.journal == [("receive", 0.1 + cluster.nodes[1].offset_s)]
    cluster.call_at(2.0, lambda: cluster.run_for(1.0))
    with pytest.raises(SimulationError, match="already running"):
        cluster.run_for(5.0)


def test_a_long_run_packs_its_trace():
    cluster = _cluster(2, delay=0.001)
    for _ in range(2500):
        _hello(cluster, 0, 1)
    cluster.run_for(1.0)
    assert cluster.trace.deliveries == 5000
    assert len(cluster.trace.pending) < 4096


# --- failures and checks --------------------------------------------------------------------------


def test_an_exception_of_an_engine_carries_seed_time_and_tail():
    cluster = _cluster(delay=0.5, seed=9)
    cluster.nodes[1].engine.receive = None
    cluster.crash([1])
    cluster.restart([1])
    cluster.nodes[1].engine.journal = None  # appending to it will fail
    _hello(cluster, 0, 1)
    with pytest.raises(SimulationError, match="AttributeError") as caught:
        cluster.run_for(1.0)
    assert isinstance(caught.value.__cause__, AttributeError)
    assert "seed=9 time=0.500000 s" in str(caught.value)
    assert "0->1 5 B" in str(caught.value)


def test_expect_fails_with_the_seed():
    cluster = _cluster(seed=3)
    cluster.expect(1, "one is true")
    with pytest.raises(SimulationError, match="two\n  seed=3"):
        cluster.expect([], "two")


def test_an_assertion_in_the_block_is_noted_with_the_seed():
    with pytest.raises(AssertionError) as caught, _cluster(seed=8) as cluster:
        assert cluster.now > 1, "too early"
    assert "seed=8" in caught.value.__notes__[0]


def test_a_simulation_error_is_not_noted_twice():
    with pytest.raises(SimulationError) as caught, _cluster() as cluster:
        cluster.expect(False, "x")
    assert not hasattr(caught.value, "__notes__")


class Counting(Checker):
    """Counts what it is shown."""

    def __init__(self):
        self.seen = {"sent": 0, "delivered": 0, "inspect": 0}

    def sent(self, now, node, outgoing):
        self.seen["sent"] += len(outgoing)

    def delivered(self, now, node, datagram, source):
        self.seen["delivered"] += 1

    def inspect(self, now, nodes):
        self.seen["inspect"] += 1


def test_checkers_see_everything_and_inspect_every_so_often():
    counting = Counting()
    cluster = _cluster(beat_s=1.0, checkers=[counting], check_every=4)
    _hello(cluster, 0, 1)
    cluster.run_for(10.5)
    assert counting.seen == {"sent": 2, "delivered": 2, "inspect": cluster.moments // 4}


def test_accounting_is_kept_when_asked():
    assert _cluster().traffic is None
    cluster = _cluster(accounting=True)
    _hello(cluster, 0, 1)
    cluster.run_for(1.0)
    assert cluster.traffic.total.datagrams == 2 == cluster.network.sent


def test_check_looks_at_everything():
    cluster = _cluster(3, beat_s=1.0)
    cluster.run_for(3.0)
    cluster.check()
    cluster.nodes[1].engine.ticks = -1
    with pytest.raises(AssertionError):
        cluster.check()
