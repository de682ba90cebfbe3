"""The node that is asked for a part of itself: what it answers, publishes, forgets and refuses."""

import math

import msgspec
import pytest
from hub_world import ALL, GIB, SCHEMA, Lone, at_least, machine
from trust_world import Authority

from dhtos.core.limits import (
    AWAIT_S,
    CLAIM_RESOURCES_MAX,
    HOLD_S,
    LEASE_S_MAX,
    LEASE_S_MIN,
    OFFER_DELAY_S,
    PREDICATE_WIRE_BYTES_MAX,
    PREEMPT_GRACE_S,
    PRIORITY_MAX,
    TAKEN_DELAY_S,
    TOKENS_GONE_MAX,
)
from dhtos.core.value import NUMBER_MAX
from dhtos.errors import MalformedMessage
from dhtos.protocol import grants as module
from dhtos.protocol.grants import Grants, as_amount, as_hold, as_term, refusal_of
from dhtos.protocol.hubwire import SEQ_MAX
from dhtos.protocol.ledger import Ledger, NotWritten, Reason, State
from dhtos.protocol.wire import Response, encode_request, encode_trailer, parse
from dhtos.trust.cert import sign_cert
from dhtos.trust.keys import KeyPair

OWNER = ("10.9.9.9", 9)
OTHER = ("10.9.9.8", 9)
NAMES = {"cores": None, "mem": None, "gpus": None}
TAG = SCHEMA.tag
MACHINE = {"cores": 8, "mem": 64 * GIB, "price": 0.5, "arch": "x86_64"}


class Full:
    """A journal whose disk is full."""

    def bound(self, _grant):
        raise NotWritten("disk full")

    def ended(self, _token):
        raise NotWritten("disk full")


class Granting:
    """One machine that grants; the test asks it."""

    def __init__(self, values=MACHINE, **options):
        self.one = Lone(machine(1, **values) if values else None)
        self.ledger = Ledger(**options)
        self.grants = Grants(self.one.hub, self.ledger)
        sampled = {name: value for name, value in (values or {}).items() if name in NAMES}
        self.offered = self.grants.offer(sampled, NAMES)
        self.cookies = {}
        self.notices = []

    def ask(self, name, args, source=OWNER):
        tag = b"q" * 20
        request = encode_request(tag, name, args) + encode_trailer([1])
        self.one.engine.receive(request, source, self.one.now)
        self.one.engine.check()
        self.grants.check()
        replies = []
        for datagram, to in self.one.engine.outbox():
            message = parse(datagram)
            if isinstance(message, Response):
                replies.append(message.value)
            elif message.name == "dh_revoke":
                self.notices.append((to, *message.args))
        return replies

    def claim(self, number=1, resources=(("cores", 2),), *, source=OWNER, **other):
        """The reply to a claim of somebody who has shown the cookie."""
        if source not in self.cookies:
            ((_, self.cookies[source]),) = self.ask(
                "dh_claim", claim_args(number, cookie=b""), source
            )
        args = claim_args(number, resources, cookie=self.cookies[source], **other)
        (reply,) = self.ask("dh_claim", args, source)
        return reply

    def confirm(self, number=1, *, epoch=None, ttl_s=30.0):
        args = [token(number), self.ledger.epoch if epoch is None else epoch, ttl_s]
        (reply,) = self.ask("dh_confirm", args)
        return reply

    def lease(self, number=1, **options):
        """The fence of a lease."""
        assert self.claim(number, **options)[0] == 1
        kind, fence, *_ = self.confirm(number)
        assert kind == 1
        return fence

    def renew(self, number, fence):
        (reply,) = self.ask("dh_renew", [token(number), fence])
        return reply

    def release(self, number=1):
        (reply,) = self.ask("dh_release", [token(number)])
        return reply

    def said_free(self, name="cores"):
        """What its record says."""
        return self.one.own.attributes(SCHEMA).get(name + "_free")

    def count(self, name):
        return self.one.core.counters[name]


def token(number):
    return number.to_bytes(16)


def where(predicate):
    return msgspec.msgpack.encode(predicate.to_wire())


def claim_args(
    number=1, resources=(("cores", 2),), *, cookie=b"", priority=0, price=None, tag=TAG, wire=b"",
    preempt=False,
):  # fmt: skip
    pairs = [list(pair) for pair in resources]
    return [cookie, token(number), pairs, priority, price, tag, wire, preempt]


# --- claims ---------------------------------------------------------------------------------------


def test_a_stranger_is_asked_to_come_back_and_nothing_is_set_aside_for_it():
    world = Granting()
    ((kind, cookie),) = world.ask("dh_claim", claim_args())
    assert (kind, len(world.ledger)) == (2, 0)
    (again,) = world.ask("dh_claim", claim_args(cookie=cookie), OTHER)
    assert again[0] == 2  # the cookie of somebody else
    assert again[1] != cookie
    (held,) = world.ask("dh_claim", claim_args(cookie=cookie))
    assert held == [1, 1, HOLD_S, [["cores", 6.0]]]
    assert world.ledger.known(token(1)).owner == OWNER


def test_who_has_answered_us_needs_no_cookie():
    world = Granting()
    world.one.core.peers.of(OWNER).last_heard = world.one.now
    (held,) = world.ask("dh_claim", claim_args())
    assert held[0] == 1


def test_a_hold_says_how_long_it_lasts_and_what_is_left_of_what_was_asked():
    world = Granting()
    reply = world.claim(resources=[("mem", 16 * GIB), ("cores", 3)], priority=5)
    assert reply == [1, 1, HOLD_S, [["mem", 48.0 * GIB], ["cores", 5.0]]]
    assert world.ledger.known(token(1)).priority == 5
    world.one.wait(4.0)
    assert world.claim(resources=[("mem", 16 * GIB), ("cores", 3)])[2] == pytest.approx(6.0)
    assert world.count("claims_held") == 2
    assert len(world.ledger) == 1


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ({"resources": [("cores", 9)]}, Reason.FULL),
        ({"resources": [("gpus", 1)]}, Reason.RESOURCE),
        ({"wire": where(at_least(cores=9))}, Reason.WHERE),
        ({"price": 0.49}, Reason.PRICE),
        ({"tag": TAG ^ 1}, Reason.SCHEMA),
        ({"tag": TAG ^ 1, "wire": b"of another version"}, Reason.SCHEMA),
    ],
)
def test_every_reason_to_refuse(claim, reason):
    world = Granting()
    kind, number, free = world.claim(**claim)
    assert (kind, number) == (0, reason)
    assert free == ([["cores", 8.0]] if reason is not Reason.RESOURCE else [])
    assert len(world.ledger) == 0
    assert world.count("claims_refused") == 1


@pytest.mark.parametrize(
    "claim",
    [{"wire": where(at_least(cores=8))}, {"wire": where(ALL)}, {"price": 0.5}, {"tag": TAG}],
)
def test_who_is_what_was_asked_for_grants(claim):
    assert Granting().claim(**claim)[0] == 1


def test_a_machine_that_names_no_price_is_not_below_one():
    world = Granting({"cores": 8})
    assert world.claim(price=NUMBER_MAX)[:2] == [0, Reason.PRICE]


def test_the_spot_price_counts_where_there_is_one():
    world = Granting({"cores": 8, "price": 9.0, "price_spot": 0.1})
    assert world.claim(price=0.2)[0] == 1


def test_a_node_without_a_record_grants_nothing():
    world = Granting(None)
    assert world.claim()[:2] == [0, Reason.SCHEMA]


def test_a_claim_that_comes_again_is_granted_again_whatever_the_machine_is_by_now():
    world = Granting()
    assert world.claim(wire=where(at_least(cores=8)))[0] == 1
    world.one.hub.advertise(machine(1, seq=2, cores=4), world.one.now)
    assert world.claim(wire=where(at_least(cores=8)))[0] == 1
    assert world.claim(2, wire=where(at_least(cores=8)))[:2] == [0, Reason.WHERE]
    assert len(world.ledger) == 1


def test_others_are_told_what_is_left_when_they_come_too_late():
    world = Granting()
    world.claim(1, [("cores", 6)])
    assert world.claim(2, [("cores", 3)], source=OTHER) == [0, Reason.FULL, [["cores", 2.0]]]


def test_what_is_in_use_is_not_granted():
    world = Granting()
    offered = world.grants.offer({**MACHINE, "mem_free": 3 * GIB}, NAMES)
    assert offered == {"cores_free": 8, "mem_free": 3 * GIB}
    assert world.claim(resources=[("mem", 4 * GIB)])[:2] == [0, Reason.FULL]


def test_only_numbers_are_offered():
    world = Granting()
    assert world.grants.offer({"cores": 2.5, "arch": "x86_64"}, {"cores": 0, "arch": 0}) == {
        "cores_free": 2.5
    }


# --- confirm, renew, release ----------------------------------------------------------------------


def test_a_confirmed_hold_is_a_lease():
    world = Granting()
    world.claim()
    kind, fence, ttl_s = world.confirm(ttl_s=20.0)
    assert (kind, ttl_s) == (1, 20.0)
    assert fence > 0
    assert world.confirm(ttl_s=99.0) == [1, fence, 20.0]  # the reply was lost
    world.one.wait(19.9)
    assert world.ledger.known(token(1)).state is State.BOUND
    world.one.wait(0.1)
    assert world.ledger.known(token(1)) is Reason.GONE


@pytest.mark.parametrize(("epoch", "reason"), [(1, Reason.GONE), (0, Reason.EPOCH)])
def test_a_confirm_without_a_hold_is_refused(epoch, reason):
    world = Granting()
    assert world.confirm(epoch=epoch) == [0, reason]
    world.claim()
    world.one.wait(HOLD_S)
    assert world.confirm(epoch=epoch) == [0, reason]


def test_a_confirm_at_the_last_moment_but_one():
    world = Granting()
    world.claim()
    world.one.wait(HOLD_S - 0.001)
    assert world.confirm()[0] == 1


def test_a_renewed_lease_lives_on():
    world = Granting()
    fence = world.lease()
    for _ in range(10):
        world.one.wait(20.0)
        assert world.renew(1, fence) == [1, 30.0]
    assert world.renew(1, fence + 1) == [0, Reason.GONE]
    assert world.renew(2, fence) == [0, Reason.GONE]
    world.one.wait(30.0)
    assert world.renew(1, fence) == [0, Reason.GONE]
    assert world.ledger.free()["cores"] == 8.0


def test_a_loop_that_was_held_up_ends_what_is_over_before_it_answers():
    """The timer has not fired yet, and the renewal arrives after the end."""
    world = Granting()
    fence = world.lease()
    world.one.now += 30.0
    assert world.renew(1, fence) == [0, Reason.GONE]
    world.claim(2)
    world.one.now += HOLD_S
    assert world.confirm(2) == [0, Reason.GONE]
    assert world.claim(3, [("cores", 8)])[0] == 1


def test_a_release_is_answered_whatever_there_was():
    world = Granting()
    world.lease()
    assert world.release() == [1]
    assert world.release() == [1]
    assert world.ledger.free()["cores"] == 8.0


def test_a_release_that_overtakes_its_claim_wins():
    world = Granting()
    assert world.release() == [1]
    assert world.claim()[:2] == [0, Reason.GONE]
    assert world.confirm() == [0, Reason.GONE]


def test_strangers_that_release_what_never_was_fill_no_memory():
    world = Granting()
    world.lease(1)
    for number in range(2, TOKENS_GONE_MAX + 50):
        world.ledger.release(token(number))
    assert world.release(TOKENS_GONE_MAX + 50) == [1]
    assert world.ledger.known(token(1)).state is State.BOUND
    world.grants.check()


def test_a_lease_that_cannot_be_written_down_is_not_told():
    world = Granting(journal=Full())
    world.claim()
    assert world.confirm() == [0, Reason.DISK]
    assert world.release() == [1]
    assert world.ledger.free()["cores"] == 8.0


# --- draining and taking back ---------------------------------------------------------------------


def test_who_drains_grants_nothing_more():
    world = Granting()
    fence = world.lease()
    world.claim(2)
    world.grants.drain(world.one.now)
    assert world.claim(3)[:2] == [0, Reason.DRAINING]
    assert world.confirm(2)[0] == 1
    assert world.renew(1, fence)[0] == 1
    world.grants.undrain()
    assert world.claim(4)[0] == 1


def test_a_drain_may_take_back_what_is_granted_and_tells_the_owners():
    world = Granting()
    fence = world.lease(1)
    world.claim(2, source=OTHER)
    world.grants.drain(world.one.now, revoke=True)
    told = world.one.sent("dh_revoke")
    assert [(one.endpoint, one.args) for one in told] == [
        (OWNER, [token(1), Reason.DRAINING, 0.0]),
        (OTHER, [token(2), Reason.DRAINING, 0.0]),
    ]
    assert world.ledger.grants() == ()
    assert world.renew(1, fence) == [0, Reason.GONE]
    assert world.confirm(2) == [0, Reason.GONE]
    assert world.count("grants_revoked") == 2
    world.grants.check()


def test_what_is_taken_back_is_free_when_its_owner_says_so_or_its_term_is_over():
    world = Granting()
    world.lease(1, resources=[("cores", 5)])
    world.lease(2, resources=[("cores", 3)])
    for number in (1, 2):
        assert world.grants.revoke(token(number), Reason.GONE, world.one.now)
    assert not world.grants.revoke(token(1), Reason.GONE, world.one.now)
    assert not world.grants.revoke(token(3), Reason.GONE, world.one.now)
    assert len(world.one.sent("dh_revoke")) == 2
    assert world.claim(4)[:2] == [0, Reason.FULL]
    world.release(1)
    assert world.ledger.free()["cores"] == 5.0
    world.one.wait(30.0)
    assert world.ledger.free()["cores"] == 8.0
    world.grants.check()


# --- the record -----------------------------------------------------------------------------------


def test_who_wants_to_know_is_told_of_every_lease_that_ends_and_by_when_it_must_be_gone():
    world = Granting()
    told = []
    world.grants.on_end = lambda grant, gone_by: told.append((grant.token, grant.fence, gone_by))
    fences = {number: world.lease(number) for number in (1, 2, 3)}
    world.claim(4)  # only held
    world.release(4)
    assert told == []
    now = world.one.now
    world.release(1)
    world.release(1)
    world.grants.revoke(token(2), Reason.REVOKED, now)
    world.grants.revoke(token(2), Reason.REVOKED, now)
    assert told == [(token(1), fences[1], now), (token(2), fences[2], now)]
    world.release(2)
    assert told[2:] == [(token(2), fences[2], now)]
    assert world.grants.runs(token(3), fences[3], now).token == token(3)
    assert world.grants.runs(token(3), fences[3], now + 30.0) is None  # also before a timer comes
    assert told[3:] == [(token(3), fences[3], now + 30.0)]


def test_the_record_says_at_once_what_is_taken_and_then_once_for_many():
    world = Granting({**MACHINE, "cores_free": 8})
    seq = world.one.own.seq
    world.claim(1)
    assert world.said_free() == 8
    world.one.wait(TAKEN_DELAY_S)
    assert world.said_free() == 6
    world.claim(2)
    world.claim(3)
    world.one.wait(OFFER_DELAY_S * 0.9)
    assert world.said_free() == 6
    world.one.wait(OFFER_DELAY_S * 0.1)
    assert world.said_free() == 2
    assert world.one.own.seq == seq + 2
    world.one.wait(OFFER_DELAY_S)
    world.release(1)
    world.one.wait(OFFER_DELAY_S * 0.9)
    assert world.said_free() == 2  # what is free again can wait
    world.claim(4, [("cores", 1)])
    world.one.wait(TAKEN_DELAY_S)
    assert world.said_free() == 3
    world.one.wait(HOLD_S + OFFER_DELAY_S)
    assert world.said_free() == 8


def price_now(world):
    return world.one.own.attributes(SCHEMA).get("price_spot")


def test_the_price_follows_what_is_granted_where_the_owner_wants_that():
    """A claim is judged by what the record says now, and a lease keeps what it said then."""
    world = Granting({**MACHINE, "cores_free": 8})
    world.grants.price_load = 3.0
    values = {"cores": 8, "mem": 64 * GIB, "price": 0.5}
    assert world.grants.offer(values, NAMES)["price_spot"] == 0.5
    world.lease(1, resources=[("cores", 4)])
    world.one.wait(TAKEN_DELAY_S)
    assert price_now(world) == 0.5 * 2.5
    assert world.grants.offer(values, NAMES)["price_spot"] == 0.5 * 2.5
    assert world.claim(2, [("cores", 1)], price=1.0)[:2] == [0, Reason.PRICE]
    world.lease(3, resources=[("mem", 64 * GIB)], price=1.25)
    world.one.wait(OFFER_DELAY_S)
    assert price_now(world) == 0.5 * 4
    leases = [world.ledger.known(token(number)).price for number in (1, 3)]
    assert leases == [0.5, 1.25]
    world.release(1)
    world.release(3)
    world.one.wait(OFFER_DELAY_S)
    assert price_now(world) == 0.5


def test_the_price_is_what_the_owner_says_where_nothing_follows():
    world = Granting({**MACHINE, "cores_free": 8})
    values = {"cores": 8, "price": 0.5}
    assert "price_spot" not in world.grants.offer(values, NAMES)
    world.grants.price_load = 3.0
    assert "price_spot" not in world.grants.offer({**values, "price_spot": 0.1}, NAMES)
    assert "price_spot" not in world.grants.offer({"cores": 8}, NAMES)
    world.lease(1, resources=[("cores", 4)])
    world.one.wait(TAKEN_DELAY_S)
    assert price_now(world) is None


def test_a_refusal_changes_no_record():
    world = Granting({**MACHINE, "cores_free": 8})
    seq = world.one.own.seq
    assert world.claim(1, [("cores", 9)])[0] == 0
    assert world.grants._offering is None
    world.one.wait(OFFER_DELAY_S)
    assert world.one.own.seq == seq


def test_a_claim_that_came_to_nothing_changes_no_record():
    world = Granting({**MACHINE, "cores_free": 8, "mem_free": 64 * GIB})
    seq = world.one.own.seq
    world.claim()
    world.release()
    world.one.wait(OFFER_DELAY_S)
    assert world.one.own.seq == seq


def test_without_a_record_nothing_is_published():
    world = Granting(None)
    world.claim()
    world.release(1)
    world.ledger.offer({"cores": 8.0}, {})
    world.grants._changed(world.one.now)
    world.one.wait(OFFER_DELAY_S)


def test_leases_of_an_earlier_start_end_though_nobody_asks():
    """Else the record would say for ever that they stand, and nobody would come to ask."""
    before = Granting()
    before.lease(resources=[("cores", 8)])
    lease = before.ledger.grants()[0]
    world = Granting({**MACHINE, "cores_free": 0}, epoch=2, bound=[lease])
    world.grants.check()
    assert world.offered["cores_free"] == 0
    world.one.wait(lease.expires - world.one.now + OFFER_DELAY_S)
    assert world.ledger.free()["cores"] == 8.0
    assert world.said_free() == 8
    world.grants.check()


# --- strange messages -----------------------------------------------------------------------------

GOOD = {
    "dh_claim": claim_args(),
    "dh_confirm": [token(1), 1, 30.0],
    "dh_renew": [token(1), 1],
    "dh_release": [token(1)],
}
STRANGE = [
    None,
    True,
    -1,
    2**63,
    0.5,
    "x",
    b"",
    bytes(17),
    [],
    [[]],
    {},
    float("nan"),
    float("inf"),
]
ALSO_GOOD = {
    ("dh_claim", 0): [b""],
    ("dh_claim", 2): [[]],
    ("dh_claim", 3): [-1],
    ("dh_claim", 4): [None, 0.5, 2**63],
    ("dh_claim", 6): [b"", bytes(17)],
    ("dh_claim", 7): [True],
    ("dh_confirm", 1): [],
    ("dh_confirm", 2): [],
}


def strange_messages():
    for name, args in GOOD.items():
        for index in range(len(args)):
            for value in STRANGE:
                good = ALSO_GOOD.get((name, index), [])
                if not any(type(value) is type(one) and value == one for one in good):
                    yield name, [*args[:index], value, *args[index + 1 :]]
        yield name, args[:-1]
        yield name, []


def test_a_malformed_field_is_counted_and_answered_by_silence():
    world = Granting()
    world.one.core.peers.of(OWNER).last_heard = world.one.now
    for number, (name, args) in enumerate(strange_messages(), 1):
        assert world.ask(name, args) == [], (name, args)
        assert world.count("malformed") == number, (name, args)
    assert len(world.ledger) == 0


@pytest.mark.parametrize(
    "resources",
    [
        [["cores"]],
        [["cores", 1, 2]],
        [["cores", -1]],
        [["cores", "1"]],
        [["cores", True]],
        [["cores", math.nan]],
        [["cores", 2 * NUMBER_MAX]],
        [["", 1]],
        [["x" * 33, 1]],
        [[b"cores", 1]],
        [["cores", 1], ["cores", 2]],
        [["r" + str(n), 1] for n in range(CLAIM_RESOURCES_MAX + 1)],
        ["cores"],
        {"cores": 1},
    ],
)
def test_malformed_amounts(resources):
    world = Granting()
    world.one.core.peers.of(OWNER).last_heard = world.one.now
    args = claim_args()
    args[2] = resources
    assert world.ask("dh_claim", args) == []
    assert world.count("malformed") == 1


@pytest.mark.parametrize(
    "wire", [b"\xc1", b"\x01", b"\x93" * 200, bytes(PREDICATE_WIRE_BYTES_MAX + 1)]
)
def test_a_malformed_predicate(wire):
    world = Granting()
    world.claim()
    args = claim_args(2, cookie=world.cookies[OWNER], wire=wire)
    assert world.ask("dh_claim", args) == []
    assert world.count("malformed") == 1
    assert len(world.ledger) == 1


def test_fields_of_later_versions_are_ignored():
    world = Granting()
    world.lease()
    fence = world.ledger.grants()[0].fence
    assert world.ask("dh_renew", [token(1), fence, "more"]) == [[1, 30.0]]
    assert world.ask("dh_release", [token(1), None]) == [[1]]


@pytest.mark.parametrize(
    "value", [LEASE_S_MIN - 0.01, LEASE_S_MAX + 1, math.nan, math.inf, "30", None, True]
)
def test_a_term_has_bounds(value):
    with pytest.raises(MalformedMessage):
        as_term(value)
    assert as_term(int(LEASE_S_MIN)) == LEASE_S_MIN


def test_a_hold_lasts_no_longer_than_holds_do():
    assert as_hold(99 * HOLD_S) == HOLD_S
    assert as_hold(0) == 0.0
    assert as_amount(NUMBER_MAX) == float(NUMBER_MAX)


def test_the_extremes_that_travel():
    world = Granting()
    assert world.claim(priority=PRIORITY_MAX)[0] == 1
    assert world.claim(2, priority=-PRIORITY_MAX)[0] == 1
    assert world.confirm(epoch=SEQ_MAX) == [0, Reason.EPOCH]


def test_every_reason_has_words():
    for reason in Reason:
        assert refusal_of(reason).partition(":")[2]
    assert len(module._WORDS) == len(Reason)


# --- preemption -----------------------------------------------------------------------------------


def preempting(world, number, cores, priority=1, **options):
    """The reply to a claim that may take leases of less priority back."""
    asked = [("cores", cores)]
    return world.claim(number, asked, priority=priority, preempt=True, **options)


def told(world):
    """Who was told since the last look to give back what, why, and how soon."""
    notices, world.notices[:] = list(world.notices), []
    return notices


def test_a_claim_may_take_back_what_is_of_less_priority():
    world = Granting()
    world.lease(1, resources=[("cores", 6)])
    ended = []
    world.grants.on_end = lambda grant, gone_by: ended.append((grant.token, gone_by))
    start = world.one.now
    assert preempting(world, 2, 4, source=OTHER) == [3, AWAIT_S]
    assert told(world) == [(OWNER, token(1), Reason.PREEMPTED, PREEMPT_GRACE_S)]
    assert ended == [(token(1), start + PREEMPT_GRACE_S)]
    assert world.ledger.free()["cores"] == 0.0
    assert preempting(world, 2, 4, source=OTHER) == [3, AWAIT_S]
    assert told(world) == []
    assert world.confirm(2) == [0, Reason.GONE]  # nothing is held yet
    world.release(1)
    kind, _, hold_s, free = preempting(world, 2, 4, source=OTHER)
    assert (kind, hold_s, free) == (1, HOLD_S, [["cores", 4.0]])
    assert world.confirm(2)[0] == 1
    assert world.count("claims_awaited") == 1


def test_an_owner_that_hears_nothing_keeps_it_for_its_term():
    world = Granting()
    world.lease(1, resources=[("cores", 8)])
    assert preempting(world, 2, 4) == [3, AWAIT_S]
    for _ in range(4):
        world.one.wait(7.0)
        assert preempting(world, 2, 4) == [3, AWAIT_S]
    world.one.wait(3.0)
    assert preempting(world, 2, 4)[0] == 1


def test_what_nobody_comes_back_for_is_awaited_no_longer():
    world = Granting()
    world.lease(1, resources=[("cores", 8)])
    assert preempting(world, 2, 4) == [3, AWAIT_S]
    world.release(1)
    assert world.ledger.free()["cores"] == 4.0
    world.one.wait(HOLD_S + 0.1)
    assert world.ledger.free()["cores"] == 8.0
    assert preempting(world, 2, 4) == [0, Reason.GONE, [["cores", 8.0]]]


@pytest.mark.parametrize("priority", [0, -1])
def test_nothing_is_taken_from_equals(priority):
    world = Granting()
    world.lease(1, resources=[("cores", 6)])
    assert preempting(world, 2, 4, priority=priority)[:2] == [0, Reason.FULL]
    assert told(world) == []


def test_nothing_is_taken_where_it_would_not_do():
    world = Granting()
    world.lease(1, resources=[("cores", 2)])
    world.lease(2, resources=[("cores", 5)], priority=7)
    assert preempting(world, 3, 4, priority=5)[:2] == [0, Reason.FULL]
    assert preempting(world, 4, 9, priority=9)[:2] == [0, Reason.FULL]
    assert told(world) == []


def test_nothing_is_taken_where_others_than_leases_use_it():
    world = Granting()
    world.lease(1, resources=[("cores", 1)])
    world.grants.offer({"cores": 8, "cores_free": 2}, NAMES)
    assert preempting(world, 2, 4)[:2] == [0, Reason.FULL]
    assert told(world) == []


def test_holds_go_at_once():
    world = Granting()
    world.claim(1, [("cores", 8)], source=OTHER)
    assert preempting(world, 2, 4)[0] == 1
    assert world.confirm(1) == [0, Reason.GONE]


def test_the_least_and_youngest_go_first_and_none_in_vain():
    world = Granting()
    world.lease(1, resources=[("cores", 1)], priority=-1)
    world.lease(2, resources=[("cores", 2)])
    world.lease(3, resources=[("cores", 2)])
    world.lease(4, resources=[("mem", 32 * GIB)])
    assert preempting(world, 5, 5) == [3, AWAIT_S]  # three are free
    assert [number for _, number, *_ in told(world)] == [token(3)]


def test_two_who_wait_do_not_wait_for_the_same():
    world = Granting()
    world.lease(1, resources=[("cores", 4)])
    world.lease(2, resources=[("cores", 4)])
    assert preempting(world, 3, 3) == [3, AWAIT_S]
    assert [number for _, number, *_ in told(world)] == [token(2)]
    assert preempting(world, 4, 1, source=OTHER) == [3, AWAIT_S]  # what is left of the same
    assert told(world) == []
    assert preempting(world, 5, 1) == [3, AWAIT_S]
    assert [number for _, number, *_ in told(world)] == [token(1)]
    world.release(2)
    assert preempting(world, 4, 1, source=OTHER)[0] == 1
    assert preempting(world, 5, 1) == [3, AWAIT_S]
    assert preempting(world, 3, 3)[0] == 1
    world.release(1)
    assert preempting(world, 5, 1)[0] == 1
    assert world.ledger.free()["cores"] == 3.0


def test_who_waits_may_be_preempted_too():
    world = Granting()
    world.lease(1, resources=[("cores", 8)])
    assert preempting(world, 2, 8, priority=1) == [3, AWAIT_S]
    assert preempting(world, 3, 8, priority=2, source=OTHER) == [3, AWAIT_S]
    assert preempting(world, 2, 8, priority=1)[:2] == [0, Reason.GONE]
    world.release(1)
    assert preempting(world, 3, 8, priority=2, source=OTHER)[0] == 1


def test_a_draining_machine_takes_nothing_back_for_others():
    world = Granting()
    world.lease(1, resources=[("cores", 8)])
    world.grants.drain(world.one.now)
    assert preempting(world, 2, 4)[:2] == [0, Reason.DRAINING]
    assert told(world) == []


def test_the_owner_of_a_machine_says_whose_work_it_takes():
    world = Granting()
    asked = []

    def accept(claim):
        asked.append(claim)
        return claim.priority > 0

    world.grants.accept = accept
    assert world.claim(1, priority=0)[:2] == [0, Reason.POLICY]
    assert world.claim(2, priority=1, price=0.5)[0] == 1
    assert world.claim(2, priority=0)[0] == 1  # granted is granted
    assert [(one.owner, one.resources, one.price) for one in asked] == [
        (OWNER, {"cores": 2.0}, None),
        (OWNER, {"cores": 2.0}, 0.5),
    ]
    assert refusal_of(Reason.POLICY).startswith("policy")


# --- in a cluster ---------------------------------------------------------------------------------


class Spoken:
    """Sessions of which a test says who speaks; nothing is sealed."""

    def __init__(self, engine, member):
        self._sealed = engine._sealed
        self.member = member
        self.speaker = None

    def receive(self, datagram, _source, _now):
        return datagram

    def seal(self, sending):
        self._sealed += sending

    def refusal(self, _verb, _cost_s, _now):
        return None

    def prove(self, record):
        return record

    def check(self):
        pass


class Secured(Granting):
    """The same machine in a cluster; whoever asks has shown `speaker`."""

    def __init__(self):
        super().__init__()
        self.authority = Authority()
        self.sessions = self.one.core.sessions = Spoken(
            self.one.engine, self.authority.member("machine")
        )
        self.alice = KeyPair(b"a" * 32)
        self.chain = self.authority.admit(self.alice, "alice", groups=("lab", "gpu"))
        self.mallory = self.authority.admit(KeyPair(b"m" * 32), "mallory")
        self.speaks(self.chain)

    def speaks(self, chain):
        self.sessions.speaker = chain
        return self


def test_a_claim_says_who_asks_and_a_grant_keeps_it():
    world = Secured()
    asked = []
    world.grants.accept = lambda claim: asked.append(claim) or True
    world.lease(1)
    assert [(one.who, one.groups) for one in asked] == [(world.chain.leaf, ("lab", "gpu"))]
    grant = world.ledger.known(token(1))
    assert (grant.user, grant.subject) == ("alice", world.alice.public)


def test_in_open_mode_nobody_is_known():
    world = Granting()
    asked = []
    world.grants.accept = lambda claim: asked.append(claim) or True
    world.lease(1)
    assert [(one.who, one.groups) for one in asked] == [(None, ())]
    grant = world.ledger.known(token(1))
    assert (grant.user, grant.subject) == ("", b"")


@pytest.mark.parametrize("bound", [False, True])
def test_a_token_is_of_no_use_to_who_stole_it(bound):
    world = Secured()
    fence = world.lease(1) if bound else world.claim(1) and 0
    expires = world.ledger.known(token(1)).expires
    world.one.wait(1.0)
    world.speaks(world.mallory)
    assert world.claim(1, [("cores", 2)])[:2] == [0, Reason.OTHERS]
    assert world.confirm(1) == [0, Reason.OTHERS]
    assert world.renew(1, fence) == [0, Reason.OTHERS]
    assert world.release(1) == [0, Reason.OTHERS]
    assert world.count("claims_of_others") == 4
    world.speaks(None)  # somebody who has shown nothing
    assert world.release(1) == [0, Reason.OTHERS]
    grant = world.ledger.known(token(1))
    assert grant.expires == expires
    world.speaks(world.chain)
    if not bound:
        fence = world.confirm(1)[1]
    assert world.renew(1, fence)[0] == 1
    assert world.release(1) == [1]
    assert refusal_of(Reason.OTHERS).startswith("others")


def test_who_preempts_is_kept_too_and_nobody_takes_its_place():
    world = Secured()
    world.lease(1, resources=[("cores", 8)])
    world.speaks(world.mallory)
    assert preempting(world, 2, 8, priority=1) == [3, AWAIT_S]
    assert world.ledger.known(token(2)).user == "mallory"
    world.speaks(world.chain)
    assert world.release(2) == [0, Reason.OTHERS]
    assert world.release(1) == [1]
    assert preempting(world, 2, 8, priority=1)[:2] == [0, Reason.OTHERS]
    world.speaks(world.mallory)
    assert preempting(world, 2, 8, priority=1)[0] == 1


def test_who_was_lent_a_claim_acts_in_the_name_of_who_lent_it():
    """Its groups are those that were lent, which may be fewer."""
    world = Secured()
    job = KeyPair(b"j" * 32)
    cert = world.authority.cert(job, "job", caps=("claim",), groups=("gpu",), days=1)
    world.speaks(sign_cert(world.alice, world.chain, cert))
    asked = []
    world.grants.accept = lambda claim: asked.append(claim) or True
    fence = world.lease(1)
    assert [(one.who.name, one.groups) for one in asked] == [("alice", ("gpu",))]
    assert world.ledger.known(token(1)).subject == world.alice.public
    world.speaks(world.chain)
    assert world.renew(1, fence)[0] == 1


def test_a_certificate_that_was_made_anew_has_the_same_grants():
    world = Secured()
    fence = world.lease(1)
    world.speaks(world.authority.admit(world.alice, "alice of the lab"))
    assert world.renew(1, fence)[0] == 1
