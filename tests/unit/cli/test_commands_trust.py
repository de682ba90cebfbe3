"""What the commands of a cluster read and say, without one."""

import time
from pathlib import Path
from typing import Any

import pytest
from trust_world import Authority

from dhtos.cli import commands_trust
from dhtos.cli.commands_trust import is_lonely, own_name, read_ttl, time_left
from dhtos.errors import UsageError
from dhtos.node.config import Config
from dhtos.node.founding import found_cluster
from dhtos.node.membership import default_home
from dhtos.trust.token import Token


@pytest.mark.parametrize(
    ("host", "endpoint", "lonely"),
    [
        ("0.0.0.0", "127.0.0.1:7400", True),
        ("::", "127.0.0.1:7400", True),
        ("0.0.0.0", "10.0.0.1:7400", False),
        ("127.0.0.1", "127.0.0.1:7400", False),  # as it was asked for
    ],
)
def test_a_token_that_leads_nobody_here_is_noticed(host: str, endpoint: str, lonely: bool) -> None:
    assert is_lonely(Config(host=host), endpoint) is lonely


def test_a_machine_is_called_as_it_was_told_or_as_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_trust, "gethostname", lambda: "h" * 80)
    assert own_name(Config(), None) == "h" * 63
    assert own_name(Config(name="lab-1"), None) == "lab-1"
    assert own_name(Config(name="lab-1"), "bench-7") == "bench-7"
    for wrong in ("n" * 64, "ä" * 32, "a\tb"):
        with pytest.raises(UsageError, match=r"--name takes 1..63 printable bytes"):
            own_name(Config(), wrong)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30min", 1800), ("12 h", 43_200), ("1.5d", 129_600), ("30d", 2_592_000)],
)
def test_a_time_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert read_ttl(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "h", "0s", "-1h", "1 week", "1h30", "inf s", "1e3s"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a period is a number and a unit"):
        read_ttl(text)


def test_a_time_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 30d"):
        read_ttl("30.01d")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (7190, "2 hours"), (172_800, "2 days")],
)
def test_a_time_is_said_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert time_left(seconds) == text


def test_whoami_reads_the_directory(shell: Any, tmp_path: Path) -> None:
    found_cluster(tmp_path / "mine", "first", time.time())
    known = shell.json("whoami", "--state-dir", str(tmp_path / "mine"))
    assert (known["kind"], known["name"], known["chain"]) == ("issuer", "first", ["first"])
    table = shell.run("whoami", "--state-dir", str(tmp_path / "mine"))
    assert "root > first" in table
    assert "in 365 days" in table
    found_cluster(default_home(), "usual", time.time())
    assert shell.json("whoami")["name"] == "usual"


def test_whoami_says_when_it_is_over(shell: Any, tmp_path: Path) -> None:
    found_cluster(tmp_path, "first", time.time() - 400 * 86_400)
    assert "UTC, which is over" in shell.run("whoami", "--state-dir", str(tmp_path))


def test_a_token_is_looked_at_before_anything_is_made(shell: Any, tmp_path: Path) -> None:
    home = tmp_path / "new"
    for token in ("dhtos1-abc", "dhtos9-abc", "x"):
        shell.refused("join", token, "--state-dir", str(home))
    token = str(Token(Authority().name, b"s" * 16, (("127.0.0.1", 9),)))
    shell.refused("join", token, "--state-dir", str(home), "--name", "n" * 64)
    assert not home.exists()


def test_the_commands_of_an_issuer_need_a_node(shell: Any, tmp_path: Path) -> None:
    home = ("--state-dir", str(tmp_path))
    for words in (("invite",), ("invite", "--list"), ("user", "add", "bob"), ("whoami",)):
        message, hint = shell.refused(*words, *home)
        assert "answers" in message or "holds no" in message, (message, hint)
