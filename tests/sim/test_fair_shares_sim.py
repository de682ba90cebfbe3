"""One member asks a node for 500 times its share; the node can do only so much, and others ask too.

The node is modelled as slow: it works off a queue that holds so many datagrams, one after the
other, and each takes its time. All times are a hundred times those that were measured, so that a
second of the simulation has few datagrams.
"""

from collections import deque
from math import inf

import pytest
from trust_world import Authority, secured

from dhtos.core.limits import SHARE_CAPACITY
from dhtos.protocol.shares import COSTS_S
from dhtos.sim import Cluster

HONEST = 50
SLOWER = 100
SERVED_S = COSTS_S["find_node"] * SLOWER
DROPPED_S = SERVED_S / 20  # measured: 1.3 us beside 35 to 60 us, but either was received as well
QUEUE_MAX = 128
SHARE_PER_S = SHARE_CAPACITY / (HONEST + 1) / SERVED_S
WARM_S = 5.0  # so long they ask before the flood, and have keys with the node
SECONDS = 10.0


class SlowEngine:
    """An engine that works off one datagram after the other; what finds the queue full is lost."""

    def __init__(self, engine):
        self.engine = engine
        self.queue = deque()
        self.free_at = -inf
        self.lost = 0

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def receive(self, datagram, source, now):
        if len(self.queue) >= QUEUE_MAX:
            self.lost += 1
        else:
            self.queue.append((datagram, source))

    def tick(self, now):
        while self.queue and self.free_at <= now:
            datagram, source = self.queue.popleft()
            refused = self.engine.counters["requests_over_share"]
            self.engine.receive(datagram, source, now)
            dropped = self.engine.counters["requests_over_share"] > refused
            self.free_at = max(self.free_at, now) + (DROPPED_S if dropped else SERVED_S)
        self.engine.tick(now)

    def next_deadline(self):
        deadline = self.engine.next_deadline()
        return min(deadline, self.free_at) if self.queue else deadline


class Honest:
    """Somebody who asks at an even pace, and counts what is answered, and how soon."""

    def __init__(self):
        self.asked = 0
        self.waits = []

    def on_reply(self, call, _value, _trailer, now):
        if call.tag:
            self.waits.append(now - call.sent_at)

    def on_late(self, _call, _now):
        """It is sent once more."""

    def on_failure(self, _call, _now):
        """It was not served."""


class World:
    """A slow node, one that floods it, and honest ones."""

    def __init__(self, seed, replay, *, shares):
        build = secured(Authority(seed))

        def factory(node, now):
            engine = build(node, now)
            if node.index:
                return engine
            engine.core._terms["find_node"] = ("query", SERVED_S)
            if not shares:
                engine.core.sessions.shares.refuses = lambda _who, _now: False
                engine.core.sessions.shares.admits = lambda _who, _cost, _now: True
            return SlowEngine(engine)

        self.cluster = Cluster(factory, seed=seed, replay=replay)
        self.server, self.greedy, *self.honest = self.cluster.add(HONEST + 2)
        self.rng = self.cluster.stream("test")
        self.counting = False
        self.askers = [Honest() for _ in self.honest]

    def run(self, *, times, pace=0.8):
        """Let the greedy ask for so many shares, and each honest one for most of its own."""
        begin = self.cluster.now
        self.end = begin + WARM_S + SECONDS
        gap_s = 1 / SHARE_PER_S / pace
        for node, asker in zip(self.honest, self.askers, strict=True):
            self._every(gap_s, begin + gap_s * self.rng.random(), self._asking(node, asker))
        if times:
            self._every(1 / SHARE_PER_S / times, begin + WARM_S, self._flooding)
        self.cluster.run_for(WARM_S)
        self.counting = True
        self.cluster.run_for(SECONDS + 5.0)
        self.cluster.check()
        asked = sum(asker.asked for asker in self.askers)
        waits = sorted(wait for asker in self.askers for wait in asker.waits)
        return len(waits) / asked, waits[len(waits) * 99 // 100]

    def _every(self, gap_s, when, action):
        def again():
            if self.cluster.now < self.end:
                action()
                self._every(gap_s, self.cluster.now + gap_s, action)

        self.cluster.call_at(when, again)

    def _flooding(self):
        args = [self.greedy.id, self.rng.randbytes(20)]
        where = self.server.endpoint
        self.cluster.begin(self.greedy, lambda e, _: e.core.calls.notify(where, "find_node", args))

    def _asking(self, node, asker):
        def ask():
            asker.asked += self.counting
            args = [node.id, self.rng.randbytes(20)]
            where = self.server.endpoint
            self.cluster.begin(
                node,
                lambda e, now: e.core.calls.send(
                    where, "find_node", args, asker, now, tag=self.counting
                ),
            )

        return ask


def test_who_asks_for_500_times_its_share_takes_nothing_from_the_others(sim_seed, sim_replay):
    quiet, quiet_p99 = World(sim_seed, sim_replay, shares=True).run(times=0)
    world = World(sim_seed, sim_replay, shares=True)
    share, p99 = world.run(times=500)
    without, without_p99 = World(sim_seed, sim_replay, shares=False).run(times=500)
    print(
        f"honest calls answered: {share:.4f} of {HONEST} members, 99 of 100 within {p99:.2f} s; "
        f"without a flood {quiet:.4f}, {quiet_p99:.2f} s; without shares {without:.4f}, "
        f"{without_p99:.2f} s"
    )
    counters = world.server.engine.counters
    assert counters["requests_over_share"] > 100 * SHARE_PER_S * SECONDS
    assert quiet == 1.0
    assert share >= 0.99
    assert without < 0.5


@pytest.mark.parametrize("times", [1, 10, 100])
def test_the_others_are_served_however_much_one_asks_for(sim_seed, sim_replay, times):
    share, p99 = World(sim_seed, sim_replay, shares=True).run(times=times)
    print(f"{times} times its share: {share:.4f}, 99 of 100 within {p99:.2f} s")
    assert share >= 0.99
