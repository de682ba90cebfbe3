"""A failure says how to see it again."""

import pytest

from dhtos.errors import DhtosError
from dhtos.sim.failure import SimulationError


def test_the_message_carries_seed_time_trace_replay_and_tail():
    error = SimulationError(
        "two leaders", seed=7, time_s=1.5, trace="ab" * 16, replay="pytest x", tail=["a", "b"]
    )
    assert str(error).splitlines() == [
        "two leaders",
        f"  seed=7 time=1.500000 s trace={'ab' * 16}",
        "  replay: pytest x",
        "  last deliveries:",
        "    a",
        "    b",
    ]
    assert (error.what, error.seed, error.time_s, error.replay) == (
        "two leaders", 7, 1.5, "pytest x",
    )  # fmt: skip


@pytest.mark.parametrize("kind", [DhtosError, AssertionError])
def test_it_is_a_failure_of_ours_and_of_the_test(kind):
    with pytest.raises(kind):
        raise SimulationError("x", seed=0, time_s=0.0, trace="", replay="", tail=())
