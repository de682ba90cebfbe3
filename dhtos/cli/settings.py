"""The options of a node and where its settings come from: file, then environment, then options."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from dhtos.cli.wording import read_label, read_setting
from dhtos.node.config import Config

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--config",
        "config_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Settings from a TOML file; the environment (DHTOS_PORT=...) and options win.",
    ),
    click.option("--host", help="Address to listen on; :: for both families."),
    click.option("--port", type=int, help="UDP port, 0 for any free one."),
    click.option(
        "--seed", "seeds", multiple=True, metavar="HOST:PORT", help="A member to join through."
    ),
    click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where identity and known contacts are kept.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Advertise an attribute, as price=0.08 or mem=32GiB.",
    ),
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="KEY=VALUE",
        help="Advertise a label of your own, as team=video.",
    ),
    click.option("--group-size", type=int, help="Most machines that one node holds."),
    click.option(
        "--gateway",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="CSV",
        help="Advertise the machines of this file, which cannot run a node: a row each.",
    ),
    click.option(
        "--http",
        metavar="ADDRESS:PORT",
        help="Serve HTTP there, as 127.0.0.1:7480; port 0 for any free one.",
    ),
    click.option("--no-sample", is_flag=True, help="Advertise only what --set says."),
    click.option(
        "--accept",
        metavar="EXPR",
        help="Grant only such claims, as \"priority >= 5 and address.startswith('10.')\".",
    ),
    click.option(
        "--commands",
        is_flag=True,
        help="Run commands for who holds a lease; only on a loopback or private address.",
    ),
    click.option(
        "--control",
        "control_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The Unix socket for the other commands.",
    ),
)


_ASK_OPTIONS = (
    click.option(
        "--seed",
        "seeds",
        multiple=True,
        metavar="HOST:PORT",
        help="Ask through this member, without a node of our own.",
    ),
    click.option(
        "--visit",
        metavar="TOKEN",
        help="Ask another cluster, which welcomes ours, with what its guests token prints.",
    ),
    click.option(
        "--control",
        "control_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The Unix socket of the node to ask.  [default: the one that runs here]",
    ),
    click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Ask the node that keeps its state there.",
    ),
    click.option(
        "--config",
        "config_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The settings file of the node to ask.",
    ),
)


def ask_options(function: F) -> F:
    """The options that say whom to ask."""
    for option in reversed(_ASK_OPTIONS):
        function = option(function)
    return function


def ask_config(options: Mapping[str, Any]) -> tuple[Config, bool]:
    """The settings of an asking command, and whether it brings its own client.

    It does with `--seed` and `--visit`. Seeds of a file or of the environment are those of the
    daemon: they make no client, and lead to nobody in another cluster.
    """
    config = effective_config(options)
    given = bool(options.get("seeds"))
    if config.visit and not given:
        config = config.merged({"seeds": ()})
    return config, given or bool(config.visit)


def node_options(function: F) -> F:
    """The options that say what a node is."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def effective_config(
    options: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> Config:
    """The settings of `node_options`, over the environment, over the file, over the defaults.

    Raises ConfigError or UsageError naming the setting and where it comes from.
    """
    file = options.get("config_file")
    config = Config.from_toml(file) if file is not None else Config()
    config = Config.from_env(os.environ if environ is None else environ, config)
    changes: dict[str, Any] = {
        key: options[key]
        for key in (
            "host",
            "port",
            "state_dir",
            "group_size",
            "control_path",
            "gateway",
            "accept",
            "http",
            "visit",
        )
        if options.get(key) is not None
    }
    if options.get("seeds"):
        changes["seeds"] = tuple(options["seeds"])
    if options.get("commands"):
        changes["commands"] = True
    if options.get("no_sample"):
        changes["sample"] = False
    schema = config.schema_or_default
    told = dict(read_setting(schema, text) for text in options.get("settings", ()))
    if told:
        changes["advertise"] = {**config.advertise, **told}
    labels = dict(map(read_label, options.get("labels", ())))
    if labels:
        changes["labels"] = {**config.labels, **labels}
    return config.merged(changes, where="command line")
