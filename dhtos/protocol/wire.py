"""The datagram format: bytes in, typed messages out, and back. The one door of the engine.

    datagram = kind(1) | message id(20) | MessagePack payload [| trailer]
    kind     = 0x00 request, payload [name, [argument...]];  0x01 response, payload any value
    trailer  = MessagePack array (its body) | length of the body(1) | d4 64 68 31

This is rpcudp's framing, byte for byte as long as there is no trailer. Stock peers stop reading
at the end of the first MessagePack object, so what dhtos nodes tell each other rides behind it.
A MessagePack object ends where its own headers say, so at most one way of cutting a datagram is
valid: a value that happens to end like a trailer is still read as a value.

`parse` raises MalformedMessage and nothing else, and what it returns is bounded: plain values
only (None, bool, int, float, str, bytes, lists, dicts with text keys), nested at most
NESTING_MAX deep. The decoder allocates while it reads, never what a header announces.

This module knows no RPC names and no meaning of arguments; handlers check their own.
"""

from typing import Any

import msgspec

from dhtos.core.ids import ID_BYTES
from dhtos.core.limits import (
    DATAGRAM_BYTES_MAX,
    NAME_BYTES_MAX,
    NESTING_MAX,
    REQUEST_PAYLOAD_BYTES_MAX,
    TRAILER_BYTES_MAX,
)
from dhtos.errors import MalformedMessage, UsageError, ValueTooLarge

REQUEST = 0
RESPONSE = 1
TRAILER_MAGIC = b"\xd4dh1"

_PAYLOAD_AT = 1 + ID_BYTES
_FOOT_BYTES = 1 + len(TRAILER_MAGIC)
_REQUEST_BYTES_MAX = _PAYLOAD_AT + REQUEST_PAYLOAD_BYTES_MAX + TRAILER_BYTES_MAX + _FOOT_BYTES
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_CONTAINERS = frozenset({list, dict})
_PLAIN = _SCALARS | _CONTAINERS
_TEXT_ONLY = frozenset({str})
# What the decoder raises for bytes that are not MessagePack, text that is not UTF-8, keys that
# cannot be hashed and arrays nested by the thousand.
_UNREADABLE = (msgspec.DecodeError, ValueError, TypeError, RecursionError)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Request(msgspec.Struct, frozen=True):
    """A call: `name` and `args` as the peer sent them, structurally sound."""

    msg_id: bytes
    name: str
    args: list[Any]
    trailer: list[Any] | None = None


class Response(msgspec.Struct, frozen=True):
    """The answer to the call with the same message id."""

    msg_id: bytes
    value: Any
    trailer: list[Any] | None = None


def parse(datagram: bytes) -> Request | Response:
    """Read one datagram; raises MalformedMessage for anything that is not a message."""
    size = len(datagram)
    if not _PAYLOAD_AT < size <= DATAGRAM_BYTES_MAX:
        raise MalformedMessage(f"a datagram of {size} bytes is no message")
    kind = datagram[0]
    if kind > RESPONSE:
        raise MalformedMessage(f"a message starts with 0 or 1, got {kind}")
    if kind == REQUEST and size > _REQUEST_BYTES_MAX:
        raise MalformedMessage(f"a request of {size} bytes is over the limit")
    trailer: list[Any] | None = None
    if datagram.endswith(TRAILER_MAGIC):
        payload, payload_bytes, trailer = _split(datagram)
    else:
        payload_bytes = size - _PAYLOAD_AT
        try:
            payload = _decode(datagram[_PAYLOAD_AT:])
        except _UNREADABLE as error:
            raise _unreadable(error) from error
    msg_id = datagram[1:_PAYLOAD_AT]
    if kind == RESPONSE:
        if type(payload) not in _SCALARS:
            _check_plain(payload)
        return Response(msg_id, payload, trailer)
    if payload_bytes > REQUEST_PAYLOAD_BYTES_MAX:
        raise MalformedMessage(f"a request of {payload_bytes} bytes is over the limit")
    if type(payload) is not list or len(payload) != 2:
        raise MalformedMessage("a request is [name, [argument...]]")
    name, args = payload
    if type(name) is not str or not _is_name(name) or type(args) is not list:
        raise MalformedMessage("a request is [name, [argument...]]")
    if not _SCALARS.issuperset(map(type, args)):
        _check_plain(args, NESTING_MAX - 1)
    return Request(msg_id, name, args, trailer)


def encode_request(msg_id: bytes, name: str, args: list[Any]) -> bytes:
    """A request without trailer; raises ValueTooLarge over the limit that stock peers set."""
    assert len(msg_id) == ID_BYTES
    payload = _encode((name, args))
    if len(payload) > REQUEST_PAYLOAD_BYTES_MAX:
        raise ValueTooLarge(
            f"a request carries at most {REQUEST_PAYLOAD_BYTES_MAX} bytes, got {len(payload)}"
        )
    return b"\x00" + msg_id + payload


def encode_response(msg_id: bytes, value: object) -> bytes:
    """A response without trailer; raises ValueTooLarge over what one datagram carries."""
    payload = _encode(value)
    if len(payload) > DATAGRAM_BYTES_MAX - _PAYLOAD_AT - TRAILER_BYTES_MAX - _FOOT_BYTES:
        raise ValueTooLarge(f"a response of {len(payload)} bytes does not fit in a datagram")
    return b"\x01" + msg_id + payload


def encode_trailer(items: list[Any]) -> bytes:
    """What to append to a datagram so that dhtos peers read `items` and stock peers nothing."""
    body = _encode(items)
    if len(body) > TRAILER_BYTES_MAX:
        raise ValueTooLarge(f"a trailer has at most {TRAILER_BYTES_MAX} bytes, got {len(body)}")
    return body + bytes((len(body),)) + TRAILER_MAGIC


def encode_value(value: object) -> bytes:
    """The one encoding of a stored value; raises UsageError for what MessagePack cannot carry."""
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"a value must be representable in MessagePack: {error}") from error


def decode_plain(body: bytes) -> object:
    """Read bytes that a message carried inside; raises MalformedMessage as `parse` does."""
    value = _decoded(body)
    _check_plain(value)
    return value


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_BYTES_MAX and name.isascii()


def _split(datagram: bytes) -> tuple[object, int, list[Any] | None]:
    """The payload, its size, and the trailer of a datagram that seems to have one."""
    cut = len(datagram) - _FOOT_BYTES
    body_at = cut - datagram[cut]
    if body_at > _PAYLOAD_AT:
        try:
            payload = _decode(datagram[_PAYLOAD_AT:body_at])
        except _UNREADABLE:
            pass  # The four bytes belong to the payload itself: read it whole, below.
        else:
            trailer = _decoded(datagram[body_at:cut])
            if type(trailer) is not list:
                raise MalformedMessage("a trailer is an array")
            _check_plain(trailer)
            return payload, body_at - _PAYLOAD_AT, trailer
    return _decoded(datagram[_PAYLOAD_AT:]), len(datagram) - _PAYLOAD_AT, None


def _decoded(payload: bytes) -> object:
    value: object
    try:
        value = _decode(payload)
    except _UNREADABLE as error:
        raise _unreadable(error) from error
    return value


def _unreadable(error: Exception) -> MalformedMessage:
    return MalformedMessage(f"not a MessagePack payload: {type(error).__name__}")


def _check_plain(value: object, depth: int = NESTING_MAX) -> None:
    """Refuse extension types, keys that are not text, and nesting over `depth`.

    Works level by level with sets of types, so its cost is one pass at C speed and its own
    recursion is nil.
    """
    level: list[object] = [value]
    if (
        type(value) is dict  # the reply that carries a value: worth a shorter way
        and _TEXT_ONLY.issuperset(map(type, value))
        and _SCALARS.issuperset(map(type, value.values()))
    ):
        return
    while True:
        kinds = set(map(type, level))
        if not kinds <= _PLAIN:
            raise MalformedMessage("a message holds plain values only")
        if kinds.isdisjoint(_CONTAINERS):
            return
        if not depth:
            raise MalformedMessage(f"a message nests at most {NESTING_MAX} deep")
        depth -= 1
        inner: list[object] = []
        for item in level:
            if type(item) is list:
                inner += item
            elif type(item) is dict:
                if not _TEXT_ONLY.issuperset(map(type, item)):
                    raise MalformedMessage("a map has text keys")
                inner += item.values()
        level = inner
