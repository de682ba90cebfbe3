"""Which files are kept in the network, and that none is overwritten or left for others to read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trust_world import USER, Authority

from dhtos.errors import ConfigError, UsageError
from dhtos.node.membership import Membership, write_membership
from dhtos.node.secstore import (
    CREDENTIALS,
    is_home,
    read_home,
    read_one,
    secret_ops,
    write_home,
    write_new,
)
from dhtos.node.state import StateDir
from dhtos.trust.cert import lend
from dhtos.trust.keys import KeyPair
from dhtos.trust.secstore import FILES_BYTES_MAX


def home_of(path: Path, *caps: str, lent: bool = False) -> Path:
    """The directory of a member of some cluster."""
    with StateDir(path) as state:
        key = KeyPair(state.identity().secret)
    authority = Authority(6)
    if lent:
        owner = KeyPair(bytes([7]) * 32)
        above = authority.admit(owner, "alice", caps=USER)
        begin, serial = above.leaf.not_before, bytes(8)
        chain = lend(owner, above, key.public, serial=serial, begin=begin, lifetime_s=3600)
    else:
        chain = authority.admit(key, "alice", caps=caps or USER)
    write_membership(path, Membership(chain))
    return path


def test_a_user_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    files = read_home(home_of(tmp_path / "alice"))
    assert is_home(files)
    write_home(tmp_path / "new" / "place", files)
    for name in CREDENTIALS:
        written = tmp_path / "new" / "place" / name
        assert written.read_bytes() == (tmp_path / "alice" / name).read_bytes()
        assert written.stat().st_mode & 0o777 == 0o600
    assert read_home(tmp_path / "new" / "place") == files


def test_nodes_and_what_is_lent_stay_where_they_are(tmp_path: Path) -> None:
    node = home_of(tmp_path / "node", "query", "publish")
    with pytest.raises(UsageError, match="is of a node, and two with one key"):
        read_home(node)
    with pytest.raises(UsageError, match="the key of 'alice' is in ssh-agent and not in"):
        read_home(home_of(tmp_path / "lent", lent=True))
    with pytest.raises(ConfigError, match="holds no identity"):
        read_home(tmp_path / "none")


def test_nothing_is_overwritten_not_even_half(tmp_path: Path) -> None:
    files = read_home(home_of(tmp_path / "alice"))
    new = tmp_path / "new"
    new.mkdir()
    (new / CREDENTIALS[1]).write_text("mine")
    with pytest.raises(ConfigError, match=r"membership.json is there and is not overwritten"):
        write_home(new, files)
    assert [path.name for path in new.iterdir()] == [CREDENTIALS[1]]
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is not overwritten"):
        write_new(tmp_path / "link", b"secret")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        write_new(tmp_path / "no" / "where", b"secret")


def test_a_file_and_its_size(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(FILES_BYTES_MAX))
    assert read_one(path) == {"key": bytes(FILES_BYTES_MAX)}
    assert not is_home(read_one(path))
    path.write_bytes(bytes(FILES_BYTES_MAX + 1))
    with pytest.raises(UsageError, match="is too large for a key store, which takes 6000 bytes"):
        read_one(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_one(tmp_path)


async def test_the_node_keeps_secrets_and_nothing_else(tmp_path: Path) -> None:
    node: Any = SimpleNamespace(kept_values=None)
    put = secret_ops(node)["secret_put"]
    for args, why in (
        ({"key": "user:alice", "base64": "AA=="}, "must start with 'secret:'"),
        ({"key": "secret:x", "base64": "?"}, "base64"),
        ({"key": "secret:x"}, "'base64' is missing"),
        ({"key": "secret:x", "base64": "AA==", "more": 1}, "unknown arguments"),
        ({"key": "secret:x", "base64": "AA=="}, "this node is in open mode"),
    ):
        with pytest.raises(UsageError, match=why):
            await anext(put(dict(args)))
