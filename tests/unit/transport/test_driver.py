"""The driver against an engine and a socket that only note what is done to them."""

import asyncio
import gc
import math
from collections import deque

import pytest

from dhtos.core.limits import DRAIN_DATAGRAMS_MAX, DRAINS_BEFORE_TICK_MAX
from dhtos.errors import Closed, KeyNotFound
from dhtos.protocol.operation import MemberGone, Operation
from dhtos.transport.driver import Driver

PEER = ("192.0.2.1", 7400)


class FakeSocket:
    """Datagrams wait in `waiting`; what is sent lands in `sent`."""

    def __init__(self, log):
        self.log = log
        self.waiting = deque()
        self.sent = []
        self.limits = []
        self.on_readable = None

    def attach(self, loop, on_readable):
        self.on_readable = on_readable

    def receive_into(self, sink, now, limit=DRAIN_DATAGRAMS_MAX):
        count = min(limit, len(self.waiting))
        self.limits.append(limit)
        self.log.append(f"drain {count}")
        for _ in range(count):
            sink(self.waiting.popleft(), PEER, now)
        return count

    def send_all(self, outbox):
        self.sent += outbox

    def close(self):
        self.log.append("close")


class FakeEngine:
    """An engine whose deadline, outbox and operations the test sets."""

    def __init__(self, log):
        self.log = log
        self.deadline = math.inf
        self.out = []
        self.happened = []
        self.received = []
        self.cancelled = []
        self.tick_error = None

    def receive(self, datagram, source, now):
        self.received.append(datagram)

    def tick(self, now):
        self.log.append("tick")
        self.deadline = math.inf
        if self.tick_error is not None:
            raise self.tick_error

    def next_deadline(self):
        return self.deadline

    def outbox(self):
        taken, self.out = self.out, []
        return taken

    def events(self):
        taken = self.happened[:]
        self.happened.clear()
        return taken

    def operation(self):
        return Operation(self.happened, self.cancelled.append)


class World:
    """A driver, its fakes and a clock that the test moves."""

    def __init__(self):
        self.log = []
        self.now = 100.0
        self.gone = []
        self.engine = FakeEngine(self.log)
        self.socket = FakeSocket(self.log)
        self.driver = Driver(
            self.engine,
            self.socket,
            asyncio.get_running_loop(),
            lambda: self.now,
            on_event=self.gone.append,
        )

    def readable(self):
        self.socket.on_readable()


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.driver.aclose()


async def turn():
    """Let every task that is ready run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_datagram_reaches_the_engine_and_its_answer_the_socket(world):
    world.socket.waiting.append(b"hello")
    world.engine.out.append((b"answer", PEER))
    world.readable()
    assert world.engine.received == [b"hello"]
    assert world.socket.sent == [(b"answer", PEER)]
    assert "tick" not in world.log


async def test_what_waits_is_read_before_a_late_tick(world):
    """After a stall of the loop the replies of live peers are already in the kernel."""
    world.socket.waiting.extend([b"reply"] * (DRAIN_DATAGRAMS_MAX + 10))
    world.engine.deadline = world.now - 5
    world.readable()
    assert world.log == [f"drain {DRAIN_DATAGRAMS_MAX}", "drain 10", "tick"]
    assert not world.socket.waiting


async def test_a_timer_reads_the_socket_before_it_ticks(world):
    world.socket.waiting.append(b"reply")
    world.engine.deadline = world.now
    world.driver._on_timer()
    assert world.log == ["drain 1", "tick"]


async def test_a_flood_does_not_put_off_the_tick(world):
    world.socket.waiting.extend([b"noise"] * (DRAIN_DATAGRAMS_MAX * (DRAINS_BEFORE_TICK_MAX + 9)))
    world.engine.deadline = world.now
    world.readable()
    assert world.log.count(f"drain {DRAIN_DATAGRAMS_MAX}") == 1 + DRAINS_BEFORE_TICK_MAX
    assert world.log[-1] == "tick"
    assert world.socket.waiting


async def test_sparse_traffic_is_read_one_by_one_and_a_burst_in_batches(world):
    for _ in range(40):
        world.socket.waiting.append(b"one")
        world.socket.on_readable()
    limits = world.socket.limits[-8:]
    assert sorted(limits) == [1] * 6 + [DRAIN_DATAGRAMS_MAX] * 2  # two of eight look for more
    world.socket.waiting.extend([b"burst"] * 50)
    wakes = 0
    while world.socket.waiting:
        world.socket.on_readable()
        wakes += 1
    assert wakes <= 4
    world.socket.waiting.extend([b"burst"] * 50)
    world.socket.on_readable()
    assert not world.socket.waiting


async def test_a_due_tick_reads_the_rest_first_in_sparse_traffic(world):
    for _ in range(41):
        world.socket.waiting.append(b"one")
        world.socket.on_readable()
    world.socket.waiting.extend([b"reply"] * 3)
    world.engine.deadline = 0.0
    world.log.clear()
    world.socket.on_readable()
    assert world.log[0] == "drain 1"
    assert world.log[1:] == ["drain 2", "tick"]


async def test_nothing_due_means_no_tick(world):
    world.engine.deadline = world.now + 1
    world.readable()
    assert "tick" not in world.log


async def test_the_timer_moves_only_when_the_deadline_comes_nearer(world):
    world.engine.deadline = world.now + 50
    world.driver.flush()
    first = world.driver._timer
    world.engine.deadline = world.now + 80
    world.driver.flush()
    assert world.driver._timer is first
    world.engine.deadline = world.now + 20
    world.driver.flush()
    assert world.driver._timer is not first
    assert first.cancelled()


async def test_a_tick_that_raises_still_flushes_and_sets_the_next_timer(world):
    world.engine.tick_error = RuntimeError("a fault of ours")
    world.engine.deadline = world.now
    world.engine.out.append((b"bye", PEER))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        world.readable()
    assert world.socket.sent == [(b"bye", PEER)]
    world.engine.deadline = world.now + 1
    world.readable()
    assert world.driver._timer is not None


async def test_wait_returns_the_result_and_sends_what_the_verb_left(world):
    operation = world.engine.operation()
    world.engine.out.append((b"question", PEER))
    waiting = asyncio.ensure_future(world.driver.wait(operation))
    await turn()
    assert world.socket.sent == [(b"question", PEER)]
    operation.finish(42)
    world.readable()
    assert await waiting == 42


async def test_wait_raises_the_error_of_the_operation(world):
    operation = world.engine.operation()
    operation.fail(KeyNotFound("nobody holds it"))
    with pytest.raises(KeyNotFound, match="nobody holds it"):
        await world.driver.wait(operation)


async def test_cancelling_the_waiter_cancels_the_operation(world):
    operation = world.engine.operation()
    waiting = asyncio.ensure_future(world.driver.wait(operation))
    await turn()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert operation.done
    assert world.engine.cancelled == [world.now]
    assert not world.driver._waiters


async def test_two_may_wait_for_one_operation(world):
    operation = world.engine.operation()
    both = [asyncio.ensure_future(world.driver.wait(operation)) for _ in range(2)]
    await turn()
    operation.finish("same")
    world.readable()
    assert await asyncio.gather(*both) == ["same", "same"]


async def test_a_stream_gives_items_in_order_and_ends(world):
    operation = world.engine.operation()
    stream = world.driver.stream(operation)
    operation.push([1, 2])
    world.readable()
    assert [await anext(stream), await anext(stream)] == [1, 2]
    more = asyncio.ensure_future(anext(stream))
    await turn()
    operation.push([3])
    world.readable()
    assert await more == 3
    operation.finish(None)
    world.readable()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_stream_raises_the_error_after_its_last_item(world):
    operation = world.engine.operation()
    operation.push([1])
    operation.fail(KeyNotFound("cut short"))
    stream = world.driver.stream(operation)
    assert await anext(stream) == 1
    with pytest.raises(KeyNotFound, match="cut short"):
        await anext(stream)


async def test_leaving_a_stream_frees_the_operation(world):
    operation = world.engine.operation()
    async with world.driver.stream(operation) as stream:
        operation.push([1, 2])
        assert await anext(stream) == 1
    assert operation.done
    assert len(world.engine.cancelled) == 1
    await stream.aclose()
    assert len(world.engine.cancelled) == 1


async def test_breaking_out_of_a_stream_frees_the_operation(world):
    operation = world.engine.operation()
    operation.push([1, 2])
    async for _ in world.driver.stream(operation):
        break
    gc.collect()
    await turn()
    assert operation.done


async def test_cancelling_a_stream_frees_the_operation(world):
    operation = world.engine.operation()
    stream = world.driver.stream(operation)
    waiting = asyncio.ensure_future(anext(stream))
    await turn()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert operation.done
    assert not world.driver._waiters


async def test_until_looks_after_every_step(world):
    ready = []
    waiting = asyncio.ensure_future(world.driver.until(lambda: bool(ready)))
    await turn()
    world.readable()
    await turn()
    assert not waiting.done()
    ready.append(True)
    world.readable()
    await waiting
    assert not world.driver._conditions


async def test_until_leaves_nothing_when_cancelled(world):
    waiting = asyncio.ensure_future(world.driver.until(lambda: False))
    await turn()
    waiting.cancel()
    await turn()
    assert not world.driver._conditions


async def test_other_events_go_to_the_listener(world):
    world.engine.happened.append(MemberGone(b"k" * 20))
    world.readable()
    assert world.gone == [MemberGone(b"k" * 20)]


async def test_closing_ends_every_waiter_and_closes_the_socket_last(world):
    operation = world.engine.operation()
    waiting = asyncio.ensure_future(world.driver.wait(operation))
    hoping = asyncio.ensure_future(world.driver.until(lambda: False))
    await turn()
    world.engine.out.append((b"goodbye", PEER))
    await world.driver.aclose()
    await world.driver.aclose()
    for task in (waiting, hoping):
        with pytest.raises(Closed):
            await task
    assert world.socket.sent == [(b"goodbye", PEER)]
    assert world.log == ["close"]


async def test_a_closed_driver_takes_no_more_work(world):
    operation = world.engine.operation()
    await world.driver.aclose()
    with pytest.raises(Closed):
        await world.driver.wait(operation)
    with pytest.raises(Closed):
        await world.driver.until(lambda: True)
    world.driver.cancel(operation)
    assert operation.done
