"""Summaries: exact when made, an upper bound after the wire, refused when they contradict."""

import pytest

from dhtos.core.record import make_record
from dhtos.core.scale import POSITION_MAX, Codes, Flag, Linear, Log2
from dhtos.core.schema import Attribute, Schema, default_schema
from dhtos.core.summary import BIN_COUNT, Summary
from dhtos.errors import MalformedMessage

SCHEMA = Schema(
    "small",
    0,
    (
        Attribute("cores", "number", "static", Log2(1, 65536), "", 12),
        Attribute("load", "number", "dynamic", Linear(0, 1)),
        Attribute("arch", "text", "static", Codes(("x86_64", "arm64"))),
        Attribute("spot", "bool", "dynamic", Flag()),
    ),
    ("cores",),
)
EMPTY = Summary.of(SCHEMA, [])
ATTRIBUTE_BYTES = BIN_COUNT // 2 + 4


def machine(number=0, **values):
    """A record of the small schema."""
    return make_record(SCHEMA, values, {}, node_id=number.to_bytes(20), endpoint=("::1", 1), seq=1)


def forged(count=1, packed=bytes(8), low=POSITION_MAX, high=0, present=0b0001):
    """A summary that says this of `cores` and nothing of the rest."""
    first = packed + low.to_bytes(2) + high.to_bytes(2)
    return count.to_bytes(4) + present.to_bytes(1) + first


def test_nobody():
    assert EMPTY.count == 0
    assert EMPTY.bins == ((0,) * BIN_COUNT,) * 4
    assert all(low > high for low, high in zip(EMPTY.lows, EMPTY.highs, strict=True))
    assert Summary.from_bytes(EMPTY.to_bytes(SCHEMA), SCHEMA) == EMPTY


def test_figures_of_a_few_machines():
    cores = SCHEMA.attribute("cores")
    summary = Summary.of(SCHEMA, [machine(cores=1), machine(cores=2), machine(cores=2**15)])
    assert summary.count == 3
    assert summary.bins[0][0] == 1
    assert summary.bins[0][1] == 1
    assert summary.bins[0][15] == 1
    assert (summary.lows[0], summary.highs[0]) == (cores.floor, cores.position(2**15))


def test_missing_values_are_in_no_bin():
    summary = Summary.of(SCHEMA, [machine(cores=4), machine(load=0.5), machine()])
    assert summary.count == 3
    assert [sum(bins) for bins in summary.bins] == [1, 1, 0, 0]
    assert summary.lows[2] > summary.highs[2]


def test_false_and_zero_are_values():
    summary = Summary.of(SCHEMA, [machine(spot=False, load=0.0)])
    assert summary.bins[3][0] == 1
    assert summary.bins[1][0] == 1
    assert summary.lows[3] == summary.highs[3] == 1


def test_any_iterable_will_do():
    assert Summary.of(SCHEMA, iter([machine(cores=1)])).count == 1


def test_the_summary_of_two_sets_is_the_merge_of_theirs():
    left = [machine(n, cores=2**n, load=n / 10) for n in range(8)]
    right = [machine(n, cores=2**n, arch="arm64") for n in range(4, 12)]
    merged = Summary.of(SCHEMA, left).merge(Summary.of(SCHEMA, right))
    assert merged == Summary.of(SCHEMA, [*left, *right])
    assert merged.merge(EMPTY) == merged == EMPTY.merge(merged)


@pytest.mark.parametrize(
    ("count", "everyone", "read"),
    [
        (0, 9, 0), (1, 9, 1), (2, 9, 2), (3, 9, 4), (4, 9, 4), (5, 9, 8), (100, 999, 128),
        (129, 200, 200), (4096, 9999, 4096), (4097, 9999, 8192), (8192, 9999, 8192),
        (8193, 9999, 9999), (10**6, 10**7, 10**7),
    ],
)  # fmt: skip
def test_counts_are_rounded_up_but_not_above_everyone(count, everyone, read):
    inhabited = (1, 9) if count else (POSITION_MAX, 0)
    summary = Summary(
        everyone,
        ((count, *[0] * 15), *[(0,) * 16] * 3),
        (inhabited[0], *[POSITION_MAX] * 3),
        (inhabited[1], 0, 0, 0),
    )
    assert Summary.from_bytes(summary.to_bytes(SCHEMA), SCHEMA).bins[0] == (read, *[0] * 15)


def test_what_nobody_has_costs_a_bit():
    assert len(EMPTY.to_bytes(SCHEMA)) == 4 + 1
    assert len(Summary.of(SCHEMA, [machine(cores=4)]).to_bytes(SCHEMA)) == 5 + ATTRIBUTE_BYTES
    schema = default_schema()
    assert len(Summary.of(schema, []).to_bytes(schema)) == 4 + 5


def test_what_was_read_can_be_sent_on():
    made = Summary.of(SCHEMA, [machine(n, cores=n + 1, load=n / 64) for n in range(64)])
    read = Summary.from_bytes(made.to_bytes(SCHEMA), SCHEMA)
    again = Summary.from_bytes(read.to_bytes(SCHEMA), SCHEMA)
    assert again == read
    assert (read.count, read.lows, read.highs) == (made.count, made.lows, made.highs)


@pytest.mark.parametrize("size", [0, 3, 4, 6, 16, 17, 292])
def test_another_length_is_refused(size):
    with pytest.raises(MalformedMessage, match="12 bytes for each attribute"):
        Summary.from_bytes(bytes(size), SCHEMA)


def test_the_forgery_kit_makes_good_summaries():
    good = forged(5, b"\x00\x10" + bytes(6), 2 << 12, 3 * 2**12 - 1)
    assert Summary.from_bytes(good, SCHEMA).bins[0][2] == 1
    assert Summary.from_bytes(b"\0\0\0\1\0", SCHEMA).count == 1


@pytest.mark.parametrize(
    "data",
    [
        forged(),
        forged(packed=b"\x10" + bytes(7), low=1, high=9, present=0b0011),
        forged(packed=b"\x10" + bytes(7), low=1, high=9, present=0b10000),
        forged(packed=bytes(8), low=1, high=9),
        forged(low=5, high=9),
        forged(low=POSITION_MAX, high=POSITION_MAX),
        forged(packed=b"\x10" + bytes(7)),
        forged(packed=b"\x10" + bytes(7), low=0, high=9),
        forged(packed=b"\x10" + bytes(7), low=9, high=8),
        forged(packed=b"\x10" + bytes(7), low=1, high=4096),
        forged(packed=b"\x01" + bytes(7), low=4095, high=4096),
        forged(packed=b"\x11" + bytes(7), low=4096, high=4097),
        forged(packed=bytes(7) + b"\x01", low=POSITION_MAX - 4096, high=POSITION_MAX),
        forged(count=0, packed=b"\x10" + bytes(7), low=1, high=9),
    ],
)
def test_contradictions_are_refused(data):
    with pytest.raises(MalformedMessage):
        Summary.from_bytes(data, SCHEMA)


def test_of_machines_with_another_schema_only_the_count_is_known():
    counted = Summary.of_count(7)
    assert (counted.count, counted.bins, counted.occupancy(default_schema())) == (7, (), 0)
    wire = counted.to_bytes(default_schema())
    assert wire == b"\0\0\0\7"
    assert Summary.count_from_bytes(wire) == counted
    assert counted.widened(Summary.of_count(3)) == counted
    assert counted.merge(Summary.of_count(3)) == Summary.of_count(10)


def test_the_count_of_a_summary_is_read_without_its_schema():
    whole = Summary.of(default_schema(), []).to_bytes(default_schema())
    assert Summary.count_from_bytes(b"\0\0\1\0" + whole[4:]) == Summary.of_count(256)
    with pytest.raises(MalformedMessage, match="begins with a count of 4 bytes"):
        Summary.count_from_bytes(b"\0\0\0")
    assert Summary.of_count(2**40).count == 2**32 - 1
