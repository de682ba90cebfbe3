"""Welcomes: their form, whose word they are, which of two holds, and what a visitor may."""

from itertools import permutations
from random import Random

import msgspec
import pytest
from trust_world import BEGIN, DAY_S, NODE, USER, Authority

from dhtos.core.limits import WELCOME_S_MAX, WELCOMES_MAX
from dhtos.errors import MalformedMessage
from dhtos.trust.cert import CLOCK_SKEW_S, NAME_BYTES_MAX, sign_cert, succeed
from dhtos.trust.cert import lineage as line_of
from dhtos.trust.keys import KeyPair
from dhtos.trust.member import Member
from dhtos.trust.revocation import revoke
from dhtos.trust.token import root_hash
from dhtos.trust.welcome import (
    WELCOME_BYTES_MAX,
    WELCOME_CAPS_MAX,
    is_signed,
    make_welcome,
    meet,
    read_welcome,
    visiting_name,
    visiting_serial,
    visitor,
    write_welcome,
)

KEY, OTHER = KeyPair(b"k" * 32), KeyPair(b"o" * 32)
CLUSTER, GUESTS = b"c" * 20, b"g" * 20
TOLD = make_welcome(
    KEY, CLUSTER, GUESTS, caps=("query", "claim:gpu"), group="partner",
    begins=BEGIN, expires=BEGIN + DAY_S,
)  # fmt: skip


def changed(**fields):
    return msgspec.structs.replace(TOLD, **fields)


# --- its form -------------------------------------------------------------------------------------


def test_it_comes_back():
    wire = write_welcome(TOLD)
    assert read_welcome(wire) == TOLD
    assert is_signed(TOLD, CLUSTER)


def test_the_longest_one_fits():
    caps = [f"query:{n}{'g' * 31}" for n in range(WELCOME_CAPS_MAX)]
    told = make_welcome(
        KEY, CLUSTER, GUESTS, caps=caps, group="p" * 32, begins=2**53 - 1, expires=2**53 + DAY_S
    )
    wire = write_welcome(told)
    assert 400 < len(wire) <= WELCOME_BYTES_MAX
    assert read_welcome(wire) == told


@pytest.mark.parametrize(
    "told",
    [
        changed(cluster=b"h" * 20),
        changed(caps=("query", "claim")),
        changed(caps=()),
        changed(group="ops"),
        changed(group=""),
        changed(begins=BEGIN + 1),
        changed(expires=BEGIN + DAY_S + 1),
        changed(signer=OTHER.public),
        changed(signature=bytes(64)),
        changed(signature=KEY.sign(b"welcome", b"")),
    ],
)
def test_what_was_changed_is_not_signed(told):
    assert not is_signed(told, CLUSTER)


def test_it_holds_in_one_cluster():
    assert not is_signed(TOLD, b"d" * 20)
    assert not is_signed(TOLD, GUESTS)


@pytest.mark.parametrize(
    "told",
    [
        changed(cluster=b"short"),
        changed(signer=b"short"),
        changed(signature=b"short"),
        changed(caps=("publish",)),
        changed(caps=("issue",)),
        changed(caps=("admin",)),
        changed(caps=("query:",)),
        changed(caps=("query:a b",)),
        changed(caps=("",)),
        changed(caps=("query",) * (WELCOME_CAPS_MAX + 1)),
        changed(group="a b"),
        changed(group="g" * 33),
        changed(begins=-1),
        changed(begins=2**53),
        changed(expires=BEGIN),
        changed(expires=BEGIN + WELCOME_S_MAX + 1),
        [],
        [GUESTS, ["query"]],
        {},
        "text",
    ],
)
def test_what_is_none(told):
    with pytest.raises(MalformedMessage):
        read_welcome(msgspec.msgpack.encode(told))


def test_what_cannot_be_said():
    for what in ({"caps": ["admin"]}, {"group": "a b"}, {"expires": BEGIN}):
        told = {"caps": ["query"], "begins": BEGIN, "expires": BEGIN + 1} | what
        with pytest.raises(MalformedMessage):
            make_welcome(KEY, CLUSTER, GUESTS, **told)


def test_bytes_that_are_none():
    wire = write_welcome(TOLD)
    for length in range(len(wire)):
        with pytest.raises(MalformedMessage):
            read_welcome(wire[:length])
    for other in (wire + b"\0", bytes(WELCOME_BYTES_MAX + 1)):
        with pytest.raises(MalformedMessage):
            read_welcome(other)


def test_no_flipped_bit_is_believed():
    wire = write_welcome(TOLD)
    for at in range(8 * len(wire)):
        flipped = bytearray(wire)
        flipped[at // 8] ^= 1 << at % 8
        try:
            read = read_welcome(bytes(flipped))
        except MalformedMessage:
            continue
        assert not is_signed(read, CLUSTER), at


# --- what a visitor may ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "given", "both"),
    [
        (("query", "claim"), ("query",), ("query",)),
        (("query",), ("query", "claim", "run"), ("query",)),
        (("query",), ("query:gpu",), ("query:gpu",)),
        (("query:gpu",), ("query",), ("query:gpu",)),
        (("query:gpu",), ("query:gpu",), ("query:gpu",)),
        (("query:gpu",), ("query:cpu",), ()),
        (("query:gpu", "query:cpu"), ("query:cpu", "claim"), ("query:cpu",)),
        (("query", "query:gpu"), ("query:cpu",), ("query:cpu",)),
        (("claim",), ("query",), ()),
        (("publish", "issue", "admin"), ("query", "claim", "run"), ()),
        ((), ("query",), ()),
        (("query",), (), ()),
    ],
)
def test_what_both_give(held, given, both):
    assert meet(held, given) == both


def test_a_visitor_is_no_more_than_a_visitor():
    theirs = Authority(2)
    for chain in (theirs.chain, theirs.member("node", groups=("ops",)).chain):
        told = msgspec.structs.replace(TOLD, cluster=theirs.name)
        shown = visitor(chain, told)
        leaf = shown.leaf
        assert (leaf.caps, leaf.groups, leaf.nonce) == (("query", "claim:gpu"), ("partner",), b"")
        assert leaf.subject == chain.leaf.subject
        assert leaf.expires == shown.expires == BEGIN + DAY_S  # the welcome ends first
        assert shown.home == theirs.name
        assert shown.principal is leaf
    assert visitor(chain, changed(group="")).leaf.groups == ()


def test_names_say_whence_and_are_cut():
    assert visiting_name("alice", GUESTS) == f"alice@{GUESTS.hex()[:8]}"
    long = visiting_name("é" * 31, GUESTS)
    assert len(long.encode()) <= NAME_BYTES_MAX
    assert long.endswith(f"é@{GUESTS.hex()[:8]}")


def test_nobody_chooses_a_serial_number_of_ours():
    assert visiting_serial(b"s" * 8, GUESTS) not in (b"s" * 8, visiting_serial(b"s" * 8, CLUSTER))


# --- whose word it is -----------------------------------------------------------------------------


class World:
    """A cluster, another one, and a clock."""

    def __init__(self):
        self.ours, self.theirs = Authority(1), Authority(2)
        self.now = 0.0

    def member(self):
        one = self.ours.member("one")
        one.wall_s = lambda: BEGIN + self.now
        return one

    def said(self, begins=BEGIN, *, key=None, caps=("query",), days=30, **what):
        told = {"expires": begins + int(days * DAY_S), "cluster": self.theirs.name} | what
        return make_welcome(
            key or self.ours.key, self.ours.name, begins=begins, caps=caps,
            cluster=told.pop("cluster"), **told,
        )  # fmt: skip

    def issuer(self, caps=(*NODE, "issue", "admin")):
        key = KeyPair(self.ours.rng.randbytes(32))
        return key, sign_cert(self.ours.root, None, self.ours.cert(key, "two", caps=caps))


@pytest.fixture
def world():
    return World()


def admits(member, theirs):
    """Whether somebody of the other cluster is believed now."""
    try:
        return member.admit(theirs.admit(KeyPair(b"v" * 32), "v", caps=USER).wire).home != b""
    except MalformedMessage:
        return False


def test_an_issuer_or_the_root_says_so(world):
    for key in (world.ours.key, world.ours.root):
        member = world.member()
        assert not admits(member, world.theirs)
        assert member.welcome(world.said(key=key))
        assert admits(member, world.theirs)
        assert not member.welcome(world.said(key=key))  # no news


def test_nobody_else_does(world):
    member = world.member()
    some, chain = world.issuer(caps=(*NODE, "issue"))  # it may not admin
    assert member.meet(chain.wire)
    unknown, _ = world.issuer()
    for key in (some, unknown, member.key, world.theirs.key, world.theirs.root):
        assert not member.welcome(world.said(key=key))
    forged = msgspec.structs.replace(world.said(caps=("query", "run")), caps=("query",))
    assert not member.welcome(forged)
    assert not member.welcome(world.said(cluster=world.ours.name))
    elsewhere = make_welcome(
        world.ours.key, world.theirs.name, world.theirs.name,
        caps=["query"], begins=BEGIN, expires=BEGIN + 9,
    )  # fmt: skip
    assert not member.welcome(elsewhere)
    assert member.welcomes == {}


def test_an_issuer_gives_what_it_has(world):
    member = world.member()
    key, chain = world.issuer(caps=("query", "publish", "claim:lab", "issue:lab", "admin"))
    assert member.meet(chain.wire)
    for what in ({"caps": ("claim",)}, {"caps": ("run",)}, {"group": "ops"}):
        assert not member.welcome(world.said(key=key, **what))
    assert member.welcome(world.said(key=key, caps=("query", "claim:lab"), group="lab"))


def test_the_later_one_holds_in_whatever_order_they_come(world):
    said = [
        world.said(BEGIN - 30, caps=("query", "run")),
        world.said(BEGIN - 20, caps=()),
        world.said(BEGIN - 10, caps=("query", "claim")),
        world.said(BEGIN - 10, caps=("query",)),
    ]
    last = max(said, key=lambda one: (one.begins, one.signature))
    told = set()
    for order in permutations(said):
        member = world.member()
        for one in order:
            member.welcome(one)
        assert member.welcomes == {world.theirs.name: last}
        told.add(tuple(member.told()))
    assert len(told) == 1


def test_what_was_withdrawn_does_not_come_back(world):
    """Not by who kept it, and not once the withdrawal has been forgotten."""
    member, first = world.member(), world.said(BEGIN, days=90)
    assert member.welcome(first)
    world.now = 60.0
    assert member.welcome(world.said(BEGIN + 60, caps=(), days=1))
    assert not admits(member, world.theirs)
    for days in (0.5, 2, 89.999, 90.01, 100):
        world.now = days * DAY_S
        member.forget_ended()
        member.welcome(first)
        assert not admits(member, world.theirs), days
    assert member.welcomes == {}


def test_a_shorter_one_that_has_ended_does_not_bring_the_longer_one_back(world):
    member, long = world.member(), world.said(BEGIN, days=90)
    assert member.welcome(long)
    assert member.welcome(world.said(BEGIN + 1, days=1))
    world.now = 2 * DAY_S
    member.forget_ended()
    assert not member.welcome(long)
    assert not admits(member, world.theirs)


def test_it_holds_from_its_begin_to_its_end(world):
    member, said = world.member(), world.said(BEGIN, days=1)
    world.now = -CLOCK_SKEW_S - 1
    assert not member.welcome(said)  # a begin far ahead would outdo all that follow
    world.now = 0.0
    assert member.welcome(said)
    world.now = DAY_S - 1
    assert admits(member, world.theirs)
    world.now = DAY_S
    assert not admits(member, world.theirs)


def test_it_falls_with_who_has_said_it(world):
    member = world.member()
    key, chain = world.issuer()
    assert member.meet(chain.wire)
    assert member.welcome(world.said(key=key))
    assert admits(member, world.theirs)
    leaf = chain.leaf
    assert member.revoke(revoke(world.ours.root, world.ours.name, leaf.serial, leaf.expires))
    assert not admits(member, world.theirs)
    assert member.welcomed() == []  # nobody is told of it
    assert member.welcome(world.said(BEGIN + 1))  # another issuer says it again
    assert admits(member, world.theirs)


def test_it_falls_with_a_root_that_is_over(world):
    member = world.member()
    assert member.welcome(world.said(key=world.ours.root))
    heir = KeyPair(b"h" * 32)
    line = succeed(world.ours.root, line_of(world.ours.root.public), heir.public, BEGIN + 100)
    key = KeyPair(b"i" * 32)
    assert member.meet(
        sign_cert(heir, line, world.ours.cert(key, "new", caps=(*NODE, "issue"))).wire
    )
    assert admits(member, world.theirs)
    world.now = 100 + CLOCK_SKEW_S
    assert not admits(member, world.theirs)
    assert member.welcome(world.said(BEGIN + 150, key=heir))
    assert admits(member, world.theirs)


def test_so_many_are_kept(world):
    member = world.member()
    clusters = [bytes([number]) * 20 for number in range(1, WELCOMES_MAX + 2)]
    known = [member.welcome(world.said(cluster=cluster)) for cluster in clusters]
    assert known == [True] * WELCOMES_MAX + [False]
    assert member.welcome(world.said(BEGIN + 1, cluster=clusters[0], caps=()))  # of a known one
    assert len(member.welcomes) == WELCOMES_MAX


def test_it_outlives_a_restart(world):
    member, again = world.member(), world.member()
    assert member.welcome(world.said())
    again.restore([], member.welcomes.values())
    assert admits(again, world.theirs)


# --- the visitor itself ---------------------------------------------------------------------------


def test_a_visitor_believes_the_cluster_that_it_visits_and_is_of_its_own(world):
    key = KeyPair(b"v" * 32)
    chain = world.theirs.admit(key, "v", caps=NODE, groups=("ops",))
    rng = Random(1)
    guest = Member(key, world.ours.name, entropy=rng.randbytes, wall_s=lambda: BEGIN, chain=chain)
    assert guest.home == world.theirs.name
    assert guest.issuers == {}
    assert guest.here.caps == ("claim", "query", "run")  # before it knows what is welcome
    host = world.member()
    assert guest.read(host.chain.wire).leaf == host.chain.leaf
    assert guest.read_link(host.chain.link) == host.chain.leaf
    with pytest.raises(MalformedMessage, match="another cluster"):
        guest.read(world.theirs.chain.wire)
    assert guest.welcome(world.said())
    assert guest.here.caps == ("query",)
    assert guest.known_as(chain.leaf) == guest.here.name != "v"
    guest.renew(chain)
    assert world.theirs.key.public not in guest.issuers


def test_what_a_visitor_signs_is_nobodys_record(world):
    member = world.member()
    assert member.welcome(world.said())
    theirs = world.theirs.member("node")
    with pytest.raises(MalformedMessage):
        member.read_link(theirs.chain.link)
    assert root_hash(world.theirs.root.public) == world.theirs.name
