"""The file of a gateway: a CSV of machines that run no node, read again when it changes.

Each row becomes a `Row` under a name that stays: what its column `name` (or `id`) says, else a
digest of its content. A row that cannot be advertised is listed with its line, column, what was
expected and what came; the others are advertised. A file that can no longer be read changes
nothing: what it said last is told on.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dhtos.core.limits import GATEWAY_ROWS_MAX, ROW_BYTES_MAX
from dhtos.core.record import SEQ_MAX, Record, is_row
from dhtos.core.schema import Schema
from dhtos.errors import ConfigError, DhtosError
from dhtos.node.catalogue import Catalogue, Machine, read_catalogue
from dhtos.protocol.rows import Row

POLL_S = 5.0  # between two looks at the file's time
WARNINGS_MAX = 100  # broken rows that are listed one by one


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file said: the rows to advertise, and what is wrong with others, by line."""

    rows: tuple[Row, ...] = ()
    broken: tuple[tuple[int, str], ...] = ()
    unmapped: tuple[tuple[str, str], ...] = ()


class GatewayFile:
    """One file of machines; every method that touches the disk blocks."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self.own: Record | None = None  # in whose name the rows are advertised
        self.reading = Reading()
        self.error = ""  # why the file could not be read again
        self._schema = schema
        self._stamp: tuple[int, int] | None = None

    def has_changed(self) -> bool:
        """Whether the file is another one than was read last."""
        return self._look() != self._stamp

    def _look(self) -> tuple[int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size

    def check(self) -> None:
        """Raise ConfigError where the file as a whole is of no use."""
        open_catalogue(self.path, self._schema)

    def read(self) -> Reading:
        """Read it; raises ConfigError as `check` does."""
        assert self.own is not None
        self._stamp = self._look()  # before reading: what is written meanwhile is seen again
        try:
            catalogue = open_catalogue(self.path, self._schema)
        except ConfigError as error:
            self.error = str(error)
            raise
        self.error = ""
        self.reading = read_rows(catalogue, self._schema, self.own)
        return self.reading

    def read_again(self) -> None:
        """Read it; a file of no use leaves what was read before, and `error` says why."""
        try:
            self.read()
        except ConfigError as error:
            self.error = f"{error}; what it said before is told on"

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the file, a line each."""
        name, reading = self.path.name, self.reading
        lines = [self.error] if self.error else []
        lines += [f"{name} column {column!r} is left out: {why}" for column, why in _odd(reading)]
        lines += [f"{name} line {n} is left out: {why}" for n, why in reading.broken[:WARNINGS_MAX]]
        more = len(reading.broken) - WARNINGS_MAX
        return [*lines, f"{name}: {more} more lines are left out"] if more > 0 else lines

    async def keep(
        self, changed: Callable[[tuple[Row, ...]], None], say: Callable[[str], None]
    ) -> None:
        """Look at the file for ever; tell of new rows, and say what is wrong with them."""
        while True:
            await asyncio.sleep(POLL_S)
            if await asyncio.to_thread(self.has_changed):
                await asyncio.to_thread(self.read_again)
                for line in self.warnings:
                    say(line)
                if not self.error:
                    changed(self.reading.rows)

    def to_plain(self) -> Mapping[str, Any]:
        """What a person wants to know about it, in plain values."""
        reading = self.reading
        return {"file": str(self.path), "rows": len(reading.rows), "broken": len(reading.broken)}


def _odd(reading: Reading) -> list[tuple[str, str]]:
    return [(column, why) for column, why in reading.unmapped if why != "no such attribute"]


def open_catalogue(path: Path, schema: Schema) -> Catalogue:
    """Read a gateway's file; raises ConfigError where it is of no use."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return read_catalogue(file, schema, source=str(path), empty=True)
    except UnicodeDecodeError as error:
        raise ConfigError(f"gateway {path} is not a text file in UTF-8; give a CSV") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"gateway {path} cannot be read: {reason}; give a CSV file") from error


def read_rows(catalogue: Catalogue, schema: Schema, own: Record) -> Reading:
    """Name the machines, and set aside those that cannot be a record of the gateway `own`."""
    rows: list[Row] = []
    broken = list(catalogue.broken)
    lines: dict[str, int] = {}
    alike: Counter[str] = Counter()
    for machine in catalogue.machines:
        try:
            row = _row(machine, alike)
            if row.name in lines:
                line = lines[row.name]
                raise ConfigError(f"column 'name': {row.name!r} is the name of line {line} already")
            if len(rows) >= GATEWAY_ROWS_MAX:
                raise ConfigError(f"a gateway advertises at most {GATEWAY_ROWS_MAX} machines")
            row.record(schema, own, SEQ_MAX)
        except DhtosError as error:
            broken.append((machine.line, str(error)))
            continue
        lines[row.name] = machine.line
        rows.append(row)
    return Reading(tuple(rows), tuple(sorted(broken)), tuple(catalogue.unmapped))


def _row(machine: Machine, alike: Counter[str]) -> Row:
    """The row of a machine; those without a name, and alike, are numbered."""
    if machine.name:
        if not is_row(machine.name):
            raise ConfigError(
                f"column 'name': a name has at most {ROW_BYTES_MAX} printable bytes, "
                f"got {machine.name[:80]!r}"
            )
        return Row(machine.name, machine.attributes, {"name": machine.name})
    text = repr(sorted(machine.attributes.items())).encode()
    content = blake2b(text, digest_size=8).hexdigest()
    alike[content] += 1
    return Row(f"#{content}.{alike[content]}", machine.attributes)
