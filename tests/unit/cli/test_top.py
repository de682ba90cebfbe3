"""The fleet at a glance: what is asked, what a row says, and how the live view ends."""

import asyncio
import io
import json
import os
from typing import Any

import pytest

import dhtos.cli.commands_top as commands
from dhtos.cli.screen import Screen
from dhtos.cli.top import BAR_CELLS, COLUMNS, View, drawing, gauge, heading, keys, row, watch
from dhtos.core.schema import default_schema
from dhtos.errors import Unreachable

SCHEMA = default_schema()
GIB = 2**30
BUSY = {
    "cores": 8, "load1": 7.26, "load_15s": 9.0, "cpu_free": 4.0, "mem": 32 * GIB,
    "mem_free": 8 * GIB, "gpus": 4, "gpus_free": 1,
}  # fmt: skip


@pytest.fixture
def machines(plain: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = plain.FakeAsker()
    fake.machines = [plain.machine(1, **BUSY), plain.machine(2, cores=1.5, mem=GIB)]
    fake.machines[0]["labels"] = {"name": "web-1"}
    monkeypatch.setattr(commands, "asker", fake.open)
    return fake


# --- one look -------------------------------------------------------------------------------------


def test_a_pipe_gets_one_table(shell: Any, machines: Any) -> None:
    lines = shell.run("top").splitlines()
    assert lines[0].split("  ")[0] == "machine"
    assert lines[1].split() == [
        "web-1", "10.0.0.1:7400", "8", "7.3", "9.0", "##########", "96%", "########..", "75%",
        "32GiB", "1/4", "1.5s",
    ]  # fmt: skip
    assert lines[2].split() == ["0" * 12, "10.0.0.2:7400", "1.5", *"---", "-", "1GiB", "-", "3.0s"]
    assert len(lines) == 3
    assert shell.err == (
        "2 machines, 9.5 cores, load 7.3, 24GiB of 32GiB memory in use, 1 of 4 gpus idle; "
        "complete\n"
    )


@pytest.mark.parametrize(
    ("by", "name", "descending"),
    [
        ("load", "load1", True),
        ("cpu", "cpu_free", False),
        ("mem", "mem_free", False),
        ("gpus", "gpus_free", True),
    ],
)
def test_the_order_is_asked_for(
    shell: Any, machines: Any, by: str, name: str, descending: bool
) -> None:
    shell.run("top", "cores >= 2", "--by", by, "--limit", "7")
    ((_, question),) = machines.asked
    assert (question.query, question.limit) == ("cores >= 2", 7)
    assert (question.order_by, question.descending) == (name, descending)


def test_elsewhere_there_is_a_limit_too(shell: Any, machines: Any) -> None:
    shell.run("top")
    assert machines.asked[0][1].limit == commands.LIMIT


def test_json_is_one_document(shell: Any, machines: Any) -> None:
    told = shell.json("top")
    assert [m["attributes"] for m in told["machines"]] == [BUSY, {"cores": 1.5, "mem": GIB}]
    assert told["coverage"]["complete"]
    assert shell.err == ""


def test_nobody_matches(shell: Any, machines: Any) -> None:
    machines.machines = []
    shell.run("top", "cores > 99", code=3)
    assert "no machine matches 'cores > 99'" in shell.err
    assert json.loads(shell.run("top", "--json", code=3))["machines"] == []


@pytest.mark.parametrize(
    "arguments", [("--by", "price"), ("--limit", "0"), ("--interval", "0"), ("--interval", "nan")]
)
def test_what_cannot_be_is_refused(shell: Any, machines: Any, arguments: tuple[str, ...]) -> None:
    shell.refused("top", *arguments)
    assert machines.asked == []


def test_a_schema_without_the_attribute_is_an_error(
    shell: Any, machines: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = tmp_path / "schema.toml"
    schema.write_text(
        'name = "kitchen"\nversion = 0\n[[attribute]]\nname = "heat"\nkind = "text"\n'
        'role = "static"\nscale = {type = "hashed"}\n'
    )
    monkeypatch.setenv("DHTOS_SCHEMA", str(schema))
    message, _ = shell.refused("top")
    assert "unknown attribute 'load1'" in message


# --- cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "..........   0%"),
        (0.04, "..........   4%"),
        (1.0, "########## 100%"),
        (1.7, "########## 100%"),
        (-0.2, "..........   0%"),
        (None, "-"),
    ],
)
def test_a_gauge(share: float | None, text: str) -> None:
    assert gauge(share) == text


def test_a_machine_that_says_nothing_has_a_row(plain: Any) -> None:
    machine = plain.machine(3)
    machine["gateway"] = True
    cells = row(machine, SCHEMA)
    assert len(cells) == len(COLUMNS)
    assert cells[1] == "via 10.0.0.3:7400"
    assert cells[2:-1] == ["-"] * 6
    assert heading(View([machine], {"coverage": plain.GAPS}), SCHEMA) == "1 machine; 75%, gaps"


def test_odd_values_of_a_foreign_schema_are_not_shown(plain: Any) -> None:
    machine = plain.machine(3, cores="many", load1=True, mem=0, mem_free=5)
    assert row(machine, SCHEMA)[2:4] == ["-", "-"]


# --- live -----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_live_view_asks_again_until_somebody_leaves(
    plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    looks = iter([2, 5, 9])
    pauses = iter([False, False, True])
    out = Terminal()

    async def ask() -> View:
        cores = next(looks)
        return View([plain.machine(1, **BUSY | {"cores": cores})], {"coverage": plain.COMPLETE})

    async def pause() -> bool:
        return next(pauses)

    asyncio.run(watch(Screen(out=out), SCHEMA, ask, pause))
    text = out.getvalue()
    for cores in (2, 5, 9):
        assert f"{cores} cores" in text
    assert next(looks, None) is None
    assert "\x1b[?1049h" in text  # the screen was borrowed,
    assert "\x1b[?1049l" in text  # and given back


def test_a_look_that_fails_gives_the_screen_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()

    async def ask() -> View:
        raise Unreachable("the node has stopped")

    async def pause() -> bool:
        raise AssertionError

    with pytest.raises(Unreachable):
        asyncio.run(watch(Screen(out=out), SCHEMA, ask, pause))
    assert out.getvalue().rfind("\x1b[?1049l") > out.getvalue().rfind("\x1b[?1049h")


@pytest.mark.parametrize(("free", "colour"), [(50, "32"), (25, "33"), (2, "31")])
def test_bars_have_the_colour_of_their_need(plain: Any, free: int, colour: str) -> None:
    from rich.console import Console

    out = io.StringIO()
    view = View([plain.machine(1, cpu_free=free)], {"coverage": plain.COMPLETE})
    console = Console(
        file=out, force_terminal=True, color_system="standard", width=120, no_color=False
    )
    console.print(drawing(view, SCHEMA))
    assert f"\x1b[{colour}m#" in out.getvalue()
    assert BAR_CELLS == 10


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
@pytest.mark.parametrize(("typed", "leaves"), [(b"q", True), (b"xQ", True), (b"", False)])
def test_q_leaves(monkeypatch: pytest.MonkeyPatch, typed: bytes, leaves: bool) -> None:
    import termios

    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        before = termios.tcgetattr(theirs)

        async def main() -> bool:
            with keys(30.0 if leaves else 0.001) as pause:
                if typed:
                    os.write(ours, typed)
                return await pause()

        assert asyncio.run(main()) is leaves
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


def test_without_a_terminal_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("q"))

    async def main() -> bool:
        with keys(0.001) as pause:
            return await pause()

    assert asyncio.run(main()) is False
