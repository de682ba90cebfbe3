"""`dhtos-node`: the entry point, and the one place where errors become exit codes.

Commands are imported when they are called: a daemon must not carry what draws tables.
"""

import os
import sys
from collections.abc import Callable, Mapping
from traceback import print_exception
from types import ModuleType

import click

from dhtos.cli.failure import explain

Loader = Callable[[], ModuleType]


def _run() -> ModuleType:
    from dhtos.cli import run

    return run


def _secstore() -> ModuleType:
    from dhtos.cli import commands_secstore

    return commands_secstore


def _ask() -> ModuleType:
    from dhtos.cli import commands_ask

    return commands_ask


def _audit() -> ModuleType:
    from dhtos.cli import commands_audit

    return commands_audit


def _config() -> ModuleType:
    from dhtos.cli import commands_config

    return commands_config


def _demo() -> ModuleType:
    from dhtos.cli import commands_demo

    return commands_demo


def _figures() -> ModuleType:
    from dhtos.cli import commands_figures

    return commands_figures


def _gang() -> ModuleType:
    from dhtos.cli import commands_gang

    return commands_gang


def _guests() -> ModuleType:
    from dhtos.cli import commands_guests

    return commands_guests


def _map() -> ModuleType:
    from dhtos.cli import commands_map

    return commands_map


def _near() -> ModuleType:
    from dhtos.cli import commands_near

    return commands_near


def _place() -> ModuleType:
    from dhtos.cli import commands_place

    return commands_place


def _root() -> ModuleType:
    from dhtos.cli import commands_root

    return commands_root


def _top() -> ModuleType:
    from dhtos.cli import commands_top

    return commands_top


def _trust() -> ModuleType:
    from dhtos.cli import commands_trust

    return commands_trust


def _user() -> ModuleType:
    from dhtos.cli import commands_user

    return commands_user


COMMANDS: Mapping[str, tuple[Loader, str]] = {
    "run": (_run, "run"),
    "demo": (_demo, "demo"),
    "up": (_trust, "up"),
    "join": (_trust, "join"),
    "invite": (_trust, "invite"),
    "user": (_user, "user"),
    "whoami": (_trust, "whoami"),
    "revoke": (_audit, "revoke"),
    "audit": (_audit, "audit"),
    "promote": (_root, "promote"),
    "demote": (_root, "demote"),
    "root": (_root, "root"),
    "guests": (_guests, "guests"),
    "find": (_ask, "find"),
    "count": (_ask, "count"),
    "sum": (_figures, "sum_figures"),
    "histogram": (_figures, "histogram"),
    "rtt": (_near, "rtt"),
    "closest": (_near, "closest"),
    "central": (_near, "central"),
    "map": (_map, "draw_map"),
    "members": (_ask, "members"),
    "put": (_ask, "put"),
    "get": (_ask, "get"),
    "secstore": (_secstore, "secstore"),
    "status": (_ask, "status"),
    "plan": (_place, "plan"),
    "explain": (_place, "explain"),
    "place": (_place, "place"),
    "gang": (_gang, "gang"),
    "replicas": (_gang, "replicas"),
    "leases": (_place, "leases"),
    "drain": (_place, "drain"),
    "undrain": (_place, "undrain"),
    "usage": (_place, "usage"),
    "top": (_top, "top"),
    "config": (_config, "config"),
}
"""The commands in the order of `--help`: the module of each, and its name there."""


class LazyGroup(click.Group):
    """A group that imports a command when somebody wants it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in our order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        load, name = COMMANDS[cmd_name]
        command: click.Command = getattr(load(), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command named by the first word; a mistyped one gets a suggestion."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from dhtos.cli.about import kernels_in_use, own_version

        click.echo(f"dhtos-node {own_version()} ({kernels_in_use()} kernels)")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 2 usage or unreachable, 3 nothing found, 4 refused, 5 lease lost, "
    "6 incomplete answer with --require-complete.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and which kernels run.",
)
def app() -> None:
    """A fleet that describes itself: run a node on every machine, ask any of them.

    Start with `dhtos-node demo`, or with `dhtos-node run` on two machines.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; never with a traceback."""
    sys.exit(run_command(arguments))


def run_command(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        result = app.main(arguments, prog_name="dhtos-node", standalone_mode=False)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; leave quietly, also at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except (Exception, KeyboardInterrupt) as error:  # the last door before a traceback
        if os.environ.get("DHTOS_TRACEBACK"):
            print_exception(error)
        failure = explain(_innermost(error))
        click.echo(failure.lines(), err=True)
        return failure.code
    return result if isinstance(result, int) else 0


def _innermost(error: BaseException) -> BaseException:
    """The first error of a group of tasks."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
