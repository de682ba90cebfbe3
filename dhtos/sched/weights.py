"""Weights: how much each term of a score counts, and the profiles that people name."""

from dataclasses import dataclass, fields
from difflib import get_close_matches

from dhtos.core.value import is_number
from dhtos.errors import UsageError

WEIGHT_MAX = 1000.0


@dataclass(frozen=True, slots=True)
class Weights:
    """The factor of each term of `dhtos.sched.score`; 0 leaves a term out.

    All terms are costs, so a negative factor turns one round: `fit=-1` wants what is most free.
    """

    fragmentation: float = 0.0
    fit: float = 0.0
    spread: float = 0.0
    near: float = 0.0
    cheap: float = 0.0
    age: float = 0.0
    refused: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not is_number(value) or abs(value) > WEIGHT_MAX:
                raise UsageError(
                    f"weight {field.name} must be a number in -{WEIGHT_MAX:g}..{WEIGHT_MAX:g}, "
                    f"got {value!r}"
                )

    @property
    def factors(self) -> dict[str, float]:
        """By name of the term."""
        return {
            "fragmentation": self.fragmentation,
            "fit": self.fit,
            "spread": self.spread,
            "near": self.near,
            "cheap": self.cheap,
            "age": self.age,
            "refused": self.refused,
        }


PROFILES = {
    "pack": Weights(fragmentation=1.0, fit=0.03, age=0.01, refused=0.5),
    "spread": Weights(spread=4.0, fit=-1.0, age=0.05, refused=0.5),
    "near": Weights(near=1.0, fragmentation=0.05, fit=0.05, age=0.05, refused=0.5),
    "cheap": Weights(cheap=1.0, fragmentation=0.05, fit=0.05, age=0.05, refused=0.5),
}
"""What `Need.prefer` may name: keep large gaps free, keep apart, little delay, little money."""


def weights_of(prefer: str | Weights) -> Weights:
    """The weights behind a preference; raises UsageError with the nearest profile."""
    if isinstance(prefer, Weights):
        return prefer
    profile = PROFILES.get(str(prefer))
    if profile is not None:
        return profile
    near = get_close_matches(str(prefer), PROFILES, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"prefer is one of {', '.join(PROFILES)} or Weights, got {prefer!r}{hint}")
