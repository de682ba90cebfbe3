"""Virtual time: one number and one heap of everything that is still to happen.

Nothing here sleeps and nothing reads a real clock: time is the moment of the event being
handled, so a virtual hour of an idle cluster costs as much as its wake-ups.

An event is a plain tuple, because a tuple compares, packs and unpacks in C:

* a delivery is `(when, ticket, target, datagram, source)`;
* a wake-up is `(when, ticket, node, None, node)`; it is stale, and ignored, unless the node
  still expects to be woken at exactly that moment (lazy deletion: an earlier deadline pushes a
  second entry instead of searching for the first);
* an action is a wake-up of `nobody`, filed under its ticket in a dictionary, so that it can be
  cancelled by forgetting it.

Tickets grow by one: events of the same moment happen in the order in which they were planned,
on every machine, whatever the hash seed.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Generic

from dhtos.sim.node import E, SimNode

Event = tuple[float, int, SimNode[E], bytes | None, SimNode[E]]
Action = Callable[[], None]


class Clock(Generic[E]):
    """Virtual now, and the heap; O(log n) to plan an event and to take the next."""

    __slots__ = ("_actions", "heap", "nobody", "now", "ticket")

    def __init__(self, start_s: float = 0.0) -> None:
        self.now = start_s
        self.heap: list[Event[E]] = []
        self.ticket: Callable[[], int] = count(1).__next__
        self.nobody: SimNode[E] = SimNode(-1, b"", ("", 0), rng=Random(0))
        self._actions: dict[int, Action] = {}

    def wake(self, node: SimNode[E], when: float) -> None:
        """Plan a wake-up, which replaces the one the node had."""
        assert when >= self.now
        node.wake_at = when
        heappush(self.heap, (when, self.ticket(), node, None, node))

    def call_at(self, when: float, action: Action) -> int:
        """Plan an action at a virtual moment (a past one means now); returns its ticket."""
        ticket = self.ticket()
        self._actions[ticket] = action
        heappush(self.heap, (max(when, self.now), ticket, self.nobody, None, self.nobody))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Forget a planned action; one that has happened is ignored."""
        self._actions.pop(ticket, None)

    def act(self, ticket: int) -> None:
        """Do a planned action unless it was cancelled."""
        action = self._actions.pop(ticket, None)
        if action is not None:
            action()

    def next_time(self) -> float:
        """When the next event happens; infinity when none is planned."""
        return self.heap[0][0] if self.heap else inf

    def pop(self) -> Event[E]:
        """Take the next event and move the time to it."""
        event = heappop(self.heap)
        assert event[0] >= self.now
        self.now = event[0]
        return event

    def advance(self, when: float) -> None:
        """Let the time pass to `when`, before which nothing may be planned."""
        assert self.next_time() >= when
        self.now = max(self.now, when)

    def check(self) -> None:
        """Assert that nothing is planned in the past and every action is still in the heap."""
        assert self.next_time() >= self.now
        tickets = {event[1] for event in self.heap}
        assert len(tickets) == len(self.heap)
        assert self._actions.keys() <= tickets
