"""Virtual time: order, lazy wake-ups, actions."""

from math import inf
from random import Random

import pytest

from dhtos.sim.clock import Clock
from dhtos.sim.node import SimNode
from dhtos.sim.testing import EchoEngine


def _node(index=0):
    node = SimNode(index, bytes(20), ("10.0.0.1", 7400 + index), rng=Random(index))
    node.boot(EchoEngine())
    return node


def test_nothing_planned_is_never():
    clock = Clock()
    assert clock.next_time() == inf
    clock.check()


def test_events_come_by_time_then_by_order_of_planning():
    clock = Clock()
    happened = []
    for when, name in ((2.0, "c"), (1.0, "a"), (2.0, "d"), (1.0, "b")):
        clock.call_at(when, lambda name=name: happened.append((clock.now, name)))
    while clock.heap:
        clock.act(clock.pop()[1])
    assert happened == [(1.0, "a"), (1.0, "b"), (2.0, "c"), (2.0, "d")]
    clock.check()


def test_time_moves_with_events_and_never_back():
    clock = Clock(start_s=5.0)
    clock.call_at(1.0, lambda: None)  # the past means now
    assert clock.pop()[0] == 5.0
    assert clock.now == 5.0
    clock.advance(9.0)
    clock.advance(7.0)
    assert clock.now == 9.0


def test_time_cannot_pass_over_a_planned_event():
    clock = Clock()
    clock.call_at(1.0, lambda: None)
    with pytest.raises(AssertionError):
        clock.advance(2.0)


def test_a_cancelled_action_does_not_happen_and_cancel_is_idempotent():
    clock = Clock()
    happened = []
    ticket = clock.call_at(1.0, lambda: happened.append("cancelled"))
    kept = clock.call_at(1.0, lambda: happened.append("kept"))
    clock.cancel(ticket)
    clock.cancel(ticket)
    while clock.heap:
        clock.act(clock.pop()[1])
    clock.cancel(kept)
    assert happened == ["kept"]
    clock.check()


def test_an_action_happens_once():
    clock = Clock()
    happened = []
    ticket = clock.call_at(0.0, lambda: happened.append(1))
    clock.act(ticket)
    clock.act(ticket)
    assert happened == [1]


def test_a_wake_up_is_marked_on_its_node():
    clock = Clock()
    node = _node()
    clock.wake(node, 3.0)
    clock.wake(node, 2.0)
    assert node.wake_at == 2.0
    when, _, target, datagram, source = clock.pop()
    assert when == node.wake_at
    assert target is source is node
    assert datagram is None
    assert clock.pop()[0] != node.wake_at  # the replaced one is stale


def test_a_wake_up_in_the_past_is_a_fault_of_the_simulator():
    clock = Clock(start_s=1.0)
    with pytest.raises(AssertionError):
        clock.wake(_node(), 0.5)


def test_tickets_grow():
    clock = Clock()
    assert [clock.ticket() for _ in range(3)] == [1, 2, 3]
