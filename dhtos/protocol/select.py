"""What a question wants of the matches where it does not want the first of them.

    select  nil | [1, attribute, [edge, ...]]     an aggregate instead of hits
                | [2, nonce]                      hits in random order

A random order is that of a hash of the key under a nonce that the asker chooses: any first few in
it are drawn evenly from all, every member of a group draws the same, and a second page continues
the first.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from dhtos.core.ids import ID_BYTES
from dhtos.core.limits import HISTOGRAM_EDGES_MAX
from dhtos.core.schema import Schema
from dhtos.errors import MalformedMessage, UsageError
from dhtos.protocol.aggregate import Measure, check_edges
from dhtos.protocol.hubwire import as_bytes, as_int, as_list, bad

NONCE_BYTES = 8

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Hits in the random order of one nonce."""

    nonce: bytes

    def rank(self, key: bytes) -> bytes:
        """The place of a key in this order."""
        return blake2b(key, key=self.nonce, digest_size=ID_BYTES).digest()


Select = Measure | Shuffle


def select_to_wire(select: Select) -> bytes:
    """The form of a request's last field."""
    if isinstance(select, Shuffle):
        return _encode([2, select.nonce])
    return _encode([1, select.attribute, select.edges])


def read_select(wire: bytes, schema: Schema) -> Select:
    """Parse `select_to_wire`; raises MalformedMessage."""
    try:
        fields = as_list(msgspec.msgpack.decode(wire), 8)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise bad("what is selected is MessagePack") from error
    match fields:
        case [1, attribute, edges]:
            return _read_measure(attribute, edges, schema)
        case [2, nonce]:
            if len(as_bytes(nonce, NONCE_BYTES)) == NONCE_BYTES:
                return Shuffle(nonce)
    raise bad("what is selected is an aggregate or a nonce")


def _read_measure(attribute: Any, edges: Any, schema: Schema) -> Measure:
    index = as_int(attribute, 0, len(schema.attributes) - 1)
    if schema.attributes[index].kind != "number":
        raise bad("only numbers are aggregated")
    listed = as_list(edges, HISTOGRAM_EDGES_MAX)
    try:
        return Measure(index, check_edges(listed) if listed else ())
    except UsageError as error:
        raise MalformedMessage(str(error)) from error
