"""The commands that put somebody out of a cluster, and say who was let in."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dhtos.cli.asking import Plain
from dhtos.cli.commands_ask import json_option
from dhtos.cli.commands_trust import ask_node, control_option, state_option
from dhtos.cli.screen import Column, Screen
from dhtos.cli.wording import plural, read_period
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.errors import ConfigError, UsageError
from dhtos.node.audit import NAME, read_audit
from dhtos.node.membership import default_home
from dhtos.node.receipts import read_receipts, sums


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
    """Say whether the logs are as they were written: how many events, and the last one's hash.

    Also of the log of leases and receipts, and of the signatures in it. Compare the hash with one
    that was noted elsewhere: a log that was written anew verifies too.
    """
    home = _home(state_dir)
    admitted, leases = list(read_audit(home)), list(read_receipts(home))
    if not admitted and not leases:
        raise _nothing(home)
    screen = Screen(as_json=as_json)
    told = [_told(entries) for entries in (admitted, leases)]
    if as_json:
        screen.document({**(told[0] or {"events": 0, "hash": ""}), "receipts": told[1]})
        return
    for one, what in zip(told, ("", " of leases"), strict=True):
        if one is not None:
            count = plural(one["events"], "event")
            screen.say(f"{count}{what}, unchanged; the last hash is {one['hash']}")


@audit.command("sum")
@click.option("--user", default="", metavar="NAME", help="Of this user or machine only.")
@click.option(
    "--since", default="", metavar="TIME", help="Of leases that ended since: 7d, or 2030-01-31."
)
@state_option
@json_option
def sum_up(*, user: str, since: str, state_dir: Path | None, as_json: bool) -> None:
    """Add up what each user has had, by the receipts that are kept here.

    On a machine that grants leases they are those of its users; on a user's machine those of the
    leases that were had elsewhere. A receipt is written when a lease ends.
    """
    home = _home(state_dir)
    begin = _begin_of(since, time.time())
    found = sums(read_receipts(home), user=user, since=begin)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document({"since": begin, "usage": [one._asdict() for one in found]})
        return
    if not found:
        screen.say(f"no lease has ended here: {home} has no receipts of that")
        return
    rows = [
        [
            one.user,
            "has had" if one.role == "owner" else "was given",
            f"{one.leases}",
            f"{one.signed}",
            ", ".join(f"{name} {_hours(name, amount)}" for name, amount in one.amount_s.items()),
            f"{one.cpu_s:.1f}",
            f"{one.memory_byte_s / 2**30:.1f}",
            f"{one.cost:.4f}",
        ]
        for one in found
    ]
    numbers = ("leases", "signed", "amount x h", "cpu s", "memory GiB s", "price")
    columns = [Column(name, right=name != "amount x h") for name in numbers]
    screen.table([Column("user"), Column("here"), *columns], rows, plural(len(rows), "user"))


def _hours(name: str, amount_s: float) -> str:
    """An amount of a resource for a while, in hours; of bytes in GiB."""
    unit = next((one.unit for one in MACHINE_SCHEMA.attributes if one.name == name), "")
    hours = amount_s / 3600 / (2**30 if unit == "B" else 1)
    shown = "<0.001" if 0 < hours < 0.001 else f"{hours:.3g}"
    return f"{shown} GiB" if unit == "B" else shown


def _begin_of(since: str, now: float) -> float:
    """A period up to now, or a date or time in UTC, in seconds since 1970; raises UsageError."""
    if not since:
        return 0.0
    with suppress(ValueError):
        when = datetime.fromisoformat(since)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    with suppress(UsageError):
        return now - read_period(since)
    raise UsageError(f"--since is a period or a date, as 7d or 2030-01-31, got {since!r}")


def _told(entries: list[Plain]) -> Plain | None:
    return {"events": len(entries), "hash": entries[-1]["hash"]} if entries else None


def _home(state_dir: Path | None) -> Path:
    return default_home() if state_dir is None else state_dir


def _read(state_dir: Path | None) -> list[Plain]:
    found = list(read_audit(_home(state_dir)))
    if not found:
        raise _nothing(_home(state_dir))
    return found


def _nothing(home: Path) -> ConfigError:
    return ConfigError(
        f"{home} has no {NAME}: it is kept on the machines that admit; use --state-dir for another "
        "directory"
    )
