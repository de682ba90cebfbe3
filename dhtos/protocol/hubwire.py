"""What hub nodes say to each other, as plain lists, and the checks on what comes back.

    rumour   = [0, age, record] | [1, age, delta...] | [2, age, key, seq, state (, proof)]
    delta    = key, rev, seq, dynamic values, coordinate
    contact  = [key, host, port]          hearsay = [key, host, port, age]
    item     = [prefix, count, estimate, bound | nil, [contact...]]
    hit      = [age, record]

Ages are seconds since the version was made, relative to the sender's send. Every parser here
raises MalformedMessage and nothing else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar

import msgspec

from dhtos.core.contact import Contact
from dhtos.core.coordinate import Coordinate
from dhtos.core.curve import version_of
from dhtos.core.group import State
from dhtos.core.ids import ID_BYTES, Endpoint, Prefix
from dhtos.core.limits import NODE_TTL_S, REPLY_BYTES_MAX
from dhtos.core.record import SIGNATURE_BYTES, Delta, Record, check_delta, check_record
from dhtos.core.schema import Schema
from dhtos.errors import MalformedMessage, OtherSchema

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_FRAME_BYTES = 120  # header, message id and the fixed fields of the largest reply
SEQ_MAX = 2**62
_HOST_BYTES_MAX = 64


@dataclass(frozen=True, slots=True)
class News:
    """A rumour, parsed: a whole record, a delta, or a state of one version of one key."""

    key: bytes
    seq: int
    age: float
    record: Record | None = None
    delta: Delta | None = None
    state: State | None = None
    proof: bytes = b""  # that it has left: by whoever left, in a cluster


def bad(what: str) -> MalformedMessage:
    """The one way a hub message is refused."""
    return MalformedMessage(f"hub message: {what}")


def as_key(value: object) -> bytes:
    """A 20-byte key."""
    if type(value) is bytes and len(value) == ID_BYTES:
        return value
    raise bad("a key has 20 bytes")


def as_int(value: object, low: int, high: int) -> int:
    """A whole number within bounds."""
    if type(value) is int and low <= value <= high:
        return value
    raise bad(f"expected a whole number {low}..{high}")


def as_list(value: object, most: int) -> list[Any]:
    """A list of bounded length."""
    if type(value) is list and len(value) <= most:
        return value
    raise bad(f"expected a list of at most {most}")


def as_bytes(value: object, most: int) -> bytes:
    """Bytes of bounded length."""
    if type(value) is bytes and len(value) <= most:
        return value
    raise bad(f"expected at most {most} bytes")


def as_age(value: object) -> float:
    """An age in seconds: never negative, never beyond the life of a record."""
    if type(value) in (int, float):
        age = float(value)  # type: ignore[arg-type]  # checked in the line above
        if isfinite(age) and age >= 0:
            return min(age, NODE_TTL_S + 1)
    raise bad("an age is a number of seconds")


def as_packed_coordinate(value: object) -> Coordinate | None:
    """A coordinate as records carry it, or none."""
    if value is None:
        return None
    return Coordinate.from_bytes(as_bytes(value, 64))


def as_prefix(value: object) -> Prefix:
    """A subtree."""
    try:
        return Prefix.from_wire(value)
    except ValueError as error:
        raise bad(str(error)) from error


def as_endpoint(host: object, port: object) -> Endpoint:
    """Where to send."""
    if type(host) is str and 0 < len(host) <= _HOST_BYTES_MAX:
        return (host, as_int(port, 1, 65535))
    raise bad("an endpoint is a host and a port 1..65535")


def as_contact(value: object) -> Contact:
    """A hub contact."""
    fields = as_list(value, 4)
    if len(fields) < 3:
        raise bad("a contact is [key, host, port]")
    return Contact(as_key(fields[0]), as_endpoint(fields[1], fields[2]))


def unpack(args: list[Any], *parsers: Callable[[Any], Any]) -> list[Any]:
    """Parse positional fields, each by its own parser; later versions may append more."""
    if len(args) < len(parsers):
        raise bad(f"expected {len(parsers)} fields, got {len(args)}")
    return [parse(value) for parse, value in zip(parsers, args, strict=False)]


def record_rumour(record: Record, age: float) -> list[Any]:
    """A rumour that carries all of a record."""
    return [0, age, record]


def delta_rumour(key: bytes, record: Record, age: float) -> list[Any]:
    """A rumour that carries what changes: a receiver with the static part applies it."""
    words = [1, age, key, record.rev, record.seq, record.dynamic, record.packed]
    return [*words, record.proof[:SIGNATURE_BYTES]] if record.proof else words


def state_rumour(key: bytes, seq: int, state: State, age: float, proof: bytes = b"") -> list[Any]:
    """A rumour that a version is suspected, dead, or has left."""
    words = [2, age, key, seq, int(state)]
    return [*words, proof] if proof else words


def as_news(value: object, schema: Schema) -> News:
    """Parse one rumour."""
    fields = as_list(value, 16)
    if len(fields) < 3:
        raise bad("a rumour is [kind, age, ...]")
    age = as_age(fields[1])
    match fields[0]:
        case 0:
            record = check_record(schema, fields[2])
            return News(record.key(schema), record.seq, age, record=record)
        case 1:
            if version_of(as_key(fields[2])) != schema.version:
                raise OtherSchema("hub message: a change of a record of another schema")
            delta = check_delta(schema, fields[2:])
            return News(delta.key, delta.seq, age, delta=delta)
        case 2 if len(fields) >= 5:
            state = State(as_int(fields[4], 1, 3))
            proof = as_bytes(fields[5], SIGNATURE_BYTES) if len(fields) > 5 else b""
            key, seq = as_key(fields[2]), as_int(fields[3], 0, SEQ_MAX)
            return News(key, seq, age, state=state, proof=proof)
    raise bad("unknown kind of rumour")


def readable_news(values: list[Any], schema: Schema) -> list[News]:
    """Parse those of some rumours that are in our schema; what is told of others is left out."""
    found = []
    for value in values:
        try:
            found.append(as_news(value, schema))
        except OtherSchema:
            continue
    return found


def pack(items: Iterable[T], room: int = REPLY_BYTES_MAX - _FRAME_BYTES) -> tuple[list[Any], int]:
    """As many items as fit in `room` bytes, encoded once, and how many they were."""
    packed: list[Any] = []
    for item in items:
        encoded = _encode(item)
        room -= len(encoded)
        if room < 0 and packed:
            break
        packed.append(msgspec.Raw(encoded))
    return packed, len(packed)


def packs(items: Iterable[Any], room: int = REPLY_BYTES_MAX - _FRAME_BYTES) -> list[list[Any]]:
    """All items, cut into lists of at most `room` bytes each; at least one list."""
    lists: list[list[Any]] = [[]]
    left = room
    for item in items:
        encoded = _encode(item)
        if len(encoded) > left and lists[-1]:
            lists.append([])
            left = room
        lists[-1].append(msgspec.Raw(encoded))
        left -= len(encoded)
    return lists
