"""Settings from file, environment and options; and how the schema is shown."""

from pathlib import Path
from typing import Any

import pytest

from dhtos.cli.commands_config import scale_text
from dhtos.cli.settings import ask_config, effective_config
from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2p1
from dhtos.core.schema import Schema, default_schema
from dhtos.errors import ConfigError, UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(
        'port = 7401\nhost = "127.0.0.1"\n'
        '[advertise]\nprice = 0.5\nsite = "lab"\n[labels]\na = "1"\n'
    )
    return path


def test_options_win_over_environment_over_file_over_defaults(file: Path) -> None:
    nothing: dict[str, str] = {}
    assert effective_config({}, nothing).port == 7400
    assert effective_config({"config_file": file}, nothing).port == 7401
    assert effective_config({"config_file": file}, {"DHTOS_PORT": "7402"}).port == 7402
    given = {"config_file": file, "port": 7403}
    config = effective_config(given, {"DHTOS_PORT": "7402"})
    assert config.port == 7403
    assert config.host == "127.0.0.1"


def test_what_is_set_is_added_to_what_the_file_advertises(file: Path) -> None:
    given = {
        "config_file": file,
        "settings": ("price=0.25", "mem=32GiB"),
        "labels": ("team=video",),
        "seeds": ("10.0.0.1:7400",),
        "no_sample": True,
    }
    config = effective_config(given, {})
    assert config.advertise == {"price": 0.25, "site": "lab", "mem": 32 * 2**30}
    assert config.labels == {"a": "1", "team": "video"}
    assert config.seeds == ("10.0.0.1:7400",)
    assert not config.sample


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"port": 70000}, ConfigError, "command line"),
        ({"settings": ("prise=1",)}, UsageError, "did you mean 'price'"),
        ({"settings": ("price",)}, UsageError, "name=value"),
        ({"labels": ("team",)}, UsageError, "key=value"),
        ({"seeds": ("x",)}, ConfigError, "seed"),
    ],
)
def test_a_bad_option_names_itself(
    given: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        effective_config(given, {})


def test_only_the_option_makes_a_light_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DHTOS_SEEDS", "10.0.0.1:7400")
    assert ask_config({})[1] is False
    assert ask_config({"seeds": ("10.0.0.2:7400",)})[1] is True


def test_config_shows_settings_and_attributes(shell: Any) -> None:
    lines = shell.run("config", "--port", "7401", "--set", "price=0.08").splitlines()
    settings = {tuple(line.split(maxsplit=1)) for line in lines if line.strip()}
    assert ("port", "7401") in settings
    assert ("advertise", "price=0.08") in settings
    assert ("client", "false") in settings
    assert ("seeds", "-") in settings
    tag = f"{default_schema().tag:08x}"
    assert f"schema 'machine', version 0, tag {tag}" in lines
    shown = {line.split()[0] for line in lines if line.strip()}
    assert {attribute.name for attribute in default_schema().attributes} <= shown


def test_config_as_json_is_one_document(shell: Any) -> None:
    document = shell.json("config", "--seed", "10.0.0.1:7400", "--seed", "10.0.0.2:7400")
    assert document["config"]["seeds"] == ["10.0.0.1:7400", "10.0.0.2:7400"]
    assert document["schema"]["key_order"][0] == "cores"
    assert set(shell.json("config", "--schema")) == {"schema"}


def test_the_schema_is_shown_as_a_file_that_can_be_read_back(shell: Any) -> None:
    assert Schema.from_toml(shell.run("config", "--schema")) == default_schema()


def test_a_bad_key_of_a_file_is_named_with_the_nearest(shell: Any, tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text("prot = 1\n")
    message, hint = shell.refused("config", "--config", str(path))
    assert "unknown key 'prot'" in message
    assert hint == "did you mean 'port'?"


def test_scales_are_shown_as_what_they_spread() -> None:
    assert scale_text(Log2p1(0, 31)) == "0..31, by ratio"
    assert scale_text(Linear(0, 100)) == "0..100"
    assert scale_text(Codes(("a", "b", "c", "d"))) == "a, b, c, ..."
    assert scale_text(Codes(("a", "b"))) == "a, b"
    assert scale_text(Hashed()) == scale_text(Flag()) == "any"


def test_other_schemas_are_shown(shell: Any, tmp_path: Path) -> None:
    old = default_schema().to_toml().replace("version = 0", "version = 3", 1)
    (tmp_path / "old.toml").write_text(old)
    path = tmp_path / "node.toml"
    path.write_text('other_schemas = ["old.toml"]\n')
    tag = f"{Schema.from_toml(old).tag:08x}"
    lines = shell.run("config", "--config", str(path)).splitlines()
    assert f"also asked: machines of schema 'machine', version 3, tag {tag}" in lines
    document = shell.json("config", "--config", str(path))
    assert [schema["tag"] for schema in document["other_schemas"]] == [tag]
    assert shell.json("config")["other_schemas"] == []
