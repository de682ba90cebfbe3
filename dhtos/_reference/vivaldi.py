"""Vivaldi network coordinates: one update.

Dabek, Cox, Kaashoek and Morris, "Vivaldi: a decentralized network coordinate system" (SIGCOMM
2004): figure 3 for the update with adaptive timestep, section 5.4 for heights. Symbols keep the
paper's names: `cc`, `ce`, `w`, `es`, `delta`. Pure numbers; who checks samples is
`dhtos.core.coordinate`.
"""

from collections.abc import Sequence
from math import sqrt

_DIMENSIONS_MAX = 16


def vivaldi_update(
    position: Sequence[float],
    height: float,
    error: float,
    remote_position: Sequence[float],
    remote_height: float,
    remote_error: float,
    rtt: float,
    cc: float,
    ce: float,
    jitter_direction: Sequence[float],
) -> tuple[tuple[float, ...], float, float]:
    """`(position, height, error)` after one sample; `jitter_direction` parts equal positions.

    Raises ValueError unless the vectors have one size, the heights are >= 0, and `rtt` and the
    sum of the errors are > 0.
    """
    n = len(position)
    if not 1 <= n <= _DIMENSIONS_MAX:
        raise ValueError(f"1..{_DIMENSIONS_MAX} dimensions, got {n}")
    if len(remote_position) != n or len(jitter_direction) != n:
        raise ValueError(f"vectors of {n} numbers are wanted")
    if not (height >= 0.0 and remote_height >= 0.0):
        raise ValueError("heights must be at least 0")
    if not (rtt > 0.0 and error + remote_error > 0.0):
        raise ValueError("rtt and the sum of the errors must be above 0")
    difference = [position[i] - remote_position[i] for i in range(n)]
    norm = 0.0
    for part in difference:
        norm += part * part
    norm = sqrt(norm)
    predicted = norm + height + remote_height
    w = error / (error + remote_error)
    es = abs(predicted - rtt) / rtt
    new_error = es * ce * w + error * (1.0 - ce * w)
    delta = cc * w
    force = delta * (rtt - predicted)
    if norm == 0.0:  # the paper's u(0); the height has no direction to share, so it stays
        moved = tuple(position[i] + force * jitter_direction[i] for i in range(n))
        return moved, height, new_error
    moved = tuple(position[i] + force * (difference[i] / predicted) for i in range(n))
    new_height = height + force * ((height + remote_height) / predicted)
    return moved, new_height, new_error
