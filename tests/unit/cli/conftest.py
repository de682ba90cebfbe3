"""A shell without processes: commands run in place, with a fake fleet behind them."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import dhtos.cli.commands_ask
from dhtos.cli.main import run_command

_spec = importlib.util.spec_from_file_location("cli_fakes", Path(__file__).with_name("fakes.py"))
assert _spec is not None
assert _spec.loader is not None
fakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fakes)


class Shell:
    """Runs commands in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.out = ""
        self.err = ""

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run one command, compare its exit code, return what it wrote."""
        self._capture.readouterr()
        got = run_command(list(arguments))
        self.out, self.err = self._capture.readouterr()
        assert got == code, (got, self.out, self.err)
        return self.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The one document of a command."""
        return json.loads(self.run(*arguments, "--json", code=code))

    def refused(self, *arguments: str, code: int = 2) -> tuple[str, str]:
        """The error and the hint of a command that says nothing else."""
        assert self.run(*arguments, code=code) == ""
        error, hint = self.err.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")
        return error.removeprefix("error: "), hint.removeprefix("hint: ")


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have joined a cluster."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DHTOS_PORT", "DHTOS_SEEDS", "DHTOS_CONTROL_PATH", "DHTOS_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    return Shell(capsys)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = fakes.FakeAsker()
    fake.machines = [
        fakes.machine(1, cores=8, mem=2**35, price=0.25, site="lab"),
        fakes.machine(2, cores=128, price=0.5),
    ]
    monkeypatch.setattr(dhtos.cli.commands_ask, "asker", fake.open)
    return fake


@pytest.fixture(scope="session")
def plain() -> Any:
    """The module of fakes: coverages and machines in plain values."""
    return fakes
