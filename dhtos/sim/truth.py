"""The truth about a cluster, and engines that start from it as after a long quiet life.

Joining a thousand nodes one by one takes longer than most of what one wants to see of them. A
warm start fills each node with what it would know by then; from there on it must stay right by
its own protocol.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, Prefix
from dhtos.core.limits import HUB_BUCKET_CONTACTS_MAX, NODE_HEARTBEAT_S, SUMMARY_INTERVAL_S
from dhtos.core.record import Record
from dhtos.core.schema import Schema
from dhtos.core.summary import Summary
from dhtos.protocol.engine import Engine
from dhtos.sim.node import SimNode


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

    `advert(node)` is the record that the node advertises, and the only one made of it.
    """
    worlds: list[tuple[Sequence[SimNode[Engine]], HubTruth, dict[bytes, Record]]] = []

    def fill(engine: Engine, nodes: Sequence[SimNode[Engine]], now: float) -> None:
        if not worlds or worlds[0][0] is not nodes:
            own = {node.id: advert(node) for node in nodes}
            worlds[:] = [(nodes, HubTruth(engine.hub.schema, own.values()), own)]
        _, truth, own = worlds[0]
        truth.settle(engine, own[engine.id], now)

    return fill


class HubTruth:
    """Everybody's record, sorted by key; summaries of subtrees are made once."""

    def __init__(self, schema: Schema, records: Iterable[Record]) -> None:
        self.schema = schema
        self.records = sorted((record.key(schema), record) for record in records)
        self._keys = [key for key, _ in self.records]
        self._summaries: dict[Prefix, Summary] = {}
        assert len(set(self._keys)) == len(self._keys), "two nodes of one identity"

    def places(self, prefix: Prefix) -> range:
        """Where the records below a prefix stand in `records`; O(log n)."""
        low = bisect_left(self._keys, prefix.first)
        return range(low, bisect_right(self._keys, prefix.last, low))

    def under(self, prefix: Prefix) -> list[tuple[bytes, Record]]:
        """The keys and records below a prefix, in key order."""
        places = self.places(prefix)
        return self.records[places.start : places.stop]

    def summary(self, prefix: Prefix) -> Summary:
        """What lives below a prefix, as it reads after a journey over the wire."""
        summary = self._summaries.get(prefix)
        if summary is None:
            exact = Summary.of(self.schema, [record for _, record in self.under(prefix)])
            summary = Summary.from_bytes(exact.to_bytes(self.schema), self.schema)
            self._summaries[prefix] = summary
        return summary

    def settle(self, engine: Engine, own: Record, now: float) -> None:
        """Put a new engine at its place, with all that it would know there.

        It holds the records of its group, whose versions are of all ages up to a heartbeat, and
        of every other inhabited subtree some contacts and the summary. Nobody announces anything.
        """
        hub = engine.hub
        hub.advertise(own, now)
        depth = 0
        while len(self.places(Prefix.of(hub.key, depth))) > hub.group_size:
            depth += 1
        group = self.under(Prefix.of(hub.key, depth))
        hub.enter(depth, [(key, record, now - _age_s(key)) for key, record in group], now)
        hub.group.members[hub.key].born = now - _age_s(hub.key)
        for index in range(depth):
            self._fill_bucket(engine, index, now)
        hub.settle(now, announce=False)

    def _fill_bucket(self, engine: Engine, index: int, now: float) -> None:
        buckets, rng = engine.hub.buckets, engine.core.rng
        prefix = buckets.prefix(index)
        there = self.places(prefix)
        for place in rng.sample(there, min(len(there), HUB_BUCKET_CONTACTS_MAX)):
            key, record = self.records[place]
            heard = now - min(_age_s(key), SUMMARY_INTERVAL_S)
            buckets.heard(Contact(key, record.endpoint), heard, now)
        bucket = buckets.get(index)
        if bucket is not None:
            bucket.pulled = now - SUMMARY_INTERVAL_S * rng.random()
            buckets.summarise(index, self.summary(prefix), bucket.pulled, self.schema)


def _age_s(key: bytes) -> float:
    """How old the version of a record is at the start: the same for all who hold it."""
    return 0.8 * NODE_HEARTBEAT_S * int.from_bytes(key[-3:]) / 2**24
