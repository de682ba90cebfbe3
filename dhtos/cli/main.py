"""`dhtos-node`: the entry point, and the one place where errors become exit codes.

Commands are imported when they are called: a daemon must not carry what draws tables.
"""

import os
import sys
from collections.abc import Callable, Mapping
from traceback import print_exception

import click

from dhtos.cli.failure import explain

Loader = Callable[[], click.Command]


def _run() -> click.Command:
    from dhtos.cli.run import run

    return run


def _demo() -> click.Command:
    from dhtos.cli.commands_demo import demo

    return demo


def _config() -> click.Command:
    from dhtos.cli.commands_config import config

    return config


def _top() -> click.Command:
    from dhtos.cli.commands_top import top

    return top


def _near(name: str) -> Loader:
    def load() -> click.Command:
        import dhtos.cli.commands_near as commands

        command: click.Command = getattr(commands, name)
        return command

    return load


def _map() -> click.Command:
    from dhtos.cli.commands_map import draw_map

    return draw_map


def _asking(name: str) -> Loader:
    def load() -> click.Command:
        import dhtos.cli.commands_ask as commands

        command: click.Command = getattr(commands, name)
        return command

    return load


def _sum() -> click.Command:
    from dhtos.cli.commands_figures import sum_figures

    return sum_figures


def _histogram() -> click.Command:
    from dhtos.cli.commands_figures import histogram

    return histogram


def _placing(name: str) -> Loader:
    def load() -> click.Command:
        import dhtos.cli.commands_place as commands

        command: click.Command = getattr(commands, name)
        return command

    return load


COMMANDS: Mapping[str, Loader] = {
    "run": _run,
    "demo": _demo,
    **{name: _asking(name) for name in ("find", "count")},
    "sum": _sum,
    "histogram": _histogram,
    **{name: _near(name) for name in ("rtt", "closest", "central")},
    "map": _map,
    **{name: _asking(name) for name in ("members", "put", "get", "status")},
    **{name: _placing(name) for name in ("plan", "explain", "place")},
    **{name: _placing(name) for name in ("leases", "drain", "undrain")},
    "top": _top,
    "config": _config,
}
"""The commands in the order of `--help`, and how each is loaded."""


class LazyGroup(click.Group):
    """A group that imports a command when somebody wants it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in our order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        load = COMMANDS.get(cmd_name)
        return load() if load is not None else None

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
