"""The ops of the control socket that concern users."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dhtos.node.arguments import Args, Lines, no_more, take
from dhtos.node.users import describe_user

if TYPE_CHECKING:
    from dhtos.node.node import Node


def user_ops(node: "Node") -> dict[str, Callable[[Args], Lines]]:
    """Each op by its name."""

    async def user(args: Args) -> Lines:
        name = take(args, "name", str)
        no_more(args)
        yield {"end": await describe_user(node, name)}

    return {"user": user}
