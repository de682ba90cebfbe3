"""What HTTP asks of a node, through the ops that the control socket has too."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from dhtos.adapters.kubernetes import Extender, Settings
from dhtos.core.schema import Schema
from dhtos.http.leases import Held, HeldLeases
from dhtos.http.problems import HttpError
from dhtos.http.shapes import CountQuery, FindQuery, NeedBody, Nothing, PlaceBody, PlanBody
from dhtos.node.arguments import Args
from dhtos.node.control_ops import Ops
from dhtos.node.control_place import need_of
from dhtos.node.node import Node
from dhtos.node.plain_place import lease_to_plain
from dhtos.node.values import read_value
from dhtos.sched.need import Need, check

Plain = dict[str, Any]


class Service:
    """Answers for a started node; `counters` says how often with which status."""

    def __init__(self, node: Node, settings: Settings) -> None:
        self.node = node
        self.leases = HeldLeases()
        self.extender = Extender(node, settings)
        self.counters: Counter[str] = Counter()
        self._ops = Ops(node).by_name

    async def aclose(self) -> None:
        """Give back what is held for clients."""
        await self.extender.aclose()
        await self.leases.aclose()

    # --- questions --------------------------------------------------------------------------------

    async def find(self, asked: FindQuery) -> AsyncIterator[Plain]:
        """Machines as they are found, a line each."""
        self._check_joined()
        return self._ops["find"](_told(asked))

    async def count(self, asked: CountQuery) -> Plain:
        """How many machines match."""
        return (await self._answer("count", _told(asked)))[1]

    async def plan(self, asked: PlanBody) -> Plain:
        """Machines for a need, the best first."""
        args: Plain = {"need": need_args(asked, self.node.schema), "candidates": asked.candidates}
        choices, end = await self._answer("plan", args | {"spread": asked.spread})
        return {"choices": choices, **end}

    async def explain(self, asked: NeedBody) -> Plain:
        """How many machines what rules out."""
        return (await self._answer("explain", {"need": need_args(asked, self.node.schema)}))[1]

    async def members(self, _: Nothing) -> Plain:
        """The machines that the node itself holds."""
        machines, end = await self._answer("members", {})
        return {"machines": machines, **end}

    async def status(self, _: Nothing) -> Plain:
        """What the node is; answered before it has joined, too."""
        return (await self._collect("status", {}))[1]

    async def stats(self, _: Nothing) -> Plain:
        """Counters and sizes of the node and of HTTP."""
        served = {f"http_requests_{status}": count for status, count in self.counters.items()}
        return {
            **self.node.stats(),
            **served,
            **self.extender.stats(),
            "http_leases": len(self.leases),
        }

    async def _answer(self, op: str, args: Args) -> tuple[list[Plain], Plain]:
        self._check_joined()
        return await self._collect(op, args)

    async def _collect(self, op: str, args: Args) -> tuple[list[Plain], Plain]:
        """The items and the end of an answer."""
        items: list[Plain] = []
        end: Plain = {}
        async for line in self._ops[op](args):
            if "item" in line:
                items.append(line["item"])
            else:
                end = line["end"]
        return items, end

    # --- leases -----------------------------------------------------------------------------------

    async def place(self, asked: PlaceBody) -> Plain:
        """Claim, and hold the lease while its client renews it."""
        self._check_joined()
        need = need_of(need_args(asked, self.node.schema))
        placement = self.node.place(need, ttl_s=asked.ttl_s, deadline_s=asked.deadline_s)
        return _lease(await self.leases.place(placement, asked.ttl_s))

    async def lease(self, token: str) -> Plain:
        """A lease as it is now."""
        return _lease(self.leases.find(token))

    async def renew(self, token: str) -> Plain:
        """The client lives."""
        return _lease(self.leases.renew(token))

    async def release(self, token: str) -> None:
        """Give it back."""
        await self.leases.release(token)

    # --- inside -----------------------------------------------------------------------------------

    def _check_joined(self) -> None:
        if not self.node.config.client and not self.node.engine.hub.settled:
            raise HttpError(
                503, "the node has not joined the fleet yet", "ask again; /v1/status says `joined`"
            )


def need_args(asked: NeedBody, schema: Schema) -> Args:
    """The need as the control socket takes it; raises UsageError naming the resource."""
    resources: dict[str, Any] = {}
    for name, amount in asked.resources.items():
        if name not in schema.resources:
            check(Need(**dict[str, Any]({name: 1})), schema)  # raises, and names the nearest
        if isinstance(amount, str):
            amount = read_value(schema.attribute(name), amount)
        resources[name] = amount
    return {
        "resources": resources,
        "where": asked.where,
        "prefer": asked.prefer,
        "priority": asked.priority,
        "max_price": asked.max_price,
        "preempt": asked.preempt,
    }


def _told(asked: msgspec.Struct) -> Args:
    """What was asked as the arguments of an op; empty texts say nothing."""
    return {name: value for name, value in msgspec.structs.asdict(asked).items() if value != ""}


def _lease(held: Held) -> Plain:
    return lease_to_plain(held.lease) | {"renew_within_s": held.ttl_s}
