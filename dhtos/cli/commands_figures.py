"""The commands that ask for a figure of all matches: `sum` and `histogram`."""

from typing import Any

import click

from dhtos.cli.asking import Edges, Plain
from dhtos.cli.commands_ask import (
    json_option,
    judge,
    require_option,
    strict_option,
    tell_unverified,
    verify_option,
    with_asker,
)
from dhtos.cli.screen import Column, Screen
from dhtos.cli.settings import ask_config, ask_options
from dhtos.cli.wording import bar, coverage_text, value_text
from dhtos.core.schema import Attribute, Schema
from dhtos.node.values import read_value

BAR_COLUMNS = 40


@click.command("sum")
@click.argument("attribute")
@click.argument("predicate", default="true")
@strict_option
@verify_option
@require_option
@ask_options
@json_option
def sum_figures(
    *,
    attribute: str,
    predicate: str,
    strict: bool,
    verify: int,
    require_complete: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Sum up a number over all matches: dhtos-node sum mem_free "arch == 'arm64'"

    ATTRIBUTE is a number (dhtos-node config lists them). Beside the sum it shows the mean, the
    smallest and the largest, and how many machines match and have the attribute.
    """
    screen, schema = Screen(as_json=as_json), _schema(options)
    end = with_asker(
        options, lambda who: who.sum(attribute, predicate, strict=strict, verify=verify)
    )
    if as_json:
        screen.document(end)
    else:
        _show_sum(screen, schema.attribute(attribute), end)
        _tell_gaps(screen, end["coverage"], verify)
    judge(end["coverage"], require_complete=require_complete)


@click.command()
@click.argument("attribute")
@click.argument("predicate", default="true")
@click.option("--edges", help="Where to cut, as 8GiB,32GiB,128GiB; else sixteen equal steps.")
@strict_option
@verify_option
@require_option
@ask_options
@json_option
def histogram(
    *,
    attribute: str,
    predicate: str,
    edges: str | None,
    strict: bool,
    verify: int,
    require_complete: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Show where matches lie on a number: dhtos-node histogram mem_free "cores >= 8"

    ATTRIBUTE is a number (dhtos-node config lists them). A line counts the machines from its first
    value up to, and without, its second. Lines of nobody at both ends are left out.
    """
    screen, schema = Screen(as_json=as_json), _schema(options)
    cuts = None if edges is None else read_edges(schema.attribute(attribute), edges)
    end = with_asker(
        options,
        lambda who: who.histogram(attribute, predicate, cuts, strict=strict, verify=verify),
    )
    if as_json:
        screen.document(end)
    else:
        _show_histogram(screen, schema.attribute(attribute), end)
        _tell_gaps(screen, end["coverage"], verify)
    judge(end["coverage"], require_complete=require_complete)


def read_edges(attribute: Attribute, text: str) -> Edges:
    """The values of `--edges`; raises UsageError.

    >>> from dhtos.core.schema import default_schema
    >>> read_edges(default_schema().attribute("mem"), "8GiB, 32GiB")
    [8589934592, 34359738368]
    """
    found = [read_value(attribute, part.strip()) for part in text.split(",") if part.strip()]
    return [value for value in found if isinstance(value, int | float)]


def _schema(options: Plain) -> Schema:
    return ask_config(options)[0].schema_or_default


def _show_sum(screen: Screen, attribute: Attribute, end: Plain) -> None:
    rows = [["machines", str(end["count"])], [f"with {attribute.name}", str(end["present"])]]
    for name in ("sum", "mean", "minimum", "maximum"):
        value = end[name]
        rows.append([name, "-" if value is None else value_text(attribute, value)])
    screen.table((Column(attribute.name), Column("value", right=True)), rows)


def _show_histogram(screen: Screen, attribute: Attribute, end: Plain) -> None:
    counts = end["counts"]
    texts = [value_text(attribute, edge) for edge in end["edges"]]
    lines = list(zip(["", *texts], [*texts, ""], counts, strict=True))
    inhabited = [n for n, count in enumerate(counts) if count]
    shown = lines[inhabited[0] : inhabited[-1] + 1] if inhabited else []
    most = max(counts)
    columns = [Column(name, right=True) for name in ("from", "to", "machines")]
    rows = [[low, high, str(count)] for low, high, count in shown]
    if end["missing"]:
        rows.append(["not told", "", str(end["missing"])])
    if screen.fancy:
        columns.append(Column(""))
        bars = [bar(count / most, BAR_COLUMNS) for _, _, count in shown]
        rows = [[*row, text] for row, text in zip(rows, [*bars, ""], strict=False)]
    screen.table(columns, rows, f"{attribute.name} of {end['count']} machines")


def _tell_gaps(screen: Screen, coverage: Plain, verify: int) -> None:
    if not coverage["complete"]:
        screen.warn(f"warning: not of all machines: {coverage_text(coverage)}")
    tell_unverified(screen, coverage, verify)
