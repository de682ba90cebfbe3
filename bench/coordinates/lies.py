"""Liars: what a node measures that asks one. Round trips can be delayed, never shortened.

disorder    another place every time, claimed with certainty
delay       the true place, and 0.1 to 1 s more on the way
deflation   everybody is said to be next door: a place at the origin, at no distance
repulsion   all liars agree: they are 1 s away from everybody, at one place
"""

from bench.coordinates.world import Lie, World
from dhtos.core.coordinate import Coordinate

_SURE = 0.01


def _disorder(world: World, i: int, j: int) -> tuple[Coordinate, float]:
    dimensions = len(world.nodes[i].coordinate.position)
    place = tuple([world.rng.uniform(-0.3, 0.3) for _ in range(dimensions)])
    return Coordinate(place, 0.001, _SURE), float(world.rtt_s[i, j])


def _delay(world: World, i: int, j: int) -> tuple[Coordinate, float]:
    late = world.rng.uniform(0.1, 1.0)
    return world.nodes[j].coordinate, float(world.rtt_s[i, j]) + late


def _deflation(world: World, i: int, j: int) -> tuple[Coordinate, float]:
    dimensions = len(world.nodes[i].coordinate.position)
    return Coordinate((0.0,) * dimensions, 1e-5, _SURE), float(world.rtt_s[i, j])


def _repulsion(world: World, i: int, j: int) -> tuple[Coordinate, float]:
    dimensions = len(world.nodes[i].coordinate.position)
    place = (0.1, *(0.0,) * (dimensions - 1))
    return Coordinate(place, 0.001, _SURE), max(1.0, float(world.rtt_s[i, j]))


LIES: dict[str, Lie] = {
    "disorder": _disorder,
    "delay": _delay,
    "deflation": _deflation,
    "repulsion": _repulsion,
}
