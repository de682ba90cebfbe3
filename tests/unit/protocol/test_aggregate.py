"""Aggregates: exact sums, partials that merge, edges, and what is refused from the wire."""

import itertools
from fractions import Fraction
from math import inf, nan
from random import Random
from sys import float_info
from typing import Any

import pytest
from hub_world import GIB, SCHEMA, machine

from dhtos.core.limits import HISTOGRAM_EDGES_MAX
from dhtos.core.scale import Linear, Log2
from dhtos.core.schema import NUMBER_MAX, Attribute
from dhtos.errors import MalformedMessage, UsageError
from dhtos.protocol.aggregate import (
    BIN_COUNT,
    Measure,
    Partial,
    check_edges,
    default_edges,
    measured,
    read_partial,
    total,
)

CORES, LOAD = SCHEMA.index("cores"), SCHEMA.index("load1")
BIGGEST = float_info.max


# --- sums -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0),
        ([1, 2, 3], 6),
        ([NUMBER_MAX - 1, 1], NUMBER_MAX),
        ([NUMBER_MAX, 1], float(NUMBER_MAX + 1)),
        ([-NUMBER_MAX, -1], -float(NUMBER_MAX + 1)),
        ([0.1] * 10, 1.0),
        ([1, 0.5], 1.5),
        ([10**18 + 1, -1e18], 1.0),
        ([BIGGEST, BIGGEST], BIGGEST),
        ([-BIGGEST, -BIGGEST], -BIGGEST),
        ([BIGGEST, BIGGEST, -BIGGEST], BIGGEST),
        ([BIGGEST, BIGGEST, -BIGGEST, -BIGGEST / 2], BIGGEST / 2),
    ],
)
def test_sums_are_exact_and_finite(values: list[float], expected: float) -> None:
    found = total(values)
    assert found == expected
    assert type(found) is type(expected)


def test_a_sum_of_floats_is_rounded_once() -> None:
    rng = Random(1)
    values = [rng.uniform(-1, 1) * 10 ** rng.randint(-9, 9) for _ in range(500)]
    assert total(values) == float(sum(map(Fraction, values)))


# --- partials -------------------------------------------------------------------------------------


def test_a_partial_is_what_brute_force_says() -> None:
    records = [machine(n, cores=n, mem=n * GIB) for n in range(1, 9)] + [machine(9, mem=GIB)]
    found = Measure(CORES, (2, 4.5)).of(records, SCHEMA)
    assert found == Partial(36, 1, 8, (1, 3, 4))
    assert found.present == 8


def test_dynamic_values_and_missing_ones() -> None:
    records = [machine(1, cores=4, load1=0.25), machine(2, cores=4, load1=1), machine(3, cores=4)]
    assert Measure(LOAD).of(records, SCHEMA) == Partial(1.25, 0.25, 1, (2,))
    assert Measure(LOAD).of([], SCHEMA) == Partial(0, None, None, (0,))


def test_an_edge_belongs_to_the_count_above_it() -> None:
    records = [machine(n, cores=n) for n in (1, 2, 3)]
    assert Measure(CORES, (2,)).of(records, SCHEMA).counts == (1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_parts_merge_into_the_whole_however_they_are_cut(seed: int) -> None:
    rng = Random(seed)
    records = [
        machine(n, **({"cores": rng.randint(1, 99)} if rng.random() < 0.8 else {"mem": GIB}))
        for n in range(60)
    ]
    measure = Measure(CORES, (4, 16, 64))
    cuts = sorted(rng.sample(range(60), 5))
    parts = [records[a:b] for a, b in zip([0, *cuts], [*cuts, 60], strict=True)]
    merged = measure.merged([measure.of(part, SCHEMA) for part in parts])
    assert merged == measure.of(records, SCHEMA)


def test_nothing_merges_into_nothing() -> None:
    measure = Measure(CORES, (4, 16))
    nothing = Partial(0, None, None, (0, 0, 0))
    assert measure.merged([]) == nothing
    assert measure.merged([nothing, nothing]) == nothing


# --- the wire -------------------------------------------------------------------------------------


def test_a_partial_reads_back() -> None:
    measure = Measure(CORES, (2,))
    for partial in (
        Partial(9, 1, 4, (1, 2)),
        Partial(0, None, None, (0, 0)),
        Partial(1.5, 0, 1.5, (2, 0)),
    ):
        assert read_partial(partial.to_wire(), 5, measure) == partial
    assert read_partial([9, 1, 4, [1, 2], "of a later version"], 5, measure).sum == 9


@pytest.mark.parametrize(
    "wire",
    [
        None,
        [],
        [9, 1, 4],
        [9, 1, 4, None],
        [9, 1, 4, [3]],
        [9, 1, 4, [1, 1, 1]],
        [9, 1, 4, [1, -1]],
        [9, 1, 4, [1, True]],
        [9, 1, 4, [3, 3]],
        [9, 1, 4, [6, 0]],
        [inf, 1, 4, [1, 2]],
        [nan, 1, 4, [1, 2]],
        [True, 1, 4, [1, 2]],
        [2**63, 1, 4, [1, 2]],
        ["9", 1, 4, [1, 2]],
        [9, 4, 1, [1, 2]],
        [9, None, 4, [1, 2]],
        [9, 1, inf, [1, 2]],
        [9, nan, 4, [1, 2]],
        [9, None, None, [0, 0]],
        [0, 1, 1, [0, 0]],
        list(range(9)),
    ],
)
def test_a_strange_partial_is_malformed(wire: Any) -> None:
    with pytest.raises(MalformedMessage):
        read_partial(wire, 5, Measure(CORES, (2,)))


# --- what can be asked ----------------------------------------------------------------------------


def test_only_numbers_have_sums() -> None:
    assert measured(SCHEMA, "cores") == CORES
    with pytest.raises(
        UsageError, match=r"arch is a text.*use count, as in count\(\"arch == 'x'\"\)"
    ):
        measured(SCHEMA, "arch")
    with pytest.raises(UsageError, match="did you mean 'cores'"):
        measured(SCHEMA, "coers")


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([], f"1..{HISTOGRAM_EDGES_MAX} edges, got 0"),
        (range(HISTOGRAM_EDGES_MAX + 1), f"got {HISTOGRAM_EDGES_MAX + 1}"),
        ([1, inf], "finite numbers, got inf"),
        ([nan], "finite numbers, got nan"),
        (["8GiB"], "finite numbers, got '8GiB'"),
        ([True], "finite numbers, got True"),
        ([1, 1], "rise, got 1 before 1"),
        ([2, 1], "rise, got 2 before 1"),
    ],
)
def test_edges_are_finite_and_rise(edges: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_edges(edges)


def test_edges_are_kept_as_they_are() -> None:
    assert check_edges([1, 2.5, NUMBER_MAX]) == (1, 2.5, NUMBER_MAX)


@pytest.mark.parametrize("attribute", [a for a in SCHEMA.attributes if a.kind == "number"])
def test_the_default_edges_cut_the_scale_into_equal_steps(attribute: Attribute) -> None:
    edges = default_edges(attribute)
    assert len(edges) == BIN_COUNT - 1
    assert check_edges(edges) == edges
    places = [attribute.position(edge) for edge in edges]
    steps = [high - low for low, high in itertools.pairwise(places)]
    assert max(steps) - min(steps) <= 2
    assert attribute.scale.low < edges[0]  # type: ignore[union-attr]
    assert edges[-1] < attribute.scale.high  # type: ignore[union-attr]


def test_round_scales_have_round_edges() -> None:
    share = Attribute("share", "number", "dynamic", Linear(0, 100))
    size = Attribute("size", "number", "static", Log2(1, 2**16))
    assert default_edges(share) == tuple(6.25 * n for n in range(1, 16))
    assert default_edges(size) == tuple(2.0**n for n in range(1, 16))


def test_an_axis_a_few_floats_wide_has_fewer_edges() -> None:
    narrow = Attribute("narrow", "number", "static", Linear(1, 1.00000000001))
    assert 1 <= len(check_edges(default_edges(narrow))) < BIN_COUNT - 1
