"""Sessions: nobody gets in unproven, everybody who belongs does, and what was lost is found."""

from random import Random

import pytest
from trust_world import Authority, End, Wire, secured

from dhtos.core.limits import (
    COOKIE_S,
    OPENING_QUEUE_MAX,
    OPENING_RETRY_S,
    SESSION_IDLE_S,
    SESSION_REKEY_S,
)
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import make_record
from dhtos.errors import MalformedMessage
from dhtos.protocol import sessions as module
from dhtos.protocol.handshakes import (
    DATA,
    HELLO,
    HELLO_AT,
    PROBE,
    READY,
    READY_AT,
    WHO,
    data_head,
    hello_head,
    probe,
    ready_head,
    write_ready,
)
from dhtos.protocol.sessions import Session
from dhtos.protocol.wire import encode_request, encode_response
from dhtos.sim import Cluster
from dhtos.sim.engines import bootstrap, engines
from dhtos.sim.network import ONE_WAY_S, Weather
from dhtos.trust.keys import KeyPair, exchange_public
from dhtos.trust.noise import Handshake

ONE, TWO, ELSEWHERE = ("10.0.0.1", 7400), ("10.0.0.2", 7400), ("10.9.9.9", 99)
MESSAGE = b"a request of fifty bytes, as a ping is one of them."


def pair(*, authority=None, one=None, two=None):
    """Two members and a wire between them."""
    authority = authority or Authority()
    first = End(one or authority.member("one"), ONE)
    second = End(two or authority.member("two"), TWO)
    return Wire(first, second), first, second


def met(**options):
    """Two members that have keys, and have used them both ways."""
    wire, one, two = pair(**options)
    wire.send(one, MESSAGE, two)
    wire.run_for(1.0)
    wire.send(two, MESSAGE, one)
    wire.run_for(1.0)
    assert one.got == two.got == [MESSAGE]
    return wire, one, two


def reborn(wire, end):
    """The same member at the same address, which remembers nothing."""
    again = End(end.sessions.member, end.endpoint)
    wire.ends[end.endpoint] = again
    return again


def counted(end, *names):
    return [end.counters[name] for name in names]


# --- a handshake ----------------------------------------------------------------------------------


def test_what_waited_arrives_after_two_round_trips_and_a_half():
    wire, one, two = pair()
    opened = []
    one.sessions.on_open = lambda *what: opened.append(what)
    wire.send(one, MESSAGE, two)
    wire.send(one, b"another", two)
    took = wire.until(lambda: len(two.got) == 2)
    assert took == pytest.approx(5 * wire.DELAY_S)
    assert two.got == [MESSAGE, b"another"]
    assert [sent[0][0] for sent in wire.tapped] == [PROBE, WHO, HELLO, READY, DATA, DATA]
    assert opened == [(TWO, pytest.approx(0.04), False)]
    assert one.counted == {"sessions_out": 1}
    assert two.counted == {"sessions_in": 1}
    assert two.sessions.speaker == one.sessions.member.chain
    assert two.sessions.node_id(ONE) == one.sessions.member.chain.node_id()
    assert two.sessions.node_id(ELSEWHERE) is None
    assert not two.sessions.keyless(ONE)
    assert two.sessions.keyless(ELSEWHERE)
    for end in (one, two):
        end.sessions.check()
        assert len(end.sessions) == 1


def test_the_answer_needs_no_handshake_of_its_own():
    wire, one, two = met()
    assert [sent[0][0] for sent in wire.tapped].count(HELLO) == 1
    assert len(one.sessions) == len(two.sessions) == 1


def test_a_datagram_waits_once():
    wire, one, two = pair()
    for _ in range(3):
        wire.send(one, MESSAGE, two)
    wire.run_for(1.0)
    assert two.got == [MESSAGE]


@pytest.mark.parametrize("lost", [PROBE, WHO, HELLO, READY])
def test_a_step_that_was_lost_is_sent_again(lost):
    wire, one, two = pair()
    dropped = []

    def loses(datagram, _to):
        if datagram[0] == lost and not dropped:
            dropped.append(datagram)
            return True
        return False

    wire.loses = loses
    wire.send(one, MESSAGE, two)
    took = wire.until(lambda: two.got)
    assert took == pytest.approx(OPENING_RETRY_S[0] + 5 * wire.DELAY_S, abs=0.021)
    assert len(two.sessions) == 1  # a HELLO that came twice makes one
    assert counted(two, "sessions_in") == [1]


def test_nobody_answers():
    wire, one, two = pair()
    wire.loses = lambda _datagram, to: to == TWO
    wire.send(one, MESSAGE, two)
    wire.run_for(sum(OPENING_RETRY_S) + 0.1)
    assert one.counted == {"handshakes_unanswered": 1}
    assert [sent[0] for sent in wire.tapped] == [wire.tapped[0][0]] * len(OPENING_RETRY_S)
    wire.loses = lambda _datagram, _to: False
    wire.send(one, b"later", two)  # what waited is gone, as a datagram that was lost
    wire.run_for(1.0)
    assert two.got == [b"later"]


def test_both_begin_at_the_same_time():
    wire, one, two = pair()
    wire.send(one, MESSAGE, two)
    wire.send(two, MESSAGE, one)
    took = wire.until(lambda: one.got and two.got)
    assert took == pytest.approx(5 * wire.DELAY_S)
    assert len(one.sessions) == len(two.sessions) == 2  # both stand
    for number in range(20):
        wire.send(one, b"%d" % number, two)
        wire.send(two, b"%d" % number, one)
    wire.run_for(1.0)
    assert sorted(one.got[1:]) == sorted(two.got[1:]) == sorted(b"%d" % n for n in range(20))
    assert not one.counters["forgeries"]
    assert not one.counters["sessions_unknown"]


# --- a restart ------------------------------------------------------------------------------------


def test_whoever_is_asked_was_restarted():
    """The call is lost, the next one finds new keys: nobody has to wait for a time-out."""
    wire, one, two = met()
    opened = []
    one.sessions.on_open = lambda *what: opened.append(what)
    two = reborn(wire, two)
    wire.send(one, MESSAGE, two)  # sealed for keys that are gone
    took = wire.until(lambda: not one.sessions.keyless(TWO) and one.counters["sessions_out"] == 2)
    assert took == pytest.approx(4 * wire.DELAY_S, abs=0.011)  # WHO, HELLO, READY: no retry
    assert [what[2] for what in opened] == [True]
    wire.send(one, b"again", two)
    assert wire.until(lambda: two.got) == pytest.approx(wire.DELAY_S)
    assert two.got == [b"again"]
    assert counted(two, "sessions_unknown", "forgeries") == [1, 0]


def test_whoever_asks_was_restarted():
    wire, one, two = met()
    one = reborn(wire, one)
    wire.send(one, MESSAGE, two)
    assert wire.until(lambda: len(two.got) == 2) == pytest.approx(5 * wire.DELAY_S)
    wire.send(two, b"for the new one", one)
    assert wire.until(lambda: one.got) == pytest.approx(wire.DELAY_S)


def test_both_were_restarted():
    wire, one, two = met()
    one, two = reborn(wire, one), reborn(wire, two)
    wire.send(two, MESSAGE, one)
    assert wire.until(lambda: one.got) == pytest.approx(5 * wire.DELAY_S)


def test_a_short_datagram_for_lost_keys_is_not_answered():
    """An answer would be longer than what asked for it."""
    wire, one, two = met()
    two = reborn(wire, two)
    wire.send(one, b"short", two)
    wire.run_for(1.0)
    assert counted(two, "sessions_unknown") == [1]
    assert wire.tapped[-1][1] == ONE


@pytest.mark.parametrize("seed", range(3))
def test_a_call_to_a_node_that_was_restarted_waits_for_no_time_out(seed):
    """Of whole engines: three round trips, for the lost one, the handshake and the call."""
    cluster, nodes, _ = joined(8, seed=seed)
    one, two = nodes[2], nodes[5]
    cluster.crash([two])
    cluster.run_for(0.5)
    cluster.restart([two])
    asked = cluster.begin(one, lambda e, now: e.base.find_contacts(two.id, now))
    began = cluster.now
    cluster.wait([asked])
    took = cluster.now - began
    print(f"a lookup that meets a restarted node: {took:.2f} virtual seconds")
    assert {contact.id for contact in asked.result()} == {n.id for n in nodes if n is not one}
    assert took <= 7 * ONE_WAY_S
    assert one.engine.counters["calls_failed"] == 0


# --- keys wear ------------------------------------------------------------------------------------


def test_new_keys_are_made_while_the_old_ones_serve():
    wire, one, two = met()
    seconds = 0.0
    while seconds < SESSION_REKEY_S + 600:
        wire.send(one, b"x" * 40, two)
        wire.send(two, b"y" * 40, one)
        wire.run_for(300.0)
        seconds += 300.0
    sent = int(seconds / 300.0)
    assert len(one.got) == len(two.got) == sent + 1  # nothing was lost on the way
    assert one.counters["sessions_out"] + two.counters["sessions_out"] >= 2
    wire.run_for(SESSION_IDLE_S + 60)
    assert len(one.sessions) == len(two.sessions) == 0  # idle


def test_a_counter_that_runs_out_asks_for_new_keys():
    wire, one, two = met()
    one.sessions._current[TWO].sent = module._COUNTER_MAX + 1
    wire.send(one, b"the last", two)
    wire.run_for(1.0)
    assert two.got[-1] == b"the last"
    assert one.counters["sessions_out"] == 2
    assert one.sessions._current[TWO].sent == 0


def test_new_keys_that_cannot_be_made_now_are_made_later(monkeypatch):
    wire, one, two = met()
    monkeypatch.setattr(module, "OPENINGS_MAX", 0)
    one.sessions._current[TWO].born -= SESSION_REKEY_S + 1
    wire.send(one, b"on the old ones", two)
    wire.run_for(1.0)
    assert two.got[-1] == b"on the old ones"


def test_a_session_that_is_much_used_ends_too():
    wire, one, two = met()
    wire.loses = lambda datagram, _to: datagram[0] != DATA  # no new keys ever come
    for _ in range(int((SESSION_REKEY_S + SESSION_IDLE_S) / 60) + 1):
        wire.send(one, MESSAGE, two)
        wire.run_for(60.0)
    assert len(two.sessions) == 0


# --- replays --------------------------------------------------------------------------------------


def test_the_same_data_counts_once():
    wire, _one, two = met()
    data, source, _ = next(s for s in wire.tapped if s[0][0] == DATA and s[1] == ONE)
    for _ in range(5):
        assert wire.inject(data, source, two) == []
    assert counted(two, "replays") == [5]
    assert two.got == [MESSAGE]


@pytest.mark.parametrize(("behind", "taken"), [(0, 0), (1, 1), (1023, 1), (1024, 0), (5000, 0)])
def test_how_late_data_may_come(behind, taken):
    """The receiver has heard a thousand others meanwhile."""
    wire, one, two = met()
    held = []

    def loses(datagram, to):
        if to == TWO and datagram[0] == DATA and len(held) < 1:
            held.append(datagram)
            return True
        return False

    if behind == 0:
        wire.send(one, b"now", two)
        wire.run_for(0.1)
        held.append(wire.tapped[-1][0])
    else:
        wire.loses = loses
        wire.send(one, b"late", two)
        wire.loses = lambda _datagram, _to: False
        one.sessions._current[TWO].sent += behind - 1
        wire.send(one, b"now", two)
        wire.run_for(0.1)
    before = len(two.got)
    wire.inject(held[0], ONE, two)
    assert len(two.got) - before == taken
    assert counted(two, "replays") == [1 - taken]


def test_data_from_another_address_is_nobodys():
    """Whoever sends there is asked who it is, with fewer bytes than came."""
    wire, one, two = met()
    wire.send(one, b"z" * 60, two)
    data = wire.tapped[-1][0]
    answers = wire.inject(data, ELSEWHERE, two)
    assert [answer[0] for answer in answers] == [WHO]
    assert len(answers[0]) < len(data)
    assert counted(two, "sessions_unknown") == [1]
    assert b"z" * 60 not in two.got


def test_data_that_was_changed_is_counted_and_its_counter_stays_free():
    wire, one, two = met()
    wire.loses = lambda _datagram, _to: True
    wire.send(one, b"once", two)
    data = wire.tapped[-1][0]
    for at in range(data_head.size, len(data)):
        spoilt = bytearray(data)
        spoilt[at] ^= 1
        wire.inject(bytes(spoilt), ONE, two)
    assert counted(two, "forgeries") == [len(data) - data_head.size]
    wire.inject(data, ONE, two)
    assert two.got[-1] == b"once"


def test_a_hello_that_is_replayed_makes_one_session_and_is_answered_again():
    wire, _one, two = met()
    hello, source, _ = wire.first(HELLO)
    ready = wire.first(READY)[0]
    for _ in range(10):
        assert wire.inject(hello, source, two) == [ready]
    assert len(two.sessions) == 1
    assert counted(two, "sessions_in") == [1]


def test_a_hello_with_another_index_is_refused():
    """Whoever hears it cannot have the answer name a session of its own: the index is sealed in."""
    wire, _one, two = met()
    hello, source, _ = wire.first(HELLO)
    _, index, nonce, cookie = hello_head.unpack_from(hello)
    changed = hello_head.pack(HELLO, index ^ 1, nonce, cookie) + hello[HELLO_AT:]
    assert wire.inject(changed, source, two) == []
    assert counted(two, "handshakes_malformed", "sessions_in") == [1, 1]
    assert len(two.sessions) == 1


def test_a_hello_is_good_for_the_address_that_asked():
    """Also one that was answered before: a forged source is sent nothing."""
    wire, one, two = met()
    hello, source, _ = wire.first(HELLO)
    for elsewhere in (ELSEWHERE, (source[0], source[1] + 1)):
        assert wire.inject(hello, elsewhere, two) == []
    assert counted(two, "handshakes_unproven") == [2]
    wire.run_for(2 * COOKIE_S + 100)
    wire.inject(hello, source, two)
    assert counted(two, "handshakes_unproven") == [3]  # the cookie is old
    assert len(one.sessions) == len(two.sessions) == 1


# --- forgeries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PROBE, WHO, HELLO, READY, DATA])
def test_every_truncation_is_counted(kind):
    wire, one, two = met()
    datagram, source, to = wire.first(kind)
    end = wire.ends[to]
    for length in range(len(datagram)):
        before = sum(end.counters.values())
        answers = wire.inject(datagram[:length], source, end)
        assert sum(end.counters.values()) == before + 1
        assert sum(map(len, answers)) <= length
    for ending in (b"\0", b"\0" * 1000):
        wire.inject(datagram + ending, source, end)
    assert len(one.sessions) == len(two.sessions) == 1
    for each in (one, two):
        each.sessions.check()


@pytest.mark.parametrize("kind", [HELLO, READY])
def test_every_byte_of_a_handshake_counts(kind):
    """One bit of any byte, each in a handshake of its own: no session, and nothing raised."""
    length = len(_until(kind)[2][0])
    for at in range(length):
        wire, end, (datagram, source, _) = _until(kind)
        spoilt = bytearray(datagram)
        spoilt[at] ^= 1 << at % 8
        wire.inject(bytes(spoilt), source, end)
        # The last bytes of READY's head name the session at the other side, sealed or not.
        renamed = kind == READY and 5 <= at < READY_AT
        assert len(end.sessions) == renamed, at
        assert renamed or sum(end.counters.values()) >= 1


def _until(kind):
    """A world in which the first datagram of this kind has not arrived yet."""
    wire, one, two = pair()
    wire.loses = lambda datagram, _to: datagram[0] == kind
    wire.send(one, MESSAGE, two)
    wire.run_for(0.1)
    end = two if kind == HELLO else one
    end.counters.clear()
    return wire, end, wire.first(kind)


def test_ready_and_who_that_nobody_asked_for():
    wire, one, two = met()
    for kind in (READY, WHO):
        datagram, source, to = wire.first(kind)
        assert wire.inject(datagram, source, wire.ends[to]) == []
        assert wire.inject(datagram, ELSEWHERE, wire.ends[to]) == []
    assert counted(one, "replies_unasked") == [4]
    assert len(one.sessions) == len(two.sessions) == 1


def test_a_ready_that_was_forged_makes_no_session():
    wire, one, two = pair()
    wire.loses = lambda datagram, _to: datagram[0] == READY
    wire.send(one, MESSAGE, two)
    wire.run_for(0.1)
    index = one.sessions._openings[TWO].index
    assert index
    for _ in range(3):
        wire.inject(ready_head.pack(READY, index, 7) + b"\1" * 200, TWO, one)
    assert counted(one, "handshakes_malformed", "sessions_out") == [3, 0]
    wire.inject(ready_head.pack(READY, index ^ 1, 7) + b"\1" * 200, TWO, one)
    assert counted(one, "replies_unasked") == [1]


def test_who_names_a_key_that_is_none():
    wire, one, two = pair()
    wire.loses = lambda datagram, _to: datagram[0] == WHO
    wire.send(one, MESSAGE, two)
    wire.run_for(0.1)
    who = wire.first(WHO)[0]
    wire.inject(who[:33] + bytes(32), TWO, one)
    assert counted(one, "handshakes_malformed") == [1]
    wire.loses = lambda _datagram, _to: False
    wire.run_for(1.0)
    assert two.got == [MESSAGE]  # the true one comes with the next try


def test_an_impostor_that_shows_the_chain_of_another_is_not_believed():
    """A chain is no secret: a guest is shown one. Who shows it must hold its key."""
    authority = Authority()
    wire, one, two = pair(authority=authority)
    impostor = End(authority.member("impostor"), TWO)
    impostor.sessions.member.chain = two.sessions.member.chain
    wire.ends[TWO] = impostor
    wire.send(one, MESSAGE, impostor)
    wire.run_for(1.0)
    assert impostor.got == []
    assert one.sessions.refusals == {TWO: "a certificate is of another key"}
    assert len(one.sessions) == 0
    wire.send(impostor, MESSAGE, one)  # nor if it begins
    wire.run_for(1.0)
    assert one.got == []
    assert impostor.sessions.refusals == {ONE: "it refuses us: a certificate is of another key"}


def test_strange_kinds_are_counted():
    wire, _one, two = pair()
    for datagram, name in [
        (b"", "datagrams_open"),
        (b"\0" * 60, "datagrams_open"),
        (b"\1" * 60, "datagrams_open"),
        (b"\2" * 60, "malformed"),
        (b"\xd5" * 60, "malformed"),
        (bytes([PROBE]) + bytes(66), "malformed"),
        (bytes([DATA]) + bytes(27), "malformed"),
    ]:
        before = two.counters[name]
        assert wire.inject(datagram, ELSEWHERE, two) == []
        assert two.counters[name] == before + 1, datagram


# --- who may --------------------------------------------------------------------------------------


def test_a_guest_may_only_ask_what_everybody_may():
    authority = Authority()
    guest = authority.holder(KeyPair(b"g" * 32), None)
    wire, one, two = met(authority=authority, one=guest)
    assert two.sessions.speaker is None
    assert one.sessions.speaker == two.sessions.member.chain
    assert two.sessions.allows(None)
    assert not any(two.sessions.allows(verb) for verb in ("query", "publish", "claim", "admin"))
    assert two.sessions.node_id(ONE) is None
    assert two.sessions.members() == []
    assert two.sessions.heard.remote == exchange_public(guest.key.public)
    wire.run_for(90.0)
    assert len(two.sessions) == 0  # it asks once


def test_nobody_has_spoken_yet():
    _, one, _ = pair()
    assert one.sessions.speaker is None
    assert not one.sessions.allows("query")


def test_two_guests_have_nothing_to_say():
    authority = Authority()
    guests = [authority.holder(KeyPair(bytes([n]) * 32), None) for n in (1, 2)]
    wire, one, two = pair(one=guests[0], two=guests[1])
    wire.send(one, MESSAGE, two)
    wire.run_for(1.0)
    assert two.got == []
    assert one.sessions.refusals == {TWO: "it refuses us: neither of us is admitted"}
    assert counted(two, "handshakes_refused") == [1]


def test_what_a_user_may_it_may_in_its_groups():
    authority = Authority()
    user = authority.member("user", caps=("query", "claim:gpu"))
    _wire, _, two = met(authority=authority, one=user)
    assert two.sessions.node_id(ONE) is None  # it has no place
    assert two.sessions.allows("query")
    assert not two.sessions.allows("claim")
    assert not two.sessions.allows("publish")
    gpu = authority.member("gpu", groups=("gpu",))
    _, _, two = met(authority=authority, one=user, two=gpu)
    assert two.sessions.allows("claim")


def test_another_cluster_is_refused_and_told_why():
    wire, one, two = pair(one=Authority(2).member())
    wire.send(one, MESSAGE, two)
    wire.run_for(1.0)
    assert one.sessions.refusals == {TWO: "it refuses us: a certificate is of another cluster"}
    assert two.sessions.refusals == {ONE: "a certificate is of another cluster"}
    assert len(one.sessions) == len(two.sessions) == 0
    wire.send(one, MESSAGE, two)
    wire.run_for(1.0)
    assert counted(two, "handshakes_refused") == [2]


def test_a_chain_that_answers_is_judged_too():
    """A guest that was given the name of one cluster and reaches another."""
    guest = Authority(2).holder(KeyPair(b"g" * 32), None)
    wire, one, two = pair(one=guest)
    wire.send(one, MESSAGE, two)
    wire.run_for(1.0)
    assert one.sessions.refusals == {TWO: "a certificate is of another cluster"}
    assert two.got == []


def test_a_refusal_is_forgotten_once_it_is_over():
    wire, one, two = pair()
    one.sessions._refuse(TWO, "as it was")
    wire.send(one, MESSAGE, two)
    wire.run_for(1.0)
    assert one.sessions.refusals == {}


def test_sessions_end_with_a_certificate():
    authority = Authority()
    wire, one, two = met(authority=authority, one=authority.member("short", days=1))
    wall = [0.0]
    two.sessions.member.wall_s = lambda: 1_800_000_000 + wall[0]
    wire.run_for(60.0)
    assert len(two.sessions) == 1
    wall[0] = 86_400 + 91.0
    wire.run_for(60.0)
    assert len(two.sessions) == 0
    wire.send(one, MESSAGE, two)
    wire.run_for(1.0)
    assert two.got == [MESSAGE]  # the one from before
    assert one.sessions.refusals[TWO].startswith("it refuses us: a certificate ended")


def test_whoever_is_believed_no_more_is_forgotten_at_once():
    _wire, _one, two = met()
    two.sessions.member.check = lambda chain: None
    assert two.sessions.forget_revoked() == []
    assert two.sessions.members() == [ONE]

    def check(_chain):
        raise MalformedMessage("a certificate was revoked")

    two.sessions.member.check = check
    assert [session.endpoint for session in two.sessions.forget_revoked()] == [ONE]
    assert len(two.sessions) == 0
    assert two.sessions.keyless(ONE)
    two.sessions.check()


# --- bounds ---------------------------------------------------------------------------------------


def crowd(count, authority=None, *, start=1):
    """A member, and so many others on one wire."""
    authority = authority or Authority()
    centre = End(authority.member("centre"), ("10.1.0.0", 1))
    others = [
        End(authority.member("n"), (f"10.1.{n // 256}.{n % 256}", 1))
        for n in range(start, start + count)
    ]
    return Wire(centre, *others), centre, others


def test_the_oldest_session_makes_room(monkeypatch):
    monkeypatch.setattr(module, "SESSIONS_MAX", 3)
    wire, centre, others = crowd(5)
    for other in others:
        wire.send(other, MESSAGE, centre)
        wire.run_for(1.0)
    assert len(centre.sessions) == 3
    centre.sessions.check()
    for other in others:  # who was dropped comes back with its next datagram but one
        wire.send(other, b"w" * 50, centre)
        wire.run_for(1.0)
        wire.send(other, other.endpoint[0].encode(), centre)
        wire.run_for(1.0)
        centre.sessions.check()
    assert {other.endpoint[0].encode() for other in others} <= set(centre.got)


def test_guests_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "SESSION_GUESTS_MAX", 2)
    authority = Authority()
    wire, centre, others = crowd(4, authority)
    for number, other in enumerate(others):
        other.sessions.member = authority.holder(KeyPair(bytes([number]) * 32), None)
        wire.send(other, MESSAGE, centre)
        wire.run_for(1.0)
    assert len(centre.sessions) == 2
    assert "too many wait" in others[3].sessions.refusals[centre.endpoint]


def test_handshakes_of_ours_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "OPENINGS_MAX", 2)
    wire, centre, others = crowd(4)
    for other in others:
        wire.send(centre, MESSAGE, other)
    assert centre.counters["sessions_overfull"] == 2
    wire.run_for(1.0)
    assert sum(len(other.got) for other in others) == 2


def test_a_restarted_peer_waits_while_too_many_handshakes_are_under_way(monkeypatch):
    wire, one, two = met()
    two = reborn(wire, two)
    monkeypatch.setattr(module, "OPENINGS_MAX", 0)
    wire.send(one, MESSAGE, two)
    wire.run_for(1.0)
    assert counted(one, "replies_unasked") == [1]


def test_a_record_of_ours_is_proved_and_one_of_nobody_is_not_believed():
    _, one, two = pair()
    member = one.sessions.member
    record = make_record(
        MACHINE_SCHEMA,
        {"cores": 4},
        {},
        node_id=member.chain.node_id(),
        endpoint=ONE,
        seq=1,
        identity=member.key.public,
    )
    assert not two.sessions.believes(record)
    assert two.sessions.believes(one.sessions.prove(record))
    assert counted(two, "records_forged") == [1]


def test_what_waits_for_a_handshake_is_bounded():
    wire, one, two = pair()
    for number in range(OPENING_QUEUE_MAX + 5):
        wire.send(one, b"%d" % number, two)
        one.sessions.check()
    assert counted(one, "sessions_overfull") == [5]
    wire.run_for(1.0)
    assert len(two.got) == OPENING_QUEUE_MAX


def test_answers_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "_ANSWERED_MAX", 2)
    wire, centre, others = crowd(5)
    for other in others:
        wire.send(other, MESSAGE, centre)
        wire.run_for(1.0)
    assert len(centre.sessions._answered) == 2
    wire.run_for(2 * COOKIE_S + 60)
    assert len(centre.sessions._answered) == 0


def test_refusals_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "_REFUSALS_MAX", 3)
    _, one, _ = pair()
    for port in range(1, 9):
        one.sessions._refuse(("10.0.0.9", port), "why")
    assert list(one.sessions.refusals) == [("10.0.0.9", port) for port in (6, 7, 8)]


def test_an_index_is_given_once():
    _, one, _ = pair()
    draws = [b"\1\0\0\0", b"\1\0\0\0", b"\2\0\0\0"]
    one.sessions.member.entropy = lambda _count: draws.pop(0)
    one.sessions._by_index[1] = Session(TWO, 1, 1, 0.0)
    assert one.sessions._new_index() == 2


def test_one_address_has_us_work_so_often_a_second():
    wire, _one, two = pair()
    hellos = 0
    rng = Random(1)
    for _ in range(1000):
        nonce = rng.randbytes(16)
        (who,) = wire.inject(probe(nonce), ELSEWHERE, two)
        head = hello_head.pack(HELLO, 1, nonce, who[17:33])
        remote = exchange_public(two.sessions.member.key.public)
        key = KeyPair(rng.randbytes(32))
        handshake = Handshake.initiator(
            key.exchange_secret, remote, rng.randbytes(32), b"dhtos/1" + head
        )
        hellos += bool(wire.inject(head + handshake.write(b"no chain"), ELSEWHERE, two))
    assert hellos == 400  # the burst: no time has passed
    assert counted(two, "handshakes_unproven", "handshakes_refused") == [600, 400]
    assert len(two.sessions) == 0


# --- open and secured -----------------------------------------------------------------------------


def test_the_stock_wire_gets_no_answer_from_a_secured_node():
    cluster = Cluster(secured(Authority()), seed=1, bootstrap=bootstrap)
    (node,) = cluster.add(1)
    ping = encode_request(b"m" * 20, "ping", [b"i" * 20])
    reply = encode_response(b"m" * 20, b"i" * 20)
    for datagram in (ping, reply):
        node.engine.receive(datagram, ELSEWHERE, cluster.local(node))
        assert node.engine.outbox() == []
    assert node.engine.counters["datagrams_open"] == 2
    assert node.engine.counters["datagrams_in"] == 0  # nothing was parsed


def test_secured_datagrams_get_no_answer_from_an_open_node():
    wire, _, _ = met()
    (node,) = (cluster := Cluster(engines(), seed=1, bootstrap=bootstrap)).add(1)
    for kind in (PROBE, WHO, HELLO, READY, DATA):
        datagram = wire.first(kind)[0]
        before = node.engine.counters["malformed"]
        node.engine.receive(datagram, ONE, cluster.local(node))
        assert node.engine.outbox() == []
        assert node.engine.counters["malformed"] == before + 1


# --- whole engines --------------------------------------------------------------------------------


def joined(count, *, seed=1, authority=None, **options):
    """A cluster of members that joined through the first of them."""
    cluster = Cluster(secured(authority or Authority()), seed=seed, bootstrap=bootstrap, **options)
    nodes = cluster.add(count)
    first = nodes[0].endpoint
    joining = [
        cluster.begin(node, lambda engine, now: engine.base.bootstrap([first], now))
        for node in nodes[1:]
    ]
    cluster.run_for(10.0)
    assert all(operation.done for operation in joining)
    return cluster, nodes, joining


def test_members_join_put_and_get():
    cluster, nodes, joining = joined(20)
    assert not [operation.error for operation in joining if operation.error]
    put = cluster.begin(nodes[3], lambda e, now: e.base.put(b"k" * 20, b"v", now, seq=1))
    cluster.run_for(2.0)
    assert put.result().stored_on == 20
    got = cluster.begin(nodes[9], lambda e, now: e.base.get(b"k" * 20, now))
    cluster.run_for(2.0)
    assert got.result().value == b"v"
    for node in nodes:
        node.engine.check()
        assert not node.engine.counters["forgeries"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_members_join_through_bad_weather(seed):
    cluster, nodes, joining = joined(15, seed=seed, weather=Weather(loss=0.1, duplication=0.05))
    assert not [operation.error for operation in joining if operation.error]
    cluster.run_for(30.0)
    assert sum(node.engine.counters["replays"] for node in nodes) > 0  # the duplicates


def test_a_refusal_is_a_line_that_is_cut():
    assert len(write_ready(b"", "x" * 500)) < 140
