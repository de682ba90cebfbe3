"""Machines that are near, asked of the real engine: `cores >= 8 and rtt(self) < 20ms`, ten of them.

Every host of a table is a node of one simulated network with the table's delays, and says that it
is a machine of the shipped catalogue. All come at the same moment, settled in their groups, none
with a place: the worst start there is. For some minutes they do what nodes do; coordinates are
learnt and told by the protocol alone. Then random nodes ask.

A hit is judged by the table: it is *near* within 25 ms, for a question of 20 ms. Who asks is no
hit of its own question. Recall is against the machines that match by the table, or the limit.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from statistics import fmean
from typing import Any

import numpy as np

from bench.rivals.model import Floats
from bench.search import fleets
from dhtos.core.ids import Prefix
from dhtos.core.predicate import Predicate
from dhtos.core.record import Record, make_record
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.operation import Operation
from dhtos.query import parse
from dhtos.sim import Cluster, engines, hub_truth
from dhtos.sim.matrix import LatencyMatrix
from dhtos.sim.node import SimNode

CORES, ASKED_S, NEAR_S = 8, 0.020, 0.025
QUERY = f"cores >= {CORES} and rtt(self) < {1000 * ASKED_S:g}ms"
LIMIT = 10
QUESTIONS = 300
MOMENTS_S = (180.0, 300.0, 600.0)
"""When questions are asked, after the start."""
GROUP_SIZES = (256, 64)
_AT_ONCE = 60  # questions under way together

Node = SimNode[Engine]


@dataclass(frozen=True)
class Finding:
    """What came of some questions: shares of all hits, and means over the questions."""

    nodes: int
    groups: int
    learn_s: float
    limit: int
    questions: int
    hits: int
    near: float
    asked: float
    """The share of hits that are truly within what was asked."""
    recall: float
    rpc: float
    rpc_max: int
    rtt: float
    matches: float
    """How many machines match by the table, for the average node."""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Town:
    """The hosts of a table as nodes; `seed` decides everything."""

    def __init__(self, rtt_s: Floats, group_size: int, seed: int) -> None:
        self.size = len(rtt_s)
        matrix = LatencyMatrix.from_rows((1000 * rtt_s).tolist())  # which fills the holes
        self.rtt_s = np.array(matrix.one_way_s) + np.array(matrix.one_way_s).T
        self.fleet = fleets.make("cloud", self.size, seed)
        self._identities = Random(f"identities {seed}")
        self.cluster: Cluster[Engine] = Cluster(
            engines(schema=self.fleet.schema, config=EngineConfig(group_size=group_size)),
            seed=seed,
            delay=matrix,
        )
        self.cluster.add(self.size)
        self.cluster.warm_start(hub_truth(self._record))
        for node in self.cluster.nodes:  # not after a long life: they have come just now
            node.engine.hub.settled_at = self.cluster.local(node)
        self._places = {node.id: node.index for node in self.cluster.nodes}
        self._askers = self.cluster.stream("askers")
        close = self.rtt_s < ASKED_S
        np.fill_diagonal(close, False)
        self.matching = close & (self.fleet.columns["cores"] >= CORES)

    def _record(self, node: Node) -> Record:
        schema, machine = self.fleet.schema, self.fleet.machines[node.index]
        return make_record(
            schema,
            {name: schema.check(name, value) for name, value in machine.items()},
            {},
            node_id=node.id,
            endpoint=node.endpoint,
            seq=1,
            identity=self._identities.randbytes(32),
        )

    @property
    def groups(self) -> set[Prefix]:
        """The groups as their members see them."""
        return {node.engine.hub.group.prefix for node in self.cluster.nodes}

    def learn(self, seconds: float) -> None:
        """Let everybody live for so long."""
        self.cluster.run_for(max(seconds, 0.0))  # the last questions may have taken longer

    def question(self, node: Node) -> Predicate:
        """The question as a node asks it, from where it believes to be."""
        here = node.engine.hub.coordinate
        return parse(QUERY, self.fleet.schema, coordinate_of=lambda _: here)

    def ask(self, count: int, limit: int = LIMIT) -> list[tuple[int, FindResult]]:
        """Who asked, and the answer."""
        found: list[tuple[int, FindResult]] = []
        while len(found) < count:
            some = self._askers.sample(
                self.cluster.nodes, min(_AT_ONCE, count - len(found), self.size)
            )
            asked = [self._begin(node, limit) for node in some]
            self.cluster.wait(asked)
            found += [(n.index, one.result()) for n, one in zip(some, asked, strict=True)]
        return found

    def _begin(self, node: Node, limit: int) -> Operation[FindResult]:
        question, here = self.question(node), node.engine.hub.coordinate
        return self.cluster.begin(
            node, lambda e, now: e.hub.find(question, now, limit=limit, here=here)
        )

    def hits(self, asker: int, result: FindResult) -> list[int]:
        """The machines of an answer, without who asked."""
        found = [self._places[bytes(hit.id)] for hit in result.hits]
        return [place for place in found if place != asker]

    def judge(self, answers: Sequence[tuple[int, FindResult]], learn_s: float) -> Finding:
        """Answers against the table."""
        distances: list[float] = []
        recalls = []
        limit = LIMIT
        for asker, result in answers:
            hits = self.hits(asker, result)
            distances += self.rtt_s[asker][hits].tolist()
            true = set(np.flatnonzero(self.matching[asker]).tolist())
            wanted = min(len(true), limit)
            if wanted:
                recalls.append(min(len(true & set(hits)), wanted) / wanted)
        rpcs = [result.coverage.asked for _, result in answers]
        return Finding(
            nodes=self.size,
            groups=len(self.groups),
            learn_s=learn_s,
            limit=limit,
            questions=len(answers),
            hits=len(distances),
            near=fmean(distance < NEAR_S for distance in distances) if distances else 1.0,
            asked=fmean(distance < ASKED_S for distance in distances) if distances else 1.0,
            recall=fmean(recalls),
            rpc=fmean(rpcs),
            rpc_max=max(rpcs),
            rtt=fmean(result.coverage.rtt for _, result in answers),
            matches=float(self.matching.sum(axis=1).mean()),
        )


def of_table(
    rtt_s: Floats,
    seed: int,
    group_sizes: Sequence[int] = GROUP_SIZES,
    moments_s: Sequence[float] = MOMENTS_S,
) -> list[dict[str, Any]]:
    """Every group size at every moment."""
    found = []
    for group_size in group_sizes:
        town = Town(rtt_s, group_size, seed)
        for moment in moments_s:
            town.learn(moment - town.cluster.now)
            judged = town.judge(town.ask(QUESTIONS), moment)
            found.append({"group_size": group_size, **judged.plain()})
    return found
