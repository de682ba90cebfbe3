"""The trie of records in Z-order, shared by the designs that halve the space bit by bit.

A key takes one bit of each attribute in turn, 16 rounds of them, and then bits of its own that
tell equal records apart. The trie is compressed: an inner node stands where keys part.
"""

from random import Random

import numpy as np
import numpy.typing as npt

from bench.rivals.model import Flags, Floats, Ints, cells, generator, overlapping

CELL_BITS = 16
_TAIL_BITS = 32
_TOP = (1 << CELL_BITS) - 1


class Trie:
    """Nodes 0 .. n-2 part the leaves `node` and `node + 1`; node n-1+r is the leaf of rank r."""

    def __init__(self, records: Floats, rng: Random) -> None:
        count = records.shape[1]
        self._width = len(records) * CELL_BITS
        found = cells(records, CELL_BITS)
        keys = self._keys(found, generator(rng))
        self.order: Ints = np.lexsort(keys.T[::-1])
        keys = keys[self.order]
        differ = np.unpackbits(keys[1:] ^ keys[:-1], axis=1)
        self.depth: Ints = differ.argmax(axis=1).astype(np.int64)
        """Bits that all keys under an inner node have in common."""
        self.first = np.concatenate((np.zeros(count - 1, dtype=np.int64), np.arange(count)))
        self.last = np.concatenate((np.full(count - 1, count), np.arange(count) + 1))
        self.left = np.arange(count - 1) + count - 1
        self.right = self.left + 1
        self.root = self._link()
        self.parent: Ints = np.full(2 * count - 1, -1, dtype=np.int64)
        self.parent[self.left] = self.parent[self.right] = np.arange(count - 1)
        self._low, self._high = self._boxes(found[:, self.order])

    @staticmethod
    def _keys(found: npt.NDArray[np.uint16], chance: np.random.Generator) -> npt.NDArray[np.uint8]:
        """The keys, a row of bytes each, all different."""
        count = found.shape[1]
        shifts = np.arange(CELL_BITS - 1, -1, -1, dtype=np.uint16)
        bits = (found.T[:, None, :] >> shifts[None, :, None] & 1).astype(np.uint8)
        tails = chance.permutation(count).astype(np.uint64) * np.uint64((1 << _TAIL_BITS) // count)
        tail = tails.astype(">u4").view(np.uint8).reshape(count, _TAIL_BITS // 8)
        return np.concatenate((np.packbits(bits.reshape(count, -1), axis=1), tail), axis=1)

    def _link(self) -> int:
        """Makes the tree of the depths, each node above all that are deeper; returns the root."""
        open_nodes: list[int] = []
        for node, depth in enumerate(self.depth.tolist()):
            below = -1
            while open_nodes and self.depth[open_nodes[-1]] > depth:
                below = open_nodes.pop()
                self.last[below] = node + 1
            if below >= 0:
                self.left[node] = below
            if open_nodes:
                self.right[open_nodes[-1]] = node
                self.first[node] = open_nodes[-1] + 1
            open_nodes.append(node)
        return open_nodes[0] if open_nodes else 0

    def _boxes(
        self, found: npt.NDArray[np.uint16]
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """The cells under the prefix of each node: one bit more than its parent parts at."""
        prefix = np.where(self.parent < 0, 0, np.append(self.depth, 0)[self.parent] + 1)
        axes = np.arange(len(found))[:, None]
        taken = np.clip(-(-(prefix - axes) // len(found)), 0, CELL_BITS)
        rest = ((1 << (CELL_BITS - taken)) - 1).astype(np.uint16)
        own = found[:, self.first]
        return own & ~rest, own | rest

    def touched(self, low: Floats, high: Floats) -> Flags:
        """Which nodes have a prefix whose box meets the query's."""
        bottom, top = cells(low, CELL_BITS), cells(high, CELL_BITS)
        return overlapping(self._low, self._high, bottom, top, _TOP)
