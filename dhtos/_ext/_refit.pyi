from array import array
from collections.abc import Sequence

def refit(
    own: Sequence[float],
    rows: array[float],
    count: int,
    steps: int,
    height_min: float,
    step_max: float,
) -> tuple[tuple[float, ...], float, float]: ...
def batch_rtt(own: Sequence[float], columns: array[float]) -> array[float]: ...
