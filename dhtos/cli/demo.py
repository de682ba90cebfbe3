"""`dhtos-node demo`: a fleet on this machine, eight questions, sudden death, the questions again.

Everything is the real thing but the machines: engines, sockets, certificates, datagrams. Each
answer is compared with brute force, and a wrong one makes the command fail.
"""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom

from dhtos.cli.demo_catalogue import Catalogue, load_catalogue, shipped_catalogue
from dhtos.cli.demo_cluster import Badge, DemoCluster
from dhtos.cli.demo_fleet import Fleet, draw_fleet
from dhtos.cli.demo_node import DemoNode
from dhtos.cli.demo_queries import Query, faults, telling_queries, true_matches
from dhtos.cli.demo_report import (
    Answer,
    Report,
    show_answers,
    show_catalogue,
    show_legend,
    show_verdict,
)
from dhtos.cli.failure import WrongAnswer
from dhtos.cli.loop import run_loop
from dhtos.cli.screen import Screen
from dhtos.core.ids import ID_BYTES
from dhtos.core.limits import SUMMARY_INTERVAL_S
from dhtos.core.schema import Schema, default_schema
from dhtos.errors import DhtosError, PredicateError
from dhtos.protocol.engine import EngineConfig

GATEWAYS = 16
KILLED_SHARE = 0.3
SETTLE_S = 38.0
SPREAD_S = SUMMARY_INTERVAL_S
STEADY = 8
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line says."""

    nodes: int = 120
    seed: int | None = None
    data: Path | None = None
    group_size: int = 32
    processes: int = 2
    open_mode: bool = False


def run_demo(options: DemoOptions, screen: Screen) -> None:
    """Run the whole demo; raises WrongAnswer when an answer was wrong."""
    demo = Demo(options, screen)
    run_loop(demo.run())
    report = demo.report
    if screen.as_json:
        screen.document(report.as_json())
    else:
        show_legend(screen)
        show_verdict(screen, report)
    wrong = report.wrong
    if wrong:
        raise WrongAnswer(
            f"{len(wrong)} answers are wrong, the first: {wrong[0].text}: {wrong[0].faults[0]}; "
            f"try --seed {report.seed} to see it again"
        )


@dataclass(slots=True)
class Demo:
    """One run: its randomness, its clock and what came of it."""

    options: DemoOptions
    screen: Screen
    schema: Schema = field(default_factory=default_schema)
    report: Report = field(init=False)
    rng: Random = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        seed = SystemRandom().randrange(10**6) if options.seed is None else options.seed
        self.rng = Random(seed)
        self.report = Report(seed, options.nodes, options.group_size, self._catalogue())

    def _catalogue(self) -> Catalogue:
        data = self.options.data
        return load_catalogue(data, self.schema) if data else shipped_catalogue(self.schema)

    async def run(self) -> None:
        """Start, settle, ask, kill, ask again."""
        report, options, screen = self.report, self.options, self.screen
        began = time.monotonic()
        show_catalogue(screen, report)
        drawn = draw_fleet(report.catalogue, options.nodes, self.schema, self.rng)
        cluster = None if options.open_mode else DemoCluster(self.rng)
        badges: dict[str, Badge] = {}
        machines = drawn
        if cluster is not None:
            admitted = [cluster.node(f"machine-{number}") for number in range(options.nodes)]
            badges = {badge.node_id.hex(): badge for badge in admitted}
            machines = dict(zip(badges, drawn.values(), strict=True))
        fleet = Fleet(machines, seed=report.seed, group_size=options.group_size, badges=badges)
        async with fleet:
            with screen.progress("start nodes, join over UDP", options.nodes) as progress:
                await fleet.start(min(options.processes, options.nodes), progress)
            report.seconds["join"] = time.monotonic() - began
            asker = self._asker(fleet, None if cluster is None else cluster.user("asker"))
            try:
                await self._settle(asker)
                report.seconds["settle"] = time.monotonic() - began - report.seconds["join"]
                await self._examine(Examiner(asker, fleet, self.schema))
            finally:
                await asker.aclose()
        report.seconds["all"] = time.monotonic() - began

    def _asker(self, fleet: Fleet, badge: Badge | None) -> DemoNode:
        """One more node, without a place of its own: it only asks."""
        config = EngineConfig(group_size=self.options.group_size, client=True)
        node_id = self.rng.randbytes(ID_BYTES)
        seed = f"{self.report.seed}/asker"
        asker = DemoNode(node_id, self.schema, config, seed, badge=badge)
        asker.meet(self.rng.sample(fleet.endpoints, min(GATEWAYS, len(fleet.endpoints))))
        return asker

    async def _settle(self, asker: DemoNode) -> None:
        """Wait until the fleet knows itself: members their group, groups what the others hold.

        Each question goes to another node, so a row of them that count everybody says that the
        members agree. What groups tell each other about their content is made anew at intervals;
        what was told while half of the fleet was still joining must have been replaced.
        """
        began = time.monotonic()
        if not await self._members_agree(asker, began + SETTLE_S):
            self.screen.warn(f"warning: after {SETTLE_S:.0f} s the nodes still count differently")
        if self.options.nodes <= self.options.group_size:
            return
        with self.screen.progress("groups tell each other (s)", round(SPREAD_S)) as progress:
            while (waited := time.monotonic() - began) < SPREAD_S:
                progress(int(waited))
                await asyncio.sleep(LOOK_S)
            progress(round(SPREAD_S))

    async def _members_agree(self, asker: DemoNode, deadline: float) -> bool:
        count = self.options.nodes
        steady = 0
        with self.screen.progress("members meet their groups", count) as progress:
            while time.monotonic() < deadline:
                result = await asker.ask("true", count_only=True)
                progress(result.matches)
                steady = steady + 1 if result.matches == count else 0
                if steady >= STEADY:
                    return True
                await asyncio.sleep(LOOK_S)
        return False

    async def _examine(self, examiner: "Examiner") -> None:
        """Ask, kill, ask again."""
        fleet, report, screen = examiner.fleet, self.report, self.screen
        queries = telling_queries(list(fleet.machines.values()), self.schema)
        report.before = [await examiner.ask(query) for query in queries]
        show_answers(screen, report.before)
        dying = self.rng.sample(sorted(fleet.machines), int(KILLED_SHARE * report.nodes))
        await fleet.kill(dying)
        report.killed = len(dying)
        report.after = [await examiner.ask(query) for query in queries if not query.wrong]
        show_answers(screen, report.after, killed=report.killed, nodes=report.nodes)


class Examiner:
    """Asks a question and compares the answer with the truth."""

    def __init__(self, asker: DemoNode, fleet: Fleet, schema: Schema) -> None:
        self.fleet = fleet
        self._asker = asker
        self._schema = schema

    async def ask(self, query: Query) -> Answer:
        """One question over the network."""
        text = query.text(self._schema)
        began = time.monotonic()
        try:
            result = await self._asker.ask(text, limit=query.limit, order_by=query.order_by)
        except PredicateError as error:
            wrong = () if query.wrong else (f"refused: {error}",)
            return Answer(query, text, refusal=str(error), faults=wrong)
        except DhtosError as error:
            return Answer(query, text, refusal=str(error), faults=(str(error),))
        seconds = time.monotonic() - began
        if query.wrong:
            return Answer(query, text, len(result.hits), faults=("it was not refused",))
        machines, dead = self.fleet.machines, self.fleet.dead
        got = [str(hit.id) for hit in result.hits]
        return Answer(
            query,
            text,
            found=len(got),
            true=len(true_matches(query, machines) - dead),
            stale=sum(id_ in dead for id_ in got),
            seconds=seconds,
            coverage=result.coverage,
            faults=tuple(faults(query, got, machines, dead)),
        )
