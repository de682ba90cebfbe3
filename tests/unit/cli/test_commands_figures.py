"""`sum` and `histogram`: what they ask, what they show, how they end."""

import io
from typing import Any

import pytest

from dhtos.cli import commands_figures
from dhtos.cli.commands_figures import read_edges
from dhtos.cli.screen import Screen
from dhtos.cli.wording import bar
from dhtos.core.schema import default_schema
from dhtos.errors import UsageError

GIB = 2**30
SUM = {
    "count": 3, "present": 2, "sum": 12 * GIB, "mean": 6.0 * GIB, "minimum": 4 * GIB,
    "maximum": 8 * GIB,
}  # fmt: skip
NOBODY = {"count": 0, "present": 0, "sum": 0, "mean": None, "minimum": None, "maximum": None}
BINS = {
    "edges": [GIB, 4 * GIB, 8 * GIB, 64 * GIB], "counts": [0, 2, 8, 0, 0], "missing": 1,
    "count": 11,
}  # fmt: skip


class Terminal(io.StringIO):
    """What a person sees."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    out = Terminal()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(
        commands_figures, "Screen", lambda as_json=False: Screen(as_json=as_json, out=out)
    )
    return out


# --- sum ----------------------------------------------------------------------------------------


def test_a_sum_shows_its_figures_in_units(shell: Any, fleet: Any) -> None:
    fleet.figures = SUM
    lines = shell.run("sum", "mem_free", "cores >= 8", "--strict", "--verify", "2").splitlines()
    assert fleet.asked == [("sum", "mem_free", "cores >= 8", True, 2)]
    assert [line.split() for line in lines] == [
        ["mem_free", "value"],
        ["machines", "3"],
        ["with", "mem_free", "2"],
        ["sum", "12GiB"],
        ["mean", "6GiB"],
        ["minimum", "4GiB"],
        ["maximum", "8GiB"],
    ]
    assert shell.err == "warning: 1 member answered for some subtree, not 2\n"


def test_a_sum_of_nobody_says_so(shell: Any, fleet: Any) -> None:
    fleet.figures = NOBODY
    rows = [line.split() for line in shell.run("sum", "price").splitlines()]
    assert fleet.asked == [("sum", "price", "true", False, 1)]
    assert rows[3:] == [["sum", "0"], ["mean", "-"], ["minimum", "-"], ["maximum", "-"]]
    assert shell.err == ""


def test_json_has_everything(shell: Any, fleet: Any) -> None:
    fleet.figures = SUM
    document = shell.json("sum", "mem_free")
    assert document == SUM | {"attribute": "mem_free", "coverage": fleet.coverage}
    fleet.figures = BINS
    assert shell.json("histogram", "mem_free")["counts"] == BINS["counts"]


@pytest.mark.parametrize(("command", "figures"), [("sum", SUM), ("histogram", BINS)])
def test_gaps_are_told_and_end_with_six_only_where_asked(
    shell: Any, fleet: Any, plain: Any, command: str, figures: Any
) -> None:
    fleet.figures, fleet.coverage = figures, plain.GAPS
    shell.run(command, "mem_free")
    assert shell.err == "warning: not of all machines: 75%, gaps\n"
    shell.run(command, "mem_free", "--require-complete", code=6)
    assert "error: 2 subtrees did not answer: 75%, gaps" in shell.err
    fleet.coverage = plain.COMPLETE
    shell.run(command, "mem_free", "--require-complete")
    assert shell.err == ""


@pytest.mark.parametrize("command", ["sum", "histogram"])
def test_errors_reach_the_user(shell: Any, fleet: Any, command: str) -> None:
    fleet.error = UsageError("arch is a text, which has no sum and no histogram; use count")
    assert shell.refused(command, "arch") == (
        "arch is a text, which has no sum and no histogram",
        "use count",
    )


# --- histogram ----------------------------------------------------------------------------------


def test_a_histogram_is_a_line_for_each_step_between_the_outermost(shell: Any, fleet: Any) -> None:
    fleet.figures = BINS
    lines = shell.run("histogram", "mem_free", "cores >= 8").splitlines()
    assert fleet.asked == [("histogram", "mem_free", "cores >= 8", None, False, 1)]
    assert lines[0] == "mem_free of 11 machines"
    assert [line.split() for line in lines[1:]] == [
        ["from", "to", "machines"],
        ["1GiB", "4GiB", "2"],
        ["4GiB", "8GiB", "8"],
        ["not", "told", "1"],
    ]


def test_the_ends_of_a_histogram_are_open(shell: Any, fleet: Any) -> None:
    fleet.figures = BINS | {"counts": [1, 0, 0, 0, 2], "missing": 0}
    lines = [line.split() for line in shell.run("histogram", "mem_free").splitlines()[2:]]
    assert lines[0] == ["1GiB", "1"]
    assert lines[-1] == ["64GiB", "2"]
    assert len(lines) == 5


def test_a_histogram_of_nobody_has_no_lines(shell: Any, fleet: Any) -> None:
    fleet.figures = BINS | {"counts": [0] * 5, "missing": 0, "count": 0}
    assert len(shell.run("histogram", "mem_free").splitlines()) == 2


def test_a_terminal_shows_bars(shell: Any, fleet: Any, terminal: Terminal) -> None:
    fleet.figures = BINS
    shell.run("histogram", "mem_free")
    lines = terminal.getvalue().splitlines()
    bars = [line.count("█") for line in lines if "GiB" in line]
    assert bars == [10, 40]
    assert "not told" in terminal.getvalue()


def test_edges_are_read_with_their_units(shell: Any, fleet: Any) -> None:
    fleet.figures = BINS
    shell.run("histogram", "mem_free", "--edges", "8GiB, 32GiB,")
    assert fleet.asked[0][3] == [8 * GIB, 32 * GIB]
    message, hint = shell.refused("histogram", "mem_free", "--edges", "8GB,much")
    assert "mem_free" in message
    assert hint
    shell.refused("histogram", "mem_fre", "--edges", "8GiB")
    assert len(fleet.asked) == 1


def test_edges_are_values_of_the_attribute() -> None:
    schema = default_schema()
    assert read_edges(schema.attribute("cpu_free"), "12.5%,50") == [12.5, 50]
    assert read_edges(schema.attribute("cores"), "") == []
    with pytest.raises(UsageError, match="cores"):
        read_edges(schema.attribute("cores"), "8GiB")


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, ""), (1e-9, "▏"), (1 / 8, "█"), (0.5, "████"), (7 / 64, "▉"), (1.0, "████████")],
)
def test_a_bar_is_an_eighth_of_a_column_exact(share: float, text: str) -> None:
    assert bar(share, 8) == text
