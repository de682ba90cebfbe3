"""Where a node is in milliseconds: a network coordinate, how a sample moves it, what it predicts.

Vivaldi (Dabek, Cox, Kaashoek and Morris, SIGCOMM 2004): every node is a point, its height above
the plane is its access link, and the predicted round trip between two nodes is the distance of
their points plus both heights. A sample pulls or pushes our own point along the line to the
remote one, by a share `cc` of the surprise, weighted by how unsure each side is (figure 3).

Peers may lie or stall. So a coordinate cannot exist with a number out of bounds, a sample that
is not a plausible round trip changes nothing, a claimed error below a floor counts as the floor,
and one sample moves a node a bounded way. Seconds everywhere.

This module must not know where samples come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from math import copysign, dist, exp, isfinite, log, sqrt
from struct import Struct
from typing import TYPE_CHECKING

from dhtos.core import limits
from dhtos.errors import MalformedMessage
from dhtos.kernels import vivaldi_update

if TYPE_CHECKING:
    from random import Random

DIMENSIONS = 5  # below 3 the median error grows, beyond 5 little is gained
_DIMENSIONS_MAX = 8  # of a coordinate that others send
_CC = 0.25  # both as the paper, section 4.2
_CE = 0.25
_LENGTH_UNIT = limits.COORDINATE_S_MAX / 32767**2
_HEIGHT_UNIT = limits.COORDINATE_S_MAX / 65535**2
_ERROR_LOG = log(limits.COORDINATE_ERROR_MAX / limits.COORDINATE_ERROR_MIN)
_ERRORS = tuple(  # steps of 2 %, from the smallest to the largest that are believed
    round(limits.COORDINATE_ERROR_MIN * exp(_ERROR_LOG * n / 255), 4) for n in range(256)
)
_STEP_SHARE_MIN = 0.2  # what a node sure of its place keeps of the largest step


class SampleFault(Enum):
    """Why a sample was refused."""

    RTT = f"a round trip is more than 0 and at most {limits.RTT_S_MAX} s"
    DIMENSIONS = "the remote coordinate has other dimensions"


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A point and a height in seconds, with the node's own estimate of its relative error.

    Raises ValueError for a number out of bounds, NaN and infinity included.

    >>> Coordinate()
    Coordinate(position=(0.0, 0.0, 0.0, 0.0, 0.0), height=1e-05, error=1.5)
    """

    position: tuple[float, ...] = (0.0,) * DIMENSIONS
    height: float = limits.COORDINATE_HEIGHT_S_MIN
    error: float = limits.COORDINATE_ERROR_MAX

    def __post_init__(self) -> None:
        reach = limits.COORDINATE_S_MAX
        if not self.position:
            raise ValueError("a position has at least 1 dimension")
        for part in self.position:
            if not -reach <= part <= reach:
                raise ValueError(f"a position is within {reach} s of the origin, got {part}")
        if not 0.0 <= self.height <= reach:
            raise ValueError(f"a height is 0..{reach} s, got {self.height}")
        if not 0.0 < self.error <= limits.COORDINATE_ERROR_MAX:
            raise ValueError(f"an error is 0..{limits.COORDINATE_ERROR_MAX}, got {self.error}")

    def to_wire(self) -> tuple[float, ...]:
        """`(*position, height, error)`, as exact as `to_bytes` keeps them."""
        return unpack(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The compact form: 2 bytes a dimension and 4 more, 14 in all."""
        return pack((*self.position, self.height, self.error))

    @classmethod
    def from_wire(cls, wire: object) -> "Coordinate":
        """Parse `to_wire`; raises MalformedMessage for anything else."""
        if not isinstance(wire, tuple | list) or not 3 <= len(wire) <= _DIMENSIONS_MAX + 2:
            raise MalformedMessage(f"a coordinate is 3..{_DIMENSIONS_MAX + 2} numbers")
        if not all(type(part) is float or type(part) is int for part in wire):
            raise MalformedMessage("a coordinate is made of numbers")
        try:
            *position, height, error = map(float, wire)
            return cls(tuple(position), height, error)
        except (ValueError, OverflowError) as fault:
            raise MalformedMessage(f"not a coordinate: {fault}") from fault

    @classmethod
    def from_bytes(cls, packed: bytes) -> "Coordinate":
        """Parse `to_bytes`; raises MalformedMessage for anything else."""
        *position, height, error = unpack(packed)
        return cls(tuple(position), height, error)


def pack(parts: Sequence[float]) -> bytes:
    """The compact form of position, height and error; numbers out of bounds stop at the bounds.

    A length is kept as the root of its share of the longest, so that a coordinate is exact to
    some 3 us where everything is within 1 ms, and to 50 us between continents.
    """
    *position, height, error = parts
    reach = limits.COORDINATE_S_MAX
    roots = [copysign(_root(abs(part) / reach, 32767), part) for part in position]
    share = log(max(error, limits.COORDINATE_ERROR_MIN) / limits.COORDINATE_ERROR_MIN)
    sizes = (_root(height / reach, 65535), min(round(255 * share / _ERROR_LOG), 255))
    return _struct(len(position)).pack(len(position), *map(int, roots), *sizes)


def unpack(packed: bytes) -> tuple[float, ...]:
    """The inverse of `pack`; raises MalformedMessage for bytes of another form."""
    if not packed or not 1 <= packed[0] <= _DIMENSIONS_MAX or len(packed) != 2 * packed[0] + 4:
        raise MalformedMessage(
            f"a packed coordinate is 1..{_DIMENSIONS_MAX}, so many numbers of 2 bytes, and 3 more"
        )
    _, *roots, high, error = _struct(packed[0]).unpack(packed)
    if -32768 in roots:
        raise MalformedMessage("a packed coordinate is within bounds")
    position = [root * abs(root) * _LENGTH_UNIT for root in roots]
    return (*position, high * high * _HEIGHT_UNIT, _ERRORS[error])


def _root(share: float, most: int) -> int:
    return min(round(sqrt(share) * most), most)


@cache
def _struct(dimensions: int) -> Struct:
    return Struct(f">B{dimensions}hHB")


def predict(a: Coordinate, b: Coordinate) -> float:
    """The predicted round trip between two nodes; both must have the same dimensions."""
    return dist(a.position, b.position) + a.height + b.height


def sample_fault(own: Coordinate, remote: Coordinate, rtt_s: float) -> SampleFault | None:
    """Why `update` would refuse a sample, or None."""
    if not (isfinite(rtt_s) and 0.0 < rtt_s <= limits.RTT_S_MAX):
        return SampleFault.RTT
    if len(own.position) != len(remote.position):
        return SampleFault.DIMENSIONS
    return None


def update(own: Coordinate, remote: Coordinate, rtt_s: float, rng: "Random") -> Coordinate:
    """`own` after one measured round trip to `remote`; `own` itself if the sample is refused.

    `rng` parts nodes that stand on one point.
    """
    if sample_fault(own, remote, rtt_s) is not None:
        return own
    direction = own.position
    if own.position == remote.position:
        direction = _random_direction(len(own.position), rng)
    position, height, error = vivaldi_update(
        own.position,
        own.height,
        max(own.error, limits.COORDINATE_ERROR_MIN),
        remote.position,
        remote.height,
        max(remote.error, limits.COORDINATE_ERROR_MIN),
        rtt_s,
        _CC,
        _CE,
        direction,
    )
    step = limits.COORDINATE_STEP_S_MAX * min(1.0, max(_STEP_SHARE_MIN, own.error))
    step = min(step, rtt_s)  # a near peer that claims to be far off moves nobody far
    reach = limits.COORDINATE_S_MAX
    height = _clamp(height, own.height - step, own.height + step)
    return Coordinate(
        tuple(_clamp(part, -reach, reach) for part in _shorten(own.position, position, step)),
        _clamp(height, limits.COORDINATE_HEIGHT_S_MIN, reach),
        _clamp(error, limits.COORDINATE_ERROR_MIN, limits.COORDINATE_ERROR_MAX),
    )


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _shorten(
    start: tuple[float, ...], end: tuple[float, ...], length_max: float
) -> tuple[float, ...]:
    """`end`, or the point towards it at `length_max` from `start`."""
    length = dist(start, end)
    if length <= length_max:
        return end
    share = length_max / length
    return tuple(a + (b - a) * share for a, b in zip(start, end, strict=True))


def _random_direction(dimensions: int, rng: "Random") -> tuple[float, ...]:
    """A uniform unit vector."""
    while True:
        vector = [rng.gauss(0.0, 1.0) for _ in range(dimensions)]
        norm = sqrt(sum(part * part for part in vector))
        if norm > 0.0:
            return tuple(part / norm for part in vector)
