"""Samples of machines drawn to place something on, shared for a second by all that need the same.

The first who asks for a need draws for all who ask meanwhile. A sample that was used often is
followed by a larger one; one that has run out, or has led to nothing, by another at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field

from dhtos.core.hit import Hit
from dhtos.core.limits import DRAWS_MAX, SAMPLE_MAX
from dhtos.node.lease import Plan
from dhtos.protocol.claims import Bid, Outcome
from dhtos.sched import Need, Offers

DRAW_S = 1.0  # how long a sample is used: what others claim meanwhile is not seen
_GROWTH = 4  # how much larger a sample is that is used by many


@dataclass(slots=True)
class Draw:
    """One sample for one need, and what became of its offers since."""

    plan: Plan  # whose choices are the offers
    hits: Mapping[bytes, Hit]
    offers: Offers
    drawn_at: float
    bid: Callable[[Hit], Bid]
    used: int = 0
    _bids: dict[bytes, Bid] = field(default_factory=dict)

    @property
    def is_all(self) -> bool:
        """Whether a larger sample would bring nobody else."""
        return self.plan.coverage.complete

    def bid_of(self, node_id: bytes) -> Bid:
        """What is asked of one machine, made once."""
        bid = self._bids.get(node_id)
        if bid is None:
            bid = self._bids[node_id] = self.bid(self.hits[node_id])
        return bid

    def learn(self, outcome: Outcome) -> None:
        """Keep what the machines that were asked have said they have left."""
        for declined in outcome.declined:
            if declined.kind == "full":
                self.offers.told(declined.node_id, declined.free)
            else:
                self.offers.forget(declined.node_id)
        if outcome.granted is not None:
            self.offers.told(outcome.granted.node_id, outcome.granted.free)


class Draws:
    """The samples at hand, by need; of many needs those used last are kept."""

    def __init__(self, draw: Callable[[Need, int, str | None], Awaitable[Draw]]) -> None:
        self._draw = draw
        self._kept: dict[Hashable, Draw] = {}
        self._drawing: dict[Hashable, asyncio.Event] = {}

    async def of(
        self,
        need: Need,
        size: int,
        clock: Callable[[], float],
        *,
        spread: str | None = None,
        after: Draw | None = None,
    ) -> Draw:
        """A sample for a need, of at least `size` machines where there are so many.

        `spread` names what makes the domains of its offers.

        One that is at hand is used, if it is young, has offers left and is not `after`, which the
        caller has tried.
        """
        began, key = clock(), (need, size, spread)
        while True:
            kept = self._kept.get(key)
            if kept is not None and kept is not after:
                fresh = clock() - kept.drawn_at <= DRAW_S and len(kept.offers) > 0
                if fresh or kept.drawn_at >= began:
                    kept.used += 1
                    return kept
            drawing = self._drawing.get(key)
            if drawing is not None:
                await drawing.wait()
                continue
            return await self._renewed(key, kept)

    async def _renewed(self, key: tuple[Need, int, str | None], old: Draw | None) -> Draw:
        need, size, spread = key
        self._drawing[key] = drawing = asyncio.Event()
        if old is not None:
            size = min(max(size, min(old.used, _GROWTH * size)), SAMPLE_MAX)
        try:
            drawn = await self._draw(need, size, spread)
        finally:
            del self._drawing[key]
            drawing.set()
        self._kept.pop(key, None)
        if len(self._kept) >= DRAWS_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = drawn
        drawn.used = 1
        return drawn
