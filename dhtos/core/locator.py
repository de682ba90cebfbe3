"""Where this node is: its coordinate, fitted again with every sample to all that it remembers.

Theory of operation. A node is *lost* until its own error is below 0.3. While it is lost each
sample pulls it as in Vivaldi; from 4 peers on all of them pull it as well, and if half of them
know where they are, it tries several starting points and keeps the best fit. Once it is *placed*,
each sample is followed by one damped Gauss-Newton step towards the places of all remembered peers,
with Tukey's weights (Beaton and Tukey 1974): peers that contradict the others, liars or routes
that break the triangle inequality, lose their say. One in 32 samples a placed node tries other
starting points too, and moves there if the fit gains: this frees who is stuck on the wrong side of
its peers.

No remote is believed to be surer than the median peer, or than 0.1; a step is at most 50 ms, and a
coordinate that comes out as no number starts the node anew (`resets`). What is published follows
only after 10 ms, or when the node is placed or lost, so that records do not change for noise
(application-level coordinates; Ledlie, Gardner and Seltzer, NSDI 2007).

This module must not know where samples come from.
"""

from collections import Counter
from math import dist, isfinite
from typing import TYPE_CHECKING

from dhtos.core import limits
from dhtos.core.coordinate import (
    DIMENSIONS,
    Coordinate,
    SampleFault,
    predict,
    sample_fault,
    update,
)
from dhtos.core.ids import Endpoint
from dhtos.core.memory import GossipMemory
from dhtos.kernels import refit

if TYPE_CHECKING:
    from random import Random

_PLACED_ERROR = 0.3
_FIT_PEERS_MIN = 4
_ERROR_GAIN = 0.25  # of the moving average, as Vivaldi's ce
_ESCAPE_ODDS = 32
_ESCAPE_GAIN = 0.97
_STARTS = 3
_FIRST_STEPS = 8
_LAST_STEPS = 12


class Locator:
    """The coordinate of one node and the memory behind it."""

    __slots__ = ("coordinate", "memory", "published", "refused", "resets")

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        self.coordinate = Coordinate((0.0,) * dimensions)
        self.published = self.coordinate
        self.memory = GossipMemory(dimensions)
        self.refused: Counter[SampleFault] = Counter()
        self.resets = 0

    @property
    def is_placed(self) -> bool:
        """Whether the coordinate is worth telling others."""
        return self.coordinate.error <= _PLACED_ERROR

    def sample(
        self, peer: Endpoint, remote: Coordinate, rtt_s: float, *, now: float, rng: "Random"
    ) -> SampleFault | None:
        """Learn from one measured round trip to `peer`, which says it is at `remote`.

        Returns why the sample was refused, or None; a refused one changes nothing but a count.
        """
        fault = sample_fault(self.coordinate, remote, rtt_s)
        if fault is not None:
            self.refused[fault] += 1
            return fault
        self.memory.add(peer, remote, rtt_s, now, rng)
        if self.is_placed:
            self._refit(rng)
        else:
            self._drift(remote, rtt_s, rng)
            if self._can_fit():
                self._fit(rng)
        self._publish()
        return None

    def rtt_s(self, peer: Endpoint, remote: Coordinate | None) -> float | None:
        """The round trip to a peer: measured if it was, else predicted, None if neither can be."""
        measured = self.memory.rtt_s(peer)
        if measured is not None:
            return measured
        if remote is None or len(remote.position) != self.memory.dimensions:
            return None
        return predict(self.coordinate, remote)

    def is_news_to(self, told: bytes | None, age_s: float) -> bool:
        """Whether a record that is `age_s` old and tells a place, in its compact form, is outdated.

        The first place is told at once, a better one seldom: every member of a group hears of it.
        """
        if not self.is_placed or told == self.published.to_bytes():
            return False
        if told is None or Coordinate.from_bytes(told).error > _PLACED_ERROR:
            return True
        return age_s > limits.COORDINATE_TELL_S

    def _drift(self, remote: Coordinate, rtt_s: float, rng: "Random") -> None:
        """Follow one sample as in Vivaldi, which parts those on one point, then all peers a step.

        The error is what all peers say: Vivaldi's own is a mean, which a few liars keep high.
        """
        before = self.coordinate.error
        self.coordinate = own = update(self.coordinate, remote, rtt_s, rng)
        if len(self.memory) >= _FIT_PEERS_MIN:
            place, _, error = self._steps((*own.position, own.height), 1)
            self._move(place, before + _ERROR_GAIN * (error - before))

    def _refit(self, rng: "Random") -> None:
        own = self.coordinate
        place, cost, error = self._steps((*own.position, own.height), 1)
        if rng.randrange(_ESCAPE_ODDS) == 0:
            best = self._best(rng)
            if best[1] < _ESCAPE_GAIN * cost:
                place, cost, error = best
        self._move(place, own.error + _ERROR_GAIN * (error - own.error))

    def _fit(self, rng: "Random") -> None:
        place, _, error = self._best(rng)
        self._move(place, error)

    def _can_fit(self) -> bool:
        """Whether enough peers know where they are."""
        memory = self.memory
        count, width = len(memory), memory.dimensions + 3
        if count < _FIT_PEERS_MIN:
            return False
        errors = memory.rows[width - 2 :: width]
        return 2 * sum(error <= _PLACED_ERROR for error in errors) >= count

    def _steps(
        self, start: tuple[float, ...], steps: int
    ) -> tuple[tuple[float, ...], float, float]:
        return refit(
            start,
            self.memory.rows,
            len(self.memory),
            steps,
            limits.COORDINATE_HEIGHT_S_MIN,
            limits.COORDINATE_FIT_STEP_S_MAX,
        )

    def _best(self, rng: "Random") -> tuple[tuple[float, ...], float, float]:
        """The best fit from several starting points: here, at the nearest peer, at random ones."""
        memory, own = self.memory, self.coordinate
        width = memory.dimensions + 3
        slots = [rng.randrange(len(memory)) for _ in range(_STARTS)]
        rtts = memory.rows[width - 1 :: width]
        slots.append(min(range(len(memory)), key=rtts.__getitem__))
        starts = [(*own.position, own.height)]
        for slot in slots:
            row = memory.rows[slot * width : (slot + 1) * width]
            # Beside the peer, not on it: the direction away from it must exist.
            spread = row[-1] / 2
            position = [part + rng.uniform(-spread, spread) for part in row[:-3]]
            starts.append((*position, own.height))
        tries = [self._steps(start, _FIRST_STEPS) for start in starts]
        best = min(tries, key=lambda result: result[1])
        return self._steps(best[0], _LAST_STEPS)

    def _move(self, place: tuple[float, ...], error: float) -> None:
        if not all(map(isfinite, (*place, error))):
            self.coordinate = Coordinate((0.0,) * self.memory.dimensions)
            self.resets += 1
            return
        reach = limits.COORDINATE_S_MAX
        error = min(max(error, limits.COORDINATE_ERROR_MIN), limits.COORDINATE_ERROR_MAX)
        self.coordinate = Coordinate(
            tuple([min(max(part, -reach), reach) for part in place[:-1]]),
            min(place[-1], reach),
            error,
        )

    def _publish(self) -> None:
        own, told = self.coordinate, self.published
        moved = dist(own.position, told.position) + abs(own.height - told.height)
        was_placed = told.error <= _PLACED_ERROR
        if moved > limits.COORDINATE_NEWS_S or was_placed != self.is_placed:
            self.published = own
