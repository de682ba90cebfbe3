"""Machines that run no node: found exactly, through splits, deaths, changes and goodbyes."""

import pytest
from fleets import SCHEMA, Fleet, ids, machines

from dhtos.core.limits import HEARTBEAT_S, RECORD_TTL_S
from dhtos.core.predicate import EVERYTHING
from dhtos.protocol.rows import Row

pytestmark = pytest.mark.slow

PRICE = SCHEMA.index("price")
ONE_BEAT_S = HEARTBEAT_S + 10.0
GIANT = {"cores": 512, "mem": 2**44, "gpus": 16, "price": 90, "arch": "ppc64le"}


class Gateways:
    """A fleet, some nodes of which advertise rows, and the truth about all machines."""

    def __init__(self, fleet, gateways, rows_each):
        self.fleet = fleet
        self.cluster = fleet.cluster
        self.rows = {}
        rng = self.cluster.stream("rows")
        for node in gateways:
            table = machines("cloud", rows_each, rng)
            self.tell(node, [Row(f"vm-{i}", values) for i, values in enumerate(table)])

    def tell(self, node, rows):
        """Let a gateway advertise just these rows."""
        self.rows[node.index] = rows
        self.cluster.begin(node, lambda e, now: e.hub.rows.advertise(rows, now))

    @property
    def nodes(self):
        return [self.fleet.nodes[index] for index in self.rows]

    def ids_of(self, node):
        """The ids of a gateway's rows."""
        own = node.engine.hub.own
        return {row.record(SCHEMA, own, 1).node_id for row in self.rows[node.index]}

    def records(self):
        """What every machine of the fleet says, with a node or without."""
        for node in self.cluster.up():
            own = node.engine.hub.own
            yield own
            for row in self.rows.get(node.index, ()):
                yield row.record(SCHEMA, own, 1)

    def truth(self, predicate):
        matches = predicate.bind(SCHEMA).matches
        return {record.node_id for record in self.records() if matches(record)}

    def expect_exact(self, count=30, **options):
        """Questions of random members are answered with the truth, and say so."""
        predicates = [EVERYTHING] * 10 + self.fleet.predicates(count)
        for predicate, result in self.fleet.ask_many(predicates, **options):
            got, truth = ids(result), self.truth(predicate)
            self.cluster.expect(
                got == truth and result.coverage.complete and len(result.hits) == len(truth),
                f"{predicate}: {len(truth - got)} of {len(truth)} missing, {len(got - truth)} too "
                f"many, {result.coverage}",
            )

    def found(self, asker):
        """The ids of all machines, as one member finds them."""
        return ids(self.fleet.ask(asker, EVERYTHING))


@pytest.fixture
def crowd(sim_seed, sim_replay):
    """200 nodes in groups of 32, five of them with a hundred rows each, settled.

    After 45 s one of 500 rows was unknown to one member with one seed, and a second later no more.
    """
    fleet = Fleet(200, seed=sim_seed, replay=sim_replay, group_size=32).warm_start()
    crowd = Gateways(fleet, fleet.nodes[10:15], 100)
    fleet.cluster.run_for(60.0)
    return crowd


def test_rows_are_found_like_nodes_exactly(crowd):
    crowd.expect_exact(80)
    for node in crowd.nodes:
        stats = node.engine.hub.stats()
        assert stats["rows_advertised"] == stats["rows"] == 100
    everything = crowd.fleet.ask(crowd.fleet.nodes[0], EVERYTHING)
    marked = {bytes(hit.id): hit.endpoint for hit in everything.hits if hit.gateway}
    for node in crowd.nodes:
        host, port = node.endpoint
        assert {marked[one] for one in crowd.ids_of(node)} == {f"{host}:{port}"}
    assert len(marked) == 500
    crowd.fleet.check()


def test_they_are_counted_ordered_and_paged(crowd):
    fleet = crowd.fleet
    counted = fleet.ask_many(fleet.predicates(20), count_only=True)
    assert [r.matches for _, r in counted] == [len(crowd.truth(p)) for p, _ in counted]
    prices = sorted(record.attributes(SCHEMA)["price"] for record in crowd.records())
    got, cursor = [], None
    while len(got) < 120:
        page = fleet.ask(fleet.nodes[7], EVERYTHING, limit=40, order=(PRICE, False), cursor=cursor)
        got += [hit["price"] for hit in page.hits]
        cursor = page.cursor
    assert got == prices[:120]


def test_nobody_doubts_a_machine_that_cannot_answer(crowd):
    crowd.cluster.run_for(2 * ONE_BEAT_S)
    assert crowd.fleet.counters("suspicions") == 0
    assert crowd.fleet.counters("burials") == 0
    assert crowd.fleet.counters("malformed") == 0
    crowd.expect_exact(10)


def test_they_survive_the_death_of_a_third_of_the_nodes(crowd):
    fleet = crowd.fleet
    victims = [node for node in fleet.nodes if node.index not in crowd.rows]
    crowd.cluster.crash(fleet.rng.sample(victims, 60))
    crowd.cluster.run_for(ONE_BEAT_S + 60.0)
    crowd.expect_exact()
    fleet.check()


def test_the_rows_of_a_dead_gateway_expire(crowd):
    gateway = crowd.nodes[0]
    gone = crowd.ids_of(gateway) | {gateway.id}
    crowd.cluster.crash([gateway])
    crowd.cluster.run_for(RECORD_TTL_S + 60.0)
    for asker in crowd.fleet.rng.sample(crowd.cluster.up(), 5):
        assert not crowd.found(asker) & gone
    crowd.expect_exact()


def test_a_gateway_that_stops_takes_its_rows_along(crowd):
    gateway = crowd.nodes[1]
    crowd.cluster.begin(gateway, lambda e, now: e.hub.leave(now))
    crowd.cluster.run_for(0.5)
    crowd.cluster.crash([gateway])
    crowd.cluster.run_for(15.0)
    crowd.expect_exact()


def test_rows_come_change_and_go(crowd):
    gateway, rows = crowd.nodes[2], list(crowd.rows[crowd.nodes[2].index])
    removed, kept, changed = rows[:20], rows[20:60], rows[60:]
    cheap = [Row(r.name, {**r.attributes, "price": 0.001}, {"on": "sale"}) for r in changed[:20]]
    moved = [Row(r.name, {**r.attributes, "cores": 96}) for r in changed[20:]]
    added = [Row(f"new-{i}", dict(r.attributes)) for i, r in enumerate(removed)]
    crowd.tell(gateway, kept + cheap + moved + added)
    crowd.cluster.run_for(40.0)
    crowd.expect_exact()
    found = crowd.fleet.ask(crowd.fleet.nodes[0], EVERYTHING)
    assert sum(hit.labels.get("on") == "sale" for hit in found.hits) == 20
    crowd.tell(gateway, [])
    crowd.cluster.run_for(15.0)
    asker = crowd.cluster.up()[0]
    assert not crowd.found(asker) & ids(found) - crowd.truth(EVERYTHING)
    crowd.cluster.run_for(RECORD_TTL_S)  # who asked where a seat was has forgotten it
    crowd.expect_exact()
    assert gateway.engine.hub.stats()["rows"] == 0


def test_a_row_that_comes_back_is_found_again(crowd):
    gateway, rows = crowd.nodes[3], crowd.rows[crowd.nodes[3].index]
    for told in (rows[50:], rows, rows[:50], rows):
        crowd.tell(gateway, told)
        crowd.cluster.run_for(10.0)
    crowd.cluster.run_for(20.0)
    crowd.expect_exact()


# --- where nobody else is -------------------------------------------------------------------------


def test_the_only_machines_of_their_kind_run_no_node(sim_seed, sim_replay):
    """Their subtree has no node at all: one row becomes a seat of its gateway."""
    fleet = Fleet(60, seed=sim_seed, replay=sim_replay, group_size=16).warm_start()
    fleet.cluster.run_for(5.0)
    crowd = Gateways(fleet, [], 0)
    for node in fleet.nodes[3:6]:
        crowd.tell(node, [Row(f"big-{i}", GIANT) for i in range(30)])
    fleet.cluster.run_for(60.0)
    seats = sum(node.engine.hub.stats()["seats"] for node in crowd.nodes)
    assert seats >= 1
    crowd.expect_exact()

    gateway = crowd.nodes[0]
    crowd.tell(gateway, crowd.rows[gateway.index][1:])
    fleet.cluster.crash([crowd.nodes[1]])
    fleet.cluster.run_for(RECORD_TTL_S + ONE_BEAT_S)
    crowd.expect_exact()
    fleet.check()


def test_seats_are_given_up_when_nodes_have_come(sim_seed, sim_replay):
    fleet = Fleet(60, seed=sim_seed, replay=sim_replay, group_size=16)
    for index in range(40, 60):
        fleet.machines[index] = dict(GIANT)
    fleet.found(fleet.nodes[0])
    for node in fleet.nodes[1:40]:
        fleet.begin_join(node, [fleet.nodes[0]])
        fleet.cluster.run_for(0.05)
    fleet.cluster.run_for(20.0)
    crowd = Gateways(fleet, [], 0)
    crowd.tell(fleet.nodes[3], [Row(f"big-{i}", GIANT) for i in range(30)])
    fleet.cluster.run_for(30.0)
    assert fleet.nodes[3].engine.hub.stats()["seats"] == 1
    for node in fleet.nodes[40:]:
        fleet.begin_join(node, [fleet.nodes[0]])
        fleet.cluster.run_for(0.05)
    fleet.cluster.run_for(ONE_BEAT_S)
    fleet.expect_settled()
    assert fleet.nodes[3].engine.hub.stats()["seats"] == 0
    crowd.expect_exact()
    fleet.check()


def test_groups_split_and_merge_around_them(sim_seed, sim_replay):
    """A hub grows from one group to many and shrinks again; every row is found all the time."""
    fleet = Fleet(120, seed=sim_seed, replay=sim_replay, group_size=16)
    fleet.found(fleet.nodes[0])
    for node in fleet.nodes[1:12]:
        fleet.begin_join(node, [fleet.nodes[0]])
        fleet.cluster.run_for(0.05)
    fleet.cluster.run_for(10.0)
    crowd = Gateways(fleet, fleet.nodes[1:4], 60)
    fleet.cluster.run_for(20.0)
    depth = max(node.engine.hub.group.depth for node in fleet.nodes[:12])
    fleet.know_gateways()
    for node in fleet.nodes[12:]:
        fleet.begin_join(node, [fleet.rng.choice(fleet.nodes[:12])])
        fleet.cluster.run_for(0.1)
    fleet.cluster.run_for(ONE_BEAT_S)
    assert max(node.engine.hub.group.depth for node in fleet.nodes) > depth
    crowd.expect_exact()
    leaving = fleet.nodes[10:]
    for node in leaving:
        fleet.cluster.begin(node, lambda e, now: e.hub.leave(now))
        fleet.cluster.run_for(0.2)
    fleet.cluster.crash(leaving)
    fleet.cluster.run_for(RECORD_TTL_S + ONE_BEAT_S)
    crowd.expect_exact()
    fleet.check()
