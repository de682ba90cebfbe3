"""What the network knows of the users of a cluster; `user add` is with the other tokens."""

import time
from datetime import UTC, datetime
from typing import Any

import click

from dhtos.cli.asking import Plain
from dhtos.cli.commands_ask import json_option, with_asker
from dhtos.cli.commands_trust import time_left, user
from dhtos.cli.screen import Column, Screen
from dhtos.cli.settings import ask_options

__all__ = ["user"]


@user.command()
@click.argument("name")
@ask_options
@json_option
def show(*, name: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Say who a user is: groups, capabilities, until when, and by which issuer.

    Any node or user of the cluster can ask: certificates of users are kept in the network.
    """
    found = with_asker(options, lambda who: who.user(name))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(found)
    else:
        screen.table((Column("user"), Column("is")), _rows(found))


def _rows(found: Plain) -> list[list[str]]:
    ends = datetime.fromtimestamp(found["expires"], UTC)
    left = time_left(max(0.0, found["expires"] - time.time()))
    return [
        ["name", found["name"]],
        ["groups", ", ".join(found["groups"]) or "-"],
        ["may", ", ".join(found["caps"])],
        ["ends", f"{ends:%Y-%m-%d %H:%M} UTC, in {left}"],
        ["issuer", found["issuer"]],
        ["serial", found["serial"]],
        ["key", found["subject"]],
    ]
