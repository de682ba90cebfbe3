"""The `demo` command."""

from pathlib import Path

import click


@click.command()
@click.option("--nodes", default=120, show_default=True, type=click.IntRange(2, 2000))
@click.option("--seed", type=int, help="Draw the same fleet again.  [default: a new one]")
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Machines from any CSV file with a header.  [default: 2,478 cloud instance types]",
)
@click.option(
    "--group-size",
    default=32,
    show_default=True,
    type=click.IntRange(8, 1024),
    help="How many machines a node knows at most.",
)
@click.option(
    "--processes",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Processes that the nodes are spread over.",
)
@click.option(
    "--open", "open_mode", is_flag=True, help="Without certificates and encryption, to compare."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document, nothing else.")
def demo(
    *,
    nodes: int,
    seed: int | None,
    data: Path | None,
    group_size: int,
    processes: int,
    open_mode: bool,
    as_json: bool,
) -> None:
    """Start a secured fleet on this machine, ask it, kill 30 % of it, ask again.

    Every answer stands beside the truth, found by looking at every machine; a wrong answer makes
    the command fail.
    """
    from dhtos.cli.demo import DemoOptions, run_demo
    from dhtos.cli.screen import Screen

    options = DemoOptions(nodes, seed, data, group_size, processes, open_mode)
    run_demo(options, Screen(as_json=as_json))
