"""The command `map`: the fleet as round trips have placed it, drawn into a file."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dhtos.cli.asking import Asker, Plain, Question
from dhtos.cli.commands_ask import json_option, with_asker
from dhtos.cli.failure import NothingFound
from dhtos.cli.screen import Screen
from dhtos.cli.settings import ask_config, ask_options
from dhtos.cli.wording import percent, plural
from dhtos.core.schema import Schema
from dhtos.errors import UsageError

if TYPE_CHECKING:
    from dhtos.cli.map_drawing import Colouring, Machine

KINDS = (".png", ".svg")


@click.command("map")
@click.argument("predicate", default="true")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write: .png or .svg.",
)
@click.option(
    "--color",
    metavar="NAME",
    help="Colour by this attribute.  [default: by the round trip from the node]",
)
@ask_options
@json_option
def draw_map(
    *,
    predicate: str,
    output: Path,
    color: str | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Draw where machines are: dhtos-node map --output fleet.png --color mem "cores >= 8"

    Every machine is a point, and a distance is a round trip as coordinates predict it. Needs
    matplotlib: pip install "dhtos[plot]"
    """
    schema = ask_config(options)[0].schema_or_default
    if color is not None:
        schema.index(color)
    if output.suffix.lower() not in KINDS:
        raise UsageError(f"a map is a .png or .svg file, got {output.name!r}")
    _import_drawing()
    hits, own = with_asker(options, lambda who: _look(who, predicate))
    placed = [hit for hit in hits if hit["coordinate"] is not None]
    if not placed:
        raise NothingFound(f"no machine that matches {predicate!r} tells where it is")
    from dhtos.cli.map_drawing import draw

    machines = _machines(placed, own, color)
    share = draw(machines, _colouring(schema, color), output)
    screen = Screen(as_json=as_json)
    missing = len(hits) - len(machines)
    if as_json:
        told = {"output": str(output), "machines": len(machines), "without_place": missing}
        screen.document(told | {"share": round(share, 4)})
        return
    screen.say(f"{output}: {plural(len(machines), 'machine')}, {percent(share)} of their spread")
    if missing:
        screen.warn(f"{plural(missing, 'machine')} left out: no place told, or of other dimensions")


def _import_drawing() -> None:
    """Raise UsageError before anybody is asked where matplotlib is missing."""
    try:
        import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise UsageError(
            f'a map needs matplotlib, and {error.name} is missing: use pip install "dhtos[plot]"'
        ) from error


async def _look(who: Asker, predicate: str) -> tuple[list[Plain], str]:
    """All machines that match, and the id of the node that was asked."""
    hits: list[Plain] = []
    await who.find(Question(predicate), hits.append)
    status = await who.status()
    return hits, status["id"]


def _machines(hits: list[Plain], own: str, color: str | None) -> "list[Machine]":
    """Those of the most usual dimensions: others have no place on the same map."""
    from collections import Counter

    from dhtos.cli.map_drawing import Machine

    usual = Counter(len(hit["coordinate"]) for hit in hits).most_common(1)[0][0]
    return [
        Machine(
            tuple(hit["coordinate"][:-2]),
            hit["coordinate"][-2],
            hit["rtt_s"] if color is None else hit["attributes"].get(color),
            hit["id"] == own,
        )
        for hit in hits
        if len(hit["coordinate"]) == usual
    ]


def _colouring(schema: Schema, color: str | None) -> "Colouring":
    from dhtos.cli.map_drawing import Colouring

    if color is None:
        return Colouring("round trip from this node, ms")
    return Colouring(color, schema.attribute(color))
