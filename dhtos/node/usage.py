"""What commands have used on this machine: the last of them, in the state directory.

A line of JSON for each that has ended, in `usage.jsonl`; the file is cut back to the last
USAGE_ROWS_MAX when it has twice as many. Of a command only its first word is kept: the others may
be secret, and so is the token of its lease. A line that cannot be read is passed over.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from dhtos.core.limits import USAGE_ROWS_MAX
from dhtos.node.command import Command, Exit
from dhtos.node.state import write_atomically

FILE = "usage.jsonl"


class UsageRow(msgspec.Struct, frozen=True):
    """What one command has used; `ended_at` is in seconds since 1970, by the wall clock."""

    lease: str
    owner: str
    command: str
    ended_at: float
    returncode: int
    user_s: float
    system_s: float
    memory_bytes: int
    wall_s: float
    user: str = ""  # of the owner, by its certificate; nobody is known in open mode


class UsageLog:
    """The rows of one node, the oldest first; kept in memory alone where there is no folder."""

    def __init__(self, folder: Path | None, wall_clock: Callable[[], float]) -> None:
        self._path = None if folder is None else folder / FILE
        self._wall_clock = wall_clock
        self._rows: deque[UsageRow] = deque(maxlen=USAGE_ROWS_MAX)
        self._lines = 0
        self._writing = asyncio.Lock()
        self.failures = 0  # rows that could not be written down

    def read(self) -> None:
        """Take over what earlier runs have written. Blocks for the disk."""
        if self._path is None or not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines():
            self._lines += 1
            try:
                self._rows.append(msgspec.json.decode(line, type=UsageRow))
            except msgspec.DecodeError:
                continue  # cut off by a death of the machine

    def rows(self) -> tuple[UsageRow, ...]:
        """What is remembered, the oldest first."""
        return tuple(self._rows)

    async def add(self, command: Command, ended: Exit) -> None:
        """Remember one more, and write it down."""
        row = UsageRow(
            command.lease,
            command.owner,
            os.fsdecode(command.argv[0]).encode(errors="replace").decode(),
            self._wall_clock(),
            ended.returncode,
            ended.usage.user_s,
            ended.usage.system_s,
            ended.usage.memory_bytes,
            ended.usage.wall_s,
            command.user,
        )
        self._rows.append(row)
        if self._path is not None:
            async with self._writing:
                await asyncio.to_thread(self._write, self._path, row)

    def _write(self, path: Path, row: UsageRow) -> None:
        """A disk that is full costs rows, not commands."""
        try:
            if self._lines >= 2 * USAGE_ROWS_MAX:
                text = b"".join(msgspec.json.encode(one) + b"\n" for one in tuple(self._rows))
                write_atomically(path, text)
                self._lines = len(self._rows)
                return
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(row) + b"\n")
            self._lines += 1
        except OSError:
            self.failures += 1
