"""Network coordinates: bounds, samples, wire form."""

import math
import pickle
import random

import pytest

from dhtos.core import limits
from dhtos.core.coordinate import (
    DIMENSIONS,
    Coordinate,
    SampleFault,
    predict,
    sample_fault,
    update,
)
from dhtos.errors import MalformedMessage

NAN, INF = math.nan, math.inf


def at(*position: float, height: float = 0.001, error: float = 0.2) -> Coordinate:
    """A placed coordinate: missing dimensions are 0."""
    return Coordinate(position + (0.0,) * (DIMENSIONS - len(position)), height, error)


class TestValue:
    def test_value_semantics(self) -> None:
        one = at(0.01, 0.02)
        assert one == at(0.01, 0.02)
        assert hash(one) == hash(at(0.01, 0.02))
        assert one != at(0.01, 0.03)
        assert pickle.loads(pickle.dumps(one)) == one
        assert eval(repr(one)) == one
        with pytest.raises(AttributeError):
            one.height = 1.0  # type: ignore[misc]

    def test_default_knows_nothing(self) -> None:
        assert Coordinate().error == limits.COORDINATE_ERROR_MAX
        assert len(Coordinate().position) == DIMENSIONS

    @pytest.mark.parametrize("bad", [NAN, INF, -INF, 10.1, -10.1, 1e300])
    def test_position_out_of_bounds(self, bad: float) -> None:
        with pytest.raises(ValueError, match=r"within 10\.0 s"):
            at(0.0, bad)

    @pytest.mark.parametrize("bad", [NAN, INF, -1e-9, 10.1])
    def test_height_out_of_bounds(self, bad: float) -> None:
        with pytest.raises(ValueError, match="height"):
            at(height=bad)

    @pytest.mark.parametrize("bad", [NAN, INF, 0.0, -0.1, 1.6])
    def test_error_out_of_bounds(self, bad: float) -> None:
        with pytest.raises(ValueError, match="error"):
            at(error=bad)

    def test_no_dimensions(self) -> None:
        with pytest.raises(ValueError, match="at least 1 dimension"):
            Coordinate(())


class TestPredict:
    def test_points_and_heights_add(self) -> None:
        assert predict(at(0.03, height=0.01), at(0.0, 0.04, height=0.005)) == pytest.approx(0.065)

    def test_symmetric_and_never_negative(self) -> None:
        rng = random.Random(1)
        for _ in range(100):
            a, b = (at(rng.uniform(-1, 1), rng.uniform(-1, 1)) for _ in range(2))
            assert predict(a, b) == predict(b, a) >= 0.0


class TestUpdate:
    @pytest.mark.parametrize("rtt_s", [NAN, INF, -INF, 0.0, -0.01, 10.01, 1e300])
    def test_impossible_round_trips_change_nothing(self, rtt_s: float) -> None:
        own, remote = at(0.01), at(0.05)
        assert sample_fault(own, remote, rtt_s) is SampleFault.RTT
        assert update(own, remote, rtt_s, random.Random(1)) is own

    def test_other_dimensions_change_nothing(self) -> None:
        own, remote = at(0.01), Coordinate((0.1, 0.2), 0.01, 0.2)
        assert sample_fault(own, remote, 0.1) is SampleFault.DIMENSIONS
        assert update(own, remote, 0.1, random.Random(1)) is own

    @pytest.mark.parametrize("rtt_s", [5e-324, 1e-9, 1e-6, 10.0])
    def test_extreme_samples_stay_in_bounds(self, rtt_s: float) -> None:
        rng = random.Random(1)
        own = at(0.01)
        assert sample_fault(own, at(0.05), rtt_s) is None
        for _ in range(50):
            own = update(own, at(0.05), rtt_s, rng)  # the constructor checks the bounds
        assert own.height >= limits.COORDINATE_HEIGHT_S_MIN

    def test_moves_apart_or_together(self) -> None:
        own, remote = at(0.01), at(0.05)
        near = predict(update(own, remote, 0.01, random.Random(1)), remote)
        far = predict(update(own, remote, 0.2, random.Random(1)), remote)
        assert near < predict(own, remote) < far

    def test_exact_sample_moves_nothing(self) -> None:
        own, remote = at(0.01), at(0.05)
        after = update(own, remote, predict(own, remote), random.Random(1))
        assert after.position == pytest.approx(own.position, abs=1e-12)
        assert after.height == pytest.approx(own.height, abs=1e-12)
        assert after.error < own.error

    def test_equal_points_part_and_one_seed_repeats(self) -> None:
        results = {update(Coordinate(), Coordinate(), 0.1, random.Random(7)) for _ in range(3)}
        assert len(results) == 1
        (after,) = results
        assert math.dist(after.position, Coordinate().position) > 0.001

    def test_a_degenerate_direction_is_drawn_again(self) -> None:
        class Stuck(random.Random):
            draws = 0

            def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
                self.draws += 1
                return 0.0 if self.draws <= DIMENSIONS else 1.0

        rng = Stuck()
        update(Coordinate(), Coordinate(), 0.1, rng)
        assert rng.draws == 2 * DIMENSIONS

    def test_random_numbers_are_drawn_only_to_part(self) -> None:
        rng = random.Random(1)
        state = rng.getstate()
        update(at(0.01), at(0.05), 0.1, rng)
        assert rng.getstate() == state

    def test_a_sure_node_weighs_more(self) -> None:
        remote_sure = update(at(0.0, error=0.5), at(0.05, error=0.05), 0.2, random.Random(1))
        remote_unsure = update(at(0.0, error=0.5), at(0.05, error=1.0), 0.2, random.Random(1))
        assert remote_sure.position[0] < remote_unsure.position[0] < 0.0

    def test_a_claim_of_certainty_has_a_floor(self) -> None:
        floor = at(0.05, error=limits.COORDINATE_ERROR_MIN)
        liar = at(0.05, error=1e-300)
        own = at(0.0, error=limits.COORDINATE_ERROR_MIN)
        assert update(own, liar, 0.2, random.Random(1)) == update(own, floor, 0.2, random.Random(1))

    def test_one_lie_moves_a_placed_node_at_most_50_ms(self) -> None:
        own = at(0.01, error=0.1)
        for liar in (at(9.9, 9.9, height=9.0, error=0.01), at(0.02, error=0.01)):
            for rtt_s in (1e-6, 10.0):
                after = update(own, liar, rtt_s, random.Random(1))
                assert math.dist(own.position, after.position) <= 0.05 + 1e-12
                assert abs(after.height - own.height) <= 0.05 + 1e-12

    def test_components_stop_at_the_bound(self) -> None:
        own = at(9.99, error=1.5)
        after = update(own, at(9.0, error=0.1), 10.0, random.Random(1))
        assert after.position[0] == limits.COORDINATE_S_MAX

    def test_fuzzed_samples_never_raise(self) -> None:
        rng = random.Random(2)
        own = Coordinate()
        for _ in range(2000):
            remote = Coordinate(
                tuple(rng.choice([0.0, -10.0, 10.0, rng.gauss(0, 0.1)]) for _ in range(DIMENSIONS)),
                rng.choice([0.0, 10.0, 0.001]),
                rng.choice([1e-300, 0.01, 1.5]),
            )
            own = update(own, remote, rng.choice([1e-9, 0.01, 0.3, 10.0]), rng)


class TestWire:
    def test_round_trip_within_its_quantum(self) -> None:
        rng = random.Random(3)
        for _ in range(100):
            one = at(
                *(rng.uniform(-10, 10) for _ in range(DIMENSIONS)),
                height=rng.uniform(0, 10),
                error=rng.uniform(0.01, 1.5),
            )
            back = Coordinate.from_wire(one.to_wire())
            assert back.position == pytest.approx(one.position, abs=5.1e-6)
            assert back.height == pytest.approx(one.height, abs=5.1e-6)
            assert back.error == pytest.approx(one.error, abs=5.1e-6)
            assert Coordinate.from_wire(list(back.to_wire())) == back

    def test_tiny_error_survives(self) -> None:
        assert Coordinate.from_wire(at(error=1e-9).to_wire()).error == limits.COORDINATE_ERROR_MIN

    def test_whole_seconds_may_be_integers(self) -> None:
        assert Coordinate.from_wire([0, 1, 0, 0, 0, 1]) == at(0.0, 1.0, height=0.0, error=1.0)

    def test_other_dimensions_on_request(self) -> None:
        assert Coordinate.from_wire((0.1, 0.2, 0.3), 1) == Coordinate((0.1,), 0.2, 0.3)

    @pytest.mark.parametrize(
        "wire",
        [
            None,
            "0.0,0.0",
            b"\x00" * 6,
            {},
            [],
            [0.0] * 5,
            [0.0] * 7,
            [0.0, 0.0, 0.0, NAN, 0.0, 1.0],
            [0.0, 0.0, 0.0, INF, 0.0, 1.0],
            [0.0, 0.0, 0.0, 1e300, 0.0, 1.0],
            [0, 0, 0, 10**400, 0, 1],
            [0.0, 0.0, 0.0, 0.0, -0.1, 1.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 2.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, True],
            [0.0, 0.0, 0.0, 0.0, 0.0, "1"],
            [0.0, 0.0, 0.0, 0.0, None, 1.0],
        ],
    )
    def test_anything_else_is_malformed(self, wire: object) -> None:
        with pytest.raises(MalformedMessage):
            Coordinate.from_wire(wire)
