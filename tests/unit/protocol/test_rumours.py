"""Rumours are told a bounded number of times, oldest first, within a budget of bytes."""

from dhtos.core.limits import RUMOURS_PER_MESSAGE_MAX, RUMOURS_QUEUED_MAX
from dhtos.protocol.rumours import Rumours


def short(key: bytes, whole: bool) -> list[object]:
    return [0 if whole else 1, 0.0, key]


def test_each_is_told_as_often_as_asked() -> None:
    rumours = Rumours()
    rumours.add(b"a", 2)
    rumours.add(b"b", 1)
    assert [words[2] for words in rumours.take(short, 1000)] == [b"a", b"b"]
    assert [words[2] for words in rumours.take(short, 1000)] == [b"a"]
    assert list(rumours.take(short, 1000)) == []


def test_a_later_add_starts_anew() -> None:
    rumours = Rumours()
    rumours.add(b"a", 1)
    rumours.add(b"a", 3)
    told = 0
    while len(rumours):
        told += len(list(rumours.take(short, 1000)))
    assert told == 3


def test_a_later_change_need_not_be_told_in_full() -> None:
    rumours = Rumours()
    rumours.add(b"a", 3, whole=True)
    assert next(iter(rumours.take(short, 1000)))[0] == 0
    rumours.add(b"a", 1)
    assert next(iter(rumours.take(short, 1000)))[0] == 1


def test_what_others_tell_us_is_told_less() -> None:
    rumours = Rumours()
    rumours.add(b"a", 3)
    rumours.tire(b"a")
    rumours.tire(b"a")
    assert len(list(rumours.take(short, 1000))) == 1
    assert len(rumours) == 0
    rumours.add(b"a", 1)
    rumours.tire(b"a")
    rumours.tire(b"unknown")
    assert len(rumours) == 0


def test_a_message_is_bounded_by_count_and_bytes() -> None:
    rumours = Rumours()
    for n in range(100):
        rumours.add(bytes([n]), 1)
    assert len(list(rumours.take(short, 100_000))) == RUMOURS_PER_MESSAGE_MAX
    assert len(list(rumours.take(lambda key, whole: [0, 0.0, key], 1000))) == 2
    assert len(rumours) == 100 - RUMOURS_PER_MESSAGE_MAX - 2


def test_what_nobody_knows_any_more_is_dropped() -> None:
    rumours = Rumours()
    rumours.add(b"gone", 5)
    assert list(rumours.take(lambda key, whole: None, 1000)) == []
    assert len(rumours) == 0


def test_the_queue_is_bounded_and_loses_the_oldest() -> None:
    rumours = Rumours()
    for n in range(RUMOURS_QUEUED_MAX + 1):
        rumours.add(n.to_bytes(4), 1)
    assert len(rumours) == RUMOURS_QUEUED_MAX
    first = next(iter(rumours.take(short, 1000)))
    assert first[2] == (1).to_bytes(4)
