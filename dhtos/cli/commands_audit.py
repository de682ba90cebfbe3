"""The commands that put somebody out of a cluster, and say who was let in."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dhtos.cli.asking import Plain
from dhtos.cli.commands_ask import json_option
from dhtos.cli.commands_trust import ask_node, control_option, state_option
from dhtos.cli.screen import Column, Screen
from dhtos.cli.wording import plural
from dhtos.errors import ConfigError
from dhtos.node.audit import NAME, read_audit
from dhtos.node.membership import default_home


@click.command()
@click.argument("who")
@state_option
@control_option
@json_option
def revoke(*, who: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Put a machine or a user out of the cluster: by name, by id, or by a serial number.

    Given on the machine that admitted it. All members hear of it within seconds, and talk to it no
    more; what it holds a lease of ends with the lease's term.
    """
    done = ask_node(options, "revoke_member", who=who)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(done)
    else:
        screen.say(f"revoked {plural(len(done['revoked']), 'certificate')} of {who}")


@click.group()
def audit() -> None:
    """Read the log of who was let in, turned away and put out."""


@audit.command()
@state_option
@json_option
def show(*, state_dir: Path | None, as_json: bool) -> None:
    """Show the log, the oldest event first."""
    found = _read(state_dir)
    screen = Screen(as_json=as_json)
    if as_json:
        for entry in found:
            screen.line(entry)
        return
    rows = [
        [
            f"{datetime.fromtimestamp(entry['at'], UTC):%Y-%m-%d %H:%M:%S}",
            entry["what"],
            entry.get("name") or "-",
            (entry.get("serial") or entry.get("invite") or "-")[:16],
            entry.get("reason", ""),
        ]
        for entry in found
    ]
    names = ("at (UTC)", "what", "name", "serial or token", "why")
    screen.table([Column(name) for name in names], rows, plural(len(rows), "event"))


@audit.command()
@state_option
@json_option
def verify(*, state_dir: Path | None, as_json: bool) -> None:
    """Say whether the log is as it was written: how many events, and the last one's hash.

    Compare the hash with one that was noted elsewhere: a log that was written anew verifies too.
    """
    found = _read(state_dir)
    last = found[-1]["hash"]
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document({"events": len(found), "hash": last})
    else:
        screen.say(f"{plural(len(found), 'event')}, unchanged; the last hash is {last}")


def _read(state_dir: Path | None) -> list[Plain]:
    home = default_home() if state_dir is None else state_dir
    found = list(read_audit(home))
    if not found:
        raise ConfigError(
            f"{home} has no {NAME}: it is kept on the machine that made the cluster; "
            "use --state-dir for another directory"
        )
    return found
