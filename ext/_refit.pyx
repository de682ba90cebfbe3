# cython: boundscheck=False, wraparound=False, cdivision=True
"""The robust re-fit of a place and batches of estimates; the twin is `dhtos._reference.refit`."""

from array import array

from libc.math cimport fabs, sqrt, sqrtf

cdef enum:
    DIMENSIONS_MAX = 16
    UNKNOWNS_MAX = DIMENSIONS_MAX + 1
    ROWS_MAX = 256
    BLOCK = 1024

cdef double LOSS_RTT_MIN = 0.01
cdef double ERROR_RTT_MIN = 0.001
cdef double TRUST_OFFSET = 0.02
cdef double TRUST_ERROR_MIN = 0.1
cdef double SIGMA_OF_MEDIAN = 1.4826
cdef double SIGMA_MIN = 1e-6
cdef double TUKEY = 4.685
cdef double HUBER = 1.345
cdef double PULL_MAX = 0.03
cdef double DAMPING = 0.3
cdef double STEP_SHARE = 0.5


cdef int read_numbers(object vector, double *numbers, Py_ssize_t n) except -1:
    cdef tuple given = tuple(vector)
    cdef Py_ssize_t i
    for i in range(n):
        numbers[i] = given[i]
    return 0


cdef double low_median(double *values, Py_ssize_t n) noexcept nogil:
    """Element (n - 1) // 2 of the sorted values (Hoare's selection); reorders them."""
    cdef Py_ssize_t k = (n - 1) // 2, left = 0, right = n - 1, i, j
    cdef double pivot, swap
    while left < right:
        pivot = values[k]
        i = left
        j = right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                swap = values[i]
                values[i] = values[j]
                values[j] = swap
                i += 1
                j -= 1
        if j < k:
            left = i
        if k < i:
            right = j
    return values[k]


cdef double residual(
    const double *place, const double *row, Py_ssize_t d, double *unit
) noexcept nogil:
    """Predicted minus measured; `unit` points from the peer to the place (zeros: same point)."""
    cdef double norm = 0.0, scale
    cdef Py_ssize_t i
    for i in range(d):
        unit[i] = place[i] - row[i]
        norm += unit[i] * unit[i]
    norm = sqrt(norm)
    if norm > 0.0:
        scale = 1.0 / norm
        for i in range(d):
            unit[i] *= scale
    return norm + place[d] + row[d] - row[d + 2]


cdef double weight(double u, double sigma, double far_s) noexcept nogil:
    """Tukey's biweight; a place up to 30 ms too far keeps Huber's bounded pull."""
    cdef double t = u / (TUKEY * sigma)
    cdef double w = 0.0, h
    if fabs(t) < 1.0:
        w = (1.0 - t * t) * (1.0 - t * t)
    if 0.0 < far_s < PULL_MAX:
        h = HUBER * sigma / u
        if h > 1.0:
            h = 1.0
        if h > w:
            w = h
    return w


cdef void solve(double *a, double *b, Py_ssize_t n) noexcept nogil:
    """b becomes the solution of a x = b, for a symmetric and positive definite (Cholesky)."""
    cdef Py_ssize_t i, j, k
    cdef double part
    for j in range(n):
        for i in range(j, n):
            part = a[i * UNKNOWNS_MAX + j]
            for k in range(j):
                part -= a[i * UNKNOWNS_MAX + k] * a[j * UNKNOWNS_MAX + k]
            if i == j:
                a[j * UNKNOWNS_MAX + j] = sqrt(part)
            else:
                a[i * UNKNOWNS_MAX + j] = part / a[j * UNKNOWNS_MAX + j]
    for i in range(n):
        for k in range(i):
            b[i] -= a[i * UNKNOWNS_MAX + k] * b[k]
        b[i] /= a[i * UNKNOWNS_MAX + i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= a[k * UNKNOWNS_MAX + i] * b[k]
        b[i] /= a[i * UNKNOWNS_MAX + i]


cdef double look(
    const double *place, const double *rows, Py_ssize_t n, Py_ssize_t d, double *units,
    double *far, double *scaled
) noexcept nogil:
    """Fills in the residuals, their directions and their sizes; returns the robust deviation."""
    cdef double ranked[ROWS_MAX]
    cdef double rtt, sigma
    cdef Py_ssize_t j
    for j in range(n):
        far[j] = residual(place, rows + j * (d + 3), d, units + j * DIMENSIONS_MAX)
        rtt = rows[j * (d + 3) + d + 2]
        scaled[j] = far[j] / sqrt(rtt if rtt > LOSS_RTT_MIN else LOSS_RTT_MIN)
        ranked[j] = fabs(scaled[j])
    sigma = SIGMA_OF_MEDIAN * low_median(ranked, n)
    return sigma if sigma > SIGMA_MIN else SIGMA_MIN


cdef double surest(const double *rows, Py_ssize_t n, Py_ssize_t d) noexcept nogil:
    """The error below which nobody is believed: that of the median peer, and at least 0.1."""
    cdef double errors[ROWS_MAX]
    cdef double middle
    cdef Py_ssize_t j
    for j in range(n):
        errors[j] = rows[j * (d + 3) + d + 1]
    middle = low_median(errors, n)
    return middle if middle > TRUST_ERROR_MIN else TRUST_ERROR_MIN


cdef double trust(double error, double least) noexcept nogil:
    if error < least:
        error = least
    return 1.0 / (TRUST_OFFSET + error * error)


cdef void add(
    double *a, double *b, const double *unit, double w, double far, Py_ssize_t d
) noexcept nogil:
    """Adds one weighted peer to the normal equations, of which the lower half is kept."""
    cdef Py_ssize_t i, k
    cdef double share
    for i in range(d):
        share = w * unit[i]
        b[i] -= share * far
        for k in range(i + 1):
            a[i * UNKNOWNS_MAX + k] += share * unit[k]
        a[d * UNKNOWNS_MAX + i] += share
    b[d] -= w * far
    a[d * UNKNOWNS_MAX + d] += w


cdef void advance(
    double *place, double *move, Py_ssize_t d, double height_min, double step_max
) noexcept nogil:
    cdef double norm = 0.0, share
    cdef Py_ssize_t i
    for i in range(d + 1):
        move[i] *= STEP_SHARE
        if i < d:
            norm += move[i] * move[i]
    norm = sqrt(norm)
    share = 1.0 if norm <= step_max else step_max / norm
    for i in range(d):
        place[i] += share * move[i]
    if move[d] > step_max:
        move[d] = step_max
    elif move[d] < -step_max:
        move[d] = -step_max
    place[d] += move[d]
    if place[d] < height_min:
        place[d] = height_min


cdef void step(
    double *place, const double *rows, Py_ssize_t n, Py_ssize_t d, double height_min,
    double step_max, double least
) noexcept nogil:
    cdef double units[ROWS_MAX * DIMENSIONS_MAX]
    cdef double far[ROWS_MAX]
    cdef double scaled[ROWS_MAX]
    cdef double a[UNKNOWNS_MAX * UNKNOWNS_MAX]
    cdef double b[UNKNOWNS_MAX]
    cdef double sigma, w, rtt, mass = 0.0
    cdef Py_ssize_t j, i, k
    for i in range(d + 1):
        b[i] = 0.0
        for k in range(i + 1):
            a[i * UNKNOWNS_MAX + k] = 0.0
    sigma = look(place, rows, n, d, units, far, scaled)
    for j in range(n):
        w = weight(scaled[j], sigma, far[j])
        if w > 0.0:
            rtt = rows[j * (d + 3) + d + 2]
            w *= trust(rows[j * (d + 3) + d + 1], least) / (rtt if rtt > LOSS_RTT_MIN else LOSS_RTT_MIN)
            mass += w
            add(a, b, units + j * DIMENSIONS_MAX, w, far[j], d)
    if mass <= 0.0:
        return
    for i in range(d + 1):
        a[i * UNKNOWNS_MAX + i] += DAMPING * mass
    solve(a, b, d + 1)
    advance(place, b, d, height_min, step_max)


cdef void judge(
    const double *place, const double *rows, Py_ssize_t n, Py_ssize_t d, double *cost,
    double *error, double least
) noexcept nogil:
    cdef double unit[DIMENSIONS_MAX]
    cdef double relative[ROWS_MAX]
    cdef double far, rtt, weight, mass = 0.0, total = 0.0
    cdef Py_ssize_t j
    for j in range(n):
        far = fabs(residual(place, rows + j * (d + 3), d, unit))
        rtt = rows[j * (d + 3) + d + 2]
        relative[j] = far / (rtt if rtt > ERROR_RTT_MIN else ERROR_RTT_MIN)
        weight = trust(rows[j * (d + 3) + d + 1], least)
        mass += weight
        total += weight * far / sqrt(rtt if rtt > LOSS_RTT_MIN else LOSS_RTT_MIN)
    cost[0] = total / mass
    error[0] = low_median(relative, n)


def refit(own, const double[::1] rows not None, int count, int steps, double height_min,
          double step_max):
    """`(place, cost, error)` after `steps` damped steps of `own` towards `count` peers.

    `own` is a position, then a height; a row a position, a height, an error and a round trip.
    The cost is comparable between starting points, the error is the median relative residual.
    O(steps x count x dimensions^2). Raises ValueError for sizes out of bounds.
    """
    cdef double place[UNKNOWNS_MAX]
    cdef double cost = 0.0, error = 0.0, least
    cdef Py_ssize_t i, d = len(own) - 1
    if not 1 <= d <= DIMENSIONS_MAX:
        raise ValueError(f"1..{DIMENSIONS_MAX} dimensions and a height, got {d + 1} numbers")
    if not 1 <= count <= ROWS_MAX:
        raise ValueError(f"1..{ROWS_MAX} peers, got {count}")
    if rows.shape[0] < count * (d + 3):
        raise ValueError(
            f"{count} rows of {d + 3} numbers are wanted, got {rows.shape[0]} numbers"
        )
    read_numbers(own, place, d + 1)
    with nogil:
        least = surest(&rows[0], count, d)
        for i in range(steps):
            step(place, &rows[0], count, d, height_min, step_max, least)
        judge(place, &rows[0], count, d, &cost, &error, least)
    return tuple([place[i] for i in range(d + 1)]), cost, error


cdef void fill(
    const float *own, const float *columns, Py_ssize_t n, Py_ssize_t d, float *into
) noexcept nogil:
    """In blocks, so that the sums of squares stay in the first-level cache."""
    cdef Py_ssize_t start = 0, i, j, m
    cdef const float *column
    cdef float here, part
    cdef float *out
    while start < n:
        m = n - start if n - start < BLOCK else BLOCK
        out = into + start
        for i in range(m):
            out[i] = 0.0
        for j in range(d):
            column = columns + j * n + start
            here = own[j]
            for i in range(m):
                part = here - column[i]
                out[i] += part * part
        column = columns + d * n + start
        here = own[d]
        for i in range(m):
            out[i] = sqrtf(out[i]) + (here + column[i])
        start += BLOCK


def batch_rtt(own, const float[::1] columns not None):
    """Predicted round trips from `own` (position, then height) to n places, as float32.

    `columns` has one run of n floats a dimension, then one of heights. O(n). Raises ValueError for
    columns that do not fit.
    """
    cdef double numbers[UNKNOWNS_MAX]
    cdef float here[UNKNOWNS_MAX]
    cdef Py_ssize_t n, i, width = len(own)
    cdef float[::1] into
    if not 2 <= width <= UNKNOWNS_MAX:
        raise ValueError(f"1..{DIMENSIONS_MAX} dimensions and a height, got {width} numbers")
    if columns.shape[0] % width:
        raise ValueError(
            f"{width} columns of one length are wanted, got {columns.shape[0]} numbers"
        )
    read_numbers(own, numbers, width)
    for i in range(width):
        here[i] = <float>numbers[i]
    n = columns.shape[0] // width
    found = array("f", bytes(4 * n))
    if n:
        into = found
        with nogil:
            fill(here, &columns[0], n, width - 1, &into[0])
    return found
