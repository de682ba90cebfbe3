"""`place ... -- COMMAND`: a command under a lease; its streams, signals and exit code are our own.

The lease is kept by whoever was asked, the daemon or a light client; the command is talked to from
here, straight to the machine that granted it. Standard input and output may be anything and may
block, so each is carried by a thread, which waits in the event loop for the other side.
"""

import asyncio
import os
import signal
import threading
from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar

import click

from dhtos.cli.asking import Asker, Plain
from dhtos.cli.screen import Screen
from dhtos.core.limits import COMMAND_CHUNK_BYTES
from dhtos.errors import LeaseLost, NoCandidates, Unreachable, UsageError
from dhtos.node import command_client
from dhtos.node.command import COMMANDS, LABEL
from dhtos.node.command_client import PIPE, Process

T = TypeVar("T")

RUNS_COMMANDS = f'label("{LABEL}") == "{COMMANDS}"'
_AFTER = "dhtos.command"  # where the words behind `--` are kept
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


class CommandAfterDashes(click.Command):
    """A command whose words behind `--` are another command, whatever stands before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put those words aside."""
        if "--" in args:
            at = args.index("--")
            args, after = args[:at], args[at + 1 :]
            if not after:
                raise click.UsageError("-- stands before a command: give one, or leave it out", ctx)
            ctx.meta[_AFTER] = after
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """What the help shows behind the name."""
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND [ARGUMENT]...]"]


def words_after_dashes() -> list[str]:
    """The words behind `--` of the command at work."""
    words: list[str] = click.get_current_context().meta.get(_AFTER, [])
    return words


def read_variables(texts: Sequence[str]) -> dict[str, str]:
    """What `--env NAME=VALUE` sets; raises UsageError."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--env must be NAME=VALUE, got {text!r}")
        found[name] = value
    return found


def where_commands_run(where: str) -> str:
    """The same question, to machines that run commands; columns of errors stay where they are.

    >>> where_commands_run("cores > 2")
    'cores > 2 and label("runs") == "commands"'
    """
    if not where.strip():
        return RUNS_COMMANDS
    either = "or" in where.split()
    return f"{f'({where})' if either else where} and {RUNS_COMMANDS}"


class Run:
    """One command of `place`, from the claim to its exit code."""

    def __init__(self, screen: Screen, words: Sequence[str], env: Mapping[str, str]) -> None:
        self._screen = screen
        self._words = words
        self._env = env
        self._process: Process | None = None
        self._stopped_by = 0
        self._unwritten: str | None = None
        self._lines = threading.Lock()  # of JSON, of two threads

    async def run(self, who: Asker, need: Plain, ttl_s: float) -> int:
        """Claim, run, release; the exit code. A signal before it runs ends the placement."""
        loop = asyncio.get_running_loop()
        work = asyncio.ensure_future(self._run(who, need, ttl_s))

        def forward(number: int) -> None:
            if self._process is not None:
                self._process.send_signal(number)
            else:
                self._stopped_by = number
                work.cancel()

        for name in _FORWARDED:
            number = getattr(signal, name)
            loop.add_signal_handler(number, forward, number)
        try:
            return await work
        except asyncio.CancelledError:
            if not self._stopped_by:
                raise
            return 128 + self._stopped_by

    async def _run(self, who: Asker, need: Plain, ttl_s: float) -> int:
        where = need.get("where", "")
        leased: asyncio.Future[Plain] = asyncio.get_running_loop().create_future()
        keeping = asyncio.ensure_future(
            who.place({**need, "where": where_commands_run(where)}, ttl_s, leased.set_result)
        )
        try:
            await asyncio.wait((keeping, leased), return_when=asyncio.FIRST_COMPLETED)
            if not leased.done():
                await keeping
            lease = leased.result()
            if self._screen.as_json:
                self._screen.line(lease)
            return await self._command(who, lease, keeping)
        except NoCandidates as error:
            raise await _nobody(who, error) from error
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _command(self, who: Asker, lease: Plain, keeping: "asyncio.Future[None]") -> int:
        identity = bytes.fromhex(lease.get("identity", ""))
        process = await command_client.start(
            lease["endpoint"],
            lease["token"],
            lease["fence"],
            self._words,
            env=self._env,
            stdin=PIPE,
            identity=identity,
            channels=who.channels if identity else None,
        )

        async def kept() -> None:
            try:
                await asyncio.shield(keeping)
            except Unreachable as error:
                raise LeaseLost(f"who kept the lease is gone: {error}") from error

        async with process:
            self._process = process
            process.lost_with(kept)
            outputs = self._carry(process)
            code = await process.wait()
            for output in outputs:
                await output
            if self._unwritten is not None:
                raise UsageError(f"output cannot be written: {self._unwritten}")
        used = process.usage
        if self._screen.as_json and used is not None:
            self._screen.line(
                {
                    "returncode": code,
                    "usage": {name: getattr(used, name) for name in used.__slots__},
                }
            )
        return code if code >= 0 else 128 - code

    def _carry(self, process: Process) -> "list[asyncio.Future[None]]":
        """Start the threads; what is returned is done when all output was written."""
        loop = asyncio.get_running_loop()
        _thread(loop, lambda: _read_input(process, loop))
        outputs = []
        for fd, name, reader in (
            (1, "stdout", process.stdout),
            (2, "stderr", process.stderr),
        ):
            assert reader is not None, "both were asked for"
            write = self._writer(fd, name)

            def carry(
                reader: asyncio.StreamReader = reader, write: Callable[[bytes], None] = write
            ) -> None:
                try:
                    _write_output(process, reader, write, loop)
                except OSError as error:
                    self._unwritten = error.strerror
                    loop.call_soon_threadsafe(process.send_signal, signal.SIGPIPE)
                    _write_output(process, reader, _forget, loop)

            outputs.append(_thread(loop, carry))
        return outputs

    def _writer(self, fd: int, name: str) -> Callable[[bytes], None]:
        if not self._screen.as_json:
            return lambda data: _write_all(fd, data)
        text = Text(name)

        def write(data: bytes) -> None:
            with self._lines:
                for item in text.items(data):
                    self._screen.line(item)

        return write


class Text:
    """A stream as JSON can say it: text where it is UTF-8, else base64."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decoder = getincrementaldecoder("utf-8")()

    def items(self, data: bytes) -> list[Plain]:
        """What these bytes are shown as; half a character waits for its other half."""
        before, _ = self._decoder.getstate()
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            self._decoder.reset()
            return [{f"{self._name}_base64": b64encode(before + data).decode()}]
        return [{self._name: text}] if text else []


async def _nobody(who: Asker, error: NoCandidates) -> NoCandidates:
    """Why nobody can take it: where no machine runs commands, that."""
    found = await who.count(RUNS_COMMANDS, strict=False, verify=1)
    if found["count"]:
        return error
    return NoCandidates(
        "no machine of the fleet runs commands: start one with dhtos-node run --commands",
        error.reasons,
        complete=error.complete,
    )


# --- threads --------------------------------------------------------------------------------------


def _thread(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> "asyncio.Future[None]":
    """Work that may block for ever, and does not keep the program from its end."""
    done: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def main() -> None:
        with suppress(CancelledError, RuntimeError):  # the loop is over, and so is our work
            work()
            loop.call_soon_threadsafe(finish)

    threading.Thread(target=main, daemon=True).start()
    return done


def _wait(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Wait in a thread for what is done in the loop."""
    try:
        return asyncio.run_coroutine_threadsafe(work, loop).result()
    except RuntimeError:
        work.close()
        raise


def _read_input(process: Process, loop: asyncio.AbstractEventLoop) -> None:
    stdin = process.stdin
    assert stdin is not None, "it was asked for"

    async def send(data: bytes) -> None:
        if data and not stdin.is_closing():
            stdin.write(data)
            await stdin.drain()
        else:
            stdin.close()

    data = b"-"
    while data:
        try:
            data = b"" if _in_background(0) else os.read(0, COMMAND_CHUNK_BYTES)
        except OSError:
            data = b""  # it was closed
        _wait(loop, send(data))


def _in_background(fd: int) -> bool:
    """Whether reading a terminal would stop us: it is for who is in front."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:
        return False


def _write_output(
    process: Process,
    reader: asyncio.StreamReader,
    write: Callable[[bytes], None],
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Write what comes; where nobody reads it, the command is told as in a pipeline."""
    data = b"-"
    while data:
        data = _wait(loop, reader.read(COMMAND_CHUNK_BYTES))
        try:
            write(data)
        except (BrokenPipeError, ValueError):
            loop.call_soon_threadsafe(process.send_signal, signal.SIGPIPE)
            write = _forget


def _forget(_data: bytes) -> None:
    """Nobody reads it any more."""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
