"""Scores: each cost says what it is called after, between sensible ends."""

import pytest

from dhtos.core.limits import NODE_HEARTBEAT_S
from dhtos.sched import Candidate, Context, Demand, Need, StandardScorer

NODE = bytes(20)
NEED = Need(cores=2)
TERMS = ("fragmentation", "fit", "spread", "near", "cheap", "age", "refused")


def machine(cores_free=8.0, **more):
    return Candidate(NODE, {"cores": 8, "mem": 16}, {"cores": cores_free, "mem": 16}, **more)


def cost(name, candidate, need=NEED, **context):
    return StandardScorer().terms(need, candidate, Context(**context))[name]


def test_the_terms():
    assert tuple(StandardScorer().terms(NEED, machine(), Context())) == TERMS


def test_without_context_only_the_machine_counts():
    terms = StandardScorer().terms(NEED, machine(price=3.0, rtt_s=0.1), Context())
    assert set(terms.values()) == {0.0}


def test_fragmentation_is_that_of_demand():
    measure = Demand([Need(cores=4)] * 10).fragmentation()
    assert cost("fragmentation", machine(5), fragmentation=measure) == pytest.approx(3 / 4)
    assert cost("fragmentation", machine(8), fragmentation=measure) == 0


def test_fit_is_what_stays_free_of_the_largest_machine():
    largest = {"cores": 16.0, "mem": 16.0}
    assert cost("fit", machine(2), largest=largest) == pytest.approx((0 + 1) / 2)
    assert cost("fit", machine(8), largest=largest) == pytest.approx((6 / 16 + 1) / 2)
    assert cost("fit", machine(2), Need(cores=2, mem=16), largest=largest) == 0
    assert cost("fit", machine(8), largest={**largest, "gpus": 8.0}) == pytest.approx(
        (6 / 16 + 1 + 0) / 3
    )


def test_spread_is_the_share_of_members_in_the_domain():
    placed = {"a": 3, "b": 1}
    assert cost("spread", machine(domain="a"), placed=placed) == 0.75
    assert cost("spread", machine(domain="b"), placed=placed) == 0.25
    assert cost("spread", machine(domain="c"), placed=placed) == 0
    assert cost("spread", machine(domain="a")) == 0


@pytest.mark.parametrize(
    ("name", "field", "most"), [("near", "rtt_s", "rtt_s_max"), ("cheap", "price", "price_max")]
)
def test_near_and_cheap_are_relative_to_the_worst(name, field, most):
    assert cost(name, machine(**{field: 0.25}), **{most: 0.5}) == 0.5
    assert cost(name, machine(**{field: 0.0}), **{most: 0.5}) == 0
    assert cost(name, machine(), **{most: 0.5}) == 1.0
    assert cost(name, machine(**{field: 0.0}), **{most: 0.0}) == 0


def test_age_ends_at_one():
    assert cost("age", machine(age_s=NODE_HEARTBEAT_S / 4)) == 0.25
    assert cost("age", machine(age_s=100 * NODE_HEARTBEAT_S)) == 1.0


def test_refusals_count_less_each_time():
    found = [cost("refused", machine(refusals=n)) for n in (0, 1, 2, 50)]
    assert found[:3] == [0, 0.5, 0.75]
    assert found[3] == pytest.approx(1)
