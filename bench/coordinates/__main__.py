"""Measure coordinates and write their page: `python -m bench.coordinates [--quick]`.

The JSON goes to `bench/results/coordinates.json`, tables to `docs/explanation/coordinates.md`.
`--quick` takes the shipped table of 96 hosts and a quarter of the samples, and writes nothing.
"""

import argparse
import json
import os
import sys
import time
from typing import Any

from bench.coordinates import latencies, measure, page
from bench.report import machine, words

SEEDS = (1, 2)


def say(what: str) -> None:
    """Progress, apart from the report."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.coordinates", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small table; writes nothing")
    arguments = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    names = ("planetlab-96",) if arguments.quick else ("planetlab", "wondernetwork", "aws")
    seeds = SEEDS[:1] if arguments.quick else SEEDS
    rounds = measure.ROUNDS // 4 if arguments.quick else measure.ROUNDS
    tables: dict[str, Any] = {}
    for name in names:
        try:
            rtt_s = latencies.load(name)
        except FileNotFoundError as error:
            say(f"{name}: left out: {error}")
            continue
        tables[name] = measure.of_table(rtt_s, seeds, rounds)
        say(f"{name}: {tables[name]['errors'][measure.OURS]}")
    if not tables:
        parser.error("none of the tables is here; --quick needs none")
    results = {
        "machine": machine(),
        "words": words(machine(), (load, os.getloadavg()[0])).partition("; load average")[0] + ".",
        "seeds": seeds,
        "tables": tables,
        "kernels": measure.kernels(),
        "seconds": round(time.monotonic() - began),
    }
    results = json.loads(json.dumps(results))  # as a reader of the file will see it
    sys.stdout.write(page.text(results) + "\n")
    if not arguments.quick:
        page.save(results)


if __name__ == "__main__":
    main()
