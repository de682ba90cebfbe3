"""A small, seeded run of the placement benchmark on a made cluster, and checks of all its parts.

The trace is read where it lies beside the checkout; there the published figures are met.
"""

from random import Random

import numpy as np
import pytest

from bench.placement import measure, page, trace
from bench.placement.fill import AtRandom, Cluster, FullKnowledge, Machine, fill, tightest
from bench.placement.ours import Everybody, Sampled, candidate_of, need_of
from bench.placement.rivals import BestFit, DotProduct, Fgd, Packing
from bench.placement.trace import MILLI, Pod, Shape, Trace
from dhtos.sched import Demand, rank

SEED = 1
HALF = Pod(4000, 1024, 1, 500)
TWO = Pod(8000, 1024, 2)
PLAIN = Pod(8000, 1024)


@pytest.fixture(scope="module")
def small():
    return trace.made(40, 3)


@pytest.fixture(scope="module")
def results(small):
    found = measure.measure(small, (1, 2), print)
    return {
        "words": "Here.",
        "seeds": [1, 2],
        "seconds": 1,
        "trace": {"machines": 40, "gpus": 100, "pods": 300},
        "published": {"FGD": {"100": 95.23, "130": 95.39}},
        **found,
    }


def machine(cpu=64000, *devices):
    return Machine(0, Shape(64000, 65536, len(devices)), cpu, 65536, list(devices))


# --- traces ---------------------------------------------------------------------------------------


def test_the_made_cluster_is_like_the_trace(small):
    assert len(small.shapes) == 40
    assert small == trace.made(40, 3) != trace.made(40, 4)
    asked = sum(pod.gpu_milli for pod in small.pods)
    assert 1 <= asked / small.gpu_milli < 1.1
    big = trace.made(1000, 1)
    per_machine = big.gpu_milli / MILLI / 1000
    shared = sum(pod.piece < MILLI for pod in big.pods) / len(big.pods)
    plain = sum(not pod.gpus for pod in big.pods) / len(big.pods)
    print(per_machine, shared, plain)
    assert 4.5 < per_machine < 5.7  # 5.12 in the trace
    assert 0.33 < shared < 0.43  # 0.38
    assert 0.10 < plain < 0.16  # 0.13
    assert all(pod.cpu > 0 and pod.mem > 0 and 0 < pod.piece <= MILLI for pod in big.pods)


def test_the_large_trace():
    if not trace.is_here("openb"):
        pytest.skip("the trace is not beside the checkout")
    found = trace.load("openb")
    assert (len(found.shapes), len(found.pods), found.gpu_milli) == (1213, 8152, 6212 * MILLI)
    assert trace.published()["FGD"] == {"100": 95.23, "130": 95.39}


def test_a_trace_that_is_not_here_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(trace, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        trace.load("openb")
    assert not trace.is_here("openb")
    assert trace.is_here("made")
    with pytest.raises(ValueError, match="a trace is one of openb, made, got 'closeda'"):
        trace.load("closeda")


@pytest.mark.parametrize("demand", [0.5, 1.0, 1.3])
def test_arrivals_ask_for_what_they_should(small, demand):
    pods = small.arrivals(Random(SEED), demand)
    asked = sum(pod.gpu_milli for pod in pods) / small.gpu_milli
    assert asked == pytest.approx(demand, abs=0.06)
    assert pods == small.arrivals(Random(SEED), demand)
    if demand > 1.1:
        assert set(pods) == set(small.pods)


# --- filling --------------------------------------------------------------------------------------


def test_who_can_take_a_pod():
    shapes = (Shape(4000, 2048, 0), Shape(64000, 2048, 1), Shape(64000, 2048, 4))
    cluster = Cluster(Trace("t", shapes, (HALF,)))
    assert cluster.able(HALF).tolist() == [False, True, True]
    assert cluster.able(TWO).tolist() == [False, False, True]
    assert cluster.able(PLAIN).tolist() == [False, True, True]
    cluster.place(2, TWO, None)
    cluster.place(1, HALF, 0)
    assert cluster.able(HALF).tolist() == [False, True, True]
    assert cluster.machines[2].devices == [0, 0, MILLI, MILLI]
    assert cluster.able(Pod(1, 1, 1, 600)).tolist() == [False, False, True]
    assert cluster.able(Pod(1, 1025)).tolist() == [True, False, False]


def test_a_share_needs_room_in_one_gpu():
    with pytest.raises(AssertionError):
        machine(64000, 300, 300).take(HALF, 0)
    with pytest.raises(AssertionError):
        machine(64000, MILLI, 900).take(TWO, None)
    with pytest.raises(AssertionError):
        machine(100, MILLI).take(HALF, 0)
    assert tightest(machine(64000, 1000, 500, 300), HALF) == 1
    assert tightest(machine(64000, 1000), TWO) is None


def test_costs_are_asked_for_again_where_something_changed(small):
    asked = []

    class Counting(BestFit):
        def cost(self, machine, pod):
            asked.append(machine.index)
            return super().cost(machine, pod)

    cluster = Cluster(small)
    chooser = FullKnowledge(Counting(), cluster, Random(SEED))
    able = np.flatnonzero(cluster.able(HALF))
    first, device = chooser.choose(cluster, HALF, able)
    assert asked == able.tolist()
    cluster.place(first, HALF, device)
    asked.clear()
    chooser.choose(cluster, HALF, np.flatnonzero(cluster.able(HALF)))
    assert asked in ([first], [])


def test_kept_costs_choose_as_fresh_ones(small):
    """The shortcut of full knowledge changes no decision."""

    class Fresh(FullKnowledge):
        def choose(self, cluster, pod, able):
            self._seen.clear()
            return super().choose(cluster, pod, able)

    pods = small.arrivals(Random(SEED), 1.2)
    found = []
    for kind in (FullKnowledge, Fresh):
        cluster = Cluster(small)
        filled = fill(cluster, pods, kind(BestFit(), cluster, Random(SEED)), (120,))
        found.append((filled, [m.devices for m in cluster.machines]))
    assert found[0] == found[1]


def test_allocation_is_noted_where_demand_passes(small):
    pods = small.arrivals(Random(SEED), 1.3)
    filled = fill(Cluster(small), pods, AtRandom(Random(SEED)), (50, 100, 130))
    print(filled)
    assert 49 < filled.allocated[50] < 52
    assert filled.allocated[50] < filled.allocated[100] <= filled.allocated[130] < 100
    assert filled.refused > 0


# --- policies -------------------------------------------------------------------------------------


def test_best_fit_wants_little_left_over():
    policy = BestFit()
    assert policy.cost(machine(8000, 500), HALF) < policy.cost(machine(64000, 500), HALF)
    assert policy.cost(machine(8000, 500), HALF) < policy.cost(machine(8000, 1000, 1000), HALF)


def test_dot_product_wants_what_is_least_free():
    policy = DotProduct()
    assert policy.cost(machine(4000, 500), HALF) < policy.cost(machine(64000, *[1000] * 8), HALF)


def test_packing_begins_nothing_where_it_need_not():
    """A GPU in use, then an idle one of a machine in use, then an idle machine."""
    policy = Packing()
    order = [machine(64000, 500, 1000), machine(64000, 300, 1000), machine(64000, 1000, 1000)]
    costs = [policy.cost(one, HALF) for one in order]
    assert costs == sorted(set(costs))
    assert policy.cost(order[0], PLAIN) == policy.cost(order[2], PLAIN) == 0


def test_fgd_uses_up_fragments(small):
    policy = Fgd(small)
    pod = next(pod for pod in small.pods if pod.piece < MILLI)
    tight, idle = machine(64000, pod.piece, MILLI), machine(64000, MILLI, MILLI)
    assert policy.cost(tight, pod) < policy.cost(idle, pod)
    assert policy.device(tight, pod) == 0


def test_a_sample_of_all_chooses_what_full_knowledge_does(small):
    """`rank` and the scores of everybody are the same decision, but for demand learned."""
    cluster = Cluster(small)
    everybody = Everybody(small, cluster)
    rng = Random(SEED)
    for pod in rng.sample(small.pods, 60):
        able = np.flatnonzero(cluster.able(pod)).tolist()
        if not able:
            continue
        costs = {n: everybody.cost(cluster.machines[n], pod) for n in able}
        hand = [candidate_of(cluster.machines[n]) for n in able]

        class Known:
            def fragmentation(self):
                return everybody.measure

        found = rank(need_of(pod), hand, demand=Known(), rng=rng)
        best = int.from_bytes(found.ranked[0].candidate.node_id)
        # The largest machine is that of those able, not of the cluster: near ties may differ.
        assert costs[best] <= min(costs.values()) + 0.02
        cluster.place(best, pod, everybody.device(cluster.machines[best], pod))


def test_one_seed_repeats(small):
    one, _ = measure.run(small, measure.SAMPLED.format(8), 5)
    same, _ = measure.run(small, measure.SAMPLED.format(8), 5)
    other, _ = measure.run(small, measure.SAMPLED.format(8), 6)
    assert one == same != other


def test_decisions_are_timed(small):
    _, chooser = measure.run(small, measure.SAMPLED.format(4), 1)
    assert isinstance(chooser, Sampled)
    assert len(chooser.cpu_s) == len(chooser.wall_s) > 100
    assert measure.spread_ms([0.001 * n for n in range(101)]) == {
        "p50": 50,
        "p99": 99,
        "count": 101,
    }


@pytest.mark.parametrize("count", [4, 16])
def test_one_decision(benchmark, small, count):
    """States are remembered, as they mostly are in a running scheduler; the page has cold ones."""
    cluster, rng = Cluster(small), Random(SEED)
    fill(cluster, small.arrivals(Random(SEED), 0.5), AtRandom(rng), (50,))
    demand = Demand(need_of(pod) for pod in small.pods)
    need = need_of(HALF)
    able = np.flatnonzero(cluster.able(HALF)).tolist()
    hand = [candidate_of(cluster.machines[n]) for n in rng.sample(able, count)]
    ranking = benchmark(lambda: rank(need, hand, demand=demand, rng=rng))
    assert len(ranking.ranked) == count


# --- figures --------------------------------------------------------------------------------------


def test_a_sample_of_16_is_nearly_as_good_as_all(results):
    found = page.shares(results)
    print(found)
    assert all(share > 0.97 for share in found.values())  # 0.995 is for the large cluster


def test_choosing_beats_chance(results):
    policies = results["policies"]
    for name in (measure.OURS, measure.SAMPLED.format(16), "FGD", "BestFit"):
        assert np.mean(policies[name]["100"]) > np.mean(policies["Random"]["100"]) + 2, name


def test_fgd_comes_near_what_was_published():
    """95.23 there and about 0.2 less here: the mean of ten seeds and one of them."""
    if not trace.is_here("openb"):
        pytest.skip("the trace is not beside the checkout")
    filled, _ = measure.run(trace.load("openb"), "FGD", SEED)
    print(filled)
    assert filled.allocated[100] == pytest.approx(95.2, abs=0.6)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_says_what_was_measured(results):
    text = page.text(results)
    assert "| FGD | " in text
    assert "| 95.23 | " in text
    assert "40 machines with 100 GPUs" in text
    assert all(words in text for words in page.WORDS.values())
    ours = results["policies"][measure.SAMPLED.format(16)]["100"]
    assert f"{np.mean(ours):.2f} ±" in text


def test_a_target_that_is_missed_says_so(results):
    worse = dict(results["policies"])
    worse[measure.SAMPLED.format(16)] = {"100": [50.0], "130": [50.0]}
    lines = page.text({**results, "policies": worse}).splitlines()
    assert sum(line.endswith("| no |") for line in lines) >= 2


def test_the_page_keeps_its_words(monkeypatch, tmp_path):
    at = tmp_path / "placement.md"
    at.write_text("before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n")
    monkeypatch.setattr(page, "PAGE", at)
    monkeypatch.setattr(page, "RESULTS", tmp_path / "placement.json")
    monkeypatch.setattr(page, "text", lambda _: "new")
    page.save({})
    assert at.read_text() == "before\n<!-- figures: begin -->\nnew\n<!-- figures: end -->\nafter\n"
