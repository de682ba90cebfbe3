"""The place from which the farthest of several others is as near as can be.

The smallest ball around balls: every other is a ball with its height for a radius, since whoever
asks it pays its height in any case. Each step goes towards the farthest, by less and less (Badoiu
and Clarkson, SODA 2003); the best place on the way is kept, so more steps never make it worse.
"""

from collections.abc import Sequence
from math import dist, inf

from dhtos.core import limits
from dhtos.core.coordinate import Coordinate

_STEPS = 200  # within 1 % of the best radius, as tests/unit/core/test_centre.py measures


def centre(places: Sequence[Coordinate]) -> Coordinate:
    """Where the largest predicted round trip to any of `places` is least; O(200 * places).

    All have the same dimensions. The height is the least there is, as that of nobody.

    >>> ends = [Coordinate((0.0, 0.0), 0.001, 0.1), Coordinate((0.04, 0.0), 0.001, 0.1)]
    >>> [round(part, 3) for part in centre(ends).position]
    [0.02, 0.0]
    """
    here = places[0].position
    best, radius = here, inf
    for step in range(1, _STEPS + 1):
        away, far = max(
            ((dist(here, place.position) + place.height, place) for place in places),
            key=lambda pair: pair[0],
        )
        if away < radius:
            best, radius = here, away
        length = dist(here, far.position)
        if length == 0.0:  # nothing but its own height is between us
            break
        # Towards the far end of the ball, but not beyond its middle.
        share = min(away / length / (step + 1), 1.0)
        here = tuple([a + (b - a) * share for a, b in zip(here, far.position, strict=True)])
    error = max(place.error for place in places)
    return Coordinate(best, limits.COORDINATE_HEIGHT_S_MIN, error)
