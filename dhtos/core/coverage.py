"""What a query can truthfully say about its own completeness."""

from dataclasses import dataclass

from dhtos.core.ids import Prefix


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the space that may match was answered for.

    `fraction` is the expected share of all matches that lie in answered subtrees, 0..1, from the
    summaries on the way: a hint. `complete` is a fact: every subtree that may match was answered
    by a member that covers it. A query that stopped at its limit is not complete and says so
    with `limited`. `asked` counts requests sent, `rtt` the longest chain of them that had to wait
    for one another. `verified` is the least number of members that answered for any subtree that
    was asked about: what `verify` wanted, or less where fewer are known or answered (0 where
    nobody did), or where the limit was met before.
    """

    fraction: float
    complete: bool
    limited: bool
    failed_prefixes: tuple[Prefix, ...]
    max_age_s: float
    asked: int
    rtt: int
    pruned: int = 0
    verified: int = 1
