"""Questions to a whole hub that want a figure of the matches: sums and histograms.

It is the walk of `count`: every subtree that may hold a match is asked, and answers with the
aggregate of what it covers. What comes back is exact where the coverage is complete.
"""

from typing import TYPE_CHECKING

import msgspec

from dhtos.core.bound import Bound
from dhtos.core.predicate import Predicate
from dhtos.errors import MalformedMessage, UsageError
from dhtos.protocol.aggregate import Measure
from dhtos.protocol.answer import Question
from dhtos.protocol.frontier import FindResult, check_verify
from dhtos.protocol.operation import Operation
from dhtos.protocol.union import Wish, unite
from dhtos.protocol.walk import Walk

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub


def aggregate(
    hub: "Hub",
    predicate: Predicate,
    measure: Measure,
    now: float,
    *,
    strict: bool = False,
    verify: int = 1,
) -> Operation[FindResult]:
    """Ask the whole hub; the result has `partial` and no hits.

    With `verify` each subtree counts as the member tells that knows of most matches there. Raises
    UsageError for a predicate that other nodes would refuse to read.
    """
    check_verify(verify)
    if len(hub.schemas) > 1:
        wish = Wish(predicate, strict=strict, count_only=True, verify=verify, measure=measure)
        return unite(hub, wish, now)
    wire, bound = bind(hub, predicate)
    question = Question(wire, bound, 0, None, strict, True, verify, measure)
    return Walk(hub, question, now).operation


def bind(hub: "Hub", predicate: Predicate) -> tuple[bytes, Bound]:
    """A predicate as it travels and as it is evaluated; raises UsageError if others refuse it.

    For questions to machines of the own schema version. Where others live, the coverage names their
    subtree as one that could not be asked.
    """
    translated = hub.schemas.translated(predicate, hub.schema)
    if translated is None:
        raise UsageError("only machines of another schema version can match; use find")
    wire = msgspec.msgpack.encode(translated.to_wire())
    try:
        return wire, hub.answering.bound(wire)
    except MalformedMessage as error:
        raise UsageError(
            f"{error}: values stand in a predicate as Schema.check returns them"
        ) from error
