"""A fleet that changes its schema: two related schemas, nodes that move one by one, brute force.

Every node has one machine: its values under all attribute names that any schema ever had. What a
node says is what the schema it runs has room for.
"""

from math import inf

from dhtos.core.predicate import Box, OneOf, Predicate, Range
from dhtos.core.record import make_record
from dhtos.core.scale import Codes, Hashed, Linear, Log2
from dhtos.core.schema import Attribute, Schema
from dhtos.core.schemas import Schemas
from dhtos.errors import UsageError
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.sim import Cluster

OLD = Schema(
    "shop",
    0,
    (
        Attribute("cores", "number", "static", Log2(1, 1024), "", 12),
        Attribute("mem", "number", "static", Log2(1, 4096), "B", 12),
        Attribute("arch", "text", "static", Codes(("x86", "arm")), "", 4),
        Attribute("slots", "number", "static", Linear(0, 64), "", 8),
        Attribute("load", "number", "dynamic", Linear(0, 100), "%"),
    ),
    ("cores", "mem", "arch", "slots"),
)
NEW = Schema(
    "shop",
    1,
    (
        Attribute("mem", "number", "static", Log2(1, 65536), "B", 14),  # a longer scale
        Attribute("cores", "number", "static", Log2(1, 4096), "", 10),
        Attribute("arch", "text", "static", Codes(("arm", "riscv", "x86")), "", 4),
        Attribute("zone", "text", "static", Hashed(), "", 8),  # new; `slots` is gone
        Attribute("load", "number", "dynamic", Linear(0, 200), "%"),
        Attribute("watts", "number", "dynamic", Linear(0, 1000)),
    ),
    ("mem", "cores", "arch", "zone"),
)


class Upgrade:
    """A cluster in which each node runs the schema that `runs` says."""

    def __init__(self, count, *, seed, group_size=16, old=OLD, new=NEW, told=None, **options):
        self.old, self.new = old, new
        self.group_size = group_size
        self.runs = {}  # by index: the schema that a node runs
        self.knows_older = True  # whether upgraded nodes were told the older schema
        self.cluster = Cluster(self._engine, seed=seed, **options)
        self.rng = self.cluster.stream("test")
        self.clients = {}  # by index: the schemas of light clients
        self.told = told or [self._machine() for _ in range(count)]
        self.identity = [self.rng.randbytes(32) for _ in range(count)]
        self.seq = [0] * count
        self.cluster.add(count)

    def _machine(self):
        rng = self.rng
        cores = rng.choice((1, 2, 4, 8, 8, 8, 16, 64))
        return {
            "cores": cores,
            "mem": cores * rng.choice((2, 4, 8)),
            "arch": rng.choice(("x86", "x86", "arm")),
            "slots": rng.randrange(64),
            "zone": rng.choice(("a", "b", "c")),
            "load": rng.randrange(100),
            "watts": rng.randrange(1000),
        }

    def _engine(self, node, now):
        schema = self.runs.get(node.index, self.old)
        older = (self.old,) if schema is self.new and self.knows_older else ()
        client = node.index in self.clients
        if client:
            schema, older = self.clients[node.index]
        config = EngineConfig(group_size=self.group_size, other_schemas=older, client=client)
        return Engine(node.id, rng=node.rng, now=now, schema=schema, config=config)

    @property
    def nodes(self):
        return self.cluster.nodes[: len(self.told)]

    def up(self):
        return [node for node in self.cluster.up() if node.index < len(self.told)]

    def version(self, node):
        return node.engine.hub.schema.version

    def at(self, version):
        """The nodes that run and have a place in one version."""
        return [n for n in self.up() if self.version(n) == version and n.engine.hub.settled]

    def record(self, node):
        self.seq[node.index] += 1
        schema = self.runs.get(node.index, self.old)
        said = {n: v for n, v in self.told[node.index].items() if n in schema}
        return make_record(
            schema,
            said,
            {},
            node_id=node.id,
            endpoint=node.endpoint,
            seq=self.seq[node.index],
            identity=self.identity[node.index],
        )

    # --- life -------------------------------------------------------------------------------------

    def start(self, node, gateways):
        record = self.record(node)
        node.engine.hub.gateways = [other.endpoint for other in self.nodes[:3] if other is not node]
        self.cluster.begin(node, lambda e, now: e.hub.advertise(record, now))
        if not gateways:
            return self.cluster.begin(node, lambda e, now: e.hub.found(now))
        endpoints = [gateway.endpoint for gateway in gateways]
        return self.cluster.begin(node, lambda e, now: e.hub.join(endpoints, now))

    def begin(self, *, settle_s=10.0):
        """Let all nodes join, each in the schema that it runs."""
        self.start(self.nodes[0], [])
        for node in self.nodes[1:]:
            self.start(node, [self.rng.choice(self.nodes[: node.index])])
            self.cluster.run_for(0.1)
        self.cluster.run_for(settle_s)
        self.expect_settled()
        return self

    def move(self, node, *, politely=True, schema=None):
        """Restart a node with the changed schema."""
        if politely:
            self.cluster.begin(node, lambda e, now: e.hub.leave(now))
        self.cluster.crash([node])
        self.runs[node.index] = schema or self.new
        self.cluster.restart([node])
        others = [other for other in self.up() if other is not node]
        return self.start(node, self.rng.sample(others, min(3, len(others))))

    def client(self, schema, gateways, *, others=()):
        """A light client that knows some nodes."""
        self.clients[len(self.cluster.nodes)] = (schema, tuple(others))
        (node,) = self.cluster.add(1)
        node.engine.hub.gateways = [gateway.endpoint for gateway in gateways]
        return node

    def expect_settled(self):
        for node in self.up():
            self.cluster.expect(node.engine.hub.settled, f"{node!r} has no place in the hub")

    # --- asking -----------------------------------------------------------------------------------

    def ask(self, node, predicate, **options):
        operation = self.cluster.begin(node, lambda e, now: e.hub.find(predicate, now, **options))
        self.cluster.wait([operation])
        return operation.result()

    def truth(self, node, predicate):
        """Who matches, by brute force over what runs, as `node` may know."""
        schemas = node.engine.hub.schemas
        found = set()
        for other in self.up():
            schema = schemas.at(self.version(other))
            if schema is None:
                continue
            asked = schemas.translated(predicate, schema)
            if asked is not None and asked.bind(schema).matches(other.engine.hub.own):
                found.add(other.id)
        return found

    def expect_exact(self, node, predicate, result):
        got, truth = {bytes(hit.id) for hit in result.hits}, self.truth(node, predicate)
        self.cluster.expect(
            got == truth and result.coverage.complete,
            f"{node!r} asked {predicate}: {len(truth - got)} of {len(truth)} missing, "
            f"{len(got - truth)} too many, {result.coverage}",
        )

    def predicate(self, node):
        """A random question in the words that a node knows."""
        vocabulary = node.engine.hub.schemas.vocabulary
        names = self.rng.sample([a.name for a in vocabulary.attributes], self.rng.randint(1, 2))
        terms = []
        for name in names:
            index = vocabulary.index(name)
            value = self.rng.choice(self.told)[name]
            if isinstance(value, str):
                terms.append(OneOf(index, (value,), self.rng.random() < 0.2))
            else:
                low = self.rng.random() < 0.5
                terms.append(Range(index, value, inf) if low else Range(index, -inf, value))
        predicate = Predicate((Box(tuple(terms)),))
        schemas = node.engine.hub.schemas
        known = [schemas.at(v) for v in range(4) if schemas.at(v) is not None]
        if any(schemas.translated(predicate, schema) is not None for schema in known):
            return predicate
        return self.predicate(node)


def at_least(schema, name, low):
    """One term: `name >= low`, in the words of a schema or of several."""
    words = schema.vocabulary if isinstance(schema, Schemas) else schema
    return Predicate((Box((Range(words.index(name), low, inf),)),))


__all__ = ["NEW", "OLD", "Upgrade", "UsageError", "at_least"]
