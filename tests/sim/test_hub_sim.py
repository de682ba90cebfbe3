"""The hub in whole clusters of real machines: recall against brute force, paging, determinism.

A fleet knows its own truth: what every running node advertises. A healthy answer must be exactly
that, complete, and the same on every run of one seed.
"""

import pytest
from fleets import FLEETS, SCHEMA, Fleet, at_least, ids

from dhtos.core.predicate import EVERYTHING
from dhtos.sim import standard

PRICE = SCHEMA.index("price")


def _joined(count, seed, replay=None, **options):
    return Fleet(count, seed=seed, replay=replay, **options).cold_start()


# --- recall ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("group_size", [32, 256])
@pytest.mark.parametrize("fleet", FLEETS)
def test_a_thousand_nodes_answer_exactly(fleet, group_size):
    """Four runs of 125 questions over 1,000 real machines: recall 1.000, nothing stale."""
    seed = group_size
    crowd = Fleet(1000, seed=seed, fleet=fleet, group_size=group_size).warm_start()
    crowd.expect_recall(75)
    crowd.cluster.run_for(5.0)
    crowd.expect_recall(50)
    crowd.check()


@pytest.mark.parametrize("group_size", [32, 256])
@pytest.mark.parametrize("fleet", FLEETS)
def test_one_seed_replays_one_run(fleet, group_size):
    """The smaller twin of the run above, twice."""

    def story():
        crowd = Fleet(120, seed=7, fleet=fleet, group_size=group_size).warm_start()
        crowd.expect_recall(25)
        crowd.cluster.crash(crowd.rng.sample(crowd.nodes, 12))
        crowd.cluster.run_for(8.0)
        crowd.ask_many(crowd.predicates(10))
        return crowd.cluster.trace.deliveries, crowd.cluster.trace.digest

    first = story()
    assert first[0] > 1000
    assert first == story()


def test_a_warm_start_stays_right_by_its_own_protocol(sim_seed, sim_replay):
    crowd = Fleet(200, seed=sim_seed, replay=sim_replay).warm_start()
    crowd.expect_one_view()
    crowd.cluster.run_for(90.0)
    crowd.expect_one_view()
    crowd.expect_buckets()
    crowd.expect_recall(30)
    crowd.cluster.expect(crowd.counters("burials") == 0, "nobody died")
    crowd.check()


# --- the cold join --------------------------------------------------------------------------------


def test_a_cold_join_ends_in_one_exact_hub(sim_seed, sim_replay):
    crowd = _joined(150, sim_seed, sim_replay, checkers=standard(), check_every=5000)
    crowd.expect_recall(40)
    crowd.cluster.run_for(60.0)
    crowd.expect_one_view()
    crowd.expect_buckets()
    crowd.expect_recall(60)
    crowd.check()


@pytest.fixture(scope="module")
def settled():
    """One fleet of 150 that joined the cold way, for questions that change nothing."""
    crowd = _joined(150, 3)
    crowd.cluster.run_for(30.0)
    return crowd


def test_a_limit_gives_that_many_true_matches(settled):
    for predicate, result in settled.ask_many(settled.predicates(40), limit=20):
        truth, got = settled.truth(predicate), ids(result)
        assert len(result.hits) == len(got) == min(20, len(truth)), result.coverage
        assert got <= truth
        assert result.coverage.complete == (result.cursor is None)
        assert result.coverage.limited == (result.cursor is not None)


def test_a_limit_costs_less_than_everything(settled):
    predicates = settled.predicates(30)
    some = settled.ask_many(predicates, limit=5)
    everything = settled.ask_many(predicates)
    assert sum(r.coverage.asked for _, r in some) < sum(r.coverage.asked for _, r in everything)


def test_cursors_page_through_every_match_once(settled):
    for predicate in settled.predicates(15):
        asker = settled.rng.choice(settled.nodes)
        seen, cursor = [], None
        for _ in range(200):
            result = settled.ask(asker, predicate, limit=7, cursor=cursor)
            assert len(result.hits) <= 7
            seen += [bytes(hit.id) for hit in result.hits]
            cursor = result.cursor
            if cursor is None:
                break
        assert cursor is None
        assert len(seen) == len(set(seen)), predicate
        assert set(seen) == settled.truth(predicate), predicate


def test_a_cursor_is_read_by_any_node(settled):
    askers = settled.rng.sample(settled.nodes, 12)
    seen, cursor = set(), None
    for asker in askers:
        result = settled.ask(asker, EVERYTHING, limit=25, cursor=cursor)
        seen |= ids(result)
        cursor = result.cursor
        if cursor is None:
            break
    assert seen == settled.truth(EVERYTHING)


@pytest.mark.parametrize("descending", [False, True])
def test_order_by_is_the_exact_top_k(settled, descending):
    for predicate, result in settled.ask_many(
        settled.predicates(30), limit=10, order=(PRICE, descending)
    ):
        assert [hit["price"] for hit in result.hits] == _best(settled, predicate, descending)[:10]


def test_ordered_pages_continue_where_the_last_ended(settled):
    for predicate in [EVERYTHING, *settled.predicates(6)]:
        truth = _best(settled, predicate, descending=False)
        asker = settled.rng.choice(settled.nodes)
        prices, cursor = [], None
        for _ in range(60):
            result = settled.ask(asker, predicate, limit=11, order=(PRICE, False), cursor=cursor)
            prices += [hit["price"] for hit in result.hits]
            cursor = result.cursor
            if cursor is None:
                break
        assert prices == truth, predicate


def _best(crowd, predicate, descending):
    """All prices of the true matches, best first."""
    matches = predicate.bind(SCHEMA).matches
    own = [node.engine.hub.own for node in crowd.cluster.up()]
    prices = [r.attributes(SCHEMA)["price"] for r in own if matches(r)]
    return sorted(prices, reverse=descending)


def test_count_only_counts_and_carries_nothing(settled):
    for predicate, result in settled.ask_many(settled.predicates(20), count_only=True):
        assert result.hits == ()
        assert result.matches == len(settled.truth(predicate))
        assert result.coverage.complete


def test_strict_is_as_exact(settled):
    settled.expect_recall(20, strict=True)


def test_a_light_client_asks_through_gateways(settled):
    client = settled.cluster.add(1)[0]
    client.engine.hub.gateways = [node.endpoint for node in settled.nodes[:3]]
    for predicate in settled.predicates(10):
        settled.expect_exact(predicate, settled.ask(client, predicate), settled.nodes[:150])
    assert not client.engine.hub.settled
    settled.cluster.crash([client])


# --- small hubs -----------------------------------------------------------------------------------


def test_a_hub_within_one_group_answers_alone(sim_seed, sim_replay):
    crowd = _joined(20, sim_seed, sim_replay)
    for predicate in crowd.predicates(10):
        result = crowd.ask(crowd.rng.choice(crowd.nodes), predicate)
        crowd.expect_exact(predicate, result)
        crowd.cluster.expect(result.coverage.asked == 0, "a local answer asks nobody")


def test_two_that_start_at_once_in_one_empty_subtree_meet(sim_seed, sim_replay):
    """Both find it empty, each founds a group there; neighbours in summaries introduce them."""
    crowd = Fleet(90, seed=sim_seed, replay=sim_replay, group_size=8)
    strange = {"cores": 1024, "mem": 2**45, "gpus": 16, "price": 200.0}
    twins = crowd.nodes[80:82]
    for index in (80, 81):
        crowd.machines[index] = {**crowd.machines[index], **strange}
    crowd.found(crowd.nodes[0])
    for node in crowd.nodes[1:80]:
        crowd.begin_join(node, [crowd.nodes[0]])
        crowd.cluster.run_for(0.05)
    crowd.cluster.run_for(20.0)
    for node, gateway in zip(twins, crowd.nodes[5:7], strict=True):
        crowd.begin_join(node, [gateway])
    known = crowd.nodes[:82]
    crowd.cluster.crash(crowd.nodes[82:])
    crowd.cluster.run_for(45.0)
    crowd.expect_settled()
    crowd.expect_one_view()
    for node in known[:20]:
        result = crowd.ask(node, at_least("cores", 1024))
        crowd.cluster.expect(ids(result) >= {twin.id for twin in twins}, "both twins are found")
    crowd.check()


def test_all_that_start_at_once_end_in_one_hub(sim_seed, sim_replay):
    """Nobody waits for anybody: sixty join within a second through one founder."""
    crowd = Fleet(60, seed=sim_seed, replay=sim_replay, group_size=16)
    crowd.cold_start(spacing_s=0.01, settle_s=60.0)
    crowd.expect_one_view()
    crowd.expect_recall(20)
    crowd.check()
