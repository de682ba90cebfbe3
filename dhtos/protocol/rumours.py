"""News waiting to be passed on: each item a bounded number of times, oldest first.

Only the key is queued; the words are made when they are sent, so a rumour always carries the
newest version and its true age.
"""

from collections.abc import Callable, Iterator
from typing import Any

from dhtos.core.limits import RUMOURS_PER_MESSAGE_MAX, RUMOURS_QUEUED_MAX


class Rumours:
    """Keys whose news spread, with how often each is still to be told."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: dict[bytes, int] = {}

    def add(self, key: bytes, times: int) -> None:
        """Tell of `key` so many times; a later add starts the count anew."""
        self._left.pop(key, None)
        if len(self._left) >= RUMOURS_QUEUED_MAX:
            del self._left[next(iter(self._left))]
        self._left[key] = times

    def take(self, tell: Callable[[bytes], list[Any] | None], room: int) -> Iterator[list[Any]]:
        """Up to a message's worth of words; a key `tell` knows nothing of is dropped.

        `room` is a budget in bytes, by a rough size of the words.
        """
        left = self._left
        for key in list(left)[:RUMOURS_PER_MESSAGE_MAX]:
            words = tell(key)
            if words is None:
                del left[key]
                continue
            room -= _FULL_BYTES if words[0] == 0 else _SHORT_BYTES
            if room < 0:
                return
            times = left.pop(key) - 1
            if times > 0:
                left[key] = times
            yield words

    def __len__(self) -> int:
        return len(self._left)


_FULL_BYTES = 350
_SHORT_BYTES = 75
