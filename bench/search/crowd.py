"""Real engines at any scale, by waking only those that are asked.

Theory of operation. An answer is decided by what the asked node holds, and after a quiet life
that is a function of the truth (`dhtos.sim.HubTruth`). So a node's engine is made when its first
datagram arrives, settled from the truth, and thrown away when too many are awake. What runs is
the whole engine, datagram for datagram; what is left out is the background of the sleepers:
nobody gossips, so nothing is learned between questions. Who asks has a client's engine of its
own for each question, knows one random node, and lives through its own timers.

Every datagram takes 10 ms, the dead take them for ever. One question runs at a time.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

from bench.search.fleets import Fleet
from bench.search.questions import Ask
from dhtos.core.ids import Endpoint
from dhtos.core.record import make_record
from dhtos.protocol.answer import Order
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.frontier import FindResult
from dhtos.sim import HubTruth

DELAY_S = 0.010
_AWAKE_MAX = 4000
_CLIENT: Endpoint = ("10.255.255.1", 1)


@dataclass
class Cost:
    """What one question cost and found."""

    rpc: int
    rtt: float
    datagrams: int
    sent_bytes: int
    hits: frozenset[int]
    result: FindResult
    first_hit_s: float
    served: Counter[int] = field(default_factory=Counter)


class Crowd:
    """A fleet in which every machine is a node, most of them asleep."""

    def __init__(self, fleet: Fleet, group_size: int, seed: int) -> None:
        self.fleet = fleet
        self.config = EngineConfig(group_size=group_size)
        self.rng = Random(f"crowd {seed}")
        self.now = 1000.0
        self.dead: set[Endpoint] = set()
        self.own = {}
        for index, machine in enumerate(fleet.machines):
            endpoint = (f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}", 4242)
            self.own[endpoint] = make_record(
                fleet.schema,
                {name: fleet.schema.check(name, value) for name, value in machine.items()},
                {},
                node_id=self.rng.randbytes(20),
                endpoint=endpoint,
                seq=1,
                identity=self.rng.randbytes(32),
            )
        self.index = {endpoint: n for n, endpoint in enumerate(self.own)}
        self.endpoints = list(self.own)
        self.truth = HubTruth(fleet.schema, self.own.values())
        self._awake: OrderedDict[Endpoint, Engine] = OrderedDict()

    def engine(self, endpoint: Endpoint) -> Engine:
        """The node at an endpoint, woken if it sleeps."""
        engine = self._awake.get(endpoint)
        if engine is None:
            record = self.own[endpoint]
            engine = Engine(
                record.node_id,
                rng=Random(record.node_id),
                now=self.now,
                schema=self.fleet.schema,
                config=self.config,
            )
            self.truth.settle(engine, record, self.now)
            self._awake[endpoint] = engine
            while len(self._awake) > _AWAKE_MAX:
                self._awake.popitem(last=False)
        else:
            self._awake.move_to_end(endpoint)
        return engine

    def kill(self, share: float) -> None:
        """Let a share of the nodes die at once; nobody has noticed yet."""
        self.dead = set(self.rng.sample(self.endpoints, int(share * len(self.endpoints))))

    def ask(self, ask: Ask, *, limit: int = 0, order: Order | None = None, **options: Any) -> Cost:
        """Run one question from a new client that knows one living node."""
        client = Engine(
            self.rng.randbytes(20),
            rng=Random(self.rng.random()),
            now=self.now,
            schema=self.fleet.schema,
            config=EngineConfig(group_size=self.config.group_size, client=True),
        )
        living = self.rng.choice(self.endpoints)
        while living in self.dead:
            living = self.rng.choice(self.endpoints)
        client.hub.gateways = [living]
        return _Run(self, client).run(ask, limit, order, options)


class _Run:
    """One question on its way: datagrams by arrival, the client's timers between."""

    def __init__(self, crowd: Crowd, client: Engine) -> None:
        self.crowd = crowd
        self.client = client
        self.flying: list[tuple[float, int, Endpoint, Endpoint, bytes]] = []
        self.datagrams = 0
        self.sent_bytes = 0
        self.served: Counter[int] = Counter()

    def run(self, ask: Ask, limit: int, order: Order | None, options: dict[str, Any]) -> Cost:
        crowd, client = self.crowd, self.client
        began = crowd.now
        operation = client.hub.find(ask.predicate, crowd.now, limit=limit, order=order, **options)
        self._send(client, _CLIENT)
        first_hit = 0.0
        while not operation.done:
            self._step()
            if operation.items and not first_hit:
                first_hit = crowd.now - began
        result = operation.result()
        hits = frozenset(crowd.index[hit.record.endpoint] for hit in result.hits)
        return Cost(
            result.coverage.asked,
            result.coverage.rtt,
            self.datagrams,
            self.sent_bytes,
            hits,
            result,
            first_hit,
            self.served,
        )

    def _step(self) -> None:
        crowd, client = self.crowd, self.client
        due = client.next_deadline()
        if not self.flying or due < self.flying[0][0]:
            crowd.now = max(crowd.now, due)
            client.tick(crowd.now)
            self._send(client, _CLIENT)
            return
        crowd.now, _, source, target, datagram = heappop(self.flying)
        if target in crowd.dead:
            return
        if target == _CLIENT:
            engine = client
        else:
            engine = crowd.engine(target)
            self.served[crowd.index[target]] += 1
        engine.receive(datagram, source, crowd.now)
        self._send(engine, target)

    def _send(self, engine: Engine, source: Endpoint) -> None:
        for datagram, target in engine.outbox():
            self.datagrams += 1
            self.sent_bytes += len(datagram) + 28
            arrival = self.crowd.now + DELAY_S
            heappush(self.flying, (arrival, self.datagrams, source, target, datagram))
        engine.events()
