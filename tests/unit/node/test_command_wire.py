"""Frames about a command: what is read, what is refused, and how windows keep streams in bounds."""

import asyncio

import msgspec
import pytest

from dhtos.core.limits import (
    COMMAND_ARGUMENTS_MAX,
    COMMAND_BYTES_MAX,
    COMMAND_CHUNK_BYTES,
    COMMAND_VARIABLES_MAX,
    COMMAND_WINDOW_BYTES,
)
from dhtos.errors import MalformedMessage
from dhtos.node import command_wire as wire
from dhtos.node.command_wire import STDERR, STDIN, STDOUT, frame

TOKEN = bytes(16)
START = wire.Start(wire.VERSION, TOKEN, 1 << 40, [b"sh", b"\xff"], {b"A": b"\xfe"}, True)


def reader_of(data, *, ended=True):
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    if ended:
        reader.feed_eof()
    return reader


def raw(*fields):
    body = msgspec.msgpack.encode(list(fields))
    return len(body).to_bytes(4) + body


@pytest.mark.parametrize(
    "message",
    [
        START,
        wire.Data(STDIN, b"\0\xff"),
        wire.Data(STDIN, b""),
        wire.Taken(STDERR, COMMAND_WINDOW_BYTES),
        wire.Signal(15),
    ],
)
async def test_what_a_client_says_is_read_as_it_was(message):
    reader = reader_of(frame(message) * 2)
    for _ in range(2):
        assert await wire.from_client(reader, wire.FIRST_BYTES_MAX) == message
    assert await wire.from_client(reader) is None


@pytest.mark.parametrize(
    "message",
    [
        wire.Started("lease"),
        wire.Data(STDOUT, b"x" * COMMAND_CHUNK_BYTES),
        wire.Taken(STDIN, 1),
        wire.Ended(-9, 0.5, 0.25, 1 << 40, 1.5),
        wire.Refusal(wire.Reason.BUSY, "why", 126),
    ],
)
async def test_what_a_node_says_is_read_as_it_was(message):
    assert await wire.from_node(reader_of(frame(message))) == message


async def test_the_largest_first_frame_that_may_be_fits_and_no_larger_one_is_waited_for():
    words = [b"x"] * COMMAND_ARGUMENTS_MAX
    names = {b"%d" % n: b"" for n in range(COMMAND_VARIABLES_MAX)}
    words[0] = b"x" * (COMMAND_BYTES_MAX - 3 * COMMAND_ARGUMENTS_MAX - 8 * COMMAND_VARIABLES_MAX)
    full = wire.Start(wire.VERSION, TOKEN, 1, words, names, False)
    assert await wire.from_client(reader_of(frame(full)), wire.FIRST_BYTES_MAX) == full
    for bytes_max in (wire.FIRST_BYTES_MAX, wire.FRAME_BYTES_MAX):
        head = (bytes_max + 1).to_bytes(4)
        with pytest.raises(MalformedMessage, match=f"at most {bytes_max} bytes"):
            await wire.from_client(reader_of(head, ended=False), bytes_max)


def strange_frames():
    yield b"\0\0\0\1\xc1"  # no MessagePack
    yield b"\0\0\0\0"
    yield raw()
    yield raw("3", 0, b"")
    yield raw(99, 0)
    yield raw(None)
    yield (1).to_bytes(4) + b"\x93"  # an array that is cut off
    yield raw(3, 3, b"")  # no such stream
    yield raw(3, 0)
    yield raw(3, 0, "text")
    yield raw(3, 0, b"x" * (COMMAND_CHUNK_BYTES + 1))
    yield raw(4, 0, -1)
    yield raw(4, 0, COMMAND_WINDOW_BYTES + 1)
    yield raw(5, 0)
    yield raw(5, 65)
    yield raw(5, 1.5)
    yield raw(2, "lease")  # what a node says
    yield raw(1, 1, TOKEN[:-1], 1, [b"x"], {}, True)
    yield raw(1, 1, TOKEN, 0, [b"x"], {}, True)
    yield raw(1, 1, TOKEN, 1, [], {}, True)
    yield raw(1, 1, TOKEN, 1, ["x"], {}, True)
    yield raw(1, 1, TOKEN, 1, [b"x"], [], True)
    yield raw(1, 1, TOKEN, 1, [b"x"], {b"a": 1}, True)
    yield raw(1, 1, TOKEN, 1, [b"x"], {}, 1)
    yield raw(1, 1, TOKEN, 1, [b"x"] * (COMMAND_ARGUMENTS_MAX + 1), {}, True)
    yield raw(1, 1, TOKEN, 1, [b"x"], {b"%d" % n: b"" for n in range(COMMAND_VARIABLES_MAX + 1)}, 0)


@pytest.mark.parametrize("data", list(strange_frames()))
async def test_a_strange_frame_is_malformed(data):
    with pytest.raises(MalformedMessage):
        await wire.from_client(reader_of(data), wire.FIRST_BYTES_MAX)


@pytest.mark.parametrize(
    "data",
    [
        raw(1, 1, TOKEN, 1, [b"x"], {}, True),
        raw(6, -65, 0.0, 0.0, 0, 0.0),
        raw(6, 256, 0.0, 0.0, 0, 0.0),
        raw(6, 0, -1.0, 0.0, 0, 0.0),
        raw(7, 1, "x" * (wire.TEXT_BYTES_MAX + 1), 1),
    ],
)
async def test_a_node_that_says_strange_things_is_not_believed(data):
    with pytest.raises(MalformedMessage):
        await wire.from_node(reader_of(data))


async def test_a_frame_that_is_cut_off_is_the_end():
    whole = frame(START)
    for length in (0, 1, 4, 5, len(whole) - 1):
        assert await wire.from_client(reader_of(whole[:length]), wire.FIRST_BYTES_MAX) is None


async def test_fields_of_later_versions_are_ignored():
    assert await wire.from_client(reader_of(raw(5, 3, "later"))) == wire.Signal(3)
    unknown = raw(7, 77, "a reason of a later version", 126)
    assert (await wire.from_node(reader_of(unknown))).reason == 77


# --- windows --------------------------------------------------------------------------------------


class Paper:
    """A writer that remembers."""

    def __init__(self):
        self.frames = []
        self.closing = False

    def write(self, data):
        body = msgspec.msgpack.decode(data[4:])
        assert int.from_bytes(data[:4]) == len(data) - 4
        self.frames.append(body)

    async def drain(self):
        await asyncio.sleep(0)

    def is_closing(self):
        return self.closing

    def sent(self):
        return sum(len(body[2]) for body in self.frames)


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_no_more_is_under_way_than_a_window_and_in_chunks():
    paper = Paper()
    flow = wire.Outflow(STDOUT, paper)
    data = bytes(range(256)) * (COMMAND_WINDOW_BYTES // 256 + 1)
    sending = asyncio.create_task(flow.send(data))
    await turns()
    assert paper.sent() == COMMAND_WINDOW_BYTES
    assert max(len(body[2]) for body in paper.frames) == COMMAND_CHUNK_BYTES
    flow.taken(100)
    await turns()
    assert paper.sent() == COMMAND_WINDOW_BYTES + 100
    flow.taken(COMMAND_WINDOW_BYTES // 2)
    await turns()
    assert sending.done()
    flow.end()
    assert b"".join(body[2] for body in paper.frames) == data
    assert paper.frames[-1] == [3, STDOUT, b""]


async def test_nobody_takes_more_than_was_sent():
    flow = wire.Outflow(STDIN, Paper())
    with pytest.raises(MalformedMessage, match="more was taken"):
        flow.taken(1)
    await flow.send(b"abc")
    flow.taken(3)
    with pytest.raises(MalformedMessage, match="more was taken"):
        flow.taken(1)


async def test_who_waits_for_room_goes_on_when_nobody_listens_any_more():
    paper = Paper()
    flow = wire.Outflow(STDOUT, paper)
    sending = asyncio.create_task(flow.send(bytes(3 * COMMAND_WINDOW_BYTES)))
    await turns()
    assert not sending.done()
    paper.closing = True
    flow.stop()
    await turns()
    assert sending.done()
    count = len(paper.frames)
    await flow.send(b"more")
    flow.end()
    assert len(paper.frames) == count


def test_more_than_a_window_is_not_accepted():
    flow = wire.Inflow(STDIN, Paper())
    flow.come(COMMAND_WINDOW_BYTES)
    with pytest.raises(MalformedMessage, match="more came of a stream than its window"):
        flow.come(1)


def test_what_was_handed_on_is_told_now_and_then_and_nothing_is_forgotten():
    paper = Paper()
    flow = wire.Inflow(STDERR, paper)
    for _ in range(10 * COMMAND_WINDOW_BYTES // 1000):
        flow.come(1000)
        flow.handed_on(1000)
    told = sum(body[2] for body in paper.frames)
    whole = 10 * COMMAND_WINDOW_BYTES // 1000 * 1000
    assert whole - COMMAND_WINDOW_BYTES // 4 < told <= whole
    assert len(paper.frames) < 100
    assert {tuple(body[:2]) for body in paper.frames} == {(4, STDERR)}
    paper.closing = True
    flow.handed_on(COMMAND_WINDOW_BYTES)  # nobody to tell


async def test_both_sides_together_never_stall():
    """Whatever the sizes are in which it is read, all of it arrives."""
    out, back = Paper(), Paper()
    sender, receiver = wire.Outflow(STDOUT, out), wire.Inflow(STDOUT, back)
    total = 3 * COMMAND_WINDOW_BYTES + 17
    sending = asyncio.create_task(sender.send(bytes(total)))
    got, waiting = 0, 0
    while got < total:
        await turns(2)
        for body in out.frames:
            receiver.come(len(body[2]))
            waiting += len(body[2])
        out.frames.clear()
        part = min(waiting, 33_333)
        waiting -= part
        got += part
        receiver.handed_on(part)
        for body in back.frames:
            sender.taken(body[2])
        back.frames.clear()
    await turns()
    assert sending.done()
