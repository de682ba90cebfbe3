"""A member becomes an issuer by a chain that holds by itself, and by no other."""

import pytest
from trust_world import BEGIN, DAY_S, NODE, Authority, member_of

from dhtos.errors import MalformedMessage, NoPeers, Refused
from dhtos.protocol.engine import Engine
from dhtos.protocol.promotion import Promotion, hand_over, promotion
from dhtos.protocol.rpc import Deferred
from dhtos.sim import Cluster
from dhtos.trust.cert import sign_cert
from dhtos.trust.revocation import revoke

ISSUER = (*NODE, "issue", "admin")


@pytest.fixture
def authority():
    return Authority()


def raised(authority, member, *, days=200.0, root=None, **changes):
    """What makes a member an issuer, or something like it."""
    leaf = member.chain.leaf
    words = {"caps": ISSUER, "expires": BEGIN + int(days * DAY_S), **changes}
    fields = {name: getattr(leaf, name) for name in leaf.__struct_fields__}
    return sign_cert(root or authority.root, None, type(leaf)(**(fields | words)))


class World:
    """Members that answer `dh_promote`: what they took, and what they say of it."""

    def __init__(self, authority):
        self.authority = authority
        self.taken = []
        self.answer = []
        self.cluster = Cluster(self._build, seed=1)

    def _build(self, node, now):
        member = self.authority.member(f"n{node.index}")
        node.id = member.chain.node_id()
        engine = Engine(node.id, rng=node.rng, now=now, member=member)
        Promotion(engine.core, self._take)
        return engine

    def _take(self, chain):
        self.taken.append(chain)
        return self.answer

    def hand(self, one, endpoint, wire):
        asking = self.cluster.begin(one, lambda e, now: hand_over(e.core, endpoint, wire, now))
        self.cluster.run_for(12.0)
        assert asking.done
        for node in self.cluster.up():
            node.engine.check()
        return asking


def test_whoever_brings_it_it_is_taken_once(authority):
    world = World(authority)
    bearer, target = world.cluster.add(2)
    shown = world.hand(bearer, target.endpoint, b"").result()
    assert shown == member_of(target).chain
    assert not world.taken
    chain = raised(authority, member_of(target))
    assert world.hand(bearer, target.endpoint, chain.wire).result() == shown
    assert world.taken == [chain]
    member_of(target).renew(chain)
    assert world.hand(bearer, target.endpoint, chain.wire).done
    earlier = raised(authority, member_of(target), days=100)
    world.hand(bearer, target.endpoint, earlier.wire)
    assert world.taken == [chain]  # of two the later one holds
    later = raised(authority, member_of(target), days=250)
    world.hand(bearer, target.endpoint, later.wire)
    assert world.taken == [chain, later]


def test_a_forged_chain_or_a_foreign_one_is_refused(authority):
    world = World(authority)
    bearer, target = world.cluster.add(2)
    member, other = member_of(target), Authority(2)
    foreign = raised(authority, member, root=other.root)
    of_another = raised(authority, member_of(bearer))
    another_id = raised(authority, member, nonce=b"a choice")
    no_issuer = raised(authority, member, caps=NODE)
    over = raised(authority, member, expires=BEGIN - 1000)
    by_itself = sign_cert(member.key, None, raised(authority, member).leaf)
    broken = raised(authority, member).wire[:-1] + b"!"
    for wire, why in [
        (foreign.wire, "of another cluster"),
        (by_itself.wire, "of another cluster"),
        (of_another.wire, "of another node"),
        (another_id.wire, "of another node"),
        (no_issuer.wire, "makes no issuer"),
        (member.chain.wire, "makes no issuer"),
        (over.wire, "ended"),
        (broken, "not signed by the one before it"),
        (b"junk", "not a chain"),
    ]:
        with pytest.raises(Refused, match=why):
            world.hand(bearer, target.endpoint, wire).result()
    assert not world.taken
    assert target.engine.counters["promotions_refused"] == 9


def test_who_was_put_out_is_not_brought_back_by_its_old_promotion(authority):
    member = authority.member("one")
    chain = raised(authority, member)
    assert promotion(member, chain.wire) == chain
    serial = chain.leaf.serial
    by_root = revoke(authority.root, authority.name, serial, chain.leaf.expires)
    assert member.revoke(by_root)
    with pytest.raises(MalformedMessage, match="was revoked"):
        promotion(member, chain.wire)


def test_an_answer_may_come_late_or_say_no(authority):
    world = World(authority)
    bearer, target = world.cluster.add(2)
    wire = raised(authority, member_of(target)).wire
    world.answer = [b"", "the disk is full", True]
    with pytest.raises(Refused, match="takes no such certificate: the disk is full"):
        world.hand(bearer, target.endpoint, wire).result()
    for strange in ("text", [1, 2], [b"", "a\nb", True], None):
        world.answer = strange
        with pytest.raises(Refused, match="its answer cannot be read"):
            world.hand(bearer, target.endpoint, wire).result()
    world.answer = waiting = Deferred()
    asking = world.cluster.begin(
        bearer, lambda e, now: hand_over(e.core, target.endpoint, wire, now)
    )
    world.cluster.run_for(0.5)
    assert not asking.done
    world.cluster.begin(target, lambda e, _: e.core.answer(waiting, []))
    world.cluster.run_for(0.5)
    assert asking.result() == member_of(target).chain


def test_nobody_there(authority):
    world = World(authority)
    bearer, target = world.cluster.add(2)
    world.cluster.crash([target])
    with pytest.raises(NoPeers, match="does not answer: is it running"):
        world.hand(bearer, target.endpoint, b"").result()
    asking = world.cluster.begin(bearer, lambda e, now: hand_over(e.core, ("1.2.3.4", 5), b"", now))
    asking.cancel(0.0)
    assert not any(c.name == "dh_promote" for c in bearer.engine.core.calls._open.values())


def test_what_is_no_chain_is_not_even_refused(authority):
    world = World(authority)
    (target,) = world.cluster.add(1)
    for strange in ([5], ["text"], [[b"x"]], [b"x" * 901]):
        with pytest.raises(MalformedMessage):
            target.engine.core.handler("dh_promote")(strange, ("1.2.3.4", 5), None, 0.0)
    assert not world.taken
