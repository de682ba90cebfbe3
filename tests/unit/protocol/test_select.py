"""What a question wants of the matches, on the wire, and the random order of a nonce."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from hub_world import SCHEMA

from dhtos.core.limits import HISTOGRAM_EDGES_MAX, SELECT_WIRE_BYTES_MAX
from dhtos.core.schema import NUMBER_MAX
from dhtos.errors import MalformedMessage
from dhtos.protocol.aggregate import Measure
from dhtos.protocol.select import Select, Shuffle, read_select, select_to_wire

CORES = SCHEMA.index("cores")


@pytest.mark.parametrize(
    "select", [Measure(CORES), Measure(CORES, (1, 2.5, NUMBER_MAX)), Shuffle(b"nonce..8")]
)
def test_it_reads_back(select: Select) -> None:
    assert read_select(select_to_wire(select), SCHEMA) == select


def test_the_longest_one_fits() -> None:
    edges = tuple(-NUMBER_MAX + n for n in range(HISTOGRAM_EDGES_MAX))
    wire = select_to_wire(Measure(CORES, edges))
    assert len(wire) <= SELECT_WIRE_BYTES_MAX
    assert read_select(wire, SCHEMA) == Measure(CORES, edges)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        7,
        [0, 1, []],
        [3, b"nonce..8"],
        [1, CORES],
        [1, CORES, [], 0],
        [1, -1, []],
        [1, 99, []],
        [1, SCHEMA.index("arch"), []],
        [1, CORES, None],
        [1, CORES, [2, 1]],
        [1, CORES, ["1"]],
        [1, CORES, [float("nan")]],
        [1, CORES, [float("inf")]],
        [1, CORES, list(range(HISTOGRAM_EDGES_MAX + 1))],
        [2, b"short"],
        [2, b"too long.."],
        [2, "nonce..8"],
        [2, None],
    ],
)
def test_strange_ones_are_malformed(value: Any) -> None:
    with pytest.raises(MalformedMessage):
        read_select(msgspec.msgpack.encode(value), SCHEMA)


@pytest.mark.parametrize("wire", [b"", b"\xc1", b"\x93\x01", b"\x91" * 900])
def test_what_is_no_messagepack_is_malformed(wire: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read_select(wire, SCHEMA)


def test_every_order_is_another_and_each_is_even() -> None:
    """Each of twelve keys is first in about a twelfth of the orders (chi-squared, p = 0.001)."""
    keys = [bytes([n]) * 20 for n in range(12)]
    shuffles = [Shuffle(n.to_bytes(8)) for n in range(1200)]
    firsts = Counter(min(keys, key=shuffle.rank) for shuffle in shuffles)
    expected = len(shuffles) / len(keys)
    assert sum((firsts[key] - expected) ** 2 / expected for key in keys) < 31.3  # 11 degrees
    assert Shuffle(b"a" * 8).rank(keys[0]) == Shuffle(b"a" * 8).rank(keys[0])
