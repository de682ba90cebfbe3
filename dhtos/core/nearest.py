"""The order "nearest to a place first", by the round trips that coordinates predict.

No summary bounds it, so a question under this order asks every subtree that may hold a match; what
it saves is to move the records of those that are far.
"""

from dataclasses import dataclass
from math import inf

from dhtos.core.coordinate import Coordinate, predict


@dataclass(frozen=True, slots=True)
class Nearest:
    """Nearest to `place` first; who tells no coordinate, or one of other dimensions, is last.

    >>> here = Coordinate((0.01, 0.0), 0.001, 0.1)
    >>> there = Coordinate((0.02, 0.0), 0.001, 0.1)
    >>> round(Nearest.to(here).rtt_s(there.to_bytes()), 4), Nearest.to(here).rtt_s(None)
    (0.012, inf)
    """

    place: Coordinate

    @classmethod
    def to(cls, place: Coordinate) -> "Nearest":
        """The order as everybody computes it: with a coordinate as exact as it travels."""
        return cls(Coordinate.from_bytes(place.to_bytes()))

    def rtt_s(self, packed: bytes | None) -> float:
        """The predicted round trip to whoever is at a coordinate in its compact form."""
        if packed is None:
            return inf
        there = Coordinate.from_bytes(packed)
        if len(there.position) != len(self.place.position):
            return inf
        return predict(there, self.place)
