"""A lease ends, its machine writes a receipt, and its owner signs it: that one, and no other."""

from dataclasses import replace

import msgspec
import pytest
from test_trust_sim import SecuredFleet
from trust_world import BEGIN, member_of

from dhtos.core.machine_schema import MACHINE_SCHEMA as SCHEMA
from dhtos.errors import MalformedMessage
from dhtos.protocol.claims import Bid, Claiming, Tenancy, Tenants
from dhtos.protocol.grants import Grants
from dhtos.protocol.ledger import Ledger
from dhtos.protocol.receipts import Receipts, Settled
from dhtos.trust.keys import KeyPair
from dhtos.trust.receipt import (
    Receipt,
    amounts,
    is_signed_by_owner,
    lease_hash,
    sign_as_host,
    write_receipt,
)

HELD_S = 20.0


class World:
    """A machine, the owner of a lease on it that has just been released, and somebody else."""

    def __init__(self, seed):
        fleet = SecuredFleet(3, seed=seed, group_size=16).cold_start()
        self.cluster = cluster = fleet.cluster
        self.host, self.owner, self.other = fleet.nodes
        self.over, self.begun = [], []
        grants = self.grants = Grants(self.host.engine.hub, Ledger())
        grants.on_over = lambda grant, _now: self.over.append(grant)
        grants.on_bound = lambda grant, _now: self.begun.append(grant)
        cluster.begin(self.host, lambda _e, _now: grants.offer({"cores": 8}, ("cores",)))
        self.receipts = {node: Receipts(node.engine.core) for node in fleet.nodes}
        self.signed = []
        ours = self.receipts[self.owner]
        ours.on_signed = self.signed.append
        self.tenants = Tenants(self.owner.engine.core)
        self.tenants.on_keep = ours.expect
        bids = [Bid(self.host.id, self.host.endpoint, {"cores": 2.0}, SCHEMA.tag)]
        outcome = cluster.do(self.owner, lambda e, now: Claiming(e.core, bids, 30.0, now).operation)
        self.granted = outcome.granted
        self.tenancy = cluster.begin(
            self.owner, lambda _e, now: self.tenants.keep(outcome.granted, now)
        )
        cluster.run_for(HELD_S)
        assert ours.owed(cluster.local(self.owner)) == 0, "it is not over"
        cluster.begin(self.owner, lambda _e, now: self.tenancy.release(now))
        assert ours.owed(cluster.local(self.owner)) == 1
        cluster.run_for(0.5)
        (self.grant,) = self.over
        assert self.begun == [self.grant]

    def receipt(self, **changes):
        """What the machine would say, or something else."""
        grant = self.grant
        receipt = Receipt(
            lease_hash(grant.token),
            self.host.id,
            grant.user,
            grant.subject,
            amounts(grant.resources),
            grant.began,
            grant.began + HELD_S,
            grant.price,
        )
        return msgspec.structs.replace(receipt, **changes)

    def offer(self, receipt, *, sender=None, to=None, key=None):
        """Send it; what comes back."""
        sender = sender or self.host
        member = member_of(sender)
        settled = self.receipts[sender].alone(receipt)
        if key is not None:
            wire = write_receipt(receipt)
            settled = Settled(receipt, key.public, sign_as_host(key, member.root, wire))
        return self.cluster.do(
            sender,
            lambda _e, now: self.receipts[sender].offer(settled, (to or self.owner).endpoint, now),
        )


def test_a_receipt_is_signed_by_both_and_once(sim_seed):
    world = World(sim_seed)
    price = world.host.engine.hub.own.attributes(SCHEMA)["price"]
    assert world.granted.price == world.grant.price == price
    assert world.grant.began == BEGIN
    receipt = world.receipt()
    settled = world.offer(receipt)
    owner = member_of(world.owner)
    assert (settled.declined, settled.owner_key) == ("", owner.key.public)
    wire = write_receipt(receipt)
    assert is_signed_by_owner(owner.key.public, owner.root, wire, settled.owner)
    assert [one.receipt for one in world.signed] == [receipt]
    assert world.signed[0].host == settled.host
    assert world.receipts[world.owner].owed(world.cluster.local(world.owner)) == 0
    assert world.offer(receipt) == settled, "an answer that was lost is given again"
    assert len(world.signed) == 1, "and kept once"
    again = world.offer(world.receipt(ended=receipt.ended - 1))
    assert again.declined == "another receipt of this lease is signed"
    world.receipts[world.owner].check()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"resources": (("cores", 3.0),)}, "of other amounts"),
        ({"resources": (("cores", 2.0), ("gpus", 1.0))}, "of other amounts"),
        ({"price": 10_000.0}, "at another price"),
        ({"price": None}, "at another price"),
        ({"ended": BEGIN + HELD_S + 6.0}, "for longer than it was ours"),
        ({"ended": BEGIN + 1e6}, "for longer than it was ours"),
        ({"began": BEGIN - 500.0, "ended": BEGIN - 490.0}, "of another time: is a clock wrong?"),
        ({"began": BEGIN + 500.0, "ended": BEGIN + 510.0}, "of another time: is a clock wrong?"),
        ({"user": "bob"}, "of another user"),
        ({"subject": KeyPair(b"b" * 32).public}, "of another user"),
        ({"node_id": b"n" * 20}, "not from the machine that granted it"),
        ({"lease": b"l" * 16}, "no lease of ours, or one of long ago"),
    ],
)
def test_what_the_owner_knows_otherwise_is_declined(changes, why):
    world = World(1)
    settled = world.offer(world.receipt(**changes))
    assert (settled.declined, settled.owner, world.signed) == (why, b"", [])
    assert world.owner.engine.counters["receipts_declined"] == 1
    assert world.offer(world.receipt()).owner, "the true one is signed all the same"


def test_only_the_machine_that_granted_it_is_signed_for():
    """Somebody else may have seen the receipt, and may be a member, too."""
    world = World(1)
    receipt = world.receipt()
    assert "not from the machine" in world.offer(receipt, sender=world.other).declined
    stolen = msgspec.structs.replace(receipt, node_id=world.other.id)
    assert "not from the machine" in world.offer(stolen, sender=world.other).declined
    assert world.offer(receipt, key=KeyPair(b"k" * 32)).declined == "not signed by who sends it"
    assert world.offer(receipt, to=world.other).declined == "no lease of ours, or one of long ago"
    assert world.signed == []


def test_who_has_not_heard_of_the_end_signs_for_as_long_as_it_was_his():
    """The machine took it back, or its owner was cut off: what counts is when the receipt comes."""
    world = World(1)
    world.tenancy.released_at = None
    assert world.offer(world.receipt(ended=BEGIN + HELD_S + 5.0)).owner


def test_whose_owner_is_gone_is_signed_by_the_machine_alone():
    world = World(1)
    world.cluster.crash([world.owner])
    settled = world.offer(world.receipt())
    assert (settled.declined, settled.owner, settled.owner_key) == ("no answer", b"", b"")


def test_what_is_no_signature_of_the_owner_is_none():
    world = World(1)
    receipts, host = world.receipts[world.host], world.host.engine
    settled = world.offer(world.receipt())
    assert host.core.sessions.heard.endpoint == world.owner.endpoint
    alone = receipts.alone(world.receipt())
    assert receipts.signed(alone, [1, settled.owner]) == settled
    assert receipts.signed(alone, [0, "no"]).declined == "no"
    for answer in ([], [1], [1, b"x" * 64], [1, settled.host], [2, b""], [0, "a\nb"], [0, 7], "x"):
        with pytest.raises(MalformedMessage):
            receipts.signed(alone, answer)
    other = receipts.alone(world.receipt(subject=member_of(world.other).key.public))
    with pytest.raises(MalformedMessage, match="not the owner"):
        receipts.signed(other, [1, settled.owner])


def test_leases_whose_receipts_never_come_are_forgotten(monkeypatch):
    monkeypatch.setattr("dhtos.protocol.receipts.RECEIPTS_OWED_MAX", 4)
    world = World(1)
    ours = world.receipts[world.owner]
    for n in range(6):
        token = bytes([n]) * 16
        granted = replace(world.granted, token=token)
        ours.expect(Tenancy(world.tenants, granted, world.cluster.local(world.owner)), 0.0)
        assert len(ours._due) <= 4
    assert world.offer(world.receipt()).declined == "no lease of ours, or one of long ago"
