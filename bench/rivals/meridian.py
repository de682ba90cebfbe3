"""Meridian: who is closest to a target, found by probes along rings of peers.

Wong, Slivkins and Sirer, SIGCOMM 2005: a node keeps k peers in each of its rings, whose radii
double from 1 ms on; asked for the node closest to a target at distance d, it lets the peers whose
distance lies within (1 - beta) d to (1 + beta) d probe the target, and hands over to the nearest of
them while that is nearer than beta d. Here the rings are ideal: every node was offered as a peer,
at no cost, and a full ring is a fair draw. The paper takes k = 16 and beta = 0.5.
"""

from random import Random

import numpy as np

from bench.rivals.model import Floats

_RINGS = 9
_FIRST_S = 0.001


class Meridian:
    """The rings of all nodes."""

    def __init__(self, rtt_s: Floats, k: int, beta: float, seed: int) -> None:
        self.name = f"Meridian, ideal rings, k={k}, beta={beta}"
        self._rtt_s = rtt_s
        self._beta = beta
        self._rng = Random(seed)
        chance = np.random.default_rng(seed)
        self._peers = [self._rings(node, k, chance) for node in range(len(rtt_s))]

    def _rings(self, node: int, k: int, chance: np.random.Generator) -> np.ndarray:
        row = self._rtt_s[node]
        ring = np.clip(np.floor(np.log2(np.maximum(row, 1e-9) / _FIRST_S)) + 1, 0, _RINGS - 1)
        kept = []
        for number in range(_RINGS):
            members = np.flatnonzero((ring == number) & (row > 0))
            chance.shuffle(members)
            kept.append(members[:k])
        return np.concatenate(kept)

    def closest(self, target: int) -> tuple[int, int]:
        """The node found for a target outside of all rings, and the probes that it took."""
        row = self._rtt_s[target]
        able = np.flatnonzero(row > 0)
        at = int(self._rng.choice(able))
        probed = {at}
        while True:
            distance = row[at]
            peers, away = self._peers[at], self._rtt_s[at, self._peers[at]]
            low, high = (1 - self._beta) * distance, (1 + self._beta) * distance
            asked = [
                int(p) for p in peers[(away >= low) & (away <= high)] if p != target and row[p] > 0
            ]
            probed.update(asked)
            best = min(asked, key=row.__getitem__, default=at)
            if row[best] > self._beta * distance:
                return min(probed, key=row.__getitem__), len(probed)
            at = best
