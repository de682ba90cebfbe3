"""Which of the values that were found counts.

Of sequenced values the highest number, of unsequenced ones the one that most hold. In a cluster
the owner that most holders tell of goes before: whoever may publish can sign a value under a shared
key, with any number, but only the owner can sign a newer one of its own.
"""

from collections import Counter
from collections.abc import Iterable

from dhtos.protocol.store import Held, Value


class Voice:
    """One value that was found, and how many hold it."""

    __slots__ = ("count", "held")

    def __init__(self, held: Held) -> None:
        self.held = held
        self.count = 0

    def hear(self, held: Held) -> None:
        """One more holder; a later number speaks for all."""
        self.count += 1
        if held.seq > self.held.seq:
            self.held = held

    def weight(self) -> tuple[int, int, bytes]:
        """The highest number leads; only values without one are put to the vote."""
        held = self.held
        return (held.seq, 0 if held.seq else self.count, held.rank)


class Ballot:
    """The values that were heard of, and the one that leads."""

    __slots__ = ("_owners", "_voices", "leader")

    def __init__(self, helds: Iterable[Held] = ()) -> None:
        self._voices: dict[tuple[type, Value, bytes, bool], Voice] = {}
        self._owners: Counter[bytes] = Counter()
        self.leader: Voice | None = None
        for held in helds:
            self.vote(held)

    @property
    def best(self) -> Held | None:
        """The value that leads, if any was found."""
        return None if self.leader is None else self.leader.held

    def vote(self, held: Held) -> None:
        """One more holder has shown this."""
        said = held.said
        owner, gone = (b"", False) if said is None else (said.owner.subject, said.gone)
        words = (type(held.value), held.value, owner, gone)
        voice = self._voices.get(words)
        if voice is None:
            voice = self._voices[words] = Voice(held)
        voice.hear(held)
        self._owners[owner] += 1
        if len(self._voices) == 1:
            self.leader = voice
        else:
            self.leader = max(self._voices.values(), key=self._weight)

    def _weight(self, voice: Voice) -> tuple[int, int, int, bytes]:
        return (self._owners[voice.held.owner], *voice.weight())
