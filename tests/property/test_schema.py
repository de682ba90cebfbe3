"""Any schema: positions are monotone images, bounds enclose, text survives."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from dhtos.core.scale import POSITION_MAX, Codes, Flag, Hashed, Linear, Log2, Log2p1
from dhtos.core.schema import NUMBER_MAX, Attribute, Schema
from dhtos.errors import UsageError

quick = settings(max_examples=60, deadline=None)

ends = st.floats(1e-6, 1e12) | st.integers(1, 2**50)
numbers = st.floats(0, 1e15) | st.integers(0, 2**60)
words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9)


@st.composite
def number_scales(draw):
    """Any of the three number scales."""
    kind = draw(st.sampled_from([Log2, Log2p1, Linear]))
    high = draw(ends)
    if kind is Log2p1:
        return Log2p1(0, high)
    share = draw(st.floats(1e-9, 0.99))
    return kind(high * share, high)


@st.composite
def number_attributes(draw):
    """An attribute with a number scale, keyed or not."""
    return Attribute("x", "number", "static", draw(number_scales()), "", draw(st.integers(0, 16)))


@st.composite
def schemas(draw):
    """Any schema of a few attributes."""
    attributes = []
    for n in range(draw(st.integers(1, 6))):
        kind, scale = draw(
            st.one_of(
                number_scales().map(lambda s: ("number", s)),
                st.builds(
                    lambda w, o: ("text", Codes(tuple(w), o)),
                    st.lists(words, min_size=1, max_size=5, unique=True),
                    st.booleans(),
                ),
                st.sampled_from([("text", Hashed()), ("bool", Flag())]),
            )
        )
        role = draw(st.sampled_from(["static", "dynamic"]))
        bits = draw(st.integers(0, 16)) if role == "static" else 0
        attributes.append(Attribute(f"a{n}", kind, role, scale, "", bits, draw(words)))
    keyed = draw(st.permutations([a.name for a in attributes if a.keyed]))
    return Schema("any", draw(st.integers(0, 3)), tuple(attributes), tuple(keyed))


@quick
@given(number_attributes(), numbers, numbers)
def test_positions_keep_the_order_of_numbers(attribute, a, b):
    low, high = sorted((a, b))
    assert attribute.floor <= attribute.position(low) <= attribute.position(high) <= POSITION_MAX


@quick
@given(number_attributes(), numbers, numbers, numbers)
def test_a_number_in_a_range_has_a_position_in_its_bounds(attribute, a, b, c):
    low, value, high = sorted((a, b, c))
    first, last = attribute.position_bounds(low, high)
    assert first <= attribute.position(value) <= last


@quick
@given(number_attributes(), numbers)
def test_a_position_encloses_its_values(attribute, value):
    position = attribute.position(value)
    low, high = attribute.value_bounds(position, position)
    assert low <= value <= high


@quick
@given(number_attributes(), numbers)
def test_neighbours_keep_their_order(attribute, value):
    above = math.nextafter(float(value), math.inf)
    assert attribute.position(float(value)) <= attribute.position(above)


@quick
@given(number_attributes().filter(lambda a: a.keyed), numbers)
def test_present_values_are_never_in_cell_zero(attribute, value):
    assert 1 <= attribute.cell(attribute.position(value)) < 2**attribute.keyed_bits


@quick
@given(schemas())
def test_a_schema_survives_its_text(schema):
    again = Schema.from_toml(schema.to_toml())
    assert again == schema
    assert again.tag == schema.tag
    assert again.key_schedule == schema.key_schedule


@quick
@given(schemas())
def test_the_schedule_gives_each_attribute_its_bits(schema):
    counts = [schema.key_schedule.count(place) for place in range(len(schema.keyed))]
    assert counts == list(schema.key_bits)


@quick
@given(schemas(), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary())
def test_any_value_is_taken_with_a_position_or_refused(schema, value):
    for attribute in schema.attributes:
        try:
            held = attribute.check(value)
        except UsageError:
            continue
        assert held == value
        assert attribute.check(held) == held
        assert attribute.floor <= attribute.position(held) <= POSITION_MAX
        if isinstance(held, float):
            assert not held.is_integer() or abs(held) > NUMBER_MAX
