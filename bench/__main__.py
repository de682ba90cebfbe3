"""Run every row and write the report: `python -m bench [--quick] [ROW...]`.

The JSON goes to `bench/results/report.json`, the same as tables to
`docs/explanation/benchmarks.md` and README, between their marks. Rows that are named are only
printed.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import report
import rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes; writes nothing")
    parser.add_argument("row", nargs="*", help=f"only these: {', '.join(rows.FULL)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.row) - set(rows.FULL):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    logging.disable(logging.CRITICAL)  # stock nodes log every silence
    where = report.machine()
    before = os.getloadavg()[0]
    measured = []
    for name, measure in (rows.QUICK if arguments.quick else rows.FULL).items():
        if not arguments.row or name in arguments.row:
            measured += measure()
            sys.stderr.write(f"{name}: done\n")
    load = (before, os.getloadavg()[0])
    sys.stdout.write(f"{report.words(where, load)}\n\n{report.table(measured)}\n")
    if not arguments.quick and not arguments.row:
        report.save(where, load, measured)


if __name__ == "__main__":
    main()
