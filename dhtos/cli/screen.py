"""Where a command writes: tables for people, JSON for programs.

On a terminal tables and progress are drawn with rich, which is imported only then; everywhere
else a table is aligned text that cuts into fields at two spaces. With `--json` nothing but JSON
reaches stdout: one document, or one line for each hit.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

PARAGRAPH_COLUMNS = 96
_STYLES: Mapping[str, str] = {"yes": "green", "NO": "bold red"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, where its text stands, and what it says."""

    name: str
    right: bool = False
    doc: str = ""


class Screen:
    """The output of one command."""

    def __init__(
        self, *, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.as_json = as_json
        self.out = out or sys.stdout
        self.err = err or sys.stderr

    @property
    def fancy(self) -> bool:
        """Whether tables and progress may be drawn."""
        return not self.as_json and self.out.isatty()

    def document(self, value: object) -> None:
        """One JSON document; indented where a person looks at it."""
        indent = 2 if self.out.isatty() else None
        self._write(json.dumps(value, indent=indent, ensure_ascii=False, default=str))

    def line(self, value: object) -> None:
        """One line of JSON, visible at once."""
        self._write(json.dumps(value, ensure_ascii=False, default=str))

    def say(self, text: str = "") -> None:
        """A sentence for people; programs do not get it."""
        if not self.as_json:
            self._write(text)

    def paragraph(self, text: str) -> None:
        """Sentences for people, wrapped to the screen."""
        columns = get_terminal_size((PARAGRAPH_COLUMNS, 24)).columns
        self.say(fill(text, max(20, min(columns, PARAGRAPH_COLUMNS))))

    def warn(self, text: str) -> None:
        """A sentence beside the output, for people and logs."""
        self.err.write(text + "\n")
        self.err.flush()

    def table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[str]], title: str = ""
    ) -> None:
        """A table of texts; programs do not get it."""
        if self.as_json:
            return
        listed = [list(row) for row in rows]
        if self.fancy:
            self._draw(columns, listed, title)
            return
        if title:
            self._write(title)
        self._write(plain_table(columns, listed))

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show how many of `total` are done: a bar on a terminal, a line at the end elsewhere."""
        if not self.fancy:
            best = [0]
            yield lambda done: best.append(max(done, best.pop()))
            self.say(f"{label}: {best[0]} of {total}")
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        bar = Progress(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(file=self.out),
        )
        with bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.update(task, completed=done)

    def _draw(self, columns: Sequence[Column], rows: list[list[str]], title: str) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        console = Console(file=self.out, highlight=False)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column in columns:
            table.add_column(
                column.name,
                justify="right" if column.right else "left",
                no_wrap=column.name != columns[0].name,
            )
        for row in rows:
            table.add_row(*map(_cell, row))
        if title:
            console.print(title, style="bold", markup=False)
        console.print(table)

    def _write(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()


def _cell(text: str) -> "RenderableType":
    """A cell as rich draws it: a first line that stands out, the others indented below."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    first, *others = text.split("\n")
    head = Text(first, style=_STYLES.get(first.partition(":")[0], "bold" if others else ""))
    if not others:
        return head
    return Group(head, *(Padding(Text(line), (0, 0, 0, 2)) for line in others))


def plain_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Aligned text, two spaces between columns.

    >>> print(plain_table([Column("id"), Column("cores", right=True)], [["a1", "8"], ["b", "64"]]))
    id  cores
    a1      8
    b      64
    """
    table = [[column.name for column in columns], *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    lines = []
    for row in table:
        cells = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
