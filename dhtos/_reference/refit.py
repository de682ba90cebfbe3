"""Network coordinates fitted to many peers at once, and predicted round trips in a batch.

`refit` is a robust, damped Gauss-Newton method on the residuals r = predicted - measured:

* a residual counts as r / sqrt(measured): relative error would follow the shortest links only,
  absolute error the longest only;
* weights are Tukey's biweight at 4.685 robust deviations (1.4826 x median), so that a peer which
  contradicts all others has no say; but one that seems up to 30 ms too far away keeps Huber's
  bounded pull, or true short links, which fit into few dimensions worst, would be dropped first;
* no peer's own error makes it count for more than that of the median peer would, or 0.1: when a
  whole network starts, only liars are sure;
* a third of the mass of the weights is added to the diagonal, because position and height are
  nearly collinear; half a step is taken, since neighbours move at the same time.

Pure numbers; who checks samples is `dhtos.core.coordinate`.
"""

from array import array
from collections.abc import Sequence
from math import sqrt

_DIMENSIONS_MAX = 16
_ROWS_MAX = 256
_LOSS_RTT_MIN = 0.01  # below it only the absolute error counts
_ERROR_RTT_MIN = 0.001  # and relative errors of what is shorter are noise
_TRUST_OFFSET = 0.02
_TRUST_ERROR_MIN = 0.1
_SIGMA_OF_MEDIAN = 1.4826
_SIGMA_MIN = 1e-6
_TUKEY = 4.685
_HUBER = 1.345
_PULL_MAX = 0.03  # with 0.1 liars who play neighbours pull: error x1.6 for three in ten
_DAMPING = 0.3
_STEP_SHARE = 0.5


def refit(
    own: Sequence[float],
    rows: "array[float]",
    count: int,
    steps: int,
    height_min: float,
    step_max: float,
) -> tuple[tuple[float, ...], float, float]:
    """`(place, cost, error)` after `steps` damped steps of `own` towards `count` peers.

    `own` is a position, then a height; a row a position, a height, an error and a round trip.
    The cost is comparable between starting points, the error is the median relative residual.
    O(steps x count x dimensions^2). Raises ValueError for sizes out of bounds.
    """
    d = len(own) - 1
    if not 1 <= d <= _DIMENSIONS_MAX:
        raise ValueError(f"1..{_DIMENSIONS_MAX} dimensions and a height, got {d + 1} numbers")
    if not 1 <= count <= _ROWS_MAX:
        raise ValueError(f"1..{_ROWS_MAX} peers, got {count}")
    if len(rows) < count * (d + 3):
        raise ValueError(f"{count} rows of {d + 3} numbers are wanted, got {len(rows)} numbers")
    peers = [rows[at : at + d + 3] for at in range(0, count * (d + 3), d + 3)]
    place = [float(part) for part in own]
    least = max(_low_median([row[d + 1] for row in peers]), _TRUST_ERROR_MIN)
    trust = [1.0 / (_TRUST_OFFSET + max(row[d + 1], least) ** 2) for row in peers]
    for _ in range(steps):
        _step(place, peers, trust, height_min, step_max)
    return (tuple(place), *_judge(place, peers, trust))


def _step(
    place: list[float],
    peers: list["array[float]"],
    trust: list[float],
    height_min: float,
    step_max: float,
) -> None:
    d = len(place) - 1
    seen = [_residual(place, row) for row in peers]
    scaled = [
        far / sqrt(max(row[-1], _LOSS_RTT_MIN)) for (far, _), row in zip(seen, peers, strict=True)
    ]
    sigma = max(_SIGMA_OF_MEDIAN * _low_median([abs(u) for u in scaled]), _SIGMA_MIN)
    matrix = [[0.0] * (d + 1) for _ in range(d + 1)]
    vector = [0.0] * (d + 1)
    mass = 0.0
    for (far, direction), u, row, sure in zip(seen, scaled, peers, trust, strict=True):
        w = _weight(u, sigma, far) * sure / max(row[-1], _LOSS_RTT_MIN)
        mass += w
        for i in range(d + 1):
            vector[i] -= w * direction[i] * far
            for k in range(i + 1):
                matrix[i][k] += w * direction[i] * direction[k]
    if mass <= 0.0:
        return
    for i in range(d + 1):
        matrix[i][i] += _DAMPING * mass
    move = [_STEP_SHARE * part for part in _solve(matrix, vector)]
    length = sqrt(sum(part * part for part in move[:d]))
    share = 1.0 if length <= step_max else step_max / length
    for i in range(d):
        place[i] += share * move[i]
    place[d] = max(place[d] + min(max(move[d], -step_max), step_max), height_min)


def _residual(place: list[float], row: "array[float]") -> tuple[float, list[float]]:
    """Predicted minus measured, and its derivative; a direction of zeros on the same point."""
    d = len(place) - 1
    difference = [place[i] - row[i] for i in range(d)]
    norm = sqrt(sum(part * part for part in difference))
    if norm > 0.0:
        difference = [part / norm for part in difference]
    return norm + place[d] + row[d] - row[d + 2], [*difference, 1.0]


def _weight(u: float, sigma: float, far_s: float) -> float:
    t = u / (_TUKEY * sigma)
    w = (1.0 - t * t) ** 2 if abs(t) < 1.0 else 0.0
    if 0.0 < far_s < _PULL_MAX:
        return max(w, min(_HUBER * sigma / u, 1.0))
    return w


def _low_median(values: list[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def _solve(a: list[list[float]], b: list[float]) -> list[float]:
    """The solution of a x = b by Cholesky's method; of `a` the lower half is read, and replaced."""
    n = len(b)
    for j in range(n):
        for i in range(j, n):
            part = a[i][j] - sum(a[i][k] * a[j][k] for k in range(j))
            a[i][j] = sqrt(part) if i == j else part / a[j][j]
    x = list(b)
    for i in range(n):
        x[i] = (x[i] - sum(a[i][k] * x[k] for k in range(i))) / a[i][i]
    for i in reversed(range(n)):
        x[i] = (x[i] - sum(a[k][i] * x[k] for k in range(i + 1, n))) / a[i][i]
    return x


def _judge(
    place: list[float], peers: list["array[float]"], trust: list[float]
) -> tuple[float, float]:
    total = mass = 0.0
    relative = []
    for row, sure in zip(peers, trust, strict=True):
        far = abs(_residual(place, row)[0])
        relative.append(far / max(row[-1], _ERROR_RTT_MIN))
        mass += sure
        total += sure * far / sqrt(max(row[-1], _LOSS_RTT_MIN))
    return total / mass, _low_median(relative)


def batch_rtt(own: Sequence[float], columns: "array[float]") -> "array[float]":
    """Predicted round trips from `own` (position, then height) to n places, as float32.

    `columns` has one run of n floats a dimension, then one of heights. O(n). Raises ValueError for
    columns that do not fit.
    """
    width = len(own)
    if not 2 <= width <= _DIMENSIONS_MAX + 1:
        raise ValueError(f"1..{_DIMENSIONS_MAX} dimensions and a height, got {width} numbers")
    if len(columns) % width:
        raise ValueError(f"{width} columns of one length are wanted, got {len(columns)} numbers")
    n = len(columns) // width
    found = array("f")
    for at in range(n):
        norm = sum((own[i] - columns[i * n + at]) ** 2 for i in range(width - 1))
        found.append(sqrt(norm) + own[-1] + columns[(width - 1) * n + at])
    return found
