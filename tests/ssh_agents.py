"""Agents for tests: the one of OpenSSH with keys of its own, and one that says what it is told."""

import os
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest


class OpenSsh:
    """A running ssh-agent in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "agent.sock")
        self._directory = directory
        self._process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", self.path], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline()  # it says where it listens, and then does

    @property
    def environ(self) -> dict[str, str]:
        """What a login session with this agent has."""
        return {**os.environ, "SSH_AUTH_SOCK": self.path, "SSH_ASKPASS_REQUIRE": "never"}

    def add(self, comment: str, kind: str = "ed25519") -> None:
        """Make a key and hand it over; the file is gone."""
        path = self._directory / comment.replace(" ", "-")
        size = ["-b", "2048"] if kind == "rsa" else []
        make = ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(make, check=True)
        self.tell(str(path))
        path.unlink()

    def tell(self, *words: str) -> None:
        """Run ssh-add."""
        subprocess.run(["ssh-add", "-q", *words], check=True, env=self.environ)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def openssh(tmp_path):
    """The agent of OpenSSH, without a key."""
    if shutil.which("ssh-agent") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-agent and ssh-keygen, of OpenSSH's client")
    agent = OpenSsh(tmp_path)
    yield agent
    agent.close()


@contextmanager
def told(path: Path, *answers: bytes):
    """An agent that gives these answers, one to each connection, and then hangs up."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield str(path)
    finally:
        listener.close()
        thread.join()
