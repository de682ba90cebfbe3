"""Clusters of the real engine: how to build one, let it join, and start it from the truth.

The simulator itself drives anything with five verbs; this is the one module of it that knows
`dhtos.protocol`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, Endpoint, Prefix
from dhtos.core.limits import HEARTBEAT_S, HUB_BUCKET_CONTACTS_MAX, SUMMARY_INTERVAL_S
from dhtos.core.record import Record
from dhtos.core.schema import Schema
from dhtos.core.summary import Summary
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.operation import Operation
from dhtos.sim.cluster import Factory
from dhtos.sim.node import SimNode


def engines(*, schema: Schema | None = None, config: EngineConfig | None = None) -> Factory[Engine]:
    """A factory for `Cluster`: each node an engine with its own id and randomness."""

    def build(node: SimNode[Engine], now: float) -> Engine:
        return Engine(node.id, rng=node.rng, now=now, schema=schema, config=config)

    return build


def bootstrap(engine: Engine, seeds: list[Endpoint], now: float) -> Operation[int]:
    """Join the base overlay; fits `Cluster(bootstrap=...)`."""
    return engine.base.bootstrap(seeds, now)


def base_truth() -> Callable[[Engine, Sequence[SimNode[Engine]], float], None]:
    """For `Cluster.warm_start`: routing tables as a long life would have filled them.

    Every bucket gets up to k contacts that exist, spread over the bucket; the last holds the true
    neighbourhood. From there on the overlay must stay right by its own protocol.
    """
    order: list[SimNode[Engine]] = []
    ids: list[bytes] = []

    def fill(engine: Engine, nodes: Sequence[SimNode[Engine]], now: float) -> None:
        if len(order) != len(nodes):
            order[:] = sorted(nodes, key=lambda node: node.id)
            ids[:] = [node.id for node in order]
        low, high = 0, len(order)
        own = int.from_bytes(engine.id)
        for depth in range(ID_BITS):
            if high - low <= engine.config.k:
                break
            middle = _fork(ids, own, depth, low, high)
            if own >> (ID_BITS - 1 - depth) & 1:
                other, low, high = range(low, middle), middle, high
            else:
                other, low, high = range(middle, high), low, middle
            _offer(engine, order, other, now)
        _offer(engine, order, range(low, high), now)

    return fill


def _fork(ids: list[bytes], own: int, depth: int, low: int, high: int) -> int:
    """Where, in sorted ids that share `depth` bits with `own`, the next bit becomes one."""
    free = ID_BITS - 1 - depth
    return bisect_left(ids, (own >> free | 1) << free, low, high, key=int.from_bytes)


def _offer(engine: Engine, order: list[SimNode[Engine]], places: range, now: float) -> None:
    """Add up to k nodes of a range, evenly spread."""
    step = max(1, len(places) // engine.config.k)
    for place in islice(places[::step], engine.config.k):
        node = order[place]
        if node.id != engine.id:
            engine.base.routing.add(Contact(node.id, node.endpoint), now, verified=True)


def hub_truth(
    advert: Callable[[SimNode[Engine]], Record],
) -> Callable[[Engine, Sequence[SimNode[Engine]], float], None]:
    """For `Cluster.warm_start`: every node settled in the hub as after a long quiet life.

    `advert(node)` is the record that the node advertises, and the only one made of it. A node
    holds the records of its group, whose versions are of all ages up to a heartbeat, and of every
    other inhabited subtree some contacts and the summary. From there on the hub must stay right
    by its own protocol; nobody announces anything.
    """
    worlds: list[tuple[Sequence[SimNode[Engine]], _World]] = []

    def fill(engine: Engine, nodes: Sequence[SimNode[Engine]], now: float) -> None:
        if not worlds or worlds[0][0] is not nodes:
            worlds[:] = [(nodes, _World.of(engine.hub.schema, nodes, advert))]
        _settle(engine, worlds[0][1], now)

    return fill


@dataclass(slots=True)
class _World:
    """Everybody's record, sorted by key; summaries of subtrees are made once."""

    schema: Schema
    records: list[tuple[bytes, Record]]
    keys: list[bytes]
    own: dict[bytes, Record]  # by base id
    summaries: dict[Prefix, Summary] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        schema: Schema,
        nodes: Sequence[SimNode[Engine]],
        advert: Callable[[SimNode[Engine]], Record],
    ) -> "_World":
        own = {node.id: advert(node) for node in nodes}
        records = sorted((record.key(schema), record) for record in own.values())
        keys = [key for key, _ in records]
        assert len(set(keys)) == len(keys), "two nodes of one identity"
        return cls(schema, records, keys, own)

    def under(self, prefix: Prefix) -> list[tuple[bytes, Record]]:
        """The records below a prefix."""
        low = bisect_left(self.keys, prefix.first)
        return self.records[low : bisect_right(self.keys, prefix.last, low)]

    def summary(self, prefix: Prefix) -> Summary:
        """What lives below a prefix, as it reads after a journey over the wire."""
        summary = self.summaries.get(prefix)
        if summary is None:
            exact = Summary.of(self.schema, [record for _, record in self.under(prefix)])
            summary = Summary.from_bytes(exact.to_bytes(self.schema), self.schema)
            self.summaries[prefix] = summary
        return summary


def _age_s(key: bytes) -> float:
    """How old the version of a record is at the start: the same for all who hold it."""
    return 0.8 * HEARTBEAT_S * int.from_bytes(key[-3:]) / 2**24


def _settle(engine: Engine, world: _World, now: float) -> None:
    hub = engine.hub
    hub.advertise(world.own[engine.id], now)
    depth = 0
    while len(world.under(Prefix.of(hub.key, depth))) > hub.group_size:
        depth += 1
    group = world.under(Prefix.of(hub.key, depth))
    hub.enter(depth, [(key, record, now - _age_s(key)) for key, record in group], now)
    hub.group.members[hub.key].born = now - _age_s(hub.key)
    for index in range(depth):
        _fill_bucket(engine, world, index, now)
    hub.settle(now, announce=False)


def _fill_bucket(engine: Engine, world: _World, index: int, now: float) -> None:
    buckets, rng = engine.hub.buckets, engine.core.rng
    prefix = buckets.prefix(index)
    there = world.under(prefix)
    for key, record in rng.sample(there, min(len(there), HUB_BUCKET_CONTACTS_MAX)):
        heard = now - min(_age_s(key), SUMMARY_INTERVAL_S)
        buckets.heard(Contact(key, record.endpoint), heard, now)
    bucket = buckets.get(index)
    if bucket is not None:
        bucket.pulled = now - SUMMARY_INTERVAL_S * rng.random()
        summary = world.summary(prefix)
        buckets.summarise(index, summary, bucket.pulled, world.schema)


def closest_nodes(
    nodes: Sequence[SimNode[Engine]], target: bytes, count: int
) -> list[SimNode[Engine]]:
    """The true `count` closest nodes to a key, by brute force: what a lookup must find."""
    number = int.from_bytes(target)
    return sorted(nodes, key=lambda node: int.from_bytes(node.id) ^ number)[:count]
