"""The side that asks: bids in turn, leases that are kept, and what is never left behind.

In the first half the test is the node that is asked; in the second a real one answers, over a path
of the test's making that can lose, hold back and repeat.
"""

import pickle
import random

import pytest
from hub_world import SCHEMA, Lone, machine

from dhtos.core.limits import AWAIT_S, CALL_DEADLINE_S, HOLD_S, LEASE_MARGIN
from dhtos.errors import Closed, LeaseLost, Preempted
from dhtos.protocol.claims import RENEWALS, Bid, Claiming, Tenants, as_reason
from dhtos.protocol.grants import Grants
from dhtos.protocol.ledger import Ledger, Reason, State
from dhtos.protocol.wire import encode_request, parse

ONE = ("10.1.0.1", 7400)
TWO = ("10.1.0.2", 7400)
TERM = 30.0
HELD = [1, 5, 10.0, [["cores", 6.0]]]
FENCE = 5 << 32 | 1
BOUND = [1, FENCE, TERM]


def bid(number, cores=2.0, **other):
    endpoint = (f"10.1.0.{number}", 7400)
    return Bid(number.to_bytes(20), endpoint, {"cores": cores}, SCHEMA.tag, **other)


class Asking:
    """A node that claims; the test answers."""

    def __init__(self, *bids, ttl_s=TERM):
        self.one = Lone()
        self.core = self.one.core
        self.tenants = Tenants(self.core)
        drawn = random.Random(3)
        self.claiming = Claiming(
            self.core, bids or (bid(1), bid(2)), ttl_s, self.one.now, draw=drawn.randbytes
        )
        self.operation = self.claiming.operation

    def next(self, name):
        """The only request of that name that is sent."""
        (asked,) = self.one.sent(name)
        return asked

    def held(self):
        """Grant a hold, and see it confirmed."""
        self.one.reply(self.next("dh_claim"), HELD)
        return self.next("dh_confirm")

    def bound(self):
        """Grant a lease, and keep it."""
        confirm = self.held()
        self.one.reply(confirm, BOUND)
        granted = self.operation.result().granted
        return self.tenants.keep(granted, self.one.now)

    def renewals(self):
        return self.one.sent("dh_renew")


# --- bids -----------------------------------------------------------------------------------------


def test_a_claim_says_what_is_needed_and_is_confirmed():
    world = Asking(bid(1, where=b"\x90", priority=4, price=0.5), ttl_s=20.0)
    claim = world.next("dh_claim")
    token = claim.args[1]
    assert claim.endpoint == ONE
    assert claim.args == [b"", token, [["cores", 2.0]], 4, 0.5, SCHEMA.tag, b"\x90", False]
    assert len(token) == 16
    sent_at = world.one.now
    world.one.now += 0.05
    world.one.reply(claim, HELD)
    confirm = world.next("dh_confirm")
    assert (confirm.endpoint, confirm.args) == (ONE, [token, 5, 20.0])
    world.one.now += 0.05
    world.one.reply(confirm, [1, FENCE, 20.0])
    outcome = world.operation.result()
    granted = outcome.granted
    assert outcome.declined == ()
    assert (granted.node_id, granted.endpoint, granted.token) == (bid(1).node_id, ONE, token)
    assert (granted.fence, granted.ttl_s, granted.resources) == (FENCE, 20.0, {"cores": 2.0})
    assert granted.free == {"cores": 6.0}
    assert granted.expires == pytest.approx(sent_at + 0.05 + 20.0 * (1 - LEASE_MARGIN))
    assert len(world.core.calls) == 0


def test_who_says_no_is_followed_by_the_next_with_another_token():
    world = Asking()
    first = world.next("dh_claim")
    world.one.reply(first, [0, Reason.FULL, [["cores", 1.0]]])
    second = world.next("dh_claim")
    assert second.endpoint == TWO
    assert second.args[1] != first.args[1]
    world.one.reply(second, HELD)
    world.one.reply(world.next("dh_confirm"), BOUND)
    outcome = world.operation.result()
    assert outcome.granted.endpoint == TWO
    (declined,) = outcome.declined
    assert (declined.node_id, declined.free) == (bid(1).node_id, {"cores": 1.0})
    assert declined.reason.startswith("full")


def test_a_refusal_needs_no_release():
    world = Asking()
    world.one.reply(world.next("dh_claim"), [0, Reason.DRAINING, []])
    assert world.one.sent("dh_release") == []


def test_when_all_decline_there_is_no_lease():
    world = Asking()
    for reason in (Reason.PRICE, Reason.WHERE):
        world.one.reply(world.next("dh_claim"), [0, reason, []])
    outcome = world.operation.result()
    assert outcome.granted is None
    assert [one.reason.split(":")[0] for one in outcome.declined] == ["price", "where"]


def test_no_bids_end_at_once():
    world = Lone()
    outcome = Claiming(world.core, (), TERM, world.now).operation.result()
    assert (outcome.granted, outcome.declined) == (None, ())


def test_tokens_are_drawn_from_the_engine_unless_told_otherwise():
    world = Lone()
    Claiming(world.core, [bid(1)], TERM, world.now)
    Claiming(world.core, [bid(1)], TERM, world.now)
    assert len({claim.args[1] for claim in world.sent("dh_claim")}) == 2


def test_a_cookie_is_brought_back_with_the_same_token_and_kept_for_the_next_claim():
    world = Asking()
    first = world.next("dh_claim")
    world.one.reply(first, [2, b"cookie!!"])
    again = world.next("dh_claim")
    assert again.endpoint == ONE
    assert again.args == [b"cookie!!", *first.args[1:]]
    world.one.reply(again, HELD)
    Claiming(world.core, [bid(1)], TERM, world.one.now)
    assert world.next("dh_claim").args[0] == b"cookie!!"


def test_who_asks_for_a_cookie_twice_is_left():
    world = Asking()
    for cookie in (b"one", b"two"):
        world.one.reply(world.next("dh_claim"), [2, cookie])
    assert world.core.counters["malformed"] == 1
    sent = world.one.sent()
    assert [(one.name, one.endpoint) for one in sent] == [("dh_release", ONE), ("dh_claim", TWO)]


def test_a_node_with_a_new_key_is_shown_the_new_cookie():
    world = Asking()
    world.core.remember_cookie(TWO, b"old")
    world.one.reply(world.next("dh_claim"), [0, Reason.FULL, []])
    second = world.next("dh_claim")
    assert second.args[0] == b"old"
    world.one.reply(second, [2, b"new"])
    assert world.next("dh_claim").args[0] == b"new"


def test_a_silent_node_is_sent_a_release_and_the_next_is_asked():
    world = Asking()
    claim = world.next("dh_claim")
    world.one.wait(CALL_DEADLINE_S)
    names = [(one.name, one.endpoint, one.args[:1]) for one in world.one.sent()]
    assert ("dh_claim", ONE, [b""]) in names  # once more
    assert ("dh_release", ONE, [claim.args[1]]) in names
    assert ("dh_claim", TWO, [b""]) in names
    world.one.wait(CALL_DEADLINE_S)
    outcome = world.operation.result()
    assert [one.reason.split(":")[0] for one in outcome.declined] == ["silent", "silent"]


def test_a_confirm_without_an_answer_is_released_too():
    """It may have become a lease: nobody would renew it, and nobody could use it."""
    world = Asking(bid(1))
    token = world.held().args[0]
    (release,) = world.one.until_sent("dh_release", CALL_DEADLINE_S)
    assert (release.endpoint, release.args) == (ONE, [token])
    assert world.operation.result().granted is None


@pytest.mark.parametrize("reason", [Reason.EPOCH, Reason.GONE, Reason.DISK])
def test_a_confirm_that_is_refused_is_released(reason):
    world = Asking(bid(1))
    confirm = world.held()
    world.one.reply(confirm, [0, reason])
    assert world.next("dh_release").args == [confirm.args[0]]
    (declined,) = world.operation.result().declined
    assert declined.reason.startswith({10: "disk", 6: "gone", 4: "restarted"}[reason])


def test_a_reason_of_a_later_version_is_a_refusal():
    assert as_reason(200) is Reason.GONE
    world = Asking()
    world.one.reply(world.next("dh_claim"), [0, 200, []])
    assert world.next("dh_claim").endpoint == TWO


STRANGE = [
    None, 7, "x", b"x", [], [3], [-1], [None], [True], [1.0], [1] * 9, {},
    [0], [0, 0], [0, 300], [0, "full", []], [0, 1], [0, 1, [["cores", -1]]], [0, 1, 5],
    [1], [1, -1, 10.0, []], [1, 5, -1.0, []], [1, 5, "x", []], [1, 5, 10.0, None],
    [1, 2**63, 1, []], [2], [2, bytes(9)], [2, "cookie"], [2, None],
]  # fmt: skip


@pytest.mark.parametrize("value", STRANGE)
def test_a_malformed_answer_to_a_claim_is_counted_and_the_next_is_asked(value):
    world = Asking()
    world.one.reply(world.next("dh_claim"), value)
    assert world.core.counters["malformed"] == 1
    sent = world.one.sent()
    assert [(one.name, one.endpoint) for one in sent] == [("dh_release", ONE), ("dh_claim", TWO)]


@pytest.mark.parametrize(
    "value",
    [
        None, [], [0], [0, None], [2], [2, b"cookie"], [1], [1, 0, TERM], [1, -5, TERM], [1, FENCE],
        [1, FENCE, 0.5], [1, FENCE, 3601], [1, FENCE, "30"], [1, 2**63, TERM], [3],
    ],
)  # fmt: skip
def test_a_malformed_answer_to_a_confirm_is_counted_and_released(value):
    world = Asking()
    world.one.reply(world.held(), value)
    assert world.core.counters["malformed"] == 1
    sent = world.one.sent()
    assert [(one.name, one.endpoint) for one in sent] == [("dh_release", ONE), ("dh_claim", TWO)]


def test_an_answer_from_elsewhere_is_not_heard():
    world = Asking()
    claim = world.next("dh_claim")
    world.one.reply(claim, HELD, source=TWO)
    assert world.one.sent() == []
    assert not world.operation.done


@pytest.mark.parametrize("when", ["asked", "held"])
def test_who_is_cancelled_leaves_nothing_behind(when):
    world = Asking()
    token = world.next("dh_claim").args[1] if when == "asked" else world.held().args[0]
    world.operation.cancel(world.one.now)
    release = world.next("dh_release")
    assert (release.endpoint, release.args) == (ONE, [token])
    with pytest.raises(Closed):
        world.operation.result()
    world.one.wait(CALL_DEADLINE_S)
    (again,) = world.one.sent()  # once more, as nobody answered
    assert (again.name, again.args) == ("dh_release", [token])
    assert len(world.core.calls) == 0


def test_a_late_answer_to_a_cancelled_claim_changes_nothing():
    world = Asking()
    claim = world.next("dh_claim")
    world.operation.cancel(world.one.now)
    world.one.sent()
    world.one.reply(claim, HELD)
    assert world.one.sent() == []


def test_what_was_granted_while_its_asker_was_leaving_is_given_back():
    world = Asking()
    confirm = world.held()
    world.claiming.give_back(world.one.now)  # nothing is granted yet
    assert world.one.sent() == []
    world.one.reply(confirm, BOUND)
    world.operation.cancel(world.one.now)  # too late: it is done
    assert world.one.sent() == []
    world.claiming.give_back(world.one.now)
    release = world.next("dh_release")
    assert (release.endpoint, release.args) == (ONE, confirm.args[:1])
    world.one.wait(CALL_DEADLINE_S)
    assert len(world.one.sent("dh_release")) == 1  # once more, as nobody answered
    assert len(world.core.calls) == 0


@pytest.mark.parametrize("end", ["declined", "cancelled"])
def test_where_nothing_was_granted_there_is_nothing_to_give_back(end):
    world = Asking(bid(1))
    if end == "declined":
        world.one.reply(world.next("dh_claim"), [0, Reason.FULL, []])
    else:
        world.operation.cancel(world.one.now)
    world.one.sent()
    world.claiming.give_back(world.one.now)
    assert world.one.sent() == []


def test_a_node_with_too_many_calls_asks_nobody_and_goes_on(monkeypatch):
    monkeypatch.setattr("dhtos.protocol.calls.CALLS_OUTSTANDING_MAX", 0)
    world = Asking()
    world.one.wait(0.0)
    world.one.wait(0.0)
    declined = world.operation.result().declined
    assert [one.reason.split(":")[0] for one in declined] == ["silent", "silent"]


# --- keeping --------------------------------------------------------------------------------------


def test_a_lease_is_renewed_at_a_third_of_its_term():
    world = Asking()
    tenancy = world.bound()
    world.tenants.check()
    until = tenancy.expires
    for _ in range(12):
        (renewal,) = world.one.until_sent("dh_renew", TERM / RENEWALS)
        assert (renewal.endpoint, renewal.args) == (ONE, [tenancy.granted.token, FENCE])
        sent_at = world.one.now
        world.one.now += 0.01
        world.one.reply(renewal, [1, TERM])
        assert tenancy.expires == pytest.approx(sent_at + TERM * (1 - LEASE_MARGIN))
        assert tenancy.expires > until
        until = tenancy.expires
    assert not tenancy.operation.done


def test_a_renewal_may_be_lost():
    world = Asking()
    tenancy = world.bound()
    world.one.wait(TERM / RENEWALS + 1.0)
    assert len(world.renewals()) == 2  # one, and once more
    (renewal,) = world.one.until_sent("dh_renew", TERM / RENEWALS / 4)  # sooner than else
    world.one.reply(renewal, [1, TERM])
    assert len(world.one.until_sent("dh_renew", TERM / RENEWALS)) == 1
    world.one.wait(TERM * 0.6)
    assert not tenancy.operation.done


def test_a_renewal_that_is_under_way_is_not_asked_for_twice():
    """The path is slower than a third of the term."""
    world = Asking(ttl_s=1.0)
    world.core.peers.of(ONE).srtt = 0.5
    world.one.reply(world.held(), [1, FENCE, 1.0])
    tenancy = world.tenants.keep(world.operation.result().granted, world.one.now)
    world.one.wait(0.7)
    (renewal,) = world.renewals()
    world.one.reply(renewal, [1, 1.0])
    assert not tenancy.operation.done
    assert len(world.one.until_sent("dh_renew", 1.0 / RENEWALS)) == 1


def test_an_owner_counts_from_when_it_asked_not_from_when_it_was_answered():
    """A reply that was under way for long, or that answers the copy that was sent again."""
    world = Asking()
    tenancy = world.bound()
    world.one.wait(TERM / RENEWALS)
    (renewal,) = world.renewals()
    sent_at = world.one.now
    world.one.wait(0.1)
    assert len(world.renewals()) == 1  # once more: the same request
    world.one.reply(renewal, [1, TERM])
    assert tenancy.expires == pytest.approx(sent_at + TERM * (1 - LEASE_MARGIN))


def test_a_term_is_never_longer_than_was_agreed():
    world = Asking()
    tenancy = world.bound()
    world.one.wait(TERM / RENEWALS)
    (renewal,) = world.renewals()
    world.one.reply(renewal, [1, 3600.0])
    assert tenancy.expires == pytest.approx(world.one.now + TERM * (1 - LEASE_MARGIN))


def test_a_node_that_is_silent_for_a_term_has_taken_it_back_and_is_told():
    world = Asking()
    tenancy = world.bound()
    world.one.wait(TERM * (1 - LEASE_MARGIN) - 0.01)
    assert not tenancy.operation.done
    world.one.sent()
    world.one.wait(0.02)
    with pytest.raises(LeaseLost, match="has not answered for a whole term"):
        tenancy.operation.result()
    assert world.next("dh_release").args == [tenancy.granted.token]
    assert world.tenants.kept == {}
    world.one.wait(2 * TERM)
    assert world.renewals() == []


def test_a_lease_that_was_granted_too_late_is_lost_at_once():
    world = Asking(ttl_s=1.0)
    confirm = world.held()
    world.one.now += 1.0
    world.one.reply(confirm, [1, FENCE, 1.0])
    tenancy = world.tenants.keep(world.operation.result().granted, world.one.now)
    assert tenancy.expires < world.one.now
    world.one.wait(0.0)
    assert isinstance(tenancy.operation.error, LeaseLost)


def test_a_refused_renewal_is_the_end():
    world = Asking()
    tenancy = world.bound()
    world.one.wait(TERM / RENEWALS)
    (renewal,) = world.renewals()
    world.one.reply(renewal, [0, Reason.GONE])
    with pytest.raises(LeaseLost, match="gone"):
        tenancy.operation.result()
    world.tenants.check()


@pytest.mark.parametrize(
    "value", [None, [], [2], [1], [1, 0.5], [1, "x"], [0], [0, "x"], [1.0, 30.0]]
)
def test_a_malformed_answer_to_a_renewal_prolongs_nothing(value):
    world = Asking()
    tenancy = world.bound()
    until = tenancy.expires
    world.one.wait(TERM / RENEWALS)
    (renewal,) = world.renewals()
    world.one.reply(renewal, value)
    assert world.core.counters["malformed"] == 1
    assert tenancy.expires == until
    assert not tenancy.operation.done


def test_a_release_is_sent_again_if_it_is_lost_and_ends_the_renewals():
    world = Asking()
    tenancy = world.bound()
    world.one.wait(TERM / RENEWALS)
    world.one.sent()
    tenancy.release(world.one.now)
    first = world.next("dh_release")
    assert tenancy.operation.result() is None
    tenancy.release(world.one.now)
    world.one.wait(2 * CALL_DEADLINE_S)
    (again,) = world.one.sent()
    assert (again.name, again.args) == ("dh_release", first.args)
    assert len(world.core.calls) == 0


def test_a_release_that_is_answered_is_not_sent_again():
    world = Asking()
    tenancy = world.bound()
    tenancy.release(world.one.now)
    world.one.reply(world.next("dh_release"), [1])
    world.one.wait(CALL_DEADLINE_S)
    assert world.one.sent() == []


def test_cancelling_who_waits_gives_the_lease_back():
    world = Asking()
    tenancy = world.bound()
    tenancy.operation.cancel(world.one.now)
    assert world.next("dh_release").args == [tenancy.granted.token]
    with pytest.raises(Closed):
        tenancy.operation.result()
    assert world.tenants.kept == {}


def test_all_is_given_back_at_the_end():
    world = Asking()
    tenancy = world.bound()
    other = Claiming(world.core, [bid(2)], TERM, world.one.now)
    world.one.reply(world.next("dh_claim"), HELD)
    world.one.reply(world.next("dh_confirm"), BOUND)
    world.tenants.keep(other.operation.result().granted, world.one.now)
    world.tenants.check()
    world.tenants.release(world.one.now)
    assert {one.endpoint for one in world.one.sent("dh_release")} == {ONE, TWO}
    assert tenancy.operation.done
    assert world.tenants.kept == {}


def test_a_lease_that_is_taken_back_is_lost_and_given_up():
    world = Asking()
    tenancy = world.bound()
    args = [tenancy.granted.token, Reason.DRAINING, 0.0]
    assert world.one.request("dh_revoke", args, TWO) == []
    assert not tenancy.operation.done
    assert world.one.request("dh_revoke", [bytes(16), Reason.DRAINING, 0.0], ONE) == []
    assert not tenancy.operation.done
    world.one.engine.receive(encode_request(b"r" * 20, "dh_revoke", args), ONE, world.one.now)
    assert world.next("dh_release").args == [tenancy.granted.token]
    with pytest.raises(LeaseLost, match="draining"):
        tenancy.operation.result()
    assert world.one.request("dh_revoke", args, ONE) == []


@pytest.mark.parametrize(
    "args",
    [
        [],
        [bytes(16), 1],
        ["x", 1, 0.0],
        [bytes(17), 1, 0.0],
        [bytes(16), 0, 0.0],
        [1, 1, 0.0],
        [bytes(16), 1, -1.0],
        [bytes(16), 1, None],
    ],
)
def test_a_malformed_notice_is_counted(args):
    world = Asking()
    tenancy = world.bound()
    assert world.one.request("dh_revoke", args, ONE) == []
    assert world.core.counters["malformed"] == 1
    assert not tenancy.operation.done


# --- with a real node at the other end ------------------------------------------------------------


class Pair:
    """An owner, and a node of eight cores; the test says which datagrams arrive."""

    def __init__(self, *, strangers=False):
        self.node = Lone(machine(1, cores=8), seed=1)
        self.owner = Lone(machine(2, cores=8), seed=2)
        self.grants = Grants(self.node.hub, Ledger())
        self.grants.offer({"cores": 8}, {"cores": None})
        self.tenants = Tenants(self.owner.core)
        if not strangers:
            self.node.core.peers.of(self.owner.own.endpoint).last_heard = self.node.now
        self.lost = set()  # what does not arrive: names of requests, "reply" for replies
        self.names = {}

    @property
    def cores(self):
        return self.grants.ledger.free()["cores"]

    def claim(self, cores=2.0, ttl_s=TERM):
        return Claiming(self.owner.core, [bid(1, cores)], ttl_s, self.owner.now).operation

    def lease(self, **options):
        operation = self.claim(**options)
        self.carry()
        return self.tenants.keep(operation.result().granted, self.owner.now)

    def carry(self):
        """Deliver until nobody has anything to send."""
        while any([self._from(self.owner, self.node), self._from(self.node, self.owner)]):
            pass
        self.grants.check()
        self.tenants.check()

    def _from(self, sender, target):
        sent = sender.engine.outbox()
        for datagram, to in sent:
            message = parse(datagram)
            name = getattr(message, "name", None)
            if name is not None:
                self.names[message.msg_id] = name
            fate = name or "reply to " + self.names[message.msg_id]
            if fate not in self.lost and to == target.own.endpoint:
                target.engine.receive(datagram, sender.own.endpoint, target.now)
        return sent

    def wait(self, seconds, *, step=0.05):
        """Let time pass for both."""
        for _ in range(round(seconds / step)):
            for one in (self.node, self.owner):
                one.wait(step)
            self.carry()


def test_a_lease_from_end_to_end():
    pair = Pair(strangers=True)
    tenancy = pair.lease(cores=5.0)
    assert pair.cores == 3.0
    pair.wait(100.0)
    assert not tenancy.operation.done
    assert pair.cores == 3.0
    tenancy.release(pair.owner.now)
    pair.carry()
    assert pair.cores == 8.0


@pytest.mark.parametrize(
    "lost", ["dh_claim", "reply to dh_claim", "dh_confirm", "reply to dh_confirm"]
)
def test_what_is_lost_once_is_granted_once(lost):
    pair = Pair()
    operation = pair.claim()
    pair.lost = {lost}
    pair.carry()
    assert not operation.done
    pair.lost = set()
    pair.wait(CALL_DEADLINE_S)
    granted = operation.result().granted
    assert granted is not None
    (grant,) = pair.grants.ledger.grants()
    assert (grant.token, grant.fence) == (granted.token, granted.fence)
    assert granted.expires < grant.expires
    assert pair.cores == 6.0


@pytest.mark.parametrize("lost", ["reply to dh_claim", "reply to dh_confirm"])
def test_who_is_not_heard_at_all_keeps_nothing(lost):
    pair = Pair()
    operation = pair.claim()
    pair.lost = {lost}
    pair.wait(2 * CALL_DEADLINE_S)
    assert operation.result().granted is None
    assert pair.cores == 8.0


def test_what_nobody_could_release_runs_out():
    pair = Pair()
    pair.claim()
    pair.lost = {"reply to dh_claim", "dh_release"}
    pair.wait(HOLD_S / 2)
    assert pair.cores == 6.0
    pair.wait(HOLD_S)
    assert pair.cores == 8.0


def test_an_owner_stops_believing_before_its_node_does():
    for lost in ({"dh_renew"}, {"reply to dh_renew"}):
        pair = Pair()
        tenancy = pair.lease()
        pair.wait(TERM / RENEWALS + 1.0)
        pair.lost = {*lost, "dh_release"}
        while not tenancy.operation.done:
            assert pair.cores == 6.0
            pair.wait(0.1)
        assert pair.cores == 6.0
        pair.wait(TERM)
        assert pair.cores == 8.0


def test_a_lost_notice_shows_at_the_next_renewal_and_nobody_is_let_in_before():
    pair = Pair()
    tenancy = pair.lease(cores=8.0)
    pair.lost = {"dh_revoke"}
    pair.grants.revoke(tenancy.granted.token, Reason.GONE, pair.node.now)
    pair.carry()
    refused = pair.claim(1.0)
    pair.carry()
    assert refused.result().granted is None
    assert not tenancy.operation.done
    pair.wait(TERM / RENEWALS + 0.1)
    assert isinstance(tenancy.operation.error, LeaseLost)
    assert pair.cores == 8.0


def test_a_notice_that_is_heard_frees_at_once():
    pair = Pair()
    tenancy = pair.lease(cores=8.0)
    pair.grants.drain(pair.node.now, revoke=True)
    pair.carry()
    assert isinstance(tenancy.operation.error, LeaseLost)
    assert pair.cores == 8.0
    assert len(pair.grants.ledger) == 0


def test_a_cancelled_claim_that_was_confirmed_meanwhile_is_released():
    pair = Pair()
    operation = pair.claim()
    pair.lost = {"reply to dh_confirm"}
    pair.carry()
    assert pair.grants.ledger.grants()[0].state is State.BOUND
    operation.cancel(pair.owner.now)
    pair.carry()
    assert pair.cores == 8.0


# --- preemption -----------------------------------------------------------------------------------


def preempted(world, tenancy, grace_s):
    """The machine wants the lease back, and gives so much time."""
    args = [tenancy.granted.token, Reason.PREEMPTED, grace_s]
    assert world.one.request("dh_revoke", args, ONE) == []


def test_who_preempts_asks_again_until_the_others_have_given_back():
    world = Asking(bid(1, priority=4, preempt=True))
    first = world.next("dh_claim")
    assert first.args[-1] is True
    world.one.reply(first, [3, AWAIT_S])
    assert world.one.sent() == []
    (second,) = world.one.until_sent("dh_claim")
    assert second.args == first.args
    assert world.one.now == pytest.approx(100.0 + AWAIT_S)
    world.one.reply(second, HELD)
    world.one.reply(world.next("dh_confirm"), BOUND)
    assert world.operation.result().granted.endpoint == ONE


def test_who_waits_and_goes_gives_back_what_is_awaited():
    world = Asking(bid(1, preempt=True))
    claim = world.next("dh_claim")
    world.one.reply(claim, [3, AWAIT_S])
    world.operation.cancel(world.one.now)
    assert world.next("dh_release").args == [claim.args[1]]
    world.one.wait(5.0)
    assert world.one.sent("dh_claim") == []


def test_who_does_not_preempt_waits_for_nobody():
    world = Asking(bid(1), bid(2))
    world.one.reply(world.next("dh_claim"), [3, AWAIT_S])
    sent = world.one.sent()
    assert [(one.name, one.endpoint) for one in sent] == [("dh_release", ONE), ("dh_claim", TWO)]
    assert world.core.counters["malformed"] == 1


def test_a_machine_that_says_wait_is_not_asked_more_often_than_is_good():
    world = Asking(bid(1, preempt=True))
    world.one.reply(world.next("dh_claim"), [3, 0.0])
    world.one.wait(0.9 * AWAIT_S)
    assert world.one.sent("dh_claim") == []
    world.one.wait(0.2 * AWAIT_S)
    assert len(world.one.sent("dh_claim")) == 1


def test_who_is_preempted_has_time_and_gives_back_at_the_end_of_it():
    world = Asking()
    tenancy = world.bound()
    preempted(world, tenancy, 10.0)
    with pytest.raises(Preempted, match="higher priority") as caught:
        tenancy.operation.result()
    assert caught.value.grace_s == 10.0
    assert pickle.loads(pickle.dumps(caught.value)).grace_s == 10.0
    preempted(world, tenancy, 3.0)  # once more, and it changes nothing
    assert world.one.sent() == []
    world.one.wait(9.9)
    assert world.one.sent() == []  # no renewal either
    world.tenants.check()
    (given_back,) = world.one.until_sent("dh_release", 0.2)
    assert given_back.args == [tenancy.granted.token]
    assert world.tenants.kept == {}


def test_who_is_preempted_may_give_back_sooner():
    world = Asking()
    tenancy = world.bound()
    preempted(world, tenancy, 10.0)
    tenancy.release(world.one.now)
    world.one.reply(world.next("dh_release"), [1])
    world.one.wait(20.0)
    assert world.one.sent() == []


def test_nobody_may_use_what_is_preempted_beyond_its_term():
    world = Asking()
    tenancy = world.bound()
    world.one.now += 28.0
    preempted(world, tenancy, 10.0)
    with pytest.raises(Preempted) as caught:
        tenancy.operation.result()
    assert caught.value.grace_s == pytest.approx(tenancy.expires - world.one.now)
    (given_back,) = world.one.until_sent("dh_release", 2.0)
    assert given_back.args == [tenancy.granted.token]
