"""What the demo shows: the numbers of each answer, and the verdict."""

import io
import json

import pytest

from dhtos.cli.demo_catalogue import Catalogue, Machine
from dhtos.cli.demo_queries import Clause, Query
from dhtos.cli.demo_report import (
    Answer,
    Report,
    show_answers,
    show_catalogue,
    show_legend,
    show_verdict,
)
from dhtos.cli.screen import Screen
from dhtos.core.coverage import Coverage
from dhtos.core.ids import Prefix

BIG = Query("common", (Clause("cores", ">=", 8),))
SOME = Query("some", BIG.clauses, limit=20)
CHEAP = Query("cheapest", BIG.clauses, limit=5, order_by="price")
WRONG = Query("a typing error", wrong="coers >= 8")


def coverage(*, complete: bool = True, limited: bool = False) -> Coverage:
    failed = () if complete or limited else (Prefix(5, 3),)
    return Coverage(1.0 if complete else 0.5, complete, limited, failed, 1.0, 11, 4)


def answer(query: Query = BIG, **facts: object) -> Answer:
    usual = {"found": 9, "true": 9, "seconds": 0.0123, "coverage": coverage()}
    return Answer(query, "cores >= 8", **(usual | facts))  # type: ignore[arg-type]


def report(*answers: Answer, after: tuple[Answer, ...] = ()) -> Report:
    catalogue = Catalogue(
        "x.csv", columns={"vcpu": "cores", "mem": "mem"}, machines=[Machine(2, {"cores": 8})]
    )
    made = Report(7, 200, 32, catalogue, seconds={"all": 41.6})
    made.before, made.after = list(answers), list(after)
    return made


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def pipe() -> io.StringIO:
    return io.StringIO()


def rows(pipe: io.StringIO) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in pipe.getvalue().splitlines()
        if line.strip()
    ]


def test_an_answer_stands_beside_the_truth(pipe: io.StringIO) -> None:
    show_answers(
        Screen(out=pipe), [answer(), answer(SOME, coverage=coverage(complete=False, limited=True))]
    )
    title, head, first, second = rows(pipe)
    assert title[0].startswith("Eight questions over UDP")
    assert head == ["question", "matches", "true", "calls", "trips", "ms", "coverage", "right"]
    assert first == ["cores >= 8", "9", "9", "11", "4", "12.3", "complete", "yes"]
    assert second[:2] == ["cores >= 8", "(limit 20)"]
    assert second[-2:] == ["limit met", "yes"]


def test_after_the_death_the_dead_are_counted_apart(pipe: io.StringIO) -> None:
    gaps = answer(found=9, true=7, stale=2, coverage=coverage(complete=False))
    show_answers(Screen(out=pipe), [gaps], killed=60, nodes=200)
    title, head, first = rows(pipe)
    assert "60 of 200 nodes" in title[0]
    assert head[1:4] == ["alive", "true", "dead"]
    assert first[1:4] == ["7", "7", "2"]
    assert first[-2:] == ["50%, gaps", "yes"]


def test_a_wrong_answer_says_what_is_wrong(pipe: io.StringIO) -> None:
    show_answers(Screen(out=pipe), [answer(CHEAP, faults=("2 matches missing", "odd"))])
    *_, row = rows(pipe)
    assert row[:2] == ["cores >= 8", "(order by price, limit 5)"]
    assert row[-1] == "NO: 2 matches missing; odd"


def test_a_refusal_is_an_answer(pipe: io.StringIO) -> None:
    refused = Answer(WRONG, "coers >= 8", refusal="unknown attribute 'coers' at column 1")
    show_answers(Screen(out=pipe), [refused])
    *_, row = rows(pipe)
    assert row == ["coers >= 8: unknown attribute 'coers' at column 1", "refused", "yes"]


def test_on_a_terminal_a_question_has_its_title_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    refused = Answer(WRONG, "coers >= 8", refusal="unknown attribute")
    show_answers(Screen(out=out), [answer(), refused])
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    texts = [line.strip().split("  ")[0] for line in lines]
    assert texts.index("cores >= 8") == texts.index("common") + 1
    assert texts.index("unknown attribute") == texts.index("a typing error") + 2
    assert any("9" in line and "complete" in line for line in lines)


def test_the_catalogue_is_introduced(pipe: io.StringIO) -> None:
    beside = io.StringIO()
    made = report()
    made.catalogue.unmapped = [(f"c{n}", "no such attribute") for n in range(9)]
    made.catalogue.broken = [(n, "odd") for n in range(3, 10)]
    show_catalogue(Screen(out=pipe, err=beside), made)
    text = " ".join(pipe.getvalue().split())
    assert text.startswith("200 real nodes on this machine")
    assert "1 machines in x.csv (vcpu as cores, mem)" in text
    assert "seed 7" in text
    assert "at most 32 machines" in text
    assert "c5 (no such attribute) and 3 more." in text
    assert "c6" not in text
    warnings = beside.getvalue().splitlines()
    assert warnings[0] == "warning: x.csv line 3 is left out: odd"
    assert warnings[-1] == "warning: x.csv: 2 more lines are left out"
    assert len(warnings) == 6
    assert max(map(len, pipe.getvalue().splitlines())) <= 96


def test_every_column_is_explained(pipe: io.StringIO) -> None:
    show_answers(Screen(out=pipe), [answer()])
    show_answers(Screen(out=pipe), [answer()], killed=1, nodes=2)
    heads = {cell for row in rows(pipe) if row[0] == "question" for cell in row[1:]}
    legend = io.StringIO()
    show_legend(Screen(out=legend))
    explained = {line.split()[0] for line in legend.getvalue().splitlines() if line.strip()}
    assert explained == heads


def test_the_verdict_counts_right_answers_and_names_the_seed(pipe: io.StringIO) -> None:
    made = report(answer(), answer(faults=("odd",)), after=(answer(),))
    show_verdict(Screen(out=pipe), made)
    assert pipe.getvalue().strip() == (
        "2 of 3 answers are right. 42 s in all; the same fleet again with --seed 7."
    )
    assert [wrong.faults for wrong in made.wrong] == [("odd",)]


def test_the_report_for_programs_is_whole() -> None:
    gaps = answer(CHEAP, stale=1, coverage=coverage(complete=False))
    refused = Answer(WRONG, "coers >= 8", refusal="unknown attribute")
    document = json.loads(json.dumps(report(answer(), refused, after=(gaps,)).as_json()))
    assert document["seed"] == 7
    assert document["right"] is True
    assert document["catalogue"]["machines"] == 1
    assert document["before"][0]["calls"] == 11
    assert document["before"][0]["round_trips"] == 4
    assert document["before"][0]["ms"] == 12.3
    assert document["before"][1]["refusal"] == "unknown attribute"
    assert document["before"][1]["coverage"] is None
    (after,) = document["after"]
    assert after["limit"] == 5
    assert after["order_by"] == "price"
    assert after["stale"] == 1
    assert after["coverage"]["failed_prefixes"] == ["101"]
    assert report(answer(faults=("odd",))).as_json()["right"] is False
