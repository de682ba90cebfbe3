"""The ops of the control socket that let those of another cluster in, and keep them out again.

`guest_add` welcomes a cluster, `guest_remove` withdraws that, `guests` tells who is welcome, and
`guest_token` makes the token with which visitors find us. They are for the node that issues.
"""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from dhtos.core.limits import WELCOMES_MAX
from dhtos.errors import UsageError
from dhtos.node.arguments import Args, Lines, no_more, take, texts
from dhtos.node.enrolling import issuer_of
from dhtos.trust.member import Member
from dhtos.trust.token import ROOT_BYTES, Token
from dhtos.trust.welcome import Welcome

if TYPE_CHECKING:
    from dhtos.node.node import Node

Op = Callable[[Args], Lines]
_DAY_S = 86_400.0
_DAYS = 30.0
_OTHERS = 2  # seeds of a visitor's token beside our own: it is used for long


def guest_ops(node: "Node") -> dict[str, Op]:
    """Each op by its name."""

    async def add(args: Args) -> Lines:
        cluster = read_cluster(take(args, "cluster", str))
        caps, group = texts(args, "caps") or ["query"], take(args, "group", str, "")
        days = take(args, "days", float, _DAYS)
        no_more(args)
        yield {"end": welcome_to_plain(node, await _say(node, cluster, caps, group, days))}

    async def remove(args: Args) -> Lines:
        cluster = read_cluster(take(args, "cluster", str))
        no_more(args)
        known = _member(node).welcomes.get(cluster)
        if known is None or not known.caps:
            raise UsageError(
                f"the cluster {cluster.hex()} is not welcome: see dhtos-node guests list"
            )
        yield {"end": welcome_to_plain(node, await _say(node, cluster, [], "", 0))}

    async def guests(args: Args) -> Lines:
        no_more(args)
        issuer_of(node)
        found = [one for one in _member(node).welcomes.values() if one.caps]
        for one in found:
            yield {"item": welcome_to_plain(node, one)}
        yield {"end": {"guests": len(found)}}

    async def token(args: Args) -> Lines:
        no_more(args)
        issuer_of(node)
        yield {"end": {"token": str(visitors_token(node))}}

    return {"guest_add": add, "guest_remove": remove, "guests": guests, "guest_token": token}


async def _say(node: "Node", cluster: bytes, caps: list[str], group: str, days: float) -> Welcome:
    """Sign it, tell it, and keep it; raises UsageError."""
    issuer, member = issuer_of(node), _member(node)
    if cluster == member.root:
        raise UsageError("that is this cluster itself: dhtos-node user add lets somebody ask it")
    known = member.welcomes.get(cluster)
    if known is None and len(member.welcomes) >= WELCOMES_MAX:
        raise UsageError(
            f"{WELCOMES_MAX} clusters are welcome, or were in the last 90 days: wait, or let "
            "people in with dhtos-node user add"
        )
    after = 0 if known is None else known.begins
    said = await asyncio.to_thread(
        lambda: issuer.welcome(cluster, caps=caps, group=group, lasts_s=days * _DAY_S, after=after)
    )
    if not node.engine.revocations.welcome([said], node.driver.clock()):
        raise UsageError("that was changed just now: see dhtos-node guests list, and say it again")
    node.driver.flush()
    await node.save()
    return said


def visitors_token(node: "Node") -> Token:
    """What leads visitors to this cluster: no secret, and good for as long as one seed is there."""
    others = (contact.endpoint for contact in node.engine.base.contacts())
    own = node.advert.endpoint
    seeds = (own, *islice((one for one in others if one != own), _OTHERS))
    return Token.to_visit(_member(node).root, seeds)


def read_cluster(text: str) -> bytes:
    """A cluster's name, in hexadecimal or of a token of it; raises UsageError."""
    plain = text.strip().lower()
    if plain.startswith("dhtos"):
        return Token.parse(plain).root
    try:
        found = bytes.fromhex(plain)
    except ValueError:
        found = b""
    if len(found) != ROOT_BYTES:
        raise UsageError(
            f"a cluster is named by {2 * ROOT_BYTES} hex digits, as dhtos-node whoami shows them "
            f"there, or by its dhtos-node guests token, got {text[:60]!r}"
        )
    return found


def welcome_to_plain(node: "Node", welcome: Welcome) -> dict[str, object]:
    """What those of a cluster may here, and by whose word."""
    member = _member(node)
    signer = member.issuers.get(welcome.signer)
    return {
        "cluster": welcome.cluster.hex(),
        "caps": list(welcome.caps),
        "group": welcome.group,
        "begins": welcome.begins,
        "expires": welcome.expires,
        "issuer": "root" if signer is None else signer.name,
        "holds": member.is_welcome(welcome),
    }


def _member(node: "Node") -> Member:
    issuer_of(node)
    sessions = node.engine.core.sessions
    assert sessions is not None, "an issuer is of a cluster"
    return sessions.member
