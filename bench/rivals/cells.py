"""Autonomous resource selection (Costa et al., ICDCS 2009): nodes that stand for themselves.

The space is halved, attribute after attribute, into nested cells, as deep as needed to tell the
nodes apart. For every cell around it a node knows 3 random nodes of the other half with their
records, kept by gossip; nobody holds another's record. A query goes into each other half that
meets the box, by one RPC to one of the three, one that matches where there is one, and that node
covers its half in turn: depth-first and one after the other with a limit, matching nodes and
large cells first; all branches at once for all.
"""

from random import Random

import numpy as np

from bench.rivals.model import Cost, Flags, Floats, Ints, columns, generator, matching, others
from bench.rivals.zorder import Trie

_CONTACTS = 3


class Cells:
    """The cells as a trie over the nodes."""

    name = "Costa, gossip cells"

    def __init__(self, points: Floats, rng: Random) -> None:
        self._records = columns(points)
        self.trie = Trie(self._records, rng)
        self._chance = rng
        self._generator = generator(rng)
        count = self._records.shape[1]
        self._rank = np.empty(count, dtype=np.int64)
        self._rank[self.trie.order] = np.arange(count)
        self._left, self._right = self.trie.left.tolist(), self.trie.right.tolist()
        self._first, self._last = self.trie.first.tolist(), self.trie.last.tolist()
        self.storage: Ints = np.ones(count, dtype=np.int64)

    def query(self, low: Floats, high: Floats, limit: int, start: int) -> Cost:
        """Explores the cells from the asking node's own outwards."""
        touched = self.trie.touched(low, high)
        match = matching(self._records, low, high)[self.trie.order]
        own = int(self._rank[start])
        if limit:
            ranks = np.array(self._depth_first(touched, match, own, limit))
            rounds = len(ranks) - 1
        else:
            ranks, rounds = self._at_once(touched, match, own)
        hits = int(match[ranks].sum())
        return Cost(len(ranks) - 1, rounds, hits, others(self.trie.order[ranks], start))

    def _depth_first(self, touched: Flags, match: Flags, own: int, limit: int) -> list[int]:
        """The ranks of the nodes asked, in order, the asking one first."""
        meets, matches = touched.tobytes(), match.tobytes()
        inner = len(self._left)
        asked: list[int] = []
        missing = limit
        waiting = [(self.trie.root, own)]
        while waiting and missing > 0:
            cell, rank = waiting.pop()
            asked.append(rank)
            missing -= matches[rank]
            known: list[tuple[int, int]] = []
            while cell < inner and meets[cell]:
                near, far = self._left[cell], self._right[cell]
                if rank >= self._first[far]:
                    near, far = far, near
                if meets[far]:
                    known.append((far, self._contact(far, matches)))
                cell = near
            known.reverse()  # the last is asked first
            waiting += sorted(known, key=lambda contact: matches[contact[1]])
        return asked

    def _contact(self, cell: int, matches: bytes) -> int:
        """The rank of a node known in the cell, one that matches if any of them does."""
        for _ in range(_CONTACTS):
            rank = self._chance.randrange(self._first[cell], self._last[cell])
            if matches[rank]:
                break
        return rank

    def _at_once(self, touched: Flags, match: Flags, own: int) -> tuple[Ints, int]:
        """The ranks of all nodes asked, and the longest chain of messages."""
        trie = self.trie
        asked = [np.array([own])]
        cell, rank, hop = np.array([trie.root]), np.array([own]), np.array([0])
        longest = 0
        while len(cell):
            parted = (cell < len(trie.left)) & touched[cell]
            cell, rank, hop = cell[parted], rank[parted], hop[parted]
            child = np.concatenate((trie.left[cell], trie.right[cell]))
            rank, hop = np.tile(rank, 2), np.tile(hop, 2)
            here = (trie.first[child] <= rank) & (rank < trie.last[child])
            size = (_CONTACTS, len(child))
            known = self._generator.integers(trie.first[child], trie.last[child], size)
            drawn = known[match[known].argmax(axis=0), np.arange(len(child))]
            rank, hop = np.where(here, rank, drawn), hop + ~here
            sent = touched[child] & ~here
            asked.append(rank[sent])
            longest = max(longest, int(hop[sent].max(initial=0)))
            kept = touched[child]
            cell, rank, hop = child[kept], rank[kept], hop[kept]
        return np.concatenate(asked), longest
