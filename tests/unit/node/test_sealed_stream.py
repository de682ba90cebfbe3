"""Sealed connections: what two members say arrives as it was said, or not at all."""

import asyncio
from random import Random

import pytest
from trust_world import Authority

from dhtos.errors import MalformedMessage, Refused, UsageError
from dhtos.node import sealed_stream
from dhtos.node.command_wire import FIRST_BYTES_MAX, FRAME_BYTES_MAX
from dhtos.node.sealed_stream import (
    HELLO,
    HELLO_BYTES_MAX,
    HELLOS_MAX,
    READY,
    READY_BYTES_MAX,
    RECORD_BYTES_MAX,
    Keys,
    MemberChannels,
    SealedReader,
    SealedWriter,
    framed,
    sealed,
    welcome,
)
from dhtos.trust.cert import CHAIN_BYTES_MAX
from dhtos.trust.keys import KeyPair
from dhtos.trust.noise import TAG_BYTES

KEY = bytes(range(32))


class Sent:
    """A writer that keeps what was written, each record by itself."""

    def __init__(self):
        self.parts = []
        self.aborted = False
        self.transport = self

    def write(self, data):
        self.parts.append(data)

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return self.aborted

    async def drain(self):
        pass

    def get_extra_info(self, name):
        return name


def reader_of(*parts):
    reader = asyncio.StreamReader()
    for part in parts:
        reader.feed_data(part)
    reader.feed_eof()
    return SealedReader(reader, KEY)


def records(*texts):
    sent = Sent()
    writer = SealedWriter(sent, KEY)
    for text in texts:
        writer.write(text)
    return sent.parts


# --- records --------------------------------------------------------------------------------------


async def test_what_was_written_is_read_in_any_pieces():
    rng = Random(1)
    texts = [rng.randbytes(size) for size in (0, 1, 4, 1000, RECORD_BYTES_MAX, 3_000_000)]
    whole, reader = b"".join(texts), reader_of(*records(*texts))
    found = b""
    while len(found) < len(whole):
        found += await reader.readexactly(min(rng.randrange(1, 100_000), len(whole) - len(found)))
    assert found == whole
    with pytest.raises(asyncio.IncompleteReadError):
        await reader.readexactly(1)


def test_no_byte_is_in_the_open_and_the_same_is_not_the_same_twice():
    one, two = records(b"secret" * 10, b"secret" * 10)
    assert b"secret" not in one + two
    assert one != two
    assert len(one) == 4 + 60 + TAG_BYTES


def test_a_frame_with_a_whole_chunk_is_one_record():
    assert len(records(bytes(4 + FRAME_BYTES_MAX))) == 1
    assert len(records(bytes(RECORD_BYTES_MAX + 1))) == 2
    assert RECORD_BYTES_MAX < FIRST_BYTES_MAX


@pytest.mark.parametrize("length", [*range(4 + 5 + TAG_BYTES)])
async def test_every_truncation_ends_the_stream(length):
    (record,) = records(b"hello")
    with pytest.raises(asyncio.IncompleteReadError):
        await reader_of(record[:length]).readexactly(5)


async def test_a_stream_is_cut_off_between_records_at_most():
    first, second = records(b"one", b"two")
    reader = reader_of(first, second[:-1])
    assert await reader.readexactly(3) == b"one"
    with pytest.raises(asyncio.IncompleteReadError):
        await reader.readexactly(3)


@pytest.mark.parametrize("bit", range(8 * 4, 8 * (4 + 3 + TAG_BYTES)))
async def test_every_bit_of_a_record_counts(bit):
    (record,) = records(b"abc")
    changed = bytearray(record)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MalformedMessage, match="not what its sender sealed"):
        await reader_of(bytes(changed)).readexactly(3)


@pytest.mark.parametrize("order", [(0, 0), (1, 0), (1,), (0, 2), (0, 1, 1), (0, 1, 0)], ids=str)
async def test_records_come_once_and_in_their_order(order):
    parts = records(b"abc", b"abc", b"abc")
    reader = reader_of(*(parts[one] for one in order))
    with pytest.raises(MalformedMessage, match="not what its sender sealed"):
        await reader.readexactly(3 * len(order))


@pytest.mark.parametrize("size", [RECORD_BYTES_MAX + TAG_BYTES + 1, 2**32 - 1])
async def test_a_record_that_is_too_long_is_not_waited_for(size):
    reader = asyncio.StreamReader()
    reader.feed_data(size.to_bytes(4))
    with pytest.raises(MalformedMessage, match="a frame has at most"):
        await SealedReader(reader, KEY).readexactly(1)


@pytest.mark.parametrize("size", range(TAG_BYTES))
async def test_a_record_that_is_too_short(size):
    with pytest.raises(MalformedMessage, match="cut off"):
        await reader_of(framed(bytes(size))).readexactly(1)


async def test_a_connection_ends_with_its_last_record(monkeypatch):
    monkeypatch.setattr(sealed_stream, "RECORDS_MAX", 2)
    sent = Sent()
    writer = SealedWriter(sent, KEY)
    writer.write(b"ab")
    writer.write(b"cd")
    assert not writer.is_closing()
    writer.write(b"ef")
    assert len(sent.parts) == 2
    assert writer.is_closing()
    assert sent.aborted
    await writer.drain()
    assert writer.get_extra_info("socket") == "socket"
    reader = reader_of(*sent.parts, framed(bytes(20)))
    assert await reader.readexactly(4) == b"abcd"
    with pytest.raises(MalformedMessage, match="as many records"):
        await reader.readexactly(1)


# --- the handshake --------------------------------------------------------------------------------


class Meeting:
    """A machine and somebody who wants to talk to it."""

    def __init__(self, *, client=None, machine=None):
        self.authority = Authority()
        self.client = client or self.authority.member("client")
        self.machine = machine or self.authority.member("machine")
        self.channels = MemberChannels(self.client)

    async def hello(self, identity=None):
        return await self.channels.hello(identity or self.machine.key.public)


async def test_both_have_the_same_keys_and_know_each_other():
    world = Meeting()
    name, hello = await world.hello()
    assert hello.startswith(HELLO)
    assert len(hello) < HELLO_BYTES_MAX
    met = welcome(world.machine, hello)
    assert met.ready.startswith(READY)
    assert met.chain == world.client.chain
    keys = await world.channels.keys(name, met.ready)
    assert (keys.send, keys.receive) == (met.keys.receive, met.keys.send)
    assert keys.send != keys.receive


async def test_streams_of_both_directions():
    world = Meeting()
    name, hello = await world.hello()
    met = welcome(world.machine, hello)
    keys = await world.channels.keys(name, met.ready)
    ours, theirs = Sent(), Sent()
    _, writer = sealed(asyncio.StreamReader(), ours, keys)
    _, answering = sealed(asyncio.StreamReader(), theirs, met.keys)
    writer.write(b"ping")
    answering.write(b"pong")
    for sent, key, text in ((ours, met.keys.receive, b"ping"), (theirs, keys.receive, b"pong")):
        reader = asyncio.StreamReader()
        reader.feed_data(sent.parts[0])
        assert await SealedReader(reader, key).readexactly(4) == text


def test_the_longest_chain_fits():
    assert HELLO_BYTES_MAX >= 1 + 96 + CHAIN_BYTES_MAX
    assert READY_BYTES_MAX > 1 + 48 + CHAIN_BYTES_MAX + 200


async def test_a_hello_that_comes_again_opens_nothing():
    """Whoever has watched gets an answer, of which it cannot read a byte."""
    world = Meeting()
    name, hello = await world.hello()
    first, again = (welcome(world.machine, hello) for _ in range(2))
    assert first.keys != again.keys
    keys = await world.channels.keys(name, first.ready)
    assert keys.send == first.keys.receive
    with pytest.raises(UsageError, match="no such handshake"):
        await world.channels.keys(name, first.ready)


async def test_every_bit_of_a_handshake_counts():
    world = Meeting()
    _, hello = await world.hello()
    for at in range(0, len(hello), 7):
        changed = bytearray(hello)
        changed[at] ^= 1 << at % 8
        with pytest.raises(MalformedMessage):
            welcome(world.machine, bytes(changed))
    for length in (0, 1, 50, 97, len(hello) - 1):
        with pytest.raises(MalformedMessage):
            welcome(world.machine, hello[:length])
    with pytest.raises(MalformedMessage):
        welcome(world.machine, hello.ljust(HELLO_BYTES_MAX + 1, b"\0"))


async def test_every_bit_of_an_answer_counts():
    world = Meeting()
    for at in range(1, 60):
        name, hello = await world.hello()
        changed = bytearray(welcome(world.machine, hello).ready)
        changed[at] ^= 1 << at % 8
        with pytest.raises(MalformedMessage):
            await world.channels.keys(name, bytes(changed))


async def test_another_machine_cannot_answer():
    world = Meeting()
    _, hello = await world.hello()
    with pytest.raises(MalformedMessage):
        welcome(world.authority.member("other"), hello)


async def test_a_machine_whose_certificate_is_of_another_key_is_not_believed():
    authority = Authority()
    key = KeyPair(b"m" * 32)
    mine = authority.member("machine")
    impostor = authority.holder(key, authority.admit(key, "impostor"))
    impostor.chain = mine.chain
    world = Meeting(machine=impostor)
    name, hello = await world.hello()
    with pytest.raises(MalformedMessage, match="of another key"):
        await world.channels.keys(name, welcome(impostor, hello).ready)


async def test_a_client_that_shows_the_chain_of_another_is_refused():
    authority = Authority()
    key = KeyPair(b"m" * 32)
    thief = authority.holder(key, authority.admit(key, "thief"))
    thief.chain = authority.member("alice").chain
    world = Meeting(client=thief)
    name, hello = await world.hello()
    met = welcome(world.machine, hello)
    assert met.chain is None
    with pytest.raises(Refused, match="it refuses us: a certificate is of another key"):
        await world.channels.keys(name, met.ready)


@pytest.mark.parametrize(
    ("client", "why"),
    [
        (lambda _: Authority(2).member("stranger"), "of another cluster"),
        (lambda authority: authority.member("late", days=-0.5), "ended"),
    ],
)
async def test_who_is_not_believed_is_told_why(client, why):
    world = Meeting()
    world.channels = MemberChannels(client(world.authority))
    name, hello = await world.hello()
    met = welcome(world.machine, hello)
    assert met.chain is None
    with pytest.raises(Refused, match=why):
        await world.channels.keys(name, met.ready)


async def test_handshakes_that_nobody_ends_are_bounded():
    world = Meeting()
    name, hello = await world.hello()
    for _ in range(HELLOS_MAX):
        last, again = await world.hello()
    with pytest.raises(UsageError, match="too many since"):
        await world.channels.keys(name, welcome(world.machine, hello).ready)
    assert isinstance(await world.channels.keys(last, welcome(world.machine, again).ready), Keys)


async def test_what_is_no_key_is_said():
    world = Meeting()
    for wrong in (b"", b"x" * 31, bytes(32)):
        with pytest.raises(UsageError, match="the key of a machine has 32 bytes"):
            await world.channels.hello(wrong)
