"""The `run` command: the daemon. Imports nothing that draws; says one line when it is ready."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from dhtos.cli.about import kernels_in_use, own_version
from dhtos.cli.loop import run_loop
from dhtos.cli.settings import effective_config, node_options
from dhtos.errors import ConfigError, NoPeers
from dhtos.node.address import outward
from dhtos.node.config import Config
from dhtos.node.control import default_control_path
from dhtos.node.membership import is_member_home, member_home
from dhtos.transport.udp import parse_host

if TYPE_CHECKING:
    from dhtos.http import HttpServer
    from dhtos.node.node import Node

READY_S = 10.0  # a node that still joins after this time is announced anyway
RETRY_S = 2.0
RETRY_S_MAX = 30.0


@click.command()
@node_options
@click.option("--wait", is_flag=True, help="Keep trying while no seed answers.")
@click.option("--open", "open_mode", is_flag=True, help="Be no member of a cluster; see --i-know.")
@click.option("--i-know", is_flag=True, help="Be open even on an address that all can reach.")
@click.option("--json", "as_json", is_flag=True, help="The ready line as JSON.")
def run(
    *,
    wait: bool,
    open_mode: bool,
    i_know: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Run a node on this machine until SIGTERM or SIGINT.

    With the directory of a member of a cluster (`dhtos-node up`, `join`) it is that member. Else it
    is in open mode: the first node of a fleet needs no seed, every other one joins through any
    member, and whoever reaches the port may come. The node measures this machine and advertises
    it, answers for others, and takes questions from the other commands on this machine.
    """
    config = effective_config(options).merged({"control": True}, where="command line")
    home = None if open_mode and config.state_dir is None else member_home(config.state_dir)
    if home is None or not is_member_home(home):
        check_open(config, i_know=i_know)
        if not open_mode and sys.stderr.isatty():
            _say("warning: open mode: whoever reaches the port may join; dhtos-node up does not")
    elif open_mode:
        raise ConfigError(
            f"state_dir {home} is of a member of a cluster: leave --open out, or choose another "
            "directory with --state-dir"
        )
    if home != config.state_dir:
        config = config.merged({"state_dir": home})
    run_loop(serve(config, wait=wait, as_json=as_json))


def check_open(config: Config, *, i_know: bool) -> None:
    """Raise ConfigError where a node in open mode would let in the whole internet."""
    host = config.advertise_host or config.host
    address = parse_host(host)
    if address.is_unspecified:
        host = outward()
        address = parse_host(host)
    if address.is_global and not i_know:
        raise ConfigError(
            f"whoever reaches {host} could join, which is everybody: make a cluster with "
            "dhtos-node up, give --host a private address, or say --i-know"
        )


async def serve(
    config: Config,
    *,
    wait: bool = False,
    as_json: bool = False,
    on_ready: Callable[["Node"], Awaitable[None]] | None = None,
) -> None:
    """Start, announce, wait for a signal, leave with a goodbye."""
    from dhtos.node.node import Node

    leaving = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)
    delay_s = RETRY_S
    async with _http(config) as http:
        while not leaving.is_set():
            node = Node(config)
            node.on_warning = lambda text: _say(f"warning: {text}")
            try:
                started = await _start(node, leaving)
            except NoPeers as error:
                if not wait:
                    raise
                _say(f"warning: {error}; asking again in {delay_s:.0f} s")
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await leaving.wait()
                delay_s = min(2 * delay_s, RETRY_S_MAX)
                continue
            try:
                if started:
                    if http is not None:
                        await http.start(node)
                    _announce(node, http, as_json=as_json)
                    if on_ready is not None:
                        await on_ready(node)
                    await leaving.wait()
            finally:
                if http is not None:
                    await http.aclose()
                await node.aclose()
            return


@asynccontextmanager
async def _http(config: Config) -> AsyncIterator["HttpServer | None"]:
    """Take the port before anybody is told of this node; raises ConfigError."""
    if config.http is None:
        yield None
        return
    try:
        from dhtos.http import HttpServer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "dhtos":
            raise
        raise ConfigError(
            f"http needs {error.name}, which is not installed: use pip install 'dhtos[http]'"
        ) from error
    http = await asyncio.to_thread(HttpServer, config)
    try:
        yield http
    finally:
        await http.aclose()


async def _start(node: "Node", leaving: asyncio.Event) -> bool:
    """Start the node and wait for its place; False when a signal came first."""
    starting = asyncio.ensure_future(_settle(node))
    signalled = asyncio.ensure_future(leaving.wait())
    try:
        await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return False
        starting.result()
        return True
    finally:
        starting.cancel()
        signalled.cancel()
        await asyncio.gather(starting, signalled, return_exceptions=True)


async def _settle(node: "Node") -> None:
    await node.start()
    with suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            await node.joined()


def _announce(node: "Node", http: "HttpServer | None", *, as_json: bool) -> None:
    for warning in node.warnings:
        _say(f"warning: {warning}")
    config = node.config
    path = config.control_path or default_control_path(config.state_dir, node.port)
    facts = {
        "id": str(node.id),
        "endpoint": node.endpoint,
        "control": str(path),
        "kernels": kernels_in_use(),
    }
    if http is not None:
        facts["http"] = http.url
    if as_json:
        line = json.dumps({"ready": True, **facts, "version": own_version()})
    else:
        line = "ready " + " ".join(f"{name}={value}" for name, value in facts.items())
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
