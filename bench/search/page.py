"""The page of range search: tables against targets and rivals, and two plots."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "search.json"
PAGE = ROOT / "docs" / "explanation" / "search-figures.md"
README = ROOT / "README.md"

TARGETS = {
    (20, 0.1): 3.5, (20, 0.01): 3.5, (20, 0.001): 8.0,
    (0, 0.1): 30.0, (0, 0.01): 14.0, (0, 0.001): 8.0,
}  # fmt: skip
"""RPCs, by limit and share; those of limit 0 are for 10,000 nodes."""
ALL_NODES = 10_000


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def verdict(reached: float, bound: float) -> str:
    """Whether a figure is within its target."""
    return "yes" if reached <= bound else f"no, {reached / bound - 1:+.0%}"


def text(results: dict[str, Any]) -> str:
    """Everything between the marks of the page."""
    parts = [
        f"Groups of at most {results['group']}; {results['questions']} questions a cell, of 1, 2, "
        f"3, 5 and 8 attributes in turn; all of it took {results['seconds']:,} s.",
        "## The engine against its targets",
        _targets(results),
        "## The rest of the targets",
        _rest(results),
        "## All designs, the same questions",
        *(_designs(size) for size in results["sizes"]),
        "## Other fleets",
        _fleets(results),
    ]
    return "\n\n".join(parts)


def _targets(results: dict[str, Any]) -> str:
    lines = [
        "| nodes | question | RPC mean | p95 | RTT | datagrams | kB | target | met "
        "| least | allowed |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for size in results["sizes"]:
        for cell in _ours(size["cells"]):
            target = TARGETS[cell["limit"], cell["share"]]
            has_target = cell["limit"] or size["nodes"] == ALL_NODES
            least = "" if cell["limit"] else " | ".join(map(figure, size["groups"][cell["share"]]))
            lines.append(
                f"| {size['nodes']:,} | {_question(cell)} | {figure(cell['rpc'])} "
                f"| {figure(cell['rpc_p95'])} | {cell['rtt']:.1f} | {figure(cell['datagrams'])} "
                f"| {figure(cell['kilobytes'])} | {f'{target:g}' if has_target else ''} "
                f"| {verdict(cell['rpc'], target) if has_target else ''} "
                f"| {least or ' | '} |"
            )
    return "\n".join(lines)


def _question(cell: dict[str, Any]) -> str:
    what = f"first {cell['limit']}" if cell["limit"] else "all matches"
    return f"{what}, {100 * cell['share']:g} % match"


def _ours(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [cell for cell in cells if cell["design"] == "dhtos"]


def _rest(results: dict[str, Any]) -> str:
    lines = ["| nodes | what | reached | target | met |", "|---|---|---|---|---|"]

    def row(nodes: int, what: str, reached: str, target: str, met: str) -> None:
        lines.append(f"| {nodes:,} | {what} | {reached} | {target} | {met} |")

    for size in results["sizes"]:
        nodes, balance, dead = size["nodes"], size["balance"], size["dead"]
        ratio = size["attributes"]
        inside = "yes" if 0.7 <= ratio <= 1.4 else "no"
        row(nodes, "RPCs with 8 attributes over with 1", f"{ratio:.2f}", "0.7 to 1.4", inside)
        over = balance["stored_over_mean"]
        held = f"{over:.2f} (mean {figure(balance['stored_mean'])})"
        row(nodes, "records held, max over mean", held, "1.6", verdict(over, 1.6))
        hot = balance["hottest_share"]
        row(nodes, "share of questions at the hottest node", f"{hot:.2%}", "0.5 %",
            verdict(hot, 0.005))  # fmt: skip
        healthy = min(cell["recall"] for cell in _ours(size["cells"]))
        row(nodes, "recall, healthy, worst cell", f"{healthy:.4f}", "1.0000",
            "yes" if healthy == 1 else "no")  # fmt: skip
        row(nodes, "recall of the living, 30 % dead at once", f"{dead['recall']:.5f}", "0.9999",
            "yes" if dead["recall"] >= 0.9999 else "no")  # fmt: skip
        row(nodes, "answers that claim over 1 % more than true, 30 % dead",
            f"{dead['overstated']:.2%}", "0.1 %", verdict(dead["overstated"], 0.001))  # fmt: skip
        for share, (rpc, _, exact) in size["cheapest"].items():
            row(nodes, f"cheapest 20, {100 * float(share):g} % match",
                f"{figure(rpc)} RPC, {exact:.0%} exact", "12 RPC, exact",
                verdict(rpc, 12) if exact == 1 else "no")  # fmt: skip
    return "\n".join(lines)


def _designs(size: dict[str, Any]) -> str:
    keys = list(dict.fromkeys((cell["limit"], cell["share"]) for cell in size["cells"]))
    keys.sort(key=lambda key: (-key[0], -key[1]))
    names = list(dict.fromkeys(cell["design"] for cell in size["cells"]))
    heads = [f"{'first 20' if limit else 'all'} {100 * share:g} %" for limit, share in keys]
    lines = [
        f"{size['nodes']:,} nodes, RPC mean (round trips):",
        "",
        "| design | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(keys),
    ]
    by = {(c["design"], c["limit"], c["share"]): c for c in size["cells"]}
    for name in names:
        cells = [by[name, *key] for key in keys]
        row = " | ".join(f"{figure(c['rpc'])} ({figure(c['rtt'])})" for c in cells)
        lines.append(f"| {name} | {row} |")
    return "\n".join(lines)


def _fleets(results: dict[str, Any]) -> str:
    lines = ["| fleet | nodes | question | RPC mean | p95 | RTT | recall |", "|---|" + "---|" * 6]
    lines += [
        f"| {c['fleet']} | {c['nodes']:,} | {_question(c)} | {figure(c['rpc'])} "
        f"| {figure(c['rpc_p95'])} | {c['rtt']:.1f} | {c['recall']:.4f} |"
        for c in results["fleets"]
    ]
    return "\n".join(lines)


def short(results: dict[str, Any]) -> str:
    """Questions that 1 % of the fleet matches, for README."""
    size = _main_size(results)
    nodes = f"{size['nodes']:,} nodes"
    lines = [f"| {nodes}, 1 % match | first 20 | all |", "|---|---|---|"]
    by = {(c["design"], c["limit"]): c["rpc"] for c in size["cells"] if c["share"] == 0.01}
    lines += [
        f"| {design} | {figure(by[design, 20])} | {figure(by[design, 0])} |"
        for design in dict.fromkeys(name for name, _ in by)
    ]
    return "\n".join(lines)


def _main_size(results: dict[str, Any]) -> dict[str, Any]:
    """The 10,000 nodes that targets speak of, or what there is."""
    sizes: list[dict[str, Any]] = results["sizes"]
    return next((size for size in sizes if size["nodes"] == ALL_NODES), sizes[-1])


def save(results: dict[str, Any]) -> None:
    """Write the JSON, the page and its plots, and the lines of README."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for path, mark, block in ((PAGE, "figures", text(results)), (README, "search", short(results))):
        path.write_text(between_marks(path.read_text(), mark, block))
    plot(results, PAGE.parent)


def between_marks(page: str, mark: str, block: str) -> str:
    """The page with `block` between its marks of that name."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    head, found, rest = page.partition(begin)
    _, ended, tail = rest.partition(end)
    assert found, f"the page has no mark {begin}"
    assert ended, f"the page has no mark {end}"
    return f"{head}{begin}\n{block}\n{end}{tail}"


def plot(results: dict[str, Any], folder: Path) -> None:
    """RPCs against N, and against selectivity, for all designs."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "dhtos", "font.size": 10, "axes.grid": True})
    from matplotlib import pyplot as plt

    size_of_shares = _main_size(results)
    by_nodes = [
        (cell["design"], size["nodes"], cell["rpc"])
        for size in results["sizes"]
        for cell in size["cells"]
        if (cell["limit"], cell["share"]) == (20, 0.01)
    ]
    by_share = [
        (cell["design"], 100 * cell["share"], cell["rpc"])
        for cell in size_of_shares["cells"]
        if cell["limit"] == 0
    ]
    for name, points, across, title in (
        ("rpc-by-nodes", by_nodes, "nodes", "the first 20 of the 1 % that match"),
        ("rpc-by-share", by_share, "% of the fleet that matches",
         f"all matches, {size_of_shares['nodes']:,} nodes"),
    ):  # fmt: skip
        figure_, axes = plt.subplots(figsize=(7.2, 4.4))
        for n, design in enumerate(dict.fromkeys(point[0] for point in points)):
            line = [(x, y) for who, x, y in points if who == design]
            ours = design == "dhtos"
            axes.plot(
                *zip(*line, strict=True),
                marker="osD^v<>P*"[n % 9],
                linewidth=2.6 if ours else 1.2,
                color="black" if ours else None,
                label=design,
                zorder=3 if ours else 2,
            )
        axes.set(xscale="log", yscale="log", xlabel=across, ylabel="RPCs a question", title=title)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        figure_.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure_)
