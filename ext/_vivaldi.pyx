# cython: boundscheck=False, wraparound=False, cdivision=True
"""Vivaldi coordinates, compiled; the specification is `dhtos._reference.vivaldi`."""

from libc.math cimport fabs, sqrt

cdef enum:
    DIMENSIONS_MAX = 16


cdef int read_vector(object vector, double *numbers, Py_ssize_t n) except -1:
    cdef tuple given = tuple(vector)
    cdef Py_ssize_t i
    if len(given) != n:
        raise ValueError(f"vectors of {n} numbers are wanted")
    for i in range(n):
        numbers[i] = given[i]
    return 0


cdef double subtract(double *x, const double *y, Py_ssize_t n) noexcept nogil:
    """x -= y; returns the Euclidean norm of the difference."""
    cdef double norm = 0.0
    cdef Py_ssize_t i
    for i in range(n):
        x[i] -= y[i]
        norm += x[i] * x[i]
    return sqrt(norm)


def vivaldi_update(
    position, double height, double error, remote_position, double remote_height,
    double remote_error, double rtt, double cc, double ce, jitter_direction,
):
    """`(position, height, error)` after one sample; `jitter_direction` parts equal positions.

    Raises ValueError unless the vectors have one size, the heights are >= 0, and `rtt` and the
    sum of the errors are > 0.
    """
    cdef double own[DIMENSIONS_MAX]
    cdef double difference[DIMENSIONS_MAX]
    cdef double direction[DIMENSIONS_MAX]
    cdef double norm, predicted, w, es, force, new_error
    cdef Py_ssize_t i, n = len(position)
    if not 1 <= n <= DIMENSIONS_MAX:
        raise ValueError(f"1..{DIMENSIONS_MAX} dimensions, got {n}")
    read_vector(position, own, n)
    read_vector(remote_position, difference, n)
    read_vector(jitter_direction, direction, n)
    if not (height >= 0.0 and remote_height >= 0.0):
        raise ValueError("heights must be at least 0")
    if not (rtt > 0.0 and error + remote_error > 0.0):
        raise ValueError("rtt and the sum of the errors must be above 0")
    norm = subtract(difference, own, n)  # remote - own, hence the signs below
    predicted = norm + height + remote_height
    w = error / (error + remote_error)
    es = fabs(predicted - rtt) / rtt
    new_error = es * ce * w + error * (1.0 - ce * w)
    force = cc * w * (rtt - predicted)
    if norm == 0.0:  # the paper's u(0); the height has no direction to share, so it stays
        for i in range(n):
            own[i] += force * direction[i]
    else:
        for i in range(n):
            own[i] -= force * (difference[i] / predicted)
        height += force * ((height + remote_height) / predicted)
    return tuple([own[i] for i in range(n)]), height, new_error
