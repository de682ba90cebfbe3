"""Measure range search and write its page: `python -m bench.search [--large] [--quick]`.

The JSON goes to `bench/results/search.json`, tables and plots to
`docs/explanation/search-figures.md` and beside it. `--large` adds 100,000 nodes. `--quick` takes a
tenth of the questions and writes nothing.
"""

import argparse
import sys
import time
from dataclasses import asdict
from typing import Any

from bench.search import fleets, measure, page
from bench.search.crowd import Crowd

SEED = 1
SIZES = (1_000, 10_000)
LARGE = 100_000
REPEATS = 7  # of each question, to see the hottest node: by other clients through other nodes


def say(what: str) -> None:
    """Progress, apart from the report."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def of_size(nodes: int, group: int, count: int) -> dict[str, Any]:
    """Everything measured on the bought fleet of one size."""
    fleet = fleets.make("fleet", nodes, SEED)
    crowd = Crowd(fleet, group, SEED)
    asked = measure.asked_of(fleet, count, SEED)
    cells = []
    for share, asks in asked.items():
        for limit in measure.LIMITS:
            cells.append(measure.ours(crowd, asks, share, limit))
            say(f"{nodes} nodes, {share:.1%}, limit {limit}: {cells[-1].rpc:.2f} RPC")
    figures: dict[str, Any] = {
        "nodes": nodes,
        "groups": {share: measure.groups_asked(crowd, a) for share, a in asked.items()},
        "cheapest": {share: measure.cheapest(crowd, a) for share, a in asked.items()},
    }
    everything = [ask for asks in asked.values() for ask in asks]
    few = [a for a in asked[0.01] if len(a.intervals) == 1]
    many = [a for a in asked[0.01] if len(a.intervals) == len(fleet.columns)]
    one, eight = (measure.ours(crowd, a, 0.01, 0).rpc for a in (few, many))
    figures["attributes"] = eight / one
    figures["balance"] = asdict(measure.balance(crowd, everything * REPEATS))
    say(f"{nodes} nodes: balance done")
    crowd.kill(0.3)
    figures["dead"] = asdict(measure.honesty(crowd, everything))
    say(f"{nodes} nodes: 30 % dead done")
    cells += measure.rivals(fleet, asked, SEED)
    figures["cells"] = [cell.plain() for cell in cells]
    say(f"{nodes} nodes: rivals done")
    return figures


def of_fleet(name: str, nodes: int, group: int, count: int) -> list[dict[str, Any]]:
    """The engine alone on another fleet."""
    fleet = fleets.make(name, nodes, SEED)
    crowd = Crowd(fleet, group, SEED)
    cells = []
    for share, asks in measure.asked_of(fleet, count, SEED).items():
        cells += [measure.ours(crowd, asks, share, limit).plain() for limit in measure.LIMITS]
    say(f"{name}: done")
    return cells


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("--large", action="store_true", help="100,000 nodes as well")
    parser.add_argument("--quick", action="store_true", help="few questions; writes nothing")
    parser.add_argument("--group", type=int, default=384, help="G, members of a group at most")
    arguments = parser.parse_args()
    began = time.monotonic()
    count = 20 if arguments.quick else 100
    sizes = SIZES[:1] if arguments.quick else SIZES + ((LARGE,) if arguments.large else ())
    results = {
        "group": arguments.group,
        "questions": count,
        "sizes": [of_size(nodes, arguments.group, count) for nodes in sizes],
        "fleets": [
            cell
            for name in fleets.FLEETS[1:]
            if name != "grid5000" or fleets.GRID5000.exists()
            for cell in of_fleet(name, sizes[min(1, len(sizes) - 1)], arguments.group, count)
        ],
        "seconds": round(time.monotonic() - began),
    }
    sys.stdout.write(page.text(results) + "\n")
    if not arguments.quick:
        page.save(results)


if __name__ == "__main__":
    main()
