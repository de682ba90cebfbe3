"""The ops of the control socket that place many at once: a gang, and replicas.

`gang` answers with its leases and then stays silent while they are renewed; it ends with the first
that is lost. `replicas` answers with a line for each change, without end; where `deadline_s` is
given it fails unless all are alive by then. Both release everything when the client goes away.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from dhtos.core.limits import LEASE_S
from dhtos.node.arguments import Args, no_more, take
from dhtos.node.control_place import need_of
from dhtos.node.ganging import GANG_DEADLINE_S
from dhtos.node.plain_place import change_to_plain, lease_to_plain
from dhtos.node.replicas import Change, Changes, Replicas

if TYPE_CHECKING:
    from dhtos.node.node import Node


Lines = AsyncGenerator[dict[str, Any], None]


def ops_of_many(node: "Node") -> dict[str, Callable[[Args], Lines]]:
    """Each op by its name."""

    async def gang(args: Args) -> Lines:
        need = need_of(take(args, "need", dict))
        size = take(args, "size", int)
        spread = args.pop("spread", None)
        ttl_s = take(args, "ttl_s", float, LEASE_S)
        deadline_s = take(args, "deadline_s", float, GANG_DEADLINE_S)
        no_more(args)
        found = await node.place_gang(need, size, spread=spread, ttl_s=ttl_s, deadline_s=deadline_s)
        try:
            for lease in found.leases:
                yield {"item": lease_to_plain(lease)}
            await found.ended()
            yield {"end": {}}
        finally:
            await found.release()

    async def replicas(args: Args) -> Lines:
        need = need_of(take(args, "need", dict))
        count = take(args, "count", int)
        spread = args.pop("spread", None)
        ttl_s = take(args, "ttl_s", float, LEASE_S)
        deadline_s = take(args, "deadline_s", float) if "deadline_s" in args else None
        no_more(args)
        ends = None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s
        async with node.replicas(need, count, spread=spread, ttl_s=ttl_s) as kept:
            changes = kept.changes()
            while (change := await _next(kept, changes, ends)) is not None:
                if change.alive >= change.count:
                    ends = None
                yield {"item": change_to_plain(change)}
        yield {"end": {}}

    return {"gang": gang, "replicas": replicas}


async def _next(replicas: Replicas, changes: Changes, ends: float | None) -> Change | None:
    """The next change; raises what stands in the way once it is time."""
    try:
        async with asyncio.timeout_at(ends):
            return await anext(changes, None)
    except TimeoutError:
        raise replicas.shortage() from None
