"""Offers: the best of a few, kept true by what machines say they have left."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhtos.sched import Candidate, Demand, Need, Offers, rank

SEED = 11
NEED = Need(cores=4)


def machine(name, free=8.0, cores=16.0, **more):
    return Candidate(name.encode(), {"cores": cores}, {"cores": free}, **more)


def chosen(offers, count=8, of=16, seed=SEED):
    return [one.node_id.decode() for one in offers.choose(count, of, rng=Random(seed))]


@pytest.fixture
def offers():
    return Offers(NEED, [machine("tight", 4), machine("half", 8), machine("empty", 16)])


def test_the_best_come_first_and_no_more_than_asked_for(offers):
    assert chosen(offers) == ["tight", "half", "empty"]
    assert chosen(offers, count=2) == ["tight", "half"]
    assert chosen(Offers(NEED, [])) == []


def test_who_cannot_is_refused_with_the_reason():
    offers = Offers(NEED, [machine("full", 1), machine("able", 4)])
    assert len(offers) == 1
    assert [one.reason.partition(":")[0] for one in offers.refused] == ["cores"]


def test_the_best_of_a_few_is_another_one_each_time():
    offers = Offers(NEED, [machine(str(n), 4 + n / 10) for n in range(64)])
    best_of_all = {chosen(offers, 1, 64, seed)[0] for seed in range(50)}
    best_of_four = {chosen(offers, 1, 4, seed)[0] for seed in range(50)}
    assert best_of_all == {"0"}
    assert len(best_of_four) > 15


def test_equals_are_in_random_order():
    offers = Offers(NEED, [machine(name) for name in "abc"])
    assert {chosen(offers, 1, seed=seed)[0] for seed in range(30)} == {"a", "b", "c"}


def test_a_machine_that_is_asked_counts_as_having_granted(offers):
    offers.expect(b"tight")
    assert chosen(offers) == ["half", "empty"]
    offers.expect(b"half")
    assert chosen(offers) == ["half", "empty"]  # it has four left, the tightest fit now
    assert [(one.node_id, one.free["cores"]) for one in offers.candidates()] == [
        (b"half", 4.0), (b"empty", 16.0),
    ]  # fmt: skip
    offers.expect(b"nobody")
    offers.check()


def test_what_a_machine_says_is_believed(offers):
    offers.expect(b"tight")
    offers.told(b"tight", {"cores": 4.0})  # it refused, or somebody gave back
    assert chosen(offers)[0] == "tight"
    offers.told(b"half", {"cores": 0.0})
    assert chosen(offers) == ["tight", "empty"]
    offers.told(b"empty", {})  # says nothing of cores
    assert chosen(offers) == ["tight", "empty"]
    offers.told(b"nobody", {"cores": 64.0})
    assert len(offers) == 2
    offers.check()


def test_who_is_forgotten_does_not_come_back(offers):
    offers.forget(b"tight")
    offers.told(b"tight", {"cores": 16.0})
    offers.forget(b"nobody")
    assert chosen(offers) == ["half", "empty"]


@given(
    st.lists(st.tuples(st.integers(0, 16), st.floats(0, 1)), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.none() | st.integers(0, 16)), max_size=20),
)
def test_offers_are_what_a_new_ranking_would_say(machines, events):
    """Whatever is asked and told, offers agree with those made anew of the same machines."""
    demand = Demand([NEED, Need(cores=1)])
    known = [machine(str(n), float(free), price=price) for n, (free, price) in enumerate(machines)]
    offers = Offers(NEED, known, demand=demand)
    free = {one.node_id: dict(one.free) for one in known}
    for n, told in events:
        node_id = str(n).encode()
        if told is None:
            if node_id in free and free[node_id]["cores"] >= 4:
                free[node_id]["cores"] -= 4
            offers.expect(node_id)
        else:
            if node_id in free:
                free[node_id]["cores"] = float(told)
            offers.told(node_id, {"cores": float(told)})
        offers.check()
    now = [
        machine(one.node_id.decode(), free[one.node_id]["cores"], price=one.price) for one in known
    ]
    ranking = rank(NEED, now, rng=Random(SEED), demand=demand)
    assert {one.candidate.node_id for one in ranking.ranked} == {
        one.node_id for one in offers.choose(len(known), len(known), rng=Random(SEED))
    }
