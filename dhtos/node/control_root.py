"""The ops of the control socket that concern the root and the issuers it makes.

`promote` makes a member an issuer and `demote` puts one out: both are for the node that has the
root, and take the `passphrase` of a locked one. So does `rotate`, which puts another root in its
place. `root` says where it is.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dhtos.errors import UsageError
from dhtos.node.arguments import Args, Lines, no_more, take
from dhtos.node.enrolling import issuer_of
from dhtos.node.promoting import promote as make_issuer
from dhtos.node.promoting import put_out
from dhtos.node.promoting import rotate as new_root
from dhtos.node.root import ISSUER_S, ROTATION_S_MIN, where_is_root

if TYPE_CHECKING:
    from dhtos.node.node import Node

Op = Callable[[Args], Lines]


def root_ops(node: "Node") -> dict[str, Op]:
    """Each op by its name."""

    async def root(args: Args) -> Lines:
        no_more(args)
        issuer_of(node)  # others hold none
        yield {"end": {"root": await asyncio.to_thread(where_is_root, _directory(node))}}

    async def promote(args: Args) -> Lines:
        who = take(args, "who", str)
        passphrase = take(args, "passphrase", str, "")
        no_more(args)
        chain = await make_issuer(node, who, passphrase)
        leaf = chain.leaf
        told = {"name": leaf.name, "id": chain.node_id().hex(), "serial": leaf.serial.hex()}
        yield {"end": {**told, "expires": leaf.expires}}

    async def demote(args: Args) -> Lines:
        who = take(args, "who", str)
        passphrase = take(args, "passphrase", str, "")
        no_more(args)
        revoked = await put_out(node, who, issuer=True, passphrase=passphrase)
        yield {"end": {"revoked": revoked}}

    async def rotate(args: Args) -> Lines:
        keep_s = take(args, "keep_s", float)
        passphrase = take(args, "passphrase", str, "")
        no_more(args)
        if not ROTATION_S_MIN <= keep_s <= ISSUER_S:
            bounds = f"{ROTATION_S_MIN}..{ISSUER_S}"
            raise UsageError(f"the argument 'keep_s' must be {bounds}, got {keep_s:g}")
        told = await new_root(node, keep_s, passphrase)
        yield {"end": {"issuers": told.done, "waiting": told.waiting, "ends": told.ends}}

    return {"root": root, "promote": promote, "demote": demote, "rotate": rotate}


def _directory(node: "Node") -> Path:
    directory = node.config.state_dir
    assert directory is not None, "an issuer has a directory"
    return directory
