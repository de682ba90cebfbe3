"""The daemon's life: ready, waiting for a seed, leaving on a signal."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dhtos.cli import run
from dhtos.errors import ConfigError, NoPeers
from dhtos.node.config import Config


class FakeNode:
    """A node whose start does what the test says."""

    made: ClassVar[list["FakeNode"]]
    starts: ClassVar[list[Any]]

    def __init__(self, config: Config) -> None:
        self.config = config
        self.id = "ab" * 20
        self.endpoint = "10.0.0.1:7400"
        self.port = 7400
        self.warnings = ("contacts.json was unreadable",)
        self.closed = False
        self.made.append(self)

    async def start(self) -> None:
        outcome = self.starts.pop(0) if self.starts else None
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome is not None:
            await outcome()

    async def joined(self) -> None:
        leave()

    async def aclose(self) -> None:
        self.closed = True


def leave(number: signal.Signals = signal.SIGTERM) -> None:
    """What the service manager does."""
    os.kill(os.getpid(), number)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> type[FakeNode]:
    class Node(FakeNode):
        made: ClassVar[list[FakeNode]] = []
        starts: ClassVar[list[Any]] = []

    monkeypatch.setattr("dhtos.node.node.Node", Node)
    monkeypatch.setattr(run, "RETRY_S", 0.001)
    return Node


async def test_one_ready_line_then_a_goodbye(
    node: type[FakeNode], capsys: pytest.CaptureFixture[str]
) -> None:
    await run.serve(Config(control_path=Path("x.sock")))
    out, err = capsys.readouterr()
    assert out.startswith(f"ready id={'ab' * 20} endpoint=10.0.0.1:7400 control=x.sock kernels=")
    assert out.count("\n") == 1
    assert err == "warning: contacts.json was unreadable\n"
    assert node.made[0].closed


async def test_the_ready_line_as_json(
    node: type[FakeNode], capsys: pytest.CaptureFixture[str]
) -> None:
    await run.serve(Config(state_dir=Path("state")), as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["ready"] is True
    assert facts["control"] == "state/control.sock"
    assert facts["kernels"] in ("compiled", "reference")
    assert facts["version"]


async def test_a_node_that_cannot_start_is_closed(node: type[FakeNode]) -> None:
    node.starts[:] = [ConfigError("port 7400 is in use")]
    with pytest.raises(ConfigError, match="in use"):
        await run.serve(Config())


async def test_a_silent_seed_ends_it_unless_told_to_wait(node: type[FakeNode]) -> None:
    node.starts[:] = [NoPeers("no seed answered")]
    with pytest.raises(NoPeers):
        await run.serve(Config())


async def test_waiting_for_a_seed_asks_again_with_a_new_node(
    node: type[FakeNode], capsys: pytest.CaptureFixture[str]
) -> None:
    node.starts[:] = [NoPeers("no seed answered"), NoPeers("no seed answered")]
    await run.serve(Config(), wait=True)
    out, err = capsys.readouterr()
    assert err.count("warning: no seed answered; asking again in ") == 2
    assert out.startswith("ready ")
    assert len(node.made) == 3


async def test_a_signal_while_it_waits_ends_it(
    node: type[FakeNode], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "RETRY_S", 60.0)
    node.starts[:] = [NoPeers("no seed answered")]
    asyncio.get_running_loop().call_later(0.005, leave, signal.SIGINT)
    await run.serve(Config(), wait=True)
    assert capsys.readouterr().out == ""


async def test_a_signal_while_it_starts_ends_it(
    node: type[FakeNode], capsys: pytest.CaptureFixture[str]
) -> None:
    async def forever() -> None:
        leave()
        await asyncio.Event().wait()

    node.starts[:] = [forever]
    await run.serve(Config())
    assert capsys.readouterr().out == ""
    assert node.made[0].closed


async def test_a_node_that_does_not_settle_is_announced_anyway(
    node: type[FakeNode], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def never(_: FakeNode) -> None:
        asyncio.get_running_loop().call_later(0.005, leave)
        await asyncio.Event().wait()

    monkeypatch.setattr(node, "joined", never)
    monkeypatch.setattr(run, "READY_S", 0.001)
    await run.serve(Config())
    assert capsys.readouterr().out.startswith("ready ")


def test_the_command_opens_the_control_socket(monkeypatch: pytest.MonkeyPatch, shell: Any) -> None:
    served: list[Config] = []

    async def serve(config: Config, *, wait: bool, as_json: bool) -> None:
        served.append(config)
        assert wait
        assert not as_json

    monkeypatch.setattr(run, "serve", serve)
    shell.run("run", "--port", "0", "--wait", "--no-sample")
    (config,) = served
    assert config.control
    assert config.port == 0
    assert not config.sample
