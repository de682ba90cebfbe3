"""Fair shares: an idle node limits nobody, a short one serves first who has had least."""

from random import Random

import pytest
from trust_world import Authority, End, Wire

from dhtos.core import limits
from dhtos.core.limits import SHARE_ACTIVE_S, SHARE_BURST_S, SHARE_CAPACITY
from dhtos.protocol import shares
from dhtos.protocol.engine import Engine
from dhtos.protocol.shares import COST_S, COSTS_S, Shares
from dhtos.protocol.wire import encode_request
from dhtos.trust.cert import sign_cert
from dhtos.trust.keys import KeyPair

COST = 5e-3
HONEST = [b"honest %d" % n for n in range(9)]


def served(table, times, who, cost=COST):
    """How much of what somebody asks at these times is served."""
    return sum(table.admits(who, cost, at) for at in times) / len(times)


def every(gap_s, seconds, begin=0.0):
    return [begin + n * gap_s for n in range(int(seconds / gap_s))]


def test_an_idle_node_limits_nobody():
    """One may have all of it, and all of them together no more than it has."""
    table = Shares()
    assert served(table, every(COST / SHARE_CAPACITY * 1.01, 20.0), b"alone") == 1.0
    assert len(table) == 0, "nothing is written down"


def test_one_may_have_what_nobody_else_wants_and_no_more():
    table = Shares()
    for who in HONEST:
        served(table, every(0.1, 5.0), who)  # they are quiet, but count
    asked = every(COST / 10, 40.0, begin=5.0)
    share = served(table, asked, b"greedy")
    assert share * 10 == pytest.approx(SHARE_CAPACITY, rel=0.1)


def test_who_stays_within_its_share_is_served_whatever_another_does():
    """Nine ask for nine tenths of their shares; one asks for 500 times its own."""
    table = Shares()
    share_s = COST * 10 / SHARE_CAPACITY  # between two requests
    events = [(at, b"greedy") for at in every(share_s / 500, 10.0)]
    rng = Random(1)
    for who in HONEST:
        events += [(at + rng.random() * share_s, who) for at in every(share_s / 0.9, 10.0)]
    got = dict.fromkeys([b"greedy", *HONEST], 0)
    for at, who in sorted(events):
        got[who] += table.admits(who, COST, at)
    asked = sum(who == HONEST[0] for _, who in events)
    assert all(got[who] == asked for who in HONEST)
    assert sum(got.values()) * COST <= SHARE_CAPACITY * (10.0 + 3 * SHARE_BURST_S)
    assert got[b"greedy"] >= asked, "it has its own share, too"


def test_who_is_a_little_above_its_share_goes_before_who_is_far_above():
    """Three of ten ask, one for three shares and one for a hundred: there is room for the first."""
    table = Shares()
    share_s = COST * 10 / SHARE_CAPACITY
    for who in HONEST:
        table.admits(who, COST, 0.0)
    events = [(at, b"greedy") for at in every(share_s / 100, 8.0)]
    events += [(at, HONEST[0]) for at in every(share_s / 3, 8.0, begin=1e-6)]
    got = dict.fromkeys([b"greedy", *HONEST], 0)
    for at, who in sorted(events):
        got[who] += table.admits(who, COST, at)
    asked = sum(who == HONEST[0] for _, who in events)
    assert got[HONEST[0]] > 0.9 * asked / 3
    assert got[b"greedy"] < 0.2 * (len(events) - asked)


def test_who_has_flooded_has_its_share_again_at_once():
    table = Shares()
    flood = every(COST / 50, 5.0)
    for n, at in enumerate(flood):
        table.admits(b"greedy", COST, at)
        if n % 100 == 0:
            table.admits(HONEST[0], COST, at)
    assert table.refuses(b"greedy", 5.0)
    assert not table.refuses(b"greedy", 5.0 + SHARE_BURST_S / 2 + 1e-6)
    gentle = every(2.5 * COST / SHARE_CAPACITY, 5.0, begin=5.0 + SHARE_BURST_S)
    assert served(table, gentle, b"greedy") == 1.0


def test_what_is_beyond_a_share_costs_more_while_the_node_is_short():
    """Its lead grows faster than that of one that has asked for as much of an idle node."""
    leads = []
    for left_s in (0.18, 0.075, 0.0375):
        table = Shares()
        table.admits(b"who", SHARE_CAPACITY * (SHARE_BURST_S - left_s), 0.0)
        table.admits(b"who", SHARE_CAPACITY * 1e-9, 0.0)
        table._recent[b"who"] = 0.02
        assert table.admits(b"who", COST, 0.0)
        leads.append(table._recent[b"who"] - 0.02)
    assert leads == pytest.approx([COST / SHARE_CAPACITY * load for load in (1, 1 / 0.6, 1 / 0.3)])


def test_a_principal_is_forgotten_with_its_while(monkeypatch):
    monkeypatch.setattr(shares, "SHARE_PRINCIPALS_MAX", 8)
    table = Shares()
    table.admits(b"first", SHARE_CAPACITY, 0.0)  # from now on it is short
    for n in range(100):
        table.admits(b"%d" % n, 0.01, 0.0)
        table.check()
    assert 8 < len(table) <= 16
    late = 2 * SHARE_ACTIVE_S
    table.admits(b"late", SHARE_CAPACITY, late)
    table.admits(b"late", 1e-9, late)
    assert len(table) == 1


def test_costs_are_of_calls_that_there_are():
    """A name that was changed would be cheap without anybody's noticing."""
    authority = Authority(1)
    from dhtos.core.machine_schema import MACHINE_SCHEMA
    from dhtos.protocol import enrol
    from dhtos.protocol.grants import Grants
    from dhtos.protocol.ledger import Ledger
    from dhtos.protocol.receipts import Receipts

    member = authority.member()
    engine = Engine(
        member.chain.node_id(), rng=Random(1), now=0.0, schema=MACHINE_SCHEMA, member=member
    )
    Grants(engine.hub, Ledger())
    Receipts(engine.core)
    known = {*engine.core._handlers, enrol.NAME}
    assert COSTS_S.keys() <= known
    assert all(COST_S < cost < SHARE_CAPACITY * SHARE_BURST_S for cost in COSTS_S.values())
    assert limits.SHARE_PRINCIPALS_MAX >= limits.SESSIONS_MAX


# --- whose share ----------------------------------------------------------------------------------


def ask(wire, end, to):
    """Let one end send a datagram; how many of the other's counters of refusals moved."""
    wire.send(end, encode_request(b"m" * 20, "ping", [b"n" * 20]), to)
    wire.run_for(1.0)


def test_all_sessions_and_delegates_of_one_principal_share():
    authority = Authority(3)
    key = KeyPair(authority.rng.randbytes(32))
    chain = authority.admit(key, "alice", caps=("query", "claim"))
    lent = KeyPair(authority.rng.randbytes(32))
    cert = authority.cert(lent, "job", caps=("query",), days=1)
    ends = [
        End(authority.holder(key, chain), ("10.0.0.2", 1)),
        End(authority.holder(key, chain), ("10.0.0.3", 1)),
        End(authority.holder(lent, sign_cert(key, chain, cert)), ("10.0.0.4", 1)),
        End(authority.holder(KeyPair(authority.rng.randbytes(32)), None), ("10.0.0.5", 1)),
        End(authority.holder(KeyPair(authority.rng.randbytes(32)), None), ("10.0.0.6", 1)),
    ]
    server = End(authority.member("server"), ("10.0.0.1", 1))
    wire = Wire(server, *ends)
    asking = []
    for end in ends:
        ask(wire, end, server)
        asking.append(server.sessions.heard.principal)
    assert asking == [key.public] * 3 + [b""] * 2


def engines(count, seed=5):
    """A server and members that ask it, without a network."""
    authority = Authority(seed)
    made = []
    for n in range(count):
        member = authority.member(f"n{n}")
        made.append(Engine(member.chain.node_id(), rng=Random(n), now=0.0, member=member))
    return made


class Asker:
    """The owner of calls: counts what is answered."""

    def __init__(self):
        self.replies = 0

    def on_reply(self, _call, _value, _trailer, _now):
        self.replies += 1

    def on_late(self, _call, _now):
        """Sent again."""

    def on_failure(self, _call, _now):
        """Not served."""


def carry(engines, now):
    """Bring datagrams until nobody has more to say."""
    places = {("10.0.0.1", n): engine for n, engine in enumerate(engines)}
    moved = True
    while moved:
        moved = False
        for place, engine in places.items():
            for datagram, to in engine.outbox():
                moved = True
                places[to].receive(datagram, place, now)
            if engine.next_deadline() <= now:
                engine.tick(now)
                moved = True


def test_a_request_over_the_share_is_not_opened_but_a_reply_that_is_awaited_is():
    server, greedy, honest = made = engines(3)
    asker, ours = Asker(), Asker()
    ask = lambda engine, now: engine.core.calls.send(  # noqa: E731
        ("10.0.0.1", 0), "ping", [engine.id], asker, now
    )
    for engine in (greedy, honest):
        ask(engine, 0.0)
    carry(made, 0.0)
    assert asker.replies == 2
    table = server.core.sessions.shares
    server.core._terms["ping"] = ("query", 0.02)
    now, counters = 1.0, server.counters
    while not table.refuses(greedy.core.sessions.member.key.public, now):
        ask(greedy, now)
        carry(made, now)
        ask(honest, now) if asker.replies % 10 == 0 else None
    before, handled = asker.replies, counters["datagrams_in"]
    for _ in range(5):
        ask(greedy, now)
    carry(made, now)
    assert asker.replies == before
    assert counters["requests_over_share"] >= 5
    assert counters["datagrams_in"] == handled, "they were not opened"
    server.core.calls.send(("10.0.0.1", 1), "ping", [server.id], ours, now)
    carry(made, now)
    assert ours.replies == 1
    ask(honest, now)
    carry(made, now)
    assert asker.replies == before + 1
    for engine in made:
        engine.check()


def test_open_mode_knows_no_shares():
    """Nobody says there who he is: whose share would it be?"""
    one, two = (Engine(bytes([n]) * 20, rng=Random(n), now=0.0) for n in (1, 2))
    asker = Asker()
    one.core._terms["ping"] = ("query", 10.0)
    for _ in range(50):
        two.core.calls.send(("10.0.0.1", 0), "ping", [two.id], asker, 0.0)
    carry([one, two], 0.0)
    assert asker.replies == 50
    assert one.counters["requests_over_share"] == 0
