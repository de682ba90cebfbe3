"""The commands that keep keys in the network, under a passphrase."""

import os
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import click

from dhtos.cli.asking import Plain
from dhtos.cli.commands_ask import json_option
from dhtos.cli.commands_trust import ask_node, control_option, state_option
from dhtos.cli.passphrases import given_passphrase, needed_passphrase, passphrase_option
from dhtos.cli.screen import Screen
from dhtos.errors import Conflict, KeyNotFound, MalformedMessage, Refused, UsageError
from dhtos.node.membership import default_home, read_credentials
from dhtos.node.secstore import (
    CREDENTIALS,
    is_home,
    read_home,
    read_one,
    write_home,
    write_new,
)
from dhtos.trust.passphrase import make_passphrase
from dhtos.trust.secstore import (
    Place,
    check_passphrase,
    find_place,
    lock_files,
    unlock_files,
)

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where identity.json and membership.json are.  [default: where join puts them]",
)


@click.group()
def secstore() -> None:
    """Keep keys in the network, under a passphrase, to have them again on another machine."""


@secstore.command()
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--own", is_flag=True, help="Ask for a passphrase of yours, and make none.")
@passphrase_option
@home_option
@state_option
@control_option
@json_option
def put(
    *,
    name: str,
    file: Path | None,
    own: bool,
    passphrase_file: Path | None,
    home: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Keep a file, or without FILE the key and certificates of --home, under NAME.

    A passphrase is made, and printed this once: nobody can find it out again. What is kept can be
    had on any node of the cluster with `secstore get`, as long as this one runs now and then.
    """
    screen = Screen(as_json=as_json)
    files = read_home(home or default_home()) if file is None else read_one(file)
    given = _own_passphrase() if own else given_passphrase(passphrase_file)
    passphrase = given or make_passphrase(os.urandom)
    place = _place(options, passphrase, name)
    value = b64encode(lock_files(place, files, os.urandom)).decode()
    try:
        done = ask_node(options, "secret_put", key=place.name, base64=value)
    except Conflict as error:
        raise Conflict(
            f"another machine keeps {name!r} under this passphrase: use secstore remove there, or "
            "another name"
        ) from error
    told = {} if given else {"passphrase": passphrase}
    if as_json:
        screen.document({"name": name, "files": sorted(files), **done, **told})
        return
    if given:
        screen.say(f"kept {', '.join(sorted(files))} as {name}")
        return
    screen.say(passphrase)
    screen.warn(
        f"kept {', '.join(sorted(files))} as {name}. Write the passphrase down: it is not kept, "
        "and nobody can find it out"
    )


@secstore.command()
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where a single file goes.  [default: standard output]",
)
@passphrase_option
@home_option
@state_option
@control_option
@json_option
def get(
    *,
    name: str,
    out: Path | None,
    passphrase_file: Path | None,
    home: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Have again what was kept under NAME; nothing is overwritten."""
    screen = Screen(as_json=as_json)
    place = _place(options, needed_passphrase(passphrase_file, f"the secret {name!r}"), name)
    files = _fetch(options, place, name)
    if is_home(files):
        if out is not None:
            raise UsageError(f"{name} is a key with its certificates: use --home, not --out")
        where = home or default_home()
        write_home(where, files)
        leaf = read_credentials(where)[1].chain.leaf
        written = [str(where / one) for one in CREDENTIALS]
        _tell(screen, f"{leaf.name} is at home in {where}", written)
        return
    (content,) = files.values()
    if out is not None:
        write_new(out, content)
        _tell(screen, f"wrote {out}", [str(out)])
    elif as_json:
        screen.document({"base64": b64encode(content).decode()})
    else:
        sys.stdout.buffer.write(content)


@secstore.command()
@click.argument("name")
@passphrase_option
@state_option
@control_option
@json_option
def remove(
    *,
    name: str,
    passphrase_file: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Keep it no longer; on the machine where it was put, with its passphrase."""
    place = _place(options, needed_passphrase(passphrase_file, f"the secret {name!r}"), name)
    done = ask_node(options, "secret_remove", key=place.name)
    screen = Screen(as_json=as_json)
    screen.document(done) if as_json else screen.say(f"removed {name}")


def _tell(screen: Screen, text: str, written: list[str]) -> None:
    screen.document({"written": written}) if screen.as_json else screen.say(text)


def _place(options: Plain, passphrase: str, name: str) -> Place:
    check_passphrase(passphrase)  # before anybody is asked
    cluster = ask_node(options, "whoami")["cluster"]
    return find_place(passphrase, bytes.fromhex(cluster), name)


def _fetch(options: Plain, place: Place, name: str) -> dict[str, bytes]:
    try:
        found = ask_node(options, "get", key=place.name)
    except KeyNotFound as error:
        raise KeyNotFound(
            f"nothing is kept as {name!r} under this passphrase: give the name and the passphrase "
            "as they were when it was put"
        ) from error
    try:
        return unlock_files(place, b64decode(found.get("base64", "")))
    except MalformedMessage as error:
        raise Refused(
            f"what is kept as {name!r} was replaced by somebody without the passphrase: "
            "use secstore put again"
        ) from error


def _own_passphrase() -> str:
    if not sys.stdin.isatty():
        raise UsageError("--own asks on a terminal, and this is none: use --passphrase-file")
    typed: str = click.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True)
    check_passphrase(typed)
    return typed
