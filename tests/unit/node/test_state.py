"""The state directory: identity, contacts and versions across runs, crashes and corruption."""

import stat
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import msgspec
import pytest

from dhtos.core.contact import Contact
from dhtos.core.limits import STORED_CONTACTS_MAX
from dhtos.errors import Closed, ConfigError
from dhtos.node import state as module
from dhtos.node.state import SEQ_RESERVE, Identity, StateDir, write_atomically


def contact(n):
    return Contact(bytes([n % 256]) * 20, (f"10.0.0.{n % 250 + 1}", 7400 + n))


def test_an_identity_follows_from_its_secret():
    one = Identity.generate()
    assert Identity.generate(one.secret) == one
    assert Identity.generate().node_id != one.node_id
    expected = blake2b(b"dhtos-id" + one.public_key, digest_size=20).digest()
    assert one.node_id == expected
    assert Identity.generate(one.secret, b"issuer").node_id != one.node_id


def test_the_known_answer_of_ed25519():
    """RFC 8032, section 7.1, test 1."""
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert Identity.generate(secret).public_key.hex() == public


def test_a_secret_is_not_shown():
    identity = Identity.generate()
    assert identity.secret.hex() not in repr(identity)
    assert repr(identity.secret) not in repr(identity)


def test_the_identity_survives_and_is_private(tmp_path):
    with StateDir(tmp_path / "new" / "state") as state:
        first = state.identity()
        assert state.identity() == first
    path = tmp_path / "new" / "state" / "identity.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with StateDir(path.parent) as state:
        assert state.identity() == first
        assert state.warnings == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"secret": "zz"}', b'{"secret": "00"}', b"[]", b'{"secret": 1}']
)
def test_a_corrupt_identity_is_never_replaced(tmp_path, content):
    path = tmp_path / "identity.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with StateDir(tmp_path) as state, pytest.raises(ConfigError, match="restore it from a backup"):
        state.identity()
    assert path.read_bytes() == content


def test_a_secret_that_others_can_read_is_refused_with_the_command_that_helps(tmp_path):
    with StateDir(tmp_path) as state:
        secret = state.identity()
        path = tmp_path / "identity.json"
        path.chmod(0o640)
        with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
            state.identity()
        path.chmod(0o600)
        assert state.identity() == secret


def test_contacts_come_back(tmp_path):
    known = [contact(n) for n in range(5)]
    with StateDir(tmp_path) as state:
        assert state.contacts() == []
        state.save_contacts(known)
        assert state.contacts() == known


def test_stored_contacts_are_bounded(tmp_path):
    with StateDir(tmp_path) as state:
        state.save_contacts(contact(n) for n in range(STORED_CONTACTS_MAX + 50))
        assert len(state.contacts()) == STORED_CONTACTS_MAX


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff", b'{"contacts": 7}', b'{"contacts": [["zz", "h", 1]]}',
     b'{"contacts": [["00", "h", 1]]}'],
)  # fmt: skip
def test_corrupt_contacts_are_set_aside(tmp_path, content):
    for n in (1, 2):
        (tmp_path / "contacts.json").write_bytes(content)
        with StateDir(tmp_path) as state:
            assert state.contacts() == []
            assert len(state.warnings) == 1
            assert f"contacts.json.corrupt-{n}" in state.warnings[0]
        assert (tmp_path / f"contacts.json.corrupt-{n}").read_bytes() == content
        assert not (tmp_path / "contacts.json").exists()


def test_an_impossible_port_is_left_out(tmp_path):
    rows = [("00" * 20, "10.0.0.1", 0), ("11" * 20, "10.0.0.2", 7400)]
    (tmp_path / "contacts.json").write_bytes(msgspec.json.encode({"contacts": rows}))
    with StateDir(tmp_path) as state:
        assert [c.endpoint for c in state.contacts()] == [("10.0.0.2", 7400)]


def test_no_version_is_used_twice(tmp_path):
    with StateDir(tmp_path) as state:
        first = state.reserve_seq(1)
    with StateDir(tmp_path) as state:
        second = state.reserve_seq(1)
        third = state.reserve_seq(second + 10 * SEQ_RESERVE)
    assert first == 1
    assert second == first + SEQ_RESERVE
    assert third == second + 10 * SEQ_RESERVE


def test_a_corrupt_version_starts_from_what_the_caller_says(tmp_path):
    (tmp_path / "seq.json").write_bytes(b"garbage")
    with StateDir(tmp_path) as state:
        assert state.reserve_seq(5_000) == 5_000
        assert "seq.json.corrupt-1" in state.warnings[0]


def test_two_nodes_cannot_share_a_directory(tmp_path):
    with StateDir(tmp_path), pytest.raises(ConfigError, match="used by another node"):
        StateDir(tmp_path)
    StateDir(tmp_path).close()


def test_closing_twice_is_fine_and_writing_after_it_is_not(tmp_path):
    state = StateDir(tmp_path)
    state.close()
    state.close()
    with pytest.raises(Closed):
        state.save_contacts([])


def test_an_unusable_path_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="state_dir"):
        StateDir(tmp_path / "file")


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "contacts.json"
    write_atomically(path, b"old")

    def crash(descriptor):
        raise OSError("power lost")

    monkeypatch.setattr(module.os, "fsync", crash)
    with pytest.raises(OSError, match="power lost"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_leftovers_of_a_crash_are_removed(tmp_path):
    (tmp_path / ".seq.json.1234.5678").write_bytes(b"half a li")
    with StateDir(tmp_path) as state:
        assert state.reserve_seq(1) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "seq.json"]


def test_writers_in_many_threads_take_turns(tmp_path):
    """A cancelled caller's thread writes on while the next one has begun."""
    with StateDir(tmp_path) as state, ThreadPoolExecutor(8) as pool:
        known = [contact(n) for n in range(50)]
        saves = [pool.submit(state.save_contacts, known) for _ in range(40)]
        reserved = [pool.submit(state.reserve_seq, 1) for _ in range(40)]
        for save in saves:
            save.result()
        assert len({one.result() for one in reserved}) == 40
        assert state.contacts() == known
        assert state.warnings == []
