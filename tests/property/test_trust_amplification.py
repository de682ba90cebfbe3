"""What an address that has shown nothing can have sent to it: never more than came from there.

`TRUST_DATAGRAMS` says how many are tried by the seeded mutator; hypothesis tries some more.
"""

import os
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trust_world import Authority, End, Wire, secured

from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.protocol.engine import Engine
from dhtos.protocol.handshakes import DATA, HELLO, PROBE, READY, WHO
from dhtos.protocol.wire import encode_request, encode_response
from dhtos.sim import Cluster
from dhtos.sim.engines import bootstrap
from dhtos.trust.keys import KeyPair

DATAGRAMS = int(os.environ.get("TRUST_DATAGRAMS", "100000"))
KINDS = (PROBE, WHO, HELLO, READY, DATA)
ONE, TWO = ("10.0.0.1", 7400), ("10.0.0.2", 7400)


@pytest.fixture(scope="module")
def target():
    """A whole engine in the middle of its life, and true datagrams that members have sent it."""
    authority = Authority()
    cluster = Cluster(
        secured(authority, schema=MACHINE_SCHEMA), seed=1, bootstrap=bootstrap, delay=0.01
    )
    nodes = cluster.add(3)
    engine: Engine = nodes[0].engine
    heard = []
    receive = engine.receive

    def tap(datagram, source, now):
        heard.append(datagram)
        receive(datagram, source, now)

    engine.receive = tap
    for node in nodes[1:]:
        cluster.begin(node, lambda e, now: e.base.bootstrap([nodes[0].endpoint], now))
    cluster.run_for(5.0)
    engine.receive = receive
    now = cluster.local(nodes[0])
    guest = End(authority.holder(KeyPair(b"g" * 32), None), ("10.5.0.1", 1))
    guest.sessions.seal([(encode_request(b"m" * 20, "stun", []), nodes[0].endpoint)])
    guest.timers.run(0.0)
    for _ in range(3):
        for datagram, _ in guest.outbox:
            heard.append(datagram)
            receive(datagram, guest.endpoint, now)
        guest.outbox.clear()
        for answer, to in engine.outbox():
            if to == guest.endpoint:
                guest.sessions.receive(answer, nodes[0].endpoint, 0.0)
    assert engine.counters["sessions_in"] >= 3
    heard += [
        encode_request(b"m" * 20, "find_node", [b"i" * 20, b"t" * 20]),
        encode_response(b"m" * 20, b"i" * 20),
    ]
    assert {datagram[0] for datagram in heard} >= {0, 1, PROBE, HELLO, DATA}
    return engine, now, heard


def bytes_sent(engine, source, now):
    """What a node sends to an address now, and what it planned to send it before long."""
    engine.tick(now)
    return sum(len(datagram) for datagram, to in engine.outbox() if to == source)


def mutant(rng, heard):
    """A true datagram, changed in one of the ways that programs and people change them."""
    datagram = bytearray(rng.choice(heard))
    way = rng.randrange(8)
    if way == 0:
        return rng.randbytes(rng.randrange(1400))
    if way == 1:
        return bytes([rng.choice(KINDS)]) + rng.randbytes(rng.randrange(1400))
    if way == 2:
        return bytes(datagram[: rng.randrange(len(datagram))])
    if way == 3:
        return bytes(datagram) + rng.randbytes(rng.randrange(200))
    if way == 4:
        other = rng.choice(heard)
        return bytes(datagram[: rng.randrange(len(datagram))]) + other[rng.randrange(len(other)) :]
    if way == 5:
        datagram[0] = rng.choice(KINDS)
    elif way == 6:
        for _ in range(rng.randint(1, 8)):
            datagram[rng.randrange(len(datagram))] ^= 1 << rng.randrange(8)
    return bytes(datagram)  # 7: as it was, from elsewhere


def test_an_unproven_address_is_sent_no_more_than_came_from_it(target):
    engine, now, heard = target
    rng = Random(7)
    came = sent = answered = 0
    worst = 0.0
    before = len(engine.core.sessions)
    for number in range(DATAGRAMS):
        source = (f"172.16.{number >> 8 & 255}.{number & 255}", 1 + (number >> 16))
        datagram = mutant(rng, heard)
        engine.receive(datagram, source, now)
        out = bytes_sent(engine, source, now)
        assert out <= len(datagram), datagram.hex()
        came, sent, answered = came + len(datagram), sent + out, answered + (out > 0)
        worst = max(worst, out / max(len(datagram), 1))
    print(
        f"{DATAGRAMS} datagrams, {answered} answered: {came} bytes in, {sent} out, "
        f"{sent / came:.3f} of them, {worst:.3f} at worst"
    )
    assert sent <= came
    assert answered > DATAGRAMS // 20  # PROBE, and DATA for keys that are not there
    assert len(engine.core.sessions) == before
    engine.check()


@given(kind=st.sampled_from([*KINDS, 0, 1]), rest=st.binary(max_size=1400))
def test_nor_whatever_hypothesis_finds(target, kind, rest):
    engine, now, _ = target
    datagram = bytes([kind]) + rest
    engine.receive(datagram, ("192.168.7.7", 1), now)
    assert bytes_sent(engine, ("192.168.7.7", 1), now) <= len(datagram)


@given(at=st.floats(0, 1), data=st.data())
def test_nor_a_true_datagram_with_bytes_changed(target, at, data):
    engine, now, heard = target
    datagram = bytearray(heard[int(at * (len(heard) - 1))])
    for _ in range(data.draw(st.integers(0, 4))):
        datagram[data.draw(st.integers(0, len(datagram) - 1))] = data.draw(st.integers(0, 255))
    engine.receive(bytes(datagram), ("192.168.7.8", 1), now)
    assert bytes_sent(engine, ("192.168.7.8", 1), now) <= len(datagram)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.binary(max_size=100)), max_size=20))
def test_two_members_stay_whole_whatever_is_slipped_in(slipped):
    """Lost, forged and true datagrams in any order: nothing is raised, and in the end they talk."""
    authority = Authority()
    one, two = End(authority.member("one"), ONE), End(authority.member("two"), TWO)
    wire = Wire(one, two)
    for forward, kind, junk in slipped:
        end, other = (one, two) if forward else (two, one)
        if kind == 0:
            wire.send(end, junk, other)
        elif kind == 1:
            wire.inject(bytes([KINDS[len(junk) % 5]]) + junk, other.endpoint, end)
        elif kind == 2 and wire.tapped:
            datagram, source, to = wire.tapped[len(junk) % len(wire.tapped)]
            wire.inject(datagram, source, wire.ends[to])
        wire.run_for(len(junk) / 1000)
        for each in (one, two):
            each.sessions.check()
    wire.run_for(10.0)
    wire.send(one, b"at last", two)
    wire.run_for(10.0)
    assert two.got[-1] == b"at last"
