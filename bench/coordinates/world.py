"""A network of locators over a table of round trips: who measures whom, who lies, what is wrong.

Every round each node takes one sample, in random order. A node that explores asks a near peer for
that one's near peers, takes up somebody who measured it, or draws any node; otherwise it measures
a peer of its memory again. Exploring pays as long as it finds nearer peers, so its rate follows
its success, between a tenth and a half of the samples. Coordinates travel in their compact form.
"""

from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from bench.rivals.model import Flags, Floats
from dhtos.core.coordinate import Coordinate
from dhtos.core.limits import MEMORY_NEAR
from dhtos.core.locator import Locator

_EXPLORE_MIN, _EXPLORE_START, _EXPLORE_MAX = 0.1, 0.3, 0.5
_GAIN, _LOSS = 1.3, 0.97
_FIRST = 8  # peers that a newcomer draws before it measures any again
_NEAR = 8  # of the near peers one is asked
_HINTS_MAX = 8

Lie = Callable[["World", int, int], tuple[Coordinate, float]]
"""What a liar makes a node measure: the coordinate it tells, and the round trip."""


class World:
    """All nodes of a network, by number; `seed` decides everything."""

    def __init__(self, rtt_s: Floats, seed: int, kind: Callable[[], Locator] = Locator) -> None:
        self.rtt_s = rtt_s
        self.size = len(rtt_s)
        self.rng = Random(seed)
        self.kind = kind
        self.nodes = [kind() for _ in range(self.size)]
        self.liars: dict[int, Lie] = {}
        self.now = 0.0
        self._rows = rtt_s.tolist()
        self._explore = [_EXPLORE_START] * self.size
        self._hints: list[list[int]] = [[] for _ in range(self.size)]
        self._present = list(range(self.size))

    def only(self, present: Sequence[int]) -> None:
        """From now on only these take part; the others begin anew when they return."""
        gone = set(self._present) - set(present)
        self._present = sorted(present)
        for i in gone:
            self.nodes[i] = self.kind()
            self._explore[i] = _EXPLORE_START
            self._hints[i].clear()

    def run(self, rounds: int, who: Sequence[int] | None = None) -> None:
        """Let everybody, or these, take `rounds` samples."""
        for _ in range(rounds):
            order = list(self._present if who is None else who)
            self.rng.shuffle(order)
            for i in order:
                if i not in self.liars:
                    self._sample(i)
            self.now += 1.0

    def measure(self, i: int, j: int) -> tuple[Coordinate, float]:
        """What node i learns by asking j: a coordinate and a round trip."""
        lie = self.liars.get(j)
        if lie is not None:
            coordinate, rtt_s = lie(self, i, j)
            return Coordinate.from_bytes(coordinate.to_bytes()), rtt_s
        told = self.nodes[j].coordinate
        return Coordinate.from_bytes(told.to_bytes()), self._rows[i][j]

    def near(self, i: int, count: int) -> list[int]:
        """The nearest peers that a node knows, nearest first."""
        return [peer[1] for _, peer in self.nodes[i].memory.nearest(count)]

    def estimates(self) -> Floats:
        """Predicted round trips between all pairs, by coordinates alone."""
        places = np.array([node.coordinate.position for node in self.nodes])
        heights = np.array([node.coordinate.height for node in self.nodes])
        away = places[:, None] - places[None]
        return np.sqrt((away**2).sum(axis=2)) + heights[:, None] + heights[None]

    def _sample(self, i: int) -> None:
        j = self._partner(i)
        if j == i or self._rows[i][j] <= 0:
            return
        node, peer = self.nodes[i], ("", j)
        if peer not in node.memory:
            near = node.memory.nearest(MEMORY_NEAR)
            found = len(near) < MEMORY_NEAR or self._rows[i][j] < near[-1][0]
            rate = self._explore[i] * (_GAIN if found else _LOSS)
            self._explore[i] = min(max(rate, _EXPLORE_MIN), _EXPLORE_MAX)
        coordinate, rtt_s = self.measure(i, j)
        node.sample(peer, coordinate, rtt_s, now=self.now, rng=self.rng)
        if j not in self.liars:
            self._hints[j] = [*self._hints[j][1 - _HINTS_MAX :], i]

    def _partner(self, i: int) -> int:
        rng, memory = self.rng, self.nodes[i].memory
        if len(memory) >= _FIRST and rng.random() >= self._explore[i]:
            return rng.choice(memory.peers())[1]
        if len(memory) >= _FIRST // 2 and rng.random() < 0.5:
            hints = self._hints[i]
            if hints and rng.random() < 0.5:
                return hints.pop()
            of = self.near(rng.choice(self.near(i, _NEAR)), MEMORY_NEAR)
            if of:
                return rng.choice(of)
        return rng.choice(self._present)


def relative_errors(estimates: Floats, rtt_s: Floats, among: Flags | None = None) -> Floats:
    """|predicted - measured| / measured over all measured pairs, or those among some nodes."""
    a, b = np.triu_indices(len(rtt_s), 1)
    counts = rtt_s[a, b] > 0
    if among is not None:
        counts &= among[a] & among[b]
    measured = rtt_s[a, b][counts]
    return np.abs(estimates[a, b][counts] - measured) / measured


def summary(errors: Floats) -> tuple[float, float]:
    """Median and 90th percentile."""
    return float(np.median(errors)), float(np.percentile(errors, 90))
