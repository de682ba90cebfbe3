"""A hub whose machines stay for minutes: what it finds, what it claims, and what that costs.

The small, seeded twin of `python -m bench.churn`: sessions of five minutes instead of thirty, in
groups of 16, with a question every other second. One seed gives the same datagrams every time.
"""

from collections import Counter

import pytest
from fleets import Fleet, ids, machines

from dhtos.sim import NodeState

NODES = 48
NEWCOMERS_MAX = 100
LIFE_S = 300.0
SECONDS = 120.0
PLACED_S = 10.0  # who has had its place for so long must be found


class Churn:
    """A fleet in which every machine that dies is replaced at once by one that joins."""

    def __init__(self, seed, replay=None, *, life_s=LIFE_S):
        self.crowd = Fleet(NODES, seed=seed, replay=replay, group_size=16, accounting=True)
        self.crowd.warm_start()
        self.rng = self.crowd.cluster.stream("churn")
        self.crowd.machines += machines("cloud", NEWCOMERS_MAX, self.rng)
        self.crowd.identity += [self.rng.randbytes(32) for _ in range(NEWCOMERS_MAX)]
        self.life_s = life_s
        self.placed = dict.fromkeys(self.crowd.nodes, -PLACED_S)
        self.figures = Counter()
        self.lost = []
        for node in self.crowd.nodes:
            self._live(node)

    def _live(self, node):
        at = self.crowd.cluster.now + self.rng.expovariate(1 / self.life_s)
        self.crowd.cluster.call_at(at, lambda: self._replace(node))

    def _replace(self, node):
        cluster = self.crowd.cluster
        if self.rng.random() < 0.1:
            cluster.begin(node, lambda engine, now: engine.hub.leave(now))
        cluster.crash([node])
        (newcomer,) = cluster.add()
        settled = [other for other in cluster.up() if other.engine.hub.settled]
        operation = self.crowd.begin_join(newcomer, self.rng.sample(settled, 3))
        newcomer.engine.hub.when_finished(operation, lambda _: self._settle(newcomer))
        self._live(newcomer)
        self.figures["ends"] += 1

    def _settle(self, node):
        if node.engine.hub.settled:
            self.placed[node] = self.crowd.cluster.now

    def run(self, seconds=SECONDS):
        """Ask every other second; judge each answer when it ends."""
        until = self.crowd.cluster.now + seconds
        while self.crowd.cluster.now < until:
            asker = self.rng.choice([n for n in self.crowd.cluster.up() if n.engine.hub.settled])
            self._ask(asker, self.crowd.predicate())
            self.crowd.cluster.run_for(2.0)
        self.crowd.cluster.run_for(12.0)
        return self

    def _ask(self, asker, predicate):
        began = self.crowd.cluster.now
        operation = self.crowd.begin_find(asker, predicate)

        def judge(_now):
            self._judge(predicate, began, operation.result())

        if operation.done:
            judge(began)
        else:
            asker.engine.hub.when_finished(operation, judge)

    def _judge(self, predicate, began, result):
        settled = [n for n in self.crowd.cluster.up() if n.engine.hub.own is not None]
        truth = self.crowd.truth(predicate, settled)
        must = {n.id for n in settled if self.placed.get(n, began) <= began - PLACED_S} & truth
        got = ids(result)
        running = {node.id for node in self.crowd.nodes if node.state is NodeState.UP}
        missed = must - got
        recall = 1 - len(missed) / len(must) if must else 1.0
        self.figures["answers"] += 1
        self.figures["wanted"] += len(must)
        self.figures["missed"] += len(missed)
        self.figures["hits"] += len(got)
        self.figures["stale"] += len(got - running)
        self.figures["asked"] += result.coverage.asked
        if result.coverage.fraction > recall + 0.01:
            self.lost.append((began, predicate, result.coverage, recall))


@pytest.mark.slow
def test_live_machines_are_found_and_the_dead_forgotten(sim_seed, sim_replay):
    churn = Churn(sim_seed, sim_replay).run()
    figures, cluster = churn.figures, churn.crowd.cluster
    cluster.expect(figures["ends"] >= 8, f"{figures['ends']} machines went")
    cluster.expect(figures["answers"] >= 50, f"{figures['answers']} answers")
    cluster.expect(
        figures["missed"] <= 0.002 * figures["wanted"],
        f"{figures['missed']} of {figures['wanted']} live matches were not found",
    )
    # Of a life of 300 s, a dead machine is believed alive for about 7: probe, doubt, burial.
    cluster.expect(
        figures["stale"] <= 0.04 * figures["hits"], f"{figures['stale']} of {figures['hits']} dead"
    )
    cluster.expect(len(churn.lost) <= 1, f"{churn.lost}: they claim more than they found")
    churn.crowd.check()


def test_one_seed_sends_the_same_datagrams():
    def story():
        churn = Churn(5).run(30.0)
        traffic = churn.crowd.cluster.traffic
        books = [
            {name: (count.datagrams, count.bytes) for name, count in book.items()}
            for book in (traffic.requests, traffic.replies)
        ]
        return churn.crowd.cluster.trace.digest, books, churn.figures

    first = story()
    assert first[2]["ends"] > 0
    assert first == story()


def test_a_quiet_group_says_this_much():
    """Nobody comes, goes or changes: one exchange a second each, and some repair of heartbeats.

    All find their places in the first seconds, which their records then tell: that is half of the
    bytes. After three minutes of it 190 a second are left. The figures are those of one seed, and
    exact: a change of the protocol that says more or less shows here, and writes down the new ones.
    """
    seconds = 50.0  # no upkeep that asks a gateway falls into it
    crowd = Fleet(64, seed=3, group_size=128, accounting=True).warm_start()
    crowd.cluster.run_for(seconds)
    traffic = crowd.cluster.traffic
    said = {name: count.datagrams for name, count in sorted(traffic.requests.items())}
    heard = {name: count.datagrams for name, count in sorted(traffic.replies.items())}
    assert said == {"dh_gossip": 3203, "dh_push": 73, "dh_sync": 91}
    assert heard == {"dh_gossip": 3202, "dh_sync": 91}
    assert traffic.total.bytes < 440 * 64 * seconds
    assert crowd.counters("suspicions") == 0
