"""Measure placement and write its page: `python -m bench.placement [--quick]`.

The JSON goes to `bench/results/placement.json`, tables to `docs/explanation/placement.md`.
`--quick` fills a small made cluster once, needs no trace, and writes nothing.
"""

import argparse
import json
import os
import sys
import time

from bench.placement import page, trace
from bench.placement.measure import measure
from bench.report import machine, words

SEEDS = (11, 12, 13, 14, 15)
"""Others than those that the weights of `pack` were chosen with (1 to 3)."""


def say(what: str) -> None:
    """Progress, apart from the report."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.placement", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small cluster; writes nothing")
    arguments = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    try:
        found = trace.load("made" if arguments.quick else "openb")
    except FileNotFoundError as error:
        parser.error(f"{error}; --quick needs none")
    seeds = SEEDS[:1] if arguments.quick else SEEDS
    sentence = words(machine(), (load, os.getloadavg()[0])).partition("; load average")[0]
    results = {
        "machine": machine(),
        "words": f"{sentence}; load average {load:.1f} before.",
        "seeds": seeds,
        "trace": {
            "name": found.name,
            "machines": len(found.shapes),
            "gpus": found.gpu_milli // trace.MILLI,
            "pods": len(found.pods),
        },
        "published": {} if arguments.quick else trace.published(),
        **measure(found, seeds, say),
        "seconds": round(time.monotonic() - began),
    }
    results = json.loads(json.dumps(results))  # as a reader of the file will see it
    sys.stdout.write(page.text(results) + "\n")
    if not arguments.quick:
        page.save(results)


if __name__ == "__main__":
    main()
