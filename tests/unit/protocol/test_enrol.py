"""Being admitted: who is told the secret, who is believed, and what is said when it fails."""

from dataclasses import replace

import pytest
from trust_world import DAY_S, Authority

from dhtos.core.limits import OPERATION_DEADLINE_S, TOKEN_SEEDS_MAX
from dhtos.errors import MalformedMessage, NoPeers, Refused
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.enrol import Enrolment, Request, admitted, declined, enrol, request_of
from dhtos.protocol.rpc import Deferred
from dhtos.sim import Cluster
from dhtos.sim.network import Weather
from dhtos.trust.cert import Chain
from dhtos.trust.keys import KeyPair

SECRET = b"sixteen bytes ok"


def open_calls(node) -> int:
    """How many of our questions wait for an answer."""
    return sum(call.name == "dh_enrol" for call in node.engine.core.calls._open.values())


class World:
    """Nodes that are given one by one: each says who it is, and how it admits."""

    def __init__(self, seed: int = 1, **options) -> None:
        self.authority = Authority(seed)
        self.asked: list[Request] = []
        self._next = None
        self.cluster = Cluster(self._build, seed=seed, **options)

    def _build(self, node, now):
        member, admit, answers = self._next
        node_id = member.chain.node_id() if member.chain and member.chain.leaf.nonce else node.id
        node.id = node_id
        config = EngineConfig(client=not answers)
        engine = Engine(node_id, rng=node.rng, now=now, config=config, member=member)
        if answers:
            Enrolment(engine.core, admit)
        return engine

    def node(self, member, admit=None, *, answers=True):
        self._next = (member, admit, answers)
        (node,) = self.cluster.add(1)
        return node

    def admit(self, request):
        """Admit everybody."""
        self.asked.append(request)
        key = KeyPair(bytes(32))
        object.__setattr__(key, "public", request.public)
        return admitted(self.authority.admit(key, request.name))

    def issuer(self, admit=None):
        authority = self.authority
        return self.node(authority.holder(authority.key, authority.chain), admit or self.admit)

    def member(self, admit=None, **what):
        return self.node(self.authority.member(**what), admit)

    def guest(self, *, now=0.0, authority=None):
        key = KeyPair(self.authority.rng.randbytes(32))
        return self.node((authority or self.authority).holder(key, None, now=now), answers=False)

    def begin(self, guest, endpoints, *, secret=SECRET, name="n", holder=None):
        own = guest.engine.core.sessions.member
        request = request_of(own.key, own.root, secret, name, holder=holder)
        return self.cluster.begin(guest, lambda e, now: enrol(e.core, endpoints, request, now))

    def ask(self, guest, *seeds, secret=SECRET, name="bench-7", wait_s=12.0, holder=None):
        endpoints = [seed if isinstance(seed, tuple) else seed.endpoint for seed in seeds]
        asking = self.begin(guest, endpoints, secret=secret, name=name, holder=holder)
        self.cluster.run_for(wait_s)
        assert asking.done
        for node in self.cluster.up():
            node.engine.check()
            assert not open_calls(node)
        return asking


def test_an_issuer_admits_whoever_shows_the_secret():
    world = World()
    issuer, guest = world.issuer(), world.guest()
    asking = world.ask(guest, issuer, wait_s=1.0)
    chain = asking.result()
    own = guest.engine.core.sessions.member
    assert chain.leaf.subject == own.key.public
    assert chain.leaf.name == "bench-7"
    assert own.read(chain.wire) == chain
    assert world.asked == [Request(SECRET, own.key.public, "bench-7")]
    assert SECRET.hex() not in repr(world.asked[0])
    assert repr(SECRET) not in repr(world.asked[0])


def test_a_key_in_an_agent_is_certified_by_what_it_signed():
    """It takes no part in the session: its signature says that its owner asks, from this one."""
    world = World()
    issuer, guest = world.issuer(), world.guest()
    held = KeyPair(bytes(range(32)))
    chain = world.ask(guest, issuer, wait_s=1.0, holder=held).result()
    assert chain.leaf.subject == held.public
    (request,) = world.asked
    assert request.session == guest.engine.core.sessions.member.key.public


@pytest.mark.parametrize("stolen", ["proof", "session", "public", "secret"])
def test_a_signature_for_another_session_or_secret_certifies_nothing(stolen):
    world = World()
    issuer, guest = world.issuer(), world.guest()
    own = guest.engine.core.sessions.member
    held, other = KeyPair(bytes(range(32))), KeyPair(bytes(32))
    request = request_of(own.key, own.root, SECRET, "n", holder=held)
    wrong = {
        "proof": other.sign(b"enrol", own.key.public + SECRET),
        "session": other.public,
        "public": other.public,
        "secret": bytes(16),
    }
    request = replace(request, **{stolen: wrong[stolen]})
    asking = world.cluster.begin(
        guest, lambda e, now: enrol(e.core, [issuer.endpoint], request, now)
    )
    world.cluster.run_for(12.0)
    assert isinstance(asking.error, NoPeers | Refused)
    assert not world.asked
    assert issuer.engine.counters["malformed"] > 0


def test_a_guest_may_ask_for_nothing_else():
    world = World()
    issuer, guest = world.issuer(), world.guest()
    world.ask(guest, issuer, wait_s=1.0)
    pinged = world.cluster.begin(guest, lambda e, now: e.base.bootstrap([issuer.endpoint], now))
    world.cluster.run_for(12.0)
    assert isinstance(pinged.error, NoPeers)
    assert issuer.engine.counters["requests_denied"] > 0


@pytest.mark.parametrize("seed", range(1, 9))
def test_what_is_lost_is_said_again(seed):
    world = World(seed, weather=Weather(loss=0.15, duplication=0.1))
    issuer, guest = world.issuer(), world.guest()
    chain = world.ask(guest, issuer).result()
    assert chain.leaf.subject == guest.engine.core.sessions.member.key.public, f"seed {seed}"


def test_an_issuer_may_take_its_time():
    world = World()
    later = []

    def admit(request):
        later.append((request, Deferred()))
        return later[-1][1]

    issuer, guest = world.issuer(admit), world.guest()
    asking = world.begin(guest, [issuer.endpoint], name="late")
    world.cluster.run_for(0.2)
    assert not asking.done
    ((request, deferred),) = later
    world.cluster.begin(issuer, lambda e, now: e.core.answer(deferred, world.admit(request)))
    world.cluster.run_for(0.2)
    assert asking.result().leaf.name == "late"


@pytest.mark.parametrize("what", [{}, {"caps": ("query", "claim")}])
def test_no_other_member_learns_the_secret(what):
    """Neither a node that issues nothing nor a user, whatever it would answer."""
    world = World()
    thief, guest = world.member(world.admit, name="thief", **what), world.guest()
    asking = world.ask(guest, thief)
    assert isinstance(asking.error, Refused)
    assert str(asking.error) == "that node admits nobody"
    assert world.asked == []


def test_a_member_says_that_it_admits_nobody_and_an_issuer_beside_it_is_asked():
    world = World()
    member, guest = world.member(), world.guest()
    asking = world.ask(guest, member)
    assert str(asking.error).startswith("this node admits nobody: use the token of one that does")
    issuer = world.issuer()
    assert isinstance(world.ask(world.guest(), member, issuer).result(), Chain)


def introduced(world, member, issuer):
    """Let a member speak with the issuer, so that it can name it."""
    world.cluster.begin(member, lambda e, now: e.base.bootstrap([issuer.endpoint], now))
    world.cluster.run_for(2.0)
    assert member.engine.core.sessions.issuers() == [issuer.endpoint]


def test_a_member_names_the_issuer_that_it_speaks_with():
    world = World()
    issuer, member, guest = world.issuer(), world.member(), world.guest()
    introduced(world, member, issuer)
    assert isinstance(world.ask(guest, member).result(), Chain)


@pytest.mark.parametrize("named", [7, [7], [["h"]], [["h", 0]], [["", 7400]], [["h", 1]] * 9])
def test_a_member_that_names_nonsense_is_not_followed(named):
    world = World()
    member = world.member()
    member.engine.core.replace("dh_enrol", lambda *_: [*declined("not me", final=False), named])
    asking = world.ask(world.guest(), member)
    assert isinstance(asking.error, Refused)
    assert "answers what cannot be used" in str(asking.error)


def test_members_that_name_each_other_are_asked_once():
    world = World()
    one, two, guest = world.member(), world.member(), world.guest()
    for member, other in ((one, two), (two, one)):
        named = [list(other.endpoint), list(member.endpoint)]
        member.engine.core.replace(
            "dh_enrol", lambda *_, n=named: [*declined("not me", final=False), n]
        )
    asking = world.ask(guest, one)
    assert str(asking.error) == "not me"
    assert guest.engine.counters["requests_out"] <= 2 + 2  # and what sessions ask of their own


def test_who_does_not_know_the_token_leaves_it_to_others():
    world = World()
    stranger = world.issuer(lambda _: declined("never heard of it", final=False))
    issuer, guest = world.issuer(), world.guest()
    assert isinstance(world.ask(guest, stranger, issuer).result(), Chain)
    asking = world.ask(world.guest(), stranger)
    assert (type(asking.error), str(asking.error)) == (Refused, "never heard of it")


def test_who_knows_it_and_refuses_ends_it():
    world = World()
    stern = world.issuer(lambda _: declined("it is used up", final=True))
    guest = world.guest()
    asking = world.ask(guest, stern, wait_s=1.0)
    assert (type(asking.error), str(asking.error)) == (Refused, "it is used up")


def test_another_cluster_is_told_nothing():
    world, other = World(), Authority(2)
    issuer, guest = world.issuer(), world.guest(authority=other)
    asking = world.ask(guest, issuer, wait_s=2.0)
    assert isinstance(asking.error, Refused)
    assert str(asking.error).endswith("we do not speak: a certificate is of another cluster")
    assert world.asked == []


@pytest.mark.parametrize(
    ("days", "words"),
    [(-3, "172800 s: is a clock wrong?"), (400, "ended 8640000 s ago")],
)
def test_a_wrong_clock_is_named(days, words):
    """The issuer's certificate begins a day before the test does and holds for 300 more."""
    world = World()
    issuer, guest = world.issuer(), world.guest(now=days * DAY_S)
    asking = world.ask(guest, issuer, wait_s=2.0)
    assert isinstance(asking.error, Refused)
    assert words in str(asking.error)
    assert world.asked == []


def test_nobody_answers():
    world = World()
    guest = world.guest()
    asking = world.ask(guest, ("10.9.9.9", 7400), wait_s=OPERATION_DEADLINE_S)
    assert isinstance(asking.error, NoPeers)
    assert "try again" in str(asking.error)
    assert isinstance(world.ask(guest, wait_s=0.1).error, NoPeers)


def test_a_seed_that_is_just_starting_is_asked_again():
    world = World()
    issuer, guest = world.issuer(), world.guest()
    world.cluster.pause([issuer])
    asking = world.begin(guest, [issuer.endpoint])
    world.cluster.run_for(1.5)
    world.cluster.unpause([issuer])
    world.cluster.run_for(3.0)
    assert asking.result().leaf.name == "n"


def test_giving_up_leaves_nothing_behind():
    world = World()
    issuer, guest = world.issuer(), world.guest()
    asking = world.begin(guest, [issuer.endpoint])
    world.cluster.begin(guest, lambda _, now: asking.cancel(now))
    assert not open_calls(guest)
    world.cluster.run_for(12.0)
    assert world.asked == []


def test_seeds_are_bounded():
    world = World()
    guest = world.guest()
    many = [(f"10.9.9.{n}", 7400) for n in range(1, 50)]
    world.begin(guest, many)
    assert open_calls(guest) == TOKEN_SEEDS_MAX


@pytest.mark.parametrize("key", ["other", "none"])
def test_nobody_gets_a_certificate_for_the_key_of_another(key):
    world = World()
    issuer, guest = world.issuer(), world.guest()
    public = KeyPair(b"x" * 32).public if key == "other" else bytes(32)
    member = guest.engine.core.sessions.member
    own = member.key
    forged = KeyPair(own.seed)
    object.__setattr__(forged, "public", public)
    member.key = forged
    asking = world.ask(guest, issuer)
    assert isinstance(asking.error, NoPeers)
    assert world.asked == []
    assert issuer.engine.counters["malformed"] > 0


def test_a_certificate_for_another_key_is_not_taken():
    world = World()
    other = world.authority.admit(KeyPair(b"x" * 32), "other")
    issuer, guest = world.issuer(lambda _: admitted(other)), world.guest()
    asking = world.ask(guest, issuer)
    assert isinstance(asking.error, Refused)
    assert str(asking.error).endswith("a certificate for another key")


@pytest.mark.parametrize(
    "answer",
    [[], None, [b""], [b"x" * 2000], [b"", "no"], [b"", "\x1b[2J", True], [b"", "n" * 300, True],
     [b"junk"], [1, 2, 3]],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(answer):
    world = World()
    issuer, guest = world.issuer(lambda _: answer), world.guest()
    asking = world.ask(guest, issuer)
    assert isinstance(asking.error, Refused)
    assert "answers what cannot be used" in str(asking.error)


KEY = KeyPair(b"k" * 32).public


@pytest.mark.parametrize(
    "args",
    [[SECRET], [SECRET, KEY], [SECRET, KEY, 7], [SECRET, KEY, "a\nb"], [SECRET, KEY, "n" * 64],
     [b"short", KEY, "n"], [SECRET, b"short", "n"], ["text", KEY, "n"]],
)  # fmt: skip
def test_a_request_that_is_none_is_counted_and_dropped(args):
    world = World()
    issuer = world.issuer()
    handler = issuer.engine.core.handler("dh_enrol")
    with pytest.raises(MalformedMessage):
        handler(args, ("10.0.0.1", 7400), None, 0.0)
    assert world.asked == []


def test_a_reason_fits_a_line():
    chain, reason, final = declined("ä" * 300, final=True)
    assert (chain, final) == (b"", True)
    assert reason == "ä" * 100
