"""Ranking: who can, who is best under each profile, why the others cannot."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from dhtos.sched import PROFILES, Candidate, Demand, Need, Refused, Weights, rank, why
from dhtos.sched.rank import context_of

SEED = 7


def machine(name, free=8.0, **more):
    return Candidate(name.encode(), {"cores": 16}, {"cores": free}, **more)


def names(ranking):
    return [one.candidate.node_id.decode() for one in ranking.ranked]


def ranked(need, candidates, **options):
    return names(rank(need, candidates, rng=Random(SEED), **options))


# --- profiles -------------------------------------------------------------------------------------


def test_pack_takes_the_tightest():
    fleet = [machine("empty", 16), machine("tight", 4), machine("half", 8)]
    assert ranked(Need(cores=4), fleet) == ["tight", "half", "empty"]


def test_spread_takes_the_emptiest():
    fleet = [machine("tight", 4), machine("empty", 16), machine("half", 8)]
    assert ranked(Need(cores=4, prefer="spread"), fleet) == ["empty", "half", "tight"]


def test_spread_takes_another_domain_before_an_emptier_machine():
    fleet = [
        machine("here", 16, domain="a"),
        machine("there", 6, domain="b"),
        machine("new", 4, domain="c"),
    ]
    need = Need(cores=4, prefer="spread")
    assert ranked(need, fleet, placed={"a": 2, "b": 1}) == ["new", "there", "here"]


def test_near_takes_the_nearest():
    fleet = [machine("far", rtt_s=0.2), machine("near", rtt_s=0.01), machine("unknown")]
    assert ranked(Need(cores=4, prefer="near"), fleet) == ["near", "far", "unknown"]


def test_cheap_takes_the_cheapest():
    fleet = [machine("dear", price=2.0), machine("cheap", price=0.1), machine("free", price=0.0)]
    assert ranked(Need(cores=4, prefer="cheap"), fleet) == ["free", "cheap", "dear"]


@pytest.mark.parametrize("prefer", ["pack", "spread", "near", "cheap"])
def test_who_said_no_comes_after_its_equals(prefer):
    fleet = [machine("no", refusals=1), machine("yes"), machine("never", refusals=5)]
    assert ranked(Need(cores=4, prefer=prefer), fleet) == ["yes", "no", "never"]


@pytest.mark.parametrize("prefer", ["pack", "spread", "near", "cheap"])
def test_the_latest_word_comes_before_its_equals(prefer):
    fleet = [machine("old", age_s=200.0), machine("new", age_s=1.0)]
    assert ranked(Need(cores=4, prefer=prefer), fleet) == ["new", "old"]


def test_demand_keeps_gaps_that_others_need():
    """A tight fit would break the machine that half of all needs ask for."""
    demand = Demand([Need(cores=8)] * 50 + [Need(cores=1)] * 50)
    fleet = [machine("eight", 8), machine("eleven", 11)]
    assert ranked(Need(cores=1), fleet) == ["eight", "eleven"]
    assert ranked(Need(cores=1), fleet, demand=demand) == ["eleven", "eight"]


def test_jobs_without_gpus_stay_off_machines_with_them():
    demand = Demand([Need(cores=4, gpus=1)] * 50 + [Need(cores=12)] * 10)
    with_gpus = Candidate(b"gpus", {"cores": 16, "gpus": 2}, {"cores": 14})
    without = Candidate(b"plain", {"cores": 64, "gpus": 0}, {})
    assert ranked(Need(cores=12), [with_gpus, without], demand=demand) == ["plain", "gpus"]


# --- scores and weights ---------------------------------------------------------------------------


def test_a_score_is_the_sum_of_its_terms():
    fleet = [machine(str(n), n, price=n, rtt_s=0.01 * n, age_s=n, refusals=n % 3) for n in (4, 8)]
    weights = Weights(1, 2, 3, 4, 5, 6, 7)
    for one in rank(Need(cores=2), fleet, rng=Random(SEED), weights=weights).ranked:
        assert one.score == pytest.approx(sum(one.terms.values()))
        assert set(one.terms) == set(weights.factors)


def test_terms_without_weight_are_left_out():
    found = rank(Need(cores=2, prefer=Weights(fit=1)), [machine("a")], rng=Random(SEED))
    assert list(found.ranked[0].terms) == ["fit"]


def test_weights_win_over_what_the_need_prefers():
    fleet = [machine("tight", 4), machine("empty", 16)]
    need = Need(cores=4, prefer="pack")
    assert ranked(need, fleet, weights=Weights(fit=-1)) == ["empty", "tight"]


def test_own_scorer():
    class ByName:
        def terms(self, need, candidate, context):
            assert context.largest == {"cores": 16}
            return {"name": float(candidate.node_id), "fit": 100.0}

    fleet = [machine("3"), machine("1"), machine("2")]
    found = rank(Need(cores=1), fleet, rng=Random(SEED), scorer=ByName())
    assert names(found) == ["1", "2", "3"]
    assert found.ranked[0].terms == {"name": 1.0, "fit": 100 * PROFILES["pack"].fit}


def test_relative_terms_look_at_those_that_can():
    """A machine that cannot take the need must not change how the others compare."""
    fleet = [machine("a", price=1.0, rtt_s=0.1), machine("b", price=2.0, rtt_s=0.2)]
    giant = Candidate(b"giant", {"cores": 999}, {"cores": 0}, price=99.0, rtt_s=9.0)
    need = Need(cores=1, prefer=Weights(near=1, cheap=1, fit=1))
    alone = rank(need, fleet, rng=Random(SEED)).ranked
    assert rank(need, [*fleet, giant], rng=Random(SEED)).ranked == alone
    context = context_of(fleet)
    assert (context.price_max, context.rtt_s_max) == (2.0, 0.2)


def test_ties_fall_to_chance():
    fleet = [machine("a"), machine("b"), machine("c")]
    firsts = Counter(names(rank(Need(cores=1), fleet, rng=Random(n)))[0] for n in range(300))
    assert set(firsts) == {"a", "b", "c"}
    assert min(firsts.values()) > 60


def test_one_seed_one_ranking():
    fleet = [machine(str(n)) for n in range(9)]
    assert rank(Need(cores=1), fleet, rng=Random(3)) == rank(Need(cores=1), fleet, rng=Random(3))


# --- refusals -------------------------------------------------------------------------------------


def test_who_cannot_is_refused_with_a_reason():
    fleet = [machine("full", 1), machine("fits", 4), machine("dear", price=9.0)]
    found = rank(Need(cores=4, max_price=1), [*fleet[:1], fleet[2]], rng=Random(SEED))
    assert found.ranked == ()
    assert [(one.candidate.node_id, one.reason) for one in found.refused] == [
        (b"full", "cores: 1 free of 16, 4 needed"),
        (b"dear", "price: 9, at most 1 wanted"),
    ]


def test_no_candidates():
    found = rank(Need(cores=1), [], rng=Random(SEED))
    assert (found.ranked, found.refused) == ((), ())
    assert why(found) == {}


def test_why_counts_by_kind_the_most_common_first():
    fleet = [machine(str(n), n) for n in range(8)]
    fleet += [replace(machine("x"), capacity={"mem": 1}), machine("y", price=5.0)]
    found = rank(Need(cores=4, max_price=6), fleet, rng=Random(SEED))
    assert names(found) == ["y"]
    assert why(found) == {"cores": 5, "price": 4}
    assert why([Refused(fleet[0], "draining"), Refused(fleet[1], "full: 3 waiting")]) == {
        "draining": 1,
        "full": 1,
    }
