"""Timers fire in order, once, on the time they are given."""

import math
from random import Random

from dhtos.protocol.timers import Timers


def test_fires_in_order_and_hands_on_the_time() -> None:
    timers = Timers()
    fired: list[tuple[str, float]] = []
    timers.at(2.0, lambda now: fired.append(("b", now)))
    timers.at(1.0, lambda now: fired.append(("a", now)))
    timers.at(2.0, lambda now: fired.append(("c", now)))
    assert timers.next_deadline() == 1.0
    timers.run(0.5)
    assert fired == []
    timers.run(3.0)
    assert fired == [("a", 3.0), ("b", 3.0), ("c", 3.0)]
    assert timers.next_deadline() == math.inf
    assert len(timers) == 0


def test_a_cancelled_timer_never_fires_and_cancel_is_idempotent() -> None:
    timers = Timers()
    fired: list[float] = []
    timer = timers.at(1.0, fired.append)
    timer.cancel()
    timer.cancel()
    assert len(timers) == 0
    assert timers.next_deadline() == math.inf
    timers.run(9.0)
    assert fired == []
    timers.check()


def test_a_timer_set_while_running_waits_for_the_next_run() -> None:
    timers = Timers()
    fired: list[float] = []
    timers.at(1.0, lambda now: timers.at(now, fired.append))
    timers.run(1.0)
    assert fired == []
    assert timers.next_deadline() == 1.0
    timers.run(1.0)
    assert fired == [1.0]


def test_a_callback_may_cancel_a_later_timer_of_the_same_run() -> None:
    timers = Timers()
    fired: list[float] = []
    later = timers.at(2.0, fired.append)
    timers.at(1.0, lambda now: later.cancel())
    timers.run(5.0)
    assert fired == []
    timers.check()


def test_sweeping_the_dead_keeps_the_living() -> None:
    timers = Timers()
    rng = Random(7)
    fired: list[float] = []
    doomed = [timers.at(rng.random() * 100, fired.append) for _ in range(20_000)]
    kept = sorted(rng.random() * 100 for _ in range(50))
    for when in kept:
        timers.at(when, lambda now, when=when: fired.append(when))
    for timer in doomed:
        timer.cancel()
    timers.check()
    assert len(timers) == 50
    timers.run(100.0)
    assert fired == kept
