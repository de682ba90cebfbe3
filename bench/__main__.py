"""Run every row and write the report: `python -m bench [--quick]`.

The JSON goes to `bench/results/report.json`, the same as a table to
`docs/explanation/benchmarks.md` and into README, between their marks.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import rows

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kademlia", "rpcudp", "msgspec", "uvloop", "cython")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load": round(os.getloadavg()[0], 2),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except Exception:  # a package that is not there has no version
        return "-"


def measure(*, quick: bool) -> list[rows.Row]:
    """All rows, in the order of the report."""
    if quick:
        return [
            *rows.closest(3),
            *rows.rpc(1, 0.1),
            *rows.swarm(1, 12, 6),
            *rows.daemon(0.5),
            *rows.nodes(12),
            *rows.simulator(60, 5.0),
        ]
    return [
        *rows.closest(),
        *rows.rpc(),
        *rows.swarm(),
        *rows.daemon(),
        *rows.nodes(),
        *rows.simulator(),
    ]


def table(results: list[rows.Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | dhtos | baseline | ratio | target | met |", "|---|---|---|---|---|---|"]
    for row in results:
        base = "" if row.baseline is None else f"{figure(row.baseline)} {row.unit}"
        ratio = "" if row.baseline is None else f"{row.reached / row.baseline:.2g}x"
        reached = f"{figure(row.reached)} {row.unit}"
        met = "yes" if row.met else "no"
        lines.append(f"| {row.question} | {reached} | {base} | {ratio} | {row.target} | {met} |")
    return "\n".join(lines)


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def words(where: dict[str, Any]) -> str:
    """One sentence about the machine."""
    packages = ", ".join(f"{name} {number}" for name, number in where["packages"].items())
    return (
        f"Measured on {where['date']} at commit {where['commit']}: {where['cpu']}, "
        f"{where['cores']} cores, {where['system']}, Python {where['python']}, {packages}; "
        f"load average {where['load']} at the start."
    )


def between_marks(path: Path, text: str) -> None:
    """Replace what stands between `figures: begin` and `figures: end`."""
    page = path.read_text()
    begin, end = "<!-- figures: begin -->", "<!-- figures: end -->"
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    assert rest, f"{path} has no marks for the figures"
    assert tail or page.rstrip().endswith(end)
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes; writes nothing")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # stock nodes log every silence
    where = machine()
    results = measure(quick=arguments.quick)
    sys.stdout.write(table(results) + "\n")
    if arguments.quick:
        return
    report = {"machine": where, "rows": [row.to_plain() for row in results]}
    target = ROOT / "bench" / "results" / "report.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    text = f"{words(where)}\n\n{table(results)}"
    between_marks(ROOT / "docs" / "explanation" / "benchmarks.md", text)
    between_marks(ROOT / "README.md", text)


if __name__ == "__main__":
    main()
