# cython: boundscheck=False, wraparound=False, cdivision=True
"""XOR geometry of 20-byte ids, compiled; the specification is `dhtos._reference.xor`."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

cdef enum:
    ID_BYTES = 20
    ON_STACK = 64  # a larger k is allocated


cdef struct Distance:
    uint64_t high
    uint64_t middle
    uint32_t low
    uint32_t index  # makes the order total: equal ids keep the order of the table


cdef inline uint64_t load64(const unsigned char *at) noexcept nogil:
    return (
        <uint64_t>at[0] << 56 | <uint64_t>at[1] << 48 | <uint64_t>at[2] << 40
        | <uint64_t>at[3] << 32 | <uint64_t>at[4] << 24 | <uint64_t>at[5] << 16
        | <uint64_t>at[6] << 8 | <uint64_t>at[7]
    )


cdef inline uint32_t load32(const unsigned char *at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | <uint32_t>at[3]


cdef inline bint is_closer(const Distance *a, const Distance *b) noexcept nogil:
    if a.high != b.high:
        return a.high < b.high
    if a.middle != b.middle:
        return a.middle < b.middle
    if a.low != b.low:
        return a.low < b.low
    return a.index < b.index


cdef void sift_down(Distance *heap, Py_ssize_t size, Py_ssize_t at) noexcept nogil:
    """Restore the heap (farthest first) below `at`."""
    cdef Distance moved = heap[at]
    cdef Py_ssize_t child = 2 * at + 1
    while child < size:
        if child + 1 < size and is_closer(&heap[child], &heap[child + 1]):
            child += 1
        if not is_closer(&moved, &heap[child]):
            break
        heap[at] = heap[child]
        at = child
        child = 2 * at + 1
    heap[at] = moved


cdef void select(
    const unsigned char *table, Py_ssize_t n, const unsigned char *target,
    Distance *best, Py_ssize_t k,
) noexcept nogil:
    """Fill `best` with the k <= n closest of the table, closest first: a heap, then heapsort."""
    cdef uint64_t high = load64(target)
    cdef uint64_t middle = load64(target + 8)
    cdef uint32_t low = load32(target + 16)
    cdef uint64_t first
    cdef Distance one
    cdef Py_ssize_t i
    for i in range(n):
        first = load64(table) ^ high
        if i < k or first <= best[0].high:
            one.high = first
            one.middle = load64(table + 8) ^ middle
            one.low = load32(table + 16) ^ low
            one.index = <uint32_t>i
            if i < k:
                best[i] = one
                if i == k - 1:
                    heapify(best, k)
            elif is_closer(&one, &best[0]):
                best[0] = one
                sift_down(best, k, 0)
        table += ID_BYTES
    for i in range(k - 1, 0, -1):
        one = best[i]
        best[i] = best[0]
        best[0] = one
        sift_down(best, i, 0)


cdef void heapify(Distance *heap, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size // 2 - 1, -1, -1):
        sift_down(heap, size, i)


cdef list chosen(
    const unsigned char *table, Py_ssize_t n, const unsigned char *target, Py_ssize_t k
):
    """`select` into memory of the right size, as a list of indexes."""
    cdef Distance stack[ON_STACK]
    cdef Distance *best = stack
    cdef Py_ssize_t i
    cdef list indexes
    if k > ON_STACK:
        best = <Distance *>malloc(k * sizeof(Distance))
        if best == NULL:
            raise MemoryError
    try:
        select(table, n, target, best, k)
        indexes = [best[i].index for i in range(k)]
    finally:
        if best != stack:
            free(best)
    return indexes


def k_closest(table not None, bytes target not None, Py_ssize_t k):
    """Indexes of the exact `k` ids of `table` closest to `target` by XOR, closest first.

    `table` is n ids of 20 bytes, one after the other. Equal ids keep the order of the table.
    O(n log k). Raises ValueError for a table or a target of another size.
    """
    cdef Py_buffer view
    cdef Py_ssize_t n
    if len(target) != ID_BYTES:
        raise ValueError(f"a target has {ID_BYTES} bytes, got {len(target)}")
    PyObject_GetBuffer(table, &view, PyBUF_SIMPLE)
    try:
        if view.len % ID_BYTES:
            raise ValueError(f"a table is a multiple of {ID_BYTES} bytes, got {view.len}")
        n = view.len // ID_BYTES
        if n > 0xFFFFFFFF:
            raise ValueError(f"a table has at most {0xFFFFFFFF} ids, got {n}")
        k = min(k, n)
        if k <= 0:
            return []
        return chosen(<const unsigned char *>view.buf, n, <const unsigned char *>target, k)
    finally:
        PyBuffer_Release(&view)


cdef Py_ssize_t shared_bits(
    const unsigned char *a, const unsigned char *b, Py_ssize_t size
) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t bits
    cdef unsigned char differing
    while i < size and a[i] == b[i]:
        i += 1
    if i == size:
        return size * 8
    differing = a[i] ^ b[i]
    bits = i * 8
    while not differing & 0x80:
        differing <<= 1
        bits += 1
    return bits


def common_prefix_bits(bytes a not None, bytes b not None):
    """How many leading bits `a` and `b` share; they must have the same size (ValueError)."""
    if len(a) != len(b):
        raise ValueError(f"ids of one size are compared, got {len(a)} and {len(b)} bytes")
    return shared_bits(<const unsigned char *>a, <const unsigned char *>b, len(a))
