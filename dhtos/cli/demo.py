"""`dhtos-node demo`: a fleet on this machine, eight questions, a sudden death, the questions again.

Everything is the real thing but the machines: engines, sockets, datagrams. Each answer is
compared with brute force, and a wrong one makes the command fail.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from dhtos.cli.demo_catalogue import load_catalogue, shipped_catalogue
from dhtos.cli.demo_fleet import Attributes, Fleet, draw_fleet
from dhtos.cli.demo_node import DemoNode
from dhtos.cli.demo_queries import Query, faults, telling_queries, true_matches
from dhtos.cli.demo_report import Answer, show_answers, show_catalogue, show_legend
from dhtos.cli.screen import Screen
from dhtos.core.ids import ID_BYTES
from dhtos.core.schema import Schema, default_schema
from dhtos.errors import DhtosError, PredicateError
from dhtos.protocol.engine import EngineConfig

GATEWAYS = 16
KILLED_SHARE = 0.3
SETTLE_S = 30.0
LOOK_S = 0.25


class WrongAnswer(DhtosError):
    """An answer of the demo is not what brute force says."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line says."""

    nodes: int = 200
    seed: int | None = None
    data: Path | None = None
    group_size: int = 32
    processes: int = 2


def run_demo(options: DemoOptions, screen: Screen) -> None:
    """Run the whole demo; raises WrongAnswer when an answer was wrong."""
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    run(_demo(options, screen))


async def _demo(options: DemoOptions, screen: Screen) -> None:
    began = time.monotonic()
    schema = default_schema()
    seed = SystemRandom().randrange(10**6) if options.seed is None else options.seed
    rng = Random(seed)
    catalogue = load_catalogue(options.data, schema) if options.data else shipped_catalogue(schema)
    machines = draw_fleet(catalogue, options.nodes, schema, rng)
    screen.say(
        f"{options.nodes} real nodes on this machine, no server among them. Each advertises one\n"
        f"machine of a catalogue; how busy it is and what it costs are drawn from seed {seed}.\n"
        f"A node knows a group of at most {options.group_size} machines and where to ask for others."
    )
    show_catalogue(screen, catalogue)
    screen.say()
    async with Fleet(machines, seed=seed, group_size=options.group_size) as fleet:
        with screen.progress("start and join over UDP", options.nodes) as progress:
            await fleet.start(min(options.processes, options.nodes), progress)
        joined = time.monotonic()
        config = EngineConfig(group_size=options.group_size, client=True)
        asker = DemoNode(rng.randbytes(ID_BYTES), schema, config, f"{seed}/asker")
        try:
            asker.meet(rng.sample(fleet.endpoints, min(GATEWAYS, options.nodes)))
            await _settle(asker, options.nodes, screen)
            settled = time.monotonic()
            examiner = Examiner(asker, fleet, schema)
            before, after = await _examine(examiner, options, rng, screen)
        finally:
            await asker.aclose()
    seconds = {
        "join": joined - began,
        "settle": settled - joined,
        "all": time.monotonic() - began,
    }
    wrong = [answer for answer in before + after if answer.faults]
    if screen.as_json:
        head = {
            "seed": seed,
            "nodes": options.nodes,
            "group_size": options.group_size,
            "killed": len(fleet.dead),
            "catalogue": _catalogue_as_json(catalogue),
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "right": not wrong,
        }
        screen.document(
            head
            | {"before": [a.as_json() for a in before], "after": [a.as_json() for a in after]}
        )
    else:
        show_legend(screen)
        screen.say()
        right = len(before) + len(after) - len(wrong)
        screen.say(
            f"{right} of {len(before) + len(after)} answers are right; "
            f"{seconds['all']:.0f} s in all, the same again with --seed {seed}"
        )
    if wrong:
        raise WrongAnswer(
            f"{len(wrong)} answers are wrong, the first: {wrong[0].text}: {wrong[0].faults[0]}; "
            f"try --seed {seed} to see it again"
        )


async def _settle(asker: DemoNode, count: int, screen: Screen) -> None:
    """Wait until the groups know all their members: until one question counts everybody."""
    deadline = time.monotonic() + SETTLE_S
    with screen.progress("get to know each other", count) as progress:
        while True:
            result = await asker.ask("true", count_only=True)
            progress(result.matches)
            if result.matches >= count and result.coverage.complete:
                return
            if time.monotonic() > deadline:
                screen.warn(f"warning: after {SETTLE_S:.0f} s the network counts {result.matches}")
                return
            await asyncio.sleep(LOOK_S)


async def _examine(
    examiner: "Examiner", options: DemoOptions, rng: Random, screen: Screen
) -> tuple[list[Answer], list[Answer]]:
    """Ask, kill, ask again."""
    fleet = examiner.fleet
    queries = telling_queries(list(fleet.machines.values()), default_schema())
    before = [await examiner.ask(query) for query in queries]
    screen.say()
    show_answers(screen, "Eight questions, asked by one more node that has 16 addresses", before)
    dying = rng.sample(sorted(fleet.machines), int(KILLED_SHARE * options.nodes))
    await fleet.kill(dying)
    after = [await examiner.ask(query) for query in queries if not query.wrong]
    show_answers(
        screen,
        f"The same a moment after {len(dying)} of the {options.nodes} nodes lost power at once",
        after,
        after=True,
    )
    return before, after


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
            refusal = str(error)
            wrong = () if query.wrong else (f"refused: {refusal}",)
            return Answer(query, text, refusal=refusal, faults=wrong)
        except DhtosError as error:
            return Answer(query, text, refusal=str(error), faults=(str(error),))
        seconds = time.monotonic() - began
        if query.wrong:
            return Answer(query, text, len(result.hits), faults=("it was not refused",))
        dead = self.fleet.dead
        machines: Mapping[str, Attributes] = self.fleet.machines
        got = [str(hit.id) for hit in result.hits]
        wrong = faults(query, got, machines, dead)
        truth = true_matches(query, machines) - dead
        stale = sum(id_ in dead for id_ in got)
        return Answer(
            query, text, len(got), len(truth), stale, seconds, result.coverage, "", tuple(wrong)
        )


def _catalogue_as_json(catalogue: Any) -> dict[str, Any]:
    broken: Sequence[tuple[int, str]] = catalogue.broken
    return {
        "source": catalogue.source,
        "machines": len(catalogue.machines),
        "columns": catalogue.columns,
        "left_out": [{"column": c, "why": why} for c, why in catalogue.unmapped],
        "broken": [{"line": line, "why": why} for line, why in broken],
    }
