"""The hub when machines die, move, pause, change and come back, and when the network is bad.

Each story ends with the truth: every running node in the answers, nobody else, and everybody's
view equal to what runs.
"""

import pytest
from fleets import SCHEMA, Fleet, at_least, equal, ids

from dhtos.core.group import State
from dhtos.core.limits import SUMMARY_INTERVAL_S
from dhtos.core.predicate import EVERYTHING, Box, Predicate, Range
from dhtos.sim import Weather, standard

COUNT = 80
G = 16
BOUNDED_S = 150.0  # every healing here is done by then: two reseeds and a round of summaries
FORGOTTEN_S = 200.0  # by then a subtree of which nobody lives is no longer asked about
ROUND_S = 2 * SUMMARY_INTERVAL_S  # by then every group, be it one node, knows of a new kind


def _warm(seed, replay, count=COUNT, **options):
    options.setdefault("group_size", G)
    crowd = Fleet(count, seed=seed, replay=replay, **options).warm_start()
    crowd.cluster.run_for(3.0)
    return crowd


def _one_again(crowd):
    """Whether every view is the truth: members and the inhabited subtrees."""
    running = crowd.cluster.up()
    keys = [node.engine.hub.key for node in running]
    for node in running:
        hub = node.engine.hub
        inside = {key for key in keys if hub.group.prefix.holds(key)}
        outside = {hub.buckets.index_of(key) for key in keys if key not in inside}
        if not hub.settled or set(hub.group.members) != inside:
            return False
        if {index for index, _ in hub.buckets.inhabited()} != outside:
            return False
    return True


def _run_until_one(crowd, limit_s=BOUNDED_S):
    began = crowd.cluster.now
    while not _one_again(crowd):
        crowd.cluster.expect(
            crowd.cluster.now - began < limit_s, f"the views are still apart after {limit_s} s"
        )
        crowd.cluster.run_for(1.0)
    return crowd.cluster.now - began


def _believed(node, key):
    """What a node believes of a key: a state, or None if it knows nothing of it."""
    group = node.engine.hub.group
    if key in group.members:
        return group.members[key].state
    tombstone = group.tombstones.get(key)
    return tombstone and tombstone.state


def _mates(crowd, node, key=None):
    """The running nodes that hold `key` in their group."""
    key = key or node.engine.hub.key
    return [n for n in crowd.cluster.up() if n is not node and n.engine.hub.group.prefix.holds(key)]


# --- sudden death ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("count", [COUNT, 200])
def test_a_third_dies_at_once_and_every_live_match_is_found(sim_seed, sim_replay, count):
    crowd = _warm(sim_seed, sim_replay, count, group_size=32)
    crowd.cluster.crash(crowd.rng.sample(crowd.nodes, count * 3 // 10))
    for predicate, result in crowd.ask_many(crowd.predicates(40), batch=20):
        missing = crowd.truth(predicate) - ids(result)
        if missing:  # then it must not pretend
            crowd.cluster.expect(
                not result.coverage.complete, f"{predicate}: {len(missing)} lost in silence"
            )
        crowd.cluster.expect(
            not missing, f"{predicate}: {len(missing)} live ones not found, {result.coverage}"
        )
    crowd.cluster.run_for(60.0)
    _expect_live(crowd, 40)
    crowd.expect_one_view()
    crowd.check()


def _expect_live(crowd, count):
    """So many answers hold those that live and nobody else, and say what could not be asked.

    A subtree whose every node died is inhabited as far as others know, for RECORD_TTL_S: until
    then nobody can say that nothing matches there, and an answer is not complete.
    """
    for predicate, result in crowd.ask_many(crowd.predicates(count)):
        crowd.cluster.expect(ids(result) == crowd.truth(predicate), f"{predicate}: lost or stale")
        _expect_truthful(crowd, result)


def _expect_truthful(crowd, result):
    """Nothing failed, or what failed is a subtree where nobody is left to answer."""
    coverage = result.coverage
    crowd.cluster.expect(coverage.complete == (not coverage.failed_prefixes), f"{coverage}")
    for prefix in coverage.failed_prefixes:
        alive = [node for node in crowd.cluster.up() if prefix.holds(node.engine.hub.key)]
        crowd.cluster.expect(not alive, f"{alive} below {prefix} live and were not reached")


def test_what_nobody_can_answer_for_is_named(sim_seed, sim_replay):
    """A whole subtree dies at once: the answer says which prefix is missing."""
    crowd = _warm(sim_seed, sim_replay)
    asker = crowd.nodes[0]
    hub = asker.engine.hub
    index, _ = max(hub.buckets.inhabited(), key=lambda entry: entry[1].count)
    lost = hub.buckets.prefix(index)
    victims = [node for node in crowd.nodes if lost.holds(node.engine.hub.key)]
    crowd.cluster.crash(victims)
    result = crowd.ask(asker, EVERYTHING)
    crowd.cluster.expect(ids(result) == crowd.truth(EVERYTHING), "those that live are found")
    coverage = result.coverage
    crowd.cluster.expect(not coverage.complete and coverage.fraction < 1, f"{coverage} pretends")
    crowd.cluster.expect(
        any(prefix.covers(lost) or lost.covers(prefix) for prefix in coverage.failed_prefixes),
        f"{coverage.failed_prefixes} do not name {lost}",
    )
    crowd.cluster.run_for(FORGOTTEN_S)
    crowd.expect_recall(20)
    crowd.check()


# --- bad weather ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_bad_weather_buries_nobody_for_good(sim_seed, sim_replay):
    weather = Weather(loss=0.05, duplication=0.05, reordering=0.1, jitter=1.0)
    crowd = _warm(sim_seed, sim_replay, checkers=standard(), check_every=20_000)
    crowd.cluster.network.weather = weather
    crowd.cluster.run_for(90.0)
    crowd.cluster.expect(crowd.cluster.network.fates["lost"] > 0, "the weather was bad")
    found = wanted = 0
    for predicate, result in crowd.ask_many(crowd.predicates(40)):
        truth = crowd.truth(predicate)
        found, wanted = found + len(truth & ids(result)), wanted + len(truth)
    crowd.cluster.expect(found >= 0.99 * wanted, f"{found} of {wanted} matches in the rain")
    crowd.cluster.network.weather = Weather()
    crowd.cluster.run_for(ROUND_S)
    crowd.expect_one_view()
    crowd.expect_recall(30)
    crowd.check()


def test_joining_in_bad_weather_ends_in_one_hub(sim_seed, sim_replay):
    weather = Weather(loss=0.05, duplication=0.05, reordering=0.1, jitter=1.0)
    crowd = Fleet(60, seed=sim_seed, replay=sim_replay, group_size=G, weather=weather)
    crowd.cold_start(settle_s=30.0)
    _run_until_one(crowd)
    crowd.cluster.network.weather = Weather()
    crowd.cluster.run_for(ROUND_S)
    crowd.expect_recall(20)
    crowd.check()


# --- partition ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_halves_answer_for_themselves_and_become_one_again(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    halves = crowd.nodes[::2], crowd.nodes[1::2]
    for half in halves:  # each knows a gateway on either side
        for node in half:
            node.engine.hub.gateways = [halves[0][0].endpoint, halves[1][0].endpoint]
    crowd.cluster.network.cut("halves", halves[0])
    crowd.cluster.run_for(120.0)
    for half in halves:
        for predicate, result in crowd.ask_many(crowd.predicates(15), askers=list(half)):
            got, truth = ids(result), crowd.truth(predicate, half)
            crowd.cluster.expect(got == truth, f"{predicate}: {len(truth - got)} of its own lost")
    crowd.cluster.network.heal("halves")
    _run_until_one(crowd)
    crowd.cluster.run_for(ROUND_S)
    crowd.expect_recall(30)
    crowd.check()


def test_a_short_partition_leaves_no_trace(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    crowd.cluster.network.cut("short", crowd.nodes[: COUNT // 3])
    crowd.cluster.run_for(8.0)
    crowd.cluster.network.heal("short")
    _run_until_one(crowd, 50.0)
    crowd.cluster.run_for(ROUND_S)
    crowd.expect_recall(20)
    crowd.check()


# --- coming back and leaving ----------------------------------------------------------------------


def test_a_crashed_node_comes_back_under_its_identity(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    victims = crowd.rng.sample(crowd.nodes[3:], 6)
    seqs = {node: node.engine.hub.own.seq for node in victims}
    crowd.cluster.crash(victims)
    crowd.cluster.run_for(40.0)
    _expect_live(crowd, 10)
    crowd.cluster.restart(victims)
    for node in victims:
        crowd.begin_join(node, crowd.nodes[:2], seq=seqs[node] + 10)
    crowd.cluster.run_for(10.0)
    result = crowd.ask(crowd.nodes[1], EVERYTHING)
    crowd.cluster.expect(ids(result) == crowd.truth(EVERYTHING), "all are back in the answers")
    crowd.expect_one_view()
    crowd.check()


def test_a_node_that_forgot_its_seq_comes_back_all_the_same(sim_seed, sim_replay):
    """It begins again at 1, hears of its own death at a higher version, and refutes it."""
    crowd = _warm(sim_seed, sim_replay)
    victim = crowd.nodes[7]
    crowd.publish(victim, cpu_free=1.0)
    crowd.cluster.run_for(5.0)
    crowd.cluster.crash([victim])
    crowd.cluster.run_for(40.0)
    crowd.cluster.restart([victim])
    crowd.begin_join(victim, crowd.nodes[:2])
    crowd.cluster.run_for(30.0)
    result = crowd.ask(crowd.nodes[1], EVERYTHING)
    crowd.cluster.expect(victim.id in ids(result), "the old death does not stand")
    crowd.expect_one_view()
    crowd.check()


def test_a_quick_restart_is_not_taken_for_its_former_self(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    victim = crowd.nodes[9]
    crowd.cluster.crash([victim])
    crowd.cluster.run_for(0.5)
    crowd.cluster.restart([victim])
    crowd.machines[victim.index]["cpu_free"] = 3
    crowd.begin_join(victim, crowd.nodes[:2], seq=50)
    crowd.cluster.run_for(5.0)
    hits = {bytes(hit.id): hit for hit in crowd.ask(crowd.nodes[1], EVERYTHING).hits}
    crowd.cluster.expect(hits[victim.id]["cpu_free"] == 3, "the new version is told")
    crowd.cluster.run_for(20.0)
    crowd.expect_one_view()
    crowd.check()


def test_who_leaves_is_gone_within_a_second(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    leaver = crowd.nodes[11]
    key = leaver.engine.hub.key
    mates = _mates(crowd, leaver)
    crowd.cluster.begin(leaver, lambda engine, now: engine.hub.leave(now))
    crowd.cluster.run_for(1.0)
    crowd.cluster.crash([leaver])
    for mate in mates:
        state = _believed(mate, key)
        crowd.cluster.expect(state is State.LEFT, f"{mate!r} believes {state} of the leaver")
    for asker in crowd.rng.sample(crowd.cluster.up(), 10):
        result = crowd.ask(asker, EVERYTHING)
        crowd.cluster.expect(leaver.id not in ids(result), f"{asker!r} still finds the leaver")
    crowd.cluster.run_for(60.0)
    crowd.expect_one_view()
    crowd.check()


# --- change ---------------------------------------------------------------------------------------


def test_a_node_that_changes_what_it_is_moves(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    mover = crowd.nodes[13]
    old_key, old_cores = mover.engine.hub.key, mover.engine.hub.own.attributes(SCHEMA)["cores"]
    old_mates = _mates(crowd, mover)
    crowd.publish(mover, cores=768, mem=2**43, gpus=8)
    crowd.cluster.expect(mover.engine.hub.key != old_key, "another record, another place")
    crowd.cluster.run_for(10.0)
    for mate in old_mates:
        state = _believed(mate, old_key)
        crowd.cluster.expect(state in (None, State.LEFT), f"{mate!r} believes {state}")
    crowd.cluster.run_for(ROUND_S)
    for asker in crowd.rng.sample([n for n in crowd.nodes if n is not mover], 10):
        new = crowd.ask(asker, at_least("cores", 768))
        crowd.cluster.expect(mover.id in ids(new), f"{asker!r} does not find it where it is")
        at = SCHEMA.index("cores")
        old = crowd.ask(asker, Predicate((Box((Range(at, old_cores, old_cores),)),)))
        crowd.cluster.expect(mover.id not in ids(old), f"{asker!r} finds it where it was")
    crowd.cluster.run_for(30.0)
    crowd.expect_one_view()
    crowd.check()


def test_a_static_change_within_the_place_is_told_in_full(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    node = crowd.nodes[17]
    key = node.engine.hub.key
    crowd.publish(node, os="plan9")
    crowd.cluster.expect(node.engine.hub.key == key, "the system is not part of the key")
    crowd.cluster.run_for(3.0)
    for mate in _mates(crowd, node):
        record = mate.engine.hub.group.members[key].record
        crowd.cluster.expect(record.attributes(SCHEMA)["os"] == "plan9", f"{mate!r} is behind")
    crowd.cluster.run_for(ROUND_S)
    for asker in crowd.rng.sample(crowd.nodes, 8):
        result = crowd.ask(asker, equal("os", "plan9"))
        crowd.cluster.expect(ids(result) == {node.id}, f"{asker!r} does not find the first of it")
    crowd.check()


@pytest.mark.parametrize(
    ("group_size", "eager", "soon_s", "behind_share", "all_s"),
    [
        # Pushes with bounded hops reach 19 of 20 members at once, ticks and repair the others.
        (G, True, 0.5, 0.1, 15.0),
        (128, True, 0.5, 0.1, 20.0),
        # What waits for the tick is told to the end in a small group; in a large one a member in
        # eight learns it by repair.
        (G, False, 6.0, 0.1, 15.0),
        (128, False, 10.0, 0.2, 30.0),
    ],
)
def test_dynamic_news_reaches_all_members(
    sim_seed, sim_replay, group_size, eager, soon_s, behind_share, all_s
):
    crowd = _warm(sim_seed, sim_replay, group_size=group_size)
    told = {
        node: crowd.publish(node, eager=eager, cpu_free=42.5)
        for node in crowd.rng.sample(crowd.nodes, 5)
    }
    mates = {node: _mates(crowd, node) for node in told}
    crowd.cluster.run_for(soon_s)
    everyone = sum(map(len, mates.values()))
    behind = sum(len(_behind(mates[node], told[node])) for node in told)
    crowd.cluster.expect(
        behind <= behind_share * everyone, f"{behind} of {everyone} are behind after {soon_s} s"
    )
    crowd.cluster.run_for(all_s - soon_s)
    for node, record in told.items():
        behind = len(_behind(mates[node], record))
        crowd.cluster.expect(not behind, f"{behind} members are behind after {all_s} s")
    crowd.check()


def _behind(mates, record):
    """Who holds an older version."""
    key = record.key(SCHEMA)
    return [mate for mate in mates if mate.engine.hub.group.members[key].record.seq < record.seq]


# --- pauses ---------------------------------------------------------------------------------------


def test_a_paused_node_is_doubted_refutes_and_stays(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    sleeper = crowd.nodes[19]
    key = sleeper.engine.hub.key
    mates = _mates(crowd, sleeper)
    crowd.cluster.pause([sleeper])
    crowd.cluster.run_for(30.0)
    states = {_believed(mate, key) for mate in mates}
    crowd.cluster.expect(states == {State.DEAD}, f"{states}: half a minute of silence is death")
    crowd.cluster.unpause([sleeper])
    crowd.cluster.run_for(15.0)
    crowd.cluster.expect(sleeper.engine.counters["refutations"] > 0, "it heard and said no")
    states = {_believed(mate, key) for mate in mates}
    crowd.cluster.expect(states == {State.ALIVE}, f"{states} after it woke")
    crowd.cluster.run_for(60.0)
    crowd.expect_one_view()
    crowd.expect_recall(10)
    crowd.check()


def test_a_short_pause_costs_doubt_and_not_life(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    sleeper = crowd.nodes[23]
    crowd.cluster.pause([sleeper])
    crowd.cluster.run_for(3.0)
    crowd.cluster.unpause([sleeper])
    crowd.cluster.run_for(20.0)
    crowd.cluster.expect(crowd.counters("burials") == 0, "three seconds are no death")
    crowd.expect_one_view()
    crowd.check()


# --- steady churn ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_steady_churn_ends_in_the_truth(sim_seed, sim_replay):
    """A node dies or comes back every two seconds for two minutes; then it is quiet."""
    crowd = _warm(sim_seed, sim_replay)
    down, seqs = [], {}
    for _ in range(60):
        if down and (len(down) > 12 or crowd.rng.random() < 0.4):
            node = down.pop(0)
            crowd.cluster.restart([node])
            gateways = crowd.rng.sample([n for n in crowd.cluster.up() if n is not node], 3)
            crowd.begin_join(node, gateways, seq=seqs[node] + 1)
        else:
            node = crowd.rng.choice(crowd.cluster.up())
            seqs[node] = node.engine.hub.own.seq
            crowd.cluster.crash([node])
            down.append(node)
        crowd.cluster.run_for(2.0)
    _run_until_one(crowd, FORGOTTEN_S)  # a whole subtree may have died
    crowd.cluster.run_for(ROUND_S)
    crowd.expect_recall(30)
    crowd.check()
