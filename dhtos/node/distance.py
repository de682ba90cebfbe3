"""Distances as values: round trips that say how they are known, and how machines are named."""

from dataclasses import dataclass
from typing import Self

from dhtos.core.coordinate import Coordinate, predict
from dhtos.core.hit import Hit
from dhtos.core.ids import NodeId
from dhtos.errors import UsageError

Where = Hit | NodeId | Coordinate | bytes | str
"""A machine or a place: a hit, the id of a node (40 digits as text), a coordinate, or "self"."""


class Rtt(float):
    """A round trip in seconds: `measured`, or predicted with a relative `error` to expect.

    >>> Rtt(0.02, error=0.1) < 0.05, Rtt(0.02, error=0.1).measured
    (True, False)
    """

    measured: bool
    error: float

    def __new__(cls, seconds: float, *, error: float | None = None) -> Self:
        rtt = super().__new__(cls, seconds)
        rtt.measured = error is None
        rtt.error = 0.0 if error is None else error
        return rtt

    def __reduce__(self) -> tuple[object, ...]:
        return _rtt, (float(self), None if self.measured else self.error)


def _rtt(seconds: float, error: float | None) -> Rtt:
    return Rtt(seconds, error=error)


@dataclass(frozen=True, slots=True)
class Central:
    """A machine and its round trips to several others, in the order in which these were named."""

    hit: Hit
    rtts_s: tuple[Rtt, ...]

    @property
    def worst_s(self) -> float:
        """The round trip to the farthest."""
        return max(self.rtts_s)

    @property
    def mean_s(self) -> float:
        """The mean round trip."""
        return sum(self.rtts_s) / len(self.rtts_s)


def predicted(one: Coordinate, two: Coordinate) -> Rtt:
    """What coordinates say of two places; as wrong as the worse of them may be."""
    return Rtt(predict(one, two), error=max(one.error, two.error))


def id_of(who: object) -> bytes:
    """The bytes of an id; raises UsageError."""
    try:
        match who:
            case NodeId():
                return bytes(who)
            case bytes():
                return bytes(NodeId(who))
            case str():
                return bytes(NodeId.from_hex(who))
    except ValueError as error:
        raise UsageError(f'{error}; "self", a hit and a coordinate name a place, too') from error
    raise UsageError(f'a machine is named by a hit, its id, a coordinate or "self", got {who!r}')
