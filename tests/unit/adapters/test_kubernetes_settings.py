"""Where the API server is: what can be said, and what is refused before anything is sent."""

import pytest

from dhtos.adapters.kubernetes_api import Settings
from dhtos.errors import ConfigError


def test_nothing_said_is_no_api_server():
    assert Settings.of({}) == Settings("", None, None, "name")


def test_paths_and_the_label_are_taken(tmp_path):
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    told = {
        "url": "https://10.0.0.1:6443/", "token": f"{tmp_path}/token", "ca": f"{tmp_path}/ca.crt",
        "label": "host",
    }  # fmt: skip
    found = Settings.of(told)
    assert (found.url, found.label) == ("https://10.0.0.1:6443", "host")
    assert (found.token, found.ca) == (tmp_path / "token", tmp_path / "ca.crt")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_token_may_go_to_loopback_in_the_clear(tmp_path, host):
    (tmp_path / "token").write_text("x")
    assert Settings.of({"url": f"http://{host}:8001", "token": str(tmp_path / "token")}).token


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"ulr": "x"}, "unknown key 'ulr'; did you mean 'url'?"),
        ({"colour": "x"}, "known are url, token, ca, label"),
        ({"url": "10.0.0.1:6443"}, "url must be https://HOST:PORT, got '10.0.0.1:6443'"),
        ({"url": "file:///etc/passwd"}, "url must be https://HOST:PORT"),
        ({"url": "https://"}, "url must be https://HOST:PORT"),
        ({"url": "https://[x"}, "url must be https://HOST:PORT"),
        ({"url": "https://a:b@c"}, "url must be https://HOST:PORT"),
        ({"token": "/nowhere/at/all"}, "/nowhere/at/all is no file; give the path of one"),
        ({"ca": "/nowhere/at/all"}, "/nowhere/at/all is no file; give the path of one"),
    ],
)
def test_what_cannot_be_is_refused(told, words):
    with pytest.raises(ConfigError) as raised:
        Settings.of(told)
    assert words in str(raised.value)


def test_a_token_is_not_sent_in_the_clear(tmp_path):
    (tmp_path / "token").write_text("x")
    for host in ("10.0.0.1", "api.example", "127.0.0.1.nip.io"):
        with pytest.raises(ConfigError, match="would send the token in the clear"):
            Settings.of({"url": f"http://{host}", "token": str(tmp_path / "token")})
