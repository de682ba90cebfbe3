"""A hundred thousand strange datagrams: only MalformedMessage from `parse`, nothing from engines.

The seed of every run is in the test's name, so a failure names its replay. What a mutation does
not reach (well-formed values of any shape) comes from hypothesis.
"""

import random
import struct
import tracemalloc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhtos.core.limits import DATAGRAM_BYTES_MAX, NESTING_MAX, REQUEST_PAYLOAD_BYTES_MAX
from dhtos.errors import MalformedMessage
from dhtos.protocol.base import BaseOverlay
from dhtos.protocol.engine import Engine
from dhtos.protocol.rpc import Core
from dhtos.protocol.wire import (
    TRAILER_MAGIC,
    Request,
    Response,
    encode_request,
    encode_response,
    encode_trailer,
    parse,
)

MSG_ID = bytes(range(20))
KEY = b"k" * 20
PEER = ("10.0.0.9", 7400)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def seeds_of_mutation() -> list[bytes]:
    contacts = [[bytes([n]) * 20, f"10.0.0.{n}", 7400 + n] for n in range(1, 9)]
    requests = [
        ("ping", [KEY]),
        ("stun", []),
        ("find_node", [KEY, KEY]),
        ("find_value", [KEY, KEY]),
        ("store", [KEY, KEY, "value"]),
        ("store", [KEY, KEY, b"v" * 300]),
        ("unknown", [1, 2.5, None, {"a": [True]}]),
    ]
    replies = [KEY, True, contacts, {"value": "v", "s": 3, "t": 60.0}, None, [PEER[0], PEER[1]]]
    made = [encode_request(MSG_ID, name, args) for name, args in requests]
    made += [encode_response(MSG_ID, value) for value in replies]
    return made + [datagram + encode_trailer([1, 7, 60_000]) for datagram in made]


def bombs(rng: random.Random) -> bytes:
    """Payloads that announce more than they hold, or nest without end."""
    size = struct.pack(">I", rng.choice([2**32 - 1, 2**31, 2**24, 65_536, rng.getrandbits(32)]))
    return rng.choice(
        [
            lambda: b"\xdd" + size + rng.randbytes(rng.randrange(200)),
            lambda: b"\xdf" + size + rng.randbytes(rng.randrange(200)),
            lambda: b"\xdb" + size + rng.randbytes(rng.randrange(200)),
            lambda: b"\xc6" + size + rng.randbytes(rng.randrange(200)),
            lambda: b"\xc9" + size + rng.randbytes(rng.randrange(200)),
            lambda: rng.choice([b"\x91", b"\x81\xa1k", b"\x92\xc0"]) * rng.randrange(1, 3000),
            lambda: (b"\xdd" + size) * rng.randrange(1, 500),
            lambda: b"\x92\xa4ping" + b"\x91" * rng.randrange(1, 40) + b"\xc0",
        ]
    )()


def strange(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One datagram: mutated, truncated, glued, random, oversized, or a bomb."""
    kind = rng.randrange(10)
    if kind < 5:
        datagram = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 5)):
            datagram[rng.randrange(len(datagram))] = rng.randrange(256)
        return bytes(datagram)
    if kind == 5:
        datagram = rng.choice(seeds)
        return datagram[: rng.randrange(len(datagram))]
    if kind == 6:
        at = rng.randrange(20, 40)
        return rng.choice(seeds)[:at] + rng.choice(seeds)[at - 5 :]
    if kind == 7:
        head = bytes([rng.choice([0, 1, 1, rng.randrange(256)])])
        tail = rng.choice([b"", TRAILER_MAGIC, bytes([rng.randrange(256)]) + TRAILER_MAGIC])
        return head + rng.randbytes(rng.randrange(0, 120)) + tail
    if kind == 8:
        return bytes([rng.randrange(2)]) + MSG_ID + bombs(rng)
    body = rng.randbytes(rng.randrange(30))
    return rng.choice(seeds) + body + bytes([rng.choice([len(body), 255])]) + TRAILER_MAGIC


def check_message(message: Request | Response) -> None:
    """What `parse` promises of everything it lets through."""
    assert len(message.msg_id) == 20
    body = message.args if isinstance(message, Request) else message.value
    assert depth(body) <= NESTING_MAX
    assert message.trailer is None or depth(message.trailer) <= NESTING_MAX
    msgspec.msgpack.encode(body)


@pytest.mark.parametrize("seed", range(4))
def test_parse_raises_only_malformed(seed):
    rng = random.Random(seed)
    seeds = seeds_of_mutation()
    refused = 0
    for _ in range(15_000):
        try:
            check_message(parse(strange(rng, seeds)))
        except MalformedMessage:
            refused += 1
    assert 3_000 < refused < 15_000, seed


@pytest.mark.parametrize("seed", range(3))
def test_nothing_escapes_an_engine(seed):
    """Strange requests, and strange replies to calls that are really open."""
    rng = random.Random(seed)
    engine = Engine(b"e" * 20, rng=rng, now=0.0)
    seeds = seeds_of_mutation()
    now = 0.0
    for number in range(14_000):
        if number % 500 == 0:
            engine.base.get(rng.randbytes(20), now)
            engine.base.put(KEY, number, now, seq=number)
            engine.base.bootstrap([PEER], now)
        datagram = strange(rng, seeds)
        if rng.random() < 0.3 and len(datagram) > 21:
            ids = list(engine.core.calls._open)
            if ids:
                datagram = b"\x01" + rng.choice(ids) + datagram[21:]
        source = PEER if rng.random() < 0.7 else (f"10.0.1.{rng.randrange(1, 99)}", 7400)
        engine.receive(datagram, source, now)
        if number % 50 == 0:
            now += rng.random()
            engine.tick(now)
            engine.check()
        engine.outbox()
        engine.events()
    now += 60.0
    for _ in range(50):
        now += 1.0
        engine.tick(now)
        engine.outbox()
    engine.check()
    counters = engine.counters
    assert counters["datagrams_in"] == 14_000
    assert counters["malformed"] > 1_000, seed
    assert counters["replies_unasked"] > 100, seed


BOMBS = {
    "array": b"\xdd\xff\xff\xff\xff",
    "map": b"\xdf\xff\xff\xff\xff",
    "bytes": b"\xc6\xff\xff\xff\xff",
    "nest": b"\x91" * 65_000,
    "short": b"\x92\xa4ping\xdd\x7f\xff\xff\xff" + bytes(60_000),
    "lists": b"\x92\xa4ping\xdd\x00\x00\xfd\xe8" + b"\x90" * 65_000,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("kind", [0, 1], ids=["request", "response"])
def test_a_bomb_allocates_no_more_than_its_own_bytes_are_worth(name, kind):
    """One byte of a datagram is at most one small object, whatever its headers announce."""
    datagram = bytes([kind]) + MSG_ID + BOMBS[name][: DATAGRAM_BYTES_MAX - 21]
    tracemalloc.start()
    try:
        parse(datagram)
    except MalformedMessage:
        refused = True
    else:
        refused = False
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused or (kind, name) == (1, "lists")
    assert peak < (128 if kind else 1) * DATAGRAM_BYTES_MAX, peak


@settings(max_examples=150, deadline=None)
@given(value=plain, trailer=st.none() | st.lists(st.integers(0, 99), max_size=5))
def test_every_plain_value_goes_round(value, trailer):
    datagram = encode_response(MSG_ID, value)
    if trailer is not None:
        datagram += encode_trailer(trailer)
    if depth(value) > NESTING_MAX:
        with pytest.raises(MalformedMessage):
            parse(datagram)
    else:
        assert parse(datagram) == Response(MSG_ID, value, trailer)


@settings(max_examples=100, deadline=None)
@given(args=st.lists(plain, max_size=4), name=st.from_regex(r"[a-z_]{1,32}", fullmatch=True))
def test_every_request_goes_round(name, args):
    if depth(args) < NESTING_MAX:
        assert parse(encode_request(MSG_ID, name, args)) == Request(MSG_ID, name, args, None)


@settings(max_examples=60, deadline=None)
@given(value=st.binary(max_size=300) | st.text(max_size=100), tail=st.binary(max_size=12))
def test_a_value_is_never_taken_for_a_trailer(value, tail):
    for ending in (tail, tail + TRAILER_MAGIC, encode_trailer([1]) + tail + TRAILER_MAGIC):
        held = value + ending if isinstance(value, bytes) else ending
        assert parse(encode_response(MSG_ID, held)) == Response(MSG_ID, held, None)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(REQUEST_PAYLOAD_BYTES_MAX - 60, REQUEST_PAYLOAD_BYTES_MAX + 60))
def test_the_request_limit_is_exact(size):
    head = len(msgspec.msgpack.encode(["store", [KEY, KEY, b"v" * 4000]])) - 4000
    payload = msgspec.msgpack.encode(["store", [KEY, KEY, b"v" * (size - head)]])
    assert len(payload) == size
    datagram = b"\x00" + MSG_ID + payload
    if size <= REQUEST_PAYLOAD_BYTES_MAX:
        assert isinstance(parse(datagram), Request)
    else:
        with pytest.raises(MalformedMessage):
            parse(datagram)


@settings(max_examples=60, deadline=None)
@given(args=st.lists(plain, max_size=4), name=st.sampled_from(["ping", "store", "find_value"]))
def test_handlers_refuse_or_answer(name, args):
    overlay = BaseOverlay(Core(random.Random(0)), b"b" * 20, 0.0)
    if depth(args) < NESTING_MAX:
        overlay.core.receive(encode_request(MSG_ID, name, args), PEER, 0.0)
        overlay.check()
        answered = [d for d, _ in overlay.core.sending if d[0] == 1]
        assert len(answered) + overlay.core.counters["malformed"] == 1
