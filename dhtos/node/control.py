"""The control socket: what programs on the same machine say to a running node, and its client.

Newline-delimited JSON over a unix socket that only its owner may open. One request a line,
answered in order:

    -> {"op": "find", "args": {"query": "cores >= 8"}}
    <- {"item": {...}}                                 any number of them
    <- {"end": {...}}                                  or
    <- {"error": {"code": "PredicateError", "message": "...", "hint": "...", "column": 7}}

The code is the name of the class in `dhtos.errors`, and the client raises it again. Closing the
connection cancels what it asked for: that is how a client stops a long answer. Bytes travel as
base64 text under a name of their own.

The other side is `control_server`; this module imports no engine, so that a command starts fast.
"""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from dhtos import errors
from dhtos.core.limits import CONTROL_LINE_BYTES_MAX
from dhtos.errors import (
    ClaimsRefused,
    DhtosError,
    MalformedMessage,
    NoCandidates,
    PredicateError,
    Preempted,
    Unreachable,
    UsageError,
)

OPS = (
    "rtt", "within", "central",
    "secret_put", "secret_remove",
    "find", "count", "sum", "histogram", "sample", "closest", "members", "put", "get", "status",
    "advertise", "config", "plan", "explain", "place", "leases", "drain", "undrain", "revoke",
    "channel", "channel_keys",
    "usage", "gang", "replicas", "whoami", "invite", "invites", "uninvite",
    "revoke_member", "user", "root", "promote", "demote", "rotate",
    "guests", "guest_add", "guest_remove", "guest_token",
)  # fmt: skip

_encode = msgspec.json.Encoder().encode


def default_control_path(state_dir: Path | None, port: int) -> Path:
    """Where a node with this state directory, or without one on this port, listens."""
    if state_dir is not None:
        return state_dir / "control.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "dhtos" / f"{port}.sock"
    return Path(tempfile.gettempdir()) / f"dhtos-{os.getuid()}" / f"{port}.sock"


def encode_line(message: Mapping[str, object]) -> bytes:
    """One line of the socket."""
    return _encode(message) + b"\n"


def decode_line(line: bytes) -> dict[str, Any]:
    """The message of a line; raises MalformedMessage for anything but an object."""
    try:
        message = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedMessage(f"a line of the control socket is JSON: {error}") from error
    if not isinstance(message, dict):
        raise MalformedMessage("a line of the control socket is a JSON object")
    return message


def error_to_wire(error: DhtosError) -> dict[str, object]:
    """What the client needs to raise the same error."""
    wire: dict[str, object] = {"code": type(error).__name__, "message": str(error)}
    if isinstance(error, PredicateError):
        wire |= {"hint": error.hint, "column": error.column}
    if isinstance(error, NoCandidates | ClaimsRefused):
        wire["reasons"] = error.reasons
    if isinstance(error, Preempted):
        wire["grace_s"] = error.grace_s
    return wire


def error_from_wire(wire: object) -> DhtosError:
    """The error that a node reported."""
    if not isinstance(wire, dict):
        return MalformedMessage("the node reported an error without saying which")
    message = str(wire.get("message", ""))
    kind = getattr(errors, str(wire.get("code")), None)
    if kind is PredicateError:
        return PredicateError(message, column=wire.get("column"), hint=wire.get("hint"))
    if kind is NoCandidates or kind is ClaimsRefused:
        reasons = wire.get("reasons")
        refused: NoCandidates | ClaimsRefused = kind(
            message, reasons if isinstance(reasons, dict) else None
        )
        return refused
    if kind is Preempted:
        grace_s = wire.get("grace_s")
        return Preempted(message, float(grace_s) if isinstance(grace_s, int | float) else 0.0)
    if isinstance(kind, type) and issubclass(kind, DhtosError):
        return kind(message)
    return DhtosError(message)


class ControlClient:
    """A connection to a running node; answers come as plain values.

    Use it as a context manager: leaving it closes the connection and whatever was still asked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answer: Answer | None = None

    async def connect(self) -> None:
        """Connect; raises Unreachable when no node listens there."""
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(
                str(self.path), limit=CONTROL_LINE_BYTES_MAX
            )
        except OSError as error:
            raise Unreachable(
                f"no node answers on {self.path}: start one with dhtos-node run"
            ) from error

    def ask(self, op: str, **args: object) -> "Answer":
        """Ask; the answer's items are iterated, its end is what `finish` returns.

        One question at a time: the next one waits until the answer was read to its end.
        """
        if op not in OPS:
            raise UsageError(f"unknown op {op!r}; known: {', '.join(OPS)}")
        if self._reader is None or self._writer is None:
            raise Unreachable("the control client is not connected")
        if self._answer is not None and not self._answer.done:
            raise UsageError("the answer before this question was not read to its end")
        given = {name: value for name, value in args.items() if value is not None}
        line = encode_line({"op": op, "args": given})
        self._answer = Answer(self._reader, self._writer, line)
        return self._answer

    async def call(self, op: str, **args: object) -> dict[str, Any]:
        """Ask and return the end of the answer, leaving its items out."""
        return await self.ask(op, **args).finish()

    async def aclose(self) -> None:
        """Close the connection, which cancels what was asked; may be called again."""
        if self._writer is None:
            return
        writer, self._writer, self._reader = self._writer, None, None
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            return  # The node closed it first.

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class Answer:
    """The answer to one question: an async iterator of items, with an `end` behind the last."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._line = line
        self._end: dict[str, Any] | None = None
        self._asked = False
        self.done = False

    @property
    def end(self) -> dict[str, Any]:
        """What came after the last item; raises UsageError before it."""
        if self._end is None:
            raise UsageError("the answer was not read to its end")
        return self._end

    async def finish(self) -> dict[str, Any]:
        """Skip what is left of the items and return the end."""
        async for _ in self:
            continue
        return self.end

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        """The next item; raises the error that the node reported, or Unreachable."""
        if self.done:
            raise StopAsyncIteration
        message = await self._next_message()
        match message:
            case {"item": dict() as item}:
                return item
            case {"end": dict() as end}:
                self._end, self.done = end, True
                raise StopAsyncIteration
            case {"error": wire}:
                self.done = True
                raise error_from_wire(wire)
        raise MalformedMessage(f"the node answered with {', '.join(map(repr, message))}")

    async def _next_message(self) -> dict[str, Any]:
        try:
            if not self._asked:
                self._asked = True
                self._writer.write(self._line)
                await self._writer.drain()
            line = await self._reader.readline()
        except (OSError, ValueError) as error:
            self.done = True
            raise Unreachable(f"the node's answer was cut off: {error}") from error
        if not line.endswith(b"\n"):
            self.done = True
            raise Unreachable("the node went away in the middle of its answer")
        return decode_line(line)
