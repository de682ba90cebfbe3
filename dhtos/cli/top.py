"""The fleet at a glance: a row for each machine, and how the picture is kept up to date.

What a row says is text, the same on a terminal, in a pipe and in a test. The live view draws it
with rich, asks again each interval, and leaves at `q` or Ctrl-C with the terminal as it was.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from dhtos.cli.asking import Plain
from dhtos.cli.screen import Column, Screen
from dhtos.cli.wording import age_text, coverage_text, plural, value_text
from dhtos.core.schema import Schema, Value, is_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

BAR_CELLS = 10
BUSY, FULL = 0.7, 0.9  # of what there is: yellow from the one, red from the other
FRAME_LINES = 6  # of a screen: the heading, the head of the table, the last lines
ID_SHOWN = 12
KEYS_MAX = 1024  # bytes read from the keyboard at a time

ORDERS: Mapping[str, tuple[str, bool]] = {
    "load": ("load1", True),
    "cpu": ("cpu_free", False),
    "mem": ("mem_free", False),
    "gpus": ("gpus_free", True),
}
"""By what the machines are sorted: the attribute, and whether the largest come first."""

COLUMNS = (
    Column("machine"),
    Column("endpoint"),
    Column("cores", right=True),
    Column("load", right=True),
    Column("in 15s", right=True),
    Column("cpu"),
    Column("memory"),
    Column("gpus idle", right=True),
    Column("age", right=True),
)

Pause = Callable[[], Awaitable[bool]]
"""Waits until the next look; True when somebody wants to leave."""


@dataclass(frozen=True, slots=True)
class View:
    """One look at the fleet: who matched, and how sure that is."""

    machines: Sequence[Plain]
    end: Plain


def heading(view: View, schema: Schema) -> str:
    """The machines that are shown, added up."""
    told = [machine["attributes"] for machine in view.machines]
    parts = [plural(len(told), "machine")]
    if cores := _total(told, "cores"):
        parts.append(f"{cores:g} cores")
        parts.append(f"load {_total(told, 'load1'):.1f}")
    both = [a for a in told if _number(a, "mem") is not None and _number(a, "mem_free") is not None]
    if both and {"mem", "mem_free"} <= {a.name for a in schema.attributes}:
        used = value_text(
            schema.attribute("mem"), int(_total(both, "mem") - _total(both, "mem_free"))
        )
        whole = value_text(schema.attribute("mem"), int(_total(both, "mem")))
        parts.append(f"{used} of {whole} memory in use")
    if gpus := _total(told, "gpus"):
        parts.append(f"{_total(told, 'gpus_free'):g} of {gpus:g} gpus idle")
    return f"{', '.join(parts)}; {coverage_text(view.end['coverage'])}"


def row(machine: Plain, schema: Schema) -> list[str]:
    """One machine, in the order of COLUMNS."""
    told = machine["attributes"]
    mem, mem_free = _number(told, "mem"), _number(told, "mem_free")
    cpu_free = _number(told, "cpu_free")
    gpus = _number(told, "gpus")
    used = None if mem is None or mem_free is None or mem <= 0 else 1 - mem_free / mem
    return [
        machine["labels"].get("name") or machine["id"][:ID_SHOWN],
        f"via {machine['endpoint']}" if machine["gateway"] else machine["endpoint"],
        _figure(_number(told, "cores"), "g"),
        _figure(_number(told, "load1"), ".1f"),
        _figure(_number(told, "load_15s"), ".1f"),
        gauge(None if cpu_free is None else 1 - cpu_free / 100),
        gauge(used) if mem is None else f"{gauge(used)} {_size(schema, int(mem))}",
        "-" if not gpus else f"{_figure(_number(told, 'gpus_free'), 'g')}/{gpus:g}",
        age_text(machine["age_s"]),
    ]


def gauge(share: float | None) -> str:
    """How much is in use, as a bar and in per cent.

    >>> gauge(0.5), gauge(None)
    ('#####.....  50%', '-')
    """
    if share is None:
        return "-"
    share = min(max(share, 0.0), 1.0)
    full = round(share * BAR_CELLS)
    return f"{'#' * full}{'.' * (BAR_CELLS - full)} {share:4.0%}"


def rows_that_fit() -> int:
    """How many machines the terminal has room for."""
    return max(get_terminal_size().lines - FRAME_LINES, 1)


def _number(told: Mapping[str, Value], name: str) -> float | None:
    value = told.get(name)
    return value if is_number(value) else None


def _total(machines: Sequence[Mapping[str, Value]], name: str) -> float:
    return sum(_number(told, name) or 0.0 for told in machines)


def _size(schema: Schema, count: int) -> str:
    return value_text(schema.attribute("mem"), count) if "mem" in schema else str(count)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


# --- on a terminal --------------------------------------------------------------------------------


async def watch(
    screen: Screen, schema: Schema, ask: Callable[[], Awaitable[View]], pause: Pause
) -> None:
    """Draw what `ask` sees, again after each `pause`, until that wants to leave."""
    from rich.console import Console
    from rich.live import Live

    console = Console(file=screen.out, highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(drawing(await ask(), schema), refresh=True)
            if await pause():
                return


def drawing(view: View, schema: Schema) -> "RenderableType":
    """The heading and the table, in colours."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        table.add_column(column.name, justify="right" if column.right else "left", no_wrap=True)
    for machine in view.machines:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row(machine, schema)))
    return Group(Text(heading(view, schema), style="bold"), table, Text("q leaves", style="dim"))


def _style(cell: str) -> str:
    """Bars are green, yellow or red by how full they are."""
    if not cell.startswith(("#", "..")):
        return ""
    share = cell.count("#") / BAR_CELLS
    return "red" if share >= FULL else "yellow" if share >= BUSY else "green"


@contextmanager
def keys(interval_s: float) -> "Iterator[Pause]":
    """Pauses of an interval that end early, and for good, when somebody presses `q`.

    The terminal hands over each key at once meanwhile. Where stdin is no terminal there are no
    keys.
    """
    leaving = asyncio.Event()

    async def pause() -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(interval_s):
                await leaving.wait()
        return leaving.is_set()

    if not sys.stdin.isatty():
        yield pause
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)

    def on_key() -> None:
        typed = os.read(descriptor, KEYS_MAX)
        if not typed or b"q" in typed.lower():  # nothing: the terminal is gone
            leaving.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, on_key)
    try:
        yield pause
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def plain(view: View) -> dict[str, Any]:
    """A look in plain values, for programs."""
    return {"machines": list(view.machines), **view.end}
