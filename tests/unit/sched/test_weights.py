"""Weights: the factors of terms, and what a preference stands for."""

import pytest

from dhtos.errors import UsageError
from dhtos.sched import PROFILES, Weights
from dhtos.sched.weights import WEIGHT_MAX, weights_of


def test_profiles_care_for_what_they_are_called():
    assert PROFILES["pack"].fragmentation > 0
    assert PROFILES["pack"].fit > 0
    assert PROFILES["spread"].spread > 0 > PROFILES["spread"].fit
    for name in ("near", "cheap"):
        weights = PROFILES[name].factors
        assert max(weights, key=weights.get) == name


def test_everybody_shuns_who_refused():
    assert all(weights.refused > 0 for weights in PROFILES.values())


def test_factors_are_the_fields():
    weights = Weights(1, 2, 3, 4, 5, 6, 7)
    assert list(weights.factors.values()) == [1, 2, 3, 4, 5, 6, 7]
    assert all(getattr(weights, name) == factor for name, factor in weights.factors.items())
    assert set(weights.factors) == set(Weights.__dataclass_fields__)


def test_a_preference_is_a_profile_or_weights():
    own = Weights(near=2)
    assert weights_of(own) is own
    assert weights_of("cheap") is PROFILES["cheap"]


@pytest.mark.parametrize("prefer", ["chaep", "", None, ["pack"]])
def test_unknown_profiles_are_refused(prefer):
    with pytest.raises(UsageError, match="prefer is one of pack, spread, near, cheap or Weights"):
        weights_of(prefer)
    if prefer == "chaep":
        with pytest.raises(UsageError, match="did you mean 'cheap'"):
            weights_of(prefer)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", True, WEIGHT_MAX * 1.01])
def test_a_weight_is_a_bounded_number(value):
    with pytest.raises(UsageError, match=r"weight near must be .* -1000\.\.1000, got"):
        Weights(near=value)
    assert Weights(near=-WEIGHT_MAX).near == -WEIGHT_MAX
