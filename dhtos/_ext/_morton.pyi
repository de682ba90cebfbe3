from collections.abc import Sequence

def morton_encode(cells: Sequence[int], bits: Sequence[int], schedule: bytes) -> bytes: ...
def morton_decode(key: bytes, bits: Sequence[int], schedule: bytes) -> list[int]: ...
def prefix_box(
    key: bytes, length: int, bits: Sequence[int], schedule: bytes, offset: int
) -> list[tuple[int, int]]: ...
def box_intersects(
    key: bytes,
    length: int,
    bits: Sequence[int],
    schedule: bytes,
    offset: int,
    lows: Sequence[int],
    highs: Sequence[int],
) -> bool: ...
