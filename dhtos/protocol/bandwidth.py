"""How many bytes a second the path to one peer carries: trains of datagrams, timed as they arrive.

Theory of operation. A train is datagrams sent back to back; the narrowest link of the path spreads
them, and the receiver sees bytes arrive at the rate of that link, less what other traffic takes of
it (the asymptotic dispersion rate of C. Dovrolis, P. Ramanathan and D. Moore, "Packet-dispersion
techniques and a capacity-estimation methodology", IEEE/ACM Transactions on Networking 12, 2004).
The answer to each datagram of `dh_train` is the time at which it arrived, by the receiver's clock;
only differences matter.

    GREET   one small datagram: does the peer answer, and is it near?
    GROW    trains of twice the length each, until one is long enough
    KEEP    TRAINS of that length, a pause as long as each between them; the median is the result

A shaper lets a burst pass at the speed of the wire before it holds back (a token bucket), and so
does a queue that was empty. So only the second half of a train counts, and a train is long enough
when the two quarters of that half agree and last long enough to be timed. Slope, not first and
last: a receiver that was busy stamps several datagrams at once.

What it may cost. One measurement at a time, the others wait; every byte is taken from an hourly
budget; nothing is measured that nobody asked for. The responder keeps no state of a train, its
answer is smaller than what asked for it, and it answers one source so many times an hour: there
is nothing to amplify, and nobody's load but the measurer's own.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from dhtos.core.ids import Endpoint
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
from dhtos.errors import LookupExpired, MalformedMessage, UsageError
from dhtos.protocol.calls import Call
from dhtos.protocol.hubwire import as_bytes, as_int, as_list, unpack
from dhtos.protocol.operation import Operation
from dhtos.protocol.peers import Capability
from dhtos.protocol.rpc import NO_REPLY
from dhtos.protocol.timers import Timer
from dhtos.protocol.wire import encode_request

if TYPE_CHECKING:
    from dhtos.protocol.rpc import Core

HOUR_S = 3600.0
TAIL_S_MIN = 0.02  # a tail this long is timed well by a loop that wakes each millisecond
STEADY_SHARE = 0.2  # by which the two quarters of a tail may differ
ARRIVALS_MIN = 8  # of a tail: fewer make no slope
SILENCE_S = 0.5  # after it the rest of a train is lost
TRAIN_S_MAX = 5.0
PAUSE_S_MIN = 0.02
FAILED_TRAINS_MAX = 3
_WHOLE_SHARE = 0.75  # of a train that came, to call it whole
_CLOCK = 1 << 32  # stamps are microseconds modulo this: no secret of how long a machine runs
_PADDING_BYTES = TRAIN_DATAGRAM_BYTES - 40  # what an index and the frame take
_IP_UDP_BYTES = {False: 20 + 8, True: 40 + 8}  # by whether it is IP version 6


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """What a path carries, headers of IP included, and how sure that is.

    `low` and `high` are the slowest and the fastest train. Where `settled` is false most trains
    were too short: the path is at least about so fast, or its first burst is very large.
    """

    bytes_per_s: float
    low: float
    high: float
    trains: int
    settled: bool
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Slope:
    """One train: its rate, how long its tail took, and whether that had one slope."""

    bytes_per_s: float
    tail_s: float
    steady: bool

    @property
    def long_enough(self) -> bool:
        """Whether a longer train would tell nothing else."""
        return self.steady and self.tail_s >= TAIL_S_MIN


def slope_of(arrivals: Sequence[tuple[float, int]]) -> Slope | None:
    """The rate of the second half of a train; `arrivals` are (seconds, bytes) in any order.

    None where too few came, or all at one time.
    """
    if len(arrivals) < 2 * ARRIVALS_MIN:
        return None
    curve: list[tuple[float, float]] = []  # when, and how many bytes had come by then
    come = 0
    for when, size in sorted(arrivals):
        come += size
        if curve and curve[-1][0] == when:
            curve.pop()
        curve.append((when, come))
    tail = [point for point in curve if point[1] > come / 2]
    rate = _regression(tail)
    if rate is None:
        return None
    quarters = [p for p in tail if p[1] <= come * 3 / 4], [p for p in tail if p[1] > come * 3 / 4]
    first, second = map(_regression, quarters)
    steady = (
        first is not None and second is not None and abs(first - second) <= (STEADY_SHARE * rate)
    )
    return Slope(rate, tail[-1][0] - tail[0][0], steady)


def _regression(curve: Sequence[tuple[float, float]]) -> float | None:
    """The slope of the least squares line; None for fewer than three points."""
    if len(curve) < 3:
        return None
    middle = sum(when for when, _ in curve) / len(curve)
    spread = sum((when - middle) ** 2 for when, _ in curve)
    return sum((when - middle) * come for when, come in curve) / spread


def _middle(ordered: Sequence[float]) -> float:
    """The median."""
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


class _State(Enum):
    WAITING = "waiting"
    GREET = "greet"
    TRAIN = "train"
    PAUSE = "pause"
    ENDED = "ended"


class Measurement:
    """The trains to one peer; the owner of their calls."""

    def __init__(self, trains: "Trains", endpoint: Endpoint) -> None:
        self.trains = trains
        self.core = trains.core
        self.endpoint = endpoint
        self.state = _State.WAITING
        self.operation: Operation[Bandwidth] = self.core.operation(self._cancel)
        self._length = TRAIN_DATAGRAMS_MIN
        self._kept: list[Slope] = []
        self._failed = 0
        self._call: Call | None = None
        self._timer: Timer | None = None
        self._arrivals: dict[int, int] = {}
        self._began = self._heard = 0.0

    def start(self, now: float) -> None:
        """Greet, unless the peer has shown not to know the call."""
        assert self.state is _State.WAITING
        peer = self.core.peers.known(self.endpoint)
        if peer is not None and peer.capability is Capability.STOCK:
            self._end(now, LookupExpired("the peer does not answer trains: it is no dhtos node"))
            return
        self.state = _State.GREET
        self._call = self.core.calls.send(self.endpoint, "dh_train", [0, b""], self, now)

    # --- answers ----------------------------------------------------------------------------------

    def on_late(self, call: Call, now: float) -> None:
        """Sent once more: one datagram in the head of a train, which does not count."""

    def on_failure(self, call: Call, now: float) -> None:
        """No greeting came back, or the end of a train went missing."""
        self._call = None
        if self.state is _State.GREET:
            error = LookupExpired("the peer does not answer trains: it is gone, or no dhtos node")
            self._end(now, error)
        else:
            self._arrived(now)

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """A datagram arrived at its time, by the peer's clock."""
        try:
            index, stamp = unpack(
                as_list(value, 4),
                lambda v: as_int(v, 0, TRAIN_DATAGRAMS_MAX),
                lambda v: as_int(v, 0, _CLOCK - 1),
            )
        except MalformedMessage:
            self.core.counters["malformed"] += 1
            if self.state is _State.GREET:
                self.on_failure(call, now)
            return
        if self.state is _State.GREET:
            self._call = None
            self._send(now)
            return
        assert self.state is _State.TRAIN
        self._heard = now
        if index <= self._length:
            self._arrivals.setdefault(index, stamp)
        if len(self._arrivals) == self._length + 1:
            self._arrived(now)

    # --- trains -----------------------------------------------------------------------------------

    def _send(self, now: float) -> None:
        """One train: a small head, whose call all others share, then `length` full datagrams."""
        bytes_ = self._length * TRAIN_DATAGRAM_BYTES
        if not self.trains.spend(bytes_, now):
            self._finish(now)
            return
        self.state = _State.TRAIN
        self._arrivals = {}
        self._began = self._heard = now
        call = self._call = self.core.calls.send(
            self.endpoint, "dh_train", [0, b""], self, now,
            stream=True, deadline_s=2 * TRAIN_S_MAX,
        )  # fmt: skip
        padding = bytes(_PADDING_BYTES)
        for index in range(1, self._length + 1):
            datagram = encode_request(call.msg_id, "dh_train", [index, padding])
            self.core.sending.append((datagram, self.endpoint))
        self._timer = self.core.timers.at(now + SILENCE_S, self._on_timer)

    def _on_timer(self, now: float) -> None:
        """A pause is over, or a train has been silent."""
        self._timer = None
        if self.state is _State.PAUSE:
            self._send(now)
        elif now - self._heard >= SILENCE_S or now - self._began >= TRAIN_S_MAX:
            self._arrived(now)
        else:
            self._timer = self.core.timers.at(self._heard + SILENCE_S, self._on_timer)

    def _arrived(self, now: float) -> None:
        """What comes of a train has come: keep it, grow, or give up."""
        self._release()
        timed = self._timed()
        slope = slope_of(timed)
        # Where a queue on the way drops the end of a train, a longer one would show no more.
        longest = self._length == TRAIN_DATAGRAMS_MAX or len(timed) < _WHOLE_SHARE * self._length
        if slope is not None and (longest or slope.long_enough or self._kept):
            self._kept.append(slope)
        elif longest:
            self._failed += 1
        else:
            self._length *= 2
        if len(self._kept) == TRAINS or self._failed == FAILED_TRAINS_MAX:
            self._finish(now)
            return
        self.state = _State.PAUSE
        pause = max(now - self._began, PAUSE_S_MIN)
        self._timer = self.core.timers.at(now + pause, self._on_timer)

    def _timed(self) -> list[tuple[float, int]]:
        """The arrivals of a train in seconds after one of them, and the bytes of each."""
        if not self._arrivals:
            return []
        base = next(iter(self._arrivals.values()))
        size = TRAIN_DATAGRAM_BYTES + _IP_UDP_BYTES[":" in self.endpoint[0]]
        half = _CLOCK // 2
        return [
            (((stamp - base + half) % _CLOCK - half) / 1e6, size)
            for index, stamp in self._arrivals.items()
            if index
        ]

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self, now: float) -> None:
        """With what was kept, or with the reason why that is nothing."""
        if not self._kept:
            if self._failed and len(self._timed()) >= 2 * ARRIVALS_MIN:
                self._end(now, LookupExpired("trains arrive all at once: the path is too fast"))
            elif self._failed:
                self._end(now, LookupExpired("too few datagrams of the trains arrived"))
            else:
                self._end(now, self.trains.exhausted(now))
            return
        rates = sorted(slope.bytes_per_s for slope in self._kept)
        settled = 2 * sum(slope.long_enough for slope in self._kept) > len(rates)
        estimate = Bandwidth(_middle(rates), rates[0], rates[-1], len(rates), settled)
        self.trains.remember(self.endpoint, estimate, now)
        self._end(now, estimate)

    def _end(self, now: float, outcome: Bandwidth | UsageError | LookupExpired) -> None:
        self._release()
        self.state = _State.ENDED
        if isinstance(outcome, Bandwidth):
            self.operation.finish(outcome)
        else:
            self.operation.fail(outcome)
        self.trains.ended(self, now)

    def _cancel(self, now: float) -> None:
        self._release()
        self.state = _State.ENDED
        self.trains.ended(self, now)

    def _release(self) -> None:
        """Forget the call and the timer of what is over."""
        if self._call is not None:
            self.core.calls.cancel(self._call)
            self._call = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Trains:
    """Both sides of `dh_train` for one node: measures when asked, answers those who measure."""

    def __init__(self, core: "Core", *, bytes_per_hour: int = TRAIN_BYTES_PER_HOUR) -> None:
        self.core = core
        self._bytes_per_hour = bytes_per_hour
        self._spent: deque[tuple[float, int]] = deque()  # when, how many bytes; the last hour
        self._running: Measurement | None = None
        self._waiting: deque[Measurement] = deque()
        self._known: dict[Endpoint, tuple[float, Bandwidth]] = {}
        self._answered: dict[str, tuple[float, int]] = {}  # per host: since when, how many
        core.register("dh_train", self._on_train, verb="query")

    # --- measuring --------------------------------------------------------------------------------

    def measure(self, endpoint: Endpoint, now: float) -> Operation[Bandwidth]:
        """Measure the path to a peer, after those that were asked for before.

        Ends with LookupExpired where it does not answer, UsageError where the budget is used up.
        Raises UsageError at once where too many wait.
        """
        if len(self._waiting) >= TRAIN_WAITING_MAX:
            raise UsageError(f"{TRAIN_WAITING_MAX} measurements wait already: await some of them")
        measurement = Measurement(self, endpoint)
        self._waiting.append(measurement)
        self._next(now)
        return measurement.operation

    def known(self, endpoint: Endpoint, now: float) -> Bandwidth | None:
        """The latest estimate of a path, with its age; measures nothing."""
        found = self._known.get(endpoint)
        return None if found is None else replace(found[1], age_s=now - found[0])

    def left(self, now: float) -> int:
        """The bytes that trains may still take in this hour."""
        while self._spent and now - self._spent[0][0] >= HOUR_S:
            self._spent.popleft()
        return self._bytes_per_hour - sum(spent for _, spent in self._spent)

    # --- for measurements -------------------------------------------------------------------------

    def spend(self, count: int, now: float) -> bool:
        """Take bytes out of the budget; False where it has not so many."""
        if count > self.left(now):
            return False
        self._spent.append((now, count))
        self.core.counters["train_bytes"] += count
        return True

    def exhausted(self, now: float) -> UsageError:
        """Why nothing was measured, and when to try again."""
        budget = f"the budget of {self._bytes_per_hour} bytes an hour for trains"
        if not self._spent:
            return UsageError(f"{budget} is less than one train takes")
        wait = max(HOUR_S - (now - self._spent[0][0]), 0.0)
        return UsageError(f"{budget} is used up; try again in {wait:.0f} s")

    def remember(self, endpoint: Endpoint, estimate: Bandwidth, now: float) -> None:
        """Keep an estimate; the oldest of too many is forgotten."""
        self._known.pop(endpoint, None)
        if len(self._known) >= TRAIN_PATHS_MAX:
            del self._known[next(iter(self._known))]
        self._known[endpoint] = (now, estimate)

    def ended(self, measurement: Measurement, now: float) -> None:
        """A measurement is over, or nobody wants it any more: the next one."""
        if measurement is self._running:
            self._running = None
        else:
            self._waiting.remove(measurement)
        self._next(now)

    def _next(self, now: float) -> None:
        if self._running is None and self._waiting:
            self._running = self._waiting.popleft()
            self._running.start(now)

    # --- answering --------------------------------------------------------------------------------

    def _on_train(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        index, _ = unpack(
            args,
            lambda v: as_int(v, 0, TRAIN_DATAGRAMS_MAX),
            lambda v: as_bytes(v, TRAIN_DATAGRAM_BYTES),
        )
        if not self._may_answer(source[0], now):
            self.core.counters["trains_refused"] += 1
            return NO_REPLY
        return [index, int(now * 1e6) % _CLOCK]

    def _may_answer(self, host: str, now: float) -> bool:
        since, count = self._answered.pop(host, (now, 0))
        if now - since >= HOUR_S:
            since, count = now, 0
        if len(self._answered) >= TRAIN_SOURCES_MAX:
            del self._answered[next(iter(self._answered))]
        self._answered[host] = (since, min(count + 1, TRAIN_ANSWERS_MAX + 1))
        return count < TRAIN_ANSWERS_MAX

    def check(self) -> None:
        """Assert every invariant."""
        assert self._running is not None or not self._waiting
        assert self._running is None or self._running.state not in (_State.WAITING, _State.ENDED)
        assert all(waiting.state is _State.WAITING for waiting in self._waiting)
        assert len(self._waiting) <= TRAIN_WAITING_MAX
        assert len(self._known) <= TRAIN_PATHS_MAX
        assert len(self._answered) <= TRAIN_SOURCES_MAX
