"""Measure coordinates and write their page: `python -m bench.coordinates [--quick] [--finding]`.

The JSON goes to `bench/results/coordinates.json` and `finding.json`, tables to
`docs/explanation/coordinates.md`. `--quick` takes the shipped table of 96 hosts and a quarter of
the samples, and writes nothing. `--finding` measures only what the real engine finds near.
"""

import argparse
import json
import os
import sys
import time
from typing import Any

from bench.coordinates import finding, finding_page, latencies, measure, page
from bench.report import machine, words

SEEDS = (1, 2)


def say(what: str) -> None:
    """Progress, apart from the report."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.coordinates", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small table; writes nothing")
    parser.add_argument("--finding", action="store_true", help="only what find finds near")
    arguments = parser.parse_args()
    if not arguments.finding:
        coordinates(parser, quick=arguments.quick)
    found_near(parser, quick=arguments.quick)


def found_near(parser: argparse.ArgumentParser, *, quick: bool) -> None:
    """What a query with a round trip in it finds, by the real engine over PlanetLab."""
    load = os.getloadavg()[0]
    try:
        rtt_s = latencies.load("planetlab-96" if quick else "planetlab")
    except FileNotFoundError as error:
        parser.error(f"{error}; --quick needs no table")
    moments_s = finding.MOMENTS_S[:1] if quick else finding.MOMENTS_S
    rows = finding.of_table(rtt_s, SEEDS[0], moments_s=moments_s)
    results = {"words": where(load), "seed": SEEDS[0], "rows": rows}
    sys.stdout.write(finding_page.text(results) + "\n")
    if not quick:
        finding_page.save(results)


def where(load: float) -> str:
    """When, at which commit and on what; the load is left out."""
    return words(machine(), (load, os.getloadavg()[0])).partition("; load average")[0] + "."


def coordinates(parser: argparse.ArgumentParser, *, quick: bool) -> None:
    """Everything about coordinates themselves."""
    began, load = time.monotonic(), os.getloadavg()[0]
    names = ("planetlab-96",) if quick else ("planetlab", "wondernetwork", "aws")
    seeds = SEEDS[:1] if quick else SEEDS
    rounds = measure.ROUNDS // 4 if quick else measure.ROUNDS
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
        "words": where(load),
        "seeds": seeds,
        "tables": tables,
        "kernels": measure.kernels(),
        "seconds": round(time.monotonic() - began),
    }
    results = json.loads(json.dumps(results))  # as a reader of the file will see it
    sys.stdout.write(page.text(results) + "\n")
    if not quick:
        page.save(results)


if __name__ == "__main__":
    main()
