"""The users of a cluster, in the network: put there by whoever admits them, found by all members.

The chain of a user is a value that its issuer owns, under the user's name: nobody else can write
there. Whoever asks looks at what each issuer says, and the newest counts. So no server has to be
asked who a user is, and what is found is believed as far as the root is; what is revoked or has
ended is nothing. Issuers keep those they have admitted alive (`dhtos.node.kept`).
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dhtos.core.limits import VALUE_TTL_S
from dhtos.core.value import is_printable
from dhtos.errors import KeyNotFound, MalformedMessage, UsageError
from dhtos.node.kept import Item, Kept
from dhtos.trust.cert import NAME_BYTES_MAX, Chain, parse_chain
from dhtos.trust.member import Member

if TYPE_CHECKING:
    from dhtos.node.keeper import Keeper
    from dhtos.node.node import Node
    from dhtos.protocol.put import PutResult

PATHS = 4  # disjoint paths to who holds a certificate: a fifth of liars does not hide it


def user_key(name: str) -> str:
    """Under which each issuer stores the certificates of a user."""
    return f"user:{name}"


async def open_kept(node: "Node", keeper: "Keeper", wall_clock: Callable[[], float]) -> Kept:
    """What a node of a cluster keeps alive; the users that it admits are among it."""

    async def put(item: Item) -> "PutResult":
        ttl_s = min(VALUE_TTL_S, item.until - wall_clock())
        owned = item.kind == "user"
        return await node.put(item.key, item.value, ttl_s=ttl_s, owned=owned, paths=PATHS)

    kept = Kept(
        put,
        await keeper.kept(),
        keeper.save_kept,
        wall_s=wall_clock,
        warn=lambda line: node.on_warning(line),
    )
    member = _member(node)
    kept.rules["user"] = lambda item: not _is_revoked(member, item)
    if node.admission is not None:
        node.admission.on_admitted = lambda chain: _admitted(node, kept, chain)
    return kept


async def find_user(node: "Node", name: str) -> Chain | None:
    """What a user of our cluster has to show; None where nobody of that name may anything now.

    Raises UsageError in open mode and for what is no name, Unreachable when nobody answers.
    """
    if not name or not is_printable(name, NAME_BYTES_MAX):
        raise UsageError(f"a user has a name of 1..{NAME_BYTES_MAX} printable bytes, got {name!r}")
    member = _member(node)
    issuers = list(member.issuers)
    asked = (_said(node, name, issuer) for issuer in issuers)
    found = await asyncio.gather(*asked, return_exceptions=True)
    chains = [chain for wire in found if (chain := read_user(member, name, wire)) is not None]
    if not chains:
        for failure in found:  # of others it is known that they have said nothing
            if isinstance(failure, BaseException):
                raise failure
    return max(chains, key=lambda chain: chain.leaf.not_before, default=None)


async def describe_user(node: "Node", name: str) -> dict[str, Any]:
    """Who a user is, in plain values; raises KeyNotFound, and as `find_user`."""
    chain = await find_user(node, name)
    if chain is None:
        raise KeyNotFound(
            f"{name!r} is no user of this cluster, or was put out, or its time is over: "
            f"use dhtos-node user add {name} to make a token"
        )
    return user_to_plain(chain)


async def _said(node: "Node", name: str, issuer: bytes) -> object:
    """What an issuer has stored about a user; None where it has not."""
    try:
        return (await node.get(user_key(name), owner=issuer, paths=PATHS)).value
    except KeyNotFound:
        return None


def read_user(member: Member, name: str, wire: object) -> Chain | None:
    """The chain of a user of this name, if it is one and is believed."""
    if not isinstance(wire, bytes):
        return None
    try:
        chain = member.read(wire)
    except MalformedMessage:
        return None
    leaf = chain.leaf
    is_user = chain.principal is leaf and not leaf.is_node and leaf.scopes("issue") == frozenset()
    return chain if is_user and leaf.name == name else None


def user_to_plain(chain: Chain) -> dict[str, Any]:
    """Who a user is."""
    leaf = chain.leaf
    return {
        "name": leaf.name,
        "groups": list(leaf.groups),
        "caps": list(leaf.caps),
        "begins": leaf.not_before,
        "expires": chain.expires,
        "issuer": chain.certs[-2].name if len(chain.certs) > 1 else "root",
        "serial": leaf.serial.hex(),
        "subject": leaf.subject.hex(),
    }


def _admitted(node: "Node", kept: Kept, chain: Chain) -> None:
    """Spread a user that was admitted just now; nodes advertise themselves."""
    leaf = chain.leaf
    if leaf.is_node:
        return
    try:
        kept.add(Item("user", user_key(leaf.name), chain.wire, chain.expires))
    except UsageError as error:
        node.on_warning(f"the user {leaf.name!r} was admitted and is not told to others: {error}")


def _member(node: "Node") -> Member:
    sessions = node.engine.core.sessions
    if sessions is None:
        raise UsageError(
            "this node is in open mode, which has no users: start a cluster with dhtos-node up"
        )
    return sessions.member


def _is_revoked(member: Member, item: Item) -> bool:
    return any(cert.serial in member.revoked for cert in parse_chain(item.value).certs)
