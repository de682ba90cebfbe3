"""Values in a cluster: whose they are, what holders keep, what readers believe."""

import random
from copy import copy

import pytest
from trust_world import BEGIN, Authority, member_of, secured

import dhtos.protocol.store as store_module
from dhtos.core.contact import Contact
from dhtos.core.ids import digest
from dhtos.core.limits import LOOKUP_PEERS_MAX, VALUE_SIGNED_BYTES_MAX, VALUE_TTL_S
from dhtos.errors import (
    Conflict,
    KeyNotFound,
    MalformedMessage,
    Refused,
    UsageError,
    ValueTooLarge,
)
from dhtos.protocol.candidate import State
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.lookup import Lookup
from dhtos.protocol.signed import Terms, believed, signed
from dhtos.protocol.store import Held, Store, Verdict
from dhtos.protocol.wire import encode_request, parse
from dhtos.sim import Cluster, base_truth, closest_nodes, standard
from dhtos.trust.revocation import revoke
from dhtos.trust.value import PROOF_BYTES_MAX, owned_key, sign_value

K = 6
KEY = digest("a name")
GONE = Terms(gone=True)


class World:
    """Fourteen members who know each other, and what they do."""

    def __init__(self, count=14, seed=5):
        self.authority = Authority(seed)
        self.cluster = Cluster(
            secured(self.authority, config=EngineConfig(k=K)),
            seed=seed,
            replay=None,
            checkers=standard(),
            check_every=20,
        )
        self.nodes = self.cluster.add(count)
        self.cluster.warm_start(base_truth())
        self.cluster.run_for(2.0)

    def put(self, node, value, seq, key=KEY, **how):
        return self.cluster.do(node, lambda e, now: e.base.put(key, value, now, seq=seq, **how))

    def get(self, node, key=KEY, **how):
        return self.cluster.do(node, lambda e, now: e.base.get(key, now, **how))

    def held(self, node, key=KEY):
        return node.engine.base.store.get(key, self.cluster.local(node))

    def plant(self, node, held, key=KEY):
        """Let a node hold this instead."""
        store = node.engine.base.store
        store.drop(key)
        assert store.offer(key, copy(held), self.cluster.local(node)) is Verdict.HELD

    def holders(self, key=KEY):
        return [node for node in self.nodes if self.held(node, key) is not None]

    def store(self, node, to, value, proof, key=KEY):
        """A bare `store`, and the reply to it."""
        replies = []

        class Asker:
            def on_reply(self, _call, value, _trailer, _now):
                replies.append(value)

            def on_late(self, _call, _now):
                pass

            on_failure = on_late

        args = [node.engine.id, key, value] + ([] if proof is None else [proof])
        self.cluster.begin(
            node, lambda e, now: e.core.calls.send(to.endpoint, "store", args, Asker(), now)
        )
        self.cluster.run_for(1.0)
        return replies

    def owned(self, node, salt=b"salt"):
        public = member_of(node).key.public
        return owned_key(public, salt), public


@pytest.fixture
def world():
    return World()


class TestShared:
    def test_a_reader_is_told_whose_it_is(self, world):
        owner = world.nodes[3]
        result = world.put(owner, "v", 5)
        assert result.stored_on == result.wanted == K
        found = world.get(world.nodes[8])
        assert (found.value, found.seq) == ("v", 5)
        assert found.owner == result.owner
        assert found.owner.key == member_of(owner).key.public
        assert found.owner.name == "n3"
        assert VALUE_TTL_S - 60 < found.expires_s <= VALUE_TTL_S

    def test_the_same_owner_replaces_and_nobody_else(self, world):
        world.put(world.nodes[3], "one", 5)
        with pytest.raises(Conflict, match="'n3' has a value under this key"):
            world.put(world.nodes[4], "mine", 99)
        world.put(world.nodes[3], "two", 6)
        with pytest.raises(Conflict, match="newer"):
            world.put(world.nodes[3], "old", 5)
        assert {world.held(node).value for node in world.holders()} == {"two"}
        assert world.get(world.nodes[8]).value == "two"

    def test_the_owner_that_most_tell_of_is_believed(self, world):
        """A holder that signs something of its own, with the highest number, is outvoted."""
        world.put(world.nodes[3], "v", 5)
        liar = closest_nodes(world.nodes, KEY, 1)[0]
        own = signed(member_of(liar), KEY, "lie", 0.0, seq=2**62, ttl_s=999.0)
        world.plant(liar, own)
        readers = [node for node in world.nodes if node is not liar]
        assert {world.get(node, paths=4).value for node in readers} == {"v"}

    def test_a_word_without_proof_is_no_conflict(self, world):
        for liar in closest_nodes(world.nodes, KEY, 2):
            liar.engine.core.replace("store", lambda *_: False)
        assert world.put(world.nodes[3], "v", 5).stored_on >= K - 2

    def test_nor_is_a_value_that_was_made_up(self, world):
        for liar in closest_nodes(world.nodes, KEY, 2):
            liar.engine.core.replace("store", lambda *_: {"value": "w", "p": b"x"})
        assert world.put(world.nodes[3], "v", 5).stored_on >= K - 2

    def test_a_few_who_hold_something_of_their_own_do_not_stop_a_put(self, world):
        """Nor do readers believe them."""
        thief = world.nodes[9]
        for liar in closest_nodes(world.nodes, KEY, 2):
            own = signed(member_of(thief), KEY, "lie", 0.0, seq=2**62, ttl_s=999.0)
            world.plant(liar, own)
        assert world.put(world.nodes[3], "v", 5, paths=4).stored_on >= K - 2
        assert world.get(world.nodes[8], paths=4).value == "v"

    def test_what_a_value_may_be(self, world):
        with pytest.raises(UsageError, match="seq must be 1"):
            world.put(world.nodes[3], "v", 0)
        with pytest.raises(ValueTooLarge, match=str(VALUE_SIGNED_BYTES_MAX)):
            world.put(world.nodes[3], b"v" * VALUE_SIGNED_BYTES_MAX, 1)
        world.put(world.nodes[3], b"v" * (VALUE_SIGNED_BYTES_MAX - 3), 1)
        assert len(world.get(world.nodes[5]).value) == VALUE_SIGNED_BYTES_MAX - 3

    def test_the_largest_value_and_proof_fit_into_a_request(self):
        value, proof = b"v" * VALUE_SIGNED_BYTES_MAX, bytes(PROOF_BYTES_MAX)
        request = encode_request(bytes(20), "store", [KEY, KEY, value, proof])
        assert parse(request).args[3] == proof

    def test_paths_are_so_many(self, world):
        for paths in (0, 9, True, 1.0):
            with pytest.raises(UsageError, match="paths"):
                world.get(world.nodes[3], paths=paths)
            with pytest.raises(UsageError, match="paths"):
                world.put(world.nodes[3], "v", 1, paths=paths)


class TestOwned:
    def test_two_owners_of_one_name(self, world):
        one, two = world.nodes[2:4]
        for node in (one, two):
            key, _ = world.owned(node)
            world.put(node, repr(node), 5, key=key, terms=Terms(salt=b"salt"))
        for node in (one, two):
            key, public = world.owned(node)
            found = world.get(world.nodes[9], key, owner=public)
            assert found.value == repr(node)
            assert found.owner.key == public

    def test_nobody_takes_the_key_of_another(self, world):
        """Not first, and not with a higher number; a shared value gives way to its owner's."""
        key, public = world.owned(world.nodes[2])
        with pytest.raises(UsageError, match="own public key"):
            world.put(world.nodes[3], "mine", 9, key=key, terms=Terms(salt=b"salt"))
        lie = sign_value(
            member_of(world.nodes[3]), key, b"\x01", seq=9, expires=BEGIN + 60, salt=b"salt"
        )
        assert world.store(world.nodes[3], world.nodes[4], 1, lie.proof, key) == [None]
        world.put(world.nodes[3], "shared", 9, key=key)
        with pytest.raises(KeyNotFound):
            world.get(world.nodes[9], key, owner=public)
        world.put(world.nodes[2], "v", 1, key=key, terms=Terms(salt=b"salt"))
        with pytest.raises(Conflict):
            world.put(world.nodes[3], "again", 99, key=key)
        assert {world.held(node, key).value for node in world.holders(key)} == {"v"}
        assert world.get(world.nodes[9], key, owner=public).value == "v"
        with pytest.raises(KeyNotFound):
            world.get(world.nodes[9], key)


class TestGone:
    def test_old_copies_do_not_come_back(self, world):
        owner = world.nodes[3]
        world.put(owner, "v", 5)
        old = world.held(world.holders()[0])
        world.put(owner, b"", 6, terms=GONE)
        with pytest.raises(KeyNotFound, match="removed"):
            world.get(world.nodes[8])
        holders = world.holders()
        for node in holders:
            (reply,) = world.store(world.nodes[7], node, old.value, old.said.proof)
            assert reply["p"] == world.held(node).said.proof
            assert world.held(node).is_gone
        with pytest.raises(KeyNotFound, match="removed"):
            world.get(world.nodes[8])

    def test_one_holder_that_was_away_is_repaired(self, world):
        owner, away = world.nodes[3], closest_nodes(world.nodes, KEY, 1)[0]
        world.put(owner, "v", 5)
        old = world.held(away)
        world.put(owner, b"", 6, terms=GONE)
        world.plant(away, old)
        reader = next(node for node in world.nodes if world.held(node) is None)
        with pytest.raises(KeyNotFound):
            world.get(reader, paths=4)
        world.cluster.run_for(2.0)
        assert world.held(away).is_gone

    def test_the_owner_can_write_again(self, world):
        world.put(world.nodes[3], b"", 6, terms=GONE)
        world.put(world.nodes[3], "back", 7)
        assert world.get(world.nodes[8]).value == "back"
        with pytest.raises(Conflict, match="'n3'"):
            world.put(world.nodes[4], b"", 8, terms=GONE)


class TestHolders:
    def test_a_forged_value_is_counted_and_dropped(self, world):
        sender, holder = world.nodes[4], world.nodes[5]
        said = signed(member_of(sender), KEY, "v", 0.0, seq=5, ttl_s=60.0).said
        for value, proof in [("w", said.proof), ("v", None), ("v", "proof"), (None, said.proof)]:
            assert world.store(sender, holder, value, proof) == [Verdict.NO_ROOM.value]
        assert holder.engine.counters["values_forged"] == 4
        assert not world.holders()
        assert world.store(sender, holder, "v", said.proof) == [True]

    def test_a_reader_does_not_believe_one(self, world):
        """It counts, and goes on to others."""
        world.put(world.nodes[3], "v", 5)
        near = closest_nodes(world.nodes, KEY, K)
        reader = next(node for node in world.nodes if node not in near)
        for liar in near[:-1]:
            liar.engine.core.replace("find_value", lambda *_: {"value": "w", "p": b"p"})
        assert world.get(reader).value == "v"
        assert reader.engine.counters["values_forged"] > 0

    def test_a_newcomer_is_handed_the_very_proof(self, world):
        world.put(world.nodes[3], "v", 5)
        before = {world.held(node).said.proof for node in world.holders()}
        (new,) = world.cluster.add()
        seed = [world.nodes[0].endpoint]
        world.cluster.do(new, lambda e, now: e.base.bootstrap(seed, now))
        world.cluster.run_for(20.0)
        key = new.id
        world.put(world.nodes[3], "near it", 5, key=key)
        after = {world.held(node).said.proof for node in world.holders()}
        assert after == before
        assert len(before) == 1
        assert world.held(new, key).value == "near it"

    def test_who_is_revoked_has_no_values(self, world):
        owner = world.nodes[3]
        world.put(owner, "v", 5)
        for node in world.nodes:  # now all have met others
            assert world.get(node).value == "v"
        authority, cert = world.authority, member_of(owner).chain.leaf
        word = revoke(authority.root, authority.name, cert.serial, cert.expires)
        world.cluster.begin(world.nodes[9], lambda e, now: e.revocations.add([word], now))
        world.cluster.run_for(20.0)
        others = [node for node in world.nodes if node is not owner]
        assert [len(member_of(node).revoked) for node in others] == [1] * len(others)
        assert all(world.held(node) is None for node in others)
        with pytest.raises(KeyNotFound):
            world.get(world.nodes[8])
        world.put(world.nodes[4], "mine now", 1)
        assert world.get(world.nodes[8]).value == "mine now"
        for node in others:
            node.engine.base.store.check()


class TestQuota:
    """Against the owner, whoever brings a value."""

    def offer(self, store, owner, count, *, value="v", source=None, start=0):
        verdicts = []
        for n in range(start, start + count):
            held = signed(owner, digest(str(n)), value, 0.0, seq=1, ttl_s=60.0)
            verdicts.append(store.offer(digest(str(n)), held, 0.0, source))
        store.check()
        return verdicts

    def test_one_owner_has_a_share(self, monkeypatch):
        monkeypatch.setattr(store_module, "VALUES_PER_SOURCE_MAX", 3)
        authority, store = Authority(1), Store()
        one, two = authority.member("one"), authority.member("two")
        sources = [("10.0.0.1", 1), ("10.9.0.1", 1), None]
        verdicts = [self.offer(store, one, 1, source=sources[n % 3], start=n)[0] for n in range(5)]
        assert verdicts == 3 * [Verdict.HELD] + 2 * [Verdict.NO_ROOM]
        assert self.offer(store, two, 3, source=sources[0], start=10) == 3 * [Verdict.HELD]

    def test_and_a_share_of_the_bytes(self, monkeypatch):
        monkeypatch.setattr(store_module, "VALUES_BYTES_PER_OWNER_MAX", 10_000)
        authority, store = Authority(1), Store()
        one, two = authority.member("one"), authority.member("two")
        assert self.offer(store, one, 3, value="v" * 4000) == [
            Verdict.HELD, Verdict.HELD, Verdict.NO_ROOM,
        ]  # fmt: skip
        assert self.offer(store, two, 1, value="v" * 4000, start=5) == [Verdict.HELD]
        again = signed(one, digest("0"), "v" * 4100, 0.0, seq=2, ttl_s=60.0)
        assert store.offer(digest("0"), again, 0.0) is Verdict.HELD  # in the place of its own

    def test_what_is_gone_or_dropped_gives_its_share_back(self, monkeypatch):
        monkeypatch.setattr(store_module, "VALUES_PER_SOURCE_MAX", 2)
        one, store = Authority(1).member("one"), Store()
        assert self.offer(store, one, 3)[-1] is Verdict.NO_ROOM
        store.drop(digest("0"))
        assert self.offer(store, one, 1, start=5) == [Verdict.HELD]
        store.due(61.0, 1.0)  # a minute later both have ended
        store.check()
        assert self.offer(store, one, 1, start=8) == [Verdict.HELD]

    def test_a_thousand_dropped_leave_nothing(self):
        one, store = Authority(1).member("one"), Store()
        self.offer(store, one, 300)
        store.believes = lambda _said: False
        for n in range(300):
            assert store.get(digest(str(n)), 0.0) is None
            store.check()
        assert not len(store)

    def test_who_came_first_stays(self):
        authority, store = Authority(1), Store()
        one, two = authority.member("one"), authority.member("two")
        assert self.offer(store, one, 1) == [Verdict.HELD]
        assert self.offer(store, two, 1, value="w") == [Verdict.SUPERSEDED]
        assert store.get(digest("0"), 0.0).value == "v"
        late = signed(two, digest("0"), "w", 61.0, seq=1, ttl_s=60.0)
        assert store.offer(digest("0"), late, 61.0) is Verdict.HELD


class TestLife:
    def test_a_hand_off_never_lengthens_it(self):
        """Whatever a holder says: what is left is worked out from what was signed."""
        authority = Authority(1)
        owner = authority.member("owner")
        held = signed(owner, KEY, "v", 1000.0, seq=1, ttl_s=100.0)
        assert held.expires == 1100.0
        for passed in (0, 30, 99):
            reader = authority.member("reader", now=passed)
            copy = believed(reader, KEY, "v", held.said.proof, 5000.0 + passed)
            assert copy.expires == 5100.0
        with pytest.raises(MalformedMessage):
            believed(authority.member("late", now=100), KEY, "v", held.said.proof, 0.0)
        assert held.said.expires == BEGIN + 100

    def test_a_node_that_was_not_admitted_signs_nothing(self):
        authority = Authority(1)
        guest = authority.holder(authority.member().key, None)
        with pytest.raises(Refused, match="admitted"):
            signed(guest, KEY, "v", 0.0, seq=1, ttl_s=60.0)

    def test_open_mode_has_no_owners(self):
        base = Engine(KEY, rng=random.Random(1), now=0.0).base
        for terms in (GONE, Terms(salt=b"salt")):
            with pytest.raises(UsageError, match="open mode"):
                base.put(KEY, "v", 0.0, seq=1, terms=terms)


class Names:
    """Sessions as a lookup sees them: who has shown which id where."""

    def __init__(self):
        self.ids = {}

    def node_id(self, endpoint):
        return self.ids.get(endpoint)

    def keyless(self, endpoint):
        return endpoint not in self.ids


class Told:
    """A lookup in a cluster, driven by hand; `number` is the distance to the target."""

    K = 4

    def __init__(self, k=K):
        self.core = Engine(b"\xff" * 20, rng=random.Random(1), now=0.0).core
        self.core.sessions = self.names = Names()
        self.ended = []
        self.lookup = Lookup(
            self.core, b"\xff" * 20, bytes(20), lambda one, _: self.ended.append(one), self,
            k=k, alpha=3,
        )  # fmt: skip
        self.now = 0.0

    def answered(self, contact, now):
        assert self.names.ids[contact.endpoint] == contact.id

    def failed(self, contact, now):
        pass

    def spares(self, target):
        return []

    def start(self, *numbers):
        for n in numbers:
            self.names.ids[at(n).endpoint] = at(n).id
        self.lookup.start([at(n) for n in numbers], self.now)

    def states(self):
        self.lookup.check()
        return {c.distance: c.state.value for c in self.lookup._candidates}

    def answer(self, number, found, true=None):
        """Whoever was told to be `number` answers, and is `true`."""
        candidate = next(c for c in self.lookup._candidates if c.distance == number)
        assert candidate.call is not None
        self.names.ids[candidate.contact.endpoint] = (true or candidate.contact).id
        call = candidate.call
        self.core.calls.cancel(call)
        wire = [[one.id, *one.endpoint] for one in found]
        self.lookup.on_reply(call, wire, None, self.now)

    def wait(self, seconds):
        end = self.now + seconds
        while (due := self.core.timers.next_deadline()) <= end:
            self.now = max(self.now, due)
            self.core.timers.run(self.now)
        self.now = end


def at(number, port=7400):
    return Contact(number.to_bytes(20), (f"10.0.{number >> 8}.{number & 255}", port))


class TestHearsay:
    def test_who_answers_is_who_the_certificate_says(self):
        """An honest node under an invented id has its own place, and what it tells counts."""
        told = Told()
        told.start(50)
        invented = Contact((1).to_bytes(20), at(70).endpoint)
        told.answer(50, [invented])
        told.answer(1, [at(60)], true=at(70))
        assert told.states() == {50: "answered", 60: "asked", 70: "answered"}
        assert told.core.counters["ids_false"] == 1
        told.answer(60, [])
        assert told.lookup.closest() == [at(50), at(60), at(70)]

    def test_one_that_nobody_can_be_is_left(self):
        told = Told()
        told.start(50, 51)
        told.answer(50, [Contact((1).to_bytes(20), at(70).endpoint)])
        told.answer(1, [at(2)], true=at(51))  # a member that is there already
        assert told.states()[1] == "failed"
        assert 2 not in told.states()

    def test_a_known_address_is_not_believed_to_be_another(self):
        told = Told()
        told.start(50, 60)
        told.names.ids[at(80).endpoint] = at(80).id
        told.answer(50, [Contact((1).to_bytes(20), at(80).endpoint), at(80)])
        assert set(told.states()) == {50, 60, 80}

    def test_nodes_that_are_not_do_not_keep_out_those_that_are(self):
        """Of a reply k count, two are asked at once, and after three the rest is left."""
        told = Told(k=8)
        told.start(50)
        told.answer(50, [at(n) for n in range(1, 30)])
        states = told.states()
        assert [n for n, state in states.items() if state == "asked"] == [1, 2]
        assert set(states) == {*range(1, 9), 50}
        told.wait(2.0)
        assert set(told.states()) == {1, 2, 3, 4, 50}  # two more after the first, and then none
        assert told.core.counters["contacts_doubted"] == 4
        told.wait(8.0)
        assert len(told.ended) == 1
        assert told.lookup.closest() == [at(50)]

    def test_who_tells_the_truth_is_asked_about_in_full(self):
        """Two at once of what one answer told, until more were there than not; then alpha."""
        told = Told(k=8)
        told.start(50)
        told.answer(50, [at(n) for n in range(1, 9)])
        told.answer(1, [])
        asked = [n for n, state in told.states().items() if state == "asked"]
        assert asked == [2, 3, 4]
        told.wait(1.0)  # the three are late: now fewer were there than not
        assert set(told.states()) < {*range(1, 9), 50}

    def test_an_honest_word_is_heard_beside_a_liars(self):
        told = Told()
        told.start(50, 60)
        told.answer(50, [at(n) for n in range(1, 5)])
        told.answer(60, [at(40)])
        assert told.states()[40] == "asked"
        told.answer(40, [at(30)])
        assert told.states()[30] == "asked"
        told.answer(30, [])
        told.wait(9.0)
        assert told.lookup.closest() == [at(n) for n in (30, 40, 50, 60)]
        assert told.states()[50] == "answered"  # what it told is doubted, it is still there

    def test_liars_do_not_fill_all_there_is(self):
        """Twenty of them tell of 400 nodes; what one honest node tells last still has room."""
        told = Told(k=20)
        told.start(*range(5000, 5021))
        for liar in range(5000, 5020):
            first = (liar - 5000) * 20
            candidate = next(c for c in told.lookup._candidates if c.distance == liar)
            told.lookup._learn([at(n) for n in range(first + 1, first + 21)], candidate)
            told.lookup.check()
        assert len(told.states()) == LOOKUP_PEERS_MAX
        honest = next(c for c in told.lookup._candidates if c.distance == 5020)
        told.lookup._learn([at(n) for n in range(1000, 1005)], honest)
        assert {1000, 1001, 1002, 1003, 1004} <= set(told.states())
        assert len(told.states()) == LOOKUP_PEERS_MAX

    def test_lookups_that_share_ask_nobody_twice(self):
        one, asked = Told(), {}
        other = Lookup(
            one.core, b"\xff" * 20, bytes(20), lambda *_: None, one, k=4, alpha=3, asked=asked
        )
        one.lookup._shared = asked
        one.start(50, 51)
        other.start([at(50), at(52)], 0.0)
        assert [c.distance for c in other.tried()] == [52]
        assert [c.state for c in other._candidates] == [State.QUEUED, State.ASKED]


def test_an_open_value_has_no_owner():
    held = Held("v", 1, 5.0)
    assert (held.owner, held.signer, held.is_owned, held.is_gone) == (b"", None, False, False)
