"""The hub when machines die, move, pause, change and come back, and when the network is bad.

Each story ends with the truth: every running node in the answers, nobody else, and everybody's
view equal to what runs.
"""

from fleets import SCHEMA, Fleet, at_least, equal, ids

from dhtos.core.group import State
from dhtos.core.predicate import EVERYTHING, Box, Predicate, Range

COUNT = 120
G = 16
BOUNDED_S = 150.0  # every healing here is done by then: two reseeds and a round of summaries
FORGOTTEN_S = 200.0  # by then a subtree of which nobody lives is no longer asked about


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


# --- partition ------------------------------------------------------------------------------------


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
    crowd.cluster.run_for(10.0)
    crowd.expect_recall(30)
    crowd.check()


def test_a_short_partition_leaves_no_trace(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    crowd.cluster.network.cut("short", crowd.nodes[:40])
    crowd.cluster.run_for(8.0)
    crowd.cluster.network.heal("short")
    _run_until_one(crowd, 50.0)
    crowd.cluster.run_for(10.0)
    crowd.expect_recall(20)
    crowd.check()


# --- coming back and leaving ----------------------------------------------------------------------


def test_a_crashed_node_comes_back_under_its_identity(sim_seed, sim_replay):
    crowd = _warm(sim_seed, sim_replay)
    victims = crowd.rng.sample(crowd.nodes[3:], 6)
    seqs = {node: node.engine.hub.own.seq for node in victims}
    crowd.cluster.crash(victims)
    crowd.cluster.run_for(40.0)
    crowd.expect_recall(10)
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
    crowd.cluster.run_for(15.0)
    for asker in crowd.rng.sample(crowd.nodes, 8):
        result = crowd.ask(asker, equal("os", "plan9"))
        crowd.cluster.expect(ids(result) == {node.id}, f"{asker!r} does not find the first of it")
    crowd.check()


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
