"""Any mix of nodes and foreign records: the group stays sound and nobody is sent to a row."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dhtos.core.group import Group
from dhtos.core.ids import Prefix
from dhtos.core.limits import GROUP_SERVING_MIN
from dhtos.core.machine_schema import MACHINE_SCHEMA as SCHEMA
from dhtos.core.record import Record, make_record, row_id
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.wire import Request, encode_request, encode_trailer, parse

GATEWAY = ("10.77.0.1", 7400)
SIZE = 16


def node(number: int, cores: int) -> Record:
    """A machine with a node."""
    return make_record(
        SCHEMA,
        {"cores": cores},
        {},
        node_id=number.to_bytes(20),
        endpoint=(f"10.1.{number >> 8}.{number & 255}", 7400),
        seq=1,
        identity=number.to_bytes(32),
    )


def row(number: int, cores: int, seq: int = 1) -> Record:
    """A machine without one."""
    identity = bytes(range(32))
    return make_record(
        SCHEMA,
        {"cores": cores},
        {},
        node_id=row_id(identity, f"vm-{number}"),
        endpoint=GATEWAY,
        seq=seq,
        identity=identity,
        row=f"vm-{number}",
    )


cores = st.sampled_from([1, 2, 4, 64, 1024])
mixes = st.tuples(st.lists(cores, max_size=40), st.lists(cores, max_size=60))


def filled(nodes: list[int], rows: list[int], size: int) -> tuple[Group, list[Record]]:
    own = node(1, 4)
    records = [own, *(node(n + 2, c) for n, c in enumerate(nodes))]
    records += [row(n, c) for n, c in enumerate(rows)]
    group = Group(own.key(SCHEMA), size)
    for record in records:
        assert group.put(record.key(SCHEMA), record, 0.0, 0.0)
    return group, records


@given(mixes)
def test_a_split_leaves_enough_nodes_or_happens_for_the_nodes_alone(mix):
    group, records = filled(*mix, SIZE)
    while group.is_crowded(SIZE):
        serving, deeper = group.serving, Prefix.of(group.own_key, group.depth + 1)
        inside = sum(r.serves and deeper.holds(r.key(SCHEMA)) for r in records)
        halves = (inside, serving - inside)
        outside = group.narrow(group.depth + 1)
        group.check()
        if serving <= SIZE:
            assert min(halves) >= GROUP_SERVING_MIN
            assert len(outside) + len(group) > SIZE
    assert group.serving <= SIZE
    held = {record.key(SCHEMA) for record in records if group.prefix.holds(record.key(SCHEMA))}
    assert set(group.members) == held


@given(mixes)
def test_both_halves_of_a_crowded_group_decide_alike(mix):
    group, records = filled(*mix, SIZE)
    beyond = [
        r for r in records if r.serves and not Prefix.of(group.own_key, 1).holds(r.key(SCHEMA))
    ]
    if beyond:
        other = Group(beyond[0].key(SCHEMA), SIZE)
        for record in records:
            other.put(record.key(SCHEMA), record, 0.0, 0.0)
        assert other.is_crowded(SIZE) == group.is_crowded(SIZE)


@settings(max_examples=25, deadline=None)
@given(mixes, st.integers(0, 2**32), st.integers(1, 6))
def test_nobody_is_sent_to_a_foreign_member(mix, seed, changes):
    """Whatever a node does of its own accord in two minutes, no row hears anything of it."""
    nodes, rows = mix
    engine = Engine(
        bytes(20),
        rng=random.Random(seed),
        now=100.0,
        schema=SCHEMA,
        config=EngineConfig(group_size=SIZE),
    )
    hub, now = engine.hub, 100.0
    hub.advertise(node(1, 4), now)
    for n, c in enumerate(nodes):
        hub.group.put(node(n + 2, c).key(SCHEMA), node(n + 2, c), now, now)
    hub.settle(now)
    cookie = engine.core.cookie(GATEWAY)
    for change in range(changes):
        words = [[0, 0.0, row(n, c, seq=1 + change)] for n, c in enumerate(rows)][change::changes]
        if words:
            request = encode_request(b"q" * 20, "dh_put", [0, cookie, words])
            engine.receive(request + encode_trailer([1]), GATEWAY, now)
        now += 20.0
        while engine.next_deadline() <= now:
            engine.tick(engine.next_deadline())
        engine.check()
    hub.leave(now)
    for datagram, endpoint in engine.outbox():
        if endpoint == GATEWAY:
            message = parse(datagram)
            if isinstance(message, Request):  # all a gateway may hear: that its row is not held
                assert message.name == "dh_push"
                assert {words[0] for words in message.args[2]} == {2}
