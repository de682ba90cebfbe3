"""The commands that place many at once: `gang`, all or none, and `replicas`, kept alive."""

from collections.abc import Callable
from typing import Any

import click

from dhtos.cli.asking import Plain
from dhtos.cli.commands_ask import json_option, with_asker
from dhtos.cli.commands_place import (
    amounts_text,
    need_options,
    read_need,
    ttl_option,
    until_stopped,
)
from dhtos.cli.screen import Column, Screen
from dhtos.cli.settings import ask_config, ask_options
from dhtos.core.limits import SAMPLE_MAX
from dhtos.core.schema import Schema
from dhtos.errors import UsageError
from dhtos.node.ganging import GANG_DEADLINE_S


@click.command()
@need_options
@click.option(
    "--size", required=True, type=click.IntRange(1, SAMPLE_MAX), help="How many leases, or none."
)
@click.option(
    "--spread", metavar="NAME=N", help="At most so many where that attribute or label is the same."
)
@click.option(
    "--deadline",
    "deadline_s",
    default=GANG_DEADLINE_S,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds after which a gang that is not whole is given back.",
)
@ttl_option
@ask_options
@json_option
def gang(
    *,
    size: int,
    spread: str | None,
    deadline_s: float,
    ttl_s: float,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Claim several parts of machines, all or none: dhtos-node gang --need cores=4 --size 8

    A machine may give several. The leases are shown once all are granted, and renewed until Ctrl-C
    or SIGTERM, which release them. With --json there is one line for each lease.
    Exits with 3 where no machine can take one, 4 where too few were granted in time, 5 when the
    first is lost; the others are released then.
    """
    screen, schema = Screen(as_json=as_json), ask_config(options)[0].schema_or_default
    need, _ = read_need(schema, options)
    asked: Plain = {"size": size, "ttl_s": ttl_s, "deadline_s": deadline_s}
    if spread is not None:
        asked["spread"] = dict([_limit(spread)])
    leases: list[Plain] = []

    def take(lease: Plain) -> None:
        leases.append(lease)
        if as_json:
            screen.line(lease)
        elif len(leases) == size:
            _show_gang(screen, schema, leases)

    with_asker(options, lambda who: until_stopped(who.gang(need, asked, take)))


@click.command()
@need_options
@click.option(
    "--count", required=True, type=click.IntRange(1, SAMPLE_MAX), help="How many to keep alive."
)
@click.option(
    "--spread",
    metavar="NAME[=N]",
    help="Apart by that attribute or label; with =N never more than so many in one place.",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(0, min_open=True),
    help="Seconds until all must have been alive once; else give up.  [default: never]",
)
@ttl_option
@ask_options
@json_option
def replicas(
    *,
    count: int,
    spread: str | None,
    deadline_s: float | None,
    ttl_s: float,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Keep so many leases alive: dhtos-node replicas "gpus >= 1" --need gpus=1 --count 3

    They come up one by one, on different machines as far as there are any; one that is lost is
    placed again elsewhere. A line tells each that is granted or lost, and why some are waited for;
    with --json each line is an object. Ctrl-C or SIGTERM releases all of them.
    With --deadline it exits with 3 or 4 where not all were alive once by then.
    """
    screen, schema = Screen(as_json=as_json), ask_config(options)[0].schema_or_default
    need, _ = read_need(schema, options)
    asked: Plain = {"count": count, "ttl_s": ttl_s, "deadline_s": deadline_s}
    if spread is not None:
        asked["spread"] = dict([_limit(spread)]) if "=" in spread else spread
    tell: Callable[[Plain], None] = screen.line if as_json else _teller(screen)
    with_asker(options, lambda who: until_stopped(who.replicas(need, asked, tell)))


def _limit(text: str) -> tuple[str, int]:
    """The attribute or label, and how many may share one; raises UsageError."""
    name, _, number = (part.strip() for part in text.partition("="))
    if not name or not number.isdecimal() or int(number) < 1:
        raise UsageError(f"--spread must be NAME=N as site=2, got {text!r}")
    return name, int(number)


def _show_gang(screen: Screen, schema: Schema, leases: list[Plain]) -> None:
    rows = [
        [
            _machine(lease),
            lease["endpoint"],
            amounts_text(schema, lease["resources"]),
            lease["token"],
            str(lease["fence"]),
        ]
        for lease in leases
    ]
    columns = [Column(name) for name in ("node", "endpoint", "holds", "token")]
    screen.table([*columns, Column("fence", right=True)], rows)


def _teller(screen: Screen) -> Callable[[Plain], None]:
    def tell(change: Plain) -> None:
        parts = [f"{change['what']:<8}", f"{change['alive']} of {change['count']}"]
        lease = change["lease"]
        if lease is not None:
            parts += [_machine(lease), lease["endpoint"]]
            if change["what"] == "granted":
                parts += [f"token {lease['token']}", f"fence {lease['fence']}"]
        screen.say("  ".join(part for part in (*parts, change["reason"]) if part))

    return tell


def _machine(lease: Plain) -> str:
    """A machine by its name, or by its id where it has none."""
    return str(lease["labels"].get("name") or lease["node"])
