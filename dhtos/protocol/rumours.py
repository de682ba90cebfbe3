"""News waiting to be passed on: each item a bounded number of times, oldest first.

Only the key is queued; the words are made when they are sent, so a rumour always carries the
newest version and its true age.
"""

from collections.abc import Callable, Container, Iterator
from typing import Any

from dhtos.core.limits import RUMOURS_PER_MESSAGE_MAX, RUMOURS_QUEUED_MAX

Tell = Callable[[bytes, bool], list[Any] | None]
"""`tell(key, whole)` makes the words for a key, or None if nothing is known of it any more."""

_WHOLE_BYTES = 350  # rough sizes of the words, for the budget of a message
_SHORT_BYTES = 75


class Rumours:
    """Keys whose news spread: how often each is still to be told, and whether in full."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: dict[bytes, tuple[int, bool]] = {}

    def add(self, key: bytes, times: int, *, whole: bool = False) -> None:
        """Tell of `key` so many times; a later add starts the count anew."""
        self._left.pop(key, None)
        if len(self._left) >= RUMOURS_QUEUED_MAX:
            del self._left[next(iter(self._left))]
        self._left[key] = (times, whole)

    def urge(self, key: bytes, times: int) -> None:
        """Tell of `key` at least so many times, if it is still told of at all."""
        entry = self._left.get(key)
        if entry is not None and entry[0] < times:
            self._left[key] = (times, entry[1])

    def tire(self, key: bytes) -> None:
        """Somebody told us what we tell: it is known widely, so tell it once less."""
        entry = self._left.get(key)
        if entry is not None:
            if entry[0] > 1:
                self._left[key] = (entry[0] - 1, entry[1])
            else:
                del self._left[key]

    def take(self, tell: Tell, room: int, known: Container[bytes] = ()) -> Iterator[list[Any]]:
        """Up to a message's worth of words, within a budget of about `room` bytes.

        What is `known` where the message goes waits for another.
        """
        left = self._left
        for key in [k for k in left if k not in known][:RUMOURS_PER_MESSAGE_MAX]:
            times, whole = left[key]
            words = tell(key, whole)
            if words is None:
                del left[key]
                continue
            room -= _WHOLE_BYTES if words[0] == 0 else _SHORT_BYTES
            if room < 0:
                return
            del left[key]
            if times > 1:
                left[key] = (times - 1, whole)
            yield words

    def __contains__(self, key: object) -> bool:
        return key in self._left

    def __len__(self) -> int:
        return len(self._left)
