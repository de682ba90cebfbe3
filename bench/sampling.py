"""How even is a random sample, and what does it cost: `python -m bench.sampling [--quick]`.

Many samples of 16 are drawn for each question, every time by a new light client that knows one
random node, and the machines are counted that came. `deviation` is the standard deviation of these
counts as a share of their mean, less what independent draws would show anyway: 0 is perfectly
even. The baseline is `find` with the same limit. Real engines, as in `bench.search`.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from random import Random
from statistics import mean

from bench.search import fleets, measure
from bench.search.crowd import _CLIENT, Crowd, _Run
from bench.search.questions import Ask
from dhtos.protocol import sample as sampling
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.frontier import FindResult

SEED = 1
SIZE = 16
SHARE = 0.1  # of all machines match a question
WORLDS = ((1000, 48), (4000, 128))
LOTS = (0, 1, 2, 3, 4)  # 0 is the baseline


@dataclass(frozen=True)
class Row:
    """What one number of lots costs in one world, and how uneven it leaves the chances."""

    nodes: int
    group: int
    lots: int
    calls: float
    rounds: float
    deviations: tuple[float, ...]  # of each question

    def text(self) -> str:
        """A row of the table."""
        what = f"a sample by {self.lots}" if self.lots else f"the first {SIZE}"
        least, most = min(self.deviations), max(self.deviations)
        spread = f"{mean(self.deviations):.2f} ({least:.2f} to {most:.2f})"
        return f"| {self.nodes}, {self.group} | {what} | {self.calls:.1f} | {spread} |"


def draw(crowd: Crowd, ask: Ask, lots: int) -> FindResult:
    """One sample, or the first matches, for a new client."""
    config = EngineConfig(group_size=crowd.config.group_size, client=True)
    client = Engine(
        crowd.rng.randbytes(20),
        rng=Random(crowd.rng.random()),
        now=crowd.now,
        schema=crowd.fleet.schema,
        config=config,
    )
    client.hub.gateways = [crowd.rng.choice(crowd.endpoints)]
    begin = partial(sampling.sample, client.hub, ask.predicate, SIZE)
    if not lots:
        begin = partial(client.hub.find, ask.predicate, limit=SIZE)
    operation = begin(now=crowd.now)
    run = _Run(crowd, client)
    run._send(client, _CLIENT)
    while not operation.done:
        run._step()
    return operation.result()


def deviation(counts: Counter[int], true: frozenset[int], repeats: int) -> float:
    """How much the chances of single machines differ, as a share of their mean."""
    chance = SIZE / len(true)
    expected = repeats * chance
    variance = sum((counts[index] - expected) ** 2 for index in true) / len(true)
    return max(variance / expected**2 - (1 - chance) / expected, 0.0) ** 0.5


def row(crowd: Crowd, asks: list[Ask], lots: int, repeats: int) -> Row:
    """All questions with one number of lots."""
    usual, calls, rounds, deviations = sampling.LOTS, [], [], []
    sampling.LOTS = lots
    try:
        for ask in asks:
            counts: Counter[int] = Counter()
            for _ in range(repeats):
                result = draw(crowd, ask, lots)
                found = {crowd.index[hit.record.endpoint] for hit in result.hits}
                assert len(found) == SIZE
                assert found <= ask.true
                counts.update(found)
                calls.append(result.coverage.asked)
                rounds.append(result.coverage.rtt)
            deviations.append(deviation(counts, ask.true, repeats))
    finally:
        sampling.LOTS = usual
    nodes = len(crowd.endpoints)
    size = crowd.config.group_size
    return Row(nodes, size, lots, mean(calls), mean(rounds), tuple(deviations))


def rows(nodes: int, group: int, questions: int, repeats: int) -> list[Row]:
    """One world with every number of lots."""
    crowd = Crowd(fleets.make("fleet", nodes, SEED), group, SEED)
    asks = [a for a in measure.asked_of(crowd.fleet, questions, SEED)[SHARE] if len(a.true) > SIZE]
    return [row(crowd, asks, lots, repeats) for lots in LOTS]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    repeats = 20 if parser.parse_args().quick else 200
    sys.stdout.write("| nodes, group size | | calls | deviation of chances |\n|---|---|---|---|\n")
    for nodes, group in WORLDS:
        for one in rows(nodes, group, 6, repeats):
            sys.stdout.write(one.text() + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
