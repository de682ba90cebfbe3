"""The report says what the rounds showed, and only that."""

import json

import pytest
import report
from report import Row, between_marks, figure, short_table, spread, table

FASTER = Row("ping", "RPC/s", (40.0, 50.0, 60.0), (10.0, 10.0, 20.0), 4.0, True, True)
SMALL = Row("memory", "MiB", (34.0,), target=35)
CONTEXT = Row("rpcudp | uvloop", "RPC/s", (2.0,), (1.0,), note="no target")


def test_a_ratio_is_taken_round_by_round() -> None:
    assert FASTER.ratios == (4.0, 5.0, 3.0)
    assert FASTER.met is True
    assert Row("p", "u", (8.0, 4.0), (2.0,)).ratios == (4.0, 2.0)  # the baseline ran once


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("p", "u", (3.9,), (1.0,), 4.0, True, True), False),
        (Row("p", "u", (0.4,), (1.0,), 0.4, True), True),
        (Row("p", "u", (0.5,), (1.0,), 0.4, True), False),
        (Row("p", "u", (36.0,), target=35), False),
        (SMALL, True),
        (CONTEXT, None),
    ],
)
def test_a_target_is_a_bound_from_either_side(row: Row, met: bool | None) -> None:
    assert row.met is met


def test_a_target_reads_as_a_sentence() -> None:
    assert FASTER.bound == "at least 4x"
    assert SMALL.bound == "at most 35 MiB"
    assert CONTEXT.bound == ""


@pytest.mark.parametrize("ours", [(), (0.0,)])
def test_a_row_that_measured_nothing_is_refused(ours: tuple[float, ...]) -> None:
    with pytest.raises(AssertionError):
        Row("p", "u", ours)


def test_a_ratio_needs_a_baseline() -> None:
    with pytest.raises(AssertionError):
        Row("p", "u", (1.0,), target=2.0, relative=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (100.0, "100"), (34.651, "34.7"), (2.5, "2.50"), (0.0123, "0.0123")],
)
def test_a_figure_has_three_digits_that_count(value: float, text: str) -> None:
    assert figure(value) == text


def test_the_spread_stands_beside_the_median() -> None:
    assert spread((3.0, 1.0, 2.0), " ms") == "2.00 ms (1.00 - 3.00)"
    assert spread((3.0,), " ms") == "3.00 ms"
    assert spread((), " ms") == ""


def test_the_table_has_a_line_for_each_row_and_its_note() -> None:
    lines = table([FASTER, SMALL, CONTEXT]).splitlines()
    assert len(lines) == 2 + 3 + 2
    assert lines[2].count("|") == 7
    assert lines[2].endswith("| at least 4x | yes |")
    assert "rpcudp \\| uvloop" in lines[4]
    assert lines[-1] == "* rpcudp | uvloop: no target"


def test_the_short_table_leaves_context_out() -> None:
    assert short_table([FASTER, CONTEXT, SMALL]).splitlines()[2:] == [
        "| ping | 50.0 RPC/s | 10.0 RPC/s |",
        "| memory | 34.0 MiB |  |",
    ]


def test_figures_are_replaced_between_their_marks_only() -> None:
    page = f"head\n{report.BEGIN}\nold\n{report.END}\ntail"
    new = between_marks(page, "new")
    assert new == f"head\n{report.BEGIN}\nnew\n{report.END}\ntail"
    assert between_marks(new, "new") == new
    with pytest.raises(AssertionError):
        between_marks("no marks", "new")


def test_the_machine_is_described_and_the_report_is_json(tmp_path, monkeypatch) -> None:
    (tmp_path / "docs" / "explanation").mkdir(parents=True)
    pages = [tmp_path / "docs" / "explanation" / "benchmarks.md", tmp_path / "README.md"]
    for page in pages:
        page.write_text(f"{report.BEGIN}\n{report.END}\n")
    where = report.machine()
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results" / "report.json")
    report.save(where, (0.5, 1.5), [FASTER, SMALL])
    saved = json.loads(report.RESULTS.read_text())
    assert saved["machine"]["packages"]["kademlia"].startswith("2.")
    assert saved["machine"]["python"] in pages[0].read_text()
    assert saved["rows"][0]["ratio_median"] == 4.0
    assert saved["rows"][1]["met"] is True
    assert all("| memory |" in page.read_text() for page in pages)
