"""What a node keeps alive: put again in time, written down, bounded, and never fatal."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dhtos.core.limits import KEPT_BYTES_MAX, KEPT_MAX, VALUE_TTL_S
from dhtos.errors import NoPeers, UsageError
from dhtos.node.keeper import Keeper
from dhtos.node.kept import AGAIN_S, FOR_EVER, Item, Kept
from dhtos.protocol.put import PutResult

NOW = 1_800_000_000.0


def item(key: str, value: bytes = b"v", until: int = FOR_EVER, kind: Any = "secret") -> Item:
    return Item(kind, key, value, until)


class World:
    """A list, what it has put and saved, and a network that can be away."""

    def __init__(self, items: list[Item] | None = None, save: Any = None) -> None:
        self.now = NOW
        self.put: list[str] = []
        self.saved: list[list[Item]] = []
        self.warnings: list[str] = []
        self.away: set[str] = set()
        self.stored = asyncio.Event()
        self.kept = Kept(
            self.store,
            items or [],
            save or self.saved.append,
            wall_s=lambda: self.now,
            warn=self.warnings.append,
        )

    async def store(self, one: Item) -> PutResult:
        if one.key in self.away:
            raise NoPeers("no other node is known: bootstrap first")
        self.put.append(one.key)
        self.stored.set()
        return PutResult(1, 20, 1)

    async def round(self) -> list[str]:
        """What one round puts."""
        self.put.clear()
        await self.kept.round()
        return list(self.put)


async def test_all_is_put_at_the_start_and_again_well_before_its_end() -> None:
    world = World([item("a"), item("b")])
    assert await world.round() == ["a", "b"]
    assert await world.round() == []
    world.now += AGAIN_S - 1
    assert await world.round() == []
    world.now += 1
    assert await world.round() == ["a", "b"]
    assert AGAIN_S * 6 <= VALUE_TTL_S  # six may fail


async def test_what_is_taken_off_or_has_ended_is_put_no_more() -> None:
    world = World([item("a"), item("b", until=int(NOW + 10)), item("c")])
    assert world.kept.drop("a")
    assert not world.kept.drop("a")
    world.now += 10
    assert await world.round() == ["c"]
    assert world.saved == [[item("c")]]
    assert world.kept.get("b") is None


async def test_what_a_rule_gives_up_is_dropped_at_once_or_when_it_is_due() -> None:
    world = World([item("a"), item("u", kind="user"), item("w", kind="user")])
    wanted = {"u", "w"}
    world.kept.rules["user"] = lambda one: one.key in wanted
    assert await world.round() == ["a", "u", "w"]
    wanted.remove("u")
    world.kept.sift()
    assert [one.key for one in world.kept.items("user")] == ["w"]
    wanted.clear()
    world.now += AGAIN_S
    assert await world.round() == ["a"]
    assert world.saved[-1] == [item("a")]


async def test_a_failure_is_told_once_and_tried_again() -> None:
    world = World([item("a"), item("b")])
    world.away = {"a"}
    for _ in range(3):
        await world.round()
    assert world.warnings == ["a is not kept alive: no other node is known: bootstrap first"]
    world.away.clear()
    assert await world.round() == ["a"]
    world.away = {"a"}
    world.now += AGAIN_S
    assert await world.round() == ["b"]
    assert len(world.warnings) == 2  # it went well in between


async def test_a_full_disk_is_told_and_not_fatal() -> None:
    def save(_: list[Item]) -> None:
        raise OSError(28, "No space left on device")

    world = World(save=save)
    world.kept.add(item("a"))
    assert await world.round() == ["a"]
    await world.round()
    assert world.warnings == [
        "what this node keeps alive cannot be written down: No space left on device"
    ]


async def test_a_newer_item_takes_the_place_of_the_one_under_its_key() -> None:
    world = World([item("a", b"old")])
    await world.round()
    world.kept.add(item("a", b"new"))
    assert len(world.kept) == 1
    assert await world.round() == ["a"]
    assert world.saved == [[item("a", b"new")]]


async def test_a_put_is_written_down_before_it_returns_and_not_kept_if_it_fails() -> None:
    world = World()
    result = await world.kept.put(item("a"))
    assert result.stored_on == 1
    assert world.saved == [[item("a")]]
    assert await world.round() == []
    world.away = {"b"}
    with pytest.raises(NoPeers):
        await world.kept.put(item("b"))
    assert world.kept.get("b") is None


async def test_there_is_room_for_so_many_and_no_more() -> None:
    world = World([item(str(n)) for n in range(KEPT_MAX)])
    with pytest.raises(UsageError, match=f"at most {KEPT_MAX} values"):
        world.kept.add(item("new"))
    world.kept.add(item("7", b"other"))
    world.kept.drop("9")
    world.kept.add(item("new"))
    assert len(world.kept) == KEPT_MAX
    large = World([item("a", bytes(KEPT_BYTES_MAX - 1))])
    large.kept.add(item("b", b"1"))
    with pytest.raises(UsageError, match="remove some"):
        large.kept.add(item("c", b"1"))
    assert len(World([item(str(n)) for n in range(KEPT_MAX + 5)]).kept) == KEPT_MAX


async def test_a_change_wakes_the_task() -> None:
    world = World()
    running = asyncio.create_task(world.kept.run())
    try:
        for key in "ab":
            world.stored.clear()
            world.kept.add(item(key))
            async with asyncio.timeout(10):
                await world.stored.wait()
        assert world.put == ["a", "b"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_directory_remembers_privately(tmp_path: Path) -> None:
    keeper = await Keeper.open(tmp_path, lambda: NOW)
    assert await keeper.kept() == []
    told = [item("a", bytes(range(256))), item("u", until=7, kind="user")]
    keeper.save_kept(told)
    assert await keeper.kept() == told
    assert (tmp_path / "kept.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "kept.json").write_bytes(b'{"kept": 3}')
    assert await keeper.kept() == []
    assert "kept.json was unreadable" in keeper.warnings[0]
    keeper.close()
    alone = await Keeper.open(None, lambda: NOW)
    alone.save_kept(told)
    assert await alone.kept() == []
