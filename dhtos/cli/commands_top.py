"""The command `top`: the fleet, live on a terminal, once anywhere else."""

import math
from typing import Any

import click

from dhtos.cli.asking import Asker, Plain, Question, asker
from dhtos.cli.failure import NothingFound
from dhtos.cli.loop import run_loop
from dhtos.cli.screen import Screen
from dhtos.cli.settings import ask_config, ask_options
from dhtos.cli.top import COLUMNS, ORDERS, View, heading, keys, plain, row, rows_that_fit, watch
from dhtos.errors import UsageError

LIMIT = 50  # machines shown where no screen sets a bound


@click.command()
@click.argument("predicate", default="true")
@click.option(
    "--by",
    type=click.Choice(list(ORDERS)),
    default="load",
    show_default=True,
    help="Most load, least idle CPU, least free memory, or most idle GPUs first.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"Show so many machines.  [default: what fits on the screen, {LIMIT} elsewhere]",
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look once and leave.")
@ask_options
@click.option("--json", "as_json", is_flag=True, help="JSON, nothing else; one look.")
def top(
    *,
    predicate: str,
    by: str,
    limit: int | None,
    interval_s: float,
    once: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Watch the fleet: who is busy, who has memory, whose GPUs are idle.

    On a terminal the table is renewed until q or Ctrl-C; elsewhere, and with --once or --json,
    there is one look. PREDICATE narrows the machines, as in find.
    """
    if math.isnan(interval_s):
        raise UsageError("--interval takes 0.2 to 3600 seconds, got nan")
    screen = Screen(as_json=as_json)
    config, seeded = ask_config(options)
    schema = config.schema_or_default
    live = screen.fancy and not once
    name, descending = ORDERS[by]
    schema.index(name)

    async def look(who: Asker) -> View:
        shown = limit or (rows_that_fit() if live else LIMIT)
        machines: list[Plain] = []
        question = Question(predicate, shown, name, descending)
        return View(machines, await who.find(question, machines.append))

    async def run() -> View | None:
        async with asker(config, seeded=seeded) as who:
            if not live:
                return await look(who)
            with keys(interval_s) as pause:
                await watch(screen, schema, lambda: look(who), pause)
        return None

    try:
        view = run_loop(run())
    except KeyboardInterrupt:
        if not live:
            raise
        return  # the usual way to leave a live view
    if view is None:
        return
    if as_json:
        screen.document(plain(view))
    elif view.machines:
        screen.table(COLUMNS, [row(machine, schema) for machine in view.machines])
        screen.warn(heading(view, schema))
    if not view.machines:
        raise NothingFound(f"no machine matches {predicate!r}; try a wider question")
