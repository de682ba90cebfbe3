"""Latency matrices: units, holes, bad input."""

from math import inf, nan

import pytest

from dhtos.errors import ConfigError
from dhtos.sim.matrix import LOCAL_RTT_S, LatencyMatrix


def test_rows_are_round_trips_in_milliseconds():
    matrix = LatencyMatrix.from_rows([[0, 20], [30, 0]])
    assert matrix.one_way_s[0][1] == pytest.approx(0.010)
    assert matrix.one_way_s[1][0] == pytest.approx(0.015)
    assert matrix.rtt_s(0, 1) == pytest.approx(0.025)
    assert matrix.size == 2


def test_one_place_is_not_free():
    matrix = LatencyMatrix.from_rows([[0, 20], [20, 0]])
    assert matrix.rtt_s(0, 0) == pytest.approx(LOCAL_RTT_S)
    assert LatencyMatrix.from_rows([[0]], local_rtt_s=0.01).rtt_s(0, 0) == pytest.approx(0.01)


@pytest.mark.parametrize("hole", [None, nan, 0, -1, inf])
def test_a_hole_takes_the_other_direction(hole):
    matrix = LatencyMatrix.from_rows([[0, 20], [hole, 0]])
    assert matrix.one_way_s[1][0] == matrix.one_way_s[0][1] == pytest.approx(0.010)


def test_a_hole_in_both_directions_takes_the_best_two_hop_route():
    matrix = LatencyMatrix.from_rows(
        [[0, 0, 10, 100], [0, 0, 30, 200], [10, 30, 0, 1], [100, 200, 1, 0]]
    )
    assert matrix.rtt_s(0, 1) == pytest.approx(0.040)
    assert matrix.rtt_s(2, 3) == pytest.approx(0.001)  # what was measured stays


def test_an_isolated_pair_takes_the_median():
    rows = [[0] * 4 for _ in range(4)]
    rows[0][1], rows[2][3] = 10, 30
    matrix = LatencyMatrix.from_rows(rows)
    assert matrix.rtt_s(0, 2) == pytest.approx(0.020)


def test_filled_matrices_have_no_holes():
    rows = [[0 if (a * b) % 3 else 5 + a + b for b in range(9)] for a in range(9)]
    matrix = LatencyMatrix.from_rows(rows)
    assert all(delay > 0 for row in matrix.one_way_s for delay in row)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows, got 0"),
        ([[0, 1]], "row 0 must have 1 cells, got 2"),
        ([[0, 1], [1]], "row 1 must have 2 cells, got 1"),
        ([[0, None], [None, 0]], "at least one measured pair"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(ConfigError, match=message):
        LatencyMatrix.from_rows(rows)


def test_tsv_with_comments_blank_lines_and_holes():
    text = "# ms\n0\t10.5\t-\t\n\n10.5\t0\t\n7\tNaN\t0\n"  # the first row ends in a tab
    matrix = LatencyMatrix.from_tsv(text)
    assert matrix.size == 3
    assert matrix.rtt_s(0, 2) == pytest.approx(0.007)
    assert matrix.rtt_s(1, 2) == pytest.approx(0.0175)


def test_tsv_names_line_and_column():
    with pytest.raises(ConfigError, match="line 2, column 1: expected milliseconds, got 'fast'"):
        LatencyMatrix.from_tsv("0\t1\nfast\t0\n")


@pytest.mark.parametrize("delay", [0.0, -1.0, nan, inf])
def test_a_constant_delay_is_positive(delay):
    with pytest.raises(ConfigError, match="positive"):
        LatencyMatrix.constant(delay)


def test_as_a_delay_function():
    matrix = LatencyMatrix.from_rows([[0, 20], [30, 0]])
    assert matrix.as_delay()(1, 0) == matrix.one_way_s[1][0]
