"""A record: what one machine advertises, as values in the order of its schema.

A record has a static part (who, where, what it is made of, labels), which changes rarely and
decides the key, and a dynamic part, which changes all the time and never does. `seq` counts
versions, `rev` is the `seq` at which the static part last changed, so a `Delta` with the same
`rev` is all a holder needs to follow. The key is always derived from the content, never
believed: a record cannot lie about where it belongs.
"""

import math
from collections.abc import Mapping, Sequence
from sys import intern
from typing import Any

import msgspec

from dhtos.core.curve import record_key
from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import (
    COORDINATE_S_MAX,
    LABEL_BYTES_MAX,
    LABELS_MAX,
    RECORD_BYTES_MAX,
    TEXT_BYTES_MAX,
)
from dhtos.core.schema import Attribute, Schema, Value, is_number, is_printable
from dhtos.errors import MalformedMessage, UsageError, ValueTooLarge

IDENTITY_BYTES = 32
SIGNATURE_BYTES_MAX = 64
SEQ_MAX = 2**62
HOST_BYTES_MAX = 64
COORDINATE_PARTS_MAX = 10

Slots = tuple[Value | None, ...]
Labels = tuple[tuple[str, str], ...]

_encode = msgspec.msgpack.Encoder().encode


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One version of what a node advertises; `None` in a slot means that it does not say."""

    node_id: bytes
    identity: bytes  # the node's public key, or empty
    host: str
    port: int
    schema_tag: int
    static: Slots
    labels: Labels
    rev: int
    seq: int
    dynamic: Slots
    coordinate: tuple[float, ...] | None
    signature: bytes = b""

    @property
    def endpoint(self) -> Endpoint:
        """Where the node listens."""
        return (self.host, self.port)

    def key(self, schema: Schema) -> bytes:
        """The record's place in the hub, derived from what it says."""
        return record_key(schema, self.static, self.identity or self.node_id)

    def attributes(self, schema: Schema) -> dict[str, Value]:
        """All values by name; missing ones are left out."""
        parts = {"static": self.static, "dynamic": self.dynamic}
        named = {
            a.name: parts[a.role][slot]
            for a, slot in zip(schema.attributes, schema.slots, strict=True)
        }
        return {name: value for name, value in named.items() if value is not None}

    def updated(
        self, seq: int, dynamic: Slots, coordinate: tuple[float, ...] | None
    ) -> "Record":
        """The next version with the same static part."""
        assert seq > self.seq
        return msgspec.structs.replace(
            self, seq=seq, dynamic=dynamic, coordinate=coordinate, signature=b""
        )

    def apply(self, delta: "Delta") -> "Record":
        """The version that a delta makes of this one; the caller has compared `rev`."""
        assert delta.rev == self.rev
        return self.updated(delta.seq, delta.dynamic, delta.coordinate)


class Delta(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What changed since `rev`: enough for whoever holds the static part."""

    key: bytes
    rev: int
    seq: int
    dynamic: Slots
    coordinate: tuple[float, ...] | None


def make_record(
    schema: Schema,
    attributes: Mapping[str, Value],
    labels: Mapping[str, str],
    *,
    node_id: bytes,
    endpoint: Endpoint,
    seq: int,
    identity: bytes = b"",
    rev: int | None = None,
    coordinate: tuple[float, ...] | None = None,
) -> Record:
    """A record of these values; raises UsageError for what the schema does not allow.

    Raises ValueTooLarge when it would not fit in a datagram.
    """
    checked = {name: schema.check(name, value) for name, value in attributes.items()}
    record = Record(
        node_id=node_id,
        identity=identity,
        host=intern(endpoint[0]),
        port=endpoint[1],
        schema_tag=schema.tag,
        static=tuple(checked.get(a.name) for a in schema.static),
        labels=checked_labels(labels),
        rev=seq if rev is None else rev,
        seq=seq,
        dynamic=tuple(checked.get(a.name) for a in schema.dynamic),
        coordinate=coordinate,
    )
    size = record_size(record)
    if size > RECORD_BYTES_MAX:
        raise ValueTooLarge(
            f"a record has at most {RECORD_BYTES_MAX} bytes, got {size}: shorten texts or labels"
        )
    return record


def record_size(record: Record) -> int:
    """Bytes of the record on the wire."""
    return len(_encode(record))


def checked_labels(labels: Mapping[str, str]) -> Labels:
    """Labels in the order of their names; raises UsageError for what cannot be one."""
    if len(labels) > LABELS_MAX:
        raise UsageError(f"a record has at most {LABELS_MAX} labels, got {len(labels)}")
    for name, value in labels.items():
        if not _is_label(name) or not _is_label(value):
            raise UsageError(
                f"a label is two texts of 1..{LABEL_BYTES_MAX} printable bytes, "
                f"got {name!r}={value!r}"
            )
    return tuple(sorted((intern(name), intern(value)) for name, value in labels.items()))


# --- from the wire --------------------------------------------------------------------------------


def check_record(schema: Schema, wire: object) -> Record:
    """Parse a record from its decoded wire form; raises MalformedMessage for anything odd."""
    if type(wire) is not list or len(wire) < 12:
        raise _bad("has 12 fields")
    node_id, identity, host, port, tag, static, labels, rev, seq, dynamic, coordinate, signature = (
        wire[:12]
    )
    if type(node_id) is not bytes or len(node_id) != ID_BYTES:
        raise _bad("carries a node id of 20 bytes")
    if type(identity) is not bytes or len(identity) not in (0, IDENTITY_BYTES):
        raise _bad("carries a public key of 32 bytes, or none")
    if type(host) is not str or not is_printable(host, HOST_BYTES_MAX) or not host:
        raise _bad("carries a host")
    if type(port) is not int or not 0 < port < 65536:
        raise _bad("carries a port 1..65535")
    if tag != schema.tag or type(tag) is not int:
        raise _bad("is of another schema")
    if type(signature) is not bytes or len(signature) > SIGNATURE_BYTES_MAX:
        raise _bad("carries a signature of at most 64 bytes")
    _check_versions(rev, seq)
    return Record(
        node_id,
        identity,
        intern(host),
        port,
        tag,
        _check_slots(schema.static, static),
        _check_labels(labels),
        rev,
        seq,
        _check_slots(schema.dynamic, dynamic),
        _check_coordinate(coordinate),
        signature,
    )


def check_delta(schema: Schema, wire: object) -> Delta:
    """Parse a delta from its decoded wire form; raises MalformedMessage for anything odd."""
    if type(wire) is not list or len(wire) < 5:
        raise _bad("delta has 5 fields")
    key, rev, seq, dynamic, coordinate = wire[:5]
    if type(key) is not bytes or len(key) != ID_BYTES:
        raise _bad("delta carries a key of 20 bytes")
    _check_versions(rev, seq)
    slots = _check_slots(schema.dynamic, dynamic)
    return Delta(key, rev, seq, slots, _check_coordinate(coordinate))


def _bad(what: str) -> MalformedMessage:
    return MalformedMessage(f"a record {what}")


def _check_versions(rev: object, seq: object) -> None:
    if type(rev) is not int or type(seq) is not int or not 0 <= rev <= seq <= SEQ_MAX:
        raise _bad("carries versions 0 <= rev <= seq")


def _check_slots(attributes: Sequence[Attribute], wire: object) -> Slots:
    if type(wire) is not list or len(wire) != len(attributes):
        raise _bad("has one value for each attribute")
    values: list[Value | None] = []
    for attribute, value in zip(attributes, wire, strict=True):
        if value is None:
            values.append(None)
            continue
        kind = attribute.kind
        if kind == "number":
            if not is_number(value):
                raise _bad(f"has a number for {attribute.name}")
        elif kind == "text":
            if type(value) is not str or not value or not is_printable(value, TEXT_BYTES_MAX):
                raise _bad(f"has a text for {attribute.name}")
            value = intern(value)
        elif type(value) is not bool:
            raise _bad(f"has true or false for {attribute.name}")
        values.append(value)
    return tuple(values)


def _check_labels(wire: object) -> Labels:
    if type(wire) is not list or len(wire) > LABELS_MAX:
        raise _bad("has a bounded list of labels")
    labels = []
    for pair in wire:
        if type(pair) is not list or len(pair) != 2 or not all(map(_is_label, pair)):
            raise _bad("has labels of two texts")
        labels.append((intern(pair[0]), intern(pair[1])))
    if any(a[0] >= b[0] for a, b in zip(labels, labels[1:], strict=False)):
        raise _bad("has labels in order, each once")
    return tuple(labels)


def _check_coordinate(wire: Any) -> tuple[float, ...] | None:
    if wire is None:
        return None
    if type(wire) is not list or not 3 <= len(wire) <= COORDINATE_PARTS_MAX:
        raise _bad("has a coordinate of a few numbers, or none")
    if not all(type(p) in (float, int) and abs(p) <= COORDINATE_S_MAX for p in wire):
        raise _bad("has a coordinate within bounds")
    if any(math.isnan(p) for p in wire) or wire[-2] < 0 or wire[-1] < 0:
        raise _bad("has a coordinate of real numbers")
    return tuple(float(p) for p in wire)


def _is_label(text: object) -> bool:
    return type(text) is str and bool(text) and is_printable(text, LABEL_BYTES_MAX)
