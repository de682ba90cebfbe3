"""The closest node to a member: coordinates choose whom to ask, memories and probes decide.

The one who asks holds the coordinates of all candidates, as they come with their records. It asks
the target and the 8 peers that seem nearest to the target for their memories: a remembered round
trip to the target beats any estimate, and a peer's near peers are at most the detour over it away.
Then it lets the 8 best candidates be probed from the target and takes the nearest.
"""

from dataclasses import dataclass

import numpy as np

from bench.coordinates.world import World
from bench.rivals.meridian import Meridian
from bench.rivals.model import Floats
from dhtos.core.limits import MEMORY_NEAR

FLOOR_S = 0.0005
"""Below it every machine is next door: ratios of such times say nothing."""


@dataclass(frozen=True)
class Found:
    """One search: how many times as far as the best the found node is, and the work."""

    penalty: float
    excess_s: float
    probes: int


def penalty(row: Floats, chosen: int, probes: int, target: int) -> Found:
    """Compare a choice with the best there is."""
    able = np.where(row > 0, row, np.inf)
    able[target] = np.inf
    best, got = float(able.min()), float(row[chosen])
    return Found(max(got, FLOOR_S) / max(best, FLOOR_S), got - best, probes)


def hybrid(world: World, target: int, estimates: Floats, *, asked: int, probes: int) -> Found:
    """Coordinates, then the memories of the target and of `asked` peers, then `probes`."""
    row = world.rtt_s[target]
    guess = estimates[target].copy()
    guess[target] = np.inf
    guess[row <= 0] = np.inf
    if asked:
        _remembered(world, target, guess)
        for peer in np.argsort(guess, kind="stable")[:asked].tolist():
            back = world.nodes[peer].memory.rtt_s(("", target))
            if back is not None:
                guess[peer] = back
            for via_s, (_, other) in world.nodes[peer].memory.nearest(MEMORY_NEAR):
                if other != target and row[other] > 0:
                    guess[other] = min(guess[other], guess[peer] + via_s)
        _remembered(world, target, guess)
    best = np.argsort(guess, kind="stable")[: max(probes, 1)]
    chosen = int(best[np.argmin(row[best])]) if probes else int(best[0])
    return penalty(row, chosen, probes, target)


def _remembered(world: World, target: int, guess: Floats) -> None:
    memory = world.nodes[target].memory
    for rtt_s, (_, peer) in memory.nearest(len(memory)):
        if np.isfinite(guess[peer]):
            guess[peer] = rtt_s


def by_coordinates(rtt_s: Floats, estimates: Floats, target: int, probes: int) -> Found:
    """Estimates alone, then probes: all that Vivaldi and Serf give."""
    row = rtt_s[target]
    guess = np.where(row > 0, estimates[target], np.inf)
    guess[target] = np.inf
    best = np.argsort(guess, kind="stable")[: max(probes, 1)]
    chosen = int(best[np.argmin(row[best])]) if probes else int(best[0])
    return penalty(row, chosen, probes, target)


def by_rings(rtt_s: Floats, rings: Meridian, target: int) -> Found:
    """Meridian."""
    chosen, probes = rings.closest(target)
    return penalty(rtt_s[target], chosen, probes, target)
