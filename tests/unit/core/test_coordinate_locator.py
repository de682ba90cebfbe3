"""A node's place: how it is found, what strange samples and liars may do to it."""

import math
import random
from statistics import median

import pytest

from dhtos.core import limits, locator
from dhtos.core.coordinate import Coordinate, SampleFault, pack
from dhtos.core.locator import Locator

NAN, INF = math.nan, math.inf


def peer(number: int) -> tuple[str, int]:
    return ("10.0.0.1", number)


class Plane:
    """Placed peers on a plane of 200 ms, and a node whose true place is known."""

    def __init__(self, seed: int, count: int = 60) -> None:
        self.rng = random.Random(seed)
        print(f"seed {seed}")
        self.peers = [
            Coordinate(
                (self.rng.uniform(-0.1, 0.1), self.rng.uniform(-0.1, 0.1), 0.0, 0.0, 0.0),
                self.rng.uniform(0.0005, 0.005),
                0.05,
            )
            for _ in range(count)
        ]
        self.at, self.height = (0.03, -0.04, 0.0, 0.0, 0.0), 0.002
        self.now = 0.0

    def rtt(self, number: int) -> float:
        one = self.peers[number]
        return math.dist(one.position, self.at) + one.height + self.height

    def feed(self, node: Locator, samples: int, first: int = 0) -> None:
        """Samples of all peers in turn."""
        for number in range(first, first + samples):
            number %= len(self.peers)
            assert self.sample(node, number, self.rtt(number)) is None

    def sample(self, node: Locator, number: int, rtt_s: float) -> SampleFault | None:
        self.now += 1.0
        return node.sample(peer(number), self.peers[number], rtt_s, now=self.now, rng=self.rng)

    def errors(self, node: Locator) -> list[float]:
        own = node.coordinate
        return [
            abs(math.dist(own.position, one.position) + own.height + one.height - self.rtt(n))
            / self.rtt(n)
            for n, one in enumerate(self.peers)
        ]


class TestPlacing:
    @pytest.mark.parametrize("seed", range(5))
    def test_a_newcomer_is_placed_by_eight_samples(self, seed: int) -> None:
        plane, node = Plane(seed), Locator()
        assert not node.is_placed
        plane.feed(node, 8)
        assert node.is_placed
        assert median(plane.errors(node)) < 0.05

    @pytest.mark.parametrize("seed", range(5))
    def test_then_it_closes_in(self, seed: int) -> None:
        plane, node = Plane(seed), Locator()
        plane.feed(node, 240)
        assert median(plane.errors(node)) < 0.005
        assert node.coordinate.error < 0.02
        assert node.resets == 0

    def test_three_peers_are_too_few_to_fit(self) -> None:
        plane, node = Plane(1, 3), Locator()
        plane.feed(node, 3)
        assert not node.is_placed

    def test_among_the_lost_nobody_fits(self) -> None:
        plane, node = Plane(1), Locator()
        plane.peers = [Coordinate(one.position, one.height, 1.5) for one in plane.peers]
        plane.feed(node, 5)
        assert not node.is_placed

    def test_two_nodes_alone_settle(self) -> None:
        rng = random.Random(1)
        a, b = Locator(), Locator()
        for now in range(100):
            a.sample(peer(2), b.coordinate, 0.03, now=now, rng=rng)
            b.sample(peer(1), a.coordinate, 0.03, now=now, rng=rng)
        assert a.is_placed
        assert a.rtt_s(peer(9), b.coordinate) == pytest.approx(0.03, rel=0.05)

    def test_everybody_next_door(self) -> None:
        """A rack: 0.2 ms each way. Nobody may end up far away."""
        rng = random.Random(2)
        rack = [Locator() for _ in range(12)]
        for now in range(60):
            for i, node in enumerate(rack):
                j = rng.choice([n for n in range(12) if n != i])
                node.sample(peer(j), rack[j].coordinate, 0.0002, now=now, rng=rng)
        assert all(node.is_placed for node in rack)
        estimates = [a.rtt_s(("x", 1), b.coordinate) for a in rack for b in rack if a is not b]
        assert max(estimates) < 0.002

    def test_one_seed_repeats(self) -> None:
        nodes = [Locator(), Locator()]
        for node in nodes:
            Plane(7).feed(node, 100)
        assert nodes[0].coordinate == nodes[1].coordinate

    @pytest.mark.parametrize("dimensions", [2, 8])
    def test_other_dimensions(self, dimensions: int) -> None:
        node, rng = Locator(dimensions), random.Random(1)
        there = Coordinate((0.01,) * dimensions, 0.001, 0.1)
        assert node.sample(peer(1), there, 0.02, now=0.0, rng=rng) is None
        assert len(node.coordinate.position) == dimensions


class TestStrangeSamples:
    @pytest.fixture
    def plane(self) -> Plane:
        return Plane(3)

    @pytest.fixture
    def node(self, plane: Plane) -> Locator:
        node = Locator()
        plane.feed(node, 120)
        return node

    @pytest.mark.parametrize("rtt_s", [NAN, INF, -INF, 0.0, -0.01, 10.01, 180.0, 1e300])
    def test_no_round_trip(self, plane: Plane, node: Locator, rtt_s: float) -> None:
        """Zero comes from a coarse clock, minutes from a suspended machine, less from a step."""
        before, rows = node.coordinate, list(node.memory.rows)
        assert plane.sample(node, 0, rtt_s) is SampleFault.RTT
        assert node.coordinate is before
        assert list(node.memory.rows) == rows
        assert node.refused == {SampleFault.RTT: 1}

    def test_a_coarse_clock_places_nobody_and_breaks_nothing(self, plane: Plane) -> None:
        node = Locator()
        for number in range(40):
            plane.sample(node, number, 0.0)
        assert node.coordinate == Coordinate()
        assert len(node.memory) == 0
        assert node.refused[SampleFault.RTT] == 40

    def test_other_dimensions(self, node: Locator) -> None:
        before = node.coordinate
        other = Coordinate((0.1, 0.1), 0.001, 0.1)
        fault = node.sample(peer(1), other, 0.1, now=999.0, rng=random.Random(1))
        assert fault is SampleFault.DIMENSIONS
        assert node.coordinate is before
        assert node.rtt_s(("stranger", 1), other) is None
        assert node.rtt_s(("stranger", 1), None) is None

    def test_a_process_that_slept_once(self, plane: Plane, node: Locator) -> None:
        """One sample of 9 s hides behind the median of the peer's others."""
        plane.feed(node, 120)
        before = node.coordinate
        plane.sample(node, 0, 9.0)
        assert node.memory.rtt_s(peer(0)) == plane.rtt(0)
        assert math.dist(before.position, node.coordinate.position) < 0.001

    def test_a_clock_that_leaps_a_day(self, plane: Plane, node: Locator) -> None:
        """All peers are forgotten, the place is not; the next samples keep it."""
        plane.now += 86400.0
        before = node.coordinate
        plane.feed(node, 1)
        assert len(node.memory) == 1
        assert math.dist(before.position, node.coordinate.position) < 0.02
        plane.feed(node, 60, first=1)
        assert median(plane.errors(node)) < 0.01

    def test_a_clock_that_goes_back(self, plane: Plane, node: Locator) -> None:
        plane.now -= 86400.0
        plane.feed(node, 60)
        assert median(plane.errors(node)) < 0.01

    def test_extremes_stay_within_bounds(self) -> None:
        rng = random.Random(4)
        node = Locator()
        for number in range(300):
            remote = Coordinate(
                tuple(rng.choice([0.0, -10.0, 10.0, rng.gauss(0, 0.1)]) for _ in range(5)),
                rng.choice([0.0, 10.0, 0.001]),
                rng.choice([1e-300, 0.01, 0.2, 1.5]),
            )
            rtt_s = rng.choice([1e-9, 5e-324, 0.01, 0.3, 10.0])
            node.sample(peer(number % 150), remote, rtt_s, now=float(number), rng=rng)
            assert Coordinate.from_bytes(node.coordinate.to_bytes())
        node.memory.check()

    def test_a_fit_that_fails_starts_anew(
        self, plane: Plane, node: Locator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locator, "refit", lambda *_: ((NAN,) * 6, 0.0, 0.1))
        plane.feed(node, 1)
        assert node.coordinate == Coordinate()
        assert node.resets == 1
        monkeypatch.undo()
        plane.feed(node, 60)
        assert median(plane.errors(node)) < 0.05


class TestLiars:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(
        "lie",
        [
            lambda rng, rtt: (Coordinate(tuple(rng.uniform(-1, 1) for _ in range(5))), rtt),
            lambda rng, rtt: (None, rtt + rng.uniform(0.1, 1.0)),
            lambda rng, rtt: (Coordinate((9.0,) * 5, 0.0, 0.01), 9.9),
        ],
        ids=["anywhere", "late", "together"],
    )
    def test_three_of_ten(self, seed: int, lie) -> None:
        plane, node = Plane(seed), Locator()
        plane.feed(node, 120)
        for number in range(18):
            for _ in range(3):
                place, rtt_s = lie(plane.rng, plane.rtt(number))
                node.sample(
                    peer(number),
                    plane.peers[number] if place is None else place,
                    min(rtt_s, 10.0),
                    now=plane.now,
                    rng=plane.rng,
                )
        plane.feed(node, 42, first=18)
        assert median(plane.errors(node)) < 0.03

    def test_one_lie_moves_a_placed_node_at_most_50_ms(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locator, "_ESCAPE_ODDS", 10**9)
        for place in (Coordinate((9.9,) * 5, 9.0, 0.01), Coordinate((0.0,) * 5, 0.0, 0.01)):
            for rtt_s in (1e-6, 10.0):
                plane, node = Plane(5, 4), Locator()
                plane.feed(node, 100)
                before = node.coordinate
                node.sample(peer(99), place, rtt_s, now=plane.now, rng=plane.rng)
                after = node.coordinate
                step = limits.COORDINATE_FIT_STEP_S_MAX + 1e-12
                assert math.dist(before.position, after.position) <= step
                assert abs(before.height - after.height) <= step


class TestPublished:
    def test_noise_is_no_news(self) -> None:
        plane, node = Plane(6), Locator()
        plane.feed(node, 120)
        told = node.published
        changes = 0
        for number in range(300):
            rtt_s = plane.rtt(number % 60) * plane.rng.uniform(0.95, 1.05)
            plane.sample(node, number % 60, rtt_s)
            changes += node.published is not told
            told = node.published
        assert changes <= 3
        own = node.coordinate
        away = math.dist(own.position, told.position) + abs(own.height - told.height)
        assert away <= limits.COORDINATE_NEWS_S

    def test_a_record_tells_a_first_place_at_once_and_a_better_one_seldom(self) -> None:
        plane, node = Plane(6), Locator()
        lost, elsewhere = Coordinate().to_bytes(), Coordinate((1.0,) * 5, 0.0, 0.1).to_bytes()
        assert not node.is_news_to(None, 1e9)  # who is lost has nothing to tell
        plane.feed(node, 120)
        assert node.is_news_to(None, 0.0)
        assert node.is_news_to(lost, 0.0)
        assert not node.is_news_to(elsewhere, limits.COORDINATE_TELL_S)
        assert node.is_news_to(elsewhere, limits.COORDINATE_TELL_S + 1.0)
        told = node.published
        assert not node.is_news_to(told.to_bytes(), 1e9)
        assert not node.is_news_to(pack(told.to_wire()), 1e9)  # as records carry it

    def test_a_move_is_news(self) -> None:
        plane, node = Plane(6), Locator()
        plane.feed(node, 120)
        told = node.published
        plane.at = (-0.05, 0.05, 0.0, 0.0, 0.0)
        plane.feed(node, 300)
        assert node.published is not told
        assert median(plane.errors(node)) < 0.02

    def test_to_be_placed_is_news_even_next_door(self) -> None:
        rng = random.Random(1)
        node, there = Locator(), Coordinate((0.0,) * 5, 1e-5, 0.1)
        for number in range(8):
            node.sample(peer(number), there, 0.0002, now=0.0, rng=rng)
        assert node.is_placed
        assert node.published.error < 0.3


def test_a_remembered_round_trip_beats_a_prediction() -> None:
    plane, node = Plane(8), Locator()
    plane.feed(node, 60)
    here = plane.peers[0]
    assert node.rtt_s(peer(0), here) == plane.rtt(0)
    assert node.rtt_s(peer(0), None) == plane.rtt(0)
    assert node.rtt_s(("stranger", 1), here) != plane.rtt(0)
