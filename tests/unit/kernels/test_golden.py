"""Golden vectors and refusals: what both builds of every kernel must answer, byte for byte."""

import importlib
from array import array
from itertools import pairwise
from types import ModuleType

import pytest

BUILDS = ["reference", "compiled"]


def load(build: str, name: str) -> ModuleType:
    if build == "reference":
        return importlib.import_module(f"dhtos._reference.{name}")
    return pytest.importorskip(f"dhtos._ext._{name}", reason="built with DHTOS_PURE=1")


@pytest.fixture(params=BUILDS)
def xor(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param, "xor")


@pytest.fixture(params=BUILDS)
def morton(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param, "morton")


@pytest.fixture(params=BUILDS)
def hilbert(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param, "hilbert")


@pytest.fixture(params=BUILDS)
def refit(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param, "refit")


@pytest.fixture(params=BUILDS)
def vivaldi(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param, "vivaldi")


def make_id(tail: int) -> bytes:
    return tail.to_bytes(20)


class TestXor:
    def test_closest_first(self, xor: ModuleType) -> None:
        table = b"".join(map(make_id, [9, 1, 6, 4, 2]))
        assert xor.k_closest(table, make_id(5), 3) == [3, 2, 1]  # distances 12, 4, 3, 1, 7

    def test_every_byte_counts(self, xor: ModuleType) -> None:
        for byte in range(20):
            near = bytes(20)
            far = bytes(byte) + b"\x01" + bytes(19 - byte)
            assert xor.k_closest(far + near, bytes(20), 2) == [1, 0]

    def test_equal_ids_keep_their_order(self, xor: ModuleType) -> None:
        assert xor.k_closest(make_id(7) * 5, make_id(7), 3) == [0, 1, 2]

    @pytest.mark.parametrize("k", [-1, 0])
    def test_none_wanted(self, xor: ModuleType, k: int) -> None:
        assert xor.k_closest(make_id(7), make_id(1), k) == []

    def test_more_than_there_are(self, xor: ModuleType) -> None:
        assert xor.k_closest(b"", make_id(1), 20) == []
        table = b"".join(make_id(tail) for tail in range(200))
        assert xor.k_closest(table, bytes(20), 500) == list(range(200))

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_buffer(self, xor: ModuleType, kind: type) -> None:
        assert xor.k_closest(kind(make_id(3) + make_id(2)), make_id(2), 1) == [1]

    @pytest.mark.parametrize("size", [0, 19, 21])
    def test_odd_sizes_are_refused(self, xor: ModuleType, size: int) -> None:
        with pytest.raises(ValueError, match="20 bytes"):
            xor.k_closest(make_id(1), bytes(size), 1)
        if size:
            with pytest.raises(ValueError, match="20 bytes"):
                xor.k_closest(bytes(size), make_id(1), 1)

    @pytest.mark.parametrize(
        ("a", "b", "bits"),
        [
            (b"", b"", 0),
            (b"\x00", b"\x80", 0),
            (b"\x00", b"\x01", 7),
            (b"\xff\xff", b"\xff\xff", 16),
            (bytes(20), make_id(1), 159),
            (bytes(20), b"\x00\x10" + bytes(18), 11),
        ],
    )
    def test_common_prefix_bits(self, xor: ModuleType, a: bytes, b: bytes, bits: int) -> None:
        assert xor.common_prefix_bits(a, b) == bits
        assert xor.common_prefix_bits(b, a) == bits

    def test_prefixes_of_two_sizes_are_refused(self, xor: ModuleType) -> None:
        with pytest.raises(ValueError, match="one size"):
            xor.common_prefix_bits(b"a", b"ab")


class TestMorton:
    BITS = (3, 2)
    SCHEDULE = b"\x00\x01\x00\x01\x00"

    def test_encode(self, morton: ModuleType) -> None:
        assert morton.morton_encode([0b101, 0b01], self.BITS, self.SCHEDULE) == b"\x98"  # 10011
        assert morton.morton_encode((7, 3), [3, 2], self.SCHEDULE) == b"\xf8"
        assert morton.morton_encode([], [], b"") == b""

    def test_nine_bits_take_two_bytes(self, morton: ModuleType) -> None:
        assert morton.morton_encode([0b100000001], [9], bytes(9)) == b"\x80\x80"

    def test_decode(self, morton: ModuleType) -> None:
        assert morton.morton_decode(b"\x98", self.BITS, self.SCHEDULE) == [0b101, 0b01]
        assert morton.morton_decode(b"\x9f", self.BITS, self.SCHEDULE) == [0b101, 0b01]

    def test_widest_cells(self, morton: ModuleType) -> None:
        bits, schedule = (32, 32), b"\x00\x01" * 32
        cells = [2**32 - 1, 1]
        key = morton.morton_encode(cells, bits, schedule)
        assert morton.morton_decode(key, bits, schedule) == cells

    @pytest.mark.parametrize(
        ("length", "offset", "box"),
        [
            (0, 0, [(0, 7), (0, 3)]),
            (1, 0, [(4, 7), (0, 3)]),
            (3, 0, [(4, 5), (0, 1)]),
            (5, 0, [(5, 5), (1, 1)]),
            (160, 0, [(5, 5), (1, 1)]),
            (2, 2, [(0, 7), (0, 3)]),
            (1, 2, [(0, 7), (0, 3)]),
        ],
    )
    def test_prefix_box(
        self, morton: ModuleType, length: int, offset: int, box: list[tuple[int, int]]
    ) -> None:
        assert morton.prefix_box(b"\x98", length, self.BITS, self.SCHEDULE, offset) == box

    def test_offset_skips_bits(self, morton: ModuleType) -> None:
        key = (0b11_10011_0).to_bytes(1)
        assert morton.prefix_box(key, 5, self.BITS, self.SCHEDULE, 2) == [(4, 5), (0, 1)]

    @pytest.mark.parametrize(
        ("lows", "highs", "meets"),
        [
            ([0, 0], [7, 3], True),
            ([5, 1], [5, 1], True),
            ([6, 0], [7, 3], False),
            ([0, 2], [7, 3], False),
            ([0, 0], [3, 3], False),
            ([5, 0], [4, 3], False),
            ([-(2**63), 0], [2**63 - 1, 0], True),
        ],
    )
    def test_box_intersects(
        self, morton: ModuleType, lows: list[int], highs: list[int], meets: bool
    ) -> None:
        args = (b"\x98", 3, self.BITS, self.SCHEDULE, 0)
        assert morton.box_intersects(*args, lows, highs) is meets

    @pytest.mark.parametrize(
        ("bits", "schedule", "message"),
        [
            ((3, 1), SCHEDULE, "attribute 1 has 1 bits"),
            ((3,), SCHEDULE, "names attribute 1 of 1"),
            ((-1, 2), SCHEDULE, "0..32 bits, got -1"),
            ((33,), bytes(33), "0..32 bits, got 33"),
            ((0,) * 65, b"", "at most 64 attributes"),
            ((32,) * 9, bytes(range(9)) * 32, "at most 256 bits"),
        ],
    )
    def test_bad_schedules_are_refused(
        self, morton: ModuleType, bits: tuple[int, ...], schedule: bytes, message: str
    ) -> None:
        cells = [0] * len(bits)
        for call in (
            lambda: morton.morton_encode(cells, bits, schedule),
            lambda: morton.morton_decode(bytes(64), bits, schedule),
            lambda: morton.prefix_box(bytes(64), 1, bits, schedule, 0),
            lambda: morton.box_intersects(bytes(64), 1, bits, schedule, 0, cells, cells),
        ):
            with pytest.raises(ValueError, match=message):
                call()

    @pytest.mark.parametrize("cells", [[8, 0], [0, 4], [-1, 0], [2**64, 0], [1], [1, 1, 1]])
    def test_bad_cells_are_refused(self, morton: ModuleType, cells: list[int]) -> None:
        with pytest.raises(ValueError, match=r"cell|fit"):
            morton.morton_encode(cells, self.BITS, self.SCHEDULE)

    @pytest.mark.parametrize(("length", "offset"), [(-1, 0), (1, -1), (9, 4), (30, 8)])
    def test_bad_prefixes_are_refused(self, morton: ModuleType, length: int, offset: int) -> None:
        with pytest.raises(ValueError, match=r"at least 0|bits of the key"):
            morton.prefix_box(b"\x98", length, self.BITS, self.SCHEDULE, offset)

    def test_bounds_for_every_attribute(self, morton: ModuleType) -> None:
        args = (b"\x98", 3, self.BITS, self.SCHEDULE, 0)
        for lows, highs in (([0], [1, 1]), ([0, 0], [1, 1, 1])):
            with pytest.raises(ValueError, match="bounds"):
                morton.box_intersects(*args, lows, highs)


class TestHilbert:
    def test_first_curve_of_the_plane(self, hilbert: ModuleType) -> None:
        assert [hilbert.hilbert_decode(i, 2, 1) for i in range(4)] == [
            [0, 0],
            [0, 1],
            [1, 1],
            [1, 0],
        ]

    @pytest.mark.parametrize(("dimensions", "bits"), [(1, 4), (2, 3), (3, 2), (4, 2)])
    def test_neighbours_on_the_curve_touch(
        self, hilbert: ModuleType, dimensions: int, bits: int
    ) -> None:
        points = [
            hilbert.hilbert_decode(i, dimensions, bits) for i in range(1 << dimensions * bits)
        ]
        assert len(set(map(tuple, points))) == len(points)
        for index, point in enumerate(points):
            assert hilbert.hilbert_encode(point, bits) == index
        for here, there in pairwise(points):
            assert sum(abs(a - b) for a, b in zip(here, there, strict=True)) == 1

    def test_widest_point(self, hilbert: ModuleType) -> None:
        point = [2**32 - 1] * 64
        index = hilbert.hilbert_encode(point, 32)
        assert 0 <= index < 1 << 64 * 32
        assert hilbert.hilbert_decode(index, 64, 32) == point

    @pytest.mark.parametrize(
        ("cells", "bits"), [([], 3), ([0] * 65, 3), ([1], 0), ([1], 33), ([8], 3), ([-1], 3)]
    )
    def test_bad_points_are_refused(self, hilbert: ModuleType, cells: list[int], bits: int) -> None:
        with pytest.raises(ValueError, match=r"dimensions|bits"):
            hilbert.hilbert_encode(cells, bits)

    def test_numbers_beyond_any_width_are_refused(self, hilbert: ModuleType) -> None:
        with pytest.raises(ValueError, match="does not fit"):
            hilbert.hilbert_encode([2**70], 3)

    @pytest.mark.parametrize("index", [-1, 64, 2**80])
    def test_bad_positions_are_refused(self, hilbert: ModuleType, index: int) -> None:
        with pytest.raises(ValueError, match="does not fit in 6 bits"):
            hilbert.hilbert_decode(index, 2, 3)


class TestVivaldi:
    def test_a_longer_sample_pushes_away(self, vivaldi: ModuleType) -> None:
        # predicted 0.5 + 0 + 0; w = 1/2, es = 1/2, delta = 1/8, force = 1/8 * 0.5
        moved, height, error = vivaldi.vivaldi_update(
            (0.3, 0.4), 0.0, 1.0, (0.0, 0.0), 0.0, 1.0, 1.0, 0.25, 0.25, (0.0, 0.0)
        )
        assert moved == pytest.approx((0.3375, 0.45))
        assert height == 0.0
        assert error == pytest.approx(0.5 * 0.25 * 0.5 + 1.0 * (1 - 0.25 * 0.5))

    def test_heights_take_their_share(self, vivaldi: ModuleType) -> None:
        moved, height, _ = vivaldi.vivaldi_update(
            (0.5,), 0.25, 1.0, (0.0,), 0.25, 1.0, 2.0, 0.25, 0.25, (0.0,)
        )
        assert moved == pytest.approx((0.5625,))
        assert height == pytest.approx(0.3125)

    def test_equal_points_part_along_the_jitter(self, vivaldi: ModuleType) -> None:
        moved, height, _ = vivaldi.vivaldi_update(
            (0.1, 0.1), 0.01, 1.0, (0.1, 0.1), 0.01, 1.0, 0.1, 0.25, 0.25, (0.0, 1.0)
        )
        assert moved == pytest.approx((0.1, 0.11))
        assert height == 0.01

    def test_exact_sample_moves_nothing(self, vivaldi: ModuleType) -> None:
        moved, height, error = vivaldi.vivaldi_update(
            (3.0, 4.0), 1.0, 0.5, (0.0, 0.0), 1.0, 0.5, 7.0, 0.25, 0.25, (0.0, 0.0)
        )
        assert (moved, height) == ((3.0, 4.0), 1.0)
        assert error < 0.5

    @pytest.mark.parametrize(
        "change",
        [
            {"position": ()},
            {"position": (0.0,) * 17},
            {"remote_position": (0.0,)},
            {"jitter_direction": (0.0,) * 3},
            {"height": -1.0},
            {"remote_height": float("nan")},
            {"rtt": 0.0},
            {"rtt": float("nan")},
            {"error": 0.0, "remote_error": 0.0},
        ],
    )
    def test_bad_numbers_are_refused(
        self, vivaldi: ModuleType, change: dict[str, tuple[float, ...] | float]
    ) -> None:
        sample = {
            "position": (0.0, 0.0),
            "height": 0.0,
            "error": 1.0,
            "remote_position": (0.0, 1.0),
            "remote_height": 0.0,
            "remote_error": 1.0,
            "rtt": 0.1,
            "cc": 0.25,
            "ce": 0.25,
            "jitter_direction": (1.0, 0.0),
        }
        vivaldi.vivaldi_update(**sample)
        with pytest.raises(ValueError, match=r"dimensions|vectors|heights|above 0"):
            vivaldi.vivaldi_update(**sample | change)


class TestRefit:
    # A square of 40 ms around the middle, each corner with a height of 2 ms.
    CORNERS = ((0.02, 0.02), (0.02, -0.02), (-0.02, 0.02), (-0.02, -0.02))

    def rows(self, rtt: float, error: float = 0.1) -> "array[float]":
        return array("d", [x for at in self.CORNERS for x in (*at, 0.002, error, rtt)])

    def test_an_exact_place_stays(self, refit: ModuleType) -> None:
        rtt = 0.02 * 2**0.5 + 0.002 + 0.003
        place, cost, error = refit.refit((0.0, 0.0, 0.003), self.rows(rtt), 4, 5, 1e-5, 0.05)
        assert place == pytest.approx((0.0, 0.0, 0.003), abs=1e-12)
        assert (cost, error) == pytest.approx((0.0, 0.0), abs=1e-9)

    def test_no_steps_only_judge(self, refit: ModuleType) -> None:
        rtt = 0.02 * 2**0.5 + 0.002 + 0.001  # 10 % and 1 ms less than predicted
        place, cost, error = refit.refit((0.0, 0.0, 0.002), self.rows(rtt), 4, 0, 1e-5, 0.05)
        assert place == (0.0, 0.0, 0.002)
        assert error == pytest.approx(0.001 / rtt)
        assert cost == pytest.approx(0.001 / rtt**0.5)

    def test_steps_find_the_place(self, refit: ModuleType) -> None:
        rtt = 0.02 * 2**0.5 + 0.002 + 0.003
        place, cost, _ = refit.refit((0.015, 0.01, 1e-5), self.rows(rtt), 4, 60, 1e-5, 0.05)
        assert place == pytest.approx((0.0, 0.0, 0.003), abs=1e-5)
        assert cost < 1e-3

    def test_a_height_never_falls_below_its_least(self, refit: ModuleType) -> None:
        place, _, _ = refit.refit((0.0, 0.0, 0.01), self.rows(0.001), 4, 40, 1e-5, 0.05)
        assert place[2] == 1e-5

    def test_one_step_is_bounded(self, refit: ModuleType) -> None:
        place, _, _ = refit.refit((3.0, 4.0, 0.5), self.rows(0.03), 4, 1, 1e-5, 0.05)
        assert 0.0 < 5.0 - (place[0] ** 2 + place[1] ** 2) ** 0.5 <= 0.05 + 1e-12
        assert abs(place[2] - 0.5) <= 0.05 + 1e-12

    def test_one_that_contradicts_all_others_has_no_say(self, refit: ModuleType) -> None:
        rtt = 0.02 * 2**0.5 + 0.002 + 0.003
        honest = self.rows(rtt)
        for lie in ((5.0, 5.0, 0.0, 0.01, 0.01), (0.0, 0.0, 0.0, 0.01, 9.0)):
            place, _, _ = refit.refit(
                (0.001, 0.0, 0.003), honest + array("d", lie), 5, 40, 1e-5, 0.05
            )
            assert place == pytest.approx((0.0, 0.0, 0.003), abs=2e-4)

    def test_nobody_is_surer_than_a_tenth(self, refit: ModuleType) -> None:
        start = (0.01, 0.0, 0.003)
        sure, floor, unsure = (
            refit.refit(start, self.rows(0.03)[:10] + self.rows(0.05, error)[10:], 4, 1, 1e-5, 0.05)
            for error in (1e-9, 0.1, 0.5)
        )
        assert sure == floor
        assert sure != unsure

    def test_nobody_is_surer_than_the_median_peer(self, refit: ModuleType) -> None:
        """One liar that is certain among three that know nothing."""
        start = (0.01, 0.0, 0.003)
        lost = self.rows(0.03, 1.5)
        certain = array("d", [0.02, 0.02, 0.002, 0.01, 0.03]) + lost[5:]
        assert refit.refit(start, certain, 4, 1, 1e-5, 0.05) == refit.refit(
            start, lost, 4, 1, 1e-5, 0.05
        )

    def test_only_the_first_rows_count(self, refit: ModuleType) -> None:
        rows = self.rows(0.03)
        assert refit.refit((0.0, 0.0, 0.0), rows, 2, 3, 1e-5, 0.05) == refit.refit(
            (0.0, 0.0, 0.0), rows[:10], 2, 3, 1e-5, 0.05
        )

    def test_bad_sizes_are_refused(self, refit: ModuleType) -> None:
        rows = self.rows(0.03)
        for own in ((), (0.0,), (0.0,) * 18):
            with pytest.raises(ValueError, match="a height"):
                refit.refit(own, rows, 1, 1, 1e-5, 0.05)
        for count in (-1, 0, 257):
            with pytest.raises(ValueError, match="peers"):
                refit.refit((0.0, 0.0, 0.0), rows, count, 1, 1e-5, 0.05)
        with pytest.raises(ValueError, match="5 rows of 5 numbers are wanted, got 20 numbers"):
            refit.refit((0.0, 0.0, 0.0), rows, 5, 1, 1e-5, 0.05)

    def test_batch(self, refit: ModuleType) -> None:
        columns = array("f", [3.0, 0.0, 4.0, 0.0, 0.5, 0.25])  # (3, 4) and (0, 0), their heights
        assert refit.batch_rtt((0.0, 0.0, 1.0), columns) == array("f", [6.5, 1.25])
        assert refit.batch_rtt((0.0, 0.0, 1.0), array("f")) == array("f")

    def test_odd_columns_are_refused(self, refit: ModuleType) -> None:
        with pytest.raises(ValueError, match="3 columns of one length are wanted, got 4"):
            refit.batch_rtt((0.0, 0.0, 1.0), array("f", [1.0] * 4))
        for width in (0, 1, 18):
            with pytest.raises(ValueError, match="a height"):
                refit.batch_rtt((0.0,) * width, array("f"))
