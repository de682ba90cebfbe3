"""Where a passphrase comes from, and what is said where it does not."""

from pathlib import Path

import click
import pytest

from dhtos.cli import passphrases
from dhtos.cli.passphrases import given_passphrase, needed_passphrase
from dhtos.errors import ConfigError, UsageError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DHTOS_PASSPHRASE", " of-the-environment ")
    path = tmp_path / "words"
    path.write_text("of-the-file\n")
    path.chmod(0o600)
    return path


def test_a_file_comes_before_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_passphrase(file) == needed_passphrase(file, "it") == "of-the-file"
    assert given_passphrase(None) == needed_passphrase(None, "it") == "of-the-environment"
    monkeypatch.delenv("DHTOS_PASSPHRASE")
    assert given_passphrase(None) == ""


def test_what_holds_none_is_said_to(file: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(No such file or directory\): give"):
        given_passphrase(file.with_name("none"))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"cannot be read \(it is no text\)"):
        given_passphrase(file)
    file.write_text(" \n")
    with pytest.raises(UsageError, match="holds no passphrase"):
        given_passphrase(file)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="use chmod 600"):
        given_passphrase(file)


def test_whoever_sits_there_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DHTOS_PASSPHRASE", raising=False)
    monkeypatch.setattr(passphrases.sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(UsageError, match="the root is locked: give its passphrase with"):
        needed_passphrase(None, "the root")
    monkeypatch.setattr(passphrases.sys.stdin, "isatty", lambda: True, raising=False)
    asked = []

    def prompt(text: str, **how: object) -> str:
        asked.append((text, how))
        return "typed"

    monkeypatch.setattr(click, "prompt", prompt)
    assert needed_passphrase(None, "the root") == "typed"
    assert asked == [("passphrase of the root", {"hide_input": True, "err": True})]
