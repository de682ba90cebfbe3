"""Clusters of the real engine: how to build one, and let it join.

The simulator itself drives anything with five verbs; this module and `truth` are the ones of it
that know `dhtos.protocol`.
"""

from collections.abc import Sequence

from dhtos.core.ids import Endpoint
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


def closest_nodes(
    nodes: Sequence[SimNode[Engine]], target: bytes, count: int
) -> list[SimNode[Engine]]:
    """The true `count` closest nodes to a key, by brute force: what a lookup must find."""
    number = int.from_bytes(target)
    return sorted(nodes, key=lambda node: int.from_bytes(node.id) ^ number)[:count]
