"""Sums, histograms and samples over whole clusters: exact against brute force, and even."""

from bisect import bisect_right
from collections import Counter
from math import fsum
from random import Random

import pytest
from fleets import SCHEMA, Fleet, at_least

from dhtos.core.predicate import EVERYTHING
from dhtos.protocol.aggregate import Measure, default_edges
from dhtos.protocol.sample import sample

MEASURED = ("cores", "mem", "price", "gpus", "mem_free", "load1")


@pytest.fixture(scope="module")
def crowd():
    """320 machines in groups of at most 32, settled; and a client that serves nobody."""
    fleet = Fleet(320, seed=11).warm_start()
    fleet.client = fleet.cluster.add(1)[0]
    fleet.client.engine.hub.gateways = [node.endpoint for node in fleet.nodes[:5]]
    fleet.members = fleet.nodes[:320]
    return fleet


def ask(crowd, node, predicate, measure, **options):
    operation = crowd.cluster.begin(
        node, lambda e, now: e.hub.find(predicate, now, measure=measure, **options)
    )
    crowd.cluster.wait([operation])
    return operation.result()


def draw(crowd, node, predicate, k, **options):
    operation = crowd.cluster.begin(
        node, lambda e, now: sample(e.hub, predicate, k, now, **options)
    )
    crowd.cluster.wait([operation])
    return operation.result()


def values_of(crowd, predicate, name, nodes=None):
    """What the matches say, None where they do not, by brute force."""
    matches = predicate.bind(SCHEMA).matches
    own = [node.engine.hub.own for node in nodes or crowd.members]
    return [record.attributes(SCHEMA).get(name) for record in own if matches(record)]


def expect_exact(crowd, predicate, name, result, edges, nodes=None):
    told = values_of(crowd, predicate, name, nodes)
    values = [value for value in told if value is not None]
    counts = Counter(bisect_right(edges, value) for value in values)
    found = result.partial
    crowd.cluster.expect(
        result.matches == len(told)
        and found.counts == tuple(counts[n] for n in range(len(edges) + 1))
        and found.sum == pytest.approx(fsum(values), rel=1e-12)
        and (type(found.sum) is float or found.sum == sum(values))
        and found.minimum == min(values, default=None)
        and found.maximum == max(values, default=None),
        f"{name} of {predicate}: {found} of {result.matches}, not {len(told)}: {result.coverage}",
    )


# --- aggregates -----------------------------------------------------------------------------------


def test_aggregates_are_what_brute_force_says(crowd):
    for predicate in [EVERYTHING, *crowd.predicates(15)]:
        name = crowd.rng.choice(MEASURED)
        edges = default_edges(SCHEMA.attribute(name))
        measure = Measure(SCHEMA.index(name), edges)
        for node in (crowd.rng.choice(crowd.members), crowd.client):
            result = ask(crowd, node, predicate, measure)
            expect_exact(crowd, predicate, name, result, edges)
            assert result.coverage.complete
            assert result.hits == ()


@pytest.mark.parametrize("options", [{"strict": True}, {"verify": 2}])
def test_a_surer_aggregate_is_the_same(crowd, options):
    for predicate in crowd.predicates(6):
        measure = Measure(SCHEMA.index("mem"), (2**34,))
        result = ask(crowd, crowd.rng.choice(crowd.members), predicate, measure, **options)
        expect_exact(crowd, predicate, "mem", result, (2**34,))


def test_an_aggregate_costs_what_a_count_does(crowd):
    """The same subtrees are asked, whatever they are asked for; luck of contacts evens out."""
    summed = counted = 0
    measure = Measure(SCHEMA.index("price"))
    for predicate in crowd.predicates(20):
        node = crowd.rng.choice(crowd.members)
        summed += ask(crowd, node, predicate, measure).coverage.asked
        counted += crowd.ask(node, predicate, count_only=True).coverage.asked
    assert 0.9 < summed / counted < 1.1


def test_after_sudden_deaths_an_aggregate_owns_up(sim_seed, sim_replay):
    crowd = Fleet(200, seed=sim_seed, replay=sim_replay).warm_start()
    crowd.cluster.crash(crowd.rng.sample(crowd.nodes, 60))
    measure = Measure(SCHEMA.index("cores"), (8,))
    for predicate in crowd.predicates(8):
        result = ask(crowd, crowd.rng.choice(crowd.cluster.up()), predicate, measure)
        found = result.partial
        living = values_of(crowd, predicate, "cores", crowd.cluster.up())
        crowd.cluster.expect(
            not result.coverage.complete or result.matches >= len(living),
            f"{predicate}: {result.matches} of {len(living)} without a word: {result.coverage}",
        )
        assert sum(found.counts) <= result.matches
    crowd.check()


# --- samples --------------------------------------------------------------------------------------


def test_a_sample_is_of_matches_each_once_and_all_where_they_are_few(crowd):
    for predicate in crowd.predicates(25):
        truth = crowd.truth(predicate, crowd.members)
        for node in (crowd.rng.choice(crowd.members), crowd.client):
            result = draw(crowd, node, predicate, 16)
            got = {bytes(hit.id) for hit in result.hits}
            crowd.cluster.expect(
                len(got) == len(result.hits) == min(16, len(truth)) and got <= truth,
                f"{predicate}: {len(result.hits)} of {len(truth)}: {result.coverage}",
            )
            if len(truth) < 16:
                assert result.coverage.complete


def spread(counts, truth, drawn):
    """How much chances differ, as a share of their mean, beyond what drawing explains."""
    mean = drawn / len(truth)
    variance = sum((counts[node] - mean) ** 2 for node in truth) / len(truth)
    return (max(variance - mean * (1 - mean / 100), 0.0)) ** 0.5 / mean


def test_every_match_has_about_the_same_chance_and_the_first_k_have_not(crowd):
    """100 samples of 16 for each of three questions, by one asker: always the same one."""
    uneven = {"sample": [], "first": []}
    calls = {"sample": 0, "first": 0}
    for predicate in (EVERYTHING, at_least("mem", 2**36), at_least("mem_free", 2**34)):
        truth = crowd.truth(predicate, crowd.members)
        assert len(truth) >= 80
        asker = crowd.members[0]
        for kind in uneven:
            counts = Counter()
            for _ in range(100):
                if kind == "sample":
                    result = draw(crowd, asker, predicate, 16)
                else:
                    result = crowd.ask(asker, predicate, limit=16)
                counts.update(bytes(hit.id) for hit in result.hits)
                calls[kind] += result.coverage.asked
            uneven[kind].append(spread(counts, truth, 100 * 16))
    print(f"chances differ by {uneven}, calls {calls}")
    assert max(uneven["sample"]) < 0.6
    assert min(uneven["first"]) > 1.0
    assert calls["sample"] / 300 < 6


def test_no_kind_of_machine_is_left_out(crowd):
    """Of sixteen equal parts of the price list each is drawn from as often as it should be."""
    truth = values_of(crowd, EVERYTHING, "price")
    cuts = sorted(truth)[20::20]
    counts = Counter()
    for _ in range(120):
        result = draw(crowd, crowd.rng.choice(crowd.members), EVERYTHING, 16)
        counts.update(bisect_right(cuts, hit["price"]) for hit in result.hits)
    exact = Counter(bisect_right(cuts, price) for price in truth)
    for part, number in exact.items():
        wanted = 120 * 16 * number / len(truth)
        assert 0.6 < counts[part] / wanted < 1.5, (part, counts[part], wanted)


def test_one_seed_draws_one_sample():
    def story():
        crowd = Fleet(120, seed=5).warm_start()
        rng = Random(1)
        results = [draw(crowd, rng.choice(crowd.nodes), EVERYTHING, 9) for _ in range(5)]
        return [[bytes(hit.id) for hit in result.hits] for result in results]

    assert story() == story()
