"""A force over all neighbours, as in Pyxida: the simple use of the same gossip memory.

Ledlie, Gardner and Seltzer (NSDI 2007) pull a node by every remembered neighbour at once, each
weighted by how sure it says it is, instead of by the last one only ("neighbour decay"). Their
constants are cc = 0.25 and ce = 0.1; here cc = 1 and ce = 0.25, which were the best of three pairs.
Everything else is as in dhtos: memory, filter, dimensions.
"""

import numpy as np

from dhtos.core import limits
from dhtos.core.coordinate import Coordinate, SampleFault, predict, sample_fault
from dhtos.core.ids import Endpoint
from dhtos.core.locator import Locator

_CC = 1.0
_CE = 0.25


class ForceLocator(Locator):
    """A locator that knows no fit."""

    __slots__ = ()

    def sample(
        self, peer: Endpoint, remote: Coordinate, rtt_s: float, *, now: float, rng
    ) -> SampleFault | None:
        """One step along the weighted mean of all forces."""
        fault = sample_fault(self.coordinate, remote, rtt_s)
        if fault is not None:
            return fault
        self.memory.add(peer, remote, rtt_s, now, rng)
        own, memory = self.coordinate, self.memory
        width = memory.dimensions + 3
        rows = np.frombuffer(memory.rows, count=len(memory) * width).reshape(-1, width)
        away = np.array(own.position) - rows[:, :-3]
        norm = np.sqrt((away**2).sum(axis=1))
        heights = own.height + rows[:, -3]
        missing = rows[:, -1] - norm - heights
        drawn = np.array([[rng.gauss(0, 1) for _ in own.position]])
        unit = np.where(norm[:, None] > 0, away / np.maximum(norm, 1e-12)[:, None], drawn)
        sure = own.error / (own.error + rows[:, -2])
        share = _CC * sure * (1 / rows[:, -2]) / (1 / rows[:, -2]).sum()
        move = (share * missing) @ unit
        lift = (share * missing * heights / np.maximum(norm, 1e-3)).sum()
        seen = abs(predict(own, remote) - rtt_s) / rtt_s
        gain = _CE * own.error / (own.error + remote.error)
        reach = limits.COORDINATE_S_MAX
        self.coordinate = Coordinate(
            tuple(np.clip(np.array(own.position) + move, -reach, reach).tolist()),
            float(np.clip(own.height + lift, limits.COORDINATE_HEIGHT_S_MIN, reach)),
            float(np.clip(own.error + gain * (seen - own.error), 0.01, 1.5)),
        )
        return None
