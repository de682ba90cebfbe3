"""The node's side of the control socket: who connects, and the lines of each answer.

It is for the owner of the node alone, or with `control_users` also for others of the machine, each
of whom may what the cluster lets them (`dhtos.node.callers`).

Everything is bounded: the length of a line, the connections. A client that does not read its
answer stops its own query, not the node; one that goes away cancels it.
"""

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dhtos.core.limits import CONTROL_CLIENTS_MAX, CONTROL_LINE_BYTES_MAX
from dhtos.errors import ConfigError, DhtosError, UsageError
from dhtos.node.arguments import Args, Lines, no_more
from dhtos.node.control import decode_line, default_control_path, encode_line, error_to_wire
from dhtos.node.control_ops import Ops

if TYPE_CHECKING:
    from dhtos.node.callers import Callers
    from dhtos.node.node import Node


async def open_control(node: "Node") -> "ControlServer":
    """Listen where programs look for this node; raises ConfigError as `ControlServer.start`."""
    config = node.config
    path = config.control_path or default_control_path(config.state_dir, node.port)
    callers = None
    if config.control_users:
        from dhtos.node.callers import Callers, login_name

        callers = Callers(node, login_name)
    server = ControlServer(node, path, callers)
    await server.start()
    return server


class ControlServer:
    """Answers programs of the same user on behalf of a started node; with `callers` also others."""

    def __init__(self, node: "Node", path: Path, callers: "Callers | None" = None) -> None:
        self.path = path
        self._callers = callers
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._ops = Ops(node).by_name

    async def start(self) -> None:
        """Listen; raises ConfigError when another node listens there or the path is unfit."""
        shared = self._callers is not None
        sock = await asyncio.to_thread(bind_socket, self.path, shared=shared)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=sock, limit=CONTROL_LINE_BYTES_MAX
        )

    async def aclose(self) -> None:
        """Stop listening, cancel what clients asked, remove the socket; may be called again."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await server.wait_closed()
        await asyncio.to_thread(self.path.unlink, missing_ok=True)

    # --- one connection ---------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) > CONTROL_CLIENTS_MAX:
                busy = UsageError(f"at most {CONTROL_CLIENTS_MAX} clients at a time: try again")
                writer.write(encode_line({"error": error_to_wire(busy)}))
            elif self._callers is None or (uid := self._callers.guest(writer)) is None:
                await self._converse(reader, writer)
            else:
                await self._receive(self._callers, uid, reader, writer)
        except OSError:
            return  # The client went away; there is nobody to tell.
        except asyncio.CancelledError:
            # Streams of Python 3.11 report a cancelled handler as a fault; ours is closing.
            if self._server is not None:
                raise
        finally:
            self._clients.discard(task)
            writer.close()

    async def _receive(
        self,
        callers: "Callers",
        uid: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Answer another user of the machine, until it goes or is put out of the cluster."""
        try:
            callers.enter(uid)
        except UsageError as error:
            writer.write(encode_line({"error": error_to_wire(error)}))
            return
        talk = asyncio.create_task(self._converse(reader, writer, _Guest(callers, uid)))
        out = asyncio.create_task(callers.out(uid))
        try:
            await asyncio.wait({talk, out}, return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                await talk
            else:
                talk.cancel()
                await asyncio.gather(talk, return_exceptions=True)
                writer.write(encode_line({"error": error_to_wire(out.result())}))
        finally:
            for task in (talk, out):
                task.cancel()
            await asyncio.gather(talk, out, return_exceptions=True)
            callers.leave(uid)

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        guest: "_Guest | None" = None,
    ) -> None:
        """Answer line after line; the line after the one at work is already read, to see an end."""
        line = await _line(reader)
        while line:
            answering = asyncio.create_task(self._answer(line, writer, guest))
            listening = asyncio.create_task(_line(reader))
            try:
                await asyncio.wait({answering, listening}, return_when=asyncio.FIRST_COMPLETED)
                if listening.done() and not listening.result():
                    # The client closed, or half-closed after its last question: a question that
                    # only waits for others is given up, what is ready was sent.
                    return
                await answering
                line = await listening
            finally:
                for task in (answering, listening):
                    task.cancel()
                await asyncio.gather(answering, listening, return_exceptions=True)

    async def _answer(
        self, line: bytes, writer: asyncio.StreamWriter, guest: "_Guest | None"
    ) -> None:
        try:
            message = decode_line(line)
            op, args = message.get("op"), message.get("args", {})
            handler = self._ops.get(op) if isinstance(op, str) else None
            if handler is None or not isinstance(op, str):
                raise UsageError(f"unknown op {op!r}; known: {', '.join(self._ops)}")
            if not isinstance(args, dict):
                raise UsageError("args must be a JSON object")
            if guest is not None:
                chain = await guest.callers.check(guest.uid, op)
                if op == "whoami":
                    handler = _told(guest.callers.whoami(chain))
            async for part in handler(dict(args)):
                writer.write(encode_line(part))
                await writer.drain()
        except DhtosError as error:
            writer.write(encode_line({"error": error_to_wire(error)}))
            await writer.drain()


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line; nothing at the end of the connection or after a line over the limit."""
    try:
        return await reader.readline()
    except (ValueError, OSError):
        return b""


class _Guest(NamedTuple):
    """Another user of the machine, at one connection."""

    callers: "Callers"
    uid: int


def _told(end: dict[str, Any]) -> Callable[[Args], Lines]:
    """An op that says just this."""

    async def say(args: Args) -> Lines:
        no_more(args)
        yield {"end": end}

    return say


def bind_socket(path: Path, *, shared: bool = False) -> socket.socket:
    """A listening unix socket that only its owner may open, or all. Blocks for the disk.

    It is made under another name and renamed when its rights are set. A socket that a dead node
    left behind is replaced; a living one is a ConfigError.
    """
    try:
        _make_directory(path.parent, shared=shared)
        if _is_alive(path):
            raise ConfigError(
                f"another node answers on {path}: choose another with --state-dir or --port"
            )
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(fresh))
            fresh.chmod(0o666 if shared else 0o600)
            sock.listen(CONTROL_CLIENTS_MAX)
            fresh.rename(path)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise ConfigError(f"control socket {path}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def _make_directory(path: Path, *, shared: bool) -> None:
    """In a place that others can write to, a directory made by somebody else is a trap."""
    path.mkdir(parents=True, exist_ok=True, mode=0o755 if shared else 0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"control socket: {path} must be a directory of yours that no other can write to"
        )
    if shared:
        from dhtos.node.callers import check_enterable

        check_enterable(path / "socket")


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
