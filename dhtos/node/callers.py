"""Who is at the other end of a control socket that all users of the machine may open.

The kernel says which uid has connected (SO_PEERCRED, of Linux). The owner of the node and root may
all. Another's login name is looked up among the users of the cluster, and may what its certificate
says: nothing that a node or its owner does, only asking and claiming. What it claims the node
claims, in the name of the machine; so a capability that holds in some groups only is no use here.

A certificate that was found holds until it ends or is revoked, of which the node hears within
seconds; it is looked up again after AGAIN_S, since there may be another. That nobody was found is
believed for MISSING_S.
"""

import asyncio
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhtos.core.limits import CONTROL_GUESTS_MAX, CONTROL_PER_USER_MAX
from dhtos.errors import ConfigError, DhtosError, MalformedMessage, Refused, Unreachable, UsageError
from dhtos.node.control_trust import membership_to_plain
from dhtos.node.membership import Membership
from dhtos.trust.cert import Chain, Verb

if TYPE_CHECKING:
    from dhtos.node.node import Node

AGAIN_S = 10.0
MISSING_S = 2.0
USERS_MAX = 256  # uids of whom something is remembered
QUERY_OPS = frozenset(
    {
        *("find", "count", "sum", "histogram", "sample", "rtt", "closest", "within", "central"),
        *("members", "status", "explain", "plan", "get", "whoami", "user"),
    }
)
CLAIM_OPS = frozenset({"place", "gang", "replicas", "leases"})
_UCRED = struct.Struct("3i")  # pid, uid, gid: ucred of unix(7)
_OVERFLOW = Path("/proc/sys/kernel/overflowuid")


@dataclass(slots=True)
class _Known:
    """What was found out about a uid."""

    name: str
    chain: Chain | None
    looked: float  # when

    @property
    def good_s(self) -> float:
        return MISSING_S if self.chain is None else AGAIN_S


class Callers:
    """The users of this machine, as the cluster knows them."""

    def __init__(self, node: "Node", name_of: Callable[[int], str]) -> None:
        sessions = node.engine.core.sessions
        if sessions is None:
            raise ConfigError(
                "control_users lets users of a cluster ask, and this node is in open mode: "
                "start a cluster with dhtos-node up"
            )
        if not hasattr(socket, "SO_PEERCRED"):
            raise ConfigError(f"control_users needs Linux, and this is {sys.platform}")
        self._node = node
        self._member = sessions.member
        self._name_of = name_of
        self._known: dict[int, _Known] = {}
        self._looking: dict[int, asyncio.Lock] = {}
        self._connected: Counter[int] = Counter()

    def guest(self, writer: asyncio.StreamWriter) -> int | None:
        """The uid of whoever has connected; None for the node's owner and root, who may all."""
        sock = writer.get_extra_info("socket")
        _, uid, _ = _UCRED.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        return None if uid in (0, os.geteuid()) else int(uid)

    def enter(self, uid: int) -> None:
        """Count a connection; raises UsageError for one too many."""
        if self._connected[uid] >= CONTROL_PER_USER_MAX:
            raise UsageError(f"at most {CONTROL_PER_USER_MAX} connections of one user: try again")
        if self._connected.total() >= CONTROL_GUESTS_MAX:
            raise UsageError(f"at most {CONTROL_GUESTS_MAX} connections of users: try again")
        self._connected[uid] += 1

    def leave(self, uid: int) -> None:
        """A connection has ended."""
        self._connected[uid] -= 1
        if not self._connected[uid]:
            del self._connected[uid]
            self._looking.pop(uid, None)

    async def check(self, uid: int, op: str) -> Chain:
        """The certificates of a user who may ask this; raises Refused, and Unreachable."""
        chain = await self.chain(uid)
        verb = _verb(op)
        name = chain.leaf.name
        if verb is None:
            raise Refused(
                f"{op} is for the owner of this node, and {name} is a user: give the command as "
                "its owner"
            )
        scopes = chain.leaf.scopes(verb)
        if scopes is not None:
            where = f" but on machines of {', '.join(sorted(scopes))}" if scopes else ""
            raise Refused(
                f"{name} may not {verb}{where}: "
                f"use dhtos-node user add {name} --cap {verb} for another token"
            )
        return chain

    async def chain(self, uid: int) -> Chain:
        """The certificates of a user of this machine; raises Refused for who is none."""
        async with self._looking.setdefault(uid, asyncio.Lock()):
            known = self._known.get(uid)
            clock = asyncio.get_running_loop().time
            if known is None or clock() >= known.looked + known.good_s:
                known = await self._look(uid, known)
                known.looked = clock()
                self._remember(uid, known)
        chain = known.chain
        if chain is None or not self._is_believed(chain):
            name = known.name or f"uid {uid}"
            raise Refused(
                f"{name} is no user of this cluster: use dhtos-node user add {known.name or 'NAME'}"
            )
        return chain

    async def out(self, uid: int) -> Refused:
        """Wait until a user is none any more; why."""
        while True:
            await asyncio.sleep(1.0)
            known = self._known.get(uid)
            if known is not None and known.chain is not None and self._is_believed(known.chain):
                continue
            try:
                await self.chain(uid)
            except Refused as refused:
                return refused
            except DhtosError:
                continue  # nobody answers: tried again

    def whoami(self, chain: Chain) -> dict[str, Any]:
        """Who a user is, and through whom."""
        membership = self._node.membership
        assert membership is not None
        return membership_to_plain(Membership(chain)) | {"through": membership.chain.leaf.name}

    async def _look(self, uid: int, known: _Known | None) -> _Known:
        name = await asyncio.to_thread(self._name_of, uid)
        held = known.chain if known is not None and known.name == name else None
        if held is not None and not self._is_believed(held):
            held = None
        if not name:
            return _Known(name, None, 0.0)
        try:
            found = await self._node.user(name)
        except UsageError:  # a login name that no certificate can have
            found = None
        except Unreachable:
            if held is None:
                raise
            found = None
        return _Known(name, found or held, 0.0)

    def _remember(self, uid: int, known: _Known) -> None:
        self._known[uid] = known
        while len(self._known) > USERS_MAX:
            oldest = min(self._known, key=lambda one: self._known[one].looked)
            del self._known[oldest]
            self._looking.pop(oldest, None)

    def _is_believed(self, chain: Chain) -> bool:
        try:
            self._member.check(chain)
        except MalformedMessage:
            return False
        return True


def _verb(op: str) -> Verb | None:
    if op in QUERY_OPS:
        return "query"
    return "claim" if op in CLAIM_OPS else None


def login_name(uid: int) -> str:
    """What a machine calls a user; empty for whom it has no name. Blocks for name services.

    The uid that stands for all that have none here, as those of other containers, is nobody's.
    """
    import pwd

    try:
        if uid == int(_OVERFLOW.read_text()):
            return ""
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError, ValueError):
        return ""


def check_enterable(path: Path) -> None:
    """Raise ConfigError where others cannot come as far as a socket. Blocks for the disk."""
    for folder in path.resolve().parents:
        if not folder.stat().st_mode & 0o001:
            raise ConfigError(
                f"control_users: others cannot enter {folder}: use chmod o+x {folder}, or another "
                "control_path, as /run/dhtos/control.sock"
            )
