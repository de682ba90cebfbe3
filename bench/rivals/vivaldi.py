"""Vivaldi and Serf's coordinates: all nodes of a network at once, one sample a node and round.

Vivaldi as Dabek, Cox, Kaashoek and Morris give it (SIGCOMM 2004): 2 dimensions and a height,
cc = ce = 0.25, and 64 neighbours drawn at the start. Serf's as HashiCorp ship it: 8 dimensions, a
height of at least 10 us, an adjustment (half the mean residual of the last 20 samples) added to
predictions that stay positive, and any member as partner. Serf's latency filter takes the median
of 3 samples of a peer and its gravity acts from 150 s on: neither does anything on a matrix.
"""

import numpy as np

from bench.rivals.model import Floats

NEIGHBOURS = 64
_CC = _CE = 0.25
_HEIGHT_MIN = 1e-5
_ERROR_MAX = 1.5
_WINDOW = 20


class Vivaldi:
    """Places of all nodes, in seconds."""

    name = "Vivaldi, 2-D and height"
    dimensions = 2
    adjusted = False

    def __init__(self, rtt_s: Floats, seed: int) -> None:
        self._rtt_s = rtt_s
        self._chance = np.random.default_rng(seed)
        count = len(rtt_s)
        self._position = np.zeros((count, self.dimensions))
        self._height = np.full(count, _HEIGHT_MIN)
        self._error = np.full(count, _ERROR_MAX)
        self._residuals = np.zeros((count, _WINDOW))
        self._rounds = 0
        self._neighbours = self._draw(min(NEIGHBOURS, count - 1))

    def _draw(self, most: int) -> np.ndarray:
        count = len(self._rtt_s)
        keys = self._chance.random((count, count))
        np.fill_diagonal(keys, 2.0)
        return np.argsort(keys, axis=1)[:, :most]

    def _partners(self) -> np.ndarray:
        picks = self._chance.integers(0, self._neighbours.shape[1], len(self._rtt_s))
        return self._neighbours[np.arange(len(picks)), picks]

    def round(self) -> None:
        """Every node measures one partner, as it was before the round."""
        own, peer = np.arange(len(self._rtt_s)), self._partners()
        rtt = self._rtt_s[own, peer]
        away = self._position - self._position[peer]
        norm = np.sqrt((away**2).sum(axis=1))
        heights = self._height + self._height[peer]
        predicted = norm + heights
        weight = self._error / (self._error + self._error[peer])
        surprise = np.abs(predicted - rtt) / rtt
        force = _CC * weight * (rtt - predicted)
        drawn = self._chance.normal(size=away.shape)
        drawn /= np.sqrt((drawn**2).sum(axis=1, keepdims=True))
        apart = (norm > 0)[:, None]
        unit = np.where(apart, away / np.where(apart, norm[:, None], 1.0), drawn)
        # The height takes its share of the force as if it were one more dimension (section 5.4).
        share = (
            np.where(norm > 0, heights / np.maximum(norm, 1e-9), 0.0)
            if self.adjusted
            else (heights / predicted)
        )
        pull = 1.0 if self.adjusted else np.where(norm > 0, norm / predicted, 1.0)[:, None]
        self._position = self._position + force[:, None] * unit * pull
        self._height = np.maximum(self._height + force * share, _HEIGHT_MIN)
        gain = _CE * weight
        self._error = np.clip(surprise * gain + self._error * (1 - gain), 1e-3, _ERROR_MAX)
        self._residuals[:, self._rounds % _WINDOW] = rtt - predicted
        self._rounds += 1

    def estimates(self) -> Floats:
        """Predicted round trips between all pairs."""
        away = self._position[:, None] - self._position[None]
        found = np.sqrt((away**2).sum(axis=2)) + self._height[:, None] + self._height[None]
        if self.adjusted:
            half = self._residuals.mean(axis=1) / 2
            better = found + half[:, None] + half[None]
            found = np.where(better > 0, better, found)
        return found


class Serf(Vivaldi):
    """Serf's variant, with its constants."""

    name = "Serf, 8-D, height and adjustment"
    dimensions = 8
    adjusted = True

    def _partners(self) -> np.ndarray:
        count = len(self._rtt_s)
        return (np.arange(count) + self._chance.integers(1, count, count)) % count
