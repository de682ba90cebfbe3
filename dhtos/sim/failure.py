"""How a simulation says that something is wrong: with everything needed to see it again."""

from collections.abc import Sequence

from dhtos.errors import DhtosError


class SimulationError(DhtosError, AssertionError):
    """A simulated run broke a promise; carries the seed, the moment and the trace.

    It is an AssertionError too, so that a test runner reports a failure and not an error.
    """

    def __init__(
        self, what: str, *, seed: int, time_s: float, trace: str, replay: str, tail: Sequence[str]
    ) -> None:
        self.what = what
        self.seed = seed
        self.time_s = time_s
        self.trace = trace
        self.replay = replay
        lines = [what, f"  seed={seed} time={time_s:.6f} s trace={trace}", f"  replay: {replay}"]
        if tail:
            lines += ["  last deliveries:", *(f"    {line}" for line in tail)]
        super().__init__("\n".join(lines))
