"""Records: made from values, sent, parsed back, followed by deltas; strangers are refused."""

import math

import msgspec
import pytest

from dhtos.core.coordinate import DIMENSIONS, Coordinate
from dhtos.core.curve import record_key
from dhtos.core.limits import LABEL_BYTES_MAX, LABELS_MAX, RECORD_BYTES_MAX, ROW_BYTES_MAX
from dhtos.core.record import (
    SEQ_MAX,
    Delta,
    Record,
    check_delta,
    check_record,
    checked_labels,
    make_record,
    pack_coordinate,
    record_size,
    row_id,
    unpack_coordinate,
)
from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2
from dhtos.core.schema import Attribute, Schema, default_schema
from dhtos.errors import MalformedMessage, UsageError, ValueTooLarge

SCHEMA = Schema(
    "small",
    1,
    (
        Attribute("cores", "number", "static", Log2(1, 1024), "", 12),
        Attribute("load", "number", "dynamic", Linear(0, 100)),
        Attribute("arch", "text", "static", Codes(("x86_64", "arm64")), "", 4),
        Attribute("site", "text", "static", Hashed()),
        Attribute("drained", "bool", "dynamic", Flag()),
    ),
    ("cores", "arch"),
)
HERE = Coordinate((0.01, -0.02, 0.0, 0.00123, 0.03), 0.002, 0.5).to_wire()
NODE_ID, PUBLIC_KEY = bytes(range(20)), bytes(range(32))

# The places of fields on the wire.
NODE, IDENTITY, HOST, PORT, TAG, STATIC, LABELS, REV, SEQ, DYNAMIC, COORDINATE = range(11)
PROOF, ROW, SERVES = range(11, 14)


def machine(seq=7, labels=None, **changes):
    """A record of the small schema."""
    values = {"cores": 16, "arch": "arm64", "site": "grenoble", "load": 0.5, "drained": False}
    values |= changes
    return make_record(
        SCHEMA,
        {name: value for name, value in values.items() if value is not None},
        {"team": "video"} if labels is None else labels,
        node_id=NODE_ID,
        endpoint=("10.0.0.1", 7400),
        seq=seq,
        identity=PUBLIC_KEY,
        coordinate=HERE,
    )


def over_the_wire(value):
    """What a peer decodes."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


def forged(field, value):
    """The wire form of a good record with one field replaced."""
    wire = over_the_wire(machine())
    wire[field] = value
    return wire


# --- made here ----------------------------------------------------------------------------------


def test_values_go_to_their_places():
    record = machine()
    assert record.static == (16, "arm64", "grenoble")
    assert record.dynamic == (0.5, False)
    assert record.labels == (("team", "video"),)
    assert record.schema_tag == SCHEMA.tag
    assert record.endpoint == ("10.0.0.1", 7400)
    assert record.rev == record.seq == 7
    assert record.coordinate == HERE
    assert record.proof == b""


def test_attributes_leave_out_what_is_missing():
    assert machine(site=None, load=None).attributes(SCHEMA) == {
        "cores": 16,
        "arch": "arm64",
        "drained": False,
    }


def test_values_are_normalised():
    assert type(machine(cores=16.0).static[0]) is int


def test_the_key_comes_from_the_content_alone():
    record = machine()
    assert record.key(SCHEMA) == record_key(SCHEMA, record.static, PUBLIC_KEY)
    assert machine(seq=9, load=0.9).key(SCHEMA) == record.key(SCHEMA)
    assert machine(cores=1).key(SCHEMA) != record.key(SCHEMA)


def test_without_a_public_key_the_id_tells_machines_apart():
    open_record = msgspec.structs.replace(machine(), identity=b"")
    assert open_record.key(SCHEMA) == record_key(SCHEMA, open_record.static, NODE_ID)


def test_rev_can_be_carried_on():
    record = make_record(
        SCHEMA, {}, {}, node_id=NODE_ID, endpoint=("::1", 1), seq=9, rev=4, coordinate=None
    )
    assert (record.rev, record.seq) == (4, 9)
    assert record.coordinate is None
    assert record.attributes(SCHEMA) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cores": "16"}, "cores is a finite number"),
        ({"core": 1}, "did you mean 'cores'?"),
        ({"arch": "arm"}, "arch is one of"),
        ({"drained": 1}, "drained is true or false"),
        ({"load": math.nan}, "load is a finite number"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused(changes, words):
    with pytest.raises(UsageError) as caught:
        machine(**changes)
    assert words in str(caught.value)


def test_a_record_over_the_datagram_is_refused_before_it_is_sent():
    labels = {f"label-{n}": "x" * 60 for n in range(20)}
    with pytest.raises(ValueTooLarge, match=f"at most {RECORD_BYTES_MAX} bytes"):
        machine(labels=labels)


def test_records_are_frozen_values():
    record = machine()
    assert record == machine()
    assert hash(record) == hash(machine())
    with pytest.raises(AttributeError):
        record.seq = 8


# --- labels -------------------------------------------------------------------------------------


def test_labels_are_sorted_by_name():
    assert checked_labels({"b": "1", "a": "2"}) == (("a", "2"), ("b", "1"))
    assert checked_labels({"empty": ""}) == (("empty", ""),)
    assert checked_labels({}) == ()


@pytest.mark.parametrize(
    "labels",
    [
        {"": "x"},
        {"x" * (LABEL_BYTES_MAX + 1): "x"},
        {"x": "y" * (LABEL_BYTES_MAX + 1)},
        {"x": "a\nb"},
        {"x": 1},
        {1: "x"},
    ],
)
def test_a_label_that_cannot_be_is_refused(labels):
    with pytest.raises(UsageError, match="a label is a name and a text"):
        checked_labels(labels)


def test_too_many_labels_are_refused():
    with pytest.raises(UsageError, match=f"at most {LABELS_MAX} labels, got 33"):
        checked_labels({f"l{n}": "" for n in range(LABELS_MAX + 1)})


# --- coordinates --------------------------------------------------------------------------------


def test_a_coordinate_takes_two_bytes_a_dimension_and_four_more():
    assert len(pack_coordinate(HERE)) == 14
    assert unpack_coordinate(pack_coordinate(HERE)) == HERE
    assert pack_coordinate(None) is None
    assert unpack_coordinate(None) is None


def test_nothing_is_lost_of_what_coordinates_send():
    for sent in (
        Coordinate((0.123456789, -9.87654321, 10.0, -10.0, 0.0), 10.0, 1.5).to_wire(),
        Coordinate().to_wire(),
    ):
        assert unpack_coordinate(pack_coordinate(sent)) == sent


# --- from the wire ------------------------------------------------------------------------------


def test_a_record_survives_the_wire():
    for record in (machine(), machine(site=None, drained=None), machine(labels={})):
        again = check_record(SCHEMA, over_the_wire(record))
        assert again == record
        assert record_size(again) == record_size(record) == len(msgspec.msgpack.encode(record))


def test_later_versions_may_append_fields():
    assert check_record(SCHEMA, [*over_the_wire(machine()), "new"]) == machine()


def test_what_records_say_alike_is_held_once():
    first = check_record(SCHEMA, over_the_wire(machine()))
    second = check_record(SCHEMA, over_the_wire(machine(seq=8, load=0.25)))
    assert first.static is second.static
    assert first.labels is second.labels
    assert first.host is second.host
    assert first.node_id is second.node_id
    assert first.identity is second.identity
    SCHEMA.pool.check()


def test_equal_numbers_of_other_types_do_not_take_each_others_place():
    assert type(check_record(SCHEMA, over_the_wire(machine(load=2))).dynamic[0]) is int
    wire = forged(DYNAMIC, [2.0, False])
    assert type(check_record(SCHEMA, wire).dynamic[0]) is float


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (NODE, bytes(19)),
        (NODE, "x" * 20),
        (NODE, None),
        (IDENTITY, bytes(31)),
        (IDENTITY, None),
        (HOST, ""),
        (HOST, "a\x1bb"),
        (HOST, "x" * 65),
        (HOST, b"10.0.0.1"),
        (PORT, 0),
        (PORT, 65536),
        (PORT, True),
        (PORT, 7400.0),
        (TAG, 0),
        (TAG, float(SCHEMA.tag)),
        (TAG, None),
        (STATIC, [16, "arm64"]),
        (STATIC, [16, "arm64", "grenoble", None]),
        (STATIC, {"cores": 16}),
        (STATIC, [math.nan, None, None]),
        (STATIC, [math.inf, None, None]),
        (STATIC, [-1, None, None]),
        (STATIC, [-0.5, None, None]),
        (STATIC, [16.0, None, None]),
        (STATIC, [True, None, None]),
        (STATIC, [2**63, None, None]),
        (STATIC, ["16", None, None]),
        (STATIC, [[16], None, None]),
        (STATIC, [None, "mips", None]),
        (STATIC, [None, b"arm64", None]),
        (STATIC, [None, ["arm64"], None]),
        (STATIC, [None, None, ""]),
        (STATIC, [None, None, "x" * 129]),
        (STATIC, [None, None, "\x07"]),
        (STATIC, [None, None, 5]),
        (LABELS, None),
        (LABELS, {"a": "b"}),
        (LABELS, [["a", "b", "c"]]),
        (LABELS, [["a"]]),
        (LABELS, ["ab"]),
        (LABELS, [["a", 1]]),
        (LABELS, [["", "x"]]),
        (LABELS, [["b", "x"], ["a", "x"]]),
        (LABELS, [["a", "x"], ["a", "y"]]),
        (LABELS, [["a", "x" * 65]]),
        (LABELS, [[f"l{n:02}", ""] for n in range(33)]),
        (REV, 8),
        (REV, -1),
        (REV, 7.0),
        (REV, None),
        (SEQ, 6),
        (SEQ, SEQ_MAX + 1),
        (SEQ, True),
        (SEQ, "7"),
        (DYNAMIC, []),
        (DYNAMIC, [math.nan, False]),
        (DYNAMIC, [0.5, 0]),
        (DYNAMIC, [[], False]),
        (DYNAMIC, None),
        (COORDINATE, bytes(17)),
        (COORDINATE, bytes(18)),
        (COORDINATE, b"\xff" * 18),
        (COORDINATE, b"\x7f" * 18),
        (COORDINATE, [0.0, 0.5]),
        (COORDINATE, [0.0] * 10 + [0.5]),
        (COORDINATE, b""),
        (COORDINATE, pack_coordinate(HERE)[:-1]),
        (COORDINATE, pack_coordinate(HERE) + b"\0"),
        (COORDINATE, b"\x09" + bytes(21)),
        (COORDINATE, [0.0, 0.0, 0.0, math.nan, 0.1, 0.5]),
        (COORDINATE, [0.0, 0.0, 0.0, 11, 0.1, 0.5]),
        (COORDINATE, [0.0, 0.0, 0.0, 0.0, -0.1, 0.5]),
        (COORDINATE, [0.0, 0.0, 0.0, 0.0, 0.1, 0.0]),
        (COORDINATE, [0.0, 0.0, 0.0, 0.0, 0.1, -0.5]),
        (COORDINATE, [0.0, 0.0, 0.0, 0.0, 0.1, 1.6]),
        (COORDINATE, [0.0, 0.0, 0.0, 0.0, 0.1, "0.5"]),
        (COORDINATE, [0.0, 0.0, 0.0, 0.0, True, 0.5]),
        (COORDINATE, 3),
        (PROOF, None),
        (PROOF, bytes(465)),
        (PROOF, "x"),
    ],
)
def test_strange_records_are_refused(field, value):
    with pytest.raises(MalformedMessage):
        check_record(SCHEMA, forged(field, value))


@pytest.mark.parametrize("wire", [None, 3, {}, "record", [], over_the_wire(machine())[:11]])
def test_what_is_no_record_is_refused(wire):
    with pytest.raises(MalformedMessage):
        check_record(SCHEMA, wire)


def test_a_record_of_good_parts_may_still_be_too_large():
    labels = [[f"label-{n:02}", "x" * 64] for n in range(20)]
    with pytest.raises(MalformedMessage, match=f"at most {RECORD_BYTES_MAX} bytes"):
        check_record(SCHEMA, forged(LABELS, labels))


@pytest.mark.parametrize(
    "wire", [list(HERE), list(Coordinate().to_wire()), pack_coordinate(HERE), None]
)
def test_a_coordinate_that_is_let_in_can_be_used(wire):
    record = check_record(SCHEMA, forged(COORDINATE, wire))
    if wire is not None:
        assert len(Coordinate.from_wire(record.coordinate).position) == DIMENSIONS
    else:
        assert record.coordinate is None


# --- deltas -------------------------------------------------------------------------------------


def test_an_update_keeps_the_static_part_and_drops_the_signature():
    signed = msgspec.structs.replace(machine(), proof=bytes(64))
    later = signed.updated(9, (0.9, True), None)
    assert (later.rev, later.seq, later.dynamic, later.coordinate) == (7, 9, (0.9, True), None)
    assert later.static is signed.static
    assert later.proof == b""
    assert later.key(SCHEMA) == signed.key(SCHEMA)


def test_a_delta_makes_the_same_version_elsewhere():
    held = check_record(SCHEMA, over_the_wire(machine()))
    later = machine().updated(9, (0.9, True), HERE)
    delta = check_delta(SCHEMA, over_the_wire(later.delta(SCHEMA)))
    assert delta == later.delta(SCHEMA)
    assert delta.key == held.key(SCHEMA)
    assert delta.coordinate == later.coordinate
    assert held.apply(delta) == later


def test_a_delta_with_the_coordinate_as_numbers_means_the_same():
    later = machine().updated(9, (0.9, True), HERE)
    packed = later.delta(SCHEMA)
    plain = [packed.key, 7, 9, [0.9, True], list(HERE)]
    assert check_delta(SCHEMA, plain) == packed


@pytest.mark.parametrize(
    "changes", [{"rev": 6}, {"seq": 7}, {"seq": 3}, {"dynamic": (0.5,)}], ids=repr
)
def test_only_a_later_delta_of_the_same_revision_is_applied(changes):
    delta = machine().updated(9, (0.9, True), None).delta(SCHEMA)
    with pytest.raises(AssertionError):
        machine().apply(msgspec.structs.replace(delta, **changes))


def test_a_delta_cannot_blow_a_record_up():
    schema = Schema(
        "notes",
        0,
        tuple(Attribute(f"note{n}", "text", "dynamic", Hashed()) for n in range(10)),
    )
    record = make_record(schema, {}, {}, node_id=NODE_ID, endpoint=("::1", 1), seq=1)
    delta = Delta(record.key(schema), 1, 2, ("x" * 120,) * 10, None)
    with pytest.raises(MalformedMessage, match="at most"):
        record.apply(check_delta(schema, over_the_wire(delta)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, bytes(19)),
        (0, "x"),
        (1, 10),
        (1, None),
        (2, SEQ_MAX + 1),
        (2, 1.0),
        (3, [0.5]),
        (3, [math.inf, True]),
        (3, None),
        (4, [1]),
        (4, "x"),
    ],
)
def test_strange_deltas_are_refused(field, value):
    wire = over_the_wire(machine().delta(SCHEMA))
    wire[field] = value
    with pytest.raises(MalformedMessage):
        check_delta(SCHEMA, wire)


@pytest.mark.parametrize("wire", [None, [], {}, b"", [bytes(20), 1, 1, [0, True]]])
def test_what_is_no_delta_is_refused(wire):
    with pytest.raises(MalformedMessage):
        check_delta(SCHEMA, wire)


def test_a_delta_of_a_machine_is_small():
    schema = default_schema()
    values = {
        "cpu_free": 73,
        "load1": 1.25,
        "mem_free": 41 * 2**30,
        "disk_free": 700 * 2**30,
        "gpus_free": 0,
    }
    record = make_record(
        schema, values, {}, node_id=NODE_ID, endpoint=("::1", 1), seq=3000, coordinate=HERE
    )
    assert len(msgspec.msgpack.encode(record.delta(schema))) <= 94


def test_records_are_small_on_the_wire():
    assert record_size(machine()) <= 160
    assert isinstance(machine(), Record)


# --- foreign records ----------------------------------------------------------------------------


def row_of(name="ups-1", **changes):
    """The record of a machine that runs no node."""
    fields = {
        "node_id": row_id(PUBLIC_KEY, name),
        "endpoint": ("10.0.0.1", 7400),
        "seq": 7,
        "identity": PUBLIC_KEY,
        "row": name,
    }
    return make_record(SCHEMA, {"cores": 16, "arch": "arm64"}, {}, **(fields | changes))


def test_a_foreign_record_says_so_and_goes_over_the_wire():
    record = row_of()
    assert record.is_foreign
    assert not record.serves
    assert check_record(SCHEMA, over_the_wire(record)) == record
    assert not machine().is_foreign
    assert machine().serves


def test_rows_of_one_gateway_have_keys_and_ids_of_their_own():
    one, other = row_of("a"), row_of("b")
    assert one.node_id != other.node_id
    assert one.key(SCHEMA) != other.key(SCHEMA)
    assert one.key(SCHEMA)[:12] == other.key(SCHEMA)[:12]  # the same kind of machine
    assert one.key(SCHEMA) == record_key(SCHEMA, one.static, PUBLIC_KEY + b"a")
    stranger = row_of("a", identity=bytes(32), node_id=row_id(bytes(32), "a"))
    assert stranger.key(SCHEMA) != one.key(SCHEMA)


def test_a_heartbeat_keeps_the_row():
    record = row_of()
    later = record.updated(8, record.dynamic, None)
    assert (later.row, later.serves) == ("ups-1", False)
    assert record.apply(later.delta(SCHEMA)) == later


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (ROW, 7),
        (ROW, ""),
        (ROW, "line\nbreak"),
        (ROW, "x" * (ROW_BYTES_MAX + 1)),
        (ROW, "ups-2"),
        (SERVES, 1),
        (SERVES, None),
        (NODE, bytes(20)),
        (IDENTITY, b""),
        (IDENTITY, bytes(32)),
    ],
)
def test_a_foreign_record_that_does_not_fit_its_row_is_refused(field, value):
    wire = over_the_wire(row_of())
    wire[field] = value
    with pytest.raises(MalformedMessage):
        check_record(SCHEMA, wire)


def test_a_node_cannot_say_that_nobody_serves_for_it():
    with pytest.raises(MalformedMessage):
        check_record(SCHEMA, forged(SERVES, value=False))


def test_a_seat_is_a_foreign_record_that_serves():
    wire = over_the_wire(row_of())
    wire[SERVES] = True
    record = check_record(SCHEMA, wire)
    assert record.is_foreign
    assert record.serves
    assert record.key(SCHEMA) == row_of().key(SCHEMA)
