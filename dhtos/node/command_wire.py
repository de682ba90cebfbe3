"""What travels about one command: frames over TCP, and windows that keep each stream in bounds.

A frame is a length (4 bytes, big-endian) and that much MessagePack: an array whose first element
says what it is. Fields of later versions come last and are ignored.

    client  START   1  version, token, fence, argv, env, stdin      the first frame, and only that
    node    STARTED 2  lease                                        or REFUSED, and the end
    both    DATA    3  stream, bytes                                no bytes: the stream has ended
    both    TAKEN   4  stream, count                                so much of it was handed on
    client  SIGNAL  5  number
    node    EXIT    6  returncode, user_s, system_s, memory_bytes, wall_s      the last frame
    node    REFUSED 7  reason, text, code                                      the last frame

In a cluster all of this goes through `dhtos.node.sealed_stream`.

Streams are numbered as file descriptors. Of each, COMMAND_WINDOW_BYTES may be under way that were
not taken; so a side that does not read stops the other, and neither has to keep more than a window,
while signals and the end pass what is waiting (the windows of RFC 4254, section 5.2).
"""

import asyncio
import socket
from enum import IntEnum
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from dhtos.core.limits import (
    COMMAND_ARGUMENTS_MAX,
    COMMAND_BYTES_MAX,
    COMMAND_CHUNK_BYTES,
    COMMAND_VARIABLES_MAX,
    COMMAND_WINDOW_BYTES,
)
from dhtos.errors import MalformedMessage
from dhtos.node.sealed_stream import Reader, Writer, unframed
from dhtos.protocol.grants import TOKEN_BYTES

T = TypeVar("T")

VERSION = 1
STDIN, STDOUT, STDERR = 0, 1, 2
FIRST_BYTES_MAX = COMMAND_BYTES_MAX + 8 * (COMMAND_ARGUMENTS_MAX + 2 * COMMAND_VARIABLES_MAX)
FRAME_BYTES_MAX = COMMAND_CHUNK_BYTES + 64
SIGNALS_MAX = 64
TEXT_BYTES_MAX = 1000
_LENGTH_BYTES = 4
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
_TAKEN_AT = COMMAND_WINDOW_BYTES // 8  # told for so much at a time


class Reason(IntEnum):
    """Why a node does not run a command; the numbers travel."""

    LEASE = 1
    BUSY = 2
    CROWDED = 3
    VERSION = 4
    CANNOT_START = 5
    CLOSING = 6
    FORBIDDEN = 7
    CHANNEL = 8


_Count = Annotated[int, Meta(ge=0, le=COMMAND_WINDOW_BYTES)]
_Stream = Annotated[int, Meta(ge=STDIN, le=STDERR)]
_Word = Annotated[bytes, Meta(max_length=COMMAND_BYTES_MAX)]


class _Frame(msgspec.Struct, array_like=True, frozen=True, tag_field="kind"):
    """An array; the tag is its first element."""


class Start(_Frame, frozen=True, tag=1):
    """What to run, and the lease to run it under."""

    version: int
    token: Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
    fence: Annotated[int, Meta(ge=1)]
    argv: Annotated[list[_Word], Meta(min_length=1, max_length=COMMAND_ARGUMENTS_MAX)]
    env: Annotated[dict[_Word, _Word], Meta(max_length=COMMAND_VARIABLES_MAX)]
    stdin: bool


class Started(_Frame, frozen=True, tag=2):
    """It runs."""

    lease: Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]


class Data(_Frame, frozen=True, tag=3):
    """A part of a stream, or its end."""

    stream: _Stream
    data: Annotated[bytes, Meta(max_length=COMMAND_CHUNK_BYTES)]


class Taken(_Frame, frozen=True, tag=4):
    """So much of a stream was handed on."""

    stream: _Stream
    count: _Count


class Signal(_Frame, frozen=True, tag=5):
    """A signal for the command."""

    number: Annotated[int, Meta(ge=1, le=SIGNALS_MAX)]


class Ended(_Frame, frozen=True, tag=6):
    """How it ended, and what it used."""

    returncode: Annotated[int, Meta(ge=-SIGNALS_MAX, le=255)]
    user_s: Annotated[float, Meta(ge=0)]
    system_s: Annotated[float, Meta(ge=0)]
    memory_bytes: Annotated[int, Meta(ge=0)]
    wall_s: Annotated[float, Meta(ge=0)]


class Refusal(_Frame, frozen=True, tag=7):
    """Why it does not run; `code` is what a shell would exit with."""

    reason: int
    text: Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]
    code: Annotated[int, Meta(ge=0, le=255)]


FromClient = Start | Data | Taken | Signal
FromNode = Started | Data | Taken | Ended | Refusal

_encode = msgspec.msgpack.Encoder().encode
_OF_CLIENT = msgspec.msgpack.Decoder(FromClient)
_OF_NODE = msgspec.msgpack.Decoder(FromNode)


def frame(message: _Frame) -> bytes:
    """The bytes of a message."""
    body = _encode(message)
    return len(body).to_bytes(_LENGTH_BYTES) + body


async def from_client(reader: Reader, bytes_max: int = FRAME_BYTES_MAX) -> FromClient | None:
    """The next message of a client; None at the end. Raises MalformedMessage."""
    body = await body_of(reader, bytes_max)
    return None if body is None else read_from_client(body)


def read_from_client(body: bytes) -> FromClient:
    """What a client says in a frame; raises MalformedMessage."""
    message: FromClient = _decoded(_OF_CLIENT, body)
    return message


async def from_node(reader: Reader) -> FromNode | None:
    """The next message of a node; None at the end. Raises MalformedMessage."""
    body = await body_of(reader, FRAME_BYTES_MAX)
    return None if body is None else read_from_node(body)


def read_from_node(body: bytes) -> FromNode:
    """What a node says in a frame; raises MalformedMessage."""
    message: FromNode = _decoded(_OF_NODE, body)
    return message


async def body_of(reader: Reader, bytes_max: int) -> bytes | None:
    """What a frame holds; it is not waited for where it is longer than may be."""
    try:
        return await unframed(reader, bytes_max)
    except (asyncio.IncompleteReadError, OSError):
        return None


def _decoded(decoder: "msgspec.msgpack.Decoder[T]", body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: no UTF-8
        raise MalformedMessage(f"not what is said about a command: {error}") from error


class Outflow:
    """The sending side of a stream: no more under way than its window."""

    def __init__(self, stream: int, writer: Writer) -> None:
        self._stream = stream
        self._writer = writer
        self._room = COMMAND_WINDOW_BYTES
        self._changed = asyncio.Event()

    async def send(self, data: bytes) -> None:
        """Send all of it, as the other side takes it; nothing where nobody listens any more."""
        view = memoryview(data)
        while view and not self._writer.is_closing():
            if not self._room:
                self._changed.clear()
                await self._changed.wait()
                continue
            part = view[: min(self._room, COMMAND_CHUNK_BYTES)]
            view = view[len(part) :]
            self._room -= len(part)
            self._writer.write(frame(Data(self._stream, bytes(part))))
            await drain(self._writer)

    def end(self) -> None:
        """No more will come."""
        if not self._writer.is_closing():
            self._writer.write(frame(Data(self._stream, b"")))

    def taken(self, count: int) -> None:
        """The other side has handed on so much; raises MalformedMessage for more than was sent."""
        if self._room + count > COMMAND_WINDOW_BYTES:
            raise MalformedMessage("more was taken of a stream than was sent")
        self._room += count
        self._changed.set()

    def stop(self) -> None:
        """Nobody listens any more: whoever waits goes on."""
        self._room = COMMAND_WINDOW_BYTES
        self._changed.set()


class Inflow:
    """The receiving side of a stream: what may come, and what was handed on."""

    def __init__(self, stream: int, writer: Writer) -> None:
        self._stream = stream
        self._writer = writer
        self._room = COMMAND_WINDOW_BYTES
        self._untold = 0

    def come(self, count: int) -> None:
        """So much has come; raises MalformedMessage for more than there was room for."""
        self._room -= count
        if self._room < 0:
            raise MalformedMessage("more came of a stream than its window")

    def handed_on(self, count: int) -> None:
        """So much of it is no longer here; the other side is told now and then."""
        self._untold += count
        if self._untold >= _TAKEN_AT and not self._writer.is_closing():
            self._room += self._untold
            self._writer.write(frame(Taken(self._stream, self._untold)))
            self._untold = 0


def keep_alive(writer: Writer) -> None:
    """Ask now and then whether the other side is there; a silent connection may be cut off."""
    sock = writer.get_extra_info("socket")
    for level, option, value in _KEEP_ALIVE:
        sock.setsockopt(level, option, value)


async def drain(writer: Writer) -> None:
    """Wait while the other side does not read; one that went away is found by who reads."""
    try:
        await writer.drain()
    except OSError:
        return
