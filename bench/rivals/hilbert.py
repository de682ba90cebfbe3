"""Aligned blocks of the Hilbert curve as boxes, many at a time.

The decoding is that of `dhtos.kernels.hilbert_decode`, step by step, over arrays.
"""

import numpy as np
import numpy.typing as npt

from bench.rivals.model import Ints

Cells = npt.NDArray[np.uint16]


def points(index: Ints, dimensions: int, bits: int) -> Cells:
    """The cells at these positions of the curve, one row per dimension."""
    assert dimensions * bits < 64
    assert bits <= 16
    x = np.zeros((dimensions, len(index)), dtype=np.uint16)
    for place in range(dimensions * bits):
        taken = index >> (dimensions * bits - 1 - place) & 1
        x[place % dimensions] = x[place % dimensions] << 1 | taken.astype(np.uint16)
    carry = x[-1] >> 1
    for i in range(dimensions - 1, 0, -1):
        x[i] ^= x[i - 1]
    x[0] ^= carry
    for level in range(1, bits):
        mask = np.uint16((1 << level) - 1)
        for i in range(dimensions - 1, -1, -1):
            inverted = (x[i] >> level & 1).astype(np.bool_)
            swapped = (x[0] ^ x[i]) & mask
            x[0] ^= np.where(inverted, mask, swapped)
            x[i] ^= np.where(inverted, np.uint16(0), swapped)
    return x


def block_boxes(order: Ints, first: Ints, dimensions: int, bits: int) -> tuple[Cells, Cells]:
    """The least and greatest cells of the blocks first .. first + 2 ** order - 1.

    Within a level the curve takes its subcells in Gray code, so an aligned block is a box, and
    two positions whose codes differ in all free bits lie in opposite corners of it.
    """
    levels, free = order // dimensions, order % dimensions
    alternate = [sum(1 << bit for bit in range(n - 1, -1, -2)) for n in range(dimensions)]
    opposite = first ^ np.array(alternate, dtype=np.int64)[free] << levels * dimensions
    levels = levels.astype(np.uint16)
    one = points(first, dimensions, bits) >> levels
    other = points(opposite, dimensions, bits) >> levels
    low = np.minimum(one, other) << levels
    high = (np.maximum(one, other) << levels) | ((1 << levels) - 1).astype(np.uint16)
    return low, high


def aligned_blocks(begin: Ints, end: Ints, width: int) -> tuple[Ints, Ints, Ints]:
    """The fewest aligned blocks that make up begin .. end - 1: order, which interval, first."""
    begin, end = begin.copy(), end.copy()
    orders, intervals, firsts = [], [], []
    for order in range(width + 1):
        size = 1 << order
        front = np.flatnonzero((begin < end) & (begin & size > 0))
        firsts.append(begin[front])
        begin[front] += size
        back = np.flatnonzero((begin < end) & (end & size > 0))
        end[back] -= size
        firsts.append(end[back])
        intervals += [front, back]
        orders.append(np.full(len(front) + len(back), order))
    assert (begin >= end).all()
    return np.concatenate(orders), np.concatenate(intervals), np.concatenate(firsts)
