"""The ops of the control socket that concern users."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dhtos.errors import KeyNotFound
from dhtos.node.arguments import Args, Lines, no_more, take
from dhtos.node.users import user_to_plain

if TYPE_CHECKING:
    from dhtos.node.node import Node


def user_ops(node: "Node") -> dict[str, Callable[[Args], Lines]]:
    """Each op by its name."""

    async def user(args: Args) -> Lines:
        name = take(args, "name", str)
        no_more(args)
        chain = await node.user(name)
        if chain is None:
            raise KeyNotFound(
                f"{name!r} is no user of this cluster, or was put out, or its time is over: "
                f"use dhtos-node user add {name} to make a token"
            )
        yield {"end": user_to_plain(chain)}

    return {"user": user}
