"""What a fuzz target is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """`run(data)` says whether the bytes were accepted; what it raises is a fault.

    `samples()` are accepted, every one: what a fuzzer starts from.
    """

    run: Callable[[bytes], bool]
    samples: Callable[[], Sequence[bytes]]
