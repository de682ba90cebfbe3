"""The root on a disk: in the open, under a passphrase, damaged, and what it makes."""

import json
from pathlib import Path

import pytest

from dhtos.errors import ConfigError, UsageError
from dhtos.node.root import (
    ISSUER_CAPS,
    ISSUER_S,
    NAME,
    Locked,
    issuer_chain,
    issuers_wanted,
    lock_root,
    make_root,
    read_line,
    read_root,
    unlock_root,
    want_issuers,
    where_is_root,
)
from dhtos.trust.cert import Cert, lineage, node_id
from dhtos.trust.keys import KeyPair

NOW = 1_800_000_000.0
SEED = b"s" * 32
WORDS = "lusab-babad-gutih-tugad-nodiv"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_root(tmp_path, 3, lambda n: SEED[:n])
    return tmp_path


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert read_root(tmp_path) is None
    assert read_line(tmp_path) is None
    assert (where_is_root(tmp_path), issuers_wanted(tmp_path)) == ("none", 0)
    want_issuers(tmp_path, 2)
    assert not (tmp_path / NAME).exists()
    for command in (lock_root, unlock_root):
        with pytest.raises(UsageError, match=r"has no root.json, the key that makes issuers"):
            command(tmp_path, WORDS)


def test_a_root_is_its_seed_and_what_it_does_by_itself(home: Path) -> None:
    root = KeyPair(SEED)
    assert read_root(home) == read_root(home, "any passphrase") == root
    assert (where_is_root(home), read_line(home).signer) == ("open", root.public)
    assert issuers_wanted(home) == 3
    want_issuers(home, 5)
    assert issuers_wanted(home) == 5
    assert read_root(home) == root
    assert (home / NAME).stat().st_mode & 0o777 == 0o600


def test_a_lock_opens_by_its_passphrase_alone(home: Path) -> None:
    root = KeyPair(SEED)
    lock_root(home, WORDS)
    content = (home / NAME).read_bytes()
    assert SEED.hex().encode() not in content
    assert where_is_root(home) == "locked"
    assert read_line(home) == lineage(root.public)
    assert read_root(home, f" {WORDS}\n") == root
    want_issuers(home, 1)
    assert issuers_wanted(home) == 1
    for wrong in ("", "  "):
        with pytest.raises(Locked, match="is locked: give its passphrase with --passphrase-file"):
            read_root(home, wrong)
    with pytest.raises(Locked, match="the passphrase does not open"):
        read_root(home, WORDS + "x")
    with pytest.raises(UsageError, match="is locked already"):
        lock_root(home, WORDS)
    with pytest.raises(Locked):
        unlock_root(home, "wrong")
    unlock_root(home, WORDS)
    assert (where_is_root(home), read_root(home)) == ("open", root)
    with pytest.raises(UsageError, match="is not locked"):
        unlock_root(home, WORDS)


@pytest.mark.parametrize(
    "change",
    [
        {"public": "00" * 32},  # not the key that comes out
        {"public": ""},
        {"public": "zz"},
        {"sealed": "zz"},
        {"sealed": "", "seed": ""},
        {"seed": "00"},
        {"more": 1},
    ],
)
def test_a_damaged_lock_is_said_to_be_one(home: Path, change: dict[str, object]) -> None:
    lock_root(home, WORDS)
    found = json.loads((home / NAME).read_bytes()) | change
    (home / NAME).write_text(json.dumps(found))
    with pytest.raises(ConfigError, match="is corrupt: restore it from a backup"):
        read_root(home, WORDS)


def test_one_changed_byte_opens_nothing(home: Path) -> None:
    lock_root(home, WORDS)
    found = json.loads((home / NAME).read_bytes())
    found["sealed"] = found["sealed"][:-1] + ("0" if found["sealed"][-1] != "0" else "1")
    (home / NAME).write_text(json.dumps(found))
    with pytest.raises(Locked, match="does not open"):
        read_root(home, WORDS)


def test_an_issuer_stays_who_it_was() -> None:
    key = KeyPair(b"n" * 32).public
    leaf = Cert(key, b"nonce 8b", b"serial 8", "bench", ("gpu",), ("query", "publish"), 5, 10)
    chain = issuer_chain(KeyPair(SEED), leaf, serial=leaf.serial, wall_s=NOW + 0.5)
    made = chain.leaf
    assert chain.node_id() == node_id(key, leaf.nonce)
    assert (made.name, made.groups, made.serial) == ("bench", ("gpu",), b"serial 8")
    assert (made.caps, made.not_before, made.expires) == (ISSUER_CAPS, NOW, NOW + ISSUER_S)
