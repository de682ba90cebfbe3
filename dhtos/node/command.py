"""What it means to run a command under a lease: the words of both ends, and of an executor.

An `Executor` begins what a `Command` says and gives back what `Running` is. The node feeds and
reads its streams, forwards signals, and ends it with its lease; `dhtos.node.executor` is the
built-in one.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dhtos.core.limits import COMMAND_ARGUMENTS_MAX, COMMAND_BYTES_MAX, COMMAND_VARIABLES_MAX
from dhtos.errors import UsageError
from dhtos.query import F

LABEL, COMMANDS = "runs", "commands"
RUNS_COMMANDS = F.label(LABEL) == COMMANDS
"""The machines that run commands: `Need(cores=2, where=RUNS_COMMANDS)`."""

Word = str | bytes | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is to run, and under which lease; `lease` names it for people, `token` is secret.

    `owner` is who claimed it: `host:port`, and `user` the name in its certificate, "" in open mode.
    """

    argv: tuple[bytes, ...]
    env: Mapping[bytes, bytes]
    stdin: bool
    resources: Mapping[str, float]
    lease: str
    token: str
    fence: int
    owner: str
    user: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command used, with all that it started: CPU seconds, bytes, seconds.

    `memory_bytes` is the most at a time of all its processes where the node can make control
    groups, else of the largest one.
    """

    user_s: float
    system_s: float
    memory_bytes: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended: its exit code, or the negative number of the signal that killed it."""

    returncode: int
    usage: Usage


class Sink(Protocol):
    """Where standard input goes."""

    async def write(self, data: bytes) -> None:
        """Hand over, and wait while it is not read; what nobody reads any more is dropped."""

    def close(self) -> None:
        """No more will come; may be called again."""


class Running(Protocol):
    """A command that has begun; its streams end when nobody of it is left."""

    @property
    def stdin(self) -> Sink:
        """Where its input goes."""
        ...

    @property
    def stdout(self) -> asyncio.StreamReader:
        """What it writes."""
        ...

    @property
    def stderr(self) -> asyncio.StreamReader:
        """What it complains of."""
        ...

    def send_signal(self, number: int) -> None:
        """Send it and what it started a signal; nothing where it has ended."""

    def end(self, grace_s: float) -> None:
        """SIGTERM now, SIGKILL in so many seconds; a later call can only shorten that."""

    async def wait(self) -> Exit:
        """How it ended, when nobody of it is left."""
        ...

    def close(self) -> None:
        """Let go of its streams; what was not read is lost."""


class Executor(Protocol):
    """Runs commands for a node: `Node(config, executor=...)`."""

    async def start(self, command: Command) -> Running:
        """Begin; raises CannotStart. When cancelled nothing is left running."""
        ...


def words(argv: Sequence[Word]) -> tuple[bytes, ...]:
    """Arguments as the system takes them; raises UsageError for what cannot be some."""
    if not argv:
        raise UsageError("a command has at least one word: say what to run")
    if len(argv) > COMMAND_ARGUMENTS_MAX:
        raise UsageError(f"a command has at most {COMMAND_ARGUMENTS_MAX} words, got {len(argv)}")
    found = tuple(_bytes(word, "a word of a command") for word in argv)
    if not found[0]:
        raise UsageError("the first word of a command is a program, got an empty one")
    return found


def variables(env: Mapping[str, str] | Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """An environment as the system takes it; raises UsageError for what cannot be one."""
    if len(env) > COMMAND_VARIABLES_MAX:
        raise UsageError(f"at most {COMMAND_VARIABLES_MAX} variables can be set, got {len(env)}")
    found = {_bytes(name, "a variable"): _bytes(value, "a value") for name, value in env.items()}
    for name in found:
        if not name or b"=" in name:
            raise UsageError(f"a variable has a name without '=', got {os.fsdecode(name)!r}")
    return found


def check_size(argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> None:
    """Raise UsageError for more than one command may carry."""
    size = sum(len(word) + 1 for word in argv)
    size += sum(len(name) + len(value) + 2 for name, value in env.items())
    if size > COMMAND_BYTES_MAX:
        raise UsageError(
            f"a command and its variables have at most {COMMAND_BYTES_MAX} bytes, got {size}: "
            "give it the rest on standard input"
        )


def _bytes(word: object, what: str) -> bytes:
    if not isinstance(word, str | bytes | os.PathLike):
        raise UsageError(f"{what} is a text, bytes or a path, got {word!r}")
    raw = os.fsencode(word)
    if b"\0" in raw:
        raise UsageError(f"{what} has no NUL, got {word!r}")
    return raw
