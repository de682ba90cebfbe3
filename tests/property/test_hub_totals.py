"""Any figure of any hub: exact against brute force, or the answer says what it lacks.

The stories are those of `test_hub_queries`: random schemas, machines, questions and failures.
"""

from bisect import bisect_right
from collections import Counter
from fractions import Fraction
from math import isfinite

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queries_world import World, ids, stories

from dhtos.core.value import NUMBER_MAX
from dhtos.protocol.aggregate import Measure, check_edges, default_edges, total
from dhtos.protocol.sample import sample
from dhtos.sim import Weather


def runs(count):
    """The same examples on every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


with_numbers = stories(predicates=3).filter(lambda story: story.numbers)
numbers = st.integers(-(2**64), 2**64).filter(lambda n: abs(n) <= NUMBER_MAX) | st.floats(
    allow_nan=False, allow_infinity=False
)


def ask(world, node, predicate, measure, **options):
    return world.cluster.do(
        node, lambda e, now: e.hub.find(predicate, now, measure=measure, **options)
    )


def draw(world, node, predicate, k):
    return world.cluster.do(node, lambda e, now: sample(e.hub, predicate, k, now))


def values_of(world, predicate, index):
    """What running matches say of an attribute, None where they do not."""
    name = world.schema.attributes[index].name
    matching = world.truth(predicate)
    return [world.records[node].attributes(world.schema).get(name) for node in matching]


def expect_figures(world, predicate, measure, result):
    """Just what brute force says; of floats the sum up to the rounding of its parts."""
    told = values_of(world, predicate, measure.attribute)
    values = [value for value in told if value is not None]
    found = result.partial
    counts = Counter(bisect_right(measure.edges, value) for value in values)
    exact = sum(map(Fraction, values))
    slack = sum(abs(Fraction(value)) for value in values) / 2**48
    world.expect(
        result.coverage.complete
        and result.matches == len(told)
        and found.counts == tuple(counts[n] for n in range(len(measure.edges) + 1))
        and (found.minimum, found.maximum) == (min(values, default=None), max(values, default=None))
        and isfinite(found.sum)
        and abs(Fraction(found.sum) - exact) <= slack,
        predicate,
        f"{found} of {result.matches} for {measure}, {len(told)} match: {result.coverage}",
    )


@runs(30)
@given(with_numbers, st.integers(0, 7), st.booleans(), st.data())
def test_figures_are_exact_however_they_are_asked(story, which, light, data):
    index = story.numbers[which % len(story.numbers)]
    edges = default_edges(story.schema.attributes[index])
    cuts = st.lists(st.sampled_from(edges), min_size=1, max_size=4, unique=True)
    chosen = check_edges(sorted(data.draw(cuts)))
    world = World(story, clients=1)
    with world.cluster as cluster:
        for predicate in story.predicates:
            asker = world.clients[0] if light else world.anybody()
            for measure in (Measure(index), Measure(index, chosen), Measure(index, edges)):
                result = ask(world, asker, predicate, measure)
                expect_figures(world, predicate, measure, result)
            result = ask(world, asker, predicate, Measure(index, chosen), strict=True, verify=2)
            expect_figures(world, predicate, Measure(index, chosen), result)
        cluster.check()


@runs(20)
@given(with_numbers, st.sampled_from((0.1, 0.3, 0.5)), st.integers(0, 7))
def test_sudden_deaths_cost_no_match_unnoticed(story, share, which):
    measure = Measure(story.numbers[which % len(story.numbers)])
    world = World(story)
    with world.cluster as cluster:
        world.kill(share)
        for predicate in story.predicates:
            result = ask(world, world.anybody(), predicate, measure)
            living = len(world.truth(predicate))
            world.expect(
                result.matches >= living or not result.coverage.complete,
                predicate,
                f"{living - result.matches} matches are missing without a word",
            )
            world.expect(
                result.partial.present <= result.matches <= len(story.rows),
                predicate,
                f"{result.partial} of {result.matches}",
            )
        cluster.check()


@runs(20)
@given(with_numbers, st.sampled_from((0.02, 0.1, 0.3)), st.integers(0, 7), st.booleans())
def test_a_lossy_network_counts_nobody_twice(story, loss, which, light):
    """Late answers, hedges and repeated datagrams: a complete figure is the exact one."""
    measure = Measure(story.numbers[which % len(story.numbers)])
    world = World(story, clients=1)
    with world.cluster as cluster:
        world.storm(Weather(loss=loss, jitter=1.0, reordering=0.1, duplication=0.1))
        for predicate in story.predicates:
            asker = world.clients[0] if light else world.anybody()
            result = ask(world, asker, predicate, measure)
            world.expect(
                result.matches <= len(world.truth(predicate)), predicate, f"{result.matches} match"
            )
            if result.coverage.complete:
                expect_figures(world, predicate, measure, result)
        cluster.check()


@runs(20)
@given(stories(predicates=3), st.sampled_from((0.1, 0.3, 0.5)), st.sampled_from((1, 5, 20)))
def test_a_sample_makes_up_for_the_dead(story, share, k):
    """What came was said and matches; if too little came, the answer names what is missing."""
    world = World(story)
    with world.cluster as cluster:
        world.kill(share)
        for predicate in story.predicates:
            result = draw(world, world.anybody(), predicate, k)
            got, living = ids(result), set(world.truth(predicate))
            matches = predicate.bind(world.schema).matches
            world.expect(
                len(got) == len(result.hits) <= k
                and all(matches(world.records[node]) for node in got),
                predicate,
                f"{len(result.hits)} hits, {len(got)} different ones",
            )
            world.expect(
                len(got) >= min(k, len(living)) or not result.coverage.complete,
                predicate,
                f"{len(got)} of {len(living)} without a word: {result.coverage}",
            )
        cluster.check()


@runs(25)
@given(stories(predicates=4), st.sampled_from((1, 2, 3, 8, 30, 100)), st.booleans())
def test_a_sample_is_so_many_true_matches(story, k, light):
    world = World(story, clients=1)
    with world.cluster as cluster:
        for predicate in story.predicates:
            asker = world.clients[0] if light else world.anybody()
            result = draw(world, asker, predicate, k)
            got, truth = ids(result), set(world.truth(predicate))
            world.expect(
                len(result.hits) == len(got) == min(k, len(truth)) and got <= truth,
                predicate,
                f"{len(result.hits)} hits of {len(truth)}, {len(got - truth)} wrong",
            )
            world.expect(
                len(truth) >= k or result.coverage.complete,
                predicate,
                f"all {len(truth)} are there, but {result.coverage}",
            )
        cluster.check()


@runs(300)
@given(st.lists(numbers, max_size=12))
def test_a_sum_is_the_exact_one_rounded_once(values):
    found = total(values)
    exact = sum(map(Fraction, values))
    assert isfinite(found)
    if all(type(value) is int for value in values) and abs(exact) <= NUMBER_MAX:
        assert found == exact
        assert type(found) is int
    elif abs(exact) < Fraction(2) ** 1000:
        assert abs(Fraction(found) - exact) <= abs(exact) / 2**52
