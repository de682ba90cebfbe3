"""`place ... -- COMMAND`: what stands where on the line, and what is shown of what comes back."""

import base64
import re

import click
import pytest
from click.testing import CliRunner

from dhtos.cli.commands_run import (
    RUNS_COMMANDS,
    CommandAfterDashes,
    Text,
    read_variables,
    where_commands_run,
    words_after_dashes,
)
from dhtos.cli.failure import explain
from dhtos.errors import CannotStart, UsageError
from dhtos.query import parse_text


@click.command(cls=CommandAfterDashes)
@click.argument("predicate", default="")
@click.option("--need")
def show(predicate, need):
    click.echo(repr((predicate, need, words_after_dashes())))


def shown(*args):
    done = CliRunner().invoke(show, args, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output.strip()


def test_what_stands_behind_the_dashes_is_the_command_and_nothing_else():
    assert shown("--", "ls", "-l") == "('', None, ['ls', '-l'])"
    assert shown("p", "--need", "n", "--", "a", "--need", "--", "b") == (
        "('p', 'n', ['a', '--need', '--', 'b'])"
    )
    assert shown("p") == "('p', None, [])"


def test_dashes_without_a_command():
    with pytest.raises(click.UsageError, match="-- stands before a command: give one"):
        shown("p", "--")


def test_the_help_says_where_a_command_stands():
    done = CliRunner().invoke(show, ["--help"])
    assert "[PREDICATE] [-- COMMAND [ARGUMENT]...]" in done.output


def test_variables():
    assert read_variables(["A=b", "C=", "D=e=f"]) == {"A": "b", "C": "", "D": "e=f"}
    assert read_variables(["A=1", "A=2"]) == {"A": "2"}
    for bad in ("A", "=b", ""):
        with pytest.raises(UsageError, match=f"--env must be NAME=VALUE, got '{bad}'"):
            read_variables([bad])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("", RUNS_COMMANDS),
        ("  ", RUNS_COMMANDS),
        ("cores > 2", f"cores > 2 and {RUNS_COMMANDS}"),
        ("cores > 2 or gpus", f"(cores > 2 or gpus) and {RUNS_COMMANDS}"),
        ("cores > 2\tor gpus", f"(cores > 2\tor gpus) and {RUNS_COMMANDS}"),
    ],
)
def test_only_machines_that_run_commands_are_asked(where, expected):
    assert where_commands_run(where) == expected
    if where.strip():
        whole, alone = parse_text(where_commands_run(where)), parse_text(where)
        assert meaning(whole) == meaning(alone & parse_text(RUNS_COMMANDS))


def meaning(expression):
    """What it says, wherever its words stand."""
    return re.sub(r"column=\d+", "", str(expression))


def test_output_in_json_is_text_where_it_is_text():
    text = Text("stdout")
    assert text.items(b"one\n") == [{"stdout": "one\n"}]
    assert text.items("ä".encode()[:1]) == []
    assert text.items("ä".encode()[1:] + b"!") == [{"stdout": "ä!"}]
    assert text.items(b"") == []


def test_output_in_json_is_base64_where_it_is_not():
    text = Text("stderr")
    assert text.items("ä".encode()[:1]) == []
    (item,) = text.items(b"\xff")
    assert base64.b64decode(item["stderr_base64"]) == "ä".encode()[:1] + b"\xff"
    assert text.items(b"fine") == [{"stderr": "fine"}]
    assert text.items(b"\xe2\x82") == []  # it ends in half a character
    assert text.items(b"") == [{"stderr_base64": base64.b64encode(b"\xe2\x82").decode()}]


def test_what_cannot_be_started_exits_as_in_a_shell():
    for code in (126, 127):
        failure = explain(CannotStart("on h:1 'x' cannot be started: why", code=code))
        assert failure.code == code
        assert failure.lines().splitlines()[0] == "error: on h:1 'x' cannot be started: why"
