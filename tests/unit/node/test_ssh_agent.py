"""The protocol of ssh-agent: what OpenSSH's says, and what one that lies or is locked says."""

import subprocess

import pytest
from ssh_agents import OpenSsh, openssh, told  # noqa: F401 - openssh is a fixture

from dhtos.errors import MalformedMessage, Unreachable, UsageError
from dhtos.node.ssh_agent import (
    MESSAGE_BYTES_MAX,
    AgentKey,
    agent_keys,
    choose_key,
    held_key,
    read_keys,
    read_signature,
)
from dhtos.trust.keys import KeyPair, signed_text, verify

PAIR = KeyPair(bytes(range(32)))


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def message(kind: int, body: bytes) -> bytes:
    return string(bytes([kind]) + body)


def keys_of(*pairs: KeyPair, kind: bytes = b"ssh-ed25519") -> bytes:
    each = [string(string(kind) + string(one.public)) + string(b"me@here") for one in pairs]
    return len(pairs).to_bytes(4) + b"".join(each)


def signature(raw: bytes, kind: bytes = b"ssh-ed25519") -> bytes:
    return string(string(kind) + string(raw))


# --- OpenSSH --------------------------------------------------------------------------------------


def test_a_key_signs_and_stays_where_it_is(openssh: OpenSsh):  # noqa: F811
    openssh.add("alice@laptop")
    (key,) = agent_keys(openssh.environ)
    assert key.comment == "alice@laptop"
    made = key.sign(b"cert", b"what is to be signed")
    assert verify(key.public, made, b"cert", b"what is to be signed")
    assert not verify(key.public, made, b"record", b"what is to be signed")


def test_fingerprints_are_those_of_ssh_add(openssh: OpenSsh):  # noqa: F811
    openssh.add("alice")
    (key,) = agent_keys(openssh.environ)
    shown = subprocess.run(
        ["ssh-add", "-l"], env=openssh.environ, capture_output=True, text=True, check=True
    ).stdout
    assert key.fingerprint in shown


def test_only_ed25519_keys_count(openssh: OpenSsh):  # noqa: F811
    openssh.add("old", "rsa")
    openssh.add("other", "ecdsa")
    assert agent_keys(openssh.environ) == []
    openssh.add("new")
    assert [key.comment for key in agent_keys(openssh.environ)] == ["new"]


def test_a_key_that_was_taken_away_signs_no_more(openssh: OpenSsh):  # noqa: F811
    openssh.add("alice")
    (key,) = agent_keys(openssh.environ)
    openssh.tell("-D")
    with pytest.raises(Unreachable, match="does not sign with alice: it is locked, or"):
        key.sign(b"cert", b"x")
    assert agent_keys(openssh.environ) == []


def test_an_agent_that_was_ended(openssh: OpenSsh):  # noqa: F811
    openssh.add("alice")
    (key,) = agent_keys(openssh.environ)
    openssh.close()
    with pytest.raises(Unreachable, match=r"does not answer on .*: start one"):
        key.sign(b"cert", b"x")


# --- which key ------------------------------------------------------------------------------------


def test_no_agent_at_all():
    with pytest.raises(Unreachable, match="SSH_AUTH_SOCK is not set"):
        agent_keys({})


def test_the_key_that_is_meant():
    one, two = AgentKey("p", PAIR.public, "one"), AgentKey("p", KeyPair(bytes(32)).public, "two")
    assert choose_key([one], "") is one
    assert choose_key([one, two], "two") is two
    assert choose_key([one, two], one.fingerprint) is one
    assert held_key([one, two], two.public) is two
    with pytest.raises(UsageError, match="several Ed25519 keys: give --agent-key, one of one, two"):
        choose_key([one, two], "")
    with pytest.raises(UsageError, match="no Ed25519 key 'three': give one of one, two"):
        choose_key([one, two], "three")
    with pytest.raises(UsageError, match="holds no Ed25519 key, or is locked"):
        choose_key([], "")
    with pytest.raises(Unreachable, match="does not hold the key of this user"):
        held_key([one], two.public)


# --- what agents may say --------------------------------------------------------------------------


def test_an_agent_that_says_no(tmp_path):
    with told(tmp_path / "a", message(5, b"")) as path:
        assert agent_keys({"SSH_AUTH_SOCK": path}) == []
    with told(tmp_path / "b", message(5, b"")) as path, pytest.raises(Unreachable, match="locked"):
        AgentKey(path, PAIR.public, "").sign(b"cert", b"x")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0",
        string(b""),
        message(12, b"\0\0\0\x09"),
        message(12, keys_of(PAIR)[:-9]),
        message(12, (2**31).to_bytes(4)),
        (MESSAGE_BYTES_MAX + 1).to_bytes(4) + b"x",
        message(12, (1).to_bytes(4) + string(string(b"ssh-ed25519") + string(b"k")) + string(b"")),
    ],
    ids=["nothing", "cut", "empty", "no keys", "half a key", "many", "long", "short key"],
)
def test_what_is_no_answer(answer, tmp_path):
    with (
        told(tmp_path / "agent", answer) as path,
        pytest.raises(Unreachable, match=r"as no ssh-agent does|does not answer"),
    ):
        agent_keys({"SSH_AUTH_SOCK": path})


@pytest.mark.parametrize(
    "body",
    [
        signature(bytes(64)),
        signature(PAIR.sign(b"other", b"x")),
        signature(PAIR.sign(b"cert", b"x"), b"ssh-rsa"),
        signature(b"short"),
        b"",
    ],
    ids=["zeros", "another purpose", "another scheme", "short", "none"],
)
def test_a_signature_that_does_not_hold_is_not_used(body, tmp_path):
    with (
        told(tmp_path / "agent", message(14, body)) as path,
        pytest.raises(Unreachable, match=r"does not hold|as no ssh-agent does"),
    ):
        AgentKey(path, PAIR.public, "alice").sign(b"cert", b"x")


def test_a_signature_that_holds(tmp_path):
    raw = PAIR.sign(b"cert", b"x")
    with told(tmp_path / "agent", message(14, signature(raw))) as path:
        assert AgentKey(path, PAIR.public, "").sign(b"cert", b"x") == raw


def test_reading_what_was_written():
    assert read_keys(keys_of(PAIR, KeyPair(bytes(32)))) == [
        (PAIR.public, "me@here"),
        (KeyPair(bytes(32)).public, "me@here"),
    ]
    assert read_keys(keys_of(PAIR, kind=b"ssh-rsa")) == []
    assert read_signature(signature(bytes(64))) == (b"ssh-ed25519", bytes(64))


@pytest.mark.parametrize("size", range(len(keys_of(PAIR))))
def test_every_cut_is_refused(size):
    body = keys_of(PAIR)[:size]
    if size < 4:
        assert read_keys(body) == []
        return
    with pytest.raises(MalformedMessage):
        read_keys(body)


def test_what_is_signed_is_no_login_and_no_ssh_signature():
    text = signed_text(b"cert", b"x")
    assert text.startswith(b"dhtos/1 ")
    assert int.from_bytes(text[:4]) > MESSAGE_BYTES_MAX  # as the length of a session's id
