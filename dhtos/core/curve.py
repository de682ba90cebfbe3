"""From a machine to its place: the key of a record in a hub.

    key(160) = version(2) | Z(96) | H(62)

Z interleaves the cells of the keyed attributes in Morton order (round robin, most queried
first), left aligned and padded with zeros. H is a hash of the node's public key: it tells apart
machines that are alike, and splits their group evenly. The version keeps two schemas of one
fleet in two subtrees. On a XOR trie Z-order needs fewer aligned prefixes than Hilbert order for
queries on few of the attributes, which is why it is the curve.
"""

from collections.abc import Sequence
from hashlib import blake2b

from dhtos.core.ids import ID_BITS, ID_BYTES, Prefix
from dhtos.core.schema import KEY_ATTRIBUTE_BITS_MAX, Schema, Value
from dhtos.kernels import morton_encode, prefix_box

VERSION_BITS = 2
HASH_BITS = ID_BITS - VERSION_BITS - KEY_ATTRIBUTE_BITS_MAX


def version_of(key: bytes) -> int:
    """The schema version that a key was made under."""
    return key[0] >> (8 - VERSION_BITS)


def version_prefix(version: int) -> Prefix:
    """The subtree of all machines of one schema version."""
    return Prefix(version, VERSION_BITS)


def static_cells(schema: Schema, static: Sequence[Value | None]) -> list[int]:
    """The key cell of each keyed attribute; 0 for a missing one."""
    cells = []
    for attribute, slot in zip(schema.keyed, schema.key_slots, strict=True):
        value = static[slot]
        cells.append(0 if value is None else attribute.cell(attribute.position(value)))
    return cells


def record_key(schema: Schema, static: Sequence[Value | None], identity: bytes) -> bytes:
    """The key of a record with these static values, published by `identity`."""
    encoded = morton_encode(static_cells(schema, static), schema.key_bits, schema.key_schedule)
    z = int.from_bytes(encoded) << (KEY_ATTRIBUTE_BITS_MAX - 8 * len(encoded))
    h = int.from_bytes(blake2b(identity, digest_size=8).digest()) >> (64 - HASH_BITS)
    whole = schema.version << (ID_BITS - VERSION_BITS) | z << HASH_BITS | h
    return whole.to_bytes(ID_BYTES)


def cells_of(schema: Schema, prefix: Prefix) -> list[tuple[int, int]]:
    """The inclusive interval of cells, per keyed attribute, of the keys below `prefix`."""
    return prefix_box(
        prefix.first, prefix.length, schema.key_bits, schema.key_schedule, VERSION_BITS
    )
