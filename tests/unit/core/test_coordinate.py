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
    def test_fourteen_bytes(self) -> None:
        assert len(Coordinate().to_bytes()) == 14
        assert len(Coordinate((0.0,) * 8).to_bytes()) == 20

    @pytest.mark.parametrize(("spread_s", "grain_s"), [(0.001, 4e-6), (0.1, 35e-6), (10.0, 4e-4)])
    def test_round_trip_within_its_grain(self, spread_s: float, grain_s: float) -> None:
        """The nearer, the finer: half a step of a root is the root of the length."""
        rng = random.Random(3)
        for _ in range(200):
            one = at(
                *(rng.uniform(-spread_s, spread_s) for _ in range(DIMENSIONS)),
                height=rng.uniform(0, spread_s),
                error=rng.uniform(0.01, 1.5),
            )
            back = Coordinate.from_bytes(one.to_bytes())
            assert back.position == pytest.approx(one.position, abs=grain_s)
            assert back.height == pytest.approx(one.height, abs=grain_s)
            assert back.error == pytest.approx(one.error, rel=0.012)

    def test_what_was_sent_once_never_changes_again(self) -> None:
        rng = random.Random(4)
        for _ in range(500):
            one = at(
                *(rng.gauss(0, 0.1) for _ in range(DIMENSIONS)),
                height=rng.expovariate(100),
                error=rng.uniform(0.001, 1.5),
            )
            sent = one.to_bytes()
            back = Coordinate.from_bytes(sent)
            assert back.to_bytes() == sent
            assert back.to_wire() == (*back.position, back.height, back.error)
            assert Coordinate.from_wire(one.to_wire()) == back
            assert Coordinate.from_wire(list(one.to_wire())) == back

    def test_bounds_survive(self) -> None:
        edge = Coordinate((10.0, -10.0, 0.0, 10.0, -10.0), 10.0, 1.5)
        assert Coordinate.from_bytes(edge.to_bytes()) == edge

    def test_every_byte_of_the_error_is_within_bounds(self) -> None:
        head = Coordinate().to_bytes()[:-1]
        errors = [Coordinate.from_bytes(head + bytes([byte])).error for byte in range(256)]
        assert errors == sorted(set(errors))
        assert (errors[0], errors[-1]) == (
            limits.COORDINATE_ERROR_MIN,
            limits.COORDINATE_ERROR_MAX,
        )

    def test_tiny_error_has_a_floor(self) -> None:
        assert Coordinate.from_wire(at(error=1e-9).to_wire()).error == limits.COORDINATE_ERROR_MIN

    def test_whole_seconds_may_be_integers(self) -> None:
        assert Coordinate.from_wire([0, 1, 0, 0, 0, 0, 1]) == at(0.0, 1.0, height=0.0, error=1.0)

    def test_a_peer_may_use_other_dimensions(self) -> None:
        assert Coordinate.from_wire((0.1, 0.2, 0.3)) == Coordinate((0.1,), 0.2, 0.3)
        for dimensions in range(1, 9):
            one = Coordinate((0.0,) * dimensions, 0.0, 1.5)
            assert Coordinate.from_bytes(one.to_bytes()) == one

    @pytest.mark.parametrize(
        "wire",
        [
            None,
            "0.0,0.0",
            b"\x00" * 7,
            {},
            [],
            [0.0, 1.0],
            [0.0] * 10 + [1.0],
            [0.0, 0.0, 0.0, NAN, 0.0, 1.0],
            [0.0, 0.0, 0.0, INF, 0.0, 1.0],
            [0.0, 0.0, 0.0, 1e300, 0.0, 1.0],
            [0, 0, 0, 10**400, 0, 1],
            [0.0, 0.0, 0.0, 0.0, -0.1, 1.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, -0.1],
            [0.0, 0.0, 0.0, 0.0, 0.0, 2.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, True],
            [0.0, 0.0, 0.0, 0.0, 0.0, "1"],
            [0.0, 0.0, 0.0, 0.0, None, 1.0],
        ],
    )
    def test_anything_else_is_malformed(self, wire: object) -> None:
        with pytest.raises(MalformedMessage):
            Coordinate.from_wire(wire)

    @pytest.mark.parametrize(
        "packed",
        [
            b"",
            b"\x05",
            Coordinate().to_bytes()[:-1],
            Coordinate().to_bytes() + b"\x00",
            b"\x00" + bytes(3),
            b"\x04" + bytes(13),
            b"\x09" + bytes(21),
            b"\x05\x80\x00" + bytes(11),
        ],
    )
    def test_other_bytes_are_malformed(self, packed: bytes) -> None:
        with pytest.raises(MalformedMessage, match="packed coordinate"):
            Coordinate.from_bytes(packed)

    def test_fuzzed_bytes_are_a_coordinate_or_malformed(self) -> None:
        rng = random.Random(5)
        good = 0
        for _ in range(20_000):
            packed = bytes([rng.choice((5, 5, 5, 4, 255))]) + rng.randbytes(
                rng.choice((13, 13, 11))
            )
            try:
                one = Coordinate.from_bytes(packed)
            except MalformedMessage:
                continue
            good += 1
            assert one.to_bytes() == packed
        assert good > 5_000
