"""The commands that let members of other clusters ask this one, and keep them out again."""

import time
from typing import Any

import click

from dhtos.cli.asking import Plain, control_path
from dhtos.cli.commands_ask import json_option
from dhtos.cli.commands_trust import ask_node, control_option, state_option, time_left
from dhtos.cli.loop import run_loop
from dhtos.cli.screen import Column, Screen
from dhtos.cli.settings import effective_config
from dhtos.cli.wording import plural
from dhtos.core.limits import WELCOME_S_MAX
from dhtos.node.control import ControlClient


@click.group()
def guests() -> None:
    """Let members of another cluster ask this one, with the certificates that they have."""


@guests.command()
@click.argument("cluster")
@click.option(
    "--cap",
    "caps",
    multiple=True,
    metavar="VERB[:GROUP]",
    help="What they may do here: query, claim, run.  [default: query]",
)
@click.option("--group", default="", metavar="GROUP", help="The group that they are in here.")
@click.option(
    "--days",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, WELCOME_S_MAX / 86_400, min_open=True),
    help="For how long.",
)
@state_option
@control_option
@json_option
def add(
    *,
    cluster: str,
    caps: tuple[str, ...],
    group: str,
    days: float,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Welcome a cluster: by the name that whoami shows there, or by its guests token.

    Each of its members may do here what both its own certificate and this give. Said again, it
    replaces what was said before.
    """
    given: Plain = {"cluster": cluster, "caps": [*caps], "group": group, "days": days}
    told = ask_node(options, "guest_add", **given)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(told)
        return
    screen.say(f"members of {told['cluster']} may {', '.join(told['caps'])} here")
    screen.say("tell them the line of: dhtos-node guests token")


@guests.command()
@click.argument("cluster")
@state_option
@control_option
@json_option
def remove(*, cluster: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Let nobody of a cluster in any more; what they hold a lease of ends with its term."""
    told = ask_node(options, "guest_remove", cluster=cluster)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(told)
    else:
        screen.say(f"members of {told['cluster']} are not welcome any more")


@guests.command("list")
@state_option
@control_option
@json_option
def show(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Show which clusters are welcome, to what, and until when."""

    async def ask() -> list[Plain]:
        async with ControlClient(control_path(effective_config(options))) as client:
            return [one async for one in client.ask("guests")]

    found = run_loop(ask())
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document({"guests": found})
        return
    rows = [
        [
            one["cluster"],
            ", ".join(one["caps"]),
            one["group"] or "-",
            _left(one),
            one["issuer"],
        ]
        for one in found
    ]
    names = ("cluster", "may", "group", "ends in", "by")
    screen.table([Column(name) for name in names], rows, plural(len(rows), "cluster"))


@guests.command()
@state_option
@control_option
@json_option
def token(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Print what members of a welcome cluster give to --visit. It is no secret."""
    told = ask_node(options, "guest_token")
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(told)
        return
    screen.say(told["token"])
    if screen.out.isatty():
        screen.warn('guests ask with: dhtos-node find "cores >= 1" --visit TOKEN')


def _left(one: Plain) -> str:
    """How long a welcome still lasts."""
    left_s = one["expires"] - time.time()
    if left_s <= 0:
        return "over"
    return time_left(left_s) if one["holds"] else "void: its issuer is out"
