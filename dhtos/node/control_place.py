"""The ops of the control socket that place work, and those of the node that grants it.

A need is an object: `{"resources": {"cores": 4}, "where": TEXT, "prefer": NAME, "priority": N,
"max_price": X, "preempt": BOOL}`, all but the first optional. `place` answers with the lease and
then stays silent while it is renewed; it ends when the lease is lost, and the lease is released
when the client goes away.

`channel` begins a sealed connection in the name of the node, for the client to run a command over.
Its `identity` is the key of the machine; the answer has the `name` of the handshake and `hello`,
what to send. `channel_keys` with that name and `ready`, what came back, gives the two keys.
"""

from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from dhtos.core.limits import LEASE_S, USAGE_ROWS_MAX
from dhtos.core.value import is_number
from dhtos.errors import UsageError
from dhtos.node.arguments import Args, Lines, from_base64, no_more, take
from dhtos.node.placing import CANDIDATES
from dhtos.node.plain_place import (
    choice_to_plain,
    explanation_to_plain,
    grant_to_plain,
    lease_to_plain,
    plan_end_to_plain,
)
from dhtos.node.sealed_stream import MemberChannels
from dhtos.sched import Need

if TYPE_CHECKING:
    from dhtos.node.node import Node

_WORDS = {"where", "prefer", "priority", "max_price", "preempt"}


Op = Callable[[Args], Lines]


def placing_ops(node: "Node") -> dict[str, Op]:
    """Each op by its name."""
    return {**_ops_of_owners(node), **_ops_of_channels(node), **_ops_of_grants(node)}


def _ops_of_owners(node: "Node") -> dict[str, Op]:
    """What those ask who place work."""

    async def plan(args: Args) -> Lines:
        need = need_of(take(args, "need", dict))
        candidates = take(args, "candidates", int, CANDIDATES)
        spread = take(args, "spread", str, "") or None
        no_more(args)
        found = await node.plan(need, candidates=candidates, spread=spread)
        for choice in found.choices:
            yield {"item": choice_to_plain(choice)}
        yield {"end": plan_end_to_plain(found)}

    async def explain(args: Args) -> Lines:
        need = need_of(take(args, "need", dict))
        no_more(args)
        yield {"end": explanation_to_plain(await node.explain(need))}

    async def place(args: Args) -> Lines:
        need = need_of(take(args, "need", dict))
        ttl_s = take(args, "ttl_s", float, LEASE_S)
        deadline_s = take(args, "deadline_s", float) if "deadline_s" in args else None
        no_more(args)
        lease = await node.place(need, ttl_s=ttl_s, deadline_s=deadline_s)
        try:
            yield {"item": lease_to_plain(lease)}
            await lease.ended()
            yield {"end": {}}
        finally:
            await lease.release()

    return {"plan": plan, "explain": explain, "place": place}


def _ops_of_channels(node: "Node") -> dict[str, Op]:
    """What those ask who run a command under a lease of the node."""

    def channels() -> MemberChannels:
        if node.channels is None:
            raise UsageError("this node is in open mode: its commands are not sealed")
        return node.channels

    async def channel(args: Args) -> Lines:
        identity = take(args, "identity", str)
        no_more(args)
        name, hello = await channels().hello(_from_hex("identity", identity))
        yield {"end": {"name": name.hex(), "hello": b64encode(hello).decode()}}

    async def channel_keys(args: Args) -> Lines:
        name, ready = take(args, "name", str), take(args, "ready", str)
        no_more(args)
        keys = await channels().keys(_from_hex("name", name), from_base64("ready", ready))
        yield {"end": {"send": keys.send.hex(), "receive": keys.receive.hex()}}

    return {"channel": channel, "channel_keys": channel_keys}


def _from_hex(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"{name} is in hexadecimal, got {text[:40]!r}") from error


def _ops_of_grants(node: "Node") -> dict[str, Op]:
    """What the owner of the machine asks that takes it."""

    async def leases(args: Args) -> Lines:
        no_more(args)
        now = node.driver.clock()
        for grant in node.leases():
            yield {"item": grant_to_plain(grant, now)}
        yield {"end": {"draining": node.grants.ledger.draining}}

    async def drain(args: Args) -> Lines:
        revoke = take(args, "revoke", bool, False)
        no_more(args)
        await node.drain(revoke=revoke)
        yield {"end": {"draining": True, "leases": len(node.leases())}}

    async def undrain(args: Args) -> Lines:
        no_more(args)
        await node.undrain()
        yield {"end": {"draining": False, "leases": len(node.leases())}}

    async def revoke(args: Args) -> Lines:
        token = take(args, "token", str)
        no_more(args)
        await node.revoke(token)
        yield {"end": {"leases": len(node.leases())}}

    async def usage(args: Args) -> Lines:
        limit = take(args, "limit", int, USAGE_ROWS_MAX)
        no_more(args)
        rows = node.usage()[-limit:] if limit > 0 else ()
        for row in rows:
            yield {"item": msgspec.structs.asdict(row)}
        yield {"end": {"commands": len(rows)}}

    ops = {"leases": leases, "drain": drain, "undrain": undrain, "revoke": revoke}
    return {**ops, "usage": usage}


def need_of(told: Args) -> Need:
    """The need that an object says; raises UsageError."""
    resources = take(told, "resources", dict, {})
    unfit = resources.keys() & _WORDS
    if unfit:
        raise UsageError(f"{', '.join(sorted(unfit))}: no resource, say it beside the resources")
    price = told.pop("max_price", None)
    if price is not None and not is_number(price):
        raise UsageError(f"max_price must be a number, got {price!r}")
    need = Need(
        where=take(told, "where", str, "") or None,
        prefer=take(told, "prefer", str, "pack"),
        priority=take(told, "priority", int, 0),
        max_price=price,
        preempt=take(told, "preempt", bool, False),
        **resources,
    )
    no_more(told)
    return need
