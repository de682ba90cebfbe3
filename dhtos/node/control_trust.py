"""The ops of the control socket that concern a cluster: who one is, and who may come.

`invite` makes a token, `invites` tells those that are open, `uninvite` takes one back. They are
for the node that issues, and are answered by no other. `revoke_member` puts somebody out.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dhtos.errors import UsageError
from dhtos.node.arguments import Args, Lines, no_more, take, texts
from dhtos.node.control_guests import guest_ops
from dhtos.node.control_root import root_ops
from dhtos.node.enrolling import issuer_of, make_token
from dhtos.node.membership import Membership
from dhtos.node.promoting import put_out

if TYPE_CHECKING:
    from dhtos.node.node import Node

Op = Callable[[Args], Lines]


def trust_ops(node: "Node") -> dict[str, Op]:
    """Each op by its name."""

    async def whoami(args: Args) -> Lines:
        no_more(args)
        membership = node.membership
        if membership is None:
            raise UsageError(
                "this node is in open mode, of no cluster: use dhtos-node up, or join one"
            )
        yield {"end": membership_to_plain(membership)}

    async def invite(args: Args) -> Lines:
        promise = _promise(args)
        no_more(args)
        yield {"end": {"token": str(await make_token(node, **promise))}}

    async def invites(args: Args) -> Lines:
        no_more(args)
        found = await asyncio.to_thread(issuer_of(node).invites)
        for name, one in found.items():
            yield {
                "item": {
                    "id": name,
                    "kind": one.kind,
                    "name": one.name,
                    "groups": one.groups,
                    "caps": one.caps,
                    "uses": one.uses,
                    "expires": one.expires,
                }
            }
        yield {"end": {"invites": len(found)}}

    async def uninvite(args: Args) -> Lines:
        prefix = take(args, "prefix", str)
        no_more(args)
        yield {"end": {"id": await asyncio.to_thread(issuer_of(node).revoke_invite, prefix)}}

    async def revoke(args: Args) -> Lines:
        who = take(args, "who", str)
        no_more(args)
        yield {"end": {"revoked": await put_out(node, who)}}

    return {
        **guest_ops(node),
        "revoke_member": revoke,
        "whoami": whoami,
        "invite": invite,
        "invites": invites,
        "uninvite": uninvite,
        **root_ops(node),
    }


def _promise(args: Args) -> dict[str, Any]:
    kind = take(args, "kind", str, "node")
    if kind not in ("node", "user"):
        raise UsageError(f"the argument 'kind' must be node or user, got {kind!r}")
    promise: dict[str, Any] = {
        "kind": kind,
        "name": take(args, "name", str, ""),
        "groups": texts(args, "groups"),
        "caps": texts(args, "caps"),
        "uses": take(args, "uses", int, 1),
        "ttl_s": take(args, "ttl_s", float, 3600.0),
    }
    if "lifetime_s" in args:
        promise["lifetime_s"] = take(args, "lifetime_s", float)
    return promise


def membership_to_plain(membership: Membership) -> dict[str, Any]:
    """Who somebody is in a cluster."""
    chain = membership.chain
    leaf = chain.leaf
    kind = "issuer" if leaf.may("issue") else "node" if leaf.is_node else "user"
    return {
        "cluster": membership.root.hex(),
        "kind": kind,
        "name": leaf.name,
        "groups": list(leaf.groups),
        "caps": list(leaf.caps),
        "chain": [cert.name for cert in chain.certs],
        "expires": chain.expires,
        "seeds": list(membership.seeds),
    }
