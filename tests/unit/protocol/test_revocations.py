"""How members hear whom to believe no more: told, asked for, and acted upon."""

import pytest
from trust_world import NODE, Authority, member_of, secured

from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import make_record
from dhtos.errors import MalformedMessage
from dhtos.protocol.revocations import FANOUT, PULL_S
from dhtos.sim import Cluster
from dhtos.sim.engines import bootstrap
from dhtos.trust.cert import sign_cert
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import revoke, write_revocation


@pytest.fixture
def authority():
    return Authority()


def world(authority, count, *, hub=False):
    """Members that know each other; with `hub` they advertise a machine each."""
    factory = secured(authority, schema=MACHINE_SCHEMA if hub else None)
    cluster = Cluster(factory, seed=1, bootstrap=bootstrap)
    nodes = cluster.add(count)
    for node in nodes[1:]:
        cluster.begin(node, lambda e, now: e.base.bootstrap([nodes[0].endpoint], now))
    if hub:
        for node in nodes:
            begin_in_hub(cluster, node, nodes[0])
            cluster.run_for(0.2)
    cluster.run_for(10.0)
    return cluster, nodes


def begin_in_hub(cluster, node, first):
    record = make_record(
        MACHINE_SCHEMA,
        {"cores": 4 + node.index},
        {},
        node_id=node.id,
        endpoint=node.endpoint,
        seq=1,
        identity=member_of(node).key.public,
    )
    cluster.begin(node, lambda e, now: e.hub.advertise(record, now))
    if node is first:
        cluster.begin(node, lambda e, now: e.hub.found(now))
    else:
        cluster.begin(node, lambda e, now: e.hub.join([first.endpoint], now))


def taken_back(authority, *nodes):
    leaves = [member_of(node).chain.leaf for node in nodes]
    return [revoke(authority.key, authority.name, leaf.serial, leaf.expires) for leaf in leaves]


def add(cluster, node, revocations):
    """How many were news to a node."""
    found = []
    cluster.begin(node, lambda e, now: found.append(e.revocations.add(revocations, now)))
    return found[0]


def knowing(nodes, revocation):
    return [node for node in nodes if revocation.serial in member_of(node).revoked]


def test_all_hear_of_it_and_nobody_keeps_anything_of_it(authority):
    cluster, nodes = world(authority, 12, hub=True)
    gone, others = nodes[5], [node for node in nodes if node is not nodes[5]]
    (revocation,) = told = taken_back(authority, gone)
    assert all(gone.engine.hub.key in node.engine.hub.group.members for node in others)
    assert add(cluster, nodes[0], told) == 1
    assert add(cluster, nodes[0], told) == 0  # no news any more
    cluster.run_for(1.0)  # a push is enough for so few
    assert knowing(others, revocation) == others
    for node in others:
        assert gone.id not in {contact.id for contact in node.engine.base.contacts()}
        assert gone.engine.hub.key not in node.engine.hub.group.members
        assert gone.endpoint not in node.engine.core.sessions.members()
        assert node.engine.counters["revocations"] == 1
    cluster.run_for(60.0)  # and it comes back nowhere
    for node in others:
        assert gone.id not in {contact.id for contact in node.engine.base.contacts()}
        assert gone.engine.hub.key not in node.engine.hub.group.members
        node.engine.check()


def test_it_is_told_to_a_few(authority):
    cluster, nodes = world(authority, 12)
    core = nodes[0].engine.core
    before = core.counters["notices_out"]
    add(cluster, nodes[0], taken_back(authority, nodes[5]))
    assert core.counters["notices_out"] - before == FANOUT


def test_whoever_was_missed_asks_for_it(authority):
    """So many that the answer has several parts."""
    cluster, nodes = world(authority, 4)
    cluster.pause([nodes[3]])
    leaves = [authority.member("gone").chain.leaf for _ in range(30)]
    told = [revoke(authority.key, authority.name, leaf.serial, leaf.expires) for leaf in leaves]
    assert add(cluster, nodes[0], told) == 30
    cluster.run_for(2.0)
    cluster.unpause([nodes[3]])
    cluster.run_for(0.5)
    member_of(nodes[3]).revoked.clear()  # what has waited in its buffer
    cluster.run_for(4 * PULL_S)
    assert len(member_of(nodes[3]).revoked) == 30
    cluster.run_for(4 * PULL_S)
    for node in nodes:
        assert node.engine.counters["malformed"] == 0
        assert not any(c.name == "dh_revocations" for c in node.engine.core.calls._open.values())


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        [0, 1],
        [0, 1, [b"junk"]],
        [0, 1, "text"],
        [-1, 1, []],
        [0, 2**40, []],
        [0, 1, [b"x" * 1000]],
    ],
)
def test_a_strange_answer_is_counted(authority, reply):
    cluster, nodes = world(authority, 2)
    nodes[1].engine.core.replace("dh_revocations", lambda *_: reply)
    before = nodes[0].engine.counters["malformed"]
    cluster.run_for(3 * PULL_S)
    assert nodes[0].engine.counters["malformed"] > before
    assert not member_of(nodes[0]).revoked


def test_whoever_falls_silent_is_asked_no_more_of(authority):
    cluster, nodes = world(authority, 2)
    cluster.crash([nodes[1]])
    cluster.run_for(4 * PULL_S)
    assert nodes[0].engine.counters["calls_failed"] > 0
    nodes[0].engine.check()


def test_what_is_told_must_hold(authority):
    cluster, nodes = world(authority, 3)
    core = nodes[1].engine.core
    leaf = member_of(nodes[2]).chain.leaf
    own = member_of(nodes[1]).key  # a node, and no issuer
    wire = write_revocation(revoke(own, authority.name, leaf.serial, leaf.expires))
    for told in ([wire], [b"junk"], "text", [1]):
        core.calls.notify(nodes[0].endpoint, "dh_revoked", [told])
    cluster.begin(nodes[1], lambda *_: None)
    cluster.run_for(1.0)
    assert not member_of(nodes[0]).revoked
    assert nodes[0].engine.counters["malformed"] == 3


# --- issuers --------------------------------------------------------------------------------------


def another_issuer(authority, days=200):
    """The key and the chain of one that nobody has met."""
    key = KeyPair(authority.rng.randbytes(32))
    cert = authority.cert(key, "issuer two", caps=(*NODE, "issue", "admin"), days=days)
    return key, sign_cert(authority.root, None, cert)


def meeting(nodes, key):
    return [node for node in nodes if key.public in member_of(node).introductions()]


def test_all_hear_of_an_issuer_and_then_believe_its_certificates(authority):
    cluster, nodes = world(authority, 12)
    key, chain = another_issuer(authority)
    admitted = sign_cert(key, chain, authority.cert(KeyPair(b"p" * 32), "by two"))
    with pytest.raises(MalformedMessage, match="not known here"):
        member_of(nodes[7]).read_link(admitted.link)
    cluster.begin(nodes[0], lambda e, _: e.revocations.introduce([chain.wire]))
    cluster.run_for(1.0)  # a push is enough for so few
    assert meeting(nodes, key) == nodes
    assert member_of(nodes[7]).read_link(admitted.link) == admitted.leaf
    counted = [node.engine.counters["issuers_met"] for node in nodes]
    cluster.run_for(3 * PULL_S)
    assert [node.engine.counters["issuers_met"] for node in nodes] == counted  # told once


def test_a_newcomer_asks_the_first_that_it_meets(authority):
    cluster, nodes = world(authority, 3)
    key, chain = another_issuer(authority)
    cluster.begin(nodes[0], lambda e, _: e.revocations.introduce([chain.wire]))
    cluster.run_for(1.0)
    (late,) = cluster.add(1)
    cluster.begin(late, lambda e, now: e.base.bootstrap([nodes[1].endpoint], now))
    cluster.run_for(0.5)
    assert meeting([late], key)


def test_an_issuer_that_was_met_in_a_handshake_is_told_of(authority):
    cluster, nodes = world(authority, 6)
    key, chain = another_issuer(authority)
    member_of(nodes[2]).read(chain.wire)
    cluster.run_for(3 * PULL_S)
    assert meeting(nodes, key) == nodes


def test_an_issuer_that_was_put_out_is_not_told_of(authority):
    cluster, nodes = world(authority, 4)
    key, chain = another_issuer(authority)
    for node in nodes[:2]:
        member_of(node).read(chain.wire)
        member_of(node).fresh.clear()
    gone = revoke(authority.root, authority.name, chain.leaf.serial, chain.leaf.expires)
    add(cluster, nodes[0], [gone])
    cluster.run_for(4 * PULL_S)
    assert not meeting(nodes, key)
    for node in nodes:
        assert node.engine.counters["malformed"] == 0
        node.engine.check()


def test_what_is_no_issuer_is_met_by_nobody(authority):
    """A chain of another cluster, one that has ended, one of a node; and what is no chain."""
    cluster, nodes = world(authority, 2)
    _, foreign = another_issuer(Authority(2))
    _, over = another_issuer(authority, days=-0.5)
    plain = authority.member("three").chain
    known = dict(member_of(nodes[0]).introductions())
    core = nodes[1].engine.core
    told = [[foreign.wire], [over.wire], [plain.wire], [b"junk"], "text", [b"x" * 901]]
    for chains in told:
        core.calls.notify(nodes[0].endpoint, "dh_revoked", [[], chains])
    cluster.begin(nodes[1], lambda *_: None)
    cluster.run_for(1.0)
    assert nodes[0].engine.counters["malformed"] == 3
    assert member_of(nodes[0]).introductions() == known
