"""Whatever comes off the wire is a record that can be used, or a MalformedMessage."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from dhtos.core.coordinate import Coordinate
from dhtos.core.hit import Hit
from dhtos.core.limits import COORDINATE_ERROR_MAX, COORDINATE_S_MAX, RECORD_BYTES_MAX
from dhtos.core.record import (
    check_delta,
    check_record,
    make_record,
    pack_coordinate,
    record_size,
    unpack_coordinate,
)
from dhtos.core.schema import default_schema
from dhtos.core.summary import Summary
from dhtos.errors import MalformedMessage, UsageError

quick = settings(max_examples=60, deadline=None)

SCHEMA = default_schema()
decode = msgspec.msgpack.decode
encode = msgspec.msgpack.encode

texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9)
counts = st.integers(0, 2**45) | st.floats(0, 1e15)
values = st.fixed_dictionaries(
    {},
    optional={
        "cores": counts, "mem": counts, "price": counts, "load1": counts, "cpu_free": counts,
        "arch": st.sampled_from(["x86_64", "arm64"]), "site": texts, "host": texts,
    },
)  # fmt: skip
reach = st.floats(-COORDINATE_S_MAX, COORDINATE_S_MAX)
coordinates = st.builds(
    Coordinate,
    st.tuples(reach, reach, reach, reach),
    st.floats(0, COORDINATE_S_MAX),
    st.floats(0.001, COORDINATE_ERROR_MAX),
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4)
    | st.binary(max_size=24),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)  # fmt: skip


@st.composite
def records(draw):
    """A record as a node would make it."""
    place = draw(st.none() | coordinates)
    seq = draw(st.integers(0, 2**40))
    return make_record(
        SCHEMA,
        draw(values),
        draw(st.dictionaries(texts, texts, max_size=3)),
        node_id=draw(st.binary(min_size=20, max_size=20)),
        endpoint=("10.0.0.1", draw(st.integers(1, 65535))),
        seq=seq,
        rev=draw(st.integers(0, seq)),
        identity=draw(st.sampled_from([b"", bytes(32)])),
        coordinate=place.to_wire() if place else None,
    )


def use(record):
    """What the rest of the program does with any record it is given."""
    assert record_size(record) <= RECORD_BYTES_MAX
    assert len(record.key(SCHEMA)) == 20
    if record.coordinate is not None:
        Coordinate.from_wire(record.coordinate)
    hit = Hit(record, SCHEMA, 0.0)
    assert hit.attributes == {name: hit[name] for name in hit.attributes}
    summary = Summary.of(SCHEMA, [record])
    assert Summary.from_bytes(summary.to_bytes(SCHEMA), SCHEMA) == summary


@quick
@given(records())
def test_a_record_survives_the_wire(record):
    again = check_record(SCHEMA, decode(encode(record)))
    assert again == record
    assert encode(again) == encode(record)
    assert again.key(SCHEMA) == record.key(SCHEMA)
    use(again)


@quick
@given(records(), values, st.none() | coordinates)
def test_a_delta_makes_the_senders_version(record, changed, place):
    try:
        dynamic = tuple(
            None if a.name not in changed else SCHEMA.check(a.name, changed[a.name])
            for a in SCHEMA.dynamic
        )
    except UsageError:
        return
    later = record.updated(record.seq + 1, dynamic, place.to_wire() if place else None)
    held = check_record(SCHEMA, decode(encode(record)))
    delta = check_delta(SCHEMA, decode(encode(later.delta(SCHEMA))))
    assert held.apply(delta) == later
    assert held.apply(delta).key(SCHEMA) == delta.key


@quick
@given(coordinates)
def test_packing_loses_nothing_of_a_sent_coordinate(coordinate):
    sent = coordinate.to_wire()
    assert unpack_coordinate(pack_coordinate(sent)) == sent


@quick
@given(records(), st.integers(0, 11), junk)
def test_a_field_of_junk_is_refused_or_harmless(record, field, value):
    wire = decode(encode(record))
    wire[field] = value
    try:
        parsed = check_record(SCHEMA, decode(encode(wire)))
    except MalformedMessage:
        return
    use(parsed)


@quick
@given(records(), st.sampled_from([5, 9]), st.integers(0, 17), junk)
def test_a_slot_of_junk_is_refused_or_harmless(record, part, slot, value):
    wire = decode(encode(record))
    wire[part][slot % len(wire[part])] = value
    try:
        parsed = check_record(SCHEMA, decode(encode(wire)))
    except MalformedMessage:
        return
    use(parsed)


@quick
@given(records(), st.data())
def test_flipped_bytes_are_refused_or_harmless(record, data):
    mutated = bytearray(encode(record))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        mutated[place] = data.draw(st.integers(0, 255))
    try:
        wire = decode(bytes(mutated))
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        return
    try:
        parsed = check_record(SCHEMA, wire)
    except MalformedMessage:
        return
    use(parsed)


@quick
@given(junk)
def test_junk_is_no_record_and_no_delta(value):
    for parse in (check_record, check_delta):
        try:
            parse(SCHEMA, value)
        except MalformedMessage:
            continue
        raise AssertionError(f"{value!r} was taken")


@quick
@given(records(), st.integers(0, 4), junk)
def test_a_delta_of_junk_is_refused_or_bounded(record, field, value):
    wire = decode(encode(record.delta(SCHEMA)))
    wire[field] = value
    try:
        delta = check_delta(SCHEMA, wire)
    except MalformedMessage:
        return
    if delta.rev == record.rev and delta.seq > record.seq:
        use(record.apply(delta))
