"""Machines out of a CSV file: which column is which attribute, and which rows cannot be used.

A header names the columns; a column is an attribute of the schema by its own name or by an alias
that real inventories use. A column of text cannot be a number attribute, however it is called.
What is not mapped is reported once and left out; a broken row is reported with its line number
and the others are used.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

from dhtos.core.schema import Attribute, Schema, Value
from dhtos.errors import ConfigError, UsageError
from dhtos.node.values import read_value

ROWS_MAX = 200_000
SAMPLE_ROWS = 200
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Machine:
    """One row: its line in the file and what it says."""

    line: int
    attributes: Mapping[str, Value]
    name: str = ""  # what the file calls it, if it has a column for that


@dataclass(slots=True)
class Catalogue:
    """The machines of one file and what became of its columns."""

    source: str
    columns: dict[str, str] = field(default_factory=dict)  # column -> attribute
    unmapped: list[tuple[str, str]] = field(default_factory=list)  # column, why
    broken: list[tuple[int, str]] = field(default_factory=list)  # line, why
    machines: list[Machine] = field(default_factory=list)


ALIASES: Mapping[str, tuple[str, Fraction]] = {
    name: (attribute, Fraction(factor))
    for attribute, factor, names in (
        ("cores", 1, "vcpu vcpus cpu cpus ncpu nproc nb_cores num_cores core_count cpu_count"),
        ("cores", Fraction(1, 1000), "cpu_milli"),
        ("mem", 1, "ram_bytes mem_bytes memory_bytes ram memory"),
        ("mem", _MIB, "memory_mb memory_mib mem_mb mem_mib ram_mb ram_mib"),
        ("mem", 2**30, "memory_gb memory_gib mem_gb mem_gib ram_gb ram_gib"),
        ("gpus", 1, "gpu gpu_count nb_gpus num_gpus"),
        ("gpu_mem", 1, "gpu_mem_bytes"),
        ("disk", 1, "disk_bytes storage_bytes"),
        ("disk", 2**30, "disk_gb disk_gib storage_gb storage_gib"),
        ("clock", 1, "clock_hz"),
        ("clock", 10**6, "clock_mhz cpu_mhz"),
        ("clock", 10**9, "clock_ghz cpu_ghz"),
        ("price", 1, "price_per_hour hourly_price price_hour"),
        ("type", 1, "instance_type machine_type"),
        ("family", 1, "cluster"),
        ("host", 1, "hostname node"),
        ("provider", 1, "vendor cloud"),
        ("region", 1, "location"),
        ("arch", 1, "architecture"),
        ("os", 1, "os_env operating_system"),
    )
    for name in names.split()
}
"""Column names of real inventories: the attribute they mean and the factor to its unit.

A "MB" of memory in the catalogues of cloud providers is a MiB.
"""

NAMES = ("name", "id")
"""Columns that say what a machine is called, the better one first."""

_WORDS = {
    "arch": {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64", "armv7l": "armv7"},
}


@dataclass(frozen=True, slots=True)
class _Reader:
    """How one column becomes one attribute."""

    column: str
    attribute: Attribute
    factor: Fraction

    def read(self, text: str) -> Value:
        """The value of one cell; raises UsageError."""
        attribute = self.attribute
        text = _WORDS.get(attribute.name, {}).get(text.casefold(), text)
        if self.factor == 1:
            return read_value(attribute, text)
        try:
            scaled = Fraction(text) * self.factor
        except (ValueError, ZeroDivisionError):
            raise UsageError(f"{self.column} is a number, got {text[:40]!r}") from None
        return attribute.check(int(scaled) if scaled.denominator == 1 else float(scaled))


def load_catalogue(path: Path, schema: Schema) -> Catalogue:
    """The machines of any CSV file with a header; raises ConfigError if there are none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return read_catalogue(file, schema, source=path.name)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not a text file in UTF-8; give a CSV with a header"
        ) from error


def read_catalogue(
    lines: Iterable[str], schema: Schema, *, source: str, empty: bool = False
) -> Catalogue:
    """Read a header and rows; raises ConfigError when no column or no row can be used.

    With `empty` a header alone will do, and rows of which none can be used.
    """
    catalogue = Catalogue(source)
    reader = csv.reader(lines)
    try:
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in islice(reader, ROWS_MAX) if any(row)]
    except csv.Error as error:
        raise ConfigError(f"{source} line {reader.line_num}: {error}; give a CSV file") from error
    if not header or not (rows or empty):
        raise ConfigError(f"{source} has no rows; give a CSV with a header and a row per machine")
    readers = _map_columns(header, rows, schema, catalogue)
    if not any(readers):
        names = ", ".join(a.name for a in schema.static)
        raise ConfigError(
            f"{source}: no column names an attribute (it has {', '.join(header)[:200]}); "
            f"use some of {names}"
        )
    name_index = _name_index(header)
    for line, row in rows:
        _read_row(catalogue, readers, line, row, name_index)
    if not catalogue.machines and not empty:
        line, why = catalogue.broken[0]
        raise ConfigError(f"{source}: no row can be used; line {line}: {why}")
    return catalogue


def _map_columns(
    header: list[str], rows: list[tuple[int, list[str]]], schema: Schema, catalogue: Catalogue
) -> list[_Reader | None]:
    readers: list[_Reader | None] = []
    exact = {name.casefold() for name in header}
    for index, column in enumerate(header):
        reader = _reader_of(column, exact, schema)
        readers.append(None)
        if reader is None:
            catalogue.unmapped.append((column, "no such attribute"))
        elif reader.attribute.name in catalogue.columns.values():
            catalogue.unmapped.append((column, f"{reader.attribute.name} has a column already"))
        elif not _fits(reader, index, rows):
            catalogue.unmapped.append((column, f"not the values of {reader.attribute.name}"))
        else:
            readers[-1] = reader
            catalogue.columns[column] = reader.attribute.name
    return readers


def _reader_of(column: str, columns: set[str], schema: Schema) -> _Reader | None:
    name = column.casefold().replace(" ", "_").replace("-", "_")
    factor = Fraction(1)
    if name not in schema:
        name, factor = ALIASES.get(name, ("", factor))
        if name not in schema or name in columns:  # a column of the attribute's own name wins
            return None
    attribute = schema.attribute(name)
    return _Reader(column, attribute, factor)


def _name_index(header: list[str]) -> int | None:
    """The index of the column that names the machines, if there is one."""
    folded = [column.casefold() for column in header]
    return next((folded.index(name) for name in NAMES if name in folded), None)


def _fits(reader: _Reader, index: int, rows: list[tuple[int, list[str]]]) -> bool:
    """Whether the first rows show values of the attribute's kind.

    A column of the attribute's own name needs one good cell: the others are errors of their rows.
    One that is taken for the attribute by another name needs more good cells than bad ones.
    """
    cells = [row[index].strip() for _, row in rows[:SAMPLE_ROWS] if index < len(row)]
    tried = [_attempt(reader.read, cell) for cell in cells if cell]
    if reader.column.casefold() == reader.attribute.name:
        return any(tried) or not tried
    return 2 * sum(tried) > len(tried) or not rows


def _attempt(read: Callable[[str], Value], cell: str) -> bool:
    try:
        read(cell)
    except UsageError:
        return False
    return True


def _read_row(
    catalogue: Catalogue,
    readers: list[_Reader | None],
    line: int,
    row: list[str],
    name_index: int | None,
) -> None:
    if len(row) != len(readers):
        catalogue.broken.append((line, f"{len(row)} cells, the header has {len(readers)}"))
        return
    attributes: dict[str, Value] = {}
    for reader, cell in zip(readers, row, strict=True):
        if reader is not None and cell.strip():
            try:
                attributes[reader.attribute.name] = reader.read(cell.strip())
            except UsageError as error:
                catalogue.broken.append((line, f"column {reader.column!r}: {error}"))
                return
    name = "" if name_index is None else row[name_index].strip()
    catalogue.machines.append(Machine(line, attributes, name))
