"""Asking more than one member: a record that some members lack is still found.

A member lacks what joined or was renewed this very moment. Here each lacks the record of another
one, taken out of its view by hand, so that no two lack the same.
"""

import pytest
from fleets import Fleet, at_least, ids

from dhtos.core.predicate import EVERYTHING


@pytest.fixture(scope="module")
def gappy():
    """A fleet of 240 in which every member lacks one record of its group."""
    crowd = Fleet(240, seed=11, group_size=32).warm_start()
    groups = {}
    for node in crowd.nodes:
        groups.setdefault(node.engine.hub.group.prefix, []).append(node)
    assert len(groups) > 8
    for members in groups.values():
        ordered = sorted(members, key=lambda node: node.engine.hub.key)
        for node, lacking in zip(ordered, [*ordered[1:], ordered[0]], strict=True):
            if node is not lacking:
                node.engine.hub.group._drop(lacking.engine.hub.key)
    crowd.groups = len(groups)
    crowd.alone = [members[0] for members in groups.values() if len(members) == 1]
    return crowd


def test_one_member_misses_what_two_do_not(gappy):
    truth = gappy.truth(EVERYTHING)
    askers = gappy.rng.sample(gappy.nodes, 12)
    once = [gappy.begin_find(node, EVERYTHING) for node in askers]
    twice = [gappy.begin_find(node, EVERYTHING, verify=2) for node in askers]
    counts = [gappy.begin_find(node, EVERYTHING, verify=2, count_only=True) for node in askers]
    gappy.cluster.wait([*once, *twice, *counts])
    assert any(ids(operation.result()) != truth for operation in once)
    for operation in twice:
        result = operation.result()
        assert ids(result) == truth
        assert result.matches == len(truth)
        assert result.coverage.complete
        # Whoever is alone in its group has nobody to confirm it, and nobody to lack it.
        assert result.coverage.verified == (1 if gappy.alone else 2)
    for operation in counts:  # numbers cannot be merged: each group is short of one at most
        assert len(truth) - gappy.groups <= operation.result().matches <= len(truth)


def test_narrow_questions_and_the_best_are_whole_too(gappy):
    predicates = gappy.predicates(10)
    for predicate, result in gappy.ask_many(predicates, verify=2):
        gappy.expect_exact(predicate, result)
    cheap = (gappy.nodes[0].engine.hub.schema.index("price"), False)
    prices = sorted(machine["price"] for machine in gappy.machines)
    for node in gappy.rng.sample(gappy.nodes, 5):
        best = gappy.ask(node, EVERYTHING, order=cheap, limit=10, verify=2)
        assert [hit["price"] for hit in best.hits] == prices[:10]


def test_pages_lose_nothing_and_repeat_nothing(gappy):
    predicate = at_least("cores", 4)
    cursor, seen = None, []
    for _ in range(200):
        page = gappy.ask(gappy.nodes[5], predicate, limit=9, cursor=cursor, verify=2)
        seen += [bytes(hit.id) for hit in page.hits]
        cursor = page.cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) == gappy.truth(predicate)


def test_a_second_member_costs_about_as_much_as_the_first():
    crowd = Fleet(240, seed=12, group_size=32).warm_start()
    predicates = crowd.predicates(20)
    once = crowd.ask_many(predicates, askers=crowd.nodes[:1])
    twice = crowd.ask_many(predicates, askers=crowd.nodes[:1], verify=2)
    for (_, first), (predicate, second) in zip(once, twice, strict=True):
        crowd.expect_exact(predicate, second)
        assert second.coverage.asked > first.coverage.asked
    asked = [sum(result.coverage.asked for _, result in answered) for answered in (once, twice)]
    assert asked[1] < 2.2 * asked[0]  # one for each subtree, some of another size, and our own
