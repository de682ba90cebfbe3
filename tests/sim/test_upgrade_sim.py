"""A fleet changes its schema, machine by machine, while both sides ask.

Whatever calls itself complete must be the truth of brute force over all that runs; what a node
cannot ask it must name.
"""

from math import inf

import pytest
from upgrades import NEW, OLD, Upgrade, at_least

from dhtos.core.curve import version_prefix
from dhtos.core.ids import Prefix
from dhtos.core.limits import NODE_TTL_S
from dhtos.core.predicate import EVERYTHING
from dhtos.core.schemas import Schemas
from dhtos.errors import SchemaConflict
from dhtos.protocol.aggregate import Measure
from dhtos.protocol.rows import Row
from dhtos.sim import standard

BOTH = Schemas(NEW, [OLD])
OTHERS = {"malformed", "schema_conflicts", "hits_refused"}


def ask_both(fleet, count):
    """Questions from random nodes of both versions; how many of each were asked."""
    asked = {0: 0, 1: 0}
    for version in asked:
        here = fleet.at(version)
        for _ in range(count if here else 0):
            asker = fleet.rng.choice(here)
            predicate = fleet.predicate(asker)
            expect_honest(fleet, asker, predicate, fleet.ask(asker, predicate))
            asked[version] += 1
    return asked


def expect_honest(fleet, asker, predicate, result):
    """Nothing is wrong or missing without a word; an old node names what it cannot ask."""
    got, truth = {bytes(hit.id) for hit in result.hits}, fleet.truth(asker, predicate)
    failed = result.coverage.failed_prefixes
    keys = {node.id: node.engine.hub.key for node in fleet.up()}
    missing = {
        node_id for node_id in truth - got if not any(p.holds(keys[node_id]) for p in failed)
    }
    fleet.cluster.expect(
        len(got) == len(result.hits) and got <= truth and not missing,
        f"{asker!r} asked {predicate}: {len(missing)} missing without a word, "
        f"{len(got - truth)} too many, {result.coverage}",
    )
    fleet.cluster.expect(
        result.coverage.complete is not bool(failed), f"{result.coverage} contradicts itself"
    )
    if fleet.version(asker) == 0 and fleet.at(1):
        fleet.cluster.expect(
            version_prefix(1) in failed, f"{asker!r} does not say that it cannot ask version 1"
        )


def counted(fleet, names=OTHERS):
    """What nodes counted that should not happen."""
    return {
        name: total
        for name in names
        if (total := sum(node.engine.counters[name] for node in fleet.up()))
    }


@pytest.mark.parametrize(("count", "politely"), [(60, True), (24, False)], ids=["bye", "crash"])
def test_a_rolling_upgrade_loses_nobody(count, politely):
    """Nodes in groups of 16 move one by one; both sides ask all the while."""
    fleet = Upgrade(count, seed=11, checkers=standard(), check_every=20_000).begin()
    asked = {0: 0, 1: 0}
    moving = fleet.rng.sample(fleet.nodes, len(fleet.nodes))
    for number, node in enumerate(moving):
        operation = fleet.move(node, politely=politely)
        fleet.cluster.wait([operation])
        fleet.cluster.expect(operation.error is None, f"{node!r} cannot move: {operation.error}")
        # Until a goodbye is heard, or a death noticed, the old record is told as well.
        fleet.cluster.run_for(3.0 if politely else 30.0)
        if number % (count // 10) == 0:
            for version, times in ask_both(fleet, 3).items():
                asked[version] += times
    assert min(asked.values()) >= 24
    fleet.expect_settled()
    fleet.cluster.run_for(20.0)
    for _ in range(20):
        asker = fleet.rng.choice(fleet.nodes)
        predicate = fleet.predicate(asker)
        expect_honest(fleet, asker, predicate, fleet.ask(asker, predicate))
    assert counted(fleet) == {}
    fleet.cluster.check()


@pytest.fixture(scope="module")
def half():
    """A fleet of which half has moved, quiet since then."""
    fleet = Upgrade(48, seed=5)
    fleet.runs = dict.fromkeys(range(0, 48, 2), NEW)
    fleet.cluster.crash(fleet.nodes)
    fleet.cluster.restart(fleet.nodes)
    fleet.begin()
    fleet.cluster.run_for(60.0)
    return fleet


def test_every_version_knows_that_the_other_is_there(half):
    for node in half.up():
        hub = node.engine.hub
        assert hub.group.prefix.length >= 2
        assert {half.version(n) for n in half.up() if n.engine.hub.key in hub.group.members} == {
            half.version(node)
        }
        beyond = hub.buckets.get(1)
        assert beyond is not None
        assert beyond.summary is not None
        assert beyond.summary.bins == ()
        assert 20 <= beyond.count <= 28
    assert counted(half) == {}


def test_an_upgraded_node_finds_both_versions(half):
    for _ in range(30):
        asker = half.rng.choice(half.at(1))
        predicate = half.predicate(asker)
        half.expect_exact(asker, predicate, half.ask(asker, predicate))


def test_an_attribute_that_only_one_version_has_matches_there(half):
    asker = half.at(1)[0]
    for name, version in (("watts", 1), ("slots", 0)):
        predicate = at_least(BOTH, name, 1)
        result = half.ask(asker, predicate)
        half.expect_exact(asker, predicate, result)
        assert {hit.schema.version for hit in result.hits} == {version}
        assert all(hit[name] >= 1 for hit in result.hits)


def test_a_count_is_that_of_both(half):
    asker = half.at(1)[0]
    for _ in range(10):
        predicate = half.predicate(asker)
        result = half.ask(asker, predicate, count_only=True)
        assert result.matches == len(half.truth(asker, predicate))
        assert (result.hits, result.coverage.complete) == ((), True)


@pytest.mark.parametrize("name", ["cores", "watts", "slots"])
def test_a_sum_is_that_of_both(half, name):
    asker = half.at(1)[0]
    measure = Measure(BOTH.vocabulary.index(name), (10, 100))
    operation = half.cluster.begin(
        asker, lambda e, now: e.hub.find(EVERYTHING, now, measure=measure)
    )
    half.cluster.wait([operation])
    said = [n.engine.hub.own.attributes(n.engine.hub.schema).get(name) for n in half.up()]
    values = [value for value in said if value is not None]
    result = operation.result()
    assert (result.matches, result.coverage.complete) == (48, True)
    assert (result.partial.sum, result.partial.present) == (sum(values), len(values))
    assert result.partial.counts[0] == sum(value < 10 for value in values)


@pytest.mark.parametrize("limit", [1, 7, 30])
def test_pages_bring_every_machine_of_both_once(half, limit):
    for asker in half.rng.sample(half.at(1), 2):
        seen = pages(half, asker, EVERYTHING, limit)
        assert len(seen) == len(set(seen))
        assert set(seen) == half.truth(asker, EVERYTHING)


def pages(fleet, asker, predicate, limit, **options):
    """The ids of all pages, in order."""
    seen, cursor = [], None
    for _ in range(200):
        result = fleet.ask(asker, predicate, limit=limit, cursor=cursor, **options)
        assert len(result.hits) <= limit
        seen += [bytes(hit.id) for hit in result.hits]
        cursor = result.cursor
        if cursor is None:
            assert result.coverage.complete
            return seen
        assert not result.coverage.complete
        assert result.coverage.limited
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("limit", [0, 5, 20])
@pytest.mark.parametrize("name", ["cores", "load", "watts", "slots"])
@pytest.mark.parametrize("descending", [False, True])
def test_an_order_runs_across_versions(half, name, descending, limit):
    """Who does not have the attribute comes last, of either version."""
    asker = half.at(1)[3]
    order = (BOTH.vocabulary.index(name), descending)
    places = []
    for node in half.up():
        value = node.engine.hub.own.attributes(node.engine.hub.schema).get(name)
        place = inf if value is None else -value if descending else value
        places.append((place, node.engine.hub.key, node.id))
    expected = [node_id for _, _, node_id in sorted(places)]
    if limit == 0:
        result = half.ask(asker, EVERYTHING, order=order)
        assert [bytes(hit.id) for hit in result.hits] == expected
        assert result.coverage.complete
        return
    result = half.ask(asker, EVERYTHING, order=order, limit=limit)
    assert [bytes(hit.id) for hit in result.hits] == expected[:limit]
    assert ordered_pages(half, asker, order, limit) == expected


def ordered_pages(fleet, asker, order, limit):
    seen, cursor = [], None
    for _ in range(200):
        result = fleet.ask(asker, EVERYTHING, limit=limit, order=order, cursor=cursor)
        seen += [bytes(hit.id) for hit in result.hits]
        cursor = result.cursor
        if cursor is None:
            return seen
    raise AssertionError("the pages do not end")


def test_a_walk_of_both_is_explained_as_one(half):
    asker = half.at(1)[0]
    result = half.ask(asker, EVERYTHING, explain=True)
    assert {step.prefix.first[0] >> 6 for step in result.steps if step.prefix.length >= 2} == {0, 1}
    assert [step.start_s for step in result.steps] == sorted(s.start_s for s in result.steps)
    assert sum(step.asked is not None for step in result.steps) == result.coverage.asked


def test_more_members_verify_both(half):
    asker = half.at(1)[0]
    once = half.ask(asker, EVERYTHING)
    result = half.ask(asker, EVERYTHING, verify=2)
    half.expect_exact(asker, EVERYTHING, result)
    assert result.coverage.asked > 1.5 * once.coverage.asked
    seen = pages(half, asker, EVERYTHING, 9, verify=2)
    assert len(seen) == len(set(seen)) == len(half.up())


def test_a_node_that_was_not_told_says_what_it_cannot_ask(half):
    for asker in half.rng.sample(half.at(0), 4):
        result = half.ask(asker, EVERYTHING)
        expect_honest(half, asker, EVERYTHING, result)
        assert result.coverage.failed_prefixes == (Prefix(0b01, 2),)
        assert 0.4 < result.coverage.fraction < 0.6
        again = half.ask(asker, EVERYTHING, cursor=result.cursor)
        assert (again.hits, again.coverage.failed_prefixes) == ((), (Prefix(0b01, 2),))


# --- light clients --------------------------------------------------------------------------------


@pytest.mark.parametrize("through", [0, 1], ids=["through-old", "through-new"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "not-told"])
@pytest.mark.parametrize("words", [OLD, NEW], ids=["old-words", "new-words"])
def test_a_client_of_either_version_asks_through_either(half, words, told, through):
    other = NEW if words is OLD else OLD
    client = half.client(words, half.at(through)[:2], others=[other] if told else [])
    for predicate in (EVERYTHING, half.predicate(client)):
        result = half.ask(client, predicate)
        got, truth = {bytes(hit.id) for hit in result.hits}, half.truth(client, predicate)
        assert got == truth, result.coverage
        assert result.coverage.complete is told, result.coverage
        if not told:
            assert result.coverage.failed_prefixes == (version_prefix(other.version),)
    if told:
        seen = pages(half, client, EVERYTHING, 7)
        assert len(seen) == len(set(seen)) == len(half.up())


def test_the_first_client_that_moved_finds_the_fleet_that_did_not():
    fleet = Upgrade(20, seed=3).begin()
    client = fleet.client(NEW, fleet.nodes[:2], others=[OLD])
    predicate = at_least(BOTH, "slots", 10)
    for asked in (EVERYTHING, predicate, at_least(BOTH, "cores", 4)):
        fleet.expect_exact(client, asked, fleet.ask(client, asked))
    blind = fleet.client(NEW, fleet.nodes[:2])
    result = fleet.ask(blind, EVERYTHING)
    assert (result.hits, result.coverage.complete) == ((), False)
    assert result.coverage.failed_prefixes == (version_prefix(0),)


# --- mistakes -------------------------------------------------------------------------------------


def test_a_changed_schema_without_the_next_version_does_not_join():
    changed = type(NEW)(NEW.name, 0, NEW.attributes, NEW.key_order)
    fleet = Upgrade(20, seed=4).begin()
    node = fleet.nodes[7]
    operation = fleet.move(node, schema=changed)
    fleet.cluster.wait([operation])
    with pytest.raises(SchemaConflict, match="give the changed schema the next version") as caught:
        operation.result()
    assert f"{OLD.tag:08x}" in str(caught.value)
    assert f"{changed.tag:08x}" in str(caught.value)
    assert "10." in str(caught.value).split(" runs ")[0]
    fleet.cluster.run_for(30.0)
    hub = node.engine.hub
    assert not hub.settled
    with pytest.raises(SchemaConflict):
        hub.check_conflict()
    told = [other.engine.hub.versions.warnings for other in fleet.up() if other is not node]
    assert any(f"{changed.tag:08x}" in line for lines in told for line in lines)
    assert counted(fleet, {"schema_conflicts"})["schema_conflicts"] >= 2
    assert counted(fleet, {"malformed", "hits_refused"}) == {}
    for asker in fleet.at(0)[:5]:
        result = fleet.ask(asker, EVERYTHING)
        assert {bytes(hit.id) for hit in result.hits} == {n.id for n in fleet.at(0)}
        assert result.coverage.complete, "the others go on without it"
    fleet.cluster.run_for(NODE_TTL_S)
    assert all(other.engine.hub.versions.warnings == [] for other in fleet.up() if other != node)


def test_a_client_with_another_schema_of_that_version_gets_no_wrong_answer():
    changed = type(NEW)(NEW.name, 0, NEW.attributes, NEW.key_order)
    fleet = Upgrade(12, seed=8).begin()
    client = fleet.client(changed, fleet.nodes[:3])
    for options in ({}, {"count_only": True}, {"limit": 3}):
        operation = fleet.cluster.begin(
            client, lambda e, now, o=options: e.hub.find(EVERYTHING, now, **o)
        )
        fleet.cluster.wait([operation])
        with pytest.raises(SchemaConflict, match="runs another schema as version 0"):
            operation.result()


# --- the end --------------------------------------------------------------------------------------


def test_when_the_last_has_moved_nothing_is_left_of_the_old_version():
    fleet = Upgrade(24, seed=6).begin()
    for node in fleet.nodes:
        fleet.cluster.wait([fleet.move(node, politely=node.index % 3 != 0)])
        fleet.cluster.run_for(5.0)
    fleet.cluster.run_for(300.0)
    for node in fleet.up():
        assert node.engine.hub.buckets.get(1) is None, "an empty version costs nothing"
        result = fleet.ask(node, EVERYTHING)
        fleet.expect_exact(node, EVERYTHING, result)
    fleet.knows_older = False
    node = fleet.nodes[5]
    fleet.cluster.wait([fleet.move(node)])
    fleet.cluster.run_for(10.0)
    assert len(node.engine.hub.schemas) == 1
    fleet.expect_exact(node, EVERYTHING, fleet.ask(node, EVERYTHING))


def test_three_versions_at_once_and_one_that_nobody_told():
    """Versions 2 and 3 share a bucket of versions 0 and 1."""
    third = type(NEW)(NEW.name, 2, NEW.attributes, NEW.key_order)
    fourth = type(OLD)(OLD.name, 3, OLD.attributes, OLD.key_order)
    fleet = Upgrade(40, seed=9)
    kinds = (OLD, NEW, third, fourth)
    fleet.runs = {n: kinds[n % 4] for n in range(40)}
    fleet.cluster.crash(fleet.nodes)
    fleet.cluster.restart(fleet.nodes)
    fleet.begin()
    fleet.cluster.run_for(60.0)
    everybody = {node.id for node in fleet.up()}
    for words in kinds:
        others = [schema for schema in kinds if schema is not words]
        gateways = fleet.rng.sample(fleet.up(), 3)
        client = fleet.client(words, gateways, others=others)
        result = fleet.ask(client, EVERYTHING)
        assert {bytes(hit.id) for hit in result.hits} == everybody
        assert result.coverage.complete, result.coverage
        seen = pages(fleet, client, EVERYTHING, 11)
        assert len(seen) == len(set(seen)) == 40
        unknown = others.pop()
        client = fleet.client(words, gateways, others=others)
        result = fleet.ask(client, EVERYTHING)
        assert {hit.schema.version for hit in result.hits} == {
            s.version for s in kinds if s is not unknown
        }
        assert result.coverage.failed_prefixes == (version_prefix(unknown.version),)


def rows_of(schema, count):
    """Machines that run no node, as a gateway of that schema tells of them."""
    return [
        Row(f"vm-{n}", {"cores": 1 + n % 64, ("slots" if schema is OLD else "watts"): n})
        for n in range(count)
    ]


def test_a_gateway_takes_its_rows_along():
    """The rows of a gateway lie in its own version, and keep their ids."""
    fleet = Upgrade(20, seed=12).begin()
    gateway, *others = fleet.nodes
    fleet.cluster.begin(gateway, lambda e, now: e.hub.rows.advertise(rows_of(OLD, 40), now))
    fleet.cluster.run_for(30.0)
    before = {bytes(hit.id) for hit in fleet.ask(others[0], EVERYTHING).hits if hit.gateway}
    assert len(before) == 40
    for node in (others[0], gateway):
        fleet.cluster.wait([fleet.move(node)])
        fleet.cluster.run_for(5.0)
    fleet.cluster.begin(
        gateway, lambda e, now: e.hub.rows.advertise(rows_of(NEW, 40), now, seq=1000)
    )
    fleet.cluster.run_for(40.0)
    asker = others[0]
    result = fleet.ask(asker, EVERYTHING)
    found = {bytes(hit.id): hit for hit in result.hits}
    assert result.coverage.complete, result.coverage
    assert set(found) == before | {node.id for node in fleet.nodes}
    assert {found[node_id].schema.version for node_id in before} == {1}
    assert fleet.ask(asker, at_least(BOTH, "watts", 0), count_only=True).matches == 42
    fleet.cluster.run_for(200.0)
    assert fleet.ask(asker, EVERYTHING).matches == 60
    assert counted(fleet) == {}
    fleet.cluster.check()
