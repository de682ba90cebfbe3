"""The commands of a cluster: make one, join it, let others in, and say who one is."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Any

import click

from dhtos.cli.asking import Plain, control_path
from dhtos.cli.commands_ask import json_option
from dhtos.cli.loop import run_loop
from dhtos.cli.run import RETRY_S, RETRY_S_MAX, serve
from dhtos.cli.screen import Column, Screen
from dhtos.cli.settings import effective_config, node_options
from dhtos.cli.wording import age_text, plural, read_period
from dhtos.core.limits import INVITE_S_MAX, INVITE_USES_MAX
from dhtos.errors import NoPeers, Unreachable, UsageError
from dhtos.node.address import LOOPBACK
from dhtos.node.advice import split
from dhtos.node.authority import INVITES
from dhtos.node.config import Config
from dhtos.node.control import ControlClient
from dhtos.node.control_trust import membership_to_plain
from dhtos.node.enrolling import join_cluster, make_token
from dhtos.node.founding import found_cluster
from dhtos.node.membership import (
    Membership,
    default_home,
    is_member_home,
    member_home,
    read_credentials,
)
from dhtos.node.root import ISSUERS, ISSUERS_MADE_MAX
from dhtos.node.ssh_agent import AgentKey, agent_keys, choose_key
from dhtos.transport.udp import parse_host
from dhtos.trust.cert import NAME_BYTES_MAX
from dhtos.trust.token import Token

_DAY_S = 86_400.0

name_option = click.option(
    "--name", metavar="NAME", help="What certificates call this machine.  [default: its host name]"
)
uses_option = click.option(
    "--uses",
    default=1,
    show_default=True,
    type=click.IntRange(1, INVITE_USES_MAX),
    help="How many may come with the token.",
)
ttl_option = click.option(
    "--ttl",
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How long the token is good, as 30min, 12h, 7d.",
)
group_option = click.option(
    "--group", "groups", multiple=True, metavar="GROUP", help="A group of whoever comes."
)
cap_option = click.option(
    "--cap",
    "caps",
    multiple=True,
    metavar="VERB[:GROUP]",
    help="What whoever comes may do, in place of the usual: query, publish, claim, run.",
)
control_option = click.option(
    "--control",
    "control_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The Unix socket of the node to ask.  [default: the one that runs here]",
)
state_option = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The directory of the node, or of the user.",
)


@click.command()
@node_options
@name_option
@uses_option
@ttl_option
@click.option(
    "--issuers",
    type=click.IntRange(1, ISSUERS_MADE_MAX),
    help=f"How many machines admit others: this one, and the next to join.  [default: {ISSUERS}]",
)
@click.option("--json", "as_json", is_flag=True, help="Both lines as JSON.")
def up(
    *,
    name: str | None,
    issuers: int | None,
    uses: int,
    ttl: str,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Make a cluster on this machine and run its first node, which admits the others.

    All that members say to each other is sealed, and nobody else is answered. The line after
    `ready` is the command that a new machine needs. The first machines that join admit others, too,
    so that any of them may be lost. Started again, the node just runs.
    """
    config = _daemon_config(options)
    seconds = read_ttl(ttl)
    assert config.state_dir is not None
    wanted = issuers or (None if is_member_home(config.state_dir) else ISSUERS)
    found_cluster(config.state_dir, own_name(config, name), time.time(), issuers=wanted)
    invited = (config.state_dir / INVITES).exists()

    async def invite(node: Any) -> None:  # noqa: ANN401 - the node of serve
        token = await make_token(node, uses=uses, ttl_s=seconds)
        screen = Screen(as_json=as_json)
        _show_token(screen, str(token), uses, seconds)
        if is_lonely(config, node.endpoint):
            screen.warn(
                "warning: no way to other machines was found, so the token is good on this one "
                "only: give --host an address of this machine"
            )

    run_loop(serve(config, as_json=as_json, on_ready=None if invited else invite))


@click.command()
@click.argument("token")
@node_options
@name_option
@click.option("--wait", is_flag=True, help="Keep trying while nobody answers.")
@click.option("--agent", is_flag=True, help="Of a user: keep the key in ssh-agent.")
@click.option(
    "--agent-key", metavar="COMMENT", help="Which of several in ssh-agent, or its fingerprint."
)
@click.option("--json", "as_json", is_flag=True, help="The ready line as JSON.")
def join(
    *,
    token: str,
    name: str | None,
    wait: bool,
    agent: bool,
    agent_key: str | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Join a cluster with a token: dhtos-node join dhtos1-...

    With the token of a machine this one is admitted, and runs from then on as with
    `dhtos-node run`. With the token of a user it may ask from then on, and the command ends; with
    --agent the user's key is one of ssh-agent, which signs and never lets go of it.
    """
    read = Token.parse(token)
    config = _daemon_config(options)
    assert config.state_dir is not None
    held = choose_key(agent_keys(), agent_key or "") if agent or agent_key else None
    membership = run_loop(_join(config, read, own_name(config, name), held, wait=wait))
    if membership.chain.leaf.is_node:
        run_loop(serve(config, wait=wait, as_json=as_json))
        return
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(membership_to_plain(membership))
        return
    _show_member(screen, membership_to_plain(membership))
    where = "" if config.state_dir == default_home() else f" --state-dir {config.state_dir}"
    screen.say(f'ask as this user with: dhtos-node find "cores >= 1"{where}')


@click.command()
@uses_option
@ttl_option
@group_option
@cap_option
@click.option(
    "--days", type=click.FloatRange(0, min_open=True), help="How long the certificates hold."
)
@click.option("--list", "listing", is_flag=True, help="Show the tokens that may still be used.")
@click.option("--revoke", metavar="ID", help="Admit nobody more with that token.")
@state_option
@control_option
@json_option
def invite(
    *,
    uses: int,
    ttl: str,
    groups: tuple[str, ...],
    caps: tuple[str, ...],
    days: float | None,
    listing: bool,
    revoke: str | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Make a token with which machines may join the cluster of this node.

    Only the machine that made the cluster makes tokens. Whoever has the token gets in, until it is
    used up, has ended, or is revoked: send it as you would send a password.
    """
    screen = Screen(as_json=as_json)
    if revoke is not None:
        done = ask_node(options, "uninvite", prefix=revoke)
        screen.document(done) if as_json else screen.say(f"revoked {done['id']}")
        return
    if listing:
        _list(screen, options)
        return
    seconds = read_ttl(ttl)
    told: Plain = {"uses": uses, "ttl_s": seconds, "groups": [*groups], "caps": [*caps]}
    if days is not None:
        told["lifetime_s"] = days * _DAY_S
    token = ask_node(options, "invite", **told)["token"]
    _show_token(screen, token, uses, seconds)


@click.group()
def user() -> None:
    """Let people ask the cluster from machines that are no members."""


@user.command()
@click.argument("name")
@ttl_option
@group_option
@cap_option
@click.option(
    "--hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="How long the certificate holds.",
)
@state_option
@control_option
@json_option
def add(
    *,
    name: str,
    ttl: str,
    groups: tuple[str, ...],
    caps: tuple[str, ...],
    hours: float,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Make a token for a user, who may query and claim unless --cap says otherwise."""
    seconds = read_ttl(ttl)
    if not name.strip():
        raise UsageError("a user has a name: give it as NAME")
    told: Plain = {"kind": "user", "name": name, "groups": [*groups], "caps": [*caps]}
    told |= {"ttl_s": seconds, "lifetime_s": hours * 3600.0}
    token = ask_node(options, "invite", **told)["token"]
    _show_token(Screen(as_json=as_json), token, 1, seconds)


@click.command()
@state_option
@control_option
@json_option
def whoami(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Say who this machine or user is in its cluster: name, groups, capabilities, until when."""
    home = None if options["control_path"] else member_home(options["state_dir"])
    if home is not None:
        known = membership_to_plain(read_credentials(home)[1])
    else:
        known = ask_node(options, "whoami")
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(known)
    else:
        _show_member(screen, known)


async def _join(
    config: Config, token: Token, name: str, agent_key: AgentKey | None, *, wait: bool
) -> Membership:
    """Be admitted; with `wait` also by somebody who is not there yet."""
    assert config.state_dir is not None
    delay_s = RETRY_S
    while True:
        try:
            return await join_cluster(
                config.state_dir,
                token,
                host=config.host,
                name=name,
                wall_clock=time.time,
                agent_key=agent_key,
            )
        except NoPeers as error:
            if not wait:
                raise
            click.echo(f"warning: {error}; asking again in {delay_s:.0f} s", err=True)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_S_MAX)


def _daemon_config(options: Plain) -> Config:
    """The settings of a node that keeps its membership somewhere."""
    config = effective_config(options).merged({"control": True}, where="command line")
    if config.state_dir is None:
        config = config.merged({"state_dir": default_home()})
    return config


def is_lonely(config: Config, endpoint: str) -> bool:
    """Whether others were to come, and nothing leads here."""
    return parse_host(config.host).is_unspecified and endpoint.startswith(f"{LOOPBACK}:")


def read_ttl(text: str) -> float:
    """How long a token is good, in seconds; raises UsageError."""
    seconds = read_period(text)
    if seconds > INVITE_S_MAX:
        raise UsageError(f"a token is good for at most {INVITE_S_MAX / _DAY_S:.0f}d, got {text!r}")
    return seconds


def own_name(config: Config, name: str | None) -> str:
    """What certificates call this machine; raises UsageError."""
    chosen = name or config.name or gethostname()[:NAME_BYTES_MAX]
    if len(chosen.encode()) > NAME_BYTES_MAX or not chosen.isprintable():
        raise UsageError(f"--name takes 1..{NAME_BYTES_MAX} printable bytes, got {chosen!r}")
    return chosen


def ask_node(options: Plain, op: str, **told: Any) -> Plain:  # noqa: ANN401 - arguments of an op
    """Ask the node of this machine."""

    async def ask() -> Plain:
        async with ControlClient(control_path(effective_config(options))) as client:
            return await client.call(op, **told)

    try:
        return run_loop(ask())
    except Unreachable as error:
        if type(error) is not Unreachable:
            raise  # the node is there, and others are not
        fact, _ = split(str(error))
        raise Unreachable(f"{fact}: start the first of a cluster with dhtos-node up") from error


def _list(screen: Screen, options: Plain) -> None:
    async def ask() -> list[Plain]:
        async with ControlClient(control_path(effective_config(options))) as client:
            return [one async for one in client.ask("invites")]

    found = run_loop(ask())
    if screen.as_json:
        screen.document({"invites": found})
        return
    rows = [
        [
            one["id"][:12],
            one["kind"],
            one["name"] or "-",
            str(one["uses"]),
            age_text(max(0.0, one["expires"] - time.time())),
            ",".join(one["groups"]) or "-",
            ",".join(one["caps"]),
        ]
        for one in found
    ]
    names = ("id", "for", "name", "uses left", "ends in", "groups", "may")
    screen.table([Column(name) for name in names], rows, plural(len(rows), "open token"))


def _show_token(screen: Screen, token: str, uses: int, seconds: float) -> None:
    """What to type on the machine that is to join; nothing else where a program reads it."""
    if screen.as_json:
        screen.line({"token": token, "uses": uses, "ttl_s": seconds})
        return
    screen.say(f"dhtos-node join {token}")
    if screen.out.isatty():
        screen.warn(
            f"good for {plural(uses, 'use')} within {time_left(seconds)}: a secret until then"
        )


def _show_member(screen: Screen, known: Plain) -> None:
    ends = datetime.fromtimestamp(known["expires"], UTC)
    left = known["expires"] - time.time()
    ahead = f"in {time_left(left)}" if left > 0 else "which is over"
    rows = [
        [known["kind"], known["name"]],
        ["groups", ", ".join(known["groups"]) or "-"],
        ["may", ", ".join(known["caps"])],
        ["chain", " > ".join(["root", *known["chain"]])],
        ["ends", f"{ends:%Y-%m-%d %H:%M} UTC, {ahead}"],
        ["cluster", known["cluster"]],
    ]
    if "through" in known:
        rows.append(["through", known["through"]])
    screen.table((Column("who"), Column("is")), rows)


def time_left(seconds: float) -> str:
    """A time ahead, in the largest unit that says it well."""
    for size, noun in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return plural(round(seconds / size), noun)
    return plural(round(seconds), "second")
