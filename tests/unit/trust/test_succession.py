"""A root that follows another: believed for what the old one signed, and of two the first shown."""

import msgspec
import pytest
from trust_world import BEGIN, DAY_S, NODE, Authority

from dhtos.errors import MalformedMessage, UsageError
from dhtos.trust.cert import (
    CHAIN_BYTES_MAX,
    lineage,
    parse_chain,
    parse_lineage,
    sign_cert,
    succeed,
)
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import revoke
from dhtos.trust.succession import HEIRS_MAX, Succession, read_succession, write_succession

ISSUER = (*NODE, "issue", "admin")
ENDS = BEGIN + 2 * DAY_S
HEIR, RIVAL = KeyPair(b"h" * 32), KeyPair(b"r" * 32)


@pytest.fixture
def authority():
    return Authority()


def line_of(authority, *heirs, ends=ENDS):
    """The roots from the first to the last of these."""
    line, key = lineage(authority.root.public), authority.root
    for heir in heirs:
        line, key = succeed(key, line, heir.public, ends), heir
    return line


def issuer_of(authority, root, line, *, key=None, days=320.0):
    """An issuer's key and its chain, by the last root."""
    key = key or KeyPair(authority.rng.randbytes(32))
    cert = authority.cert(key, "issuer", caps=ISSUER, days=days)
    return key, sign_cert(root, line, cert)


def by_heir(authority, heir=HEIR, name="new"):
    """The chain of a member whose issuer is of the new root."""
    key, chain = issuer_of(authority, heir, line_of(authority, heir))
    return sign_cert(key, chain, authority.cert(KeyPair(authority.rng.randbytes(32)), name))


def test_a_chain_shows_the_line_to_its_root(authority):
    chain = by_heir(authority)
    assert parse_chain(chain.wire) == chain
    assert (chain.root, chain.signer) == (authority.root.public, HEIR.public)
    assert chain.heirs == (Succession(HEIR.public, ENDS),)
    assert parse_chain(chain.first.wire) == chain.first
    assert chain.first.heirs == chain.heirs
    line = line_of(authority, HEIR)
    assert parse_lineage(line.wire) == line
    old = authority.member("old").chain
    assert (old.heirs, old.signer) == ((), old.root)


def test_whoever_believes_the_first_root_believes_its_heir(authority):
    one, chain = authority.member("one"), by_heir(authority)
    assert one.read(chain.wire) == chain
    assert one.heirs == chain.heirs
    assert one.is_outdated(one.chain)
    assert not one.is_outdated(chain)
    guest = authority.holder(KeyPair(b"g" * 32), None)
    assert guest.read(chain.wire) == chain  # a token names the first root, whatever came after it
    assert one.read_link(chain.link) == chain.leaf
    assert one.read_link(chain.first.link) == chain.first.leaf  # the new root's own
    assert one.read_link(authority.chain.link) == authority.chain.leaf  # and the old one's


def test_what_the_old_root_signed_ends_on_its_day(authority):
    one, old = authority.member("one"), authority.member("two").chain
    one.read(old.wire)
    one.read_link(old.link)
    one.read(by_heir(authority).wire)
    one.wall_s = lambda: ENDS + 89.0
    one.read(old.wire)
    one.read_link(old.link)
    one.wall_s = lambda: ENDS + 90.0
    for read, wire in [
        (one.read, old.wire),
        (one.read, authority.chain.wire),
        (one.read_link, authority.chain.link),
    ]:
        with pytest.raises(MalformedMessage, match="of a root that has a successor"):
            read(wire)
    with pytest.raises(MalformedMessage):
        one.read_link(old.link)
    assert authority.key.public not in one.introductions()
    leaf = by_heir(authority).leaf
    assert not one.revoke(revoke(authority.key, authority.name, leaf.serial, leaf.expires))


def test_an_issuer_of_both_roots_is_that_of_the_new_one(authority):
    """So what it signed goes on, though its old certificate ends later."""
    one, two = authority.member("one"), authority.member("two")
    one.read_link(two.chain.link)
    _, chain = issuer_of(authority, HEIR, line_of(authority, HEIR), key=authority.key, days=250)
    assert chain.expires < authority.chain.expires
    assert one.meet(chain.wire)
    assert not one.meet(authority.chain.wire)
    assert one.rank_of(authority.key.public) == 1
    one.wall_s = lambda: ENDS + 1000.0
    assert one.read_link(two.chain.link) == two.chain.leaf


def test_of_two_heirs_the_first_that_was_shown_holds(authority):
    one = authority.member("one")
    first, second = by_heir(authority), by_heir(authority, RIVAL)
    one.read(first.wire)
    for wire in (second.wire, second.first.wire):
        with pytest.raises(MalformedMessage, match="of another successor of the root"):
            one.read(wire)
        assert not one.meet(second.first.wire)
    assert one.heirs == first.heirs
    other = authority.member("other")
    other.read(second.wire)
    with pytest.raises(MalformedMessage, match="of another successor"):
        other.read(first.wire)
    longer = line_of(authority, HEIR, RIVAL)
    _, third = issuer_of(authority, RIVAL, longer)
    one.read(third.wire)
    assert one.heirs == longer.heirs
    one.read(first.wire)  # until its day


def test_the_end_of_a_root_does_not_move(authority):
    one = authority.member("one")
    one.read(by_heir(authority).wire)
    line = line_of(authority, HEIR, ends=ENDS + 1000 * DAY_S)
    one.read(issuer_of(authority, HEIR, line)[1].wire)
    assert [heir.ends for heir in one.heirs] == [ENDS]


def test_nobody_but_a_root_names_its_heir(authority):
    """Not an issuer, not another root, not for another cluster, and no line is cut or mixed."""
    forged = line_of(Authority(2), HEIR)
    mixed = msgspec.msgpack.decode(forged.wire)
    mixed[0] = authority.root.public
    wire = msgspec.msgpack.encode(mixed)
    with pytest.raises(MalformedMessage, match="not signed by the root before it"):
        parse_lineage(wire)
    two = msgspec.msgpack.decode(line_of(authority, HEIR, RIVAL).wire)
    swapped = msgspec.msgpack.encode([*two[:2], two[2][::-1]])
    with pytest.raises(MalformedMessage, match="not signed by the root before it"):
        parse_lineage(swapped)
    chain = msgspec.msgpack.decode(by_heir(authority).wire)
    cut = msgspec.msgpack.encode(chain[:2])
    with pytest.raises(MalformedMessage, match="not signed by the one before it"):
        parse_chain(cut)
    with pytest.raises(AssertionError):
        succeed(authority.key, lineage(authority.root.public), HEIR.public, ENDS)


def test_each_changed_byte_is_noticed(authority):
    chain = by_heir(authority)
    one = authority.member("one")
    for at in range(len(chain.wire)):
        wire = bytearray(chain.wire)
        wire[at] ^= 1
        with pytest.raises(MalformedMessage):
            one.read(bytes(wire))
    assert one.heirs == ()


def test_a_revocation_by_the_old_root_is_none_of_the_new_one(authority):
    """Whoever stole it takes nothing back; the new root says again what the old one had said."""
    one = authority.member("one")
    issuer, chain = issuer_of(authority, HEIR, line_of(authority, HEIR))
    gone = authority.member("gone").chain.leaf
    early = revoke(authority.root, authority.name, gone.serial, gone.expires)
    assert one.revoke(early)
    one.read(chain.wire)
    assert one.revoked_by_roots() == [early]
    stolen = revoke(authority.root, authority.name, chain.leaf.serial, chain.leaf.expires)
    assert not one.revoke(stolen)
    one.restore([stolen])
    assert one.read(chain.wire) == chain  # nor one that was believed before
    again = revoke(HEIR, authority.name, gone.serial, gone.expires)
    assert one.revoke(again)
    assert one.revoked_by_roots() == [again, stolen]
    assert one.revoke(revoke(HEIR, authority.name, chain.leaf.serial, chain.leaf.expires))
    with pytest.raises(MalformedMessage, match="was revoked"):
        one.read(chain.wire)
    assert issuer.public not in one.introductions()


def test_a_line_is_as_long_as_a_chain_has_room_for(authority):
    heirs = [KeyPair(bytes([n]) * 32) for n in range(HEIRS_MAX)]
    line = line_of(authority, *heirs)
    with pytest.raises(UsageError, match=f"at most {HEIRS_MAX} times: make another cluster"):
        succeed(heirs[-1], line, HEIR.public, ENDS)
    key, chain = issuer_of(authority, heirs[-1], line)
    node = KeyPair(b"n" * 32)
    chain = sign_cert(key, chain, authority.cert(node, "a-host-name.of-some.domain"))
    lent = sign_cert(node, chain, authority.cert(KeyPair(b"d" * 32), "job", caps=("query",)))
    print(f"{len(lent.wire)} bytes of {CHAIN_BYTES_MAX} with {HEIRS_MAX} successions")
    assert authority.member("one").read(lent.wire) == lent
    assert parse_chain(lent.lender.wire) == chain
    read = msgspec.msgpack.decode(line.wire)
    read[2].append(read[2][-1])
    with pytest.raises(MalformedMessage, match="at most"):
        parse_lineage(msgspec.msgpack.encode(read))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        write_succession(Succession(b"short", ENDS)),
        write_succession(Succession(HEIR.public, 0)),
        write_succession(Succession(HEIR.public, 2**53)),
        msgspec.msgpack.encode([HEIR.public, ENDS, 1]),
    ],
)
def test_what_is_no_succession(body):
    with pytest.raises(MalformedMessage):
        read_succession(body)


@pytest.mark.parametrize("wire", [b"", b"junk", msgspec.msgpack.encode([b"short", []])])
def test_what_is_no_line(wire):
    with pytest.raises(MalformedMessage):
        parse_lineage(wire)
    with pytest.raises(MalformedMessage, match="has no certificates"):
        parse_lineage(Authority().chain.wire)
