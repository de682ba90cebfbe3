"""What this node keeps alive in the base overlay, where a value ends a week after its last put.

Nobody lengthens the life of a value but who publishes it. So a publisher has a list of what it
wants there, in its state directory if it has one, and puts each item again when it starts and every
AGAIN_S, six times before its end, until the item is taken off the list or ends by itself.

Only nodes of a cluster keep values: there each has an owner, and nobody else replaces it. What goes
wrong is told once and tried again a round later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Literal

import msgspec

from dhtos.core.limits import KEPT_BYTES_MAX, KEPT_MAX
from dhtos.errors import Closed, DhtosError, UsageError

if TYPE_CHECKING:
    from dhtos.protocol.put import PutResult

ROUND_S = 60.0
AGAIN_S = 86_400.0  # a seventh of the life of a value
FOR_EVER = 2**53  # seconds since 1970

Kind = Literal["user", "secret"]


class Item(msgspec.Struct, frozen=True):
    """A value to be kept under a key of the base overlay, until some second since 1970."""

    kind: Kind
    key: str
    value: bytes
    until: int = FOR_EVER


Rule = Callable[[Item], bool]
"""Whether an item is still wanted."""


Put = Callable[[Item], Awaitable["PutResult"]]


class Kept:
    """The items of a node. `save` writes them down, on a thread or not at all."""

    def __init__(
        self,
        put: Put,
        items: Iterable[Item],
        save: Callable[[list[Item]], object],
        *,
        wall_s: Callable[[], float],
        warn: Callable[[str], None],
    ) -> None:
        self.rules: dict[Kind, Rule] = {}
        self._store = put
        self._items = {item.key: item for item in list(items)[:KEPT_MAX]}
        self._save = save
        self._wall_s = wall_s
        self._warn = warn
        self._put_at: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._saving = asyncio.Lock()
        self._version = self._saved = 0
        self._told = ""

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> Item | None:
        """The item that is kept under a key."""
        return self._items.get(key)

    def items(self, kind: Kind) -> list[Item]:
        """All of one kind."""
        return [item for item in self._items.values() if item.kind == kind]

    def add(self, item: Item) -> None:
        """Keep an item in place of the one under its key; raises UsageError where no room is."""
        others = [one for key, one in self._items.items() if key != item.key]
        size = len(item.value) + sum(len(one.value) for one in others)
        if len(others) >= KEPT_MAX or size > KEPT_BYTES_MAX:
            raise UsageError(
                f"this node keeps at most {KEPT_MAX} values and {KEPT_BYTES_MAX} bytes: "
                "remove some, or keep it on another"
            )
        self._items[item.key] = item
        self._put_at.pop(item.key, None)
        self._touch()

    def drop(self, key: str) -> bool:
        """Keep it no longer: what others hold ends within a week. False if it was not kept."""
        self._put_at.pop(key, None)
        if self._items.pop(key, None) is None:
            return False
        self._touch()
        return True

    def sift(self) -> None:
        """Drop what is not wanted any more."""
        for item in list(self._items.values()):
            if not self._is_wanted(item):
                self.drop(item.key)

    async def put(self, item: Item) -> "PutResult":
        """Put an item now, and keep it if that was possible; written down when this returns."""
        result = await self._store(item)
        self.add(item)
        self._put_at[item.key] = self._wall_s()
        await self.save()
        return result

    async def save(self) -> None:
        """Write the list down; many changes at a time are written once."""
        wanted = self._version
        async with self._saving:
            if self._saved >= wanted:
                return
            version, items = self._version, list(self._items.values())
            await asyncio.to_thread(self._save, items)
            self._saved = version

    async def run(self) -> None:
        """Keep all of it alive, for ever."""
        while True:
            self._changed.clear()
            await self.round()
            try:
                async with asyncio.timeout(ROUND_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def round(self) -> None:
        """Put again what is due, and write down what has changed."""
        failure = ""
        now = self._wall_s()
        for item in list(self._items.values()):
            if now - self._put_at.get(item.key, float("-inf")) < AGAIN_S:
                continue
            if self._items.get(item.key) is not item:
                continue  # changed while another was put
            try:
                await self._again(item)
            except Closed:
                raise
            except DhtosError as error:
                failure = f"{item.key} is not kept alive: {error}"
        try:
            await self.save()
        except OSError as error:
            failure = f"what this node keeps alive cannot be written down: {error.strerror}"
        if failure not in ("", self._told):
            self._warn(failure)
        self._told = failure

    async def _again(self, item: Item) -> None:
        """Put one item, unless it has ended or is not wanted any more."""
        if not self._is_wanted(item):
            self.drop(item.key)
            return
        await self._store(item)
        if self._items.get(item.key) is item:
            self._put_at[item.key] = self._wall_s()

    def _is_wanted(self, item: Item) -> bool:
        rule = self.rules.get(item.kind)
        return item.until > self._wall_s() and (rule is None or rule(item))

    def _touch(self) -> None:
        self._version += 1
        self._changed.set()
