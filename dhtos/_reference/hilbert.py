"""Hilbert curve in n dimensions, for the measured comparison with Morton keys.

J. Skilling, "Programming the Hilbert curve", AIP Conf. Proc. 707 (2004): the index is kept as
n transposed words, so that both directions are a few exclusive-ors per bit.
"""

from collections.abc import Sequence

_DIMENSIONS_MAX = 64
_BITS_MAX = 32


def _check(dimensions: int, bits_per_dim: int) -> None:
    if not 1 <= dimensions <= _DIMENSIONS_MAX:
        raise ValueError(f"1..{_DIMENSIONS_MAX} dimensions, got {dimensions}")
    if not 1 <= bits_per_dim <= _BITS_MAX:
        raise ValueError(f"1..{_BITS_MAX} bits a dimension, got {bits_per_dim}")


def hilbert_encode(cells: Sequence[int], bits_per_dim: int) -> int:
    """The position of a point on the curve, 0 .. 2 ** (len(cells) * bits_per_dim) - 1.

    Raises ValueError for a cell that does not fit in `bits_per_dim` bits.
    """
    _check(len(cells), bits_per_dim)
    x = list(cells)
    for cell in x:
        if not 0 <= cell < 1 << bits_per_dim:
            raise ValueError(f"a cell does not fit in {bits_per_dim} bits: {cell}")
    n = len(x)
    bit = 1 << bits_per_dim - 1
    while bit > 1:  # inverse undo of excess work (Skilling, AxestoTranspose)
        mask = bit - 1
        for i in range(n):
            if x[i] & bit:
                x[0] ^= mask
            else:
                t = (x[0] ^ x[i]) & mask
                x[0] ^= t
                x[i] ^= t
        bit >>= 1
    for i in range(1, n):  # Gray encode
        x[i] ^= x[i - 1]
    t = 0
    bit = 1 << bits_per_dim - 1
    while bit > 1:
        if x[n - 1] & bit:
            t ^= bit - 1
        bit >>= 1
    index = 0
    for shift in range(bits_per_dim - 1, -1, -1):
        for cell in x:
            index = index << 1 | (cell ^ t) >> shift & 1
    return index


def hilbert_decode(index: int, dimensions: int, bits_per_dim: int) -> list[int]:
    """The point at a position of the curve: the inverse of `hilbert_encode`.

    Raises ValueError for a position beyond the end of the curve.
    """
    _check(dimensions, bits_per_dim)
    width = dimensions * bits_per_dim
    if not 0 <= index < 1 << width:
        raise ValueError(f"a position does not fit in {width} bits: {index}")
    n = dimensions
    x = [0] * n
    for i in range(width):
        x[i % n] = x[i % n] << 1 | index >> (width - 1 - i) & 1
    t = x[n - 1] >> 1  # Gray decode by H ^ (H / 2) (Skilling, TransposetoAxes)
    for i in range(n - 1, 0, -1):
        x[i] ^= x[i - 1]
    x[0] ^= t
    for level in range(1, bits_per_dim):  # undo excess work
        bit = 1 << level
        mask = bit - 1
        for i in range(n - 1, -1, -1):
            if x[i] & bit:
                x[0] ^= mask
            else:
                t = (x[0] ^ x[i]) & mask
                x[0] ^= t
                x[i] ^= t
    return x
