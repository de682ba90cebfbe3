# cython: boundscheck=False, wraparound=False, cdivision=True
"""Hilbert curve, compiled; the specification is `dhtos._reference.hilbert` (Skilling 2004)."""

from libc.stdint cimport uint32_t
from libc.string cimport memset

cdef enum:
    DIMENSIONS_MAX = 64
    BITS_MAX = 32
    INDEX_BYTES_MAX = DIMENSIONS_MAX * BITS_MAX // 8


cdef int check(Py_ssize_t dimensions, Py_ssize_t bits_per_dim) except -1:
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        raise ValueError(f"1..{DIMENSIONS_MAX} dimensions, got {dimensions}")
    if not 1 <= bits_per_dim <= BITS_MAX:
        raise ValueError(f"1..{BITS_MAX} bits a dimension, got {bits_per_dim}")
    return 0


cdef inline void exchange(uint32_t *x, Py_ssize_t i, uint32_t bit) noexcept nogil:
    """Invert or swap the low bits of x[0] and x[i] (Skilling's inner step)."""
    cdef uint32_t mask = bit - 1
    cdef uint32_t t
    if x[i] & bit:
        x[0] ^= mask
    else:
        t = (x[0] ^ x[i]) & mask
        x[0] ^= t
        x[i] ^= t


cdef void to_transpose(uint32_t *x, Py_ssize_t n, Py_ssize_t bits) noexcept nogil:
    """Skilling's AxestoTranspose."""
    cdef uint32_t bit = <uint32_t>1 << (bits - 1)
    cdef uint32_t t = 0
    cdef Py_ssize_t i
    while bit > 1:
        for i in range(n):
            exchange(x, i, bit)
        bit >>= 1
    for i in range(1, n):
        x[i] ^= x[i - 1]
    bit = <uint32_t>1 << (bits - 1)
    while bit > 1:
        if x[n - 1] & bit:
            t ^= bit - 1
        bit >>= 1
    for i in range(n):
        x[i] ^= t


cdef void to_axes(uint32_t *x, Py_ssize_t n, Py_ssize_t bits) noexcept nogil:
    """Skilling's TransposetoAxes."""
    cdef uint32_t t = x[n - 1] >> 1
    cdef Py_ssize_t i, level
    for i in range(n - 1, 0, -1):
        x[i] ^= x[i - 1]
    x[0] ^= t
    for level in range(1, bits):
        for i in range(n - 1, -1, -1):
            exchange(x, i, <uint32_t>1 << level)


cdef void gather(
    const uint32_t *x, Py_ssize_t n, Py_ssize_t bits, unsigned char *index, Py_ssize_t size
) noexcept nogil:
    """Interleave the transposed words into a big-endian number of `size` bytes."""
    cdef Py_ssize_t at = size * 8 - n * bits
    cdef Py_ssize_t shift, i
    for shift in range(bits - 1, -1, -1):
        for i in range(n):
            if x[i] >> shift & 1:
                index[at >> 3] |= 0x80 >> (at & 7)
            at += 1


cdef void scatter(
    const unsigned char *index, Py_ssize_t size, uint32_t *x, Py_ssize_t n, Py_ssize_t bits
) noexcept nogil:
    """The inverse of `gather`."""
    cdef Py_ssize_t at = size * 8 - n * bits
    cdef Py_ssize_t level, i
    for level in range(bits):
        for i in range(n):
            x[i] = x[i] << 1 | (index[at >> 3] >> (7 - (at & 7)) & 1)
            at += 1


def hilbert_encode(cells, Py_ssize_t bits_per_dim):
    """The position of a point on the curve, 0 .. 2 ** (len(cells) * bits_per_dim) - 1.

    Raises ValueError for a cell that does not fit in `bits_per_dim` bits.
    """
    cdef tuple given = tuple(cells)
    cdef Py_ssize_t i, size, n = len(given)
    cdef uint32_t x[DIMENSIONS_MAX]
    cdef unsigned char index[INDEX_BYTES_MAX]
    cdef long long cell
    check(n, bits_per_dim)
    for i in range(n):
        try:
            cell = given[i]
        except OverflowError:
            cell = -1
        if not 0 <= cell < 1LL << bits_per_dim:
            raise ValueError(f"a cell does not fit in {bits_per_dim} bits: {given[i]}")
        x[i] = <uint32_t>cell
    size = (n * bits_per_dim + 7) // 8
    memset(index, 0, size)
    to_transpose(x, n, bits_per_dim)
    gather(x, n, bits_per_dim, index, size)
    return int.from_bytes((<const char *>index)[:size], "big")


def hilbert_decode(index, Py_ssize_t dimensions, Py_ssize_t bits_per_dim):
    """The point at a position of the curve: the inverse of `hilbert_encode`.

    Raises ValueError for a position beyond the end of the curve.
    """
    cdef uint32_t x[DIMENSIONS_MAX]
    cdef Py_ssize_t i, size
    cdef bytes packed
    check(dimensions, bits_per_dim)
    if index < 0 or index.bit_length() > dimensions * bits_per_dim:
        raise ValueError(f"a position does not fit in {dimensions * bits_per_dim} bits: {index}")
    size = (dimensions * bits_per_dim + 7) // 8
    packed = index.to_bytes(size, "big")
    memset(x, 0, sizeof(x))
    scatter(<const unsigned char *>packed, size, x, dimensions, bits_per_dim)
    to_axes(x, dimensions, bits_per_dim)
    return [x[i] for i in range(dimensions)]
