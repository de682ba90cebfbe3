"""What issuers promise and keep: roots, invites that are counted, certificates that end in time."""

import threading
from pathlib import Path

import msgspec
import pytest
from trust_world import Clock

from dhtos.core.limits import INVITE_S_MAX, INVITE_USES_MAX, INVITES_MAX
from dhtos.errors import ConfigError, Refused, UsageError
from dhtos.node import authority
from dhtos.node.audit import read_audit
from dhtos.node.authority import (
    INVITES,
    NODE_CAPS,
    NODE_S,
    USER_S,
    Issuer,
    Unknown,
    secret_hash,
)
from dhtos.node.founding import found_cluster
from dhtos.node.membership import read_credentials, read_membership
from dhtos.node.root import ISSUER_S, make_cluster, read_root, renew_issuer
from dhtos.node.root import NAME as ROOT
from dhtos.node.state import Identity, StateDir
from dhtos.trust.cert import Chain, parse_chain
from dhtos.trust.keys import KeyPair
from dhtos.trust.token import root_hash

NOW = 1_800_000_000.0
LONG = [f"{n}" * 32 for n in range(8)]
KEY, OTHER, THIRD = (KeyPair(bytes([n]) * 32).public for n in (1, 2, 3))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The state directory of the node that made a cluster."""
    assert found_cluster(tmp_path, "first", NOW)
    return tmp_path


def issuer_at(home: Path, clock: Clock) -> Issuer:
    with StateDir(home) as state:
        identity = state.identity()
    membership = read_membership(home, identity)
    assert membership is not None
    return Issuer(home, KeyPair(identity.secret), membership.chain, wall_s=clock)


@pytest.fixture
def issuer(home: Path, clock: Clock) -> Issuer:
    return issuer_at(home, clock)


# --- the root -------------------------------------------------------------------------------------


def test_a_cluster_begins_with_a_root_and_an_issuer(tmp_path: Path) -> None:
    identity = Identity.generate(b"i" * 32)
    made = make_cluster(tmp_path, identity, "first", NOW)
    root = read_root(tmp_path)
    assert root is not None
    assert made.root == root_hash(root.public)
    leaf = made.chain.leaf
    assert (leaf.subject, leaf.name, leaf.expires) == (identity.public_key, "first", NOW + ISSUER_S)
    assert leaf.caps == (*NODE_CAPS, "issue", "admin")
    assert parse_chain(made.chain.wire) == made.chain
    assert read_membership(tmp_path, identity) == made
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in (ROOT, "membership.json")] == [
        0o600
    ] * 2


def test_two_clusters_are_two(tmp_path: Path) -> None:
    names = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        names.append(make_cluster(tmp_path / name, Identity.generate(), name, NOW).root)
    assert names[0] != names[1]


def test_founding_again_changes_nothing_while_much_is_left(home: Path) -> None:
    before = (home / "membership.json").read_bytes()
    assert not found_cluster(home, "other", NOW + ISSUER_S / 3)
    assert (home / "membership.json").read_bytes() == before


def test_an_issuer_renews_itself_and_stays_who_it_is(home: Path) -> None:
    with StateDir(home) as state:
        identity = state.identity()
    before = read_membership(home, identity)
    later = NOW + 2 * ISSUER_S  # also long after the end
    assert not found_cluster(home, "other", later)
    after = read_membership(home, identity)
    assert before is not None
    assert after is not None
    assert after.root == before.root
    assert after.chain.node_id() == before.chain.node_id()
    assert after.chain.leaf.serial == before.chain.leaf.serial  # or nobody could take it back
    assert (after.chain.leaf.name, after.chain.expires) == ("first", later + ISSUER_S)
    assert renew_issuer(home, after, later) == after


def test_a_running_issuer_renews_itself(home: Path, issuer: Issuer, clock: Clock) -> None:
    _, before = read_credentials(home)
    assert issuer.renew_itself(before, clock()) is None
    clock.now += 0.6 * ISSUER_S
    chain = issuer.renew_itself(before, clock())
    assert chain is not None
    assert chain.expires == int(clock.now) + ISSUER_S
    admitted = issuer.admit(issuer.invite(lifetime_s=0.9 * ISSUER_S), KEY, "n")
    assert admitted.certs[0] == chain.leaf
    assert admitted.expires > before.chain.expires
    (home / ROOT).unlink()
    clock.now += 0.6 * ISSUER_S
    assert issuer.renew_itself(read_credentials(home)[1], clock()) is None


def test_a_directory_that_others_write_to_is_no_place_for_a_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=rf"use chmod go-w {tmp_path}"):
        found_cluster(tmp_path, "first", NOW)
    assert not (tmp_path / ROOT).exists()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"seed": "zz"}', b'{"seed": "00"}'])
def test_a_damaged_root_is_not_replaced(home: Path, content: bytes) -> None:
    (home / ROOT).write_bytes(content)
    with pytest.raises(ConfigError, match="is corrupt: restore it from a backup"):
        found_cluster(home, "first", NOW)
    assert (home / ROOT).read_bytes() == content


def test_half_a_cluster_is_said_to_be_one(home: Path) -> None:
    (home / "membership.json").unlink()
    with pytest.raises(ConfigError, match="has the root of a cluster and no membership"):
        found_cluster(home, "first", NOW)


def test_a_root_that_others_can_read_is_refused(home: Path) -> None:
    (home / ROOT).chmod(0o640)
    with pytest.raises(ConfigError, match=rf"use chmod 600 {home / ROOT}"):
        read_root(home)


# --- what an invite gives -------------------------------------------------------------------------


def test_a_node_is_admitted_as_what_it_was_promised(issuer: Issuer, clock: Clock) -> None:
    secret = issuer.invite(groups=["gpu", "lab", "gpu"])
    clock.now += 60
    leaf = issuer.admit(secret, KEY, "bench-7").leaf
    assert (leaf.subject, leaf.name, leaf.groups) == (KEY, "bench-7", ("gpu", "lab"))
    assert leaf.caps == NODE_CAPS
    assert (leaf.not_before, leaf.expires) == (clock.now, clock.now + NODE_S)
    assert leaf.is_node


def test_a_user_has_the_name_that_the_issuer_chose(issuer: Issuer) -> None:
    secret = issuer.invite(kind="user", name="alice")
    leaf = issuer.admit(secret, KEY, "mallory").leaf
    assert (leaf.name, leaf.caps, leaf.nonce) == ("alice", ("query", "claim"), b"")
    assert leaf.expires == NOW + USER_S
    assert not leaf.is_node


def test_capabilities_may_be_chosen(issuer: Issuer) -> None:
    node = issuer.admit(issuer.invite(caps=["query", "claim:lab"]), KEY, "n").leaf
    assert node.caps == ("query", "claim:lab", "publish")  # else it would be no node
    user = issuer.admit(issuer.invite(kind="user", name="u", caps=["query"]), KEY).leaf
    assert user.caps == ("query",)
    for caps in (["claim"], ["claim", "query:lab"]):  # who may not query is told nothing at all
        user = issuer.admit(issuer.invite(kind="user", name="u", caps=caps), KEY).leaf
        assert set(user.caps) == {"claim", "query" if caps == ["claim"] else "query:lab"}


def test_nobody_outlives_the_issuer(issuer: Issuer, clock: Clock) -> None:
    clock.now = NOW + ISSUER_S - 100
    assert issuer.admit(issuer.invite(), KEY, "n").leaf.expires == NOW + ISSUER_S
    short = issuer.invite(kind="user", name="u", lifetime_s=10.0)
    assert issuer.admit(short, KEY).leaf.expires == clock.now + 10


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"uses": 0}, "uses"),
        ({"uses": INVITE_USES_MAX + 1}, "uses"),
        ({"ttl_s": 0.5}, "lasts"),
        ({"ttl_s": INVITE_S_MAX + 1}, "lasts"),
        ({"groups": ["a b"]}, "groups"),
        ({"groups": [f"g{n}" for n in range(9)]}, "groups"),
        ({"caps": ["fly"]}, "fly"),
        ({"caps": ["issue"]}, "only the root does"),
        ({"caps": ["issue:lab"]}, "only the root does"),
        ({"kind": "user", "name": "u", "caps": ["publish"]}, "only nodes do"),
        ({"kind": "user", "name": "n" * 64}, "name"),
        ({"kind": "user", "name": "a\nb"}, "name"),
        ({"groups": LONG, "caps": [f"run:{group}" for group in LONG]}, "bytes"),
    ],
)
def test_what_cannot_be_given_is_not_promised(
    issuer: Issuer, what: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        issuer.invite(**what)  # type: ignore[arg-type]
    assert issuer.invites() == {}


def test_an_issuer_that_has_ended_promises_nothing(issuer: Issuer, clock: Clock) -> None:
    secret = issuer.invite(ttl_s=3600)
    clock.now = NOW + ISSUER_S + 1
    with pytest.raises(UsageError):
        issuer.invite()
    with pytest.raises(Refused):
        issuer.admit(secret, KEY, "n")


# --- who gets in ----------------------------------------------------------------------------------


def test_uses_are_counted_and_the_last_one_closes_the_door(issuer: Issuer) -> None:
    secret = issuer.invite(uses=2)
    issuer.admit(secret, KEY, "a")
    issuer.admit(secret, OTHER, "b")
    with pytest.raises(Refused, match="the token is used up: use a new one"):
        issuer.admit(secret, THIRD, "c")
    assert issuer.invites() == {}


def test_a_lost_answer_is_given_again_for_nothing(issuer: Issuer, clock: Clock) -> None:
    secret = issuer.invite(uses=2)
    first = issuer.admit(secret, KEY, "a")
    clock.now += 5
    assert issuer.admit(secret, KEY, "a") == first
    assert issuer.admit(secret, KEY, "another name") == first
    (left,) = issuer.invites().values()
    assert left.uses == 1
    issuer.admit(secret, OTHER, "b")
    clock.now += 3601  # used up, and over
    assert issuer.admit(secret, KEY, "a") == first


def test_a_restart_forgets_nothing(issuer: Issuer, home: Path, clock: Clock) -> None:
    secret = issuer.invite(uses=2)
    chain = issuer.admit(secret, KEY, "a")
    again = issuer_at(home, clock)
    assert again.admit(secret, KEY, "a") == chain
    again.admit(secret, OTHER, "b")
    with pytest.raises(Refused, match="used up"):
        issuer_at(home, clock).admit(secret, THIRD, "c")
    assert (home / INVITES).stat().st_mode & 0o777 == 0o600
    assert secret not in (home / INVITES).read_bytes()
    assert secret.hex().encode() not in (home / INVITES).read_bytes()


def test_a_token_ends(issuer: Issuer, clock: Clock) -> None:
    secret = issuer.invite(ttl_s=60)
    clock.now += 59
    issuer.admit(secret, KEY, "n")
    secret = issuer.invite(ttl_s=60)
    clock.now += 75
    with pytest.raises(Refused, match="the token ended 15 s ago: use a new one"):
        issuer.admit(secret, OTHER, "n")
    assert issuer.invites() == {}


def test_what_has_ended_is_dropped_in_time(issuer: Issuer, clock: Clock, home: Path) -> None:
    secret = issuer.invite(ttl_s=60)
    clock.now += 3661
    issuer.invite()
    with pytest.raises(Unknown):
        issuer.admit(secret, KEY, "n")
    assert len(msgspec.json.decode((home / INVITES).read_bytes())) == 1


def test_strangers_do_not_fill_the_log(issuer: Issuer, home: Path) -> None:
    """A secret that nobody made is not written down, and of a token the first refusal is."""
    secret = issuer.invite()
    issuer.admit(secret, KEY, "a")
    for number in range(50):
        with pytest.raises(Unknown):
            issuer.admit(number.to_bytes(16), OTHER, "stranger")
        with pytest.raises(Refused, match="used up"):
            issuer.admit(secret, OTHER, "late")
    told = [(entry["what"], entry.get("name")) for entry in read_audit(home)]
    assert told == [("invited", ""), ("admitted", "a"), ("refused", "late")]


def test_an_unknown_secret_may_be_known_elsewhere(issuer: Issuer) -> None:
    with pytest.raises(Unknown, match="does not know the token"):
        issuer.admit(b"s" * 16, KEY, "n")


@pytest.mark.parametrize("name", ["", "n" * 64, "a\x00b", "tab\t"])
def test_whoever_comes_has_a_name(issuer: Issuer, name: str) -> None:
    secret = issuer.invite()
    with pytest.raises(Refused, match="give --name"):
        issuer.admit(secret, KEY, name)
    issuer.admit(secret, KEY, "better")  # it was not used up


def test_no_two_nodes_have_one_id_or_serial(issuer: Issuer) -> None:
    secret = issuer.invite(uses=3)
    chains = [issuer.admit(secret, key, "n") for key in (KEY, OTHER, THIRD)]
    assert len({chain.node_id() for chain in chains}) == 3
    assert len({chain.leaf.serial for chain in chains}) == 3


def test_many_at_once_are_counted_right(issuer: Issuer) -> None:
    secret = issuer.invite(uses=5)
    keys = [KeyPair(n.to_bytes(32)).public for n in range(1, 9)]
    got: list[Chain] = []

    def come(key: bytes) -> None:
        try:
            got.append(issuer.admit(secret, key, "n"))
        except Refused:
            return

    threads = [threading.Thread(target=come, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({chain.leaf.subject for chain in got}) == len(got) == 5


# --- taking it back, and files --------------------------------------------------------------------


def test_an_invite_is_taken_back_by_a_part_of_its_hash(issuer: Issuer, home: Path) -> None:
    secrets = [issuer.invite() for _ in range(3)]
    assert issuer.revoke_invite(secret_hash(secrets[1])[:8]) == secret_hash(secrets[1])
    assert set(issuer.invites()) == {secret_hash(secrets[0]), secret_hash(secrets[2])}
    with pytest.raises(Unknown):
        issuer.admit(secrets[1], KEY, "n")
    for prefix, words in (("zz", "no invite begins"), ("", "no invite begins")):
        with pytest.raises(UsageError, match=words):
            issuer.revoke_invite(prefix)


def test_a_part_that_fits_several_takes_none(issuer: Issuer) -> None:
    for _ in range(17):
        issuer.invite()
    firsts = [found[0] for found in issuer.invites()]
    twice = next(first for first in firsts if firsts.count(first) > 1)
    with pytest.raises(UsageError, match="several invites begin"):
        issuer.revoke_invite(twice)
    assert len(issuer.invites()) == 17


def test_open_invites_are_bounded(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "INVITES_MAX", 3)
    assert INVITES_MAX > 3
    for _ in range(3):
        issuer.invite(ttl_s=60)
    with pytest.raises(UsageError, match="3 invites are open"):
        issuer.invite()
    clock.now += 4000
    issuer.invite()


def test_what_cannot_be_written_did_not_happen(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = issuer.invite()

    def full(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(authority, "write_atomically", full)
        with pytest.raises(Refused, match="No space left on device"):
            issuer.admit(secret, KEY, "n")
    issuer.admit(secret, OTHER, "n")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b'{"a": {"kind": "king"}}'])
def test_damaged_invites_are_refused(home: Path, clock: Clock, content: bytes) -> None:
    (home / INVITES).write_bytes(content)
    (home / INVITES).chmod(0o600)
    with pytest.raises(ConfigError, match="is corrupt"):
        issuer_at(home, clock)


def test_invites_that_others_can_read_are_refused(issuer: Issuer, home: Path, clock: Clock) -> None:
    issuer.invite()
    (home / INVITES).chmod(0o604)
    with pytest.raises(ConfigError, match=rf"use chmod 600 {home / INVITES}"):
        issuer_at(home, clock)
