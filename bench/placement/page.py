"""The page of placement: what was wanted, what is reached, and what other policies reach."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bench.placement.measure import AT, FULL, OURS, SAMPLED
from bench.report import between_marks

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "placement.json"
PAGE = ROOT / "docs" / "explanation" / "placement.md"

SHARE_MIN = 0.995  # of the best policy with full knowledge
DECISION_MS_MAX = 1.0
CANDIDATES = 16
WORDS = {
    "Random": "random",
    "DotProd": "dot product (Tetris)",
    "GpuPacking": "GPU packing",
    "BestFit": "best fit",
    "FGD": "FGD",
    OURS: "dhtos, all machines, demand known",
    **{SAMPLED.format(n): f"dhtos, {n} at random, demand learned" for n in (4, 8, 16)},
}


def text(results: dict[str, Any]) -> str:
    """Everything between the marks of the page."""
    trace = results["trace"]
    head = (
        f"{results['words']} {trace['machines']:,} machines with {trace['gpus']:,} GPUs, arrivals "
        f"drawn from {trace['pods']:,} pods; seeds {', '.join(map(str, results['seeds']))}; all of "
        f"it took {results['seconds']:,} s."
    )
    parts = [head, "### Targets", _targets(results), "### GPUs handed out, per cent"]
    parts += [_allocation(results), "### Time of one decision, ms", _decisions(results)]
    return "\n\n".join(parts)


def shares(results: dict[str, Any]) -> dict[int, float]:
    """By demand: what 16 random candidates reach, of the best policy with full knowledge."""
    policies = results["policies"]
    ours = policies[SAMPLED.format(CANDIDATES)]
    return {
        at: mean(ours[str(at)]) / max(mean(policies[name][str(at)]) for name in FULL) for at in AT
    }


def _targets(results: dict[str, Any]) -> str:
    rows = ["| what | wanted | reached | met |", "|---|---|---|---|"]
    for at, share in shares(results).items():
        met = "yes" if share >= SHARE_MIN else "no"
        what = f"{CANDIDATES} random candidates of the best full knowledge, at {at} % demand"
        rows.append(f"| {what} | at least {SHARE_MIN} | {share:.4f} | {met} |")
    p99 = results["decisions"][SAMPLED.format(CANDIDATES)]["cpu"]["p99"]
    met = "yes" if p99 <= DECISION_MS_MAX else "no"
    what = f"one decision among {CANDIDATES}, p99 of CPU time, ms"
    rows.append(f"| {what} | at most {DECISION_MS_MAX:g} | {p99:.2f} | {met} |")
    return "\n".join(rows)


def _allocation(results: dict[str, Any]) -> str:
    heads = [f"at {at} % demand | published" for at in AT]
    rows = [f"| policy | {' | '.join(heads)} |", "|---" * (1 + 2 * len(AT)) + "|"]
    for name, found in results["policies"].items():
        cells = []
        for at in AT:
            published = results["published"].get(name, {}).get(str(at))
            cells += [_spread(found[str(at)]), "" if published is None else f"{published:.2f}"]
        rows.append(f"| {WORDS[name]} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _spread(figures: list[float]) -> str:
    if len(figures) < 2:
        return f"{mean(figures):.2f}"
    return f"{mean(figures):.2f} ± {stdev(figures):.2f}"


def _decisions(results: dict[str, Any]) -> str:
    rows = [
        "| | CPU p50 | CPU p99 | wall p50 | wall p99 | decisions |",
        "|---|---|---|---|---|---|",
    ]
    for name, kinds in results["decisions"].items():
        cpu, wall = kinds["cpu"], kinds["wall"]
        times = f"{cpu['p50']:.2f} | {cpu['p99']:.2f} | {wall['p50']:.2f} | {wall['p99']:.2f}"
        rows.append(f"| {WORDS[name]} | {times} | {cpu['count']:,} |")
    return "\n".join(rows)


def save(results: dict[str, Any]) -> None:
    """Write the JSON and the tables of the page."""
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    PAGE.write_text(between_marks(PAGE.read_text(), text(results)))
