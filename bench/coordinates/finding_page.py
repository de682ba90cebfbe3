"""The part of the page about what `find` finds near: figures, and what was wanted."""

import json
from pathlib import Path
from typing import Any

from bench.coordinates import finding
from bench.coordinates.page import verdict

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "finding.json"
PAGE = ROOT / "docs" / "explanation" / "coordinates.md"
BEGIN, END = "<!-- found: begin -->", "<!-- found: end -->"

FAR_SHARE, CALLS = 0.05, 6.0
"""Hits beyond 25 ms, and calls a question, that are allowed."""


def text(results: dict[str, Any]) -> str:
    """Everything between the marks; the targets are judged by the last moment of each size."""
    last = {row["group_size"]: row for row in results["rows"]}
    lines = [
        f"{results['words']} Seed {results['seed']}.",
        "",
        "| groups of at most | what | at most | reached | met |",
        "|---|---|---|---|---|",
    ]
    for size, row in last.items():
        far = 1 - row["near"]
        far_met, calls_met = verdict(far, FAR_SHARE), verdict(row["rpc"], CALLS)
        lines += [
            f"| {size} | share of hits beyond 25 ms | {FAR_SHARE:g} | {far:.3f} | {far_met} |",
            f"| {size} | calls a question, mean | {CALLS:g} | {row['rpc']:.1f} | {calls_met} |",
        ]
    lines += [
        "",
        "| hosts | groups | minutes | within 25 ms | within 20 ms | found of what matches "
        "| calls, mean | calls, most | round trips |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['nodes']} | {row['groups']} | {row['learn_s'] / 60:g} | {row['near']:.3f} "
        f"| {row['asked']:.3f} | {row['recall']:.2f} | {row['rpc']:.1f} | {row['rpc_max']} "
        f"| {row['rtt']:.1f} |"
        for row in results["rows"]
    ]
    first = results["rows"][0]
    lines += [
        "",
        f"`{finding.QUERY}`, {first['limit']} of them; {first['questions']} questions a row, from "
        f"random nodes. By the table {first['matches']:.1f} machines match for the average node.",
    ]
    return "\n".join(lines)


def save(results: dict[str, Any]) -> None:
    """Write the JSON and the part of the page."""
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    page = PAGE.read_text()
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin, "the page has no mark for what is found"
    assert end, "the page's mark for what is found does not end"
    PAGE.write_text(f"{head}{BEGIN}\n{text(results)}\n{END}{tail}")
