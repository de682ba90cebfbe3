"""The ops of a node: each question as the lines it is answered with, whoever carries them.

A line is `{"item": ...}` or, as the last, `{"end": ...}`, in the words of `dhtos.node.plain`;
errors are raised. Leaving an answer early frees what it asks.
"""

from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dhtos.core.limits import VALUE_TTL_S
from dhtos.core.predicate import EVERYTHING, Predicate
from dhtos.errors import UsageError
from dhtos.node.arguments import Args, Lines, from_base64, no_more, take
from dhtos.node.control_many import ops_of_many
from dhtos.node.control_place import placing_ops
from dhtos.node.control_trust import trust_ops
from dhtos.node.control_users import user_ops
from dhtos.node.naming import all_named, named
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
from dhtos.node.secstore import secret_ops
from dhtos.query import parse_selector

if TYPE_CHECKING:
    from dhtos.node.node import Node


class Ops:
    """What a started node may be asked, by the name of the question."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self.by_name: dict[str, Callable[[Args], Lines]] = {
            "find": self._find,
            "count": self._count,
            "sum": self._sum,
            "histogram": self._histogram,
            "sample": self._sample,
            "rtt": self._rtt,
            "closest": self._closest,
            "within": self._within,
            "central": self._central,
            "members": self._members,
            "put": self._put,
            "get": self._get,
            "status": self._status,
            "advertise": self._advertise,
            "config": self._config,
            **placing_ops(node),
            **ops_of_many(node),
            **trust_ops(node),
            **user_ops(node),
            **secret_ops(node),
        }

    async def _find(self, args: Args) -> Lines:
        query = self._query(args)
        cursor = take(args, "cursor", str, "")
        finding = self._node.find(
            query,
            limit=take(args, "limit", int, 0),
            order_by=take(args, "order_by", str, "") or None,
            descending=take(args, "descending", bool, False),
            strict=take(args, "strict", bool, False),
            verify=take(args, "verify", int, 1),
            explain=(explain := take(args, "explain", bool, False)),
            cursor=from_base64("cursor", cursor) if cursor else None,
        )
        no_more(args)
        schema = self._node.schema if explain else None
        async with finding:
            async for hit in finding:
                yield {"item": hit_to_plain(hit)}
            yield {"end": result_to_plain(finding.result, schema)}

    async def _count(self, args: Args) -> Lines:
        query = self._query(args)
        strict = take(args, "strict", bool, False)
        verify = take(args, "verify", int, 1)
        no_more(args)
        count = await self._node.count(query, strict=strict, verify=verify)
        yield {"end": {"count": int(count), "coverage": coverage_to_plain(count.coverage)}}

    async def _sum(self, args: Args) -> Lines:
        query = self._query(args)
        attribute = take(args, "attribute", str)
        strict, verify = take(args, "strict", bool, False), take(args, "verify", int, 1)
        no_more(args)
        found = await self._node.sum(attribute, query, strict=strict, verify=verify)
        yield {"end": aggregate_to_plain(found)}

    async def _histogram(self, args: Args) -> Lines:
        query = self._query(args)
        attribute = take(args, "attribute", str)
        edges = take(args, "edges", list) if "edges" in args else None
        strict, verify = take(args, "strict", bool, False), take(args, "verify", int, 1)
        no_more(args)
        found = await self._node.histogram(
            attribute, query, edges=edges, strict=strict, verify=verify
        )
        yield {"end": histogram_to_plain(found)}

    async def _sample(self, args: Args) -> Lines:
        query = self._query(args)
        k, strict = take(args, "k", int), take(args, "strict", bool, False)
        no_more(args)
        result = await self._node.sample(k, query, strict=strict)
        for hit in result.hits:
            yield {"item": hit_to_plain(hit)}
        yield {"end": result_to_plain(result)}

    async def _rtt(self, args: Args) -> Lines:
        a, b = take(args, "a", str), take(args, "b", str, "self")
        no_more(args)
        one, two = await named(self._node, a), await named(self._node, b)
        yield {"end": rtt_to_plain(await self._node.rtt(one, two))}

    async def _closest(self, args: Args) -> Lines:
        query = self._query(args)
        k, probes = take(args, "k", int, 5), take(args, "probes", int, 8)
        no_more(args)
        found = await self._node.closest(k, query, probes=probes)
        for hit in found:
            yield {"item": hit_to_plain(hit)}
        yield {"end": {"machines": len(found)}}

    async def _within(self, args: Args) -> Lines:
        query, seconds = self._query(args), take(args, "seconds", float)
        limit, probes = take(args, "limit", int, 0), take(args, "probes", int, 8)
        no_more(args)
        found = await self._node.within(seconds, query, limit=limit, probes=probes)
        for hit in found:
            yield {"item": hit_to_plain(hit)}
        yield {"end": {"machines": len(found)}}

    async def _central(self, args: Args) -> Lines:
        query, others = self._query(args), take(args, "others", list)
        k, probes = take(args, "k", int, 5), take(args, "probes", int, 8)
        no_more(args)
        where = await all_named(self._node, others)
        found = await self._node.central(where, k, query, probes=probes)
        for central in found:
            yield {"item": central_to_plain(central)}
        yield {"end": {"machines": len(found)}}

    async def _members(self, args: Args) -> Lines:
        no_more(args)
        hub = self._node.engine.hub
        states = {m.record.node_id: m.state.name.lower() for m in hub.members()}
        for hit in self._node.members():
            state = states[bytes(hit.id)]
            yield {"item": hit_to_plain(hit) | {"state": state, "self": hit.id == self._node.id}}
        yield {"end": {"prefix": str(hub.group.prefix), "members": len(states)}}

    async def _put(self, args: Args) -> Lines:
        key = take(args, "key", str)
        owned = take(args, "owned", bool, False)
        paths = take(args, "paths", int, 1)
        if take(args, "remove", bool, False):
            no_more(args)
            removed = await self._node.remove(key, owned=owned, paths=paths)
            yield {"end": put_to_plain(removed)}
            return
        if "base64" in args:
            value: Any = from_base64("base64", take(args, "base64", str))
        else:
            value = take(args, "value", object)
        ttl_s = take(args, "ttl_s", float, VALUE_TTL_S)
        seq = take(args, "seq", int) if "seq" in args else None
        no_more(args)
        result = await self._node.put(key, value, ttl_s=ttl_s, seq=seq, owned=owned, paths=paths)
        yield {"end": put_to_plain(result)}

    async def _get(self, args: Args) -> Lines:
        key = take(args, "key", str)
        owner = take(args, "owner", str, "") or None
        paths = take(args, "paths", int, 1)
        no_more(args)
        end = value_to_plain(await self._node.get(key, owner=owner, paths=paths))
        if isinstance(end["value"], bytes):
            end["base64"] = b64encode(end.pop("value")).decode()
        yield {"end": end}

    async def _status(self, args: Args) -> Lines:
        no_more(args)
        yield {"end": status_to_plain(self._node)}

    async def _advertise(self, args: Args) -> Lines:
        attributes = take(args, "attributes", dict, {})
        labels = take(args, "labels", dict, {})
        no_more(args)
        if attributes:
            await self._node.advertise(attributes)
        if labels:
            await self._node.label(labels)
        told = {"attributes": dict(self._node.attributes), "labels": dict(self._node.labels)}
        yield {"end": told}

    async def _config(self, args: Args) -> Lines:
        no_more(args)
        yield {"end": self._node.config.to_mapping()}

    def _query(self, args: Args) -> Predicate:
        """The question of `find` and `count`: a predicate text, or a label selector."""
        query = take(args, "query", str, "")
        selector = take(args, "selector", str, "")
        if query and selector:
            raise UsageError("give a query or a selector, not both")
        if selector:
            return parse_selector(selector, self._node.schema)
        return self._node.predicate(query) if query else EVERYTHING
