"""The owner's side of a command: begin it on the machine of a lease, and talk to it.

`Process` has the names of `asyncio.subprocess.Process`. It needs the endpoint, token and fence of a
lease and no node, so a command line can run something under a lease that its daemon keeps. In a
cluster it also needs the key of the machine, and somebody who begins the connection in the name of
who has claimed the lease: `dhtos.node.sealed_stream.Channels`.
"""

import asyncio
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from dhtos.core.limits import (
    COMMAND_CHUNK_BYTES,
    COMMAND_OUTPUT_BYTES_MAX,
    COMMAND_START_S,
)
from dhtos.errors import (
    CannotStart,
    DhtosError,
    LeaseLost,
    MalformedMessage,
    Preempted,
    Refused,
    Unreachable,
    UsageError,
)
from dhtos.node import command_wire as wire
from dhtos.node.command import COMMANDS, LABEL, Usage, Word, check_size, variables, words
from dhtos.node.command_wire import STDERR, STDIN, STDOUT, Reason, frame
from dhtos.node.config import parse_endpoint
from dhtos.node.sealed_stream import (
    READY,
    READY_BYTES_MAX,
    Channels,
    Reader,
    Writer,
    framed,
    sealed,
)

PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL


class Completed(subprocess.CompletedProcess[bytes]):
    """A command that has ended: `returncode`, `stdout`, `stderr`, and the `usage` of it all."""

    def __init__(
        self, args: tuple[bytes, ...], returncode: int, stdout: bytes, stderr: bytes, usage: Usage
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.usage = usage


class Process:
    """A command on another machine; closing it ends the command.

    `stdout` and `stderr` are `asyncio.StreamReader`s, or None where they are thrown away: what is
    not read stops the command, as a full pipe would. `stdin` is there where PIPE was asked for.
    """

    def __init__(self, endpoint: str, reader: Reader, writer: Writer) -> None:
        self.endpoint = endpoint
        self.lease = ""
        self.argv: tuple[bytes, ...] = ()
        self.stdin: Stdin | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.usage: Usage | None = None
        self.returncode: int | None = None
        self._reader = reader
        self._writer = writer
        self._taps: dict[int, _Tap] = {}
        self._outflow = wire.Outflow(STDIN, writer)
        self._error: DhtosError | None = None
        self._preempted: Preempted | None = None
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, stdin: int, stdout: int, stderr: int) -> None:
        """Begin to listen, once it runs."""
        for fd, wanted in ((STDOUT, stdout), (STDERR, stderr)):
            self._taps[fd] = _Tap(wire.Inflow(fd, self._writer), wanted=wanted != DEVNULL)
        self.stdout, self.stderr = self._taps[STDOUT].reader, self._taps[STDERR].reader
        self._tasks.append(asyncio.create_task(self._listen()))
        if stdin == PIPE:
            self.stdin = Stdin(self._outflow)
            self._tasks.append(asyncio.create_task(self.stdin.pump()))

    def lost_with(self, lease_ended: Callable[[], Awaitable[None]]) -> None:
        """Give up when this raises: the node has ended the command with its lease.

        One that was preempted has been asked to end, and what it says to that is still heard.
        """

        async def watch() -> None:
            try:
                await lease_ended()
            except Preempted as error:
                self._preempted = error
                with suppress(TimeoutError):
                    async with asyncio.timeout(error.grace_s):
                        await self._over.wait()
                self._finish(error)
            except DhtosError as error:
                self._finish(error)

        self._tasks.append(asyncio.create_task(watch()))

    async def wait(self) -> int:
        """Its exit code, or the negative number of the signal that killed it.

        Raises LeaseLost where it was lost with its lease or its machine, and Preempted also where
        it has ended by itself since.
        """
        await self._over.wait()
        if self._preempted is not None:
            raise self._preempted
        if self.returncode is None:
            assert self._error is not None, "it ends in one of two ways"
            raise self._error
        return self.returncode

    async def communicate(
        self,
        input: bytes | None = None,  # noqa: A002 - as `subprocess` calls it
    ) -> tuple[bytes, bytes]:
        """Send all input, and collect all output until it has ended.

        Raises LeaseLost as `wait`, UsageError for more output than COMMAND_OUTPUT_BYTES_MAX.
        """
        if self.stdin is not None:
            self.stdin.write(input or b"")
            self.stdin.close()
        elif input:
            raise UsageError("there is no standard input: start it with stdin=PIPE")
        outputs = await asyncio.gather(*map(self._collect, (self.stdout, self.stderr)))
        await self.wait()
        return outputs[0], outputs[1]

    async def complete(
        self,
        input: bytes | None = None,  # noqa: A002 - as `subprocess` calls it
    ) -> Completed:
        """What has become of it; raises as `communicate`."""
        out, errors = await self.communicate(input)
        assert self.usage is not None, "it has ended"
        return Completed(self.argv, await self.wait(), out, errors, self.usage)

    async def _collect(self, reader: asyncio.StreamReader | None) -> bytes:
        parts: list[bytes] = []
        size = 0
        while reader is not None and (part := await reader.read(COMMAND_CHUNK_BYTES)):
            size += len(part)
            if size > COMMAND_OUTPUT_BYTES_MAX:
                await self.aclose()
                raise UsageError(
                    f"the command wrote more than {COMMAND_OUTPUT_BYTES_MAX} bytes: use start, and "
                    "read its output as it comes"
                )
            parts.append(part)
        return b"".join(parts)

    def send_signal(self, number: int) -> None:
        """Send it and what it started a signal; nothing where it has ended."""
        if not 1 <= number <= wire.SIGNALS_MAX:
            raise UsageError(f"a signal is 1..{wire.SIGNALS_MAX}, got {number!r}")
        if not self._over.is_set() and not self._writer.is_closing():
            self._writer.write(frame(wire.Signal(int(number))))

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        """End it if it still runs, and let go of it; may be called again."""
        self._finish(LeaseLost("the command was given up"))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- inside -----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        gone = f"{self.endpoint} went away before the command had ended, which ended with it"
        error: DhtosError = LeaseLost(gone)
        try:
            while (message := await wire.from_node(self._reader)) is not None:
                self._hear(message)
                if self.returncode is not None:
                    break
                await wire.drain(self._writer)
        except MalformedMessage as wrong:
            error = wrong
        self._finish(error)

    def _hear(self, message: wire.FromNode) -> None:
        match message:
            case wire.Data(stream=stream, data=data) if stream in self._taps:
                self._taps[stream].feed(data)
            case wire.Taken(stream=0, count=count):
                self._outflow.taken(count)
            case wire.Ended():
                self.usage = Usage(
                    message.user_s, message.system_s, message.memory_bytes, message.wall_s
                )
                self.returncode = message.returncode
            case _:
                raise MalformedMessage(f"{self.endpoint} speaks of something else")

    def _finish(self, error: DhtosError) -> None:
        """It has ended, by its own word or by this error; the first reason counts."""
        if self._over.is_set():
            return
        self._error = error
        self._over.set()
        for tap in self._taps.values():
            tap.end()
        self._outflow.stop()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._writer.transport.abort()


class _Tap(asyncio.ReadTransport):
    """Where the frames of a stream become a reader, which pauses it while nobody reads."""

    def __init__(self, inflow: wire.Inflow, *, wanted: bool) -> None:
        super().__init__()
        self._inflow = inflow
        self._paused = False
        self._kept = 0  # bytes the other side was not told of, while nobody reads
        self._ended = False
        self.reader = asyncio.StreamReader(limit=COMMAND_CHUNK_BYTES) if wanted else None
        if self.reader is not None:
            self.reader.set_transport(self)

    def feed(self, data: bytes) -> None:
        """More of it, or its end; raises MalformedMessage for more than there is room for."""
        self._inflow.come(len(data))
        if not data:
            self.end()
        elif self.reader is None:
            self._inflow.handed_on(len(data))
        elif not self._ended:
            self.reader.feed_data(data)
            self._kept += len(data)
            if not self._paused:
                self.resume_reading()

    def end(self) -> None:
        """No more will come."""
        if not self._ended:
            self._ended = True
            if self.reader is not None:
                self.reader.feed_eof()

    def pause_reading(self) -> None:
        """The reader has enough."""
        self._paused = True

    def resume_reading(self) -> None:
        """It has room again."""
        self._paused = False
        told, self._kept = self._kept, 0
        self._inflow.handed_on(told)


class Stdin:
    """The standard input of a command, with the names of `asyncio.StreamWriter`."""

    def __init__(self, outflow: wire.Outflow) -> None:
        self._outflow = outflow
        self._waiting = bytearray()
        self._closing = False
        self._more = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()

    def write(self, data: bytes) -> None:
        """Send this; `drain` waits until it is on its way. Raises UsageError after `close`."""
        if self._closing:
            raise UsageError("standard input was closed")
        if data:
            self._waiting += data
            self._sent.clear()
            self._more.set()

    async def drain(self) -> None:
        """Wait until all that was written is on its way; not at all where nobody reads any more."""
        await self._sent.wait()

    def close(self) -> None:
        """No more will come; may be called again."""
        self._closing = True
        self._more.set()

    write_eof = close

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    async def wait_closed(self) -> None:
        """Wait until all that was written is on its way."""
        await self.drain()

    async def pump(self) -> None:
        """Carry it."""
        try:
            while self._waiting or not self._closing:
                await self._more.wait()
                self._more.clear()
                data, self._waiting = bytes(self._waiting), bytearray()
                await self._outflow.send(data)
                if not self._waiting:
                    self._sent.set()
            self._outflow.end()
        finally:
            self._sent.set()


async def start(
    endpoint: str,
    token: str,
    fence: int,
    argv: Sequence[Word],
    *,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    stdin: int = DEVNULL,
    stdout: int = PIPE,
    stderr: int = PIPE,
    identity: bytes = b"",
    channels: Channels | None = None,
) -> Process:
    """Run a command under a lease, on the machine that granted it.

    `identity` is the public key of that machine, to which `channels` begins a sealed connection;
    without them it is in the open.

    Raises UsageError for what cannot be a command, CannotStart where the machine cannot start it,
    Refused where it does not want to, LeaseLost where the lease does not stand there, Unreachable
    where nobody takes commands.
    """
    for name, value in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
        if value not in (PIPE, DEVNULL):
            raise UsageError(f"{name} is PIPE or DEVNULL, got {value!r}")
    said, variables_ = words(argv), variables(env or {})
    check_size(said, variables_)
    order = wire.Start(
        wire.VERSION, bytes.fromhex(token), fence, list(said), variables_, stdin == PIPE
    )
    reader, writer = await _connect(endpoint)
    try:
        if channels is not None:
            reader, writer = await _seal(endpoint, identity, channels, reader, writer)
        answer = await _ask(order, reader, writer)
    except BaseException:
        writer.transport.abort()
        raise
    if not isinstance(answer, wire.Started):
        writer.transport.abort()
        raise _error(endpoint, answer)
    process = Process(endpoint, reader, writer)
    process.argv, process.lease = said, answer.lease
    process.open(stdin, stdout, stderr)
    return process


async def _connect(endpoint: str) -> tuple[Reader, Writer]:
    host, port = parse_endpoint(endpoint)
    try:
        async with asyncio.timeout(COMMAND_START_S):
            reader, writer = await asyncio.open_connection(host, port, limit=COMMAND_CHUNK_BYTES)
            wire.keep_alive(writer)
            return reader, writer
    except OSError as error:  # also a TimeoutError
        raise Unreachable(
            f"{endpoint} takes no commands ({error.strerror or 'no answer'}): start its node with "
            f"--commands, and place where label({LABEL!r}) == {COMMANDS!r}"
        ) from error


async def _seal(
    endpoint: str, identity: bytes, channels: Channels, reader: Reader, writer: Writer
) -> tuple[Reader, Writer]:
    """The same connection sealed, with the machine that has this key.

    Raises Refused where it does not believe us, or is of no cluster.
    """
    name, hello = await channels.hello(identity)
    ready: bytes | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(COMMAND_START_S):
            writer.write(framed(hello))
            await wire.drain(writer)
            ready = await wire.body_of(reader, READY_BYTES_MAX)
    if ready is None:
        raise Unreachable(
            f"{endpoint} did not answer as the machine that granted the lease: another may have "
            "its address"
        )
    if not ready.startswith(READY):
        raise _error(endpoint, wire.read_from_node(ready))
    try:
        return sealed(reader, writer, await channels.keys(name, ready))
    except Refused as error:
        raise Refused(f"{endpoint} ran nothing: {error}") from error


async def _ask(order: wire.Start, reader: Reader, writer: Writer) -> wire.FromNode | None:
    """The answer to the first frame; None where there is none."""
    try:
        async with asyncio.timeout(COMMAND_START_S):
            writer.write(frame(order))
            await wire.drain(writer)
            return await wire.from_node(reader)
    except TimeoutError:
        return None


def _error(endpoint: str, answer: wire.FromNode | None) -> DhtosError:
    """Why it does not run."""
    match answer:
        case None:
            return Unreachable(f"{endpoint} did not answer when it was given a command")
        case wire.Refusal(reason=Reason.CANNOT_START):
            return CannotStart(f"on {endpoint} {answer.text}", code=answer.code)
        case wire.Refusal(reason=Reason.FORBIDDEN):
            text = f"{endpoint} ran nothing: {answer.text}; ask an issuer for one that does"
            return CannotStart(text, code=answer.code)
        case wire.Refusal(reason=Reason.LEASE):
            return LeaseLost(f"{endpoint} ran nothing: {answer.text}")
        case wire.Refusal():
            return Refused(f"{endpoint} ran nothing: {answer.text}")
    return MalformedMessage(f"{endpoint} speaks of something else")
