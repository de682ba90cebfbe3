"""Trains through links of our own making: the rate that is found, what it costs, who answers.

Two cores and a link in virtual time. The link is a token bucket as shapers are: bytes that find
tokens pass at the speed of the wire, the others at the rate; what exceeds the queue is lost.
"""

import itertools
import math
from heapq import heappop, heappush
from random import Random

import pytest

from dhtos.core.limits import (
    TRAIN_ANSWERS_MAX,
    TRAIN_BYTES_PER_HOUR,
    TRAIN_DATAGRAM_BYTES,
    TRAIN_DATAGRAMS_MAX,
    TRAIN_DATAGRAMS_MIN,
    TRAIN_PATHS_MAX,
    TRAIN_SOURCES_MAX,
    TRAIN_WAITING_MAX,
    TRAINS,
)
from dhtos.errors import Closed, LookupExpired, UsageError
from dhtos.protocol.bandwidth import HOUR_S, Measurement, Trains, slope_of
from dhtos.protocol.peers import Capability
from dhtos.protocol.rpc import Core
from dhtos.protocol.wire import encode_request, encode_trailer, parse

SEED = 11
HERE, THERE = ("10.0.0.1", 7400), ("10.0.0.2", 7400)
MBIT = 125_000
FRAME_BYTES = 42  # Ethernet, IP, UDP: a shaper counts them


class Link:
    """One direction of a path."""

    def __init__(self, rate=math.inf, burst=0, queue=10**6, wire=125 * 10**6, delay=0.005):
        self.rate, self.burst, self.queue, self.wire, self.delay = rate, burst, queue, wire, delay
        self.tokens, self.filled, self.free_at = float(burst), 0.0, 0.0
        self.loss = 0.0
        self.rng = Random(SEED)

    def arrival(self, size, now):
        """When a datagram comes out; None where it is lost."""
        size += FRAME_BYTES
        start = max(now, self.free_at)
        if (start - now) * min(self.rate, self.wire) > self.queue or self.rng.random() < self.loss:
            return None
        self.tokens = min(self.burst, self.tokens + (start - self.filled) * self.rate)
        self.filled = start
        if self.rate is not math.inf and self.tokens < size:
            wait = (size - self.tokens) / self.rate
            start, self.filled, self.tokens = start + wait, start + wait, float(size)
        self.tokens -= size
        self.free_at = start + size / self.wire
        return self.free_at + self.delay


class World:
    """Two nodes, and a wake-up of the receiving loop that takes all that waits."""

    def __init__(self, link=None, *, wake_s=0.0, budget=TRAIN_BYTES_PER_HOUR, clock=0.0):
        self.now = 0.0
        self.wake_s = wake_s
        self.clock = clock  # of the other node, ahead of ours
        self.link, self.back = link or Link(), Link()
        self.ours, self.theirs = Core(Random(SEED)), Core(Random(SEED + 1))
        self.trains = Trains(self.ours, bytes_per_hour=budget)
        self.responder = Trains(self.theirs)
        self.flying = []
        self.number = itertools.count()
        self.sizes = {THERE: [], HERE: []}  # datagrams by who they were sent to
        self.deaf = False

    def _send(self, core, link, source):
        for datagram, target in core.sending:
            self.sizes.setdefault(target, []).append(len(datagram))
            when = link.arrival(len(datagram), self.now)
            if when is not None and target in (HERE, THERE) and not self.deaf:
                if self.wake_s:
                    when = math.ceil(when / self.wake_s) * self.wake_s
                heappush(self.flying, (when, next(self.number), target, source, datagram))
        core.sending.clear()

    def step(self):
        """The next thing that happens; False when there is none."""
        self._send(self.ours, self.link, HERE)
        self._send(self.theirs, self.back, THERE)
        arrives = self.flying[0][0] if self.flying else math.inf
        due = min(self.ours.timers.next_deadline(), arrives)
        if due == math.inf:
            return False
        self.now = max(self.now, due)
        if arrives <= due:
            _, _, target, source, datagram = heappop(self.flying)
            core, now = (self.ours, self.now) if target == HERE else (
                self.theirs, self.now + self.clock
            )  # fmt: skip
            core.receive(datagram, source, now)
        else:
            self.ours.timers.run(self.now)
        self.trains.check()
        self.responder.check()
        return True

    def run(self, operation):
        while not operation.done:
            assert self.step(), "nothing happens any more"
        return operation.result()

    def measure(self, target=THERE):
        return self.run(self.trains.measure(target, self.now))


# --- the slope of one train -----------------------------------------------------------------------


def even(count, rate, size=1000, start=0.0):
    return [(start + n * size / rate, size) for n in range(count)]


def test_the_slope_of_an_even_train():
    slope = slope_of(even(64, 1e6))
    assert slope.bytes_per_s == pytest.approx(1e6)
    assert slope.steady
    assert slope.tail_s == pytest.approx(0.031)


def test_order_and_the_origin_of_time_do_not_matter():
    arrivals = even(64, 1e6, start=-5.0)
    Random(SEED).shuffle(arrivals)
    assert slope_of(arrivals).bytes_per_s == pytest.approx(1e6)


def test_the_first_half_does_not_count():
    burst = even(30, 1e9)
    assert slope_of([*burst, *even(34, 1e6, start=0.001)]).bytes_per_s == pytest.approx(1e6)


def test_a_change_within_the_tail_is_not_steady():
    slope = slope_of([*even(46, 1e9), *even(18, 1e6, start=0.001)])
    assert not slope.steady
    assert not slope.long_enough


def test_what_arrives_at_one_time_counts_as_one_look():
    """A receiver that wakes each 2 ms stamps several at once."""
    stamped = [(math.ceil(when / 0.002) * 0.002, size) for when, size in even(256, 4e6)]
    assert slope_of(stamped).bytes_per_s == pytest.approx(4e6, rel=0.03)


@pytest.mark.parametrize("arrivals", [[], even(15, 1e6), [(1.0, 1000)] * 64])
def test_too_few_or_all_at_once_have_no_slope(arrivals):
    assert slope_of(arrivals) is None


# --- measuring ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mbit", [1, 5, 20, 50, 100])
@pytest.mark.parametrize("burst", [2_000, 16_000, 32_000, 64_000])
def test_the_rate_behind_a_token_bucket(mbit, burst):
    world = World(Link(rate=mbit * MBIT, burst=burst))
    estimate = world.measure()
    assert estimate.bytes_per_s == pytest.approx(mbit * MBIT, rel=0.05)
    assert estimate.settled
    assert estimate.trains == TRAINS
    assert estimate.low <= estimate.bytes_per_s <= estimate.high


@pytest.mark.parametrize("wake_s", [0.0002, 0.001, 0.004])
def test_a_receiver_that_wakes_now_and_then(wake_s):
    world = World(Link(rate=20 * MBIT, burst=16_000), wake_s=wake_s)
    assert world.measure().bytes_per_s == pytest.approx(20 * MBIT, rel=0.1)


@pytest.mark.parametrize("loss", [0.02, 0.2])
def test_losses_do_not_change_the_rate(loss):
    """Behind a full queue: those that come still come at the rate of the link."""
    world = World(Link(rate=20 * MBIT, burst=16_000, queue=40_000))
    world.link.loss = loss
    estimate = world.measure()
    assert estimate.bytes_per_s == pytest.approx(20 * MBIT, rel=0.1)


def test_a_tail_drop_queue_does_not_change_the_rate():
    world = World(Link(rate=5 * MBIT, burst=8_000, queue=30_000))
    assert world.measure().bytes_per_s == pytest.approx(5 * MBIT, rel=0.1)


def test_a_path_too_fast_for_trains_is_not_settled():
    world = World(Link(wire=10**9), wake_s=0.0001)
    estimate = world.measure()
    assert not estimate.settled
    assert estimate.bytes_per_s == pytest.approx(10**9, rel=0.4)


def test_a_path_too_fast_to_see_a_slope():
    world = World(Link(wire=10**9), wake_s=0.01)
    with pytest.raises(LookupExpired, match="all at once: the path is too fast"):
        world.measure()


def test_a_burst_larger_than_a_train_is_spent_by_those_before():
    world = World(Link(rate=5 * MBIT, burst=450_000))
    assert world.measure().bytes_per_s == pytest.approx(5 * MBIT, rel=0.05)


def test_a_burst_larger_than_all_trains_shows_the_wire_and_is_not_settled():
    world = World(Link(rate=5 * MBIT, burst=10**7, wire=10**8), wake_s=0.0001)
    estimate = world.measure()
    assert not estimate.settled
    assert estimate.bytes_per_s > 10**7


@pytest.mark.parametrize("clock", [-500.0 + 2**32 / 1e6, 2**32 / 1e6 - 0.2, 4000.0])
def test_the_clock_of_the_peer_may_be_any_and_wrap(clock):
    world = World(Link(rate=20 * MBIT, burst=16_000), clock=clock)
    assert world.measure().bytes_per_s == pytest.approx(20 * MBIT, rel=0.05)


def test_trains_use_at_most_half_of_the_time():
    world = World(Link(rate=5 * MBIT, burst=2_000))
    world.measure()
    sent = sum(world.sizes[THERE])
    assert sent / world.now <= 0.55 * 5 * MBIT


def test_the_estimate_is_remembered_with_its_age():
    world = World(Link(rate=20 * MBIT, burst=16_000))
    assert world.trains.known(THERE, 0.0) is None
    estimate = world.measure()
    assert estimate.age_s == 0
    later = world.trains.known(THERE, world.now + 60)
    assert later.age_s == pytest.approx(60)
    assert later.bytes_per_s == estimate.bytes_per_s
    world.measure()
    assert world.trains.known(THERE, world.now).age_s == 0


def test_only_so_many_paths_are_remembered():
    world = World()
    estimate = world.measure()
    for port in range(1, TRAIN_PATHS_MAX + 10):
        world.trains.remember(("10.0.0.3", port), estimate, world.now)
    world.trains.check()
    assert world.trains.known(THERE, world.now) is None


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_peer_that_does_not_answer():
    world = World()
    world.deaf = True
    with pytest.raises(LookupExpired, match="does not answer trains"):
        world.measure()
    assert all(size < 100 for size in world.sizes[THERE])  # nobody is sent trains unasked


def test_a_stock_peer_is_sent_nothing():
    world = World()
    world.ours.peers.of(THERE).capability = Capability.STOCK
    first, second = (world.trains.measure(THERE, 0.0) for _ in range(2))
    for operation in (first, second):
        with pytest.raises(LookupExpired, match="no dhtos node"):
            operation.result()
    assert world.sizes[THERE] == []
    world.trains.check()


def test_a_path_of_version_6_has_longer_headers():
    world = World(Link(rate=20 * MBIT, burst=2_000))
    four = world.measure().bytes_per_s
    measurement = Measurement(world.trains, ("fd00::2", 7400))
    measurement._arrivals = {0: 0, 1: 10, 2: 20}
    assert [size for _, size in measurement._timed()] == [TRAIN_DATAGRAM_BYTES + 48] * 2
    assert four == pytest.approx(20 * MBIT, rel=0.02)


def test_a_peer_that_vanishes_between_trains():
    world = World(Link(rate=20 * MBIT, burst=2_000))
    operation = world.trains.measure(THERE, 0.0)
    while sum(world.sizes[THERE]) < 10 * TRAIN_DATAGRAM_BYTES:
        world.step()
    world.deaf = True
    world.flying.clear()
    with pytest.raises(LookupExpired, match="too few datagrams"):
        world.run(operation)
    assert len(world.ours.calls) == 0


@pytest.mark.parametrize(
    "value", [None, 5, [], [0], ["a", 5], [0, -1], [0, 2**32], [TRAIN_DATAGRAMS_MAX + 1, 0], [[]]]
)
def test_an_odd_answer_is_counted(value):
    world = World()
    world.theirs.replace("dh_train", lambda args, source, trailer, now: value)
    with pytest.raises(LookupExpired):
        world.measure()
    assert world.ours.counters["malformed"] == 1


def test_stamps_that_make_no_sense_give_no_estimate():
    world = World()
    rng = Random(SEED)
    world.theirs.replace(
        "dh_train",
        lambda args, source, trailer, now: [args[0], 0 if args[0] else rng.getrandbits(9)],
    )
    with pytest.raises(LookupExpired, match="all at once"):
        world.measure()


def test_an_index_beyond_the_train_is_not_counted():
    world = World(Link(rate=20 * MBIT, burst=2_000))
    answer = world.theirs.handler("dh_train")

    def odd(args, source, trailer, now):
        index, stamp = answer(args, source, trailer, now)
        return [index if index < 2 else TRAIN_DATAGRAMS_MAX, stamp]

    world.theirs.replace("dh_train", odd)
    with pytest.raises(LookupExpired, match="too few"):
        world.measure()


def test_a_measurement_that_is_cancelled_leaves_nothing():
    world = World(Link(rate=5 * MBIT, burst=2_000))
    running = world.trains.measure(THERE, 0.0)
    waiting = world.trains.measure(THERE, 0.0)
    while sum(world.sizes[THERE]) < 10 * TRAIN_DATAGRAM_BYTES:
        world.step()
    waiting.cancel(world.now)
    running.cancel(world.now)
    for operation in (running, waiting):
        with pytest.raises(Closed):
            operation.result()
    assert len(world.ours.calls) == 0
    assert world.ours.timers.next_deadline() == math.inf
    assert world.measure().bytes_per_s > 0


# --- what it costs --------------------------------------------------------------------------------


def test_one_measurement_at_a_time():
    world = World(Link(rate=20 * MBIT, burst=2_000))
    operations = [world.trains.measure(THERE, 0.0) for _ in range(3)]
    ends = []
    while not all(operation.done for operation in operations):
        world.step()
        ends.append(sum(operation.done for operation in operations))
        assert len(world.ours.calls) <= 1
    assert [operation.result().settled for operation in operations] == [True] * 3
    assert sorted(ends) == ends


def test_only_so_many_wait():
    world = World()
    for _ in range(TRAIN_WAITING_MAX + 1):
        world.trains.measure(THERE, 0.0)
    with pytest.raises(UsageError, match="wait already"):
        world.trains.measure(THERE, 0.0)


def test_the_budget_is_kept_and_comes_back_within_the_hour():
    budget = 2 * 10**6
    world = World(Link(rate=5 * MBIT, burst=2_000), budget=budget)
    words = r"budget of 2000000 bytes an hour .* try again in \d+ s"
    for _ in range(30):
        operation = world.trains.measure(THERE, world.now)
        while not operation.done:
            world.step()
        if operation.error is not None:
            break
    with pytest.raises(UsageError, match=words):
        operation.result()
    full = sum(size for size in world.sizes[THERE] if size > 100)
    assert 0.9 * budget < full <= budget
    assert world.ours.counters["train_bytes"] <= budget
    world.now += HOUR_S
    assert world.measure().settled


def test_a_budget_that_ends_in_the_middle_keeps_what_there_is():
    train = TRAIN_DATAGRAMS_MIN * TRAIN_DATAGRAM_BYTES
    world = World(Link(rate=5 * MBIT, burst=2_000), budget=2 * train)
    estimate = world.measure()
    assert estimate.trains == 2
    assert estimate.bytes_per_s == pytest.approx(5 * MBIT, rel=0.1)


def test_a_budget_of_nothing_measures_nothing():
    world = World(budget=1000)
    with pytest.raises(UsageError, match="less than one train"):
        world.measure()
    assert sum(world.sizes[THERE]) < 100


# --- who answers ----------------------------------------------------------------------------------


def test_no_answer_is_larger_than_what_asked_for_it():
    world = World(Link(rate=20 * MBIT, burst=2_000))
    world.measure()
    assert len(world.sizes[HERE]) <= len(world.sizes[THERE])
    assert max(world.sizes[HERE]) <= min(world.sizes[THERE])
    assert 20 * sum(world.sizes[HERE]) < sum(world.sizes[THERE])
    assert max(world.sizes[THERE]) <= TRAIN_DATAGRAM_BYTES


@pytest.mark.parametrize("foot", [b"", encode_trailer([1])])
def test_the_smallest_question_is_as_large_as_its_answer(foot):
    world = World()
    for index in (0, 127, 128, 512):
        question = encode_request(bytes(20), "dh_train", [index, b""]) + foot
        world.theirs.receive(question, HERE, 4294.5)
        (answer, _) = world.theirs.sending.pop()
        assert len(answer) <= len(question)
        assert parse(answer).value == [index, 4294500000]


def test_one_host_is_answered_so_many_times_an_hour():
    world = World()
    question = encode_request(bytes(20), "dh_train", [0, b""])
    for port in range(1, TRAIN_ANSWERS_MAX + 101):
        world.theirs.receive(question, ("10.9.9.9", port % 60000 + 1), 5.0)
    assert len(world.theirs.sending) == TRAIN_ANSWERS_MAX
    assert world.theirs.counters["trains_refused"] == 100
    world.theirs.receive(question, ("10.9.9.8", 1), 5.0)
    world.theirs.receive(question, ("10.9.9.9", 1), 5.0 + HOUR_S)
    assert len(world.theirs.sending) == TRAIN_ANSWERS_MAX + 2


def test_only_so_many_hosts_are_counted():
    world = World()
    question = encode_request(bytes(20), "dh_train", [0, b""])
    for host in range(TRAIN_SOURCES_MAX + 50):
        world.theirs.receive(question, (f"10.9.{host // 256}.{host % 256}", 1), 5.0)
    world.responder.check()


@pytest.mark.parametrize(
    "args", [[], [0], ["0", b""], [-1, b""], [TRAIN_DATAGRAMS_MAX + 1, b""], [0, "x"], [0, 5]]
)
def test_an_odd_question_is_counted_and_dropped(args):
    world = World()
    world.theirs.receive(encode_request(bytes(20), "dh_train", args), HERE, 5.0)
    assert world.theirs.counters["malformed"] == 1
    assert not world.theirs.sending
