"""`dhtos-node top` on a real terminal: it draws, looks again, and leaves the terminal as it was."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
from contextlib import contextmanager

import pytest

QUIT = {"q": b"q", "ctrl-c": b"\x03"}
DEADLINE_S = 30.0
COMMAND = [sys.executable, "-m", "dhtos.cli.main"]


def environment():
    path = os.pathsep.join(filter(None, sys.path))
    wanted = {"PYTHONPATH": path, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "30"}
    return {k: v for k, v in os.environ.items() if not k.startswith("DHTOS_")} | wanted


@contextmanager
def daemon(folder):
    """A node of this machine, ready to be asked."""
    command = [*COMMAND, "run", "--host", "127.0.0.1", "--port", "0", "--state-dir", str(folder)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().startswith("ready")
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def control_terminal():
    """In the child: Ctrl-C on its stdin is a signal to it."""
    os.setsid()
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_until(descriptor, word, times):
    """What the terminal was sent, until a word has come so often."""
    seen = b""
    while seen.count(word) < times:
        ready, _, _ = select.select([descriptor], [], [], DEADLINE_S)
        assert ready, f"nothing more came after {seen[-200:]!r}"
        seen += os.read(descriptor, 65536)
    return seen


@pytest.mark.parametrize("key", QUIT)
def test_top_lives_on_a_terminal(tmp_path, key):
    with daemon(tmp_path):
        ours, theirs = pty.openpty()
        before = termios.tcgetattr(theirs)
        command = [*COMMAND, "top", "--state-dir", str(tmp_path), "--interval", "0.2"]
        with subprocess.Popen(
            command, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs,
            preexec_fn=control_terminal,
        ) as process:  # fmt: skip
            try:
                seen = read_until(ours, b"gpus idle", 3)  # the head of the table, three looks
                os.write(ours, QUIT[key])
                seen += read_until(ours, b"\x1b[?1049l", 1)  # the screen is given back
                assert process.wait(DEADLINE_S) == 0
            finally:
                process.kill()
        assert b"127.0.0.1:" in seen
        assert b"Traceback" not in seen
        assert termios.tcgetattr(theirs) == before
        os.close(ours)
        os.close(theirs)
