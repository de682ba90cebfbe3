"""The commands that make issuers, put them out, and keep the root of a cluster."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dhtos.cli.asking import Plain
from dhtos.cli.commands_ask import json_option
from dhtos.cli.commands_trust import ask_node, control_option, state_option
from dhtos.cli.passphrases import given_passphrase, needed_passphrase, passphrase_option
from dhtos.cli.screen import Screen
from dhtos.cli.wording import plural
from dhtos.node.membership import default_home
from dhtos.node.root import (
    NAME,
    issuers_wanted,
    lock_root,
    no_root,
    read_line,
    unlock_root,
    where_is_root,
)
from dhtos.trust.passphrase import make_passphrase
from dhtos.trust.token import root_hash


@click.command()
@click.argument("node")
@passphrase_option
@state_option
@control_option
@json_option
def promote(
    *,
    node: str,
    passphrase_file: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Make a member an issuer, which admits others: by name, by id, or by its first digits.

    Given on the machine that has root.json. With several issuers a cluster admits, and renews
    certificates, while some of them are away.
    """
    told = _ask_root(options, "promote", passphrase_file, who=node)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(told)
    else:
        screen.say(f"{told['name']} is an issuer: give it invite, user add and revoke as here")


@click.command()
@click.argument("node")
@passphrase_option
@state_option
@control_option
@json_option
def demote(
    *,
    node: str,
    passphrase_file: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Put an issuer out, with all that it has admitted: they join again, with new tokens.

    Given on the machine that has root.json.
    """
    told = _ask_root(options, "demote", passphrase_file, who=node)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(told)
        return
    screen.say(f"revoked {plural(len(told['revoked']), 'certificate')} of {node}")
    screen.warn("it is out, and so are those it has admitted: they join again with new tokens")


def _ask_root(options: Plain, op: str, passphrase_file: Path | None, **told: Any) -> Plain:  # noqa: ANN401 - arguments of an op
    """Ask the node that has the root, with the passphrase where that is locked."""
    locked = ask_node(options, "root")["root"] == "locked"
    passphrase = needed_passphrase(passphrase_file, "the root") if locked else ""
    return ask_node(options, op, passphrase=passphrase, **told)


@click.group()
def root() -> None:
    """Keep the key that makes a cluster: under a passphrase, or in the open."""


@root.command()
@passphrase_option
@state_option
@json_option
def lock(*, passphrase_file: Path | None, state_dir: Path | None, as_json: bool) -> None:
    """Let only a passphrase open the root from now on.

    Without one of yours a passphrase is made, and printed once: write it down. Machines that join
    are no longer made issuers by themselves, and promote asks for it.
    """
    home = default_home() if state_dir is None else state_dir
    given = given_passphrase(passphrase_file)
    passphrase = given or make_passphrase(os.urandom)
    lock_root(home, passphrase)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document({"root": "locked"} | ({} if given else {"passphrase": passphrase}))
        return
    screen.say("the root is locked" + ("" if given else f"; its passphrase is {passphrase}"))
    screen.warn(f"copies of {home / NAME} that were made before are still open")


@root.command()
@passphrase_option
@state_option
@json_option
def unlock(*, passphrase_file: Path | None, state_dir: Path | None, as_json: bool) -> None:
    """Keep the root in the open again."""
    home = default_home() if state_dir is None else state_dir
    locked = where_is_root(home) == "locked"
    passphrase = needed_passphrase(passphrase_file, "the root") if locked else ""
    unlock_root(home, passphrase)
    screen = Screen(as_json=as_json)
    screen.document({"root": "open"}) if as_json else screen.say("the root is open")


@root.command()
@click.option(
    "--days",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0.01, 365),
    help="How long what the old root has signed still holds; after a theft as short as can be.",
)
@passphrase_option
@state_option
@control_option
@json_option
def rotate(
    *,
    days: float,
    passphrase_file: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Put a new root in the place of the old one, which signs that it is its heir.

    The cluster keeps its name and its tokens. Issuers and members that run get certificates of the
    new root within minutes; who is away for longer than --days joins again. Keep a new copy of
    root.json, and destroy those of the old one.
    """
    told = _ask_root(options, "rotate", passphrase_file, keep_s=days * 86_400.0)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(told)
        return
    ends = datetime.fromtimestamp(told["ends"], UTC)
    screen.say(f"the root is new, and {plural(len(told['issuers']), 'issuer')} with it")
    screen.say(f"what the old one has signed holds until {ends:%Y-%m-%d %H:%M} UTC")
    for name in told["waiting"]:
        screen.warn(f"warning: the issuer {name} does not answer: promote it when it is back")


@root.command()
@state_option
@json_option
def status(*, state_dir: Path | None, as_json: bool) -> None:
    """Say whether the root is here, whether it is locked, and how many issuers it makes."""
    home = default_home() if state_dir is None else state_dir
    line = read_line(home)
    if line is None:
        raise no_root(home)
    told = {"root": where_is_root(home), "cluster": root_hash(line.root).hex()}
    count = issuers_wanted(home)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document({**told, "issuers": count, "rotations": len(line.heirs)})
        return
    screen.say(f"the root of cluster {told['cluster']} is {told['root']}")
    screen.say(f"it makes issuers by itself until there are {count}")
