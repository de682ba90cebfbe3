from collections.abc import Sequence

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
) -> tuple[tuple[float, ...], float, float]: ...
