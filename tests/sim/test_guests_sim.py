"""Members of another cluster ask a fleet that welcomes them, and are put out again."""

from functools import partial
from random import Random

from fleets import Fleet, ids
from trust_world import BEGIN, DAY_S, USER, Authority, member_of, secured

from dhtos.core.predicate import EVERYTHING
from dhtos.errors import NoPeers
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.sim import SimNode
from dhtos.trust.keys import KeyPair
from dhtos.trust.member import Member
from dhtos.trust.welcome import make_welcome

COUNT = 20


class HostFleet(Fleet):
    """Members of one cluster, and a client that is of another."""

    def __init__(self, *, seed, **options):
        self.ours, self.theirs = Authority(seed), Authority(seed + 1)
        super().__init__(COUNT, seed=seed, factory=partial(self.mixed, self.ours), **options)
        self.hosts = self.nodes[:]
        self.identity = [member_of(node).key.public for node in self.hosts]

    def mixed(self, ours, **options):
        """All are members but those that come after the first `COUNT`."""
        member = secured(ours, **options)

        def build(node: SimNode[Engine], now: float) -> Engine:
            if node.index < COUNT:
                return member(node, now)
            return Engine(
                node.id,
                rng=node.rng,
                now=now,
                schema=options["schema"],
                config=EngineConfig(client=True),
                member=self.visitor("alice"),
            )

        return build

    def visitor(self, name):
        key = KeyPair(self.theirs.rng.randbytes(32))
        chain = self.theirs.admit(key, name, caps=(*USER, "run"))
        rng = Random(self.theirs.rng.random())
        return Member(key, self.ours.name, entropy=rng.randbytes, wall_s=lambda: BEGIN, chain=chain)

    def welcome(self, begins, caps=("query",)):
        """What an issuer of ours says, told to one node."""
        said = make_welcome(
            self.ours.key,
            self.ours.name,
            self.theirs.name,
            caps=caps,
            begins=begins,
            expires=begins + DAY_S,
        )
        began = self.cluster.now
        first = self.hosts[7]
        self.cluster.begin(first, lambda e, now: e.revocations.welcome([said], now))
        self.cluster.run_until(lambda: self.knowing(said) == COUNT, 30.0)
        print(f"all know after {self.cluster.now - began:.2f} s")
        return said

    def knowing(self, said):
        return sum(member_of(n).welcomes.get(self.theirs.name) == said for n in self.hosts)

    def come(self, guest):
        """The visitor asks two members where the others are."""
        seeds = [node.endpoint for node in self.hosts[:2]]
        joining = self.cluster.begin(guest, lambda e, now: e.base.bootstrap(seeds, now))
        self.cluster.run_for(10.0)
        guest.engine.hub.gateways = seeds
        return joining


def test_a_visitor_finds_all_and_believes_them_until_it_is_not_welcome(sim_seed, sim_replay):
    fleet = HostFleet(seed=sim_seed, replay=sim_replay, group_size=16).cold_start()
    (guest,) = fleet.cluster.add(1)
    assert isinstance(fleet.come(guest).error, NoPeers)
    assert len(guest.engine.core.sessions) == 0

    fleet.welcome(BEGIN)
    assert fleet.come(guest).error is None
    answer = fleet.ask(guest, EVERYTHING)
    assert ids(answer) == {node.id for node in fleet.hosts}
    assert answer.coverage.complete
    assert guest.engine.counters["records_forged"] == 0
    for predicate in fleet.predicates(10):
        fleet.expect_exact(predicate, fleet.ask(guest, predicate), fleet.hosts)

    key = b"k" * 20
    fleet.cluster.begin(guest, lambda e, now: e.base.put(key, b"v", now, seq=1))
    fleet.cluster.run_for(5.0)
    for node in fleet.hosts:
        assert node.engine.base.store.get(key, fleet.cluster.local(node)) is None
        assert guest.id not in {contact.id for contact in node.engine.base.contacts()}
        assert len(node.engine.hub.group) <= COUNT

    fleet.welcome(BEGIN + 1, caps=())
    for node in fleet.hosts:
        assert node.engine.core.sessions.keyless(guest.endpoint)
        node.engine.check()
    assert not fleet.ask(guest, EVERYTHING).hits
    assert fleet.counters("forgeries") == 0
