"""Clusters of the real engine: how to build one, let it join, and start it from the truth.

The simulator itself drives anything with five verbs; this is the one module of it that knows
`dhtos.protocol`.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import islice

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, Endpoint
from dhtos.core.schema import Schema
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


def closest_nodes(
    nodes: Sequence[SimNode[Engine]], target: bytes, count: int
) -> list[SimNode[Engine]]:
    """The true `count` closest nodes to a key, by brute force: what a lookup must find."""
    number = int.from_bytes(target)
    return sorted(nodes, key=lambda node: int.from_bytes(node.id) ^ number)[:count]
