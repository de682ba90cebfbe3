"""Tables and JSON: what reaches a terminal, a pipe and a program."""

import io
import json

import pytest

from dhtos.cli.screen import Column, Screen, plain_table

COLUMNS = (Column("name"), Column("cores", right=True))
ROWS = [["edge-7", "8"], ["x", "128"]]


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def pipe() -> io.StringIO:
    return io.StringIO()


def test_a_plain_table_is_aligned_and_has_no_trailing_blanks() -> None:
    text = plain_table(COLUMNS, ROWS)
    assert text == "name    cores\nedge-7      8\nx         128"
    assert all(line == line.rstrip() for line in text.split("\n"))


def test_a_plain_table_without_rows_is_its_heading() -> None:
    assert plain_table(COLUMNS, []) == "name  cores"


def test_a_pipe_gets_plain_text(pipe: io.StringIO) -> None:
    screen = Screen(out=pipe)
    assert not screen.fancy
    screen.table(COLUMNS, ROWS, "machines")
    assert pipe.getvalue().startswith("machines\nname    cores\n")
    assert "\x1b" not in pipe.getvalue()


def test_a_terminal_gets_a_drawn_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    screen = Screen(out=out)
    assert screen.fancy
    screen.table(COLUMNS, ROWS, "machines")
    assert "─" in out.getvalue()
    assert "edge-7" in out.getvalue()


def test_square_brackets_in_a_cell_are_text_and_not_markup() -> None:
    out = Terminal()
    Screen(out=out).table(COLUMNS, [["[red]x[/red]", "1"]])
    assert "[red]x[/red]" in out.getvalue()


def test_json_mode_says_nothing_to_people(pipe: io.StringIO) -> None:
    screen = Screen(as_json=True, out=pipe)
    screen.say("hello")
    with screen.progress("working", 3) as advance:
        advance(3)
    assert pipe.getvalue() == ""
    screen.document({"a": [1, 2]})
    assert json.loads(pipe.getvalue()) == {"a": [1, 2]}


def test_a_line_of_json_is_one_line(pipe: io.StringIO) -> None:
    screen = Screen(as_json=True, out=pipe)
    screen.line({"a": "ä\n"})
    screen.line({"b": 1})
    assert [json.loads(line) for line in pipe.getvalue().splitlines()] == [{"a": "ä\n"}, {"b": 1}]


def test_a_document_is_indented_for_people_only() -> None:
    out, pipe = Terminal(), io.StringIO()
    Screen(as_json=True, out=out).document({"a": 1})
    Screen(as_json=True, out=pipe).document({"a": 1})
    assert "\n  " in out.getvalue()
    assert pipe.getvalue() == '{"a": 1}\n'


def test_progress_in_a_pipe_is_one_line_at_the_end(pipe: io.StringIO) -> None:
    screen = Screen(out=pipe)
    with screen.progress("join", 10) as advance:
        advance(3)
        advance(10)
        advance(7)
        assert pipe.getvalue() == ""
    assert pipe.getvalue() == "join: 10 of 10\n"


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()
    with Screen(out=out).progress("join", 10) as advance:
        advance(10)
    assert "10/10" in out.getvalue()


def test_warnings_stay_out_of_the_output(pipe: io.StringIO) -> None:
    beside = io.StringIO()
    Screen(as_json=True, out=pipe, err=beside).warn("careful")
    assert pipe.getvalue() == ""
    assert beside.getvalue() == "careful\n"
