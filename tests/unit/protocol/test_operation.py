"""Operations end once, stream items, and say so by events."""

import pytest

from dhtos.errors import Closed, NoPeers
from dhtos.protocol.operation import Event, Finished, Operation, Progressed


def make() -> tuple[Operation[int], list[Event], list[float]]:
    events: list[Event] = []
    cancelled: list[float] = []
    return Operation(events, cancelled.append), events, cancelled


def test_a_result_is_told_once() -> None:
    operation, events, _ = make()
    operation.finish(5)
    operation.finish(6)
    operation.fail(NoPeers("late"))
    assert operation.result() == 5
    assert events == [Finished(operation)]


def test_an_error_is_raised_to_whoever_takes_the_result() -> None:
    operation, _, _ = make()
    operation.fail(NoPeers("nobody"))
    with pytest.raises(NoPeers, match="nobody"):
        operation.result()


def test_items_are_streamed_and_an_empty_part_says_nothing() -> None:
    operation, events, _ = make()
    operation.push([])
    operation.push([1, 2])
    assert list(operation.items) == [1, 2]
    assert events == [Progressed(operation)]


def test_cancel_drops_the_work_once_and_an_end_cannot_be_cancelled() -> None:
    operation, _, cancelled = make()
    operation.cancel(3.0)
    operation.cancel(4.0)
    assert cancelled == [3.0]
    with pytest.raises(Closed):
        operation.result()
    ended, _, cancelled = make()
    ended.finish(1)
    ended.cancel(5.0)
    assert cancelled == []
    assert ended.result() == 1
