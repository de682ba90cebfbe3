"""Every error becomes one line, one hint and the right exit code."""

import click
import pytest

from dhtos.cli.failure import Exit, Failure, Incomplete, NothingFound, WrongAnswer, explain
from dhtos.errors import (
    ConfigError,
    Conflict,
    DhtosError,
    KeyNotFound,
    LookupExpired,
    NoPeers,
    PredicateError,
    Refused,
    UsageError,
    ValueTooLarge,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("odd"), 2),
        (ConfigError("odd"), 2),
        (ValueTooLarge("odd"), 2),
        (PredicateError("odd"), 2),
        (NoPeers("odd"), 2),
        (LookupExpired("odd"), 2),
        (OSError("odd"), 2),
        (FileNotFoundError(2, "No such file or directory", "x.toml"), 2),
        (KeyNotFound("odd"), 3),
        (NothingFound("odd"), 3),
        (Refused("odd"), 4),
        (Conflict("odd"), 4),
        (Incomplete("odd"), 6),
        (click.UsageError("odd"), 2),
        (click.BadParameter("odd"), 2),
        (click.FileError("x.csv", "gone"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (WrongAnswer("odd"), 1),
        (RuntimeError("odd"), 1),
        (ZeroDivisionError(), 1),
    ],
)
def test_each_error_has_its_exit_code_a_line_and_a_hint(error: BaseException, code: int) -> None:
    failure = explain(error)
    assert failure.code == code
    lines = failure.lines().split("\n")
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert len(lines[0]) > len("error: ")
    assert lines[1].startswith("hint: ")
    assert len(lines[1]) > len("hint: ")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "port 7400 on 0.0.0.0 is in use: choose another with --port, or 0 for any",
            "port 7400 on 0.0.0.0 is in use",
            "choose another with --port, or 0 for any",
        ),
        ("unknown key 'prot'; did you mean 'port'?", "unknown key 'prot'", "did you mean 'port'?"),
        ("low must be > 0 (use log2p1 for zero)", "low must be > 0", "use log2p1 for zero"),
        ("it is a stick: a wooden one", "it is a stick: a wooden one", None),
    ],
)
def test_advice_inside_a_message_becomes_the_hint(
    text: str, message: str, hint: str | None
) -> None:
    failure = explain(UsageError(text))
    assert failure.message == message
    if hint is not None:
        assert failure.hint == hint


def test_a_predicate_error_hints_at_the_word_that_was_meant() -> None:
    error = PredicateError("unknown attribute 'coers' at column 1", column=1, hint="cores")
    assert explain(error).hint == "did you mean cores?"
    told = PredicateError("unknown attribute 'coers' at column 1: did you mean 'cores'?")
    assert explain(told).message == "unknown attribute 'coers' at column 1"
    assert explain(told).hint == "did you mean 'cores'?"


def test_a_mistyped_option_names_the_nearest() -> None:
    error = click.NoSuchOption("--nods", possibilities=["--nodes"])
    assert explain(error) == Failure("no such option --nods", "did you mean --nodes?", Exit.USAGE)


def test_a_usage_error_of_a_command_points_to_its_help() -> None:
    context = click.Context(click.Command("find"), info_name="dhtos-node find")
    failure = explain(click.UsageError("Missing argument 'PREDICATE'.", ctx=context))
    assert failure.message == "missing argument 'PREDICATE'"
    assert failure.hint == "dhtos-node find --help shows how"


def test_a_file_error_names_the_file() -> None:
    failure = explain(PermissionError(13, "Permission denied", "fleet.toml"))
    assert failure.message == "fleet.toml: Permission denied"


def test_no_message_can_break_the_line_or_colour_the_terminal() -> None:
    failure = explain(DhtosError("a\nb\x1b[31mc\u202ed"))
    assert failure.lines().split("\n")[0] == "error: a b [31mc d"


def test_a_fault_of_our_own_says_how_to_report_it() -> None:
    failure = explain(KeyError("x"))
    assert "KeyError" in failure.message
    assert "DHTOS_TRACEBACK=1" in failure.hint
