"""Where HTTP is served, as a setting: addresses, names, and the table of Kubernetes."""

import pytest

from dhtos.errors import ConfigError
from dhtos.node.config import Config, parse_listen


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:7480", ("127.0.0.1", 7480)), ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:7480", ("::1", 7480)), ("10.1.2.3:65535", ("10.1.2.3", 65535)),
    ],
)  # fmt: skip
def test_addresses_to_listen_on(text, endpoint):
    assert parse_listen(text) == endpoint
    assert Config(http=text).http == text


@pytest.mark.parametrize(
    "text",
    [
        "", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", ":7480",
        "::1:7480", "[::1]", "localhost:7480", "fleet.example:80", "127.0.0.1:000080",
        "[127.0.0.1]:80",
    ],
)  # fmt: skip
def test_what_is_no_address_to_listen_on(text):
    with pytest.raises(ConfigError, match="http"):
        Config(http=text)


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80", "8.8.8.8:80", "[2001:4860::1]:80"])
def test_an_address_that_all_reach_must_be_asked_for(text):
    with pytest.raises(ConfigError, match="asks nobody who they are: use a loopback or private"):
        Config(http=text)
    assert Config(http=text, http_public=True).http == text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"http": 7480}, "http must be a text, got 7480"),
        ({"http_names": "fleet.example"}, "http_names must be a list of texts"),
        ({"http_public": 1}, "http_public must be true or false, got 1"),
        ({"kubernetes": "https://x"}, "kubernetes must be a table of names and values"),
        ({"kubernetes": {"url": 5}}, "kubernetes: url must be a text, got 5"),
    ],
)
def test_settings_of_another_kind(settings, words):
    with pytest.raises(ConfigError) as raised:
        Config(**settings)
    assert words in str(raised.value)


def test_the_environment_and_files_say_the_same(tmp_path):
    environ = {
        "DHTOS_HTTP": "127.0.0.1:7480", "DHTOS_HTTP_NAMES": "a.example, b.example",
        "DHTOS_HTTP_PUBLIC": "yes", "DHTOS_KUBERNETES": "url=https://10.0.0.1:6443,label=host",
    }  # fmt: skip
    file = tmp_path / "dhtos.toml"
    file.write_text(
        'http = "127.0.0.1:7480"\nhttp_names = ["a.example", "b.example"]\nhttp_public = true\n'
        '[kubernetes]\nurl = "https://10.0.0.1:6443"\nlabel = "host"\n'
    )
    found = Config.from_env(environ)
    assert found == Config.from_toml(file)
    assert found.http_names == ("a.example", "b.example")
    assert found.kubernetes == {"url": "https://10.0.0.1:6443", "label": "host"}
    assert Config.from_mapping(found.to_mapping()) == found


def test_paths_of_the_table_are_relative_to_the_file(tmp_path):
    file = tmp_path / "dhtos.toml"
    file.write_text('[kubernetes]\ntoken = "run/token"\nca = "/etc/ca.crt"\n')
    told = Config.from_toml(file).kubernetes
    assert told == {"token": str(tmp_path / "run/token"), "ca": "/etc/ca.crt"}
