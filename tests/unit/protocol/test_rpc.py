"""The table of names: what comes in, what goes out, and who is sent more than one datagram."""

import random
from typing import Any

import pytest

from dhtos.core.ids import Endpoint
from dhtos.core.limits import PEERS_MAX
from dhtos.errors import MalformedMessage
from dhtos.protocol.calls import Call
from dhtos.protocol.peers import Capability
from dhtos.protocol.rpc import NO_REPLY, Core, Deferred, Parts
from dhtos.protocol.wire import Response, encode_request, encode_response, encode_trailer, parse

PEER: Endpoint = ("192.0.2.1", 7400)
OTHER: Endpoint = ("192.0.2.2", 7400)
MSG_ID = b"m" * 20
GREETING = encode_trailer([1])


class Service:
    """One RPC, `ask`, that answers what it is told to, and remembers what it was asked."""

    def __init__(self, answer: Any = "fine", *, seed: int = 1) -> None:
        self.core = Core(random.Random(seed))
        self.answer = answer
        self.asked: list[tuple[list[Any], Endpoint, list[Any] | None, float]] = []
        self.core.register("ask", self._on_ask, verb="query")

    def _on_ask(
        self, args: list[Any], source: Endpoint, trailer: list[Any] | None, now: float
    ) -> Any:
        self.asked.append((args, source, trailer, now))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def receive(
        self, name: str = "ask", args: list[Any] | None = None, *, greet: bool = True
    ) -> list[tuple[Response, Endpoint]]:
        """Ask; the replies."""
        datagram = encode_request(MSG_ID, name, args or []) + (GREETING if greet else b"")
        self.core.receive(datagram, PEER, 5.0)
        return self.replies()

    def replies(self) -> list[tuple[Response, Endpoint]]:
        found = [(parse(datagram), to) for datagram, to in self.core.sending]
        self.core.sending.clear()
        assert all(isinstance(message, Response) for message, _ in found)
        self.core.check()
        return found  # type: ignore[return-value]


class Ears:
    """An owner of calls that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def on_reply(self, call: Call, value: Any, trailer: list[Any] | None, now: float) -> None:
        self.heard.append(("reply", value))
        if value == "odd":
            raise MalformedMessage("odd")

    def on_late(self, call: Call, now: float) -> None:
        self.heard.append(("late", None))

    def on_failure(self, call: Call, now: float) -> None:
        self.heard.append(("failure", None))


# --- requests -------------------------------------------------------------------------------------


def test_a_request_reaches_its_handler_and_the_reply_its_sender() -> None:
    service = Service([1, "two"])
    ((reply, to),) = service.receive(args=[3, b"x"])
    assert service.asked == [([3, b"x"], PEER, [1], 5.0)]
    assert (reply.msg_id, reply.value, to) == (MSG_ID, [1, "two"], PEER)
    assert service.core.counters == {"datagrams_in": 1}


def test_who_greets_is_greeted_and_who_does_not_gets_the_stock_wire() -> None:
    service = Service()
    ((reply, _),) = service.receive()
    assert reply.trailer == [1]
    service.core.receive(encode_request(MSG_ID, "ask", []), PEER, 5.0)
    ((datagram, _),) = service.core.sending
    assert datagram == encode_response(MSG_ID, "fine")


def test_an_unknown_name_is_counted_and_left_unanswered() -> None:
    service = Service()
    assert service.receive("nobody_knows") == []
    assert service.core.counters["requests_unknown"] == 1
    assert service.asked == []


def test_a_name_has_one_handler() -> None:
    service = Service()
    with pytest.raises(AssertionError):
        service.core.register("ask", lambda args, source, trailer, now: None, verb="query")


@pytest.mark.parametrize("datagram", [b"", b"\x00", bytes(21), b"\x07" + bytes(40), b"\xff" * 70])
def test_what_is_no_message_is_counted(datagram: bytes) -> None:
    service = Service()
    service.core.receive(datagram, PEER, 5.0)
    assert service.core.counters == {"datagrams_in": 1, "malformed": 1}
    assert service.replies() == []


def test_a_handler_that_refuses_its_arguments_is_silent() -> None:
    service = Service(MalformedMessage("what is this?"))
    assert service.receive() == []
    assert service.core.counters["malformed"] == 1


def test_a_greeting_marks_a_known_peer_and_remembers_no_unknown_one() -> None:
    service = Service()
    service.receive()
    assert service.core.peers.known(PEER) is None
    peer = service.core.peers.of(PEER)
    service.receive(greet=False)
    assert peer.capability is Capability.UNKNOWN
    service.receive()
    assert peer.capability is Capability.DHTOS


def test_a_refused_request_marks_nobody() -> None:
    service = Service(MalformedMessage("no"))
    peer = service.core.peers.of(PEER)
    service.receive()
    assert peer.capability is Capability.UNKNOWN


# --- replies --------------------------------------------------------------------------------------


def test_silence_is_an_answer() -> None:
    assert Service(NO_REPLY).receive() == []
    ((reply, _),) = Service(None).receive()  # nil is not silence
    assert reply.value is None


def test_parts_are_one_datagram_each() -> None:
    replies = Service(Parts([[0], [1], [2]])).receive()
    assert [reply.value for reply, _ in replies] == [[0], [1], [2]]
    assert {(reply.msg_id, to) for reply, to in replies} == {(MSG_ID, PEER)}
    assert all(reply.trailer == [1] for reply, _ in replies)
    assert Service(Parts()).receive() == []
    assert len(Service([[0], [1]]).receive()) == 1  # a plain list is one value


@pytest.mark.parametrize("greet", [False, True])
def test_a_deferred_reply_goes_to_who_asked_when_it_is_there(greet: bool) -> None:
    deferred = Deferred()
    service = Service(deferred)
    assert service.receive(greet=greet) == []
    assert (deferred.msg_id, deferred.source, deferred.greet) == (MSG_ID, PEER, greet)
    service.core.answer(deferred, {"at": "last"})
    ((reply, to),) = service.replies()
    assert (reply.msg_id, reply.value, to) == (MSG_ID, {"at": "last"}, PEER)
    assert reply.trailer == ([1] if greet else None)


def test_a_deferred_reply_may_be_silence_or_parts() -> None:
    deferred = Deferred()
    service = Service(deferred)
    service.receive()
    service.core.answer(deferred, NO_REPLY)
    assert service.replies() == []
    service.core.answer(deferred, Parts([1, 2]))
    assert [reply.value for reply, _ in service.replies()] == [1, 2]


def test_several_deferred_replies_do_not_mix() -> None:
    service = Service()
    waiting = []
    for number in range(3):
        service.answer = Deferred()
        waiting.append(service.answer)
        service.core.receive(encode_request(bytes([number]) * 20, "ask", []), OTHER, 1.0)
    for number in (2, 0, 1):
        service.core.answer(waiting[number], number)
    assert [(reply.msg_id[0], reply.value) for reply, _ in service.replies()] == [
        (2, 2),
        (0, 0),
        (1, 1),
    ]


# --- responses ------------------------------------------------------------------------------------


def test_a_response_goes_to_the_owner_of_its_call() -> None:
    core, ears = Core(random.Random(1)), Ears()
    core.calls.send(PEER, "ask", [], ears, 0.0)
    ((datagram, _),) = core.sending
    msg_id = datagram[1:21]
    core.receive(encode_response(msg_id, "fine"), OTHER, 0.1)
    assert (ears.heard, core.counters["replies_foreign"]) == ([], 1)
    core.receive(encode_response(msg_id, "fine"), PEER, 0.1)
    core.receive(encode_response(msg_id, "fine"), PEER, 0.1)
    assert ears.heard == [("reply", "fine")]
    assert core.counters["replies_unasked"] == 1


def test_an_owner_that_cannot_read_a_response_is_no_fault_of_the_engine() -> None:
    core, ears = Core(random.Random(1)), Ears()
    core.calls.send(PEER, "ask", [], ears, 0.0)
    ((datagram, _),) = core.sending
    core.receive(encode_response(datagram[1:21], "odd"), PEER, 0.1)
    assert core.counters["malformed"] == 1
    assert len(core.calls) == 0
    core.check()


def test_a_stream_stays_open_until_its_owner_has_all() -> None:
    core, ears = Core(random.Random(1)), Ears()
    call = core.calls.send(PEER, "ask", [], ears, 0.0, stream=True)
    ((datagram, _),) = core.sending
    for number in range(3):
        core.receive(encode_response(datagram[1:21], number), PEER, 0.1)
    assert ears.heard == [("reply", 0), ("reply", 1), ("reply", 2)]
    core.calls.cancel(call)
    core.receive(encode_response(datagram[1:21], 3), PEER, 0.1)
    assert len(ears.heard) == 3
    assert len(core.timers) == 0


def test_an_operation_is_announced_by_the_core_it_was_made_by() -> None:
    core = Core(random.Random(1))
    stopped: list[float] = []
    operation = core.operation(stopped.append)
    operation.cancel(7.0)
    assert stopped == [7.0]
    assert len(core.happened) == 1


# --- cookies --------------------------------------------------------------------------------------


def test_a_cookie_belongs_to_one_address_and_one_engine() -> None:
    core = Core(random.Random(1))
    cookie = core.cookie(PEER)
    assert len(cookie) == 8
    assert core.cookie(PEER) == cookie
    others = [core.cookie(OTHER), core.cookie((PEER[0], 7401)), Core(random.Random(2)).cookie(PEER)]
    assert cookie not in others
    assert core.cookie(("192.0.2.1|7", 400)) != core.cookie(("192.0.2.1", 7400))
    assert core.proven(PEER, cookie)
    assert not core.proven(OTHER, cookie)
    assert not core.proven(PEER, b"")


def test_nothing_is_remembered_for_strangers() -> None:
    core = Core(random.Random(1))
    for number in range(100):
        core.proven(("192.0.2.1", number + 1), bytes(8))
    assert len(core.peers) == 0
    assert core.cookies == {}


def test_who_answered_a_call_is_proven() -> None:
    core, ears = Core(random.Random(1)), Ears()
    core.calls.send(PEER, "ask", [], ears, 0.0)
    assert not core.proven(PEER, b"")  # asked, not heard yet
    ((datagram, _),) = core.sending
    core.receive(encode_response(datagram[1:21], "fine"), PEER, 0.1)
    assert core.proven(PEER, b"")


def test_cookies_of_others_are_kept_within_a_limit() -> None:
    core = Core(random.Random(1))
    assert core.remember_cookie(PEER, b"12345678")
    assert not core.remember_cookie(PEER, b"12345678")
    assert core.remember_cookie(PEER, b"87654321")
    assert core.cookies == {PEER: b"87654321"}
    for number in range(PEERS_MAX):
        core.remember_cookie(("192.0.2.9", number), b"12345678")
    assert len(core.cookies) == PEERS_MAX
    assert PEER not in core.cookies  # the first to come is the first to go
