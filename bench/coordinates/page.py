"""The page of coordinates: what was wanted, what is reached, and what rivals reach."""

import json
from pathlib import Path
from typing import Any

from bench.coordinates import nearby
from bench.coordinates.measure import ASKED, OURS, PROBES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "coordinates.json"
PAGE = ROOT / "docs" / "explanation" / "coordinates.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

ERRORS = {"planetlab": (0.068, 0.22), "wondernetwork": (0.062, 0.23)}
"""Median and 90th percentile of the relative error that are wanted."""
JOINED, JOINED_AFTER = 0.09, 8
DRIFT_MS = 0.3
LIED = {"disorder": 1.25, "delay": 1.25, "deflation": 1.25, "repulsion": 1.3}
PENALTY = 1.10
REFIT_US, BATCH_MS = 10.0, 5.0


def verdict(reached: float, bound: float) -> str:
    """Whether a figure is within its target."""
    return "yes" if reached <= bound else f"no, {reached / bound - 1:+.0%}"


def text(results: dict[str, Any]) -> str:
    """Everything between the marks of the page."""
    tables = results["tables"]
    parts = [
        f"{results['words']} Seeds {', '.join(map(str, results['seeds']))}; all of it took "
        f"{results['seconds']:,} s.",
        "### Targets",
        _targets(results),
        "### Relative error, median / 90th percentile",
        _errors(tables),
        "### Newcomers: median error after so many samples",
        _joining(tables),
        "### Three liars in ten: error among the honest",
        _liars(tables),
        "### The closest node: how many times as far as the best",
        *(_closest(name, table) for name, table in tables.items()),
        *_nearby({name: table["nearby"] for name, table in tables.items()}),
    ]
    return "\n\n".join(parts)


def _pair(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.3f} / {pair[1]:.3f}"


def _rows(head: str, rows: list[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|---" * columns + "|", *rows])


def _targets(results: dict[str, Any]) -> str:
    rows = []

    def row(what: str, wanted: float, reached: float, digits: int = 3) -> None:
        rows.append(f"| {what} | {wanted:g} | {reached:.{digits}f} | {verdict(reached, wanted)} |")

    for name, (middle, high) in ERRORS.items():
        table = results["tables"].get(name)
        if table is None:
            continue
        reached = table["errors"][OURS]
        row(f"{name}: relative error, median", middle, reached[0])
        row(f"{name}: relative error, 90th percentile", high, reached[1])
        joined = table["joining"][str(JOINED_AFTER)]
        row(f"{name}: newcomer after {JOINED_AFTER} samples, median", JOINED, joined)
        row(f"{name}: drift of a settled node, ms a sample", DRIFT_MS, table["drift_ms"])
        for lie, bound in LIED.items():
            pairs = table["liars"][lie]
            ratio = pairs["after"][0] / pairs["before"][0]
            row(f"{name}: 30 % liars, {lie}: median, times honest", bound, ratio, 2)
        found = table["closest"][f"{OURS}, {ASKED} asked, {PROBES} probes"]
        row(f"{name}: closest node, p90 of the penalty", PENALTY, found["p90"], 2)
    speed = results["kernels"]
    row("one step of a re-fit to a full memory, us", REFIT_US, speed["refit_us"], 1)
    row("a million estimates, float32, one core, ms", BATCH_MS, speed["batch_ms"], 2)
    note = (
        f"\n\nThe same million by numpy, column by column: {speed['numpy_ms']:.2f} ms. The kernel "
        f"moves {speed['batch_gb_s']:.0f} GB/s; a plain copy of the table reads and writes "
        f"{speed['copy_gb_s']:.0f} GB/s."
        f"\n\nOne update as in Vivaldi takes {speed['update_us']:.2f} us, called from Python. "
        "A node makes a few a second, so there is no compiled loop over many (40 million/s were "
        "wanted)."
    )
    return _rows("| what | at most | reached | met |", rows) + note


def _errors(tables: dict[str, Any]) -> str:
    names = list(next(iter(tables.values()))["errors"])
    head = "| | " + " | ".join(f"{n} ({t['nodes']})" for n, t in tables.items()) + " |"
    rows = [
        f"| {name} | " + " | ".join(_pair(t["errors"][name]) for t in tables.values()) + " |"
        for name in names
    ]
    return _rows(head, rows)


def _joining(tables: dict[str, Any]) -> str:
    counts = list(next(iter(tables.values()))["joining"])
    head = "| samples | " + " | ".join(counts) + " |"
    rows = [
        f"| {name} | " + " | ".join(f"{t['joining'][c]:.3f}" for c in counts) + " |"
        for name, t in tables.items()
    ]
    return _rows(head, rows)


def _liars(tables: dict[str, Any]) -> str:
    rows = [
        f"| {name} | {lie} | {_pair(pairs['before'])} | {_pair(pairs['after'])} |"
        for name, t in tables.items()
        for lie, pairs in t["liars"].items()
    ]
    return _rows("| table | lie | before | after |", rows)


def _closest(name: str, table: dict[str, Any]) -> str:
    rows = [
        f"| {who} | {f['median']:.2f} | {f['p90']:.2f} | {f['p90_ms']:.1f} | {f['probes']:.0f} |"
        for who, f in table["closest"].items()
    ]
    return _rows(f"| {name} | median | p90 | p90, ms too far | probes |", rows)


def _nearby(tables: dict[str, Any]) -> list[str]:
    """`Node.closest`, `within` and `central`, which ask nobody else's memory."""
    names = list(tables)
    head = "| " + " | ".join(f"{name}, k={k}" for name in names for k in nearby.WANTED) + " |"
    rows = [
        f"| {factor if factor < 1000 else 'all'} | "
        + " | ".join(f"{t['closest'][str(factor)][str(k)]:.2f}" for t in tables.values()
                     for k in nearby.WANTED)
        + " |"
        for factor in nearby.FACTORS
    ]  # fmt: skip
    borders = [f"{name}, {1000 * s:g} ms" for name in names for s in nearby.BORDERS_S]
    found = [
        f"| {reach:g} | "
        + " | ".join(_shares(t["within"][f"{reach:g} {1000 * s:g}"]) for t in tables.values()
                     for s in nearby.BORDERS_S)
        + " |"
        for reach in nearby.REACHES
    ]  # fmt: skip
    middle = [
        f"| {others} | "
        + " | ".join(
            f"{c['exact']:.2f}, {c['median']:.2f} / {c['p90']:.2f}"
            for c in (t["central"][str(others)] for t in tables.values())
        )
        + " |"
        for others in nearby.OTHERS
    ]
    return [
        "### `Node.closest`: 90th percentile of the penalty, by candidates for each ping",
        _rows("| candidates " + head, rows),
        "### `Node.within`: precision / recall with 8 pings, by how far predictions may reach",
        _rows("| reach | " + " | ".join(borders) + " |", found),
        "### `Node.central`: share of the best by prediction; times the best in truth, "
        "median / 90th percentile",
        _rows("| others | " + " | ".join(names) + " |", middle),
    ]


def _shares(border: dict[str, float]) -> str:
    return f"{border['precision']:.2f} / {border['recall']:.2f}"


def save(results: dict[str, Any]) -> None:
    """Write the JSON and the tables of the page."""
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    page = PAGE.read_text()
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin, "the page has no mark for figures"
    assert end, "the page's mark for figures does not end"
    PAGE.write_text(f"{head}{BEGIN}\n{text(results)}\n{END}{tail}")
