"""A record: what one machine advertises, as values in the order of its schema.

A record has a static part (who, where, what it is made of, labels), which changes rarely and
decides the key, and a dynamic part, which changes all the time and never does. `seq` counts
versions, `rev` is the `seq` at which the static part last changed, so a `Delta` with the same
`rev` is all a holder needs to follow. The key is always derived from the content, never
believed: a record cannot lie about where it belongs.

A *foreign* record stands for a machine that runs no node: its gateway, a node, advertises it
under a name of its own, the `row`. Its identity is the gateway's, its endpoint is where the
gateway is asked for the machine, its id and its key follow from identity and row. Nobody answers
there in the record's name (`serves` is false), except where the gateway has taken a seat for it.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise

import msgspec

from dhtos.core.coordinate import Coordinate, pack, unpack
from dhtos.core.curve import record_key
from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import (
    LABEL_BYTES_MAX,
    LABELS_MAX,
    RECORD_BYTES_MAX,
    ROW_BYTES_MAX,
)
from dhtos.core.pool import Pool
from dhtos.core.schema import Schema
from dhtos.core.value import Value, is_printable, is_whole
from dhtos.errors import MalformedMessage, OtherSchema, UsageError, ValueTooLarge

IDENTITY_BYTES = 32
PROOF_BYTES_MAX = 464  # a signature and a certificate
SIGNATURE_BYTES = 64
SEQ_MAX = 2**62
HOST_BYTES_MAX = 64

Slots = tuple[Value | None, ...]
Labels = tuple[tuple[str, str], ...]

_RECORD_FIELDS = 14
_DELTA_FIELDS = 5

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
    packed: bytes | None  # the coordinate, as `Coordinate.to_bytes`
    proof: bytes = b""  # who said so (`dhtos.trust.proof`); empty in open mode
    row: str = ""  # the gateway's name for a machine without a node; empty in a node's own record
    serves: bool = True  # whether a node answers at the endpoint in this record's name

    @property
    def is_foreign(self) -> bool:
        """Whether a gateway says this of a machine that runs no node."""
        return self.row != ""

    @property
    def coordinate(self) -> tuple[float, ...] | None:
        """`(*position, height, error)` in seconds, as `Coordinate.to_wire`."""
        return unpack_coordinate(self.packed)

    @property
    def endpoint(self) -> Endpoint:
        """Where the node listens."""
        return (self.host, self.port)

    def key(self, schema: Schema) -> bytes:
        """The record's place in the hub, derived from what it says."""
        identity = self.identity or self.node_id
        return record_key(schema, self.static, identity + self.row.encode())

    def attributes(self, schema: Schema) -> dict[str, Value]:
        """All values by name; missing ones are left out."""
        parts = {"static": self.static, "dynamic": self.dynamic}
        named = {
            a.name: parts[a.role][slot]
            for a, slot in zip(schema.attributes, schema.slots, strict=True)
        }
        return {name: value for name, value in named.items() if value is not None}

    def updated(self, seq: int, dynamic: Slots, coordinate: tuple[float, ...] | None) -> "Record":
        """The next version with the same static part, not signed yet."""
        return self._next(seq, dynamic, pack_coordinate(coordinate))

    def anew(self) -> "Record":
        """The next version, to be told as a whole: its proof will have another certificate."""
        seq = self.seq + 1
        return msgspec.structs.replace(self, seq=seq, rev=seq, proof=b"")

    def delta(self, schema: Schema) -> "Delta":
        """All that a holder of the static part needs to have this version."""
        signature = self.proof[:SIGNATURE_BYTES]
        return Delta(self.key(schema), self.rev, self.seq, self.dynamic, self.packed, signature)

    def apply(self, delta: "Delta") -> "Record":
        """The version that a delta makes of this one; the caller has compared `rev` and `seq`.

        Raises MalformedMessage if that version is larger than a record may be.
        """
        assert delta.rev == self.rev
        proof = delta.signature + self.proof[SIGNATURE_BYTES:] if delta.signature else b""
        record = self._next(delta.seq, delta.dynamic, delta.packed, proof)
        if record_size(record) > RECORD_BYTES_MAX:
            raise _bad(f"has at most {RECORD_BYTES_MAX} bytes")
        return record

    def _next(self, seq: int, dynamic: Slots, packed: bytes | None, proof: bytes = b"") -> "Record":
        assert seq > self.seq
        assert len(dynamic) == len(self.dynamic)
        return msgspec.structs.replace(self, seq=seq, dynamic=dynamic, packed=packed, proof=proof)


class Delta(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What changed since `rev`: enough for whoever holds the static part."""

    key: bytes
    rev: int
    seq: int
    dynamic: Slots
    packed: bytes | None
    signature: bytes = b""  # of the version that this makes

    @property
    def coordinate(self) -> tuple[float, ...] | None:
        """`(*position, height, error)` in seconds, as `Coordinate.to_wire`."""
        return unpack_coordinate(self.packed)


def pack_coordinate(parts: Sequence[float] | None) -> bytes | None:
    """`Coordinate.to_bytes` of a wire form, from which nothing is lost."""
    return None if parts is None else pack(parts)


def unpack_coordinate(packed: bytes | None) -> tuple[float, ...] | None:
    """The inverse of `pack_coordinate`."""
    return None if packed is None else unpack(packed)


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
    row: str = "",
) -> Record:
    """A record of these values; raises UsageError for what the schema does not allow.

    Raises ValueTooLarge when it would not fit in a datagram.
    """
    checked = {name: schema.check(name, value) for name, value in attributes.items()}
    share = schema.pool.share
    assert len(node_id) == ID_BYTES
    assert len(identity) in (0, IDENTITY_BYTES)
    assert not row or node_id == row_id(identity, row)
    record = Record(
        node_id=node_id,
        identity=identity,
        host=share(endpoint[0]),
        port=endpoint[1],
        schema_tag=schema.tag,
        static=share(tuple(checked.get(a.name) for a in schema.static)),
        labels=share(checked_labels(labels)),
        rev=seq if rev is None else rev,
        seq=seq,
        dynamic=tuple(checked.get(a.name) for a in schema.dynamic),
        packed=pack_coordinate(coordinate),
        row=row,
        serves=not row,
    )
    size = record_size(record)
    if size > RECORD_BYTES_MAX:
        raise ValueTooLarge(
            f"a record has at most {RECORD_BYTES_MAX} bytes, got {size}: shorten texts or labels"
        )
    return record


def row_id(identity: bytes, row: str) -> bytes:
    """The id of a foreign record: it follows from the gateway's public key and its row."""
    assert len(identity) == IDENTITY_BYTES
    return blake2b(b"dhtos-row" + identity + row.encode(), digest_size=ID_BYTES).digest()


def is_row(text: object) -> bool:
    """Whether a text can be a gateway's name for a machine."""
    return type(text) is str and text != "" and is_printable(text, ROW_BYTES_MAX)


def record_size(record: Record) -> int:
    """Bytes of the record on the wire."""
    return len(_encode(record))


def checked_labels(labels: Mapping[str, str]) -> Labels:
    """Labels in the order of their names; raises UsageError for what cannot be one."""
    if len(labels) > LABELS_MAX:
        raise UsageError(f"a record has at most {LABELS_MAX} labels, got {len(labels)}")
    for name, value in labels.items():
        if not name or not _is_label(name) or not _is_label(value):
            raise UsageError(
                f"a label is a name and a text of at most {LABEL_BYTES_MAX} printable bytes each, "
                f"got {name!r}={value!r}"
            )
    return tuple(sorted(labels.items()))


# --- from the wire ------------------------------------------------------------------------------


def check_record(schema: Schema, wire: object) -> Record:
    """Parse a record from its decoded wire form; raises MalformedMessage for anything odd."""
    if type(wire) is not list or len(wire) < _RECORD_FIELDS:
        raise _bad(f"has {_RECORD_FIELDS} fields")
    node_id, identity, host, port, tag, static, labels, rev, seq, dynamic, coordinate, proof = wire[
        :12
    ]
    row, serves = wire[12:_RECORD_FIELDS]
    if type(node_id) is not bytes or len(node_id) != ID_BYTES:
        raise _bad("carries a node id of 20 bytes")
    if type(identity) is not bytes or len(identity) not in (0, IDENTITY_BYTES):
        raise _bad("carries a public key of 32 bytes, or none")
    if type(host) is not str or not host or not is_printable(host, HOST_BYTES_MAX):
        raise _bad("carries a host")
    if type(port) is not int or not 0 < port < 65536:
        raise _bad("carries a port 1..65535")
    if type(tag) is not int or tag != schema.tag:
        raise OtherSchema("a record is of another schema")
    if type(proof) is not bytes or len(proof) > PROOF_BYTES_MAX:
        raise _bad(f"carries a proof of at most {PROOF_BYTES_MAX} bytes")
    _check_versions(rev, seq)
    _check_row(node_id, identity, row, serves)
    pool = schema.pool
    record = Record(
        pool.share(node_id),
        pool.share(identity),
        pool.share(host),
        pool.share(port),
        schema.tag,
        _check_static(schema, static),
        _check_labels(labels, pool),
        seq if rev == seq else rev,
        seq,
        tuple(_check_slots(schema.dynamic_tests, dynamic)),
        _check_coordinate(coordinate),
        proof,
        row,
        serves,
    )
    if record_size(record) > RECORD_BYTES_MAX:
        raise _bad(f"has at most {RECORD_BYTES_MAX} bytes")
    return record


def check_delta(schema: Schema, wire: object) -> Delta:
    """Parse a delta from its decoded wire form; raises MalformedMessage for anything odd."""
    if type(wire) is not list or len(wire) < _DELTA_FIELDS:
        raise _bad(f"delta has {_DELTA_FIELDS} fields")
    key, rev, seq, dynamic, coordinate = wire[:_DELTA_FIELDS]
    signature = wire[_DELTA_FIELDS] if len(wire) > _DELTA_FIELDS else b""
    if type(signature) is not bytes or len(signature) not in (0, SIGNATURE_BYTES):
        raise _bad(f"delta carries a signature of {SIGNATURE_BYTES} bytes, or none")
    if type(key) is not bytes or len(key) != ID_BYTES:
        raise _bad("delta carries a key of 20 bytes")
    _check_versions(rev, seq)
    slots = tuple(_check_slots(schema.dynamic_tests, dynamic))
    return Delta(key, rev, seq, slots, _check_coordinate(coordinate), signature)


def _bad(what: str) -> MalformedMessage:
    return MalformedMessage(f"a record {what}")


def _check_versions(rev: object, seq: object) -> None:
    if type(rev) is not int or type(seq) is not int or not 0 <= rev <= seq <= SEQ_MAX:
        raise _bad("carries versions 0 <= rev <= seq")


def _check_row(node_id: bytes, identity: bytes, row: object, serves: object) -> None:
    """A node's own record has no row; a foreign one has the id that follows from its row."""
    if type(serves) is not bool:
        raise _bad("says whether a node answers for it")
    if row == "" and serves:
        return
    if type(row) is not str or not is_row(row):
        raise _bad(f"has a row of at most {ROW_BYTES_MAX} printable bytes")
    if len(identity) != IDENTITY_BYTES or node_id != row_id(identity, row):
        raise _bad("of a gateway has the id of its row")


def _check_static(schema: Schema, wire: object) -> Slots:
    values = _check_slots(schema.static_tests, wire)
    share = schema.pool.share
    for slot, value in enumerate(values):
        kind = type(value)
        if kind is str or kind is int:
            values[slot] = share(value)  # type: ignore[type-var]  # a str or an int
        elif kind is float and is_whole(value):  # type: ignore[arg-type]  # a float
            # The pool takes 2 and 2.0 for the same; `Attribute.check` never makes the latter.
            raise _bad("has whole numbers as integers")
    return share(tuple(values))


def _check_slots(tests: Sequence[Callable[[object], bool]], wire: object) -> list[Value | None]:
    """Values that fit their attributes, in the list that came from the wire."""
    if type(wire) is not list or len(wire) != len(tests):
        raise _bad("has one value for each attribute")
    for test, value in zip(tests, wire, strict=True):
        if value is not None and not test(value):
            raise _bad("has values of the kinds that its schema declares")
    return wire


def _check_labels(wire: object, pool: Pool) -> Labels:
    if type(wire) is not list or len(wire) > LABELS_MAX:
        raise _bad("has a bounded list of labels")
    labels = []
    for pair in wire:
        if type(pair) is not list or len(pair) != 2 or not all(map(_is_label, pair)):
            raise _bad("has labels of two texts")
        labels.append((pair[0], pair[1]))
    names = [name for name, _ in labels]
    if any(a >= b for a, b in pairwise(["", *names])):
        raise _bad("has labels with names, in order, each once")
    return pool.share(tuple(labels))


def _check_coordinate(wire: object) -> bytes | None:
    """Packed or as a list of numbers; a peer may use other dimensions, we then predict nothing."""
    if wire is None:
        return None
    if type(wire) is list:
        return Coordinate.from_wire(wire).to_bytes()
    if type(wire) is not bytes:
        raise _bad("has a coordinate, or none")
    unpack(wire)  # raises for another form; every number of this one is within bounds
    return wire


def _is_label(text: object) -> bool:
    return type(text) is str and is_printable(text, LABEL_BYTES_MAX)
