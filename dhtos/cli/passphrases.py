"""Passphrases as people give them: a file, a variable, or a hidden line on a terminal."""

import os
import sys
from pathlib import Path

import click

from dhtos.errors import UsageError
from dhtos.node.membership import check_private
from dhtos.node.root import PASSPHRASE

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Where the passphrase is, on one line.  [default: ${PASSPHRASE}]",
)


def given_passphrase(file: Path | None) -> str:
    """The passphrase of a file or of the environment; empty where there is none.

    Raises UsageError for a file that cannot be read, ConfigError for one that others can.
    """
    if file is None:
        return os.environ.get(PASSPHRASE, "").strip()
    try:
        check_private(file)
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"{file} cannot be read ({why}): give another --passphrase-file"
        ) from error
    if not text:
        raise UsageError(f"{file} holds no passphrase: give a file that has it on one line")
    return text


def needed_passphrase(file: Path | None, what: str) -> str:
    """The passphrase that was given, or that somebody types; raises UsageError where nobody can."""
    given = given_passphrase(file)
    if given:
        return given
    if not sys.stdin.isatty():
        raise UsageError(
            f"{what} is locked: give its passphrase with --passphrase-file or in {PASSPHRASE}"
        )
    typed: str = click.prompt(f"passphrase of {what}", hide_input=True, err=True)
    return typed
