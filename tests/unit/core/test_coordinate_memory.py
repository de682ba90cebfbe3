"""The memory of measured peers: who stays, what a round trip is, and that it cannot grow."""

import random

import pytest

from dhtos.core.coordinate import Coordinate
from dhtos.core.limits import MEMORY_NEAR, MEMORY_PEERS_MAX, MEMORY_S, MEMORY_SAMPLES_MAX
from dhtos.core.memory import GossipMemory

HERE = Coordinate((0.01, 0.02, 0.03, 0.04, 0.05), 0.001, 0.2)
WIDTH = 8


def peer(number: int) -> tuple[str, int]:
    return (f"10.0.{number >> 8}.{number & 255}", 7400)


def filled(count: int, seed: int = 1) -> GossipMemory:
    """Peers 1 ms, 2 ms, ... away, met in random order."""
    rng = random.Random(seed)
    memory = GossipMemory()
    for number in rng.sample(range(count), count):
        memory.add(peer(number), HERE, (number + 1) / 1000, 0.0, rng)
        memory.check()
    return memory


def test_a_row_holds_what_a_fit_needs() -> None:
    memory = filled(3)
    for slot, one in enumerate(memory.peers()):
        row = memory.rows[slot * WIDTH : (slot + 1) * WIDTH].tolist()
        assert row == [*HERE.position, HERE.height, HERE.error, memory.rtt_s(one)]
    assert len(memory) == 3
    assert peer(2) in memory
    assert peer(3) not in memory
    assert memory.rtt_s(peer(3)) is None


def test_a_sample_again_replaces_the_row() -> None:
    memory = filled(3)
    there = Coordinate((0.5,) * 5, 0.002, 0.1)
    memory.add(peer(1), there, 0.002, 1.0, random.Random(1))
    memory.check()
    assert len(memory) == 3
    slot = memory.peers().index(peer(1))
    assert memory.rows[slot * WIDTH : slot * WIDTH + 7].tolist() == [*[0.5] * 5, 0.002, 0.1]


@pytest.mark.parametrize(
    ("samples", "rtt_s"),
    [
        ([0.02], 0.02),
        ([0.02, 9.0], 0.02),  # of two the lower
        ([9.0, 0.02, 0.03], 0.03),
        ([0.02, 0.021, 9.0, 8.0, 0.022], 0.022),
        ([9.0, 9.0, 9.0, 9.0, 9.0, 0.02, 0.02, 0.02], 0.02),  # the path has changed
    ],
)
def test_a_round_trip_is_the_median_of_the_last(samples: list[float], rtt_s: float) -> None:
    memory = GossipMemory()
    for sample in samples:
        memory.add(peer(0), HERE, sample, 0.0, random.Random(1))
    memory.check()
    assert MEMORY_SAMPLES_MAX == 5
    assert memory.rtt_s(peer(0)) == rtt_s


@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_are_never_displaced(seed: int) -> None:
    memory = filled(1000, seed)
    assert len(memory) == MEMORY_PEERS_MAX
    nearest = memory.nearest(MEMORY_NEAR)
    assert [one for _, one in nearest] == [peer(n) for n in range(MEMORY_NEAR)]
    assert nearest[0] == (0.001, peer(0))


def test_the_far_are_a_sample_of_all_distances() -> None:
    far = [rtt_s for seed in range(6) for rtt_s, _ in filled(300, seed).nearest(999)[MEMORY_NEAR:]]
    mean = sum(far) / len(far)
    print(f"seeds 0..5: {len(far)} far ones, {mean} s away on average")
    assert abs(mean - (MEMORY_NEAR + 300) / 2000) < 0.015


def test_strangers_without_end_take_no_more_room() -> None:
    rng = random.Random(1)
    memory = GossipMemory()
    for number in range(1_000):
        memory.add(("192.0.2.1", number), HERE, rng.uniform(0.001, 0.3), 0.0, rng)
    memory.check()
    assert len(memory) == MEMORY_PEERS_MAX
    assert len(memory.rows) == MEMORY_PEERS_MAX * WIDTH


def test_one_peer_many_times_is_one_peer() -> None:
    memory = GossipMemory()
    for _ in range(500):
        memory.add(peer(0), HERE, 0.01, 0.0, random.Random(1))
    memory.check()
    assert len(memory) == 1


def test_forgetting_keeps_the_rest() -> None:
    memory = filled(5)
    for number in (2, 0, 4, 7):
        memory.forget(peer(number))
        memory.check()
    assert sorted(memory.peers()) == [peer(1), peer(3)]
    assert [rtt_s for rtt_s, _ in memory.nearest(9)] == [0.002, 0.004]
    memory.forget(peer(1))
    memory.forget(peer(3))
    assert len(memory) == len(memory.rows) == 0
    assert memory.nearest(3) == []


def test_who_is_never_heard_again_is_forgotten() -> None:
    memory = filled(5)
    rng = random.Random(1)
    memory.add(peer(0), HERE, 0.001, MEMORY_S, rng)
    assert len(memory) == 5, "as old as may be"
    memory.add(peer(0), HERE, 0.001, MEMORY_S + 1, rng)
    memory.check()
    assert memory.peers() == [peer(0)]


def test_a_clock_that_jumps_back_forgets_nobody() -> None:
    memory = filled(5)
    memory.add(peer(0), HERE, 0.001, -1e9, random.Random(1))
    memory.check()
    assert len(memory) == 5


def test_one_seed_repeats() -> None:
    assert filled(500, 3).peers() == filled(500, 3).peers()
    assert filled(500, 3).peers() != filled(500, 4).peers()


@pytest.mark.parametrize("dimensions", [1, 8])
def test_other_dimensions(dimensions: int) -> None:
    memory = GossipMemory(dimensions)
    memory.add(peer(0), Coordinate((0.1,) * dimensions), 0.01, 0.0, random.Random(1))
    memory.check()
    with pytest.raises(AssertionError):
        memory.add(peer(1), HERE, 0.01, 0.0, random.Random(1))
