"""Hub messages from liars: nothing that a peer sends may escape `Engine.receive`.

The messages of a real, simulated hub are the material. They are changed at random places, in
value or in bytes, and sent to a settled member whose calls are open: requests from strangers,
replies from the very peers that were asked. Whatever is wrong is counted; the invariants hold.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from math import inf, nan
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhtos.core.group import bin_count
from dhtos.core.ids import Endpoint
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.predicate import Box, Predicate, Range
from dhtos.core.record import make_record
from dhtos.errors import MalformedMessage, UsageError
from dhtos.protocol.answer import as_after, as_order
from dhtos.protocol.bundle import cut, pack
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.frontier import read_cursor, read_hit, read_item
from dhtos.protocol.hubwire import as_contact, as_key, as_news, as_prefix
from dhtos.protocol.wire import Request, Response, encode_request, encode_response, parse
from dhtos.sim import Cluster, Weather
from dhtos.sim.node import SimNode

SCHEMA = MACHINE_SCHEMA
GIB = 2**30
ALL = Predicate((Box(),))
NAMES = ("dh_gossip", "dh_push", "dh_probe", "dh_sync", "dh_fetch", "dh_range", "dh_summary")
ANSWERED = tuple(name for name in NAMES if name != "dh_push")
CHANGES = 20_000
CLOSED_CALLS_MAX = 64


class Recorder:
    """A checker that keeps what was said in a hub: arguments and answers by name."""

    def __init__(self) -> None:
        self.requests: defaultdict[str, list[list[Any]]] = defaultdict(list)
        self.replies: defaultdict[str, list[Any]] = defaultdict(list)
        self._names: dict[bytes, str] = {}

    def sent(
        self, now: float, node: SimNode[Engine], outgoing: list[tuple[bytes, Endpoint]]
    ) -> None:
        for datagram, _ in outgoing:
            message = parse(datagram)
            if isinstance(message, Request):
                self._names[message.msg_id] = message.name
                self.requests[message.name].append(message.args)
            else:
                self.replies[self._names[message.msg_id]].append(message.value)

    def delivered(self, *_: object) -> None:
        """Only what was sent matters."""

    def inspect(self, *_: object) -> None:
        """The engines check themselves."""


def ask(node: SimNode[Engine], cluster: Cluster[Engine], rng: random.Random) -> None:
    """Let a node ask for what some have, in one of several ways."""
    cores = Range(SCHEMA.index("cores"), rng.choice([1, 8, 64]), inf)
    predicate = rng.choice([ALL, Predicate((Box((cores,)),))])
    limit = rng.choice([0, 3])
    by = rng.choice([None, (SCHEMA.index("price"), True)])
    cluster.begin(node, lambda e, now: e.hub.find(predicate, now, limit=limit, order=by))


def fetch_known(engine: Engine, rng: random.Random, now: float) -> None:
    """Ask a member for records it has."""
    others = [member for member in engine.hub.members() if member.key != engine.hub.key]
    if others:
        engine.hub.gossip.repair.wanted.update(member.key for member in others)
        engine.hub.gossip.repair.fetch(rng.choice(others).record.endpoint, now)


@cache
def recorded() -> tuple[Cluster[Engine], Recorder]:
    """A hub of 24 machines in several groups that lived, lost members and was asked things."""
    recorder = Recorder()
    config = EngineConfig(group_size=8)
    rng = random.Random(24)
    cluster: Cluster[Engine] = Cluster(
        lambda node, now: Engine(node.id, rng=node.rng, now=now, schema=SCHEMA, config=config),
        seed=24,
        checkers=[recorder],
    )
    for node in cluster.add(24):
        values = {"cores": rng.choice([2, 8, 64]), "mem": rng.choice([4, 16]) * GIB, "load1": 0.5}
        record = make_record(
            SCHEMA,
            values | {"price": 0.1 * node.index + 0.1},
            {"team": f"t{node.index % 3}"},
            node_id=node.id,
            endpoint=node.endpoint,
            seq=1,
            identity=node.id + bytes(12),
        )
        cluster.begin(node, lambda e, now, record=record: e.hub.advertise(record, now))
        if node.index == 0:
            cluster.begin(node, lambda e, now: e.hub.found(now))
        else:
            gateway = cluster.nodes[rng.randrange(node.index)].endpoint
            node.engine.hub.gateways = [gateway]
            cluster.begin(node, lambda e, now, to=gateway: e.hub.join([to], now))
        cluster.run_for(0.3)
    cluster.run_for(20.0)
    for number in range(40):
        if number == 20:
            cluster.crash([3, 11, 17])
        ask(rng.choice(cluster.up()), cluster, rng)
        cluster.run_for(1.0)
    cluster.network.weather = Weather(loss=0.7)  # news gets lost, so views are to be repaired
    for node in cluster.up():
        cluster.begin(node, lambda e, now: e.hub.renew(now))
    cluster.run_for(10.0)
    cluster.network.weather = Weather()
    cluster.run_for(20.0)
    for node in cluster.up():  # as after a rumour of somebody unknown
        cluster.begin(node, lambda e, now: fetch_known(e, rng, now))
    cluster.run_for(1.0)
    assert all(node.engine.counters["malformed"] == 0 for node in cluster.nodes)
    assert set(NAMES) <= set(recorder.requests), recorder.requests.keys()
    assert set(ANSWERED) <= set(recorder.replies), recorder.replies.keys()
    return cluster, recorder


JUNK: list[Any] = [
    None, True, False, 0, 1, -1, 2, 160, 161, 255, 2**32, 2**62, 2**63 - 1, 2**64 - 1, 0.0, -0.5,
    1e300, nan, inf, -inf, "", "x", "h" * 65, "\n", b"", b"x", bytes(4), bytes(8), bytes(20),
    b"\xff" * 20, bytes(292), bytes(2048), [], {}, [[]], [None], [0] * 17, {"a": 1}, [[[[]]]],
]  # fmt: skip


def changed(value: Any, rng: random.Random) -> Any:
    """A copy with one thing wrong somewhere inside."""
    if type(value) is list and value and rng.random() < 0.85:
        copy = list(value)
        at = rng.randrange(len(copy))
        match rng.randrange(8):
            case 0:
                del copy[at]
            case 1:
                copy.insert(at, rng.choice(JUNK))
            case 2:
                copy.append(copy[at])
            case 3:
                other = rng.randrange(len(copy))
                copy[at], copy[other] = copy[other], copy[at]
            case _:
                copy[at] = changed(copy[at], rng)
        return copy
    if type(value) is bytes and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return value[:at] + bytes([rng.randrange(256)]) + value[at + 1 :]
    if type(value) is int and type(value) is not bool and rng.random() < 0.4:
        return min(max(value + rng.choice([-1, 1, 7, 2**20]), -(2**63)), 2**64 - 1)
    return rng.choice(JUNK)


def flipped(datagram: bytes, rng: random.Random) -> bytes:
    """A datagram with some bytes of its payload changed, lost or added."""
    payload = bytearray(datagram[21:])
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(payload) + 1)
        match rng.randrange(3):
            case 0 if at < len(payload):
                payload[at] = rng.randrange(256)
            case 1:
                del payload[at : at + rng.randint(1, 3)]
            case _:
                payload[at:at] = rng.randbytes(rng.randint(1, 3))
    return datagram[:21] + bytes(payload)


class Victim:
    """A settled member of the recorded hub, cut off from it; the test is its network now."""

    def __init__(self, index: int, seed: int) -> None:
        cluster, self.heard = recorded()
        node = cluster.nodes[index]
        self.rng = random.Random(seed)
        self.engine = node.engine
        self.now = cluster.local(node)
        self.peers = [one.endpoint for one in cluster.nodes if one is not node]
        self.names: dict[bytes, tuple[str, Endpoint]] = {}
        self.sent = Counter[str]()
        assert self.engine.hub.settled

    def collect(self) -> None:
        """Learn of the calls it has made since."""
        for datagram, to in self.engine.outbox():
            message = parse(datagram)
            if isinstance(message, Request):
                self.names[message.msg_id] = (message.name, to)
        self.engine.events()

    def live(self) -> None:
        """Let some time pass, and let it ask something, so that calls are open."""
        rng, hub = self.rng, self.engine.hub
        self.now += rng.choice([0.01, 0.1, 0.3])
        self.engine.tick(self.now)
        if rng.random() < 0.3:
            by = rng.choice([None, (SCHEMA.index("price"), False)])
            hub.find(ALL, self.now, limit=rng.choice([0, 5]), order=by)
        if rng.random() < 0.02:
            hub.join([rng.choice(self.peers)], self.now)
        if len(hub.group) < 4:  # they do not answer, so they are buried: new ones come
            self.revive()
        for index, _ in hub.buckets.inhabited():
            if rng.random() < 0.2:
                for contact in hub.buckets.choose(index, rng, 1):
                    hub.summaries._ask(contact.endpoint, [-1], self.now)
        for member in hub.members():
            if member.key != hub.key and rng.random() < 0.1:
                hub.gossip.exchange(member, self.now)
                key = member.key
                hub.gossip.repair.wanted.add(bytes([key[0]]) + rng.randbytes(19))
                hub.gossip.repair.fetch(member.record.endpoint, self.now)
                vector = rng.randbytes(2 * bin_count(len(hub.group)))
                shared = hub.group.prefix.to_wire()
                hub.gossip.repair.compare(member.record.endpoint, shared, vector, self.now)
        self.collect()

    def revive(self) -> None:
        """Newer versions of those it believed dead."""
        group = self.engine.hub.group
        for one in recorded()[0].nodes:
            record = one.engine.hub.own
            assert record is not None
            key = record.key(SCHEMA)
            tombstone = group.tombstones.get(key)
            if key != group.own_key and group.prefix.holds(key):
                seq = max(record.seq, 0 if tombstone is None else tombstone.seq) + 1
                newer = record.updated(seq, record.dynamic, record.coordinate)
                group.put(key, newer, self.now, self.now)

    def request(self) -> None:
        """A changed request from somebody who may be a member."""
        rng = self.rng
        name = rng.choice(NAMES)
        args = rng.choice(self.heard.requests[name])
        if rng.random() < 0.9:
            args = changed(args, rng)
        datagram = encode_request(rng.randbytes(20), name, args if type(args) is list else [args])
        if rng.random() < 0.1:
            datagram = flipped(datagram, rng)
        self.sent[name] += 1
        self.engine.receive(datagram, rng.choice(self.peers), self.now)
        self.collect()

    def reply(self) -> None:
        """A changed reply to one of its open calls, from the peer it asked."""
        rng = self.rng
        open_calls = [m for m in self.engine.core.calls._open if m in self.names]
        if not open_calls:
            self.live()
            return
        msg_id = rng.choice(open_calls)
        name, source = self.names[msg_id]
        values = self.heard.replies.get(name)
        if not values:
            return
        value = rng.choice(values)
        for _ in range(rng.randrange(3)):
            value = changed(value, rng)
        datagram = encode_response(msg_id, value)
        if rng.random() < 0.1:
            datagram = flipped(datagram, rng)
        self.sent["reply " + name] += 1
        self.engine.receive(datagram, source, self.now)
        self.collect()


@pytest.mark.slow
@pytest.mark.parametrize(("index", "seed"), [(0, 1), (5, 2)])
def test_no_changed_message_escapes_the_engine(index: int, seed: int) -> None:
    victim = Victim(index, seed)
    before = victim.engine.counters["malformed"]
    for number in range(CHANGES):
        if number % 5 == 0:
            victim.live()
        (victim.request if victim.rng.random() < 0.5 else victim.reply)()
        if number % 100 == 0:
            victim.engine.check()
    victim.engine.check()
    print(f"seed={seed}", victim.sent, victim.engine.counters)
    assert min(victim.sent[name] for name in NAMES) > 100
    # How many calls are open follows whom it believes alive, and sets have no order of their own.
    assert min(victim.sent[f"reply {name}"] for name in ANSWERED) > 20
    assert victim.engine.counters["malformed"] - before > CHANGES // 20
    assert_lives_on(victim)


def assert_lives_on(victim: Victim) -> None:
    """Left alone, it ends what it began; it still answers a plain question."""
    for _ in range(200):
        victim.now += 0.1
        victim.engine.tick(victim.now)
        victim.collect()
    victim.engine.check()
    assert len(victim.engine.core.calls) < CLOSED_CALLS_MAX
    operation = victim.engine.hub.find(ALL, victim.now)
    for _ in range(120):
        victim.now += 0.1
        victim.engine.tick(victim.now)
    assert operation.done


# --- any plain value ------------------------------------------------------------------------------

plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=70),
        st.binary(max_size=24),
        st.binary(min_size=20, max_size=20),
    ),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=20,
)

PARSERS: dict[str, Callable[[Any], object]] = {
    "news": lambda v: as_news(v, SCHEMA),
    "hit": lambda v: read_hit(v, SCHEMA, 0.0),
    "item": read_item,
    "prefix": as_prefix,
    "contact": as_contact,
    "key": as_key,
    "order": lambda v: as_order(v, SCHEMA),
    "place": lambda v: as_after(v, None),
    "ordered place": lambda v: as_after(v, (0, False)),
}


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60, deadline=None)
@given(value=plain)
def test_a_parser_refuses_in_one_way_only(name: str, value: object) -> None:
    with suppress(MalformedMessage):
        PARSERS[name](value)


@settings(max_examples=80, deadline=None)
@given(value=plain, ordered=st.booleans())
def test_a_cursor_is_refused_in_one_way_only(value: object, ordered: bool) -> None:
    with suppress(UsageError):
        read_cursor(msgspec.msgpack.encode(value), (0, False) if ordered else None)


@settings(max_examples=80, deadline=None)
@given(cursor=st.binary(max_size=60))
def test_a_cursor_of_any_bytes_is_refused_in_one_way_only(cursor: bytes) -> None:
    with pytest.raises(UsageError):
        read_cursor(b"\xc1" + cursor, None)
    with suppress(UsageError):
        read_cursor(cursor, None)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    args=st.lists(plain, max_size=9),
    ours=st.booleans(),
)
def test_a_handler_takes_any_arguments(name: str, args: list[Any], ours: bool) -> None:
    """Those for another hub too: they are checked no less."""
    victim = Victim(1, 0)
    if ours and args:
        args[0] = victim.engine.hub.number
    victim.engine.receive(encode_request(b"r" * 20, name, args), victim.peers[0], victim.now)
    victim.engine.check()
    assert all(len(datagram) <= 1200 for datagram, _ in victim.engine.outbox())


@settings(max_examples=80, deadline=None)
@given(value=plain, ordered=st.booleans(), by_part=st.booleans())
def test_a_walk_takes_any_answer(value: Any, ordered: bool, by_part: bool) -> None:
    engine = Engine(bytes(20), rng=random.Random(1), now=0.0, schema=SCHEMA)
    engine.hub.gateways = [("10.0.0.1", 7400), ("10.0.0.2", 7400)]
    operation = engine.hub.find(ALL, 0.0, order=(0, True) if ordered else None)
    now = 0.0
    while not operation.done:
        for datagram, to in engine.outbox():
            asked = parse(datagram)
            assert isinstance(asked, Request)
            body = msgspec.msgpack.encode([[bytes(20), 3, b"", [[0, b""]], 0, value, 0], [], []])
            for part in cut(*pack(body)) if by_part else [value]:
                engine.receive(encode_response(asked.msg_id, part), to, now)
            engine.check()
        now += 0.25
        engine.tick(now)
    assert len(engine.core.calls) == 0
    assert not isinstance(operation.error, AssertionError)


def test_the_material_is_what_it_claims_to_be() -> None:
    """Enough of every kind, and changes that change something."""
    _, recorder = recorded()
    assert all(recorder.requests[name] for name in NAMES)
    assert all(recorder.replies[name] for name in ANSWERED)
    rng = random.Random(3)
    sample = rng.choice(recorder.replies["dh_range"])
    assert any(changed(sample, rng) != sample for _ in range(10))
    assert isinstance(parse(encode_response(bytes(20), sample)), Response)
