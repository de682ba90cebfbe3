"""The leases a node has granted, on its disk: `ledger.sqlite` in the state directory.

A lease is written before its owner hears of it, and struck out when it ends, so that a node which
is killed and started again knows what it still owes. Write-ahead logging without a sync at each
commit: what was written survives the death of the process, not that of the machine, whose leases
nothing can use after it either. The epoch is synced, since fences may guard what is elsewhere. One
write takes some ten microseconds, and is done on the event loop: the answer waits for it anyway.

The file is made by the first lease; a node that never grants one neither has it nor loads SQLite.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from dhtos.errors import ConfigError
from dhtos.protocol.ledger import Grant, NotWritten, State

if TYPE_CHECKING:
    import sqlite3

FILE = "ledger.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS start (epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS lease (
    token BLOB PRIMARY KEY, host TEXT NOT NULL, port INTEGER NOT NULL, resources BLOB NOT NULL,
    priority INTEGER NOT NULL, ttl_s REAL NOT NULL, fence INTEGER NOT NULL, state TEXT NOT NULL,
    user TEXT NOT NULL, subject BLOB NOT NULL, price REAL, began REAL NOT NULL
) WITHOUT ROWID;
"""
# Named, so that a file of another form is found at the start.
_LEASES = """
SELECT token, host, port, resources, priority, ttl_s, fence, state, user, subject, price, began
FROM lease ORDER BY fence
"""
_Row = tuple[bytes, str, int, bytes, int, float, int, State, str, bytes, float | None, float]
_Epochs = tuple[tuple[int]]
_FIRST = "INSERT INTO start SELECT ? WHERE NOT EXISTS (SELECT 1 FROM start)"
_WAIT_S = 0.1  # for others who look into the file, as a backup does: the event loop waits too


class LeaseJournal:
    """Keeps the bound leases of one state directory; the owner of its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epoch = 1
        self.leases: tuple[Grant, ...] = ()
        self._database: sqlite3.Connection | None = None

    @classmethod
    def open(cls, directory: Path, now: float) -> Self:
        """What an earlier run has left, each lease for one more term; blocks for the disk.

        Raises ConfigError for a file that cannot be read: who starts without it would grant again
        what others still hold.
        """
        journal = cls(directory / FILE)
        if journal.path.exists():
            try:
                journal._restore(now)
            except NotWritten as error:
                journal.close()
                raise ConfigError(
                    f"{journal.path} cannot be used ({error}): restore it from a backup, or move "
                    "it away once no lease of this machine is in use"
                ) from error
        return journal

    def bound(self, grant: Grant) -> None:
        """Keep a lease, in place of what was kept for its token; raises NotWritten."""
        host, port = grant.owner
        resources = msgspec.msgpack.encode(dict(grant.resources))
        row = (
            grant.token, host, port, resources, grant.priority, grant.ttl_s, grant.fence,
            grant.state.value, grant.user, grant.subject, grant.price, grant.began,
        )  # fmt: skip
        marks = ", ".join("?" * len(row))
        self._write(f"INSERT OR REPLACE INTO lease VALUES ({marks})", row)

    def ended(self, token: bytes) -> None:
        """Strike a lease out; raises NotWritten."""
        self._write("DELETE FROM lease WHERE token = ?", (token,))

    def close(self) -> None:
        """Leave the file as it is; may be called again."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _restore(self, now: float) -> None:
        try:
            ((last,),) = msgspec.convert(self._write("SELECT max(epoch) FROM start"), _Epochs)
            found = self._write(_LEASES)
            self.leases = tuple(_lease(row, now) for row in found)
        except msgspec.DecodeError as error:
            raise NotWritten(f"what it says is malformed: {error}") from error
        self.epoch = last + 1
        self._write("PRAGMA synchronous = FULL")
        self._write("INSERT INTO start VALUES (?)", (self.epoch,))
        self._write("PRAGMA synchronous = NORMAL")
        self._write("DELETE FROM start WHERE epoch < ?", (self.epoch,))

    def _write(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Execute; rows are fetched here, where a damaged page is found while they are read."""
        import sqlite3

        try:
            if self._database is None:
                self._database = self._connect()
            return self._database.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise NotWritten(str(error)) from error

    def _connect(self) -> "sqlite3.Connection":
        import sqlite3

        fresh = not self.path.exists()
        database = sqlite3.connect(
            self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
        )
        try:
            if fresh:
                self.path.chmod(0o600)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(_SCHEMA)
            # Not only in a fresh file: an earlier attempt may have failed between the two.
            database.execute(_FIRST, (self.epoch,))
            database.execute("PRAGMA synchronous = NORMAL")
        except (sqlite3.Error, OSError):
            database.close()
            raise
        return database


def _lease(row: tuple[Any, ...], now: float) -> Grant:
    token, host, port, packed, priority, ttl_s, fence, state, *whose = msgspec.convert(row, _Row)
    resources = msgspec.msgpack.decode(packed, type=dict[str, float])
    return Grant(token, resources, (host, port), priority, now + ttl_s, state, ttl_s, fence, *whose)
