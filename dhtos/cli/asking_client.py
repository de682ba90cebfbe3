"""The light client behind `--seed`: asks through a node of our own that serves nobody."""

from collections.abc import Callable

from dhtos.cli.asking import Edges, Plain, Question, Stored, read_cursor
from dhtos.core.limits import VALUE_TTL_S
from dhtos.node.node import Node
from dhtos.node.plain import (
    aggregate_to_plain,
    coverage_to_plain,
    histogram_to_plain,
    hit_to_plain,
    result_to_plain,
    status_to_plain,
)

MEMBERS_MAX = 256  # machines that a client lists, which has no group of its own


class ClientAsker:
    """Asks through a started node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def find(self, question: Question, on_hit: Callable[[Plain], None]) -> Plain:
        """Tell every hit as it comes."""
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
        count = await self._node.count(query, strict=strict, verify=verify)
        return {"count": int(count), "coverage": coverage_to_plain(count.coverage)}

    async def sum(self, attribute: str, query: str, *, strict: bool, verify: int) -> Plain:
        """The figures of a number attribute."""
        found = await self._node.sum(attribute, query, strict=strict, verify=verify)
        return aggregate_to_plain(found)

    async def histogram(
        self, attribute: str, query: str, edges: Edges, *, strict: bool, verify: int
    ) -> Plain:
        """Where the matches lie on a number attribute."""
        found = await self._node.histogram(
            attribute, query, edges=edges, strict=strict, verify=verify
        )
        return histogram_to_plain(found)

    async def members(self) -> list[Plain]:
        """Some machines of the fleet: a client has no group."""
        found = await self._node.find_all("true", limit=MEMBERS_MAX)
        return [hit_to_plain(hit) | {"state": "alive", "self": False} for hit in found.hits]

    async def put(self, key: str, value: Stored, ttl_s: float | None) -> Plain:
        """Store a value."""
        result = await self._node.put(key, value, ttl_s=VALUE_TTL_S if ttl_s is None else ttl_s)
        return {"stored_on": result.stored_on, "wanted": result.wanted, "seq": result.seq}

    async def get(self, key: str) -> Plain:
        """The newest value."""
        found = await self._node.get(key)
        return {"value": found.value, "seq": found.seq, "expires_s": found.expires_s}

    async def status(self) -> Plain:
        """What this client sees."""
        return status_to_plain(self._node)
