"""XOR geometry of 20-byte ids (Maymounkov and Mazieres 2002, section 2.1)."""

from heapq import nsmallest

_ID_BYTES = 20


def k_closest(table: bytes | bytearray | memoryview, target: bytes, k: int) -> list[int]:
    """Indexes of the exact `k` ids of `table` closest to `target` by XOR, closest first.

    `table` is n ids of 20 bytes, one after the other. Equal ids keep the order of the table.
    O(n log k). Raises ValueError for a table or a target of another size.
    """
    if len(target) != _ID_BYTES:
        raise ValueError(f"a target has {_ID_BYTES} bytes, got {len(target)}")
    if len(table) % _ID_BYTES:
        raise ValueError(f"a table is a multiple of {_ID_BYTES} bytes, got {len(table)}")
    wanted = int.from_bytes(target)
    view = memoryview(table)
    distances = [
        int.from_bytes(view[start : start + _ID_BYTES]) ^ wanted
        for start in range(0, len(view), _ID_BYTES)
    ]
    return nsmallest(k, range(len(distances)), key=distances.__getitem__)


def common_prefix_bits(a: bytes, b: bytes) -> int:
    """How many leading bits `a` and `b` share; they must have the same size (ValueError)."""
    if len(a) != len(b):
        raise ValueError(f"ids of one size are compared, got {len(a)} and {len(b)} bytes")
    return len(a) * 8 - (int.from_bytes(a) ^ int.from_bytes(b)).bit_length()
