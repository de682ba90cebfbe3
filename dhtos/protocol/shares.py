"""Fair shares: who may have how much of this node's work, so that nobody can have all of it.

Work is counted in seconds of one core, by what each RPC is known to cost (`COSTS_S`), and a node
gives `SHARE_CAPACITY` of a core to others. Two kinds of token bucket decide, one of the whole node
and one of each *principal*: a member or user in whose name something is asked, over however many
sessions, addresses and delegates; all guests together are one.

    a request        is served
    within the share always: a share is the capacity, divided by how many asked of late
    beyond it        while the node's own bucket holds more than what this principal is ahead

So an idle node serves whoever comes, and one that is short serves first who has had least. Who
had how much is written down only once a quarter of what the node saves up is used. Each
bucket is kept as the one moment at which it would be full of debt or credit (the virtual
scheduling of ITU-T I.371, A): a principal is `lead` seconds ahead of its share, the node has
`spare` seconds left. That a lead may be as long as what is left is the rule of dynamic thresholds
(Choudhury and Hahne, "Dynamic queue length thresholds", IEEE/ACM ToN 6:2, 1998).

What is beyond the share costs more while the node is short: cost times `load`, which is 1 until
the node has used half of what it saves up. A lead counts only up to that half: who has flooded
has its share again as soon as it asks for no more.
"""

from math import inf

from dhtos.core.limits import (
    SHARE_ACTIVE_S,
    SHARE_BURST_S,
    SHARE_CAPACITY,
    SHARE_LOAD_MAX,
    SHARE_PRINCIPALS_MAX,
)

COST_S = 20e-6
COSTS_S = {
    "find_node": 40e-6,
    "find_value": 45e-6,
    "store": 50e-6,
    "dh_claim": 150e-6,
    "dh_confirm": 150e-6,
    "dh_enrol": 500e-6,
    "dh_fetch": 70e-6,
    "dh_gossip": 100e-6,
    "dh_push": 150e-6,
    "dh_put": 300e-6,
    "dh_range": 200e-6,
    "dh_receipt": 150e-6,
    "dh_revoked": 100e-6,
    "dh_summary": 200e-6,
    "dh_sync": 200e-6,
}
"""What is more work than COST_S, by RPC, in seconds of a core of 2023 (Xeon, 2 GHz).

Unsealing, handling and sealing the answers: medians over two simulated secured fleets, of 120
nodes in one group and of 80 in groups of 16, where everybody joins, publishes and asks. Those that
such a fleet does not call are from what they verify (30 us a signature) and write down.
"""

_QUIET_S = SHARE_BURST_S * 3 / 4
_CONTESTED_S = SHARE_BURST_S / 2


class Shares:
    """The buckets of one node; nothing here knows what is asked, only what it costs and of whom.

    The principals that asked of late are kept in two tables, of this while and of the one before:
    each is found in constant time, and whoever has not asked for a while is forgotten with its
    table.
    """

    def __init__(self, capacity: float = SHARE_CAPACITY) -> None:
        self._capacity = capacity
        self._until = -inf  # when the node will have done what it has served, at its capacity
        self._recent: dict[bytes, float] = {}  # the same of a principal, at its share
        self._before: dict[bytes, float] = {}
        self._turn = -inf

    def refuses(self, who: bytes, now: float) -> bool:
        """Whether nothing they could ask would be served now: not even its datagram is opened."""
        spare = now - self._until
        if spare > _QUIET_S:
            return False
        until = self._recent.get(who)
        if until is None or now >= self._turn:
            until = self._meet(who, now)
        return until > now and spare < min(until - now, _CONTESTED_S)

    def admits(self, who: bytes, cost_s: float, now: float) -> bool:
        """Whether to serve what costs so much; what is served is charged."""
        work_s = cost_s / self._capacity
        spare = now - self._until
        if spare > _QUIET_S:
            self._until = max(self._until, now - SHARE_BURST_S) + work_s
            return True
        if self.refuses(who, now):
            return False
        until = self._recent[who]
        share_s = work_s * (len(self._recent) + len(self._before))  # it takes that of a share
        if until > now:
            if spare < _CONTESTED_S:
                share_s *= min(_CONTESTED_S / spare, SHARE_LOAD_MAX)
            until = max(until, min(until + share_s, now + _CONTESTED_S))
        else:
            until = max(until, now - SHARE_BURST_S) + share_s
        self._recent[who] = until
        self._until += work_s
        return True

    def _meet(self, who: bytes, now: float) -> float:
        """Somebody who has not asked in this while; what was before the last one is forgotten."""
        if now >= self._turn or len(self._recent) >= SHARE_PRINCIPALS_MAX:
            self._before = self._recent if now < self._turn + SHARE_ACTIVE_S else {}
            self._recent = {}
            self._turn = now + SHARE_ACTIVE_S
        until = self._before.pop(who, -inf)
        self._recent[who] = until
        return until

    def __len__(self) -> int:
        """How many principals have asked of late: at most so many share."""
        return len(self._recent) + len(self._before)

    def check(self) -> None:
        """Assert that the tables are bounded and know each principal once."""
        assert len(self._recent) <= SHARE_PRINCIPALS_MAX
        assert len(self._before) <= SHARE_PRINCIPALS_MAX
        assert not self._recent.keys() & self._before.keys()
