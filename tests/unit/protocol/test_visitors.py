"""Two clusters: who is of a welcome one has sessions, asks, and does nothing else."""

from random import Random

import pytest
from trust_world import BEGIN, DAY_S, NODE, USER, Authority, End, Wire, member_of, secured

from dhtos.protocol.engine import Engine
from dhtos.protocol.renewal import Renewal
from dhtos.protocol.revocations import FANOUT, PULL_S
from dhtos.protocol.rpc import Core
from dhtos.sim import Cluster
from dhtos.sim.engines import bootstrap
from dhtos.trust.cert import lend, sign_cert
from dhtos.trust.keys import KeyPair
from dhtos.trust.member import Member
from dhtos.trust.revocation import revoke
from dhtos.trust.welcome import make_welcome, visiting_serial, write_welcome

HOST, GUEST = ("10.0.0.1", 7400), ("10.0.0.2", 7400)
MESSAGE = b"a request of fifty bytes, as a ping is one of them."
REFUSED = "it refuses us: a certificate is of another cluster"


@pytest.fixture
def ours():
    return Authority(1)


@pytest.fixture
def theirs():
    return Authority(2)


def welcome(ours, theirs, *, caps=("query",), group="partner", begins=BEGIN, days=30.0, key=None):
    return make_welcome(
        key or ours.key,
        ours.name,
        theirs.name,
        caps=caps,
        group=group,
        begins=begins,
        expires=begins + int(days * DAY_S),
    )


def visitor(ours, theirs, name="alice", *, key=None, chain=None, now=0.0, **what):
    """A member of their cluster that asks ours."""
    key = key or KeyPair(theirs.rng.randbytes(32))
    chain = chain or theirs.admit(key, name, **({"caps": USER} | what))
    rng = Random(theirs.rng.random())
    return Member(key, ours.name, entropy=rng.randbytes, wall_s=lambda: BEGIN + now, chain=chain)


def meeting(ours, guest, *welcomes):
    """A host that knows these welcomes, the visitor, and what it said to the host."""
    host = End(ours.member("host"), HOST)
    for one in welcomes:
        assert host.sessions.member.welcome(one)
    end = End(guest, GUEST)
    wire = Wire(host, end)
    wire.send(end, MESSAGE, host)
    wire.run_for(1.0)
    return wire, host, end


def test_without_a_welcome_it_is_refused_as_ever(ours, theirs):
    _, host, guest = meeting(ours, visitor(ours, theirs))
    assert host.got == []
    assert guest.sessions.refusals == {HOST: REFUSED}
    assert host.counters["handshakes_refused"] == 1


def test_a_visitor_asks_and_does_nothing_else(ours, theirs):
    guest = visitor(ours, theirs, caps=NODE, groups=("ops",))  # a node of its own cluster
    wire, host, end = meeting(ours, guest, welcome(ours, theirs))
    assert host.got == [MESSAGE]
    shown = host.sessions.speaker
    assert (shown.leaf.caps, shown.leaf.groups) == (("query",), ("partner",))
    assert shown.leaf.name == shown.principal.name == f"alice@{theirs.name.hex()[:8]}"
    assert not shown.leaf.is_node
    assert host.sessions.node_id(GUEST) is None
    assert host.sessions.members() == []
    assert host.sessions.allows("query")
    for verb in ("publish", "claim", "run", "issue", "admin"):
        assert not host.sessions.allows(verb)
        assert host.sessions.refusal(verb, 1e-6, wire.now) == "requests_denied"
    wire.send(host, b"the answer", end)  # and it believes the members of ours
    wire.run_for(1.0)
    assert end.got == [b"the answer"]
    assert end.sessions.members() == [HOST]


def test_nothing_is_learned_from_a_visitor(ours, theirs):
    member = ours.member("host")
    known = dict(member.issuers)
    member.fresh.clear()
    assert member.welcome(welcome(ours, theirs, caps=("query", "claim", "run")))
    for wire in (theirs.chain.wire, theirs.member("node").chain.wire):
        shown = member.admit(wire)
        assert shown.leaf.scopes("issue") == shown.leaf.scopes("admin") == frozenset()
    assert member.issuers == known
    assert not member.fresh
    assert ours.member("x").chain.root == member._root_key
    with pytest.raises(Exception, match="of another cluster"):
        member.read(theirs.chain.wire)
    assert not member.meet(theirs.chain.wire)


def test_a_withdrawal_ends_sessions(ours, theirs):
    wire, host, guest = meeting(ours, visitor(ours, theirs), welcome(ours, theirs))
    assert host.sessions.member.welcome(welcome(ours, theirs, caps=(), begins=BEGIN + 1))
    assert [session.endpoint for session in host.sessions.forget_revoked()] == [GUEST]
    wire.send(guest, MESSAGE[::-1], host)
    wire.run_for(10.0)
    assert host.got == [MESSAGE]
    assert REFUSED in guest.sessions.refusals[HOST]


def test_one_visitor_is_put_out_by_its_serial_number(ours, theirs):
    guest = visitor(ours, theirs)
    _, host, _ = meeting(ours, guest, welcome(ours, theirs))
    member, leaf = host.sessions.member, host.sessions.speaker.leaf
    assert leaf.serial == visiting_serial(guest.chain.leaf.serial, theirs.name)
    assert member.revoke(revoke(ours.key, ours.name, leaf.serial, leaf.expires))
    assert len(host.sessions.forget_revoked()) == 1
    member.admit(visitor(ours, theirs, "bob").chain.wire)  # and no other


def test_all_visitors_of_a_cluster_share(ours, theirs):
    _, host, _ = meeting(ours, visitor(ours, theirs), welcome(ours, theirs))
    another = End(visitor(ours, theirs, "bob"), ("10.0.0.3", 7400))
    wire = Wire(host, another)
    wire.send(another, b"of bob", host)
    wire.run_for(1.0)
    assert host.got == [MESSAGE, b"of bob"]
    principals = {session.principal for session in host.sessions._by_index.values()}
    assert principals == {theirs.name}


def test_what_a_visitor_lent_is_restricted_as_well(ours, theirs):
    key, job = KeyPair(b"a" * 32), KeyPair(b"j" * 32)
    above = theirs.admit(key, "alice", caps=USER, groups=("ops",))
    chain = lend(key, above, job.public, serial=b"l" * 8, begin=BEGIN, lifetime_s=600)
    _, host, _ = meeting(
        ours, visitor(ours, theirs, key=job, chain=chain), welcome(ours, theirs, caps=("claim",))
    )
    shown = host.sessions.speaker
    assert shown.leaf.subject == job.public
    assert shown.principal.subject == key.public
    assert [(c.caps, c.groups) for c in shown.certs] == [(("claim",), ("partner",))] * 2


def test_no_issuer_of_ours_renews_a_visitor(ours, theirs):
    _, host, _ = meeting(ours, visitor(ours, theirs), welcome(ours, theirs))
    asked = []
    core = Core(Random(1))
    core.sessions = host.sessions
    renewal = Renewal(core, asked.append)
    answer = renewal._on_renew([], GUEST, None, 0.0)
    assert "in the cluster that it is of" in str(answer)
    assert asked == []


def test_a_visitor_without_anything_that_is_welcome(ours, theirs):
    _, host, guest = meeting(
        ours, visitor(ours, theirs, caps=("claim",)), welcome(ours, theirs, caps=("query",))
    )
    assert host.got == []
    assert "nothing that its cluster is welcome for" in guest.sessions.refusals[HOST]


def test_a_visitor_of_a_third_cluster_is_refused(ours, theirs):
    third = Authority(3)
    _, host, guest = meeting(ours, visitor(ours, third), welcome(ours, theirs))
    assert host.got == []
    assert guest.sessions.refusals == {HOST: REFUSED}


def test_a_node_of_the_root_itself_visits(ours, theirs):
    key = KeyPair(b"n" * 32)
    chain = sign_cert(theirs.root, None, theirs.cert(key, "first", caps=(*NODE, "issue", "admin")))
    _, host, _ = meeting(
        ours, visitor(ours, theirs, key=key, chain=chain), welcome(ours, theirs, caps=("query",))
    )
    leaf = host.sessions.speaker.leaf
    assert (leaf.caps, leaf.nonce) == (("query",), b"")


class Asked:
    """Somebody who waits for an answer."""

    def __init__(self):
        self.heard = []

    def on_reply(self, _call, value, _trailer, _now):
        self.heard.append(value)

    def on_late(self, _call, _now):
        pass

    def on_failure(self, _call, _now):
        pass


def test_a_visitor_at_the_address_of_a_member_answers_for_nobody(ours, theirs):
    """But for what it has had here: receipts of its leases."""
    asked, answered = Asked(), []

    def build(node, now):
        if node.index == 0:
            member = ours.member("host")
            assert member.welcome(welcome(ours, theirs))
        else:
            member = visitor(ours, theirs)
        engine = Engine(node.id, rng=node.rng, now=now, member=member)
        if node.index == 1:
            for name in ("dh_range", "dh_receipt"):
                engine.core.register(name, lambda *_: answered.append(1) or ["lie"], verb=None)
        return engine

    cluster = Cluster(build, seed=1, bootstrap=bootstrap)
    host, guest = cluster.add(2)
    cluster.begin(guest, lambda e, now: e.base.bootstrap([host.endpoint], now))
    cluster.run_for(2.0)
    calls = host.engine.core.calls
    for name in ("find_node", "dh_range", "dh_receipt"):
        cluster.begin(
            host, lambda _, now, name=name: calls.send(guest.endpoint, name, [], asked, now)
        )
    cluster.run_for(5.0)
    assert len(answered) >= 2
    assert asked.heard == [["lie"]]
    assert host.engine.counters["replies_foreign"] >= 1
    host.engine.check()


# --- how it spreads -------------------------------------------------------------------------------


def members(ours, count):
    """Members that know each other."""
    cluster = Cluster(secured(ours), seed=1, bootstrap=bootstrap)
    nodes = cluster.add(count)
    for node in nodes[1:]:
        cluster.begin(node, lambda e, now: e.base.bootstrap([nodes[0].endpoint], now))
    cluster.run_for(10.0)
    return cluster, nodes


def say(cluster, node, *welcomes):
    """How many were news to a node."""
    found = []
    cluster.begin(node, lambda e, now: found.append(e.revocations.welcome(welcomes, now)))
    return found[0]


def knowing(nodes, said):
    return [node for node in nodes if member_of(node).welcomes.get(said.cluster) == said]


def test_all_hear_of_it(ours, theirs):
    cluster, nodes = members(ours, 12)
    said = welcome(ours, theirs)
    before = nodes[0].engine.counters["notices_out"]
    assert say(cluster, nodes[0], said) == 1
    assert nodes[0].engine.counters["notices_out"] - before == FANOUT
    assert say(cluster, nodes[0], said) == 0
    cluster.run_for(1.0)
    assert knowing(nodes, said) == nodes
    last = welcome(ours, theirs, caps=(), begins=BEGIN + 1)
    say(cluster, nodes[5], last)
    cluster.run_for(1.0)
    assert knowing(nodes, last) == nodes
    say(cluster, nodes[3], said)  # told again: nobody goes back to it
    cluster.run_for(3 * PULL_S)
    assert knowing(nodes, last) == nodes
    assert [node.engine.counters["malformed"] for node in nodes] == [0] * 12


def test_who_was_missed_and_who_comes_later_ask_for_it(ours, theirs):
    """Also when the issuer that has said so is not known there yet."""
    cluster, nodes = members(ours, 4)
    key = KeyPair(b"i" * 32)
    cert = ours.cert(key, "two", caps=(*NODE, "issue", "admin"), days=200)
    issuer = sign_cert(ours.root, None, cert)
    said = [
        welcome(ours, Authority(seed), caps=("query", "claim", "run"), key=key)
        for seed in range(10, 30)
    ]
    cluster.pause([nodes[3]])
    cluster.begin(nodes[0], lambda e, _: e.revocations.introduce([issuer.wire]))
    assert say(cluster, nodes[0], *said) == 20
    cluster.run_for(2.0)
    cluster.unpause([nodes[3]])
    (late,) = cluster.add(1)
    cluster.begin(late, lambda e, now: e.base.bootstrap([nodes[1].endpoint], now))
    cluster.run_for(4 * PULL_S)
    assert [len(member_of(node).welcomes) for node in (*nodes, late)] == [20] * 5
    asked = nodes[0].engine.counters["welcomes"]
    cluster.run_for(4 * PULL_S)
    assert nodes[0].engine.counters["welcomes"] == asked


def test_what_is_told_must_hold(ours, theirs):
    cluster, nodes = members(ours, 3)
    core = nodes[1].engine.core
    own = member_of(nodes[1]).key  # a node, and no issuer
    wire = write_welcome(welcome(ours, theirs, key=own))
    for told in ([wire], [b"junk"], "text", [1], [b"x" * 481], [b""] * 65):
        core.calls.notify(nodes[0].endpoint, "dh_revoked", [[], [], told])
    cluster.begin(nodes[1], lambda *_: None)
    cluster.run_for(1.0)
    assert not member_of(nodes[0]).welcomes
    assert nodes[0].engine.counters["malformed"] == 5
