"""Summaries never say less than the truth, however often they are merged and sent."""

from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st

from dhtos.core.record import make_record
from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2p1
from dhtos.core.schema import Attribute, Schema
from dhtos.core.summary import Summary
from dhtos.errors import MalformedMessage

quick = settings(max_examples=60, deadline=None)

SCHEMA = Schema(
    "small",
    0,
    (
        Attribute("cores", "number", "static", Log2p1(0, 1000), "", 12),
        Attribute("load", "number", "dynamic", Linear(0, 1)),
        Attribute("arch", "text", "static", Codes(("x86_64", "arm64"))),
        Attribute("site", "text", "static", Hashed()),
        Attribute("spot", "bool", "dynamic", Flag()),
    ),
    ("cores",),
)
HEAD = 5
SIZE = HEAD + 12 * len(SCHEMA.attributes)

machines = st.fixed_dictionaries(
    {},
    optional={
        "cores": st.integers(0, 5000),
        "load": st.floats(-1, 2),
        "arch": st.sampled_from(["x86_64", "arm64"]),
        "site": st.sampled_from(["grenoble", "lyon", "nancy"]),
        "spot": st.booleans(),
    },
).map(lambda values: make_record(SCHEMA, values, {}, node_id=bytes(20), endpoint=("::1", 1), seq=1))
fleets = st.lists(machines, max_size=12)


def brute(records):
    """The summary, the plain way."""
    bins = [[0] * 16 for _ in SCHEMA.attributes]
    lows, highs = [65535] * len(bins), [0] * len(bins)
    for record in records:
        for name, value in record.attributes(SCHEMA).items():
            index = SCHEMA.index(name)
            position = SCHEMA.attribute(name).position(value)
            bins[index][position // 4096] += 1
            lows[index] = min(lows[index], position)
            highs[index] = max(highs[index], position)
    return Summary(len(records), tuple(map(tuple, bins)), tuple(lows), tuple(highs))


def sent(summary):
    """The summary as a peer reads it."""
    return Summary.from_bytes(summary.to_bytes(SCHEMA), SCHEMA)


@quick
@given(fleets)
def test_a_summary_is_exact_when_made(records):
    assert Summary.of(SCHEMA, records) == brute(records)


@quick
@given(fleets)
def test_a_sent_summary_is_an_upper_bound_within_a_factor_of_two(records):
    made = Summary.of(SCHEMA, records)
    read = sent(made)
    assert (read.count, read.lows, read.highs) == (made.count, made.lows, made.highs)
    for exact, bounds in zip(made.bins, read.bins, strict=True):
        for count, bound in zip(exact, bounds, strict=True):
            assert count <= bound <= min(2 * count, made.count)


@quick
@given(fleets, fleets, fleets)
def test_merging_is_a_sum(a, b, c):
    x, y, z = (Summary.of(SCHEMA, part) for part in (a, b, c))
    assert x.merge(y) == y.merge(x)
    assert x.merge(y).merge(z) == x.merge(y.merge(z)) == Summary.of(SCHEMA, [*a, *b, *c])


@quick
@given(st.lists(fleets, min_size=1, max_size=5))
def test_hearsay_stays_an_upper_bound(parts):
    truth = Summary.of(SCHEMA, [record for part in parts for record in part])
    summaries = [sent(Summary.of(SCHEMA, part)) for part in parts]
    heard = reduce(lambda left, right: sent(left.merge(right)), summaries)
    assert (heard.count, heard.lows, heard.highs) == (truth.count, truth.lows, truth.highs)
    for exact, bounds in zip(truth.bins, heard.bins, strict=True):
        assert all(count <= bound for count, bound in zip(exact, bounds, strict=True))
        assert all((count == 0) == (bound == 0) for count, bound in zip(exact, bounds, strict=True))


@quick
@given(st.binary(min_size=SIZE, max_size=SIZE) | st.binary(max_size=80))
def test_random_bytes_are_refused_or_consistent(data):
    try:
        summary = Summary.from_bytes(data, SCHEMA)
    except MalformedMessage:
        return
    consistent(summary)


@quick
@given(fleets, st.integers(0, SIZE - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_consistent(records, place, byte):
    data = bytearray(Summary.of(SCHEMA, records).to_bytes(SCHEMA))
    data[place % len(data)] = byte
    try:
        summary = Summary.from_bytes(bytes(data), SCHEMA)
    except MalformedMessage:
        return
    consistent(summary)


def consistent(summary):
    """Assert what every reader of a summary relies on."""
    for bins, low, high in zip(summary.bins, summary.lows, summary.highs, strict=True):
        inhabited = [place for place, count in enumerate(bins) if count]
        assert all(0 <= count <= summary.count for count in bins)
        if inhabited:
            assert 0 < low <= high
            assert (low >> 12, high >> 12) == (inhabited[0], inhabited[-1])
        else:
            assert (low, high) == (65535, 0)
