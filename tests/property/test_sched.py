"""The scheduler against its definitions: fragmentation, order, refusals, and what may be taken."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhtos.sched import PROFILES, Candidate, Demand, Fragmentation, Need, Weights, rank, why

quick = settings(max_examples=150, deadline=None)
NAMES = ("cores", "mem", "disk")

shares = st.sampled_from([0.05, 0.1, 0.25, 0.3, 0.47, 0.5, 0.81, 0.9])
amounts = st.integers(1, 24)
gpus = st.one_of(shares, st.integers(1, 4))
resources = st.fixed_dictionaries(
    {}, optional={"cores": amounts, "mem": amounts, "disk": amounts, "gpus": gpus}
)
needs = resources.map(lambda asked: Need(**asked))
types = st.lists(resources.filter(bool), min_size=1, max_size=12).map(
    lambda rows: {tuple(sorted(row.items())): 1 / len(rows) for row in rows}
)
devices = st.lists(st.sampled_from([0.0, 0.05, 0.19, 0.3, 0.5, 0.53, 0.9, 1.0]), max_size=4)


@st.composite
def machines(draw):
    """A machine that may lack any resource and may or may not share its GPUs."""
    capacity, free = {}, {}
    for name in draw(st.sets(st.sampled_from(NAMES))):
        capacity[name] = draw(st.integers(0, 32))
        if draw(st.booleans()):
            free[name] = draw(st.integers(0, 40))
    shared = tuple(draw(devices))
    if shared or draw(st.booleans()):
        capacity["gpus"] = len(shared) or draw(st.integers(0, 4))
    return Candidate(
        draw(st.binary(min_size=4, max_size=4)),
        capacity,
        free,
        shared,
        price=draw(st.none() | st.floats(0, 10)),
        rtt_s=draw(st.none() | st.floats(0, 1)),
        age_s=draw(st.floats(0, 1000)),
        domain=draw(st.sampled_from(["", "a", "b"])),
        refusals=draw(st.integers(0, 3)),
    )


fleets = st.lists(machines(), max_size=8, unique_by=lambda machine: machine.node_id)


# --- fragmentation --------------------------------------------------------------------------------


def fits(asked, free, shared):
    """Whether a type fits, the plain way."""
    for name, amount in asked.items():
        if name != "gpus" or not shared:
            if amount > free.get(name, 0) + 1e-9:
                return False
            if name == "gpus" and amount < 1:
                return False
        elif amount < 1:
            if not any(share >= amount - 1e-9 for share in shared):
                return False
        elif sum(share == 1 for share in shared) < amount:
            return False
    return True


def unusable(name, asked, free, shared):
    """How much of a resource one type that asks for it cannot use, as the paper has it."""
    whole = sum(shared) if name == "gpus" and shared else free.get(name, 0)
    if not fits(asked, free, shared):
        return whole
    if name == "gpus":
        return sum(share for share in shared if share < min(asked["gpus"], 1) - 1e-9)
    return 0


def lost(name, kinds, free, shared):
    """The expectation over the types that ask for it."""
    asking = [(dict(kind), share) for kind, share in kinds.items() if name in dict(kind)]
    total = sum(share for _, share in asking)
    return sum(share * unusable(name, asked, free, shared) for asked, share in asking) / total


def total(kinds, free, shared):
    """All resources, in usual needs."""
    found = 0.0
    names = {name for kind in kinds for name, _ in kind}
    for name in names:
        asked = [(dict(kind)[name], share) for kind, share in kinds.items() if name in dict(kind)]
        usual = sum(amount * share for amount, share in asked) / sum(share for _, share in asked)
        found += lost(name, kinds, free, shared) / usual
    return found


@quick
@given(types, machines())
def test_what_is_lost_is_what_the_definition_says(kinds, machine):
    measure = Fragmentation(kinds)
    for name in (*NAMES, "gpus"):
        if any(name in dict(kind) for kind in kinds):
            expected = lost(name, kinds, machine.free, machine.devices)
            assert measure.lost(name, machine) == pytest.approx(expected, abs=1e-9)
        else:
            assert measure.lost(name, machine) == 0


def after(need, machine):
    """Every state the need could leave a machine in."""
    free = {name: has - need.resources.get(name, 0) for name, has in machine.free.items()}
    asked = need.resources.get("gpus", 0)
    if not machine.devices or not asked:
        yield free, machine.devices, None
    elif asked >= 1:
        shared, taken = list(machine.devices), 0
        for n, share in enumerate(shared):
            if share == 1 and taken < asked:
                shared[n], taken = 0.0, taken + 1
        yield free, tuple(shared), None
    else:
        for n, share in enumerate(machine.devices):
            if share >= asked - 1e-9:
                shared = list(machine.devices)
                shared[n] = round(share - asked, 9)
                yield free, tuple(shared), n


@quick
@given(types, machines(), needs)
def test_growth_is_the_least_that_a_placement_adds(kinds, machine, need):
    if machine.refusal(need) is not None:
        return
    measure = Fragmentation(kinds, dict.fromkeys((*NAMES, "gpus"), 1.0))
    before = total(kinds, machine.free, machine.devices)
    grown = {n: total(kinds, free, shared) - before for free, shared, n in after(need, machine)}
    assert measure.growth(need, machine) == pytest.approx(min(grown.values()), abs=1e-6)
    device = measure.device(need, machine)
    assert grown[device] == pytest.approx(min(grown.values()), abs=1e-6)


@quick
@given(types, machines(), needs)
def test_memory_changes_nothing(kinds, machine, need):
    if machine.refusal(need) is not None:
        return
    warm = Fragmentation(kinds)
    first = warm.growth(need, machine)
    shuffled = replace(machine, devices=tuple(reversed(machine.devices)))
    assert warm.growth(need, shuffled) == warm.growth(need, machine) == first
    assert Fragmentation(kinds).growth(need, machine) == first


# --- the decision ---------------------------------------------------------------------------------


def of(ranking):
    """Per machine its score, or why not."""
    scores = {one.candidate.node_id: one.score for one in ranking.ranked}
    return scores | {one.candidate.node_id: one.reason for one in ranking.refused}


@quick
@given(needs, fleets, st.lists(needs, max_size=10), st.sampled_from(sorted(PROFILES)), st.randoms())
def test_the_order_of_candidates_changes_nothing_but_ties(need, fleet, seen, profile, rng):
    demand, weights = Demand(seen), PROFILES[profile]
    shuffled = list(fleet)
    rng.shuffle(shuffled)
    one = rank(need, fleet, demand=demand, weights=weights, rng=Random(1), placed={"a": 2})
    other = rank(need, shuffled, demand=demand, weights=weights, rng=Random(2), placed={"a": 2})
    assert of(one) == of(other)
    scores = [scored.score for scored in other.ranked]
    assert scores == sorted(scores) == [scored.score for scored in one.ranked]


@quick
@given(needs, fleets)
def test_everybody_is_ranked_or_refused_for_what_it_lacks(need, fleet):
    found = rank(need, fleet, rng=Random(1))
    named = [one.candidate.node_id for one in (*found.ranked, *found.refused)]
    assert sorted(named) == sorted(machine.node_id for machine in fleet)
    for one in found.refused:
        lacking = one.reason.partition(":")[0]
        assert lacking in need.resources
        eased = Need(**{k: v for k, v in need.resources.items() if k != lacking})
        reason = one.candidate.refusal(eased)
        assert reason is None or reason.partition(":")[0] != lacking
    assert sum(why(found).values()) == len(found.refused)


@quick
@given(st.lists(needs, max_size=30), fleets, st.sampled_from(sorted(PROFILES)))
def test_never_more_is_placed_than_is_free(arriving, fleet, profile):
    """Placing where the ranking says until nothing fits overdraws no resource and no device."""
    demand = Demand()
    cluster = {machine.node_id: machine for machine in fleet}
    for need in arriving:
        demand.add(need)
        found = rank(
            need, cluster.values(), demand=demand, weights=PROFILES[profile], rng=Random(1)
        )
        if not found.ranked:
            continue
        chosen = found.ranked[0].candidate
        device = demand.fragmentation().device(need, chosen)
        states = {n: (free, shared) for free, shared, n in after(need, chosen)}
        free, shared = states[device] if device in states else next(iter(states.values()))
        assert all(left >= -1e-6 for name, left in free.items() if name != "gpus" or not shared)
        assert all(share >= -1e-6 for share in shared)
        asked = need.resources.get("gpus", 0)
        if shared:
            assert sum(chosen.devices) - sum(shared) == pytest.approx(asked, abs=1e-6)
        cluster[chosen.node_id] = replace(chosen, free=free, devices=shared)


@quick
@given(needs, fleets, st.integers(-3, 3), st.integers(-3, 3))
def test_a_score_is_what_its_terms_say(need, fleet, fit, near):
    weights = Weights(fit=fit, near=near)
    for one in rank(need, fleet, weights=weights, rng=Random(1)).ranked:
        assert one.score == pytest.approx(sum(one.terms.values()), abs=1e-6)
        assert set(one.terms) == {n for n, w in (("fit", fit), ("near", near)) if w}


@quick
@given(st.lists(needs, max_size=60))
def test_demand_holds_what_it_has_seen(seen):
    demand = Demand(seen)
    demand.check()
    kinds = {frozenset(need.resources) for need in seen if need.resources}
    assert {frozenset(dict(kind)) for kind in demand.types()} == kinds
