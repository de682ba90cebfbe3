"""Keys and boxes agree: a record lies in the box of every prefix of its key, and of no other."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dhtos.core.curve import VERSION_BITS, cells_of, record_key, static_cells
from dhtos.core.ids import ID_BITS, Prefix
from dhtos.core.machine_schema import ARCHITECTURES
from dhtos.core.schema import default_schema

quick = settings(max_examples=60, deadline=None)

SCHEMA = default_schema()
Z_END = VERSION_BITS + len(SCHEMA.key_schedule)


@st.composite
def statics(draw):
    """Static values of a machine, some missing."""
    values = {
        "cores": draw(st.none() | st.integers(1, 2000)),
        "mem": draw(st.none() | st.integers(2**27, 2**47)),
        "gpus": draw(st.none() | st.integers(0, 16)),
        "price": draw(st.none() | st.floats(0, 300)),
        "arch": draw(st.none() | st.sampled_from(ARCHITECTURES)),
        "site": draw(st.none() | st.sampled_from(["grenoble", "lyon", "nancy"])),
    }
    return tuple(values.get(a.name) for a in SCHEMA.static)


@quick
@given(statics(), st.binary(min_size=32, max_size=32), st.integers(0, ID_BITS))
def test_a_machine_lies_in_the_box_of_each_prefix_of_its_key(static, identity, length):
    prefix = Prefix.of(record_key(SCHEMA, static, identity), length)
    box = cells_of(SCHEMA, prefix)
    cells = static_cells(SCHEMA, static)
    assert all(low <= cell <= high for cell, (low, high) in zip(cells, box, strict=True))


@quick
@given(statics(), st.integers(VERSION_BITS + 1, Z_END))
def test_a_machine_lies_outside_the_box_of_a_sibling(static, length):
    prefix = Prefix.of(record_key(SCHEMA, static, b""), length).sibling()
    box = cells_of(SCHEMA, prefix)
    cells = static_cells(SCHEMA, static)
    assert not all(low <= cell <= high for cell, (low, high) in zip(cells, box, strict=True))


@quick
@given(st.integers(0, Z_END - 1), st.binary(min_size=20, max_size=20))
def test_children_share_out_the_box_of_their_parent(length, key):
    parent = Prefix.of(key, length)
    whole, left, right = (cells_of(SCHEMA, p) for p in (parent, parent.child(0), parent.child(1)))
    parted = [n for n, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
    if length < VERSION_BITS:
        assert parted == []
    else:
        (place,) = parted
        assert place == SCHEMA.key_schedule[length - VERSION_BITS]
        assert left[place][0] == whole[place][0]
        assert left[place][1] + 1 == right[place][0]
        assert right[place][1] == whole[place][1]


@quick
@given(statics(), statics())
def test_machines_of_the_same_cells_differ_in_the_hash_only(a, b):
    same_cells = static_cells(SCHEMA, a) == static_cells(SCHEMA, b)
    same_place = record_key(SCHEMA, a, b"x")[:12] == record_key(SCHEMA, b, b"x")[:12]
    if same_cells:
        assert record_key(SCHEMA, a, b"x") == record_key(SCHEMA, b, b"x")
    assert same_place or not same_cells
