"""A fleet that three issuers have admitted: who knows one of them soon believes whom all admit."""

from functools import partial

import msgspec
from fleets import Fleet
from trust_world import BEGIN, DAY_S, NODE, Authority, member_of, secured

from dhtos.trust.cert import lineage, parse_chain, sign_cert, succeed
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import revoke
from dhtos.trust.succession import Succession

ISSUER = (*NODE, "issue", "admin")


class ManyIssuers(Authority):
    """One root, and three who admit in turn."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.issuers = [(self.key, self.chain)]
        for number in (2, 3):
            key = KeyPair(self.rng.randbytes(32))
            cert = self.cert(key, f"issuer {number}", caps=ISSUER, days=300)
            self.issuers.append((key, sign_cert(self.root, None, cert)))
        self.admitted = 0

    def admit(self, key, name, **what):
        self.admitted += 1
        signer, chain = self.issuers[self.admitted % 3]
        return sign_cert(signer, chain, self.cert(key, name, **what))


class MixedFleet(Fleet):
    """A fleet of members that different issuers admitted."""

    def __init__(self, count, *, seed, **options):
        self.authority = ManyIssuers(seed)
        super().__init__(count, seed=seed, factory=partial(secured, self.authority), **options)
        self.identity = [member_of(node).key.public for node in self.nodes]


def test_whoever_admitted_them_all_are_found(sim_seed, sim_replay):
    fleet = MixedFleet(40, seed=sim_seed, replay=sim_replay, group_size=16).cold_start()
    fleet.expect_recall(30)
    fleet.cluster.run_for(40.0)
    fleet.expect_one_view()
    fleet.expect_recall(30)
    for node in fleet.nodes:
        assert len(member_of(node).introductions()) == 3
    forged = sum(node.engine.counters["records_forged"] for node in fleet.nodes)
    print(f"{forged} records came before the chain of their issuer")
    fleet.check()


def test_a_promotion_changes_nothing_but_what_it_may(sim_seed, sim_replay):
    """It keeps id, place and record, and whom it admits is believed everywhere within seconds."""
    fleet = MixedFleet(20, seed=sim_seed, replay=sim_replay, group_size=16).cold_start()
    node, authority = fleet.nodes[7], fleet.authority
    member = member_of(node)
    cert = msgspec.structs.replace(
        member.chain.leaf, caps=ISSUER, expires=authority.chain.leaf.expires
    )
    chain = sign_cert(authority.root, None, cert)
    assert chain.node_id() == node.id

    def promoted(engine, now):
        member.renew(chain)
        engine.hub.advertise(engine.hub.own.anew(), now)
        engine.revocations.spread()

    fleet.cluster.begin(node, promoted)
    admitted = sign_cert(member.key, chain, authority.cert(KeyPair(b"p" * 32), "late"))
    began = fleet.cluster.now
    others = [other for other in fleet.nodes if other is not node]
    fleet.cluster.run_until(
        lambda: all(member.key.public in member_of(o).introductions() for o in others), 20.0
    )
    print(f"all know the issuer after {fleet.cluster.now - began:.2f} s")
    for other in others:
        assert member_of(other).read_link(admitted.link) == admitted.leaf
    fleet.cluster.run_for(10.0)
    fleet.expect_recall(20)
    serial = cert.serial  # which is that of its first certificate, too
    gone = revoke(authority.root, authority.name, serial, cert.expires)
    fleet.cluster.begin(others[0], lambda e, now: e.revocations.add([gone], now))
    fleet.cluster.run_until(lambda: all(serial in member_of(o).revoked for o in others), 20.0)
    for other in others:
        assert not member_of(other).introductions().keys() & {member.key.public}
        assert node.engine.hub.key not in other.engine.hub.group.members


def test_a_new_root_is_believed_by_all_and_a_thief_of_the_old_one_by_nobody(sim_seed, sim_replay):
    """All hear of it with the first certificate it signed; another heir of the old one is late."""
    fleet = MixedFleet(20, seed=sim_seed, replay=sim_replay, group_size=16).cold_start()
    authority, heir, rival = fleet.authority, KeyPair(b"h" * 32), KeyPair(b"r" * 32)
    ends = BEGIN + DAY_S
    first = lineage(authority.root.public)

    def issuers_of(root):
        line = succeed(authority.root, first, root.public, ends)
        return [sign_cert(root, line, chain.leaf) for _, chain in authority.issuers]

    began = fleet.cluster.now
    told = [chain.wire for chain in issuers_of(heir)]
    fleet.cluster.begin(fleet.nodes[3], lambda e, _: e.revocations.introduce(told))
    heard = [Succession(heir.public, ends)]
    fleet.cluster.run_until(
        lambda: all([*member_of(node).heirs] == heard for node in fleet.nodes), 20.0
    )
    print(f"all know the new root after {fleet.cluster.now - began:.2f} s")
    stolen = [chain.wire for chain in issuers_of(rival)]
    fleet.cluster.begin(fleet.nodes[5], lambda e, _: e.revocations.introduce(stolen))
    gone = authority.issuers[0][1].leaf
    taken = revoke(authority.root, authority.name, gone.serial, gone.expires)
    fleet.cluster.begin(fleet.nodes[5], lambda e, now: e.revocations.add([taken], now))
    fleet.cluster.run_for(20.0)
    for node in fleet.nodes:
        member = member_of(node)
        assert [*member.heirs] == heard
        assert sorted(member.introductions().values()) == sorted(told)
        assert not member.revoked
        assert member.is_outdated(member.chain)
    fleet.expect_recall(20)
    for node in fleet.nodes:  # each has its own made anew, by the same issuer
        member = member_of(node)
        chains = {one.leaf.subject: one for one in map(parse_chain, told)}
        key, above = next(
            (key, chains[key.public])
            for key, chain in authority.issuers
            if chain.leaf == member.chain.certs[0]
        )
        member.renew(sign_cert(key, above, member.chain.leaf))
        fleet.cluster.begin(node, lambda e, now: e.hub.advertise(e.hub.own.anew(), now))
    for node in fleet.nodes:
        member_of(node).wall_s = lambda: ends + 1000.0
    fleet.cluster.run_for(60.0)
    fleet.expect_one_view()
    fleet.expect_recall(20)
    fleet.check()
