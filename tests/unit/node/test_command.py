"""The words of a command: what the system takes as arguments and variables, and what it cannot."""

from pathlib import Path

import pytest

from dhtos.core.limits import COMMAND_ARGUMENTS_MAX, COMMAND_BYTES_MAX, COMMAND_VARIABLES_MAX
from dhtos.errors import UsageError
from dhtos.node.command import RUNS_COMMANDS, check_size, variables, words
from dhtos.query import parse_text


def test_words_are_bytes_as_the_system_takes_them():
    assert words(["echo", b"\xff", Path("/tmp/x"), "ä", ""]) == (
        b"echo", b"\xff", b"/tmp/x", "ä".encode(), b"",
    )  # fmt: skip
    assert words(["\udcff"]) == (b"\xff",)  # what a terminal passed that is not UTF-8


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "at least one word"),
        ([""], "the first word of a command is a program"),
        (["a", "b\0c"], r"has no NUL, got 'b\\x00c'"),
        (["a", 7], "a text, bytes or a path, got 7"),
        (["a", None], "got None"),
        (["a"] * (COMMAND_ARGUMENTS_MAX + 1), f"at most {COMMAND_ARGUMENTS_MAX} words, got"),
    ],
)
def test_what_is_no_command(argv, message):
    with pytest.raises(UsageError, match=message):
        words(argv)


def test_variables_are_bytes_too():
    assert variables({"A": "1", b"B": b"\xff", "C": "x=y"}) == {
        b"A": b"1", b"B": b"\xff", b"C": b"x=y",
    }  # fmt: skip
    assert variables({}) == {}


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"": "1"}, "a variable has a name without '=', got ''"),
        ({"A=B": "1"}, "a variable has a name without '=', got 'A=B'"),
        ({"A\0": "1"}, "a variable has no NUL"),
        ({"A": "\0"}, "a value has no NUL"),
        ({"A": 1}, "a value is a text, bytes or a path, got 1"),
        ({str(n): "" for n in range(COMMAND_VARIABLES_MAX + 1)}, "at most"),
    ],
)
def test_what_is_no_environment(env, message):
    with pytest.raises(UsageError, match=message):
        variables(env)


def test_one_command_carries_so_much():
    check_size([b"x" * (COMMAND_BYTES_MAX - 1)], {})
    with pytest.raises(UsageError, match=f"at most {COMMAND_BYTES_MAX} bytes, got"):
        check_size([b"x" * COMMAND_BYTES_MAX], {})
    with pytest.raises(UsageError, match="give it the rest on standard input"):
        check_size([b"x"], {b"A": b"y" * COMMAND_BYTES_MAX})


def test_the_label_is_asked_for_in_both_languages():
    text = parse_text("label('runs') == 'commands'")
    assert str(text) == str(parse_text("label('runs') == 'commands'"))
    assert (text.subject.key, text.op, text.value.value) == (
        RUNS_COMMANDS.subject.key, RUNS_COMMANDS.op, RUNS_COMMANDS.value.value,
    )  # fmt: skip
