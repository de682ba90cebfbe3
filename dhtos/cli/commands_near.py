"""The commands about distance: `rtt`, `closest` and `central`."""

from typing import Any

import click

from dhtos.cli.asking import Plain
from dhtos.cli.commands_ask import ID_SHOWN, json_option, with_asker
from dhtos.cli.failure import NothingFound
from dhtos.cli.screen import Column, Screen
from dhtos.cli.settings import ask_options
from dhtos.cli.wording import milliseconds, plural, read_seconds
from dhtos.core.limits import CENTRAL_OTHERS_MAX, SAMPLE_MAX
from dhtos.errors import UsageError

_K = 5
_LEGS_SHOWN = 4  # of the round trips to others, each in a column of its own

k_option = click.option(
    "-k",
    "--count",
    "k",
    type=click.IntRange(1, SAMPLE_MAX),
    help=f"Show so many.  [default: {_K}]",
)
probes_option = click.option(
    "--probes",
    default=8,
    show_default=True,
    type=click.IntRange(1, SAMPLE_MAX),
    help="Ping so many more than are shown, which may turn out to be nearer.",
)


@click.command()
@click.argument("a")
@click.argument("b", default="self")
@ask_options
@json_option
def rtt(*, a: str, b: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Tell how far two machines are apart, or one from the node: dhtos-node rtt web-1 web-2

    A and B are ids or the first digits of one, as dhtos-node members shows them, names (the label
    name), or self. Between two others it is a prediction; to the node it may have been measured.
    """
    found = with_asker(options, lambda who: who.rtt(a, b))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document({"a": a, "b": b, **found})
    else:
        screen.say(f"{milliseconds(found['rtt_s'])} ms, {how_known(found)}")


@click.command()
@click.argument("predicate", default="true")
@k_option
@probes_option
@click.option(
    "--within", metavar="TIME", help="All within so much, as 20ms; -k limits how many are shown."
)
@ask_options
@json_option
def closest(
    *,
    predicate: str,
    k: int | None,
    probes: int,
    within: str | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Find the machines nearest to the node: dhtos-node closest "gpus >= 1" -k 3

    Coordinates choose whom to ping, and pings decide. With --within those are pinged whose
    predictions are closest to the border. With --json there is one line for each machine.
    """
    screen = Screen(as_json=as_json)
    seconds = None if within is None else read_seconds(within)
    found = with_asker(
        options,
        lambda who: (
            who.closest(k or _K, predicate, probes)
            if seconds is None
            else who.within(seconds, predicate, k or 0, probes)
        ),
    )
    if as_json:
        for hit in found:
            screen.line(hit)
    elif found:
        show_near(screen, found)
    if not found:
        where = "" if within is None else f" within {within}"
        raise NothingFound(f"no other machine matches {predicate!r}{where}; try a wider question")


@click.command()
@click.argument("others", nargs=-1, required=True)
@click.option("--where", "predicate", default="true", help="Which machines, as in find.")
@k_option
@probes_option
@ask_options
@json_option
def central(
    *,
    others: tuple[str, ...],
    predicate: str,
    k: int | None,
    probes: int,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Find machines close to several others: dhtos-node central web-1 db-1 --where "cores >= 8"

    The machine comes first whose farthest of OTHERS is nearest. OTHERS are ids, first digits, names
    or self, as in rtt. Round trips between two machines are predictions; pings only tell who is
    there. With --json there is one line for each machine.
    """
    if len(others) > CENTRAL_OTHERS_MAX:
        raise UsageError(f"central takes 1..{CENTRAL_OTHERS_MAX} others, got {len(others)}")
    found = with_asker(options, lambda who: who.central(others, k or _K, predicate, probes))
    screen = Screen(as_json=as_json)
    if as_json:
        for machine in found:
            screen.line(machine)
    elif found:
        show_central(screen, found, others)
    if not found:
        raise NothingFound(f"no other machine matches {predicate!r}; try a wider question")


def how_known(rtt: Plain) -> str:
    """Whether a round trip was measured, and what to expect of it if not.

    >>> how_known({"measured": False, "error": 0.08})
    'predicted, give or take 8%'
    >>> how_known({"measured": False, "error": 1.5})
    'predicted, and hardly known yet'
    """
    if rtt["measured"]:
        return "measured"
    if rtt["error"] >= 1:
        return "predicted, and hardly known yet"
    return f"predicted, give or take {100 * rtt['error']:.0f}%"


def show_near(screen: Screen, found: list[Plain]) -> None:
    """A table of machines with their round trips."""
    columns = (*_MACHINE, Column("rtt ms", right=True), Column("how known"))
    screen.table(
        columns,
        [
            [
                *_machine(screen, hit),
                milliseconds(hit["rtt_s"]),
                "measured" if hit["rtt_measured"] else "predicted",
            ]
            for hit in found
        ],
    )
    if screen.fancy:
        measured = sum(hit["rtt_measured"] for hit in found)
        screen.say(f"{plural(len(found), 'machine')}; {measured} measured")


def show_central(screen: Screen, found: list[Plain], others: tuple[str, ...]) -> None:
    """A table of machines with their round trips to the others."""
    legs = others[:_LEGS_SHOWN]
    columns = [*_MACHINE, Column("worst ms", right=True), Column("mean ms", right=True)]
    columns += [Column(f"{name[:ID_SHOWN]} ms", right=True) for name in legs]
    rows = [
        [
            *_machine(screen, machine),
            milliseconds(machine["worst_s"]),
            milliseconds(machine["mean_s"]),
            *(milliseconds(leg["rtt_s"]) for leg in machine["others"][:_LEGS_SHOWN]),
        ]
        for machine in found
    ]
    screen.table(columns, rows)
    if screen.fancy:
        screen.say(f"{plural(len(found), 'machine')}; round trips between others are predicted")


_MACHINE = (Column("id"), Column("name"), Column("endpoint"))


def _machine(screen: Screen, hit: Plain) -> list[str]:
    return [
        hit["id"][:ID_SHOWN] if screen.fancy else hit["id"],
        hit["labels"].get("name", "-"),
        f"via {hit['endpoint']}" if hit["gateway"] else hit["endpoint"],
    ]
