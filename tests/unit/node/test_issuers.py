"""Which of those who come become issuers, who renews whom, and who puts whom out."""

from pathlib import Path
from typing import Any

import pytest
from trust_world import Authority, Clock

from dhtos.errors import MalformedMessage, Refused, UsageError
from dhtos.node.audit import read_audit
from dhtos.node.authority import DAY_S, NODE_CAPS, Issuer, Unknown
from dhtos.node.founding import found_cluster
from dhtos.node.membership import read_credentials
from dhtos.node.root import ISSUER_CAPS, ISSUER_S, Locked, lock_root, read_line, want_issuers
from dhtos.trust.keys import KeyPair
from dhtos.trust.member import Member
from dhtos.trust.token import root_hash

NOW = 1_800_000_000.0
KEYS = [KeyPair(bytes([n]) * 32) for n in range(1, 9)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The state directory of a cluster whose root makes three issuers."""
    (tmp_path / "first").mkdir()
    assert found_cluster(tmp_path / "first", "first", NOW, issuers=3)
    return tmp_path / "first"


@pytest.fixture
def issuer(home: Path, clock: Clock) -> Issuer:
    identity, membership = read_credentials(home)
    return Issuer(home, KeyPair(identity.secret), membership.chain, wall_s=clock)


def other_issuer(issuer: Issuer, home: Path, clock: Clock) -> Issuer:
    """The second machine, which has come as machines do."""
    chain = issuer.admit(issuer.invite(), KEYS[0].public, "second")
    place = home.parent / "second"
    place.mkdir()
    return Issuer(place, KEYS[0], chain, wall_s=clock)


def member_of(issuer: Issuer, clock: Clock) -> Member:
    """Somebody of that cluster."""
    chain = issuer.admit(issuer.invite(caps=["query"]), KEYS[7].public, "watcher")
    rng = Authority().rng
    return Member(
        KEYS[7], root_hash(issuer.chain.root), entropy=rng.randbytes, wall_s=clock, chain=chain
    )


def test_the_first_that_come_as_usual_become_issuers(issuer: Issuer) -> None:
    unusual: list[dict[str, Any]] = [
        {"groups": ["gpu"]}, {"caps": ["query"]}, {"lifetime_s": 7 * DAY_S},
    ]  # fmt: skip
    for key, what in zip(KEYS, unusual, strict=False):
        assert not issuer.admit(issuer.invite(**what), key.public, "n").leaf.may("issue")
    person = issuer.invite(kind="user", name="alice")
    assert not issuer.admit(person, KEYS[3].public).leaf.may("issue")
    secret = issuer.invite(uses=3)
    leaves = [issuer.admit(secret, key.public, "n").leaf for key in KEYS[4:7]]
    assert [leaf.caps for leaf in leaves] == [ISSUER_CAPS, ISSUER_CAPS, NODE_CAPS]
    assert leaves[0].expires == NOW + ISSUER_S
    assert issuer.admit(secret, KEYS[4].public, "n").leaf == leaves[0]  # an answer was lost


def test_how_many_were_made_survives_a_restart(issuer: Issuer, home: Path, clock: Clock) -> None:
    issuer.admit(issuer.invite(), KEYS[0].public, "second")
    identity, membership = read_credentials(home)
    again = Issuer(home, KeyPair(identity.secret), membership.chain, wall_s=clock)
    assert again.makes_issuers()
    again.admit(again.invite(), KEYS[1].public, "third")
    assert not again.makes_issuers()
    want_issuers(home, 4)
    assert again.makes_issuers()


def test_one_that_has_no_root_makes_none(issuer: Issuer, home: Path, clock: Clock) -> None:
    second = other_issuer(issuer, home, clock)
    chain = second.admit(second.invite(), KEYS[1].public, "third")
    assert not chain.leaf.may("issue")
    assert chain.certs[0].name == "second"
    with pytest.raises(UsageError, match=r"has no root.json, the key that makes issuers"):
        second.promote(chain.leaf)
    (home.parent / "other").mkdir()
    found_cluster(home.parent / "other", "other", NOW)
    (home.parent / "other" / "root.json").rename(home.parent / "second" / "root.json")
    with pytest.raises(UsageError, match=r"has no root.json"):  # that of another cluster
        second.promote(chain.leaf)
    assert not second.admit(second.invite(), KEYS[2].public, "fourth").leaf.may("issue")


def test_a_promotion_is_of_a_machine_and_is_written_down(issuer: Issuer, home: Path) -> None:
    want_issuers(home, 1)
    leaf = issuer.admit(issuer.invite(), KEYS[0].public, "second").leaf
    chain = issuer.promote(leaf)
    assert (chain.leaf.serial, chain.leaf.nonce) == (leaf.serial, leaf.nonce)
    person = issuer.admit(issuer.invite(kind="user", name="u"), KEYS[1].public).leaf
    with pytest.raises(UsageError, match="'u' is a user, and only machines admit others"):
        issuer.promote(person)
    assert [one["what"] for one in read_audit(home)][-1] == "admitted"
    assert [one["what"] for one in read_audit(home)].count("promoted") == 1
    lock_root(home, "words")
    with pytest.raises(Locked):
        issuer.promote(leaf)
    assert issuer.promote(leaf, "words").leaf.caps == ISSUER_CAPS


def test_issuers_are_renewed_where_the_root_is(issuer: Issuer, home: Path, clock: Clock) -> None:
    second = other_issuer(issuer, home, clock)
    with pytest.raises(Refused, match="not half over"):
        issuer.renew(second.chain)
    clock.now += 0.6 * ISSUER_S
    with pytest.raises(Unknown, match="the root is not here"):
        second.renew(second.chain)
    renewed = issuer.renew(second.chain)
    assert renewed.expires == int(clock.now) + ISSUER_S
    assert renewed.leaf.serial == second.chain.leaf.serial
    second.go_on(renewed)
    assert second.admit(second.invite(), KEYS[1].public, "third").certs[0] == renewed.leaf
    lock_root(home, "words")
    clock.now += 0.6 * ISSUER_S
    with pytest.raises(Unknown, match="locked"):
        issuer.renew(renewed)


def test_any_issuer_takes_back_what_another_has_given(
    issuer: Issuer, home: Path, clock: Clock
) -> None:
    """Also what was renewed since, by whomever: the number stays."""
    second, member = other_issuer(issuer, home, clock), member_of(issuer, clock)
    member.read(second.chain.wire)
    chain = second.admit(second.invite(), KEYS[1].public, "bench-7")
    clock.now += 20 * DAY_S
    renewed = issuer.renew(chain)
    for one in (chain, renewed):
        member.read(one.wire)
    with pytest.raises(UsageError, match="nobody is known here under the name"):
        issuer.revoke("bench-8")
    (told,) = second.revoke("bench-7")
    assert told.expires > renewed.expires
    assert member.revoke(told)
    for one in (chain, renewed):
        assert "revoked" in _why(member, one.wire)


def test_whom_nobody_wrote_down_is_put_out_when_he_is_seen(
    issuer: Issuer, home: Path, clock: Clock
) -> None:
    second, member = other_issuer(issuer, home, clock), member_of(issuer, clock)
    member.read(second.chain.wire)
    person = issuer.admit(issuer.invite(kind="user", name="alice"), KEYS[1].public)
    with pytest.raises(UsageError, match="nobody is known here"):
        second.revoke("alice")
    (told,) = second.revoke("alice", [person.leaf])
    assert member.revoke(told)
    assert "revoked" in _why(member, person.wire)
    assert [one["what"] for one in read_audit(home.parent / "second")] == ["revoked"]


def test_only_the_root_puts_an_issuer_out(issuer: Issuer, home: Path, clock: Clock) -> None:
    """By either command, and with it whom it admitted; nobody puts itself out."""
    second, member = other_issuer(issuer, home, clock), member_of(issuer, clock)
    admitted = second.admit(second.invite(), KEYS[1].public, "bench-7")
    member.read(admitted.wire)
    with pytest.raises(UsageError, match="'first' is an issuer, which only the root puts out"):
        second.revoke("first", [issuer.chain.leaf])
    for one, name in ((issuer, "first"), (second, "second")):
        with pytest.raises(UsageError, match="that is this node itself"):
            one.revoke(name, [one.chain.leaf])
    with pytest.raises(UsageError, match="'bench-7' is no issuer: dhtos-node revoke"):
        issuer.revoke("bench-7", [admitted.leaf], issuer=True)
    lock_root(home, "words")
    with pytest.raises(Locked):
        issuer.revoke("second")
    (told,) = issuer.revoke("second", issuer=True, passphrase="words")
    line = read_line(home)
    assert line is not None
    assert told.signer == line.signer
    assert member.revoke(told)
    assert "revoked" in _why(member, second.chain.wire)
    assert "revoked" in _why(member, admitted.wire)


def test_a_new_root_signs_anew_what_counts(issuer: Issuer, home: Path, clock: Clock) -> None:
    second, member = other_issuer(issuer, home, clock), member_of(issuer, clock)
    gone = issuer.admit(issuer.invite(), KEYS[2].public, "gone").leaf
    (early,) = issuer.revoke("gone")  # it was made an issuer, too
    assert member.revoke(early)
    with pytest.raises(Refused, match="not half over"):
        issuer.renew(second.chain)
    own, again = issuer.rotate(DAY_S, member.revoked_by_roots())
    assert own == issuer.chain
    assert member.read(own.wire) == own
    assert member.heirs == own.heirs
    assert [one.serial for one in again] == [gone.serial]
    assert all(member.revoke(one) for one in again)
    renewed = issuer.renew(second.chain)  # of the old root, and so at once
    assert renewed.heirs == own.heirs
    second.go_on(renewed)
    plain = second.admit(second.invite(), KEYS[1].public, "third")
    assert member.read(plain.wire) == plain
    clock.now += DAY_S + 100
    assert member.read(plain.wire) == plain
    own, _ = issuer.rotate(DAY_S, [])
    with pytest.raises(UsageError, match="changed at most 2 times"):
        issuer.rotate(DAY_S, [])
    assert issuer.chain == own
    assert read_line(home).heirs == own.heirs  # type: ignore[union-attr]


def _why(member: Member, wire: bytes) -> str:
    """Why somebody is not believed."""
    with pytest.raises(MalformedMessage) as said:
        member.read(wire)
    return str(said.value)
