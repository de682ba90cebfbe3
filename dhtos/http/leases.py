"""Leases held for clients that speak HTTP: the node renews them while their client does.

    POST -> held -> renewed within ttl_s, again and again -> released by DELETE
                 -> not renewed                           -> released by the node
                 -> lost (the machine took it back, or was silent)  -> told to the next who asks

Two terms run one behind the other: the client's towards this node, and this node's towards the
machine, which it renews at a third. A client that dies is noticed by the first, a node by the
second.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from dhtos.core.limits import HTTP_LEASES_GONE_MAX, HTTP_LEASES_MAX
from dhtos.errors import LeaseLost, Preempted
from dhtos.http.problems import HttpError
from dhtos.node.background import Background
from dhtos.node.lease import Lease, Placement


@dataclass(slots=True, eq=False)
class Held:
    """A lease, and the timer that ends it unless its client is heard."""

    lease: Lease
    ttl_s: float
    timer: asyncio.TimerHandle


class HeldLeases:
    """The leases of all clients, by token."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._gone: OrderedDict[str, tuple[LeaseLost, Lease]] = OrderedDict()
        self._placing = 0
        self._background = Background()

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    async def place(self, placement: Placement[Lease], ttl_s: float) -> Held:
        """Claim, and hold what is granted; raises as `Node.place`, HttpError where too many are."""
        if len(self._held) + self._placing >= HTTP_LEASES_MAX:
            raise HttpError(
                503,
                f"at most {HTTP_LEASES_MAX} leases are held for clients",
                "release some, or ask another node",
            )
        self._placing += 1
        try:
            lease = await placement
        finally:
            self._placing -= 1
        held = Held(lease, ttl_s, self._timer(lease.token, ttl_s))
        self._held[lease.token] = held
        self._background.spawn(self._watch(held))
        return held

    def _timer(self, token: str, ttl_s: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(ttl_s, self._expire, token)

    def _expire(self, token: str) -> None:
        held = self._held.pop(token)
        silent = LeaseLost(f"its client did not renew it within {held.ttl_s:g} s")
        self._bury(held.lease, silent)
        self._background.spawn(held.lease.release())

    async def _watch(self, held: Held) -> None:
        """Wait for its end, whoever brings it about."""
        try:
            await held.lease.ended()
        except LeaseLost as error:
            self._bury(held.lease, error)
        finally:
            held.timer.cancel()
            self._held.pop(held.lease.token, None)

    def _bury(self, lease: Lease, why: LeaseLost) -> None:
        if len(self._gone) >= HTTP_LEASES_GONE_MAX:
            self._gone.popitem(last=False)
        self._gone[lease.token] = why, lease

    def find(self, token: str) -> Held:
        """The lease of that token; raises LeaseLost where it was, HttpError where none is known."""
        held = self._held.get(token)
        if held is not None:
            return held
        if token in self._gone:
            why, lease = self._gone[token]
            if isinstance(why, Preempted):
                raise Preempted(str(why), lease.expires_s)
            raise LeaseLost(str(why))
        raise HttpError(
            404,
            f"no lease with the token {token!r} is held here",
            "it was released, or placed through another node",
        )

    def renew(self, token: str) -> Held:
        """Its client was heard: another term begins. Raises as `find`."""
        held = self.find(token)
        held.timer.cancel()
        held.timer = self._timer(token, held.ttl_s)
        return held

    async def release(self, token: str) -> None:
        """Give it back; raises as `find`.

        What was lost to something of a higher priority is given back too, and sooner than it must.
        """
        if token in self._gone:
            await self._gone[token][1].release()
        held = self.find(token)
        del self._held[token]
        held.timer.cancel()
        await held.lease.release()

    async def aclose(self) -> None:
        """Give all of them back."""
        held = list(self._held.values())
        await self._background.aclose()
        for one in held:
            one.timer.cancel()
            await one.lease.release()
