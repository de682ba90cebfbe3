"""Config: what is accepted, from where, and how each mistake is named."""

import pickle
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from dhtos.core.schema import Attribute, Linear, Schema, default_schema
from dhtos.errors import ConfigError
from dhtos.node.config import KEYS, Config, format_endpoint, parse_endpoint, parse_value

SHELF = Schema(
    "shelf", 0, (Attribute("height", "number", "static", Linear(0, 10), "", 4),), ("height",)
)


def test_defaults_are_those_of_the_design():
    config = Config()
    assert (config.host, config.port, config.seeds) == ("0.0.0.0", 7400, ())
    assert config.state_dir is None
    assert not config.client
    assert config.schema_or_default is default_schema()
    assert config.engine_config().group_size == 256


def test_lists_and_texts_are_normalised():
    config = Config(seeds=["10.0.0.1:7400"], state_dir="~/x", advertise={"price": 0.08})
    assert config.seeds == ("10.0.0.1:7400",)
    assert config.state_dir == Path("~/x").expanduser()
    assert dict(config.advertise) == {"price": 0.08}


def test_a_config_does_not_share_its_tables_with_the_caller():
    labels = {"team": "video"}
    config = Config(labels=labels)
    labels["team"] = "audio"
    assert config.labels["team"] == "video"


def test_a_config_is_frozen_and_travels():
    config = Config(port=0, labels={"a": "b"}, seeds=["h:1"])
    with pytest.raises(AttributeError):
        config.port = 1
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"port": 70000}, "port must be 0..65535, got 70000"),
        ({"port": "7400"}, "port must be 0..65535, got '7400'"),
        ({"port": True}, "port must be 0..65535, got True"),
        ({"host": "localhost"}, "host must be a numeric address"),
        ({"host": 1}, "host must be a text, got 1"),
        ({"seeds": "10.0.0.1:7400"}, "seeds must be a list of texts"),
        ({"seeds": ["10.0.0.1"]}, 'a seed must be "host:port"'),
        ({"seeds": ["h:1"] * 65}, "seeds must be at most 64 endpoints, got 65"),
        ({"advertise_host": "0.0.0.0"}, "advertise_host must be an address others can send to"),
        ({"client": 1}, "client must be true or false, got 1"),
        ({"sample_interval_s": 0}, "sample_interval_s must be 0.1..3600 seconds, got 0"),
        ({"price_load": -1}, "price_load must be 0..1000, got -1"),
        ({"price_load": "high"}, "price_load must be 0..1000, got 'high'"),
        ({"price_load": 1, "advertise": {"price_spot": 1}}, "advertise price only"),
        ({"name": ""}, "name must be 1..64 printable bytes, got ''"),
        ({"name": "a\nb"}, "name must be 1..64 printable bytes"),
        ({"schema": 7}, "schema must be a Schema"),
        ({"group_size": 4}, "group_size must be 8..1024, got 4"),
        ({"group_size": 9.5}, "group_size must be a whole number, got 9.5"),
        ({"k": 0}, "k must be 1..64, got 0"),
        ({"alpha": 21}, "alpha must be 1..k (20), got 21"),
        ({"advertise": ["price"]}, "advertise must be a table"),
        ({"advertise": {"prise": 1}}, "advertise: unknown attribute 'prise'; did you mean 'price'"),
        ({"advertise": {"price": "cheap"}}, "advertise: price is a finite number"),
        ({"labels": {"team": 1}}, "labels: team must be a text, got 1"),
        ({"state_dir": ""}, "state_dir must be the path"),
        ({"gateway": 7}, "gateway must be the path"),
        ({"gateway": "m.csv", "client": True}, "a client advertises nothing: use gateway without"),
    ],
)
def test_a_bad_setting_is_named(setting, words):
    with pytest.raises(ConfigError) as caught:
        Config.from_mapping(setting, where="here")
    assert words in str(caught.value)


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        Config.from_mapping({"prot": 1}, where="dhtos.toml")
    assert str(caught.value) == "unknown key 'prot' in dhtos.toml; did you mean 'port'?"
    with pytest.raises(ConfigError, match="known: host, port"):
        Config.from_mapping({"zzzzzz": 1})


def test_the_source_of_a_mistake_is_named():
    with pytest.raises(ConfigError, match=r"\(environment\)$"):
        Config.from_env({"DHTOS_PORT": "70000"})


def test_toml_with_tables_and_relative_paths(tmp_path):
    (tmp_path / "schema.toml").write_text(SHELF.to_toml())
    path = tmp_path / "dhtos.toml"
    path.write_text(
        'port = 7401\nseeds = ["10.0.0.1:7400", "[::1]:7400"]\nstate_dir = "state"\n'
        'schema = "schema.toml"\n[advertise]\nheight = 3\n[labels]\nteam = "video"\n'
    )
    config = Config.from_toml(path)
    assert config.port == 7401
    assert config.seeds == ("10.0.0.1:7400", "[::1]:7400")
    assert config.state_dir == tmp_path / "state"
    assert config.schema_or_default.name == "shelf"
    assert dict(config.advertise) == {"height": 3}


def test_a_schema_may_be_a_table():
    table = tomllib.loads(SHELF.to_toml())
    assert Config.from_mapping({"schema": table}).schema_or_default == SHELF
    table["nmae"] = table.pop("name")
    with pytest.raises(ConfigError, match="did you mean 'name'"):
        Config.from_mapping({"schema": table})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"port = ", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b'schema = "gone.toml"', "cannot be read"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, content, words):
    path = tmp_path / "dhtos.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        Config.from_toml(path)


def test_the_environment_stands_over_the_base():
    base = Config(port=1, name="base")
    environ = {
        "DHTOS_PORT": "0",
        "DHTOS_SEEDS": "a:1, b:2,",
        "DHTOS_CLIENT": "yes",
        "DHTOS_SAMPLE": "0",
        "DHTOS_STATE_DIR": "state",
        "DHTOS_ADVERTISE": "price=0.08, site=edge-7, gpus=2",
        "DHTOS_LABELS": "team=video,tier=2",
        "DHTOS_SAMPLE_INTERVAL_S": "2.5",
        "DHTOS_KERNELS": "reference",
        "PATH": "/bin",
    }
    config = Config.from_env(environ, base)
    assert (config.port, config.name, config.seeds) == (0, "base", ("a:1", "b:2"))
    assert config.client
    assert not config.sample
    assert config.state_dir == Path("state")
    assert dict(config.advertise) == {"price": 0.08, "site": "edge-7", "gpus": 2}
    assert dict(config.labels) == {"team": "video", "tier": "2"}
    assert config.sample_interval_s == 2.5


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("DHTOS_PORTS", "1", "did you mean 'DHTOS_PORT'?"),
        ("DHTOS_PORT", "many", "DHTOS_PORT must be a number, got 'many'"),
        ("DHTOS_CLIENT", "maybe", "DHTOS_CLIENT must be true or false, got 'maybe'"),
        ("DHTOS_LABELS", "team", "DHTOS_LABELS must be name=value,..., got 'team'"),
    ],
)
def test_a_bad_variable_is_named(variable, text, words):
    with pytest.raises(ConfigError) as caught:
        Config.from_env({variable: text})
    assert words in str(caught.value)


def test_the_mapping_reads_back():
    config = Config(port=0, seeds=["h:1"], state_dir="s", labels={"a": "b"}, name="n")
    plain = config.to_mapping()
    assert tuple(plain) == KEYS
    assert Config.from_mapping(plain) == config


@pytest.mark.parametrize("text", ["10.0.0.1:7400", "[::1]:1", "edge-7.example.org:65535"])
def test_endpoints_are_read_and_written(text):
    assert format_endpoint(parse_endpoint(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":1", "::1:7400", "[host]:1", "[]:1", "h:0", "h:65536", "h:1x", "h h:1",
     "h:-1", "h:\u0661"],
)  # fmt: skip
def test_a_bad_endpoint_is_refused(text):
    with pytest.raises(ConfigError, match="seed"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("false", False), ("8", 8), ("-1", -1), ("0.5", 0.5), ("1e3", 1000.0),
     ("inf", "inf"), ("nan", "nan"), ("1_000", "1_000"), ("edge-7", "edge-7"), ("", "")],
)  # fmt: skip
def test_values_as_people_type_them(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


# --- schemas of other versions --------------------------------------------------------------------


def schema_text(version, *names, bits=12):
    attributes = "".join(
        f'\n[[attribute]]\nname = "{name}"\nkind = "number"\nrole = "static"\n'
        f'scale = {{ type = "log2", low = 1, high = 1024 }}\nkeyed_bits = {bits}\n'
        for name in names
    )
    order = ", ".join(f'"{name}"' for name in names)
    return f'name = "kitchen"\nversion = {version}\nkey_order = [{order}]\n{attributes}'


OLD_KITCHEN = Schema.from_toml(schema_text(0, "litres", "ovens"))
NEW_KITCHEN = Schema.from_toml(schema_text(1, "litres", "watts"))


def test_other_schemas_come_from_files_beside_the_settings(tmp_path):
    (tmp_path / "new.toml").write_text(schema_text(1, "litres", "watts"))
    (tmp_path / "old.toml").write_text(schema_text(0, "litres", "ovens"))
    settings = tmp_path / "node.toml"
    settings.write_text('schema = "new.toml"\nother_schemas = ["old.toml"]\n')
    config = Config.from_toml(settings)
    assert (config.schema, config.other_schemas) == (NEW_KITCHEN, (OLD_KITCHEN,))
    assert config.engine_config().other_schemas == (OLD_KITCHEN,)
    assert [a.name for a in config.vocabulary.attributes] == ["litres", "watts", "ovens"]
    assert config.to_mapping()["other_schemas"] == ["kitchen"]


def test_other_schemas_are_tables_texts_or_schemas(tmp_path):
    path = tmp_path / "old.toml"
    path.write_text(OLD_KITCHEN.to_toml())
    table = tomllib.loads(OLD_KITCHEN.to_toml())
    for given in (OLD_KITCHEN, table, str(path), path):
        config = Config.from_mapping({"schema": NEW_KITCHEN, "other_schemas": [given]})
        assert config.other_schemas == (OLD_KITCHEN,)
    told = {"DHTOS_OTHER_SCHEMAS": f"{path}"}
    assert Config.from_env(told, Config(schema=NEW_KITCHEN)).other_schemas == (OLD_KITCHEN,)


def test_without_other_schemas_the_words_are_those_of_the_own_one():
    config = Config(schema=NEW_KITCHEN)
    assert config.vocabulary is NEW_KITCHEN
    assert config.engine_config().other_schemas == ()


@pytest.mark.parametrize("given", ["old.toml", OLD_KITCHEN, [1], ["", None], {}])
def test_what_is_no_list_of_schemas_is_refused(given):
    with pytest.raises(ConfigError, match=r"other_schemas must be a list|cannot be read"):
        Config.from_mapping({"schema": NEW_KITCHEN, "other_schemas": given})


def test_two_schemas_of_one_version_are_refused_with_what_to_do():
    with pytest.raises(ConfigError, match="both have version 1: give the changed schema the next"):
        Config(schema=NEW_KITCHEN, other_schemas=(replace(OLD_KITCHEN, version=1),))


# --- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.1.2.3", "192.168.7.7", "fd00::1"])
def test_commands_are_run_for_a_private_network(host):
    assert Config(host=host, commands=True).commands
    assert Config(host="127.0.0.1", advertise_host=host, commands=True).commands


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "8.8.8.8", "2606:4700::1"])
def test_commands_are_not_run_for_everybody(host):
    with pytest.raises(ConfigError, match=f"host {host} is open to more .*: give --host a loopb"):
        Config(host=host, commands=True)
    assert Config(host=host, commands=True, client=True).commands  # it grants nothing
    assert not Config(host=host).commands


def test_a_public_address_is_not_told_either():
    with pytest.raises(ConfigError, match=r"advertise_host 8\.8\.8\.8 is open to more"):
        Config(host="127.0.0.1", advertise_host="8.8.8.8", commands=True)


def test_commands_are_said_by_the_node_and_not_by_a_label():
    with pytest.raises(ConfigError, match="labels: 'runs' is told by the node itself: use comm"):
        Config(labels={"runs": "commands"})


def test_commands_are_switched_on_like_the_rest():
    local = Config(host="127.0.0.1")
    assert Config.from_env({"DHTOS_COMMANDS": "yes"}, local).commands
    assert local.merged({"commands": True}).commands
    with pytest.raises(ConfigError, match="commands must be true or false, got 1"):
        local.merged({"commands": 1})


def test_what_runs_under_a_lease_may_use_the_command_line():
    told = {"DHTOS_LEASE": "node-7", "DHTOS_TOKEN": "ab", "DHTOS_FENCE": "7"}
    assert Config.from_env(told) == Config()
