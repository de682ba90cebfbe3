"""Whom a member believes, and what it remembers of that."""

import pytest
from trust_world import BEGIN, DAY_S, NODE, Authority

from dhtos.errors import MalformedMessage
from dhtos.trust import cert, member
from dhtos.trust.cert import sign_cert
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import revoke


@pytest.fixture
def authority():
    return Authority()


def issuer(authority, name="issuer two", *, key=None, days=300.0):
    """Another issuer of the same root, with its chain."""
    key = key or KeyPair(authority.rng.randbytes(32))
    made = authority.cert(key, name, caps=(*NODE, "issue", "admin"), days=days)
    return key, sign_cert(authority.root, None, made)


def counting(monkeypatch, module, name):
    """How often a function of a module was called."""
    calls = []
    true = getattr(module, name)

    def counted(*args):
        calls.append(args)
        return true(*args)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_what_it_has_to_show(authority):
    one = authority.member("one", groups=("gpu",))
    assert one.groups == ("gpu",)
    assert one.read(one.chain.wire) == one.chain
    guest = authority.holder(KeyPair(b"g" * 32), None)
    assert guest.groups == ()
    with pytest.raises(AssertionError):
        authority.holder(KeyPair(b"g" * 32), one.chain)  # of another key


def test_a_chain_is_verified_once(monkeypatch):
    authority = Authority(20001)  # of which nothing was read before
    verified = counting(monkeypatch, cert, "verify")
    one, two = authority.member("one"), authority.member("two")
    for _ in range(5):
        assert one.read(two.chain.wire) is one.read(two.chain.wire)
    assert len(verified) == 2


def test_another_cluster_is_not_believed(authority):
    one = authority.member("one")
    with pytest.raises(MalformedMessage, match="of another cluster"):
        one.read(Authority(2).member("two").chain.wire)
    assert len(one.issuers) == 1  # and nothing is learnt from it


@pytest.mark.parametrize(
    ("wall_s", "why"),
    [
        (BEGIN - DAY_S - 91, "begins in 91 s"),
        (BEGIN - DAY_S - 90, None),
        (BEGIN + 30 * DAY_S + 89, None),
        (BEGIN + 30 * DAY_S + 90, "ended 90 s ago"),
    ],
)
def test_dates_are_looked_at_each_time(authority, wall_s, why):
    one, two = authority.member("one"), authority.member("two")
    one.read(two.chain.wire)
    one.read_link(two.chain.link)
    one.wall_s = lambda: wall_s
    for read, wire in [(one.read, two.chain.wire), (one.read_link, two.chain.link)]:
        if why is None:
            read(wire)
        else:
            with pytest.raises(MalformedMessage, match=why):
                read(wire)


def test_a_link_ends_with_its_issuer(authority):
    """The issuer's certificate may end first only by being short of its own signer's."""
    one, two = authority.member("one"), authority.member("two", days=300)
    one.read_link(two.chain.link)
    one.wall_s = lambda: BEGIN + 300 * DAY_S + 91
    with pytest.raises(MalformedMessage, match="ended"):
        one.read_link(two.chain.link)


def test_a_link_is_verified_once(monkeypatch):
    authority = Authority(20002)  # of which nothing was read before
    one, two = authority.member("one"), authority.member("two")
    verified = counting(monkeypatch, cert, "verify")
    for _ in range(5):
        assert one.read_link(two.chain.link) == two.chain.leaf
    assert len(verified) == 1


def test_an_issuer_is_known_from_any_chain(authority):
    key, chain = issuer(authority)
    person = KeyPair(b"p" * 32)
    admitted = sign_cert(key, chain, authority.cert(person, "by two"))
    one = authority.member("one")
    with pytest.raises(MalformedMessage, match="not known here"):
        one.read_link(admitted.link)
    one.read(admitted.wire)
    assert one.read_link(admitted.link) == admitted.leaf
    assert one.read_link(chain.link) == chain.leaf  # the root's own need nobody


def test_members_are_no_issuers(authority):
    one, two = authority.member("one"), authority.member("two")
    one.read(two.chain.wire)
    assert set(one.issuers) == {authority.key.public}
    node = KeyPair(b"n" * 32)
    direct = sign_cert(authority.root, None, authority.cert(node, "by the root"))
    one.read(direct.wire)
    assert set(one.issuers) == {authority.key.public}


def test_an_issuer_that_was_renewed_stays_so(authority):
    """Whoever shows its old certificate, of the same key, brings back nothing."""
    key, old = issuer(authority, days=10)
    _, new = issuer(authority, key=key, days=200)
    person = KeyPair(b"p" * 32)
    admitted = sign_cert(key, new, authority.cert(person, "person", days=30))
    one = authority.member("one")
    one.read(new.wire)
    one.read(old.wire)
    assert one.read_link(admitted.link) == admitted.leaf
    two = authority.member("two")
    two.read(old.wire)
    two.read(new.wire)
    assert two.read_link(admitted.link) == admitted.leaf


def test_what_is_remembered_is_bounded(authority, monkeypatch):
    monkeypatch.setattr(member, "LINKS_MAX", 3)
    monkeypatch.setattr(member, "ISSUERS_MAX", 2)
    one = authority.member("one")
    for n in range(6):
        other = authority.member(f"n{n}")
        one.read(other.chain.wire)
        one.read_link(other.chain.link)
        _, chain = issuer(authority)
        one.read(chain.wire)
        assert len(one._links) <= 3
        assert len(one.issuers) <= 2
    one.read(authority.member("later").chain.wire)


# --- what was taken back --------------------------------------------------------------------------


def taken_back(authority, key, leaf, *, cluster=None):
    return revoke(key, cluster or authority.name, leaf.serial, leaf.expires)


def test_what_was_taken_back_is_believed_no_more(authority):
    one, two, three = (authority.member(name) for name in ("one", "two", "three"))
    for other in (two, three):
        one.read(other.chain.wire)
        one.read_link(other.chain.link)
    assert not one.is_revoked(two.chain.link)
    assert one.revoke(taken_back(authority, authority.key, two.chain.leaf))
    assert one.is_revoked(two.chain.link)
    assert not one.is_revoked(three.chain.link)
    assert not one.is_revoked(b"never seen")
    for read, wire in [(one.read, two.chain.wire), (one.read_link, two.chain.link)]:
        with pytest.raises(MalformedMessage, match="was revoked"):
            read(wire)
    one.read(three.chain.wire)
    assert not one.revoke(taken_back(authority, authority.key, two.chain.leaf))  # no news


def test_with_an_issuer_go_those_it_admitted(authority):
    one, two = authority.member("one"), authority.member("two")
    one.read_link(two.chain.link)
    assert one.revoke(taken_back(authority, authority.root, authority.chain.leaf))
    assert one.is_revoked(two.chain.link)
    for read, wire in [(one.read, two.chain.wire), (one.read_link, two.chain.link)]:
        with pytest.raises(MalformedMessage, match="was revoked"):
            read(wire)


def test_who_may_not_takes_nothing_back(authority):
    one, two = authority.member("one"), authority.member("two")
    leaf = two.chain.leaf
    key, chain = issuer(authority)
    plain = KeyPair(b"a" * 32)
    made = authority.cert(plain, "no admin", caps=(*NODE, "issue"))
    one.read(sign_cert(authority.root, None, made).wire)
    for signer in (two.key, KeyPair(b"x" * 32), plain, key):  # the last is not known yet
        assert not one.revoke(taken_back(authority, signer, leaf))
    assert not one.revoke(taken_back(authority, authority.key, authority.chain.leaf))
    elsewhere = taken_back(authority, authority.key, leaf, cluster=Authority(2).name)
    assert not one.revoke(elsewhere)
    one.read(chain.wire)
    assert one.revoke(taken_back(authority, key, leaf))
    one.read(authority.chain.wire)
    assert one.revoke(taken_back(authority, authority.root, chain.leaf))
    other = authority.member("other").chain.leaf
    assert not one.revoke(taken_back(authority, key, other))  # it is no issuer any more


def test_no_issuer_takes_back_another_that_was_not_seen_yet(authority):
    """Whoever has not seen that certificate cannot tell what it is, until it sees it."""
    one = authority.member("one")
    key, chain = issuer(authority)
    admitted = sign_cert(key, chain, authority.cert(KeyPair(b"p" * 32), "by two"))
    assert one.revoke(taken_back(authority, authority.key, chain.leaf))
    assert one.read(admitted.wire) == admitted
    assert one.read_link(admitted.link) == admitted.leaf
    assert one.read_link(chain.link) == chain.leaf
    assert not one.is_revoked(admitted.link)
    assert not one.is_revoked(chain.link)


def test_what_has_ended_by_itself_is_forgotten(authority):
    one, two = authority.member("one"), authority.member("two", days=1)
    told = taken_back(authority, authority.key, two.chain.leaf)
    assert one.revoke(told)
    one.forget_ended()
    assert one.revoked
    one.wall_s = lambda: BEGIN + DAY_S + 91
    one.forget_ended()
    assert not one.revoked
    assert not one.revoke(told)
    one.restore([told])
    assert one.revoked == {told.serial: told}


def test_what_was_taken_back_is_bounded(authority, monkeypatch):
    monkeypatch.setattr(member, "REVOKED_MAX", 2)
    one = authority.member("one")
    taken = [
        one.revoke(taken_back(authority, authority.key, authority.member("n").chain.leaf))
        for _ in range(4)
    ]
    assert taken == [True, True, False, False]


def test_an_issuer_leaves_room_for_the_root(authority, monkeypatch):
    monkeypatch.setattr(member, "REVOKED_MAX", 32)
    one = authority.member("one")
    certs = [authority.member("n").chain.leaf for _ in range(34)]
    by_issuer = [one.revoke(taken_back(authority, authority.key, cert)) for cert in certs]
    assert by_issuer.count(True) == 30
    by_root = [one.revoke(taken_back(authority, authority.root, cert)) for cert in certs]
    assert by_root.count(True) == 32  # and of what issuers took back it says the same
    assert len(one.revoked) == 32


def test_a_later_term_of_its_own(authority):
    one = authority.member("one")
    later = authority.admit(one.key, "one", days=60)
    one.renew(later)
    assert one.chain is later
    with pytest.raises(AssertionError):
        one.renew(authority.member("two").chain)
