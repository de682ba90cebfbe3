"""How near do trains come to the rate of a shaper between two network namespaces?

The nodes, the wire and the shaper (`tc-tbf(8)`) are those of `tests/live/netns.py`. Only root may
make them; elsewhere there is no such row.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

from report import Row

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "live"))

from netns import Namespaces, Unavailable

SHAPERS = ((5, 4_000), (5, 64_000), (20, 4_000), (20, 32_000), (50, 32_000), (50, 128_000))
"""Mbit/s, and the bytes that pass at the speed of the wire."""
NEAR = 0.9  # of the rate, at least


def available() -> bool:
    """Whether namespaces can be made here."""
    with ExitStack() as stack:
        try:
            Namespaces(stack)
        except Unavailable:
            return False
        return True


def bandwidth(rounds: int = 6, shapers: int = len(SHAPERS)) -> list[Row]:
    """What part of the rate of a shaper do trains find?"""
    made = []
    with ExitStack() as stack:
        namespaces = Namespaces(stack)
        for mbit, burst in SHAPERS[-shapers:]:
            namespaces.shape(mbit, burst)
            found = []
            for _ in range(rounds):
                estimate = json.loads(namespaces.measure())
                found.append(estimate["bytes_per_s"] * 8 / 1e6)
                assert found[-1] < mbit * (2 - NEAR)
            question = f"bandwidth behind a shaper of {mbit} Mbit/s, bursts of {burst // 1000} kB"
            rate = (float(mbit),)
            made.append(
                Row(question, "Mbit/s", tuple(found), rate, NEAR, True, True, headline=False)
            )
    return made
