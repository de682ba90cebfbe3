"""The entry point: help, version, unknown words, exit codes, faults."""

import asyncio
from types import SimpleNamespace
from typing import Any

import click
import pytest

from dhtos.cli import main as entry
from dhtos.cli.loop import FaultReport, run_loop
from dhtos.errors import Refused


def test_help_lists_every_command_with_a_sentence(shell: Any) -> None:
    text = shell.run("--help")
    for name in entry.COMMANDS:
        assert f"\n  {name} " in text
    assert "Exit codes: 0 ok, 2 usage" in text


@pytest.mark.parametrize("name", list(entry.COMMANDS))
def test_every_command_has_help_and_json(shell: Any, name: str) -> None:
    text = shell.run(name, "--help")
    assert f"Usage: dhtos-node {name}" in text
    load, attribute = entry.COMMANDS[name]
    command = getattr(load(), attribute)
    if isinstance(command, click.Group):
        text = "".join(shell.run(name, one, "--help") for one in command.commands)
    assert "--json" in text


def test_no_argument_is_a_question_for_help(shell: Any) -> None:
    assert "Usage: dhtos-node" in shell.run()


def test_version_names_the_kernels(shell: Any) -> None:
    text = shell.run("--version")
    assert text.startswith("dhtos-node ")
    assert "kernels)" in text


def test_a_mistyped_command_names_the_nearest(shell: Any) -> None:
    assert shell.refused("dmo") == ("no such command 'dmo'", "did you mean demo?")
    message, hint = shell.refused("xyzzy")
    assert message == "no such command 'xyzzy'"
    assert hint.startswith("known are run, demo")


def test_a_mistyped_option_names_the_nearest(shell: Any) -> None:
    assert shell.refused("demo", "--nods", "3") == (
        "no such option --nods",
        "did you mean --nodes?",
    )


def test_a_missing_argument_points_to_the_help(shell: Any) -> None:
    message, hint = shell.refused("get")
    assert message == "missing argument 'KEY'"
    assert hint == "dhtos-node get --help shows how"


def test_main_exits_with_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        entry.main(["dmo"])
    assert leaving.value.code == 2
    capsys.readouterr()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a command that raises what it is given."""

    def install(error: BaseException) -> None:
        @click.command()
        def fail() -> None:
            raise error

        monkeypatch.setattr(
            entry, "COMMANDS", {"fail": (lambda: SimpleNamespace(fail=fail), "fail")}
        )

    return install


def test_a_fault_shows_no_traceback_unless_asked(
    shell: Any, failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(ZeroDivisionError("division by zero"))
    message, hint = shell.refused("fail", code=1)
    assert message == "a fault of dhtos itself: ZeroDivisionError: division by zero"
    assert "DHTOS_TRACEBACK=1" in hint
    monkeypatch.setenv("DHTOS_TRACEBACK", "1")
    shell.run("fail", code=1)
    assert "Traceback" in shell.err


def test_the_first_error_of_a_group_counts(shell: Any, failing: Any) -> None:
    failing(ExceptionGroup("tasks", [ExceptionGroup("inner", [Refused("no")]), ValueError("x")]))
    message, _ = shell.refused("fail", code=4)
    assert message == "no"


def test_an_interrupted_command_ends_with_130(shell: Any, failing: Any) -> None:
    failing(KeyboardInterrupt())
    shell.run("fail", code=130)
    assert shell.err.split("\n")[1] == "error: interrupted"  # after the line of the ^C


def test_a_command_may_choose_its_exit_code(shell: Any, failing: Any) -> None:
    failing(SystemExit(5))
    shell.run("fail", code=5)
    failing(SystemExit("odd"))
    shell.run("fail", code=1)


# --- the loop -----------------------------------------------------------------------------------


def test_a_fault_in_the_background_is_told_once_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def work() -> int:
        loop = asyncio.get_running_loop()
        for _ in range(5):
            loop.call_soon(int, "x")
        loop.call_exception_handler({"message": "odd\nthings"})
        await asyncio.sleep(0)
        return 7

    assert run_loop(work()) == 7
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0] == "warning: a fault of dhtos itself: odd things"
    assert lines[1].startswith("warning: a fault of dhtos itself: ValueError: ")


def test_only_so_many_faults_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    report = FaultReport()
    loop = asyncio.new_event_loop()
    try:
        for number in range(100):
            report(loop, {"message": f"fault {number}"})
    finally:
        loop.close()
    assert len(capsys.readouterr().err.splitlines()) == 20
