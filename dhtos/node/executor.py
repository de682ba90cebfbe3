"""The built-in executor: commands as processes of this machine, each below a supervisor.

The supervisor is a process of its own, so that a command ends also when this one is killed; see
`dhtos.node.supervisor` for what it does and how the two talk. Pipes for the three streams are
opened here and inherited by the command through it: nothing is copied twice.
"""

import asyncio
import errno
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from dhtos.core.limits import COMMAND_CHUNK_BYTES, COMMAND_ORPHAN_GRACE_S
from dhtos.errors import CannotStart
from dhtos.node import supervisor
from dhtos.node.cgroup import Cgroups
from dhtos.node.command import Command, Exit, Running, Usage

T = TypeVar("T")

_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
_ROUNDS = 100  # of killing those who may be forking meanwhile
_PATH = "/usr/local/bin:/usr/bin:/bin"


class SubprocessExecutor:
    """Runs commands as processes; one object for all of a node."""

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._cgroups = cgroups or Cgroups()
        self._cpus = Cpus()

    async def start(self, command: Command) -> Running:
        """Begin; raises CannotStart. When cancelled nothing is left running."""
        cpus = self._cpus.take(command.resources.get("cores"))
        name = os.fsdecode(command.argv[0])
        process = None
        try:
            order = await asyncio.to_thread(self._order, command, cpus)
            process = _Process(await _whole(asyncio.to_thread(_spawn), _forsake))
            await _whole(process.connect())
            await process.begin(order, name=name)
        except BaseException as error:
            self._cpus.give_back(cpus)
            if process is not None:
                await asyncio.shield(process.abandon())
            if isinstance(error, OSError):  # of files or processes there are no more
                raise CannotStart(f"{name!r} cannot be started: {error.strerror}") from error
            raise
        process.when_over(lambda: self._cpus.give_back(cpus))
        return process

    def _order(self, command: Command, cpus: list[int]) -> dict[str, Any]:
        """What the supervisor is told. Blocks for the disk."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        env = {
            **{os.fsencode(name): os.fsencode(text) for name, text in inherited.items()},
            **command.env,
            b"DHTOS_LEASE": command.lease.encode(),
            b"DHTOS_TOKEN": command.token.encode(),
            b"DHTOS_FENCE": str(command.fence).encode(),
        }
        env.setdefault(b"PATH", _PATH.encode())
        memory = command.resources.get("mem")
        folder = Path(tempfile.gettempdir()) / f"dhtos-{command.token[:8]}-{os.urandom(4).hex()}"
        return {
            "argv": [word.decode("latin-1") for word in command.argv],
            "env": {name.decode("latin-1"): text.decode("latin-1") for name, text in env.items()},
            "folder": str(folder),
            "memory": None if memory is None else int(memory),
            "cores": command.resources.get("cores"),
            "cpus": cpus,
            "cgroups": [
                (controller, version, str(parent))
                for controller in ("memory", "cpu")
                for version, parent in self._cgroups.parents(controller)
            ],
            "orphan_grace_s": COMMAND_ORPHAN_GRACE_S,
        }


class Cpus:
    """Which CPUs commands are on, where no control group shares them out: the emptiest first."""

    def __init__(self) -> None:
        self._used: Counter[int] = Counter()

    def take(self, cores: float | None) -> list[int]:
        """As many whole CPUs as `cores` touches; none where nothing was claimed of them."""
        if cores is None:
            return []
        able = sorted(os.sched_getaffinity(0), key=lambda cpu: (self._used[cpu], cpu))
        taken = able[: max(1, math.ceil(cores))]
        self._used.update(taken)
        return taken

    def give_back(self, cpus: list[int]) -> None:
        """Others may have them."""
        self._used.subtract(cpus)


_Spawned = tuple["subprocess.Popen[bytes]", socket.socket]


def _spawn() -> _Spawned:
    """A supervisor and the line to it. Blocks until it is there."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C for the node is not for its commands
                bufsize=0,
            ), ours
        except BaseException:
            ours.close()
            raise


def _forsake(spawned: _Spawned) -> None:
    """A supervisor that nobody wants any more ends when its line closes. Blocks until it has."""
    popen, line = spawned
    line.close()
    for pipe in (popen.stdin, popen.stdout, popen.stderr):
        _pipe(pipe).close()
    popen.wait()


async def _whole(work: Awaitable[T], undo: Callable[[T], None] | None = None) -> T:
    """Do it to its end also when cancelled: half of it would leave files open; then undo it."""
    doing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        done = await doing
        if undo is not None:
            await asyncio.to_thread(undo, done)
        raise


class _Process:
    """One command below its supervisor; a `Running`."""

    stdin: "_Pipe"
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader

    def __init__(self, spawned: _Spawned) -> None:
        self._popen, self._socket = spawned
        self._heard: asyncio.StreamReader
        self._line: asyncio.StreamWriter
        self._pid = 0
        self._order: dict[str, Any] = {}
        self._reporting: asyncio.Task[Exit] | None = None
        self._readers: list[asyncio.BaseTransport] = []

    async def connect(self) -> None:
        """Take over its line and its streams."""
        loop = asyncio.get_running_loop()
        self._heard, self._line = await asyncio.open_unix_connection(sock=self._socket)
        _, self.stdin = await loop.connect_write_pipe(_Pipe, _pipe(self._popen.stdin))
        self.stdout = await self._reader(self._popen.stdout)
        self.stderr = await self._reader(self._popen.stderr)

    async def begin(self, order: dict[str, Any], *, name: str) -> None:
        """Give the order and wait until it runs; raises CannotStart."""
        self._order = order
        self._say(order)
        began = await _message(self._heard)
        if "pid" not in began:
            number = int(began.get("errno") or 0)
            missing = number == errno.ENOENT
            raise CannotStart(
                f"{name!r} cannot be started: {began.get('text', 'its supervisor died')}",
                code=127 if missing else 126,
            )
        self._pid = int(began["pid"])
        self._reporting = asyncio.create_task(self._report())

    async def _reader(self, pipe: IO[bytes] | None) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit=COMMAND_CHUNK_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), _pipe(pipe)
        )
        self._readers.append(transport)
        return reader

    def send_signal(self, number: int) -> None:
        """Send it and what it started a signal; nothing where it has ended."""
        self._say({"signal": number})

    def end(self, grace_s: float) -> None:
        """SIGTERM now, SIGKILL in so many seconds; a later call can only shorten that."""
        self._say({"end": grace_s})

    async def wait(self) -> Exit:
        """How it ended, when nobody of it is left."""
        assert self._reporting is not None, "it has begun"
        return await asyncio.shield(self._reporting)

    def when_over(self, then: Callable[[], None]) -> None:
        """Do this when nobody of it is left."""
        assert self._reporting is not None, "it has begun"
        self._reporting.add_done_callback(lambda _: then())

    def close(self) -> None:
        """Let go of its streams; what was not read is lost."""
        for transport in self._readers:
            transport.close()
        self.stdin.close()

    async def abandon(self) -> None:
        """Close everything of a command that was not begun; its supervisor ends by that."""
        self._line.close()
        self.close()
        await asyncio.to_thread(self._popen.wait)

    def _say(self, message: dict[str, Any]) -> None:
        if not self._line.is_closing():
            self._line.write(json.dumps(message).encode() + b"\n")

    async def _report(self) -> Exit:
        """The last word of the supervisor; where it was killed, what follows from that."""
        begun = time.monotonic()
        told = await _message(self._heard)
        self._line.close()
        self.stdin.close()
        await asyncio.to_thread(self._popen.wait)
        if "returncode" not in told:
            with suppress(OSError):  # the kernel killed the command; whom it started may be left
                os.killpg(self._pid, signal.SIGKILL)
            await asyncio.to_thread(_clear_up, self._order)
            return Exit(-signal.SIGKILL, Usage(0.0, 0.0, 0, time.monotonic() - begun))
        usage = Usage(told["user_s"], told["system_s"], told["memory"], told["wall_s"])
        return Exit(told["returncode"], usage)


def _clear_up(order: dict[str, Any]) -> None:
    """What a killed supervisor has left undone. Blocks for the system.

    Who left the process group is known by the token it has inherited.
    """
    mark = b"DHTOS_TOKEN=" + order["env"]["DHTOS_TOKEN"].encode()
    for _ in range(_ROUNDS):
        left = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _has(folder, mark)]
        if not left:
            break
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(order["folder"], ignore_errors=True)


def _has(folder: Path, mark: bytes) -> bool:
    try:
        return mark in (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False  # it has ended, or is somebody else's


class _Pipe(asyncio.Protocol):
    """The writing end of a pipe; a `Sink`."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=0)  # what is not read stays with the sender

    def pause_writing(self) -> None:
        """Nobody reads at the moment."""
        self._room.clear()

    def resume_writing(self) -> None:
        """All was read."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody will read any more."""
        self._transport = None
        self._room.set()

    async def write(self, data: bytes) -> None:
        """Hand over, and wait while it is not read; what nobody reads any more is dropped."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            await self._room.wait()

    def close(self) -> None:
        """No more will come; may be called again."""
        if self._transport is not None:
            self._transport.close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "all three were asked for"
    return pipe


async def _message(heard: asyncio.StreamReader) -> dict[str, Any]:
    """The next line of a supervisor; nothing where it has died."""
    try:
        line = await heard.readline()
    except OSError:
        return {}
    message: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    return message
