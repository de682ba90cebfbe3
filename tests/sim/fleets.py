"""Fleets of real machines for simulated clusters, questions about them, and the truth.

The cloud catalogue is shipped with the package. The nodes of Grid'5000 are not: that fleet is
used where its table lies beside the checkout, and skipped with a reason elsewhere.
"""

from collections.abc import Sequence
from functools import cache
from math import inf
from pathlib import Path

import pytest

from dhtos.cli.demo_catalogue import load_catalogue, shipped_catalogue
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.predicate import Box, OneOf, Predicate, Range
from dhtos.core.record import make_record
from dhtos.protocol.engine import EngineConfig
from dhtos.sim import Cluster, engines, hub_truth

SCHEMA = MACHINE_SCHEMA
GRID5000 = Path(__file__).parents[3] / "shared" / "data" / "nodes_grid5000" / "nodes.csv"
FLEETS = ("cloud", "grid5000")


@cache
def rows(fleet):
    """What the machines of a fleet say, as mappings; skips the test where there is no table."""
    if fleet == "cloud":
        return [machine.attributes for machine in shipped_catalogue(SCHEMA).machines]
    if not GRID5000.exists():
        pytest.skip(f"the table of Grid'5000 is not shipped, and not at {GRID5000}")
    return [machine.attributes for machine in load_catalogue(GRID5000, SCHEMA).machines]


def machines(fleet, count, rng):
    """`count` machines with a price and dynamic values; each row once before any comes again."""
    table = rows(fleet)
    chosen = []
    while len(chosen) < count:
        chosen += rng.sample(table, min(len(table), count - len(chosen)))
    return [_alive(row, rng) for row in chosen]


def _alive(row, rng):
    cores = row["cores"]
    values = {
        **row,
        "price": round(0.003 + 0.02 * cores * rng.lognormvariate(0, 0.3), 4),
        "cpu_free": round(rng.uniform(0, 100), 1),
        "load1": round(rng.random() * cores, 2),
        "mem_free": int(row["mem"] * rng.random()),
    }
    return {name: SCHEMA.check(name, value) for name, value in values.items()}


class Fleet:
    """A cluster whose nodes advertise machines, and brute force over it."""

    def __init__(self, count, *, seed, fleet="cloud", group_size=32, factory=engines, **options):
        config = EngineConfig(group_size=group_size)
        self.cluster = Cluster(factory(schema=SCHEMA, config=config), seed=seed, **options)
        self.rng = self.cluster.stream("test")
        self.machines = machines(fleet, count, self.cluster.stream("machines"))
        self._identities = self.cluster.stream("identities")
        self.identity = [self._identities.randbytes(32) for _ in range(count)]
        self.cluster.add(count)

    @property
    def nodes(self):
        return self.cluster.nodes

    def record(self, node, *, seq=1, rev=None, labels=None):
        """The record of a node's machine, as it is now."""
        return make_record(
            SCHEMA,
            self.machines[node.index],
            labels or {},
            node_id=node.id,
            endpoint=node.endpoint,
            seq=seq,
            rev=rev,
            identity=self.identity[node.index],
        )

    # --- life -------------------------------------------------------------------------------------

    def warm_start(self, *, gateways=3):
        """Settle all nodes from the truth."""
        self.cluster.warm_start(hub_truth(self.record))
        self.know_gateways(gateways)
        return self

    def know_gateways(self, count=3):
        """Let every node know the same few others, as from its configuration."""
        for node in self.nodes:
            self._know(node, count)

    def _know(self, node, count=3):
        node.engine.hub.gateways = [other.endpoint for other in self.nodes[:count]]

    def found(self, node):
        """Make a node the first of the hub."""
        self._know(node)
        record = self.record(node)
        self.cluster.begin(node, lambda e, now: e.hub.advertise(record, now))
        self.cluster.begin(node, lambda e, now: e.hub.found(now))

    def begin_join(self, node, gateways, *, seq=1):
        """Advertise and start to join."""
        endpoints = [gateway.endpoint for gateway in gateways]
        record = self.record(node, seq=seq)
        self._know(node)
        self.cluster.begin(node, lambda e, now: e.hub.advertise(record, now))
        return self.cluster.begin(node, lambda e, now: e.hub.join(endpoints, now))

    def cold_start(self, *, spacing_s=0.05, settle_s=15.0):
        """The first node founds, the others join one after the other through random ones."""
        self.found(self.nodes[0])
        operations = []
        for node in self.nodes[1:]:
            operations.append(self.begin_join(node, [self.rng.choice(self.nodes[: node.index])]))
            self.cluster.run_for(spacing_s)
        self.cluster.run_for(settle_s)
        for node, operation in zip(self.nodes[1:], operations, strict=True):
            self.cluster.expect(operation.done, f"{node!r} is still joining")
        self.expect_settled()
        return self

    def publish(self, node, *, eager=False, **changes):
        """Change what a node says and advertise it; the new record."""
        self.machines[node.index] = {**self.machines[node.index], **changes}
        hub = node.engine.hub
        static = any(SCHEMA.attribute(name).role == "static" for name in changes)
        seq = hub.own.seq + 1
        record = self.record(node, seq=seq, rev=seq if static else hub.own.rev)
        self.cluster.begin(node, lambda e, now: e.hub.advertise(record, now, eager=eager))
        return record

    # --- asking -----------------------------------------------------------------------------------

    def begin_find(self, node, predicate, **options):
        """Start a query."""
        return self.cluster.begin(node, lambda e, now: e.hub.find(predicate, now, **options))

    def ask(self, node, predicate, **options):
        """A query and its result."""
        operation = self.begin_find(node, predicate, **options)
        self.cluster.wait([operation])
        return operation.result()

    def ask_many(self, predicates, *, askers=None, batch=50, **options):
        """Many queries from random nodes, some at a time: pairs of predicate and result."""
        askers = askers or self.cluster.up()
        answered = []
        for start in range(0, len(predicates), batch):
            some = predicates[start : start + batch]
            asked = [(p, self.begin_find(self.rng.choice(askers), p, **options)) for p in some]
            self.cluster.wait([operation for _, operation in asked])
            answered += [(predicate, operation.result()) for predicate, operation in asked]
        return answered

    # --- the truth --------------------------------------------------------------------------------

    def truth(self, predicate, nodes=None):
        """Node ids that match, by brute force over what runs."""
        matches = predicate.bind(SCHEMA).matches
        running = self.cluster.up() if nodes is None else nodes
        return {node.id for node in running if matches(node.engine.hub.own)}

    def predicate(self, terms_max=4):
        """A random question that at least one machine's values had a part in."""
        return random_predicate(self.rng, self.machines, terms_max)

    def predicates(self, count):
        return [self.predicate() for _ in range(count)]

    def expect_exact(self, predicate, result, nodes=None):
        """The answer is the truth: nothing missing, nothing more, and it says so."""
        got, truth = ids(result), self.truth(predicate, nodes)
        self.cluster.expect(
            got == truth and result.coverage.complete and result.coverage.fraction == 1.0,
            f"{predicate}: {len(truth - got)} of {len(truth)} missing, {len(got - truth)} too "
            f"many, {result.coverage}",
        )

    def expect_recall(self, count, *, nodes=None, **options):
        """So many random questions are answered exactly."""
        for predicate, result in self.ask_many(self.predicates(count), askers=nodes, **options):
            self.expect_exact(predicate, result, nodes)

    def expect_settled(self):
        for node in self.cluster.up():
            self.cluster.expect(node.engine.hub.settled, f"{node!r} has no place in the hub")

    def expect_one_view(self):
        """Every member knows exactly those that run below its prefix: none lost, none dead."""
        running = {node.engine.hub.key: node for node in self.cluster.up()}
        for node in self.cluster.up():
            group = node.engine.hub.group
            held = set(group.members)
            live = {key for key in running if group.prefix.holds(key)}
            self.cluster.expect(
                held == live,
                f"{node!r} at depth {group.depth} lacks {len(live - held)} members and holds "
                f"{len(held - live)} that are gone",
            )

    def expect_buckets(self):
        """Every inhabited sibling subtree is known, and no empty one."""
        keys = [node.engine.hub.key for node in self.cluster.up()]
        for node in self.cluster.up():
            hub = node.engine.hub
            inhabited = {index for index, _ in hub.buckets.inhabited()}
            truth = {hub.buckets.index_of(key) for key in keys if key != hub.key}
            truth = {index for index in truth if index < hub.group.depth}
            self.cluster.expect(inhabited == truth, f"{node!r}: {inhabited ^ truth} differ")

    def counters(self, name):
        return sum(node.engine.counters[name] for node in self.cluster.up())

    def check(self):
        self.cluster.check()


def ids(result):
    """The node ids of an answer."""
    return {bytes(hit.id) for hit in result.hits}


def at_least(name, low):
    """One term: `name >= low`."""
    return Predicate((Box((Range(SCHEMA.index(name), low, inf),)),))


def equal(name, *values):
    """One term: `name in values`."""
    return Predicate((Box((OneOf(SCHEMA.index(name), tuple(values)),)),))


_NUMBERS = ("cores", "mem", "price", "gpus", "mem_free", "load1", "disk")
_TEXTS = ("arch", "provider", "site", "family", "gpu_model")


def random_predicate(rng, table: Sequence, terms_max=4):
    """One or two boxes of up to `terms_max` terms, with bounds taken from the machines."""
    boxes = [_box(rng, table, terms_max) for _ in range(rng.choice((1, 1, 1, 2)))]
    return Predicate(tuple(boxes))


def _box(rng, table, terms_max):
    names = rng.sample(_NUMBERS + _TEXTS, rng.randint(1, terms_max))
    terms = [_term(rng, name, table) for name in names]
    return Box(tuple(term for term in terms if term is not None))


def _term(rng, name, table):
    value = rng.choice(table).get(name)
    if value is None:
        return None
    index = SCHEMA.index(name)
    if name in _TEXTS:
        return OneOf(index, (value,), rng.random() < 0.1)
    if rng.random() < 0.2:
        other = rng.choice(table).get(name, value)
        return Range(index, min(value, other), max(value, other))
    return Range(index, value, inf) if rng.random() < 0.7 else Range(index, -inf, value)
