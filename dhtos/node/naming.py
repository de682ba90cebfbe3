"""Machines as people name them: an id, the first digits of one, or a name.

What stands in a table of `members` names a machine: the digits of an id that it shows. A label
`name`, which `dhtos-node run` sets from the config, is looked for in the whole fleet.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dhtos.core.hit import Hit
from dhtos.core.ids import ID_BYTES, NodeId
from dhtos.core.limits import CENTRAL_OTHERS_MAX
from dhtos.errors import UsageError
from dhtos.node.distance import Where
from dhtos.query import F

if TYPE_CHECKING:
    from dhtos.node.node import Node

LISTED_MAX = 256  # machines among which a client, which has no group, looks for first digits
_DIGITS_MIN = 4
_DIGITS = re.compile(r"[0-9a-f]+")


async def named(node: "Node", text: str) -> Where:
    """The machine that somebody means; raises UsageError for none, or for more than one.

    `self` is the node; 40 hexadecimal digits are an id, 4 or more the first of one in the node's
    group (or among the first 256 machines that a client finds); anything else is a name.
    """
    if text == "self":
        return text
    digits = text.lower()
    is_id = bool(_DIGITS.fullmatch(digits))
    if is_id and len(digits) == 2 * ID_BYTES:
        return NodeId.from_hex(digits)
    if is_id and len(digits) >= _DIGITS_MIN:
        begin_so = [hit for hit in await _listed(node) if str(hit.id).startswith(digits)]
        if begin_so:
            return _only(begin_so, f"ids begin with {text}", "give more of its digits")
    called_so = (await node.find_all(F.label("name") == text, limit=2)).hits
    if not called_so:
        raise UsageError(
            f"no machine is named {text!r}: give the label name of one, its id, or the first "
            f"{_DIGITS_MIN} digits or more as dhtos-node members shows them"
        )
    return _only(called_so, f"machines are named {text!r}", "give its id")


async def all_named(node: "Node", texts: Sequence[object]) -> list[Where]:
    """The machines that somebody means; raises UsageError, for too many before asking anybody."""
    if not 1 <= len(texts) <= CENTRAL_OTHERS_MAX:
        raise UsageError(f"name 1..{CENTRAL_OTHERS_MAX} machines, got {len(texts)}")
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"a machine is named by a text, got {text!r}")
    return [await named(node, str(text)) for text in texts]


async def _listed(node: "Node") -> Sequence[Hit]:
    if node.config.client:
        return (await node.find_all(limit=LISTED_MAX)).hits
    return node.members()


def _only(found: Sequence[Hit], what: str, advice: str) -> Hit:
    if len({hit.id for hit in found}) > 1:
        shown = ", ".join(str(hit.id)[:12] for hit in found[:3])
        raise UsageError(f"several {what} ({shown}): {advice}")
    return found[0]
