"""Keys: the layout bit by bit, missing values, and the box of a prefix."""

import pytest

from dhtos.core.curve import (
    HASH_BITS,
    VERSION_BITS,
    cells_of,
    record_key,
    static_cells,
    version_of,
    version_prefix,
)
from dhtos.core.ids import ID_BITS, ID_BYTES, Prefix
from dhtos.core.scale import Codes, Hashed, Linear, Log2
from dhtos.core.schema import KEY_ATTRIBUTE_BITS_MAX, Attribute, Schema, default_schema

X = Attribute("x", "number", "static", Linear(0, 16), "", 4)
Y = Attribute("y", "number", "static", Linear(0, 16), "", 2)
NOTE = Attribute("note", "text", "static", Hashed())
GRID = Schema("grid", 2, (NOTE, Y, X), ("x", "y"))


def key_bits(key):
    """The key as 160 binary digits."""
    return f"{int.from_bytes(key):0{ID_BITS}b}"


def test_the_layout_fills_an_id():
    assert VERSION_BITS + KEY_ATTRIBUTE_BITS_MAX + HASH_BITS == ID_BITS
    assert len(record_key(GRID, (None, 3, 9), b"me")) == ID_BYTES


def test_version_then_interleaved_cells_then_hash():
    # x = 9 of 16 with floor 4096: 4096 + 9/16 * 61440 = 38656, cell 9; y: cell 1.
    assert static_cells(GRID, (None, 0, 9)) == [9, 1]
    bits = key_bits(record_key(GRID, (None, 0, 9), b"me"))
    assert bits[:2] == "10"
    assert bits[2:8] == "100101"  # x y x y x x of 1001 and 01
    assert bits[8:98] == "0" * 90
    assert "1" in bits[98:]


def test_a_missing_value_is_cell_zero_and_a_present_one_is_not():
    assert static_cells(GRID, (None, None, None)) == [0, 0]
    for value in (-5, 0, 0.1, 16, 99):
        assert min(static_cells(GRID, (None, value, value))) >= 1


def test_unkeyed_attributes_do_not_move_the_key():
    assert record_key(GRID, ("a", 1, 2), b"me") == record_key(GRID, ("b", 1, 2), b"me")


def test_the_hash_tells_equal_machines_apart_and_nothing_else():
    mine, other = record_key(GRID, ("a", 1, 2), b"me"), record_key(GRID, ("a", 1, 2), b"other")
    assert mine != other
    assert key_bits(mine)[:98] == key_bits(other)[:98]
    assert record_key(GRID, ("a", 1, 2), b"me") == mine


def test_hashes_split_a_group_of_equal_machines_evenly():
    keys = [record_key(GRID, (None, 1, 2), bytes([n, n + 1])) for n in range(200)]
    ones = sum(key_bits(key)[98] == "1" for key in keys)
    assert 70 <= ones <= 130


@pytest.mark.parametrize("version", range(4))
def test_versions_live_in_subtrees_of_their_own(version):
    schema = Schema("grid", version, GRID.attributes, GRID.key_order)
    key = record_key(schema, (None, 1, 2), b"me")
    assert Prefix(version, VERSION_BITS).holds(key)


def test_a_schema_without_a_key_places_by_hash_alone():
    bare = Schema("bare", 0, (NOTE,))
    key = record_key(bare, ("a",), b"me")
    assert key_bits(key)[:98] == "0" * 98
    assert cells_of(bare, Prefix.of(key, 40)) == []


def test_a_golden_key_of_the_machine_schema():
    schema = default_schema()
    said = {"cores": 16, "mem": 64 * 2**30, "arch": "arm64", "price": 0.5, "site": "grenoble"}
    static = tuple(said.get(a.name) for a in schema.static)
    key = record_key(schema, static, bytes(32))
    assert key.hex() == "00353714044c90b18e24928431434492a2abd068"


def test_the_box_of_the_whole_space_is_everything():
    assert cells_of(GRID, Prefix(0, 0)) == [(0, 15), (0, 3)]
    assert cells_of(GRID, Prefix(2, 2)) == [(0, 15), (0, 3)]


def test_each_bit_halves_one_side_of_the_box():
    key = record_key(GRID, (None, 0, 9), b"me")  # cells 9 (1001) and 1 (01)
    boxes = [cells_of(GRID, Prefix.of(key, length)) for length in range(2, 9)]
    assert boxes == [
        [(0, 15), (0, 3)],
        [(8, 15), (0, 3)],
        [(8, 15), (0, 1)],
        [(8, 11), (0, 1)],
        [(8, 11), (1, 1)],
        [(8, 9), (1, 1)],
        [(9, 9), (1, 1)],
    ]


def test_bits_of_the_hash_say_nothing_about_cells():
    key = record_key(GRID, (None, 0, 9), b"me")
    assert cells_of(GRID, Prefix.of(key, 160)) == [(9, 9), (1, 1)]


def test_neighbouring_values_share_their_prefix():
    wide = Schema(
        "wide",
        0,
        (
            Attribute("cores", "number", "static", Log2(1, 1024), "", 12),
            Attribute("arch", "text", "static", Codes(("a", "b")), "", 4),
        ),
        ("cores", "arch"),
    )
    near = [Prefix.of(record_key(wide, (cores, "a"), b"me"), 8) for cores in (60, 61)]
    far = Prefix.of(record_key(wide, (2, "a"), b"me"), 8)
    assert near[0] == near[1] != far


@pytest.mark.parametrize("version", range(4))
def test_a_key_says_its_version(version):
    schema = Schema(
        "v", version, (Attribute("a", "number", "static", Linear(0, 9), "", 4),), ("a",)
    )
    key = record_key(schema, (5,), b"x" * 32)
    assert version_of(key) == version
    assert version_prefix(version).holds(key)
    assert not version_prefix((version + 1) % 4).holds(key)
