"""One long answer in several datagrams: compressed, cut, and put together again.

    part  [index, part count, mark, size, chunk]

`mark` is the CRC-32 of all chunks together: a retransmitted request may be answered twice, from
two states, and parts of the two must not be mixed. `size` is how many bytes the chunks inflate
to, or 0 where they are the answer as it stands. It is checked before anything is inflated, so a
small datagram cannot ask for much memory.
"""

import zlib
from typing import Any

from dhtos.core.limits import ANSWER_BYTES_MAX, ANSWER_PARTS_MAX, REPLY_BYTES_MAX
from dhtos.errors import MalformedMessage
from dhtos.protocol.hubwire import as_bytes, as_int, as_list, bad

CHUNK_BYTES = REPLY_BYTES_MAX - 64  # kind, message id, trailer and the fixed fields of a part
_FIELDS = 5
_MARK_MAX = 2**32 - 1
_ANSWERS_MAX = 2  # different answers to one request that are collected at a time


def pack(body: bytes) -> tuple[bytes, int]:
    """The bytes to cut, and what to say of their size: short answers stay as they are."""
    if len(body) <= CHUNK_BYTES:
        return body, 0
    return zlib.compress(body, 1), len(body)


def part_count(packed: bytes) -> int:
    """How many datagrams it takes."""
    return max(1, -(-len(packed) // CHUNK_BYTES))


def cut(packed: bytes, size: int) -> list[list[Any]]:
    """The parts of a packed answer."""
    count, mark = part_count(packed), zlib.crc32(packed)
    assert count <= ANSWER_PARTS_MAX
    assert size <= ANSWER_BYTES_MAX
    starts = range(0, count * CHUNK_BYTES, CHUNK_BYTES)
    return [[n, count, mark, size, packed[at : at + CHUNK_BYTES]] for n, at in enumerate(starts)]


class Assembly:
    """Collects the parts of one answer; they come in any order, twice, or of two answers."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: dict[tuple[int, int, int], dict[int, bytes]] = {}

    def add(self, value: object) -> bytes | None:
        """Take one part; the whole answer once its last part is there.

        Raises MalformedMessage for what is no part, or for an answer that does not add up.
        """
        fields = as_list(value, 8)
        if len(fields) < _FIELDS:
            raise bad("a part of an answer has 5 fields")
        count = as_int(fields[1], 1, ANSWER_PARTS_MAX)
        index = as_int(fields[0], 0, count - 1)
        mark = as_int(fields[2], 0, _MARK_MAX)
        size = as_int(fields[3], 0, ANSWER_BYTES_MAX)
        chunk = as_bytes(fields[4], CHUNK_BYTES)
        if (mark, count, size) not in self._answers and len(self._answers) >= _ANSWERS_MAX:
            del self._answers[next(iter(self._answers))]
        chunks = self._answers.setdefault((mark, count, size), {})
        chunks[index] = chunk
        if len(chunks) < count:
            return None
        packed = b"".join([chunks[n] for n in range(count)])
        if zlib.crc32(packed) != mark:
            raise bad("the parts of an answer do not fit together")
        return _inflate(packed, size) if size else packed


def _inflate(packed: bytes, size: int) -> bytes:
    inflating = zlib.decompressobj()
    try:
        body = inflating.decompress(packed, size)
    except zlib.error as error:
        raise MalformedMessage("an answer cannot be inflated") from error
    if len(body) != size or not inflating.eof:
        raise bad("an answer has another size than it says")
    return body
