"""The report: rows of figures with their spread, where they were measured, JSON and Markdown."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "report.json"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PACKAGES = ("kademlia", "rpcudp", "msgspec", "uvloop", "cython")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report; `ours` and `theirs` have one figure a round, in `unit`.

    The target is a bound: on the median of the ratios ours/theirs of the rounds if `relative`, on
    the median of `ours` if not; from below if `at_least`. A row without target gives context; one
    that is no `headline` stands on the page of all benchmarks only.
    """

    question: str
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...] = ()
    target: float | None = None
    relative: bool = False
    at_least: bool = False
    note: str = ""
    headline: bool = True

    def __post_init__(self) -> None:
        assert self.ours, self.question
        assert all(figure > 0 for figure in (*self.ours, *self.theirs)), self.question
        assert not self.relative or self.theirs, self.question

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours over theirs: round by round where both sides ran in each round."""
        if len(self.theirs) == len(self.ours):
            return tuple(a / b for a, b in zip(self.ours, self.theirs, strict=True))
        return tuple(a / median(self.theirs) for a in self.ours) if self.theirs else ()

    @property
    def met(self) -> bool | None:
        """Whether the target holds; None without one."""
        if self.target is None:
            return None
        reached = median(self.ratios if self.relative else self.ours)
        return reached >= self.target if self.at_least else reached <= self.target

    @property
    def bound(self) -> str:
        """The target in words."""
        if self.target is None:
            return ""
        unit = "x" if self.relative else f" {self.unit}"
        return f"{'at least' if self.at_least else 'at most'} {self.target:g}{unit}"

    def plain(self) -> dict[str, Any]:
        """For JSON: the figures of all rounds, and what follows from them."""
        return asdict(self) | {
            "median": median(self.ours),
            "baseline_median": median(self.theirs) if self.theirs else None,
            "ratio_median": median(self.ratios) if self.ratios else None,
            "met": self.met,
        }


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def spread(figures: Sequence[float], unit: str) -> str:
    """The median, and the extremes of the rounds behind it."""
    if not figures:
        return ""
    text = f"{figure(median(figures))}{unit}"
    if len(figures) == 1:
        return text
    return f"{text} ({figure(min(figures))} - {figure(max(figures))})"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, and their notes."""
    words = {True: "yes", False: "no", None: ""}
    lines = ["| what | dhtos | baseline | ratio | target | met |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (
            row.question,
            spread(row.ours, f" {row.unit}"),
            spread(row.theirs, f" {row.unit}"),
            spread(row.ratios, "x"),
            row.bound,
            words[row.met],
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    notes = [f"* {row.question}: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def short_table(rows: Sequence[Row]) -> str:
    """The headlines that have a target, medians only."""
    lines = ["| question | dhtos | baseline |", "|---|---|---|"]
    for row in rows:
        if row.target is not None and row.headline:
            base = f"{figure(median(row.theirs))} {row.unit}" if row.theirs else ""
            lines.append(f"| {row.question} | {figure(median(row.ours))} {row.unit} | {base} |")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures are measured on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {"dhtos": _own_version()} | {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def words(where: dict[str, Any], load: tuple[float, float]) -> str:
    """One sentence about the machine."""
    packages = ", ".join(f"{name} {number}" for name, number in where["packages"].items())
    return (
        f"Measured on {where['date']} at commit {where['commit']}: {where['cpu']}, "
        f"{where['cores']} cores, {where['kernel']}, Python {where['python']}, {packages}; "
        f"load average {load[0]:.1f} before and {load[1]:.1f} after (the run itself makes "
        "about 1.5). Medians of the rounds, the extremes in brackets; a ratio is the median of "
        "the ratios of single rounds."
    )


def save(where: dict[str, Any], load: tuple[float, float], rows: Sequence[Row]) -> None:
    """Write the JSON, and the tables of the documentation and README."""
    report = {"machine": where, "load": load, "rows": [row.plain() for row in rows]}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    text = f"{words(where, load)}\n\n{table(rows)}"
    for page, block in (("docs/explanation/benchmarks.md", text), ("README.md", short_table(rows))):
        path = ROOT / page
        path.write_text(between_marks(path.read_text(), block))


def between_marks(page: str, text: str) -> str:
    """The page with `text` between its marks for figures."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin, "the page has no mark for figures"
    assert end, "the page's mark for figures does not end"
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _own_version() -> str:
    text = (ROOT / "pyproject.toml").read_text()
    return next(line.split('"')[1] for line in text.splitlines() if line.startswith("version"))


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
