"""The commands that place work, and those of the machine that takes it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from dhtos.cli.asking import Plain, control_path
from dhtos.cli.commands_ask import (
    json_option,
    judge,
    require_option,
    show_machines,
    with_asker,
)
from dhtos.cli.commands_run import CommandAfterDashes, Run, read_variables, words_after_dashes
from dhtos.cli.loop import run_loop
from dhtos.cli.screen import Column, Screen
from dhtos.cli.settings import ask_config, ask_options
from dhtos.cli.wording import coverage_text, plural, value_text
from dhtos.core.limits import LEASE_S, LEASE_S_MAX, LEASE_S_MIN
from dhtos.core.schema import Schema
from dhtos.errors import UsageError
from dhtos.node.control import ControlClient
from dhtos.node.values import read_value
from dhtos.sched.need import Need, check
from dhtos.sched.weights import PROFILES

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_NEED_OPTIONS = (
    click.argument("predicate", default=""),
    click.option(
        "--need",
        "needs",
        multiple=True,
        metavar="NAME=AMOUNT,...",
        help="How much of what, as cores=4,mem=8GiB; may be given again.",
    ),
    click.option(
        "--prefer",
        default="pack",
        show_default=True,
        type=click.Choice(sorted(PROFILES)),
        help="Which of the machines that can is the best.",
    ),
    click.option("--max-price", type=click.FloatRange(0), help="What it may cost an hour."),
    click.option("--priority", default=0, help="How much it matters; told to the node."),
)

ttl_option = click.option(
    "--ttl",
    "ttl_s",
    default=LEASE_S,
    show_default=True,
    type=click.FloatRange(LEASE_S_MIN, LEASE_S_MAX),
    help="Seconds after which the node ends it when it does not hear from us.",
)


def need_options(function: F) -> F:
    """The options that say what is needed."""
    for option in reversed(_NEED_OPTIONS):
        function = option(function)
    return function


@click.command()
@need_options
@click.option(
    "-n", "--candidates", default=16, show_default=True, help="Machines to draw and compare."
)
@require_option
@ask_options
@json_option
def plan(*, candidates: int, require_complete: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Show machines for a need, the best first: dhtos-node plan "arch == 'arm64'" --need cores=4

    Nothing is claimed. The machines are drawn at random from all that have enough of everything
    free, and put in order by what is preferred.
    """
    screen, schema = Screen(as_json=as_json), _schema(options)
    need, names = read_need(schema, options)
    found: list[Plain] = []
    end = with_asker(options, lambda who: who.plan(need, candidates, found.append))
    if as_json:
        screen.document({"choices": found, **end})
    elif found:
        show_machines(screen, schema, found, [f"{name}_free" for name in names])
    else:
        screen.warn("nothing can take it; dhtos-node explain says what is short")
    if not as_json and not end["coverage"]["complete"] and not end["coverage"]["limited"]:
        screen.warn(f"warning: not of all machines: {coverage_text(end['coverage'])}")
    judge(end["coverage"], require_complete=require_complete)
    if not found:
        click.get_current_context().exit(3)


@click.command()
@need_options
@ask_options
@json_option
def explain(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Say what is short: dhtos-node explain "site == 'lab'" --need cores=64,mem=1TiB"""
    screen, schema = Screen(as_json=as_json), _schema(options)
    need, _ = read_need(schema, options)
    end = with_asker(options, lambda who: who.why(need))
    if as_json:
        screen.document(end)
        return
    rows = [
        ["machines", str(end["machines"])],
        ["are what is asked for", str(end["matching"])],
        *([f"lack {name}", str(count)] for name, count in end["reasons"].items()),
        ["can take it", str(end["able"])],
    ]
    screen.table((Column("of all"), Column("machines", right=True)), rows)
    if not end["coverage"]["complete"]:
        screen.warn(f"warning: not of all machines: {coverage_text(end['coverage'])}")


@click.command(cls=CommandAfterDashes)
@need_options
@click.option("--preempt", is_flag=True, help="Take back what is of a lower priority.")
@ttl_option
@click.option(
    "--env",
    "env",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a variable of the command; may be given again.",
)
@ask_options
@json_option
def place(*, ttl_s: float, env: tuple[str, ...], as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Claim a part of a machine and keep it: dhtos-node place "gpus >= 1" --need cores=4

    The lease is shown once it is granted and renewed until Ctrl-C or SIGTERM, which release it.
    A command behind -- is run there instead, on a machine that runs commands: its input, output
    and signals are ours, and so is its exit code.
    Exits with 3 where no machine can take it, 4 where none has granted it, 5 when it is lost, 127
    or 126 where the command cannot be started.
    """
    screen, schema = Screen(as_json=as_json), _schema(options)
    preempt = options.pop("preempt")
    need, _ = read_need(schema, options)
    need["preempt"] = preempt
    words, variables = words_after_dashes(), read_variables(env)
    if words:
        run = Run(screen, words, variables)
        code = with_asker(options, lambda who: run.run(who, need, ttl_s))
        click.get_current_context().exit(code)
    if variables:
        raise UsageError("--env is for a command: give one behind --")

    def show(lease: Plain) -> None:
        if as_json:
            screen.document(lease)
        else:
            show_lease(screen, schema, lease)

    with_asker(options, lambda who: until_stopped(who.place(need, ttl_s, show)))


async def until_stopped(work: Awaitable[None]) -> None:
    """Do it until it ends, or until somebody stops us: that is how a lease is given back."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise


@click.command()
@click.option("--revoke", metavar="TOKEN", help="Take this lease back and tell its owner.")
@ask_options
@json_option
def leases(*, revoke: str | None, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Show what this machine has promised: dhtos-node leases"""
    screen, schema = Screen(as_json=as_json), _schema(options)
    if revoke is not None:
        _, end = _of_daemon(options, "revoke", token=revoke)
        if as_json:
            screen.document(end)
        return
    found, end = _of_daemon(options, "leases")
    if as_json:
        screen.document({"leases": found, **end})
        return
    rows = [
        [
            one["token"],
            one["state"],
            f"{one['user']} at {one['owner']}" if one["user"] else one["owner"],
            amounts_text(schema, one["resources"]),
            f"{one['expires_s']:.0f} s",
        ]
        for one in found
    ]
    columns = [Column(name) for name in ("token", "state", "owner", "resources")]
    if rows:
        screen.table([*columns, Column("ends in", right=True)], rows)
    else:
        screen.say("nothing is granted")
    if end["draining"]:
        screen.warn("draining: this machine grants nothing more")


@click.command()
@click.option("-n", "limit", default=20, show_default=True, type=click.IntRange(1), help="Rows.")
@ask_options
@json_option
def usage(*, limit: int, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Show what the last commands on this machine have used: dhtos-node usage"""
    screen = Screen(as_json=as_json)
    found, _ = _of_daemon(options, "usage", limit=limit)
    if as_json:
        screen.document({"usage": found})
    elif found:
        show_usage(screen, found)
    else:
        screen.say("no command has ended here")


@click.command()
@click.option("--revoke", is_flag=True, help="Also take back what is granted.")
@ask_options
@json_option
def drain(*, revoke: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Let this machine take no more work: dhtos-node drain"""
    _, end = _of_daemon(options, "drain", revoke=revoke)
    _show_drain(Screen(as_json=as_json), end)


@click.command()
@ask_options
@json_option
def undrain(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Let this machine take work again: dhtos-node undrain"""
    _, end = _of_daemon(options, "undrain")
    _show_drain(Screen(as_json=as_json), end)


def read_need(schema: Schema, options: Plain) -> tuple[Plain, list[str]]:
    """The need that the options say, and the names of its resources; raises UsageError."""
    known = schema.resources
    resources: dict[str, Any] = {}
    for text in [part for given in options.pop("needs") for part in given.split(",") if part]:
        name, equals, amount = (part.strip() for part in text.partition("="))
        if not equals or not name or not amount:
            raise UsageError(f"--need must be NAME=AMOUNT,... as cores=4,mem=8GiB, got {text!r}")
        if name in resources:
            raise UsageError(f"--need names {name} twice: give it once")
        if name not in known:
            check(Need(**dict[str, Any]({name: 1})), schema)  # raises, and names the nearest
        resources[name] = read_value(schema.attribute(name), amount)
    need = {
        "resources": resources,
        "where": options.pop("predicate"),
        "prefer": options.pop("prefer"),
        "priority": options.pop("priority"),
        "max_price": options.pop("max_price"),
    }
    return {name: value for name, value in need.items() if value is not None}, list(resources)


def _schema(options: Plain) -> Schema:
    return ask_config(options)[0].schema_or_default


def _of_daemon(options: Plain, op: str, **args: Any) -> tuple[list[Plain], Plain]:  # noqa: ANN401 - plain values
    """Ask the node of this machine; raises UsageError where another was named."""

    async def ask() -> tuple[list[Plain], Plain]:
        config, seeded = ask_config(options)
        if seeded:
            raise UsageError("only the node of this machine can do that: leave out --seed")
        async with ControlClient(control_path(config)) as client:
            answer = client.ask(op, **args)
            return [part async for part in answer], answer.end

    return run_loop(ask())


def amounts_text(schema: Schema, resources: Plain) -> str:
    """What is held, in units."""
    return ", ".join(
        f"{name} {value_text(schema.attribute(name), amount) if name in schema else amount}"
        for name, amount in resources.items()
    )


def show_lease(screen: Screen, schema: Schema, lease: Plain) -> None:
    """A lease for people."""
    name = lease["labels"].get("name")
    rows = [
        ["node", f"{name} ({lease['node']})" if name else lease["node"]],
        ["endpoint", lease["endpoint"]],
        ["holds", amounts_text(schema, lease["resources"])],
        ["token", lease["token"]],
        ["fence", str(lease["fence"])],
    ]
    screen.table((Column("lease"), Column("")), rows)


def _show_drain(screen: Screen, end: Plain) -> None:
    if screen.as_json:
        screen.document(end)
        return
    state = "takes no more work" if end["draining"] else "takes work"
    screen.say(f"this machine {state}; {plural(end['leases'], 'lease')} left")


def show_usage(screen: Screen, rows: list[Plain]) -> None:
    """A line for each command that has ended."""
    columns = [Column(name) for name in ("ended", "command", "exit")]
    columns += [Column(name, right=True) for name in ("cpu s", "memory", "wall s")]
    screen.table(
        [*columns, Column("owner"), Column("lease")],
        [
            [
                datetime.fromtimestamp(row["ended_at"], UTC).astimezone().strftime("%F %T"),
                row["command"],
                str(row["returncode"]),
                f"{row['user_s'] + row['system_s']:.2f}",
                f"{row['memory_bytes'] / 2**20:.1f} MiB",
                f"{row['wall_s']:.2f}",
                f"{row['user']} at {row['owner']}" if row["user"] else row["owner"],
                row["lease"],
            ]
            for row in rows
        ],
    )
