# cython: boundscheck=False, wraparound=False, cdivision=True
"""Morton keys, compiled; the specification is `dhtos._reference.morton`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memset

cdef enum:
    ATTRIBUTES_MAX = 64
    BITS_MAX = 32
    SCHEDULE_MAX = 256


cdef Py_ssize_t read_widths(object bits, bytes schedule, long long *widths) except -1:
    """Fill `widths` and return their number; ValueError unless they are as the schedule says."""
    cdef tuple given = tuple(bits)
    cdef Py_ssize_t n = len(given)
    cdef Py_ssize_t i
    cdef const unsigned char *order = <const unsigned char *>schedule
    cdef int counts[ATTRIBUTES_MAX]
    if n > ATTRIBUTES_MAX:
        raise ValueError(f"at most {ATTRIBUTES_MAX} attributes, got {n}")
    if len(schedule) > SCHEDULE_MAX:
        raise ValueError(f"a schedule has at most {SCHEDULE_MAX} bits, got {len(schedule)}")
    read_numbers(given, widths)
    for i in range(n):
        if not 0 <= widths[i] <= BITS_MAX:
            raise ValueError(f"an attribute has 0..{BITS_MAX} bits, got {widths[i]}")
    memset(counts, 0, sizeof(counts))
    for i in range(len(schedule)):
        if order[i] >= n:
            raise ValueError(f"the schedule names attribute {order[i]} of {n}")
        counts[order[i]] += 1
    for i in range(n):
        if counts[i] != widths[i]:
            raise ValueError(f"attribute {i} has {widths[i]} bits, not as the schedule says")
    return n


cdef int read_numbers(tuple given, long long *numbers) except -1:
    cdef Py_ssize_t i
    try:
        for i in range(len(given)):
            numbers[i] = given[i]
    except OverflowError as error:
        raise ValueError("a number does not fit in 64 bits") from error
    return 0


cdef void interleave(
    const long long *cells, long long *left, const unsigned char *order, Py_ssize_t size,
    unsigned char *key,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        left[order[i]] -= 1
        if cells[order[i]] >> left[order[i]] & 1:
            key[i >> 3] |= 0x80 >> (i & 7)


cdef void descend(
    const unsigned char *key, Py_ssize_t offset, Py_ssize_t known, const unsigned char *order,
    long long *cells, long long *left,
) noexcept nogil:
    """Append the `known` bits of the key to their cells; `left` counts the bits unknown."""
    cdef Py_ssize_t i, position
    for i in range(known):
        position = offset + i
        left[order[i]] -= 1
        cells[order[i]] = cells[order[i]] << 1 | (key[position >> 3] >> (7 - (position & 7)) & 1)


cdef Py_ssize_t locate(
    bytes key, Py_ssize_t length, object bits, bytes schedule, Py_ssize_t offset,
    long long *cells, long long *left,
) except -1:
    """Checks of `prefix_box`, then `descend`; returns the number of attributes."""
    cdef Py_ssize_t n = read_widths(bits, schedule, left)
    cdef Py_ssize_t known
    if length < 0 or offset < 0:
        raise ValueError(f"length and offset are at least 0, got {length} and {offset}")
    known = max(0, min(length - offset, <Py_ssize_t>len(schedule)))
    if known and len(key) * 8 < offset + known:
        raise ValueError(f"{offset + known} bits of the key are wanted, got {len(key) * 8}")
    memset(cells, 0, n * sizeof(long long))
    descend(
        <const unsigned char *>key, offset, known, <const unsigned char *>schedule, cells, left
    )
    return n


def morton_encode(cells, bits, bytes schedule not None):
    """The key of `cells`: ceil(len(schedule) / 8) bytes, left aligned.

    Raises ValueError for a cell wider than its attribute or a schedule that does not fit `bits`.
    """
    cdef long long left[ATTRIBUTES_MAX]
    cdef long long values[ATTRIBUTES_MAX]
    cdef Py_ssize_t n = read_widths(bits, schedule, left)
    cdef tuple given = tuple(cells)
    cdef Py_ssize_t i, size = (len(schedule) + 7) // 8
    cdef bytes key
    if len(given) != n:
        raise ValueError(f"{n} cells are wanted, got {len(given)}")
    read_numbers(given, values)
    for i in range(n):
        if not 0 <= values[i] < 1LL << left[i]:
            raise ValueError(f"cell {i} does not fit in {left[i]} bits")
    key = PyBytes_FromStringAndSize(NULL, size)
    memset(PyBytes_AS_STRING(key), 0, size)
    interleave(
        values, left, <const unsigned char *>schedule, len(schedule),
        <unsigned char *>PyBytes_AS_STRING(key),
    )
    return key


def morton_decode(bytes key not None, bits, bytes schedule not None):
    """The cells of a key made by `morton_encode`; a shorter key raises ValueError."""
    cdef long long left[ATTRIBUTES_MAX]
    cdef long long cells[ATTRIBUTES_MAX]
    cdef Py_ssize_t i
    cdef Py_ssize_t n = locate(key, len(schedule), bits, schedule, 0, cells, left)
    return [cells[i] for i in range(n)]


def prefix_box(
    bytes key not None, Py_ssize_t length, bits, bytes schedule not None, Py_ssize_t offset
):
    """The inclusive interval of cells, per attribute, of the subtree of `key`'s `length` bits.

    The schedule starts at bit `offset` of the key; bits before it and after its end say nothing.
    Raises ValueError for a negative number or a key too short for the bits it must give.
    """
    cdef long long left[ATTRIBUTES_MAX]
    cdef long long cells[ATTRIBUTES_MAX]
    cdef Py_ssize_t i
    cdef Py_ssize_t n = locate(key, length, bits, schedule, offset, cells, left)
    return [
        (cells[i] << left[i], (cells[i] << left[i]) + (1LL << left[i]) - 1) for i in range(n)
    ]


def box_intersects(
    bytes key not None, Py_ssize_t length, bits, bytes schedule not None, Py_ssize_t offset,
    lows, highs,
):
    """Whether the subtree (see `prefix_box`) has a cell with `lows[a] <= cell <= highs[a]` in all.

    Bounds are integers of 64 bits; an empty interval intersects nothing.
    """
    cdef long long left[ATTRIBUTES_MAX]
    cdef long long cells[ATTRIBUTES_MAX]
    cdef tuple low_bounds = tuple(lows)
    cdef tuple high_bounds = tuple(highs)
    cdef long long low, high, first
    cdef Py_ssize_t i
    cdef Py_ssize_t n = locate(key, length, bits, schedule, offset, cells, left)
    if len(low_bounds) != n or len(high_bounds) != n:
        raise ValueError(
            f"{n} bounds are wanted, got {len(low_bounds)} and {len(high_bounds)}"
        )
    for i in range(n):
        low = low_bounds[i]
        high = high_bounds[i]
        first = cells[i] << left[i]
        if low > high or low > first + (1LL << left[i]) - 1 or first > high:
            return False
    return True
