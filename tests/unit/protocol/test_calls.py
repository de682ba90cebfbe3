"""Calls: who is told what, and when."""

from random import Random
from typing import Any

import pytest

from dhtos.core.ids import Endpoint
from dhtos.core.limits import CALL_DEADLINE_S, CALLS_OUTSTANDING_MAX, RTO_FLOOR_S, RTO_UNKNOWN_S
from dhtos.protocol.calls import OWN_CAPABILITIES, Call
from dhtos.protocol.peers import Capability
from dhtos.protocol.rpc import Core
from dhtos.protocol.wire import encode_response, encode_trailer, parse

PEER: Endpoint = ("192.0.2.7", 7400)
OTHER: Endpoint = ("192.0.2.8", 7400)


class Ear:
    """An owner that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def on_reply(self, call: Call, value: Any, trailer: Any, now: float) -> None:
        self.heard.append(("reply", call.tag, value, now))

    def on_late(self, call: Call, now: float) -> None:
        self.heard.append(("late", call.tag, now))

    def on_failure(self, call: Call, now: float) -> None:
        self.heard.append(("failure", call.tag, now))


@pytest.fixture
def core() -> Core:
    return Core(Random(5))


@pytest.fixture
def ear() -> Ear:
    return Ear()


def sent(core: Core) -> list[tuple[bytes, Endpoint]]:
    taken = core.sending[:]
    core.sending.clear()
    return taken


def run_dry(core: Core, until: float) -> None:
    """Run timers one deadline at a time, as a prompt shell does."""
    while (when := core.timers.next_deadline()) <= until:
        core.timers.run(when)


def test_a_reply_ends_the_call_and_times_the_peer(core: Core, ear: Ear) -> None:
    call = core.calls.send(PEER, "ping", [b"x"], ear, 1.0, tag="t")
    [(datagram, to)] = sent(core)
    request = parse(datagram)
    assert (to, request.name, request.args) == (PEER, "ping", [b"x"])
    assert request.trailer == [OWN_CAPABILITIES]
    core.receive(encode_response(call.msg_id, "pong"), PEER, 1.02)
    assert ear.heard == [("reply", "t", "pong", 1.02)]
    assert len(core.calls) == 0
    assert core.peers.of(PEER).srtt == pytest.approx(0.02)
    run_dry(core, 100.0)
    assert len(ear.heard) == 1
    core.check()


def test_a_silent_peer_is_late_once_then_failed(core: Core, ear: Ear) -> None:
    core.calls.send(PEER, "ping", [b"x"], ear, 0.0, tag=1)
    [first] = sent(core)
    run_dry(core, RTO_UNKNOWN_S)
    assert ear.heard == [("late", 1, RTO_UNKNOWN_S)]
    assert sent(core) == [first]
    run_dry(core, CALL_DEADLINE_S)
    assert [event[0] for event in ear.heard] == ["late", "failure"]
    assert ear.heard[1][2] == pytest.approx(4 * RTO_UNKNOWN_S)
    assert sent(core) == []
    assert core.peers.of(PEER).failures == 1
    core.check()


def test_a_late_reply_still_counts_but_gives_no_sample(core: Core, ear: Ear) -> None:
    call = core.calls.send(PEER, "ping", [], ear, 0.0)
    run_dry(core, RTO_UNKNOWN_S)
    core.receive(encode_response(call.msg_id, 1), PEER, RTO_UNKNOWN_S + 0.1)
    assert [event[0] for event in ear.heard] == ["late", "reply"]
    assert core.peers.of(PEER).srtt == 0.0


@pytest.mark.parametrize(("before_s", "rtt_s"), [(None, 0.4), (0.02, 0.2)])
def test_a_peer_beyond_its_time_out_is_measured_in_the_end(
    core: Core, ear: Ear, before_s: float | None, rtt_s: float
) -> None:
    """Whether it was always far, or its path has grown."""
    now = 0.0
    if before_s is not None:
        core.peers.of(PEER).sample(before_s)
    samples = []
    for _ in range(5):
        call = core.calls.send(PEER, "ping", [], ear, now)
        run_dry(core, now + rtt_s)
        core.receive(encode_response(call.msg_id, 1), PEER, now + rtt_s)
        samples.append(core.peers.of(PEER).srtt)
        now += 1.0
    assert samples[0] == (before_s or 0.0)  # nobody knows which datagram was answered
    assert samples[-1] > samples[0]
    assert core.counters["retransmits"] < 5
    core.check()


def test_silence_makes_nobody_more_patient(core: Core, ear: Ear) -> None:
    for start in range(0, 50, 10):
        core.calls.send(PEER, "ping", [], ear, float(start))
        run_dry(core, start + 9.0)
    assert core.peers.of(PEER).rto() == RTO_UNKNOWN_S


def test_a_reply_from_another_address_is_dropped(core: Core, ear: Ear) -> None:
    call = core.calls.send(PEER, "ping", [], ear, 0.0)
    core.receive(encode_response(call.msg_id, 1), OTHER, 0.01)
    assert ear.heard == []
    assert core.counters["replies_foreign"] == 1
    core.receive(encode_response(call.msg_id, 2), PEER, 0.02)
    assert ear.heard == [("reply", None, 2, 0.02)]


def test_a_second_reply_and_one_nobody_asked_for_are_dropped(core: Core, ear: Ear) -> None:
    call = core.calls.send(PEER, "ping", [], ear, 0.0)
    for _ in range(2):
        core.receive(encode_response(call.msg_id, 1), PEER, 0.01)
    core.receive(encode_response(bytes(20), 1), PEER, 0.01)
    assert len(ear.heard) == 1
    assert core.counters["replies_unasked"] == 2


def test_a_cancelled_call_leaves_nothing_behind(core: Core, ear: Ear) -> None:
    call = core.calls.send(PEER, "ping", [], ear, 0.0)
    core.calls.cancel(call)
    core.calls.cancel(call)
    core.receive(encode_response(call.msg_id, 1), PEER, 0.01)
    run_dry(core, 100.0)
    assert ear.heard == []
    assert len(core.calls) == 0
    assert len(core.timers) == 0


def test_our_own_lag_is_not_held_against_the_peer(core: Core, ear: Ear) -> None:
    call = core.calls.send(PEER, "ping", [], ear, 0.0)
    core.timers.run(5.0)  # the loop was busy for five seconds
    assert ear.heard == []
    core.receive(encode_response(call.msg_id, 1), PEER, 5.0 + RTO_FLOOR_S / 2)
    assert [event[0] for event in ear.heard] == ["reply"]


def test_lag_is_forgiven_once_only(core: Core, ear: Ear) -> None:
    core.calls.send(PEER, "ping", [], ear, 0.0)
    core.timers.run(5.0)
    run_dry(core, 6.0)
    assert ear.heard[-1][0] == "failure"


def test_the_trailer_tells_stock_from_dhtos(core: Core, ear: Ear) -> None:
    call = core.calls.send(PEER, "ping", [], ear, 0.0)
    core.receive(encode_response(call.msg_id, 1), PEER, 0.01)
    assert core.peers.of(PEER).capability is Capability.STOCK
    call = core.calls.send(OTHER, "ping", [], ear, 0.0)
    core.receive(encode_response(call.msg_id, 1) + encode_trailer([1]), OTHER, 0.01)
    assert core.peers.of(OTHER).capability is Capability.DHTOS
    sent(core)
    core.calls.send(PEER, "ping", [], ear, 1.0, trailer=[7])
    core.calls.send(OTHER, "ping", [], ear, 1.0, trailer=[7])
    to_stock, to_dhtos = (parse(datagram).trailer for datagram, _ in sent(core))
    assert to_stock is None
    assert to_dhtos == [OWN_CAPABILITIES, 7]


def test_a_stream_stays_open_until_its_owner_ends_it(core: Core, ear: Ear) -> None:
    call = core.calls.send(PEER, "dh_range", [], ear, 0.0, stream=True)
    for part in range(3):
        core.receive(encode_response(call.msg_id, part), PEER, 0.01 + part / 100)
    assert [event[2] for event in ear.heard] == [0, 1, 2]
    assert core.peers.of(PEER).srtt == pytest.approx(0.01)
    core.calls.cancel(call)
    assert len(core.calls) == 0


def test_over_the_limit_a_call_fails_at_once_and_nothing_is_sent(core: Core, ear: Ear) -> None:
    for _ in range(CALLS_OUTSTANDING_MAX):
        core.calls.send(PEER, "ping", [], ear, 0.0)
    sent(core)
    core.calls.send(PEER, "ping", [], ear, 0.0, tag="over")
    assert sent(core) == []
    core.timers.run(0.0)
    assert ear.heard == [("failure", "over", 0.0)]
    assert core.counters["calls_refused"] == 1
    core.check()


def test_message_ids_do_not_repeat(core: Core, ear: Ear) -> None:
    ids = {core.calls.send(PEER, "ping", [], ear, 0.0).msg_id for _ in range(1000)}
    assert len(ids) == 1000
