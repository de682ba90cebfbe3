"""Questions about what certificates say: whoever was not put into a group cannot get into it."""

from functools import partial

import msgspec
from fleets import SCHEMA, Fleet, ids
from trust_world import Authority, member_of, secured

from dhtos.core.predicate import EVERYTHING
from dhtos.core.record import SIGNATURE_BYTES
from dhtos.core.vouched import groups_of
from dhtos.query import parse


class GroupedFleet(Fleet):
    """A third of the machines is of the group `gpu`; all are on one of two sites."""

    def __init__(self, count, *, seed, **options):
        factory = partial(secured, Authority(seed), groups_of=self.groups_of)
        super().__init__(count, seed=seed, factory=factory, **options)
        self.identity = [member_of(node).key.public for node in self.nodes]

    @staticmethod
    def groups_of(index):
        return (f"site.eu-{index % 2}", *(("gpu",) if index % 3 == 0 else ()))

    def record(self, node, **versions):
        """All call themselves what only some are."""
        return super().record(node, labels={"gpu": "yes", "site": "eu-1"}, **versions)

    def among(self, test):
        return {node.id for node in self.nodes if test(node.index)}


def asked(fleet, text, **options):
    return fleet.ask(fleet.nodes[1], parse(text, SCHEMA), **options)


def test_a_search_for_what_is_attested_finds_just_that(sim_seed, sim_replay):
    fleet = GroupedFleet(60, seed=sim_seed, replay=sim_replay, group_size=16).cold_start()
    for text, test in [
        ("attested(gpu)", lambda n: n % 3 == 0),
        ("not attested(gpu)", lambda n: n % 3),
        ("attested(site) == 'eu-1'", lambda n: n % 2 == 1),
        ("attested(gpu) and attested(site) != 'eu-1'", lambda n: n % 6 == 0),
        ("attested(rack) != '7'", lambda n: False),
    ]:
        answer = asked(fleet, text)
        assert answer.coverage.complete, text
        assert ids(answer) == fleet.among(test), text
    assert len(asked(fleet, "attested(gpu)", limit=5).hits) == 5
    fleet.check()


def test_a_holder_that_says_that_all_are_of_a_group_is_not_believed(sim_seed, sim_replay):
    """It answers as if everybody matched."""
    fleet = GroupedFleet(40, seed=sim_seed, replay=sim_replay, group_size=16).cold_start()
    liars = [node for node in fleet.nodes if node.index % 4 == 2]
    for liar in liars:
        everything = EVERYTHING.bind(SCHEMA)
        liar.engine.hub.answering.bound = lambda _wire, all_=everything: all_
    assert len(fleet.ask(liars[0], EVERYTHING).hits) == 40
    answer = asked(fleet, "attested(gpu)")
    assert ids(answer) <= fleet.among(lambda n: n % 3 == 0)
    assert len(answer.hits) >= 10  # of 14
    fleet.check()


def test_a_certificate_of_another_in_a_proof_is_not_believed(sim_seed, sim_replay):
    """A holder in whose answers it is: it matches, until somebody looks at the signature."""
    fleet = GroupedFleet(12, seed=sim_seed, replay=sim_replay).cold_start()
    liar, plain, chosen = fleet.nodes[5], fleet.nodes[7], fleet.nodes[6]
    members = liar.engine.hub.group.members
    borrowed = members[chosen.engine.hub.key].record.proof[SIGNATURE_BYTES:]
    told = members[plain.engine.hub.key].record
    forged = msgspec.structs.replace(told, proof=told.proof[:SIGNATURE_BYTES] + borrowed)
    assert groups_of(forged) == ("site.eu-0", "gpu")
    assert parse("attested(gpu)", SCHEMA).bind(SCHEMA).matches(forged)
    asker = fleet.nodes[1].engine.core
    assert asker.believes(told)
    assert not asker.believes(forged)
