"""Ids, endpoints and prefixes: the geometry of the 160-bit XOR space.

Ids are `bytes` of fixed width everywhere below the public surface; `NodeId` is the same value
with a hexadecimal face. A `Prefix` names a subtree of the id space: because bytes compare like
the numbers they spell, a subtree is also one contiguous range of sorted ids, which is what lets
a sorted container answer "all members under this prefix" without a scan.
"""

import hashlib
from dataclasses import dataclass
from functools import total_ordering
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

ID_BITS = 160
ID_BYTES = 20

Endpoint = tuple[str, int]
"""A numeric host and a UDP port."""


def digest(key: str | bytes) -> bytes:
    """The id a key is filed under in the base overlay: its SHA-1, as stock Kademlia."""
    if isinstance(key, str):
        key = key.encode("utf-8")
    return hashlib.sha1(key, usedforsecurity=False).digest()


def random_id(rng: "Random") -> bytes:
    """A uniform id."""
    return rng.randbytes(ID_BYTES)


def distance(a: bytes, b: bytes) -> int:
    """XOR distance (Maymounkov and Mazieres 2002, section 2.1)."""
    return int.from_bytes(a) ^ int.from_bytes(b)


def common_prefix_bits(a: bytes, b: bytes) -> int:
    """How many leading bits two ids share, 0..160."""
    return ID_BITS - (int.from_bytes(a) ^ int.from_bytes(b)).bit_length()


@total_ordering
class NodeId:
    """A node's 160-bit id as users see it: 40 hexadecimal digits."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != ID_BYTES:
            raise ValueError(f"a node id has {ID_BYTES} bytes, got {len(raw)}")
        self._raw = bytes(raw)

    @classmethod
    def from_hex(cls, text: str) -> "NodeId":
        """Parse 40 hexadecimal digits; raises ValueError otherwise."""
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            raise ValueError(f"a node id is 40 hexadecimal digits, got {text!r}") from error

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        return self._raw.hex()

    def __repr__(self) -> str:
        return f"NodeId.from_hex({self._raw.hex()!r})"

    def __hash__(self) -> int:
        return hash(self._raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeId) and self._raw == other._raw

    def __lt__(self, other: "NodeId") -> bool:
        return self._raw < other._raw

    def __reduce__(self) -> tuple[type["NodeId"], tuple[bytes]]:
        return (NodeId, (self._raw,))


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """The subtree of all ids whose first `length` bits spell `value`.

    >>> whole = Prefix(0, 0)
    >>> whole.child(1).child(0)
    Prefix('10')
    >>> whole.child(1).sibling()
    Prefix('0')
    >>> Prefix.of(b"\\xc0" + bytes(19), 3)
    Prefix('110')
    """

    value: int
    length: int

    @classmethod
    def of(cls, key: bytes, length: int) -> "Prefix":
        """The subtree of `length` bits that holds `key`."""
        return cls(int.from_bytes(key) >> (ID_BITS - length), length)

    @property
    def first(self) -> bytes:
        """The smallest id of the subtree."""
        return (self.value << (ID_BITS - self.length)).to_bytes(ID_BYTES)

    @property
    def last(self) -> bytes:
        """The largest id of the subtree."""
        free = ID_BITS - self.length
        return ((self.value << free) | ((1 << free) - 1)).to_bytes(ID_BYTES)

    def holds(self, key: bytes) -> bool:
        """Whether `key` lies in the subtree."""
        return int.from_bytes(key) >> (ID_BITS - self.length) == self.value

    def covers(self, other: "Prefix") -> bool:
        """Whether `other` is this subtree or lies inside it."""
        deeper = other.length - self.length
        return deeper >= 0 and other.value >> deeper == self.value

    def child(self, bit: int) -> "Prefix":
        """The half of the subtree whose next bit is `bit`."""
        return Prefix(self.value << 1 | bit, self.length + 1)

    def parent(self) -> "Prefix":
        """The subtree one bit shorter; the whole space has none."""
        assert self.length > 0
        return Prefix(self.value >> 1, self.length - 1)

    def sibling(self) -> "Prefix":
        """The other half of the parent; the whole space has none."""
        assert self.length > 0
        return Prefix(self.value ^ 1, self.length)

    def to_wire(self) -> list[int | bytes]:
        """`[length, the fewest bytes that hold it]`."""
        size = (self.length + 7) // 8
        return [self.length, (self.value << (size * 8 - self.length)).to_bytes(size)]

    @classmethod
    def from_wire(cls, wire: object) -> "Prefix":
        """Parse `to_wire`; raises ValueError for anything else."""
        match wire:
            case [int() as length, bytes() as data] if (
                0 <= length <= ID_BITS and len(data) == (length + 7) // 8
            ):
                return cls(int.from_bytes(data) >> (len(data) * 8 - length), length)
        raise ValueError("a prefix is [length 0..160, its bytes]")

    def __repr__(self) -> str:
        return f"Prefix({str(self)!r})"

    def __str__(self) -> str:
        return f"{self.value:0{self.length}b}" if self.length else ""
