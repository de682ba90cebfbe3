"""Pings all at once: who answers, how soon, and whose answer says nothing of the path."""

import random

import pytest

from dhtos.core.coordinate import Coordinate
from dhtos.errors import Closed
from dhtos.protocol.engine import Engine
from dhtos.protocol.probing import Probing

HERE, NEAR, FAR, DEAD = (("192.0.2.1", port) for port in (7400, 7401, 7402, 7403))


class Line:
    """One prober and its peers, whose datagrams take a given time each way; all by hand."""

    def __init__(self, **away_s):
        self.prober = self.engine(1)
        self.peers = {NEAR: self.engine(2), FAR: self.engine(3)}
        self.away_s = {NEAR: away_s.get("near", 0.01), FAR: away_s.get("far", 0.05)}
        self.flying = []
        self.now = 0.0

    @staticmethod
    def engine(seed):
        rng = random.Random(seed)
        return Engine(rng.randbytes(20), rng=rng, now=0.0)

    def send(self, engine, source):
        for datagram, target in engine.outbox():
            other = target if source == HERE else source
            if other in self.away_s:
                self.flying.append((self.now + self.away_s[other], target, source, datagram))

    def run(self, until_s, operation):
        while not operation.done and self.now < until_s:
            self.send(self.prober, HERE)
            arrival = min((entry[0] for entry in self.flying), default=until_s)
            self.now = min(arrival, self.prober.next_deadline())
            for entry in sorted(e for e in self.flying if e[0] <= self.now):
                self.flying.remove(entry)
                _, target, source, datagram = entry
                engine = self.prober if target == HERE else self.peers[target]
                engine.receive(datagram, source, self.now)
                self.send(engine, target)
            self.prober.tick(self.now)


def probing_of(engine, endpoints, now):
    return Probing(engine.core, engine.id, dict.fromkeys(endpoints), now)


def test_who_answers_is_timed_and_who_does_not_is_left_out():
    line = Line()
    probing = probing_of(line.prober, [NEAR, FAR, DEAD, NEAR], 0.0)
    line.run(60.0, probing.operation)
    found = probing.operation.result()
    assert found == {NEAR: pytest.approx(0.02), FAR: pytest.approx(0.1)}
    assert probing._late == {DEAD}
    line.prober.check()


def test_a_reply_that_may_be_to_the_second_ping_counts_from_the_first():
    line = Line(far=0.3)
    probing = probing_of(line.prober, [NEAR, FAR], 0.0)
    line.run(60.0, probing.operation)
    assert probing.operation.result()[FAR] == pytest.approx(0.6)
    assert probing._late == {FAR}


def test_nobody_to_ask_is_an_answer():
    probing = probing_of(Line.engine(1), [], 0.0)
    assert probing.operation.result() == {}
    assert probing._late == set()


def test_cancelling_forgets_the_calls():
    line = Line()
    probing = probing_of(line.prober, [NEAR, FAR], 0.0)
    probing.operation.cancel(0.0)
    with pytest.raises(Closed):
        probing.operation.result()
    assert line.prober.stats()["calls_open"] == 0
    line.prober.check()


def test_who_says_where_it_is_places_us_unless_the_reply_is_late():
    """Nobody knows which ping a late reply answers."""
    line = Line(far=0.3)
    there = Coordinate((0.01, 0.0, 0.0, 0.0, 0.0), 0.001, 0.1)
    probing = Probing(line.prober.core, line.prober.id, {NEAR: there, FAR: there}, 0.0)
    line.run(60.0, probing.operation)
    memory = line.prober.core.place.locator.memory
    assert set(probing.found) == {NEAR, FAR}
    assert memory.peers() == [NEAR]
    assert memory.rtt_s(NEAR) == probing.found[NEAR]
