"""What the tests of the hub share: machines, one engine alone, and a simulated fleet."""

import random
from collections.abc import Iterable
from typing import Any

import msgspec

from dhtos.core.contact import Contact
from dhtos.core.group import State
from dhtos.core.ids import Endpoint, Prefix
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.predicate import Box, Exists, OneOf, Predicate, Range
from dhtos.core.record import Record, make_record
from dhtos.protocol.answer import Order, Question
from dhtos.protocol.bundle import Assembly, cut, pack
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.operation import Operation
from dhtos.protocol.wire import (
    Request,
    Response,
    encode_request,
    encode_response,
    encode_trailer,
    parse,
)
from dhtos.sim import Cluster
from dhtos.sim.node import SimNode

SCHEMA = MACHINE_SCHEMA
GIB = 2**30
INF = float("inf")
ALL = Predicate((Box(),))


def endpoint_of(number: int) -> Endpoint:
    """A distinct address."""
    return (f"10.1.{number >> 8}.{number & 255}", 7400)


def machine(number: int = 0, *, seq: int = 1, labels: dict[str, str] | None = None, **values: Any):
    """A record of machine `number`; its key depends on the values and the number alone."""
    identity = b"" if number < 0 else number.to_bytes(32)
    return make_record(
        SCHEMA,
        values,
        labels or {},
        node_id=abs(number).to_bytes(20),
        endpoint=endpoint_of(abs(number)),
        seq=seq,
        identity=identity,
    )


def at_least(**bounds: float) -> Predicate:
    """All the named attributes are at least so much."""
    terms = tuple(Range(SCHEMA.index(n), SCHEMA.check(n, v), INF) for n, v in bounds.items())
    return Predicate((Box(terms),))


def equal(**values: Any) -> Predicate:
    """All the named attributes are just that."""
    return Predicate((Box(tuple(OneOf(SCHEMA.index(n), (v,)) for n, v in values.items())),))


def has(name: str) -> Predicate:
    """The machine says something about `name`."""
    return Predicate((Box((Exists(SCHEMA.index(name)),)),))


def order(name: str, *, descending: bool = False) -> Order:
    """What `order by` says."""
    return SCHEMA.index(name), descending


def question(predicate: Predicate = ALL, limit: int = 0, by: Order | None = None, **flags: bool):
    """A question as a member evaluates it."""
    wire = msgspec.msgpack.encode(predicate.to_wire())
    return Question(wire, predicate.bind(SCHEMA), limit, by, **flags)


def contact_of(record: Record) -> Contact:
    """The hub contact of a record's node."""
    return Contact(record.key(SCHEMA), record.endpoint)


def item(
    prefix: Prefix, *contacts: Endpoint, estimate: float = 5.0, bound: Any = None
) -> list[Any]:
    """A frontier item on the wire; its contacts have ids inside the prefix."""
    first = int.from_bytes(prefix.first)
    named = [[(first + n).to_bytes(20), *endpoint] for n, endpoint in enumerate(contacts)]
    return [prefix.to_wire(), 5, estimate, bound, named]


def body_of(
    covers: Prefix | None,
    *,
    items: list[Any] | None = None,
    hits: list[Record] | None = None,
    matches: int | None = None,
    after: list[Any] | None = None,
    pruned: int = 0,
    key: bytes = bytes(20),
    others: list[Record] | None = None,
) -> list[Any]:
    """A whole answer of `dh_range`: header, items, hits."""
    hits = hits or []
    count = len(hits) if matches is None else matches
    prefixes = [] if covers is None else [covers.to_wire()]
    header = [key, 3, b"cookie!!", prefixes, count, after, pruned]
    if others is not None:
        header.append([contact_of(record).to_wire() for record in others])
    return [header, items or [], [[0.5, record] for record in hits]]


def bundled(body: object) -> list[list[Any]]:
    """The datagrams of an answer."""
    return cut(*pack(msgspec.msgpack.encode(body)))


def unbundled(parts: list[list[Any]]) -> Any:
    """The answer that datagrams carry together."""
    assembly = Assembly()
    *early, body = [assembly.add(part) for part in parts]
    assert early == [None] * len(early)
    assert body is not None
    return msgspec.msgpack.decode(body)


def told(covers: Prefix | None, **options: Any) -> list[Any]:
    """A whole answer of `dh_range` in one datagram."""
    (part,) = bundled(body_of(covers, **options))
    return part


JOINING = bundled([None, [], []])[0]
"""What a node without a place answers."""


class Asked:
    """One request that a lone engine sent."""

    def __init__(self, request: Request, endpoint: Endpoint) -> None:
        self.msg_id = request.msg_id
        self.name = request.name
        self.args = request.args
        self.endpoint = endpoint


class Lone:
    """One engine with a hub; the test is the network around it."""

    def __init__(self, own: Record | None = None, *, seed: int = 1, size: int = 8) -> None:
        self.now = 100.0
        self.engine = Engine(
            bytes(20),
            rng=random.Random(seed),
            now=self.now,
            schema=SCHEMA,
            config=EngineConfig(group_size=size),
        )
        self.hub = self.engine.hub
        self.core = self.engine.core
        if own is not None:
            self.hub.advertise(own, self.now)

    @property
    def own(self) -> Record:
        """What it advertises."""
        assert self.hub.own is not None
        return self.hub.own

    def believes(self, key: bytes) -> State | None:
        """What it takes a key for; None if it knows nothing of it."""
        group = self.hub.group
        if key in group.members:
            return group.members[key].state
        return group.tombstones[key].state if key in group.tombstones else None

    def settle(self, members: Iterable[Record] = (), others: Iterable[Record] = ()) -> "Lone":
        """Put records into the group, split it, meet others; from now on it answers."""
        for record in members:
            assert self.hub.group.put(record.key(SCHEMA), record, self.now, self.now)
        self.hub.settle(self.now)
        for record in others:
            self.hub.met(contact_of(record), self.now, self.now)
        self.engine.outbox()
        self.engine.check()
        return self

    def sent(self, name: str | None = None) -> list[Asked]:
        """The requests in the outbox, which is empty afterwards."""
        parsed = [(parse(datagram), to) for datagram, to in self.engine.outbox()]
        asked = [Asked(one, to) for one, to in parsed if isinstance(one, Request)]
        return [one for one in asked if name in (None, one.name)]

    def reply(self, asked: Asked, value: object, *, source: Endpoint | None = None) -> None:
        """Answer one of its requests."""
        datagram = encode_response(asked.msg_id, value) + encode_trailer([1])
        self.engine.receive(datagram, source or asked.endpoint, self.now)
        self.engine.check()

    def request(
        self, name: str, args: list[Any], source: Endpoint = ("10.9.9.9", 9), *, greet: bool = True
    ) -> list[Any]:
        """Ask it something; the values of its replies, in order."""
        trailer = encode_trailer([1]) if greet else b""
        self.engine.receive(encode_request(b"q" * 20, name, args) + trailer, source, self.now)
        self.engine.check()
        return [one.value for one, _, _ in self.replies()]

    def replies(self) -> list[tuple[Response, int, Endpoint]]:
        """The responses in the outbox with their sizes, which is empty afterwards."""
        found = []
        for datagram, to in self.engine.outbox():
            message = parse(datagram)
            if isinstance(message, Response):
                found.append((message, len(datagram), to))
        return found

    def wait(self, seconds: float) -> None:
        """Let time pass, ticking whenever something is due."""
        end = self.now + seconds
        while self.engine.next_deadline() <= end:
            self.now = max(self.now, self.engine.next_deadline())
            self.engine.tick(self.now)
        self.now = end
        self.engine.check()

    def until_sent(self, name: str, seconds: float = 5.0) -> list[Asked]:
        """Let time pass until it sends a request of that name."""
        end = self.now + seconds
        while not (asked := self.sent(name)):
            assert self.engine.next_deadline() <= end, f"no {name} within {seconds} s"
            self.now = max(self.now, self.engine.next_deadline())
            self.engine.tick(self.now)
        return asked


class Mates:
    """Real engines of one group; the test carries their datagrams, at once and in order."""

    def __init__(self, count: int, *, size: int = 64, seed: int = 1) -> None:
        records = [machine(n, cores=4, mem=(n + 1) * GIB) for n in range(1, count + 1)]
        self.all = [Lone(record, seed=seed + n, size=size) for n, record in enumerate(records)]
        self.cut: set[Endpoint] = set()  # who neither hears nor is heard
        self.broken: set[Endpoint] = set()  # between these nothing is carried
        self.carried: list[tuple[Endpoint, Asked]] = []  # requests on the way: who sent what
        for one in self.all:
            for record in records:
                one.hub.group.put(record.key(SCHEMA), record, one.now, one.now)
            one.hub.settle(one.now, announce=False)

    @property
    def now(self) -> float:
        """The clock that all share."""
        return self.all[0].now

    def at(self, endpoint: Endpoint) -> Lone | None:
        """The engine at an address."""
        return next((one for one in self.all if one.own.endpoint == endpoint), None)

    def carry(self) -> None:
        """Deliver until nobody has anything to send."""
        while batches := [(one, sent) for one in self.all if (sent := one.engine.outbox())]:
            for one, sent in batches:
                for datagram, to in sent:
                    self._deliver(one.own.endpoint, datagram, to)

    def _deliver(self, source: Endpoint, datagram: bytes, to: Endpoint) -> None:
        message = parse(datagram)
        if isinstance(message, Request):
            self.carried.append((source, Asked(message, to)))
        target = self.at(to)
        if target is not None and not self.cut & {source, to} and not self.broken >= {source, to}:
            target.engine.receive(datagram, source, target.now)

    def wait(self, seconds: float) -> None:
        """Let time pass for all, carrying what they send when they send it."""
        end = self.now + seconds
        self.carry()
        while (due := min(one.engine.next_deadline() for one in self.all)) <= end:
            moment = max(self.now, due)
            for one in self.all:
                one.now = moment
                if one.engine.next_deadline() <= moment:
                    one.engine.tick(moment)
            self.carry()
        for one in self.all:
            one.now = end
            one.engine.check()

    def sent(self, name: str, source: Lone | None = None) -> list[Asked]:
        """The requests of one name that were carried, of one engine or of all."""
        who = source and source.own.endpoint
        return [a for by, a in self.carried if a.name == name and who in (None, by)]

    def states(self, key: bytes) -> list[State | None]:
        """What each believes of a key."""
        return [one.believes(key) for one in self.all]


class Fleet:
    """A simulated hub of machines, and the truth about it."""

    def __init__(
        self, *, seed: int = 1, size: int = 8, delay: float = 0.01, **network: Any
    ) -> None:
        self.rng = random.Random(seed)
        config = EngineConfig(group_size=size)

        def build(node: SimNode[Engine], now: float) -> Engine:
            return Engine(node.id, rng=node.rng, now=now, schema=SCHEMA, config=config)

        self.cluster: Cluster[Engine] = Cluster(build, seed=seed, delay=delay, **network)

    def values(self) -> dict[str, Any]:
        """A machine as fleets have them: few kinds, some values missing."""
        rng = self.rng
        cores = rng.choice([2, 4, 4, 8, 16, 64])
        found = {
            "cores": cores,
            "mem": cores * rng.choice([2, 4, 8]) * GIB,
            "gpus": rng.choice([0, 0, 0, 1, 4]),
            "arch": rng.choice(["x86_64", "x86_64", "arm64"]),
            "load1": round(rng.random() * cores, 2),
        }
        if rng.random() < 0.8:
            found["price"] = round(0.02 * cores * rng.lognormvariate(0, 0.3), 4)
        return found

    def start(self, **values: Any) -> SimNode[Engine]:
        """A machine that advertises itself and has no place yet."""
        (node,) = self.cluster.add()
        self.advertise(node, **(values or self.values()))
        return node

    def advertise(self, node: SimNode[Engine], *, seq: int = 1, **values: Any) -> Record:
        """Give a node its record."""
        record = make_record(
            SCHEMA,
            values,
            {},
            node_id=node.id,
            endpoint=node.endpoint,
            seq=seq,
            identity=node.id + bytes(12),
        )
        self.cluster.begin(node, lambda e, now: e.hub.advertise(record, now))
        return record

    def join(self, node: SimNode[Engine], *gateways: SimNode[Engine]) -> Operation[int]:
        """Let a node join; the first of all has no gateways."""
        if not gateways:
            self.cluster.begin(node, lambda e, now: e.hub.found(now))
        endpoints = [gateway.endpoint for gateway in gateways]
        node.engine.hub.gateways = endpoints
        return self.cluster.begin(node, lambda e, now: e.hub.join(endpoints, now))

    def grow(self, count: int, *, settle_s: float = 35.0) -> list[SimNode[Engine]]:
        """So many machines, one after the other; then time for summaries to go round."""
        operations = []
        for _ in range(count):
            node = self.start()
            if node.index == 0:
                self.cluster.begin(node, lambda e, now: e.hub.found(now))
            else:
                gateway = self.cluster.nodes[self.rng.randrange(node.index)]
                operations.append(self.join(node, gateway))
            self.cluster.run_for(0.2)
        self.cluster.wait(operations)
        self.cluster.run_for(settle_s)
        self.cluster.check()
        return self.cluster.nodes

    def truth(self, predicate: Predicate) -> list[Record]:
        """Every machine that matches, by brute force."""
        bound = predicate.bind(SCHEMA)
        own = [node.engine.hub.own for node in self.cluster.up()]
        return [record for record in own if record is not None and bound.matches(record)]

    def find(self, node: SimNode[Engine], predicate: Predicate, **options: Any) -> FindResult:
        """Ask, and wait for the end."""
        return self.cluster.do(node, lambda e, now: e.hub.find(predicate, now, **options))

    def some_predicate(self) -> Predicate:
        """A question that some machines match."""
        kinds = self.rng.sample(["cores", "mem", "gpus", "arch", "load1"], self.rng.randint(1, 2))
        values = self.values()
        terms = [
            OneOf(SCHEMA.index(kind), (values[kind],))
            if kind == "arch"
            else Range(SCHEMA.index(kind), SCHEMA.check(kind, values[kind]), INF)
            for kind in kinds
        ]
        return Predicate((Box(tuple(terms)),))
