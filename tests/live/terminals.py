"""Terminals of their own: daemons and commands as real processes, apart from all else here."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

READY_S = 20.0


@dataclass
class Daemon:
    """A `dhtos-node run` that has said that it is ready."""

    process: subprocess.Popen[str]
    facts: dict[str, str]

    @property
    def endpoint(self) -> str:
        return self.facts["endpoint"]

    @property
    def control(self) -> str:
        return self.facts["control"]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(READY_S)


class Shell:
    """A place of its own: sockets, state and environment apart from everything else here."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DHTOS_")
        } | {"XDG_RUNTIME_DIR": str(home), "XDG_STATE_HOME": str(home / "xdg"), "NO_COLOR": "1"}
        self.daemons: list[Daemon] = []

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dhtos.cli.main", *arguments]

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and compare its exit code."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def refused(self, *arguments: str, code: int = 2) -> tuple[str, str]:
        """The error and the hint of a command that fails with two lines and nothing else."""
        done = self.run(*arguments, code=code)
        lines = done.stderr.splitlines()
        assert len(lines) == 2, done.stderr
        assert lines[0].startswith("error: ")
        assert lines[1].startswith("hint: ")
        assert done.stdout == ""
        return lines[0].removeprefix("error: "), lines[1].removeprefix("hint: ")

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def daemon(self, *arguments: str, command: Sequence[str] = ("run",)) -> Daemon:
        """Start a node on a free port of the loopback and wait until it is ready."""
        process = self.spawn(*command, "--host", "127.0.0.1", "--port", "0", *arguments)
        assert process.stdout is not None
        line = read_line(process.stdout, READY_S)
        daemon = Daemon(process, {})
        self.daemons.append(daemon)
        words = line.split()
        assert words[:1] == ["ready"], (
            line,
            daemon.stop(),
            process.stderr and process.stderr.read(),
        )
        daemon.facts = dict(word.split("=", 1) for word in words[1:])
        return daemon

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.stop(signal.SIGKILL)
            for stream in (daemon.process.stdout, daemon.process.stderr):
                if stream is not None:
                    stream.close()


def read_line(stream: IO[str], within_s: float) -> str:
    """The next line of a pipe, or what there is of it when time is up.

    Byte by byte: a buffer would hide from `select` the lines that came together with this one.
    """
    line, deadline = b"", time.monotonic() + within_s
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            left_s = max(0.0, deadline - time.monotonic())
            byte = os.read(stream.fileno(), 1) if selector.select(left_s) else b""
            if not byte:
                break
            line += byte
    return line.decode()
