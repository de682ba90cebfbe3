"""Making issuers, unmaking them, and putting members out, on a running loop.

The root signs where it is; the member that becomes an issuer is told over the network, writes its
new chain down, and admits from then on (`dhtos.protocol.promotion`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dhtos.core.hit import Hit
from dhtos.core.ids import Endpoint, NodeId
from dhtos.errors import ConfigError, Refused, Unreachable, UsageError
from dhtos.node.authority import Issuer
from dhtos.node.enrolling import issuer_of
from dhtos.node.naming import named
from dhtos.node.root import Locked, no_root, read_root, where_is_root
from dhtos.protocol.enrol import declined
from dhtos.protocol.promotion import Promotion, hand_over
from dhtos.protocol.rpc import Deferred
from dhtos.protocol.sessions import Sessions
from dhtos.trust.cert import Cert, Chain, parse_chain

if TYPE_CHECKING:
    from dhtos.node.node import Node

WallClock = Callable[[], float]


async def open_promotion(node: "Node", wall_clock: WallClock) -> None:
    """Become an issuer when somebody hands this member the chain for it."""
    core = node.engine.core
    admission = node.admission
    assert admission is not None
    if admission.issuer is not None:
        await asyncio.to_thread(_try_root, node, admission.issuer)

    def take(chain: Chain) -> Deferred:
        deferred = Deferred()
        admission.background.spawn(answer(chain, deferred))
        return deferred

    async def answer(chain: Chain, deferred: Deferred) -> None:
        try:
            await become_issuer(node, chain, wall_clock)
        except (ConfigError, OSError):  # with paths of this machine
            reply = declined("it cannot write that down: tell its owner", final=True)
        else:
            reply = []
        core.answer(deferred, reply)
        node.driver.flush()

    Promotion(core, take)


def _try_root(node: "Node", issuer: Issuer) -> None:
    """Say that nobody is made an issuer where the root is locked, and somebody would be."""
    directory = node.config.state_dir
    assert directory is not None, "an issuer has a directory"
    try:
        read_root(directory, issuer.passphrase)
    except Locked as error:
        if issuer.makes_issuers():
            node.on_warning(f"machines that join are made no issuers: {error}")


async def become_issuer(node: "Node", chain: Chain, wall_clock: WallClock) -> None:
    """Show this chain from now on, and admit others; raises ConfigError."""
    admission, directory = node.admission, node.config.state_dir
    assert admission is not None
    if directory is None:
        raise ConfigError("an issuer keeps what it promised: give it a directory with --state-dir")
    issuer = admission.issuer
    if issuer is None:
        key = _sessions(node).member.key
        issuer = await asyncio.to_thread(Issuer, directory, key, chain, wall_s=wall_clock)
    await node.renewed(chain)
    if admission.issuer is None:  # or it was told twice
        admission.begin(issuer)
    assert admission.issuer is not None
    admission.issuer.go_on(chain)
    node.engine.revocations.spread()
    node.driver.flush()


async def promote(node: "Node", who: str, passphrase: str = "") -> Chain:
    """Make a member an issuer: by name, by id, or by the first digits of one.

    Raises UsageError where the root is not here or nobody is called so, Unreachable and Refused
    where that member does not take it.
    """
    issuer, directory = issuer_of(node), node.config.state_dir
    assert directory is not None, "an issuer has a directory"
    if await asyncio.to_thread(where_is_root, directory) == "none":
        raise no_root(directory)
    node_id = await _machine(node, issuer, who)
    endpoint = await _endpoint(node, node_id)
    core, driver = node.engine.core, node.driver
    shown = await driver.wait(hand_over(core, endpoint, b"", driver.clock()))
    if not shown.leaf.is_node or shown.node_id() != node_id:
        raise Unreachable(f"another machine answers at the address of {who!r}: try again later")
    member = _sessions(node).member
    known = member.introductions().get(shown.leaf.subject)
    if known is not None and not member.is_outdated(parse_chain(known)):
        raise UsageError(f"{shown.leaf.name!r} is an issuer already: see dhtos-node whoami there")
    chain = await asyncio.to_thread(issuer.promote, shown.leaf, passphrase)
    await driver.wait(hand_over(core, endpoint, chain.wire, driver.clock()))
    node.engine.revocations.introduce([chain.wire])
    driver.flush()
    return chain


@dataclass(frozen=True, slots=True)
class Rotated:
    """What came of a new root: who has a certificate of it, who has not, and the old one's end."""

    done: list[str]
    waiting: list[str]
    ends: int


async def rotate(node: "Node", keep_s: float, passphrase: str = "") -> Rotated:
    """Make a new root, whose predecessor's word holds for so many seconds, and issuers of it.

    Raises UsageError. Members have theirs renewed as they hear of it.
    """
    issuer, directory = issuer_of(node), node.config.state_dir
    assert directory is not None, "an issuer has a directory"
    if await asyncio.to_thread(where_is_root, directory) == "none":
        raise no_root(directory)
    member, core, driver = _sessions(node).member, node.engine.core, node.driver
    others = [parse_chain(wire).leaf for wire in member.introductions().values()]
    revoked = member.revoked_by_roots()
    own, again = await asyncio.to_thread(issuer.rotate, keep_s, revoked, passphrase)
    node.engine.revocations.introduce([own.wire])  # before anybody is shown what it signed
    await node.renewed(own)
    await node.revoke_members(again)
    done, waiting = [own.leaf.name], []
    for leaf in others:
        if leaf.subject == own.leaf.subject:
            continue
        try:
            chain = await asyncio.to_thread(issuer.promote, leaf, passphrase)
            endpoint = await _endpoint(node, chain.node_id())
            await driver.wait(hand_over(core, endpoint, chain.wire, driver.clock()))
        except (Unreachable, Refused):
            waiting.append(leaf.name)
        else:
            node.engine.revocations.introduce([chain.wire])
            done.append(leaf.name)
    driver.flush()
    return Rotated(done, waiting, own.heirs[-1].ends)


async def put_out(
    node: "Node", who: str, *, issuer: bool = False, passphrase: str = ""
) -> list[str]:
    """Take back what somebody holds, also whom another issuer admitted; the serial numbers.

    By name, id, first digits of one, or serial number; raises UsageError.
    """
    authority, seen = issuer_of(node), _seen(node)
    if not await asyncio.to_thread(authority.held_by, who, seen):
        found = await _named(node, who)
        if found is not None:
            who = str(NodeId(found))
            seen = _seen(node)  # also what was looked up
    taken = await asyncio.to_thread(
        lambda: authority.revoke(who, seen, issuer=issuer, passphrase=passphrase)
    )
    await node.revoke_members(taken)
    return [one.serial.hex() for one in taken]


async def _machine(node: "Node", issuer: Issuer, who: str) -> bytes:
    """The id of the machine that somebody means; raises UsageError."""
    held = await asyncio.to_thread(issuer.held_by, who, _seen(node))
    found = bytes.fromhex(held[0].id) if held else await _named(node, who)
    if found is None:
        raise UsageError(
            f"no machine is called {who!r}: give the name of its certificate, its id, or the first "
            "digits of that as dhtos-node members shows them"
        )
    if found == node.engine.id:
        raise UsageError("that is this node itself, which issues already")
    return found


async def _named(node: "Node", who: str) -> bytes | None:
    """The id of a machine by its label or by digits; raises UsageError for several."""
    if who == "self":
        return node.engine.id
    try:
        where = await named(node, who)
    except UsageError as error:
        if "several" in str(error):
            raise
        return None
    if isinstance(where, Hit):
        where = where.id
    return bytes(where) if isinstance(where, NodeId) else None


async def _endpoint(node: "Node", node_id: bytes) -> Endpoint:
    """Where a machine is; raises Unreachable."""
    for endpoint, chain in _sessions(node).shown().items():
        if chain.leaf.is_node and chain.node_id() == node_id:
            return endpoint
    for member in node.engine.hub.members():
        if member.record.node_id == node_id and not member.record.is_foreign:
            return member.record.endpoint
    near = node.engine.base.find_contacts(node_id, node.driver.clock())
    for contact in await node.driver.wait(near):
        if contact.id == node_id:
            return contact.endpoint
    raise Unreachable(f"machine {node_id.hex()} is not found: is it running?")


def _seen(node: "Node") -> list[Cert]:
    """The certificates of whom this node speaks with, and of the records that it holds or read."""
    sessions = _sessions(node)
    own = sessions.member.chain
    assert own is not None
    shown = [chain.principal for chain in sessions.shown().values()]
    return [own.leaf, *shown, *sessions.member.certificates()]


def _sessions(node: "Node") -> Sessions:
    sessions = node.engine.core.sessions
    assert sessions is not None, "an issuer is of a cluster"
    return sessions
