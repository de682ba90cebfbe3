"""The light client behind `--seed`: asks through a node of our own that serves nobody."""

import re
from collections.abc import Callable
from contextlib import aclosing
from typing import Unpack

from dhtos.cli.asking import (
    Edges,
    How,
    Names,
    Plain,
    Question,
    Stored,
    Whose,
    read_cursor,
)
from dhtos.core.limits import VALUE_TTL_S
from dhtos.node.control_many import ops_of_many
from dhtos.node.control_place import need_of
from dhtos.node.naming import all_named
from dhtos.node.node import Node
from dhtos.node.plain import (
    aggregate_to_plain,
    central_to_plain,
    coverage_to_plain,
    histogram_to_plain,
    hit_to_plain,
    put_to_plain,
    result_to_plain,
    rtt_to_plain,
    status_to_plain,
    value_to_plain,
)
from dhtos.node.plain_place import (
    choice_to_plain,
    explanation_to_plain,
    lease_to_plain,
    plan_end_to_plain,
)
from dhtos.node.sealed_stream import Channels
from dhtos.node.users import describe_user

_ABOUT_SELF = re.compile(r"\brtt\s*\(\s*self\b")
MEMBERS_MAX = 256  # machines that a client lists, which has no group of its own


class ClientAsker:
    """Asks through a started node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def find(self, question: Question, on_hit: Callable[[Plain], None]) -> Plain:
        """Tell every hit as it comes."""
        await self._locate(question.query, question.order_by or "")
        if question.sample:
            drawn = await self._node.sample(question.sample, question.query, strict=question.strict)
            for hit in drawn.hits:
                on_hit(hit_to_plain(hit))
            return result_to_plain(drawn)
        asking = self._node.find(
            question.query,
            limit=question.limit,
            order_by=question.order_by,
            descending=question.descending,
            strict=question.strict,
            verify=question.verify,
            explain=question.explain,
            cursor=read_cursor(question.cursor),
        )
        async with asking:
            async for hit in asking:
                on_hit(hit_to_plain(hit))
            schema = self._node.schema if question.explain else None
            return result_to_plain(asking.result, schema)

    async def count(self, query: str, *, strict: bool, verify: int) -> Plain:
        """How many machines match."""
        await self._locate(query)
        count = await self._node.count(query, strict=strict, verify=verify)
        return {"count": int(count), "coverage": coverage_to_plain(count.coverage)}

    async def sum(self, attribute: str, query: str, *, strict: bool, verify: int) -> Plain:
        """The figures of a number attribute."""
        await self._locate(query)
        found = await self._node.sum(attribute, query, strict=strict, verify=verify)
        return aggregate_to_plain(found)

    async def histogram(
        self, attribute: str, query: str, edges: Edges, *, strict: bool, verify: int
    ) -> Plain:
        """Where the matches lie on a number attribute."""
        await self._locate(query)
        found = await self._node.histogram(
            attribute, query, edges=edges, strict=strict, verify=verify
        )
        return histogram_to_plain(found)

    async def plan(self, need: Plain, candidates: int, on_choice: Callable[[Plain], None]) -> Plain:
        """Tell the machines for a need, the best first."""
        plan = await self._node.plan(need_of(need), candidates=candidates)
        for choice in plan.choices:
            on_choice(choice_to_plain(choice))
        return plan_end_to_plain(plan)

    async def why(self, need: Plain) -> Plain:
        """How many machines what rules out."""
        return explanation_to_plain(await self._node.explain(need_of(need)))

    async def place(self, need: Plain, ttl_s: float, on_lease: Callable[[Plain], None]) -> None:
        """Claim, and keep until we are cancelled."""
        lease = await self._node.place(need_of(need), ttl_s=ttl_s)
        try:
            on_lease(lease_to_plain(lease))
            await lease.ended()
        finally:
            await lease.release()

    @property
    def channels(self) -> Channels | None:
        """The client itself, in a cluster."""
        return self._node.channels

    async def gang(self, need: Plain, gang: Plain, on_lease: Callable[[Plain], None]) -> None:
        """Claim, and keep until we are cancelled."""
        await self._each("gang", {"need": need, **gang}, on_lease)

    async def replicas(
        self, need: Plain, replicas: Plain, on_change: Callable[[Plain], None]
    ) -> None:
        """Keep until we are cancelled."""
        await self._each("replicas", {"need": need, **replicas}, on_change)

    async def _each(self, op: str, args: Plain, on_item: Callable[[Plain], None]) -> None:
        """The items of an op, as a daemon would tell them."""
        given = {name: value for name, value in args.items() if value is not None}
        async with aclosing(ops_of_many(self._node)[op](given)) as lines:
            async for line in lines:
                if "item" in line:
                    on_item(line["item"])

    async def members(self) -> list[Plain]:
        """Some machines of the fleet: a client has no group."""
        found = await self._node.find_all("true", limit=MEMBERS_MAX)
        return [hit_to_plain(hit) | {"state": "alive", "self": False} for hit in found.hits]

    async def rtt(self, a: str, b: str) -> Plain:
        """How far two machines are apart."""
        one, two = await all_named(self._node, (a, b))
        return rtt_to_plain(await self._node.rtt(one, two))

    async def closest(self, k: int, query: str, probes: int) -> list[Plain]:
        """The machines nearest to this client."""
        return [hit_to_plain(hit) for hit in await self._node.closest(k, query, probes=probes)]

    async def within(self, seconds: float, query: str, limit: int, probes: int) -> list[Plain]:
        """The machines within so many seconds of this client."""
        found = await self._node.within(seconds, query, limit=limit, probes=probes)
        return [hit_to_plain(hit) for hit in found]

    async def central(self, others: Names, k: int, query: str, probes: int) -> list[Plain]:
        """The machines whose farthest of some others is nearest."""
        await self._locate(query)
        where = await all_named(self._node, others)
        found = await self._node.central(where, k, query, probes=probes)
        return [central_to_plain(central) for central in found]

    async def put(self, key: str, value: Stored, ttl_s: float | None, **how: Unpack[How]) -> Plain:
        """Store a value."""
        ttl_s = VALUE_TTL_S if ttl_s is None else ttl_s
        return put_to_plain(await self._node.put(key, value, ttl_s=ttl_s, **how))

    async def remove(self, key: str, **how: Unpack[How]) -> Plain:
        """Take a value back."""
        return put_to_plain(await self._node.remove(key, **how))

    async def get(self, key: str, **how: Unpack[Whose]) -> Plain:
        """The newest value."""
        return value_to_plain(await self._node.get(key, **how))

    async def user(self, name: str) -> Plain:
        """Who a user is."""
        return await describe_user(self._node, name)

    async def status(self) -> Plain:
        """What this client sees."""
        return status_to_plain(self._node)

    async def _locate(self, *texts: str) -> None:
        """Learn where this client is, if a question is about that."""
        if any(_ABOUT_SELF.search(text) for text in texts):
            await self._node.locate()
