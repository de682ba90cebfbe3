"""Coordinates on the wire: which replies tell one, which are samples, what nonsense does."""

import math
import random
from typing import Any

import pytest

from dhtos.core.coordinate import DIMENSIONS, Coordinate
from dhtos.core.ids import Endpoint
from dhtos.core.limits import REPLY_BYTES_MAX
from dhtos.protocol.answer import Parts
from dhtos.protocol.bundle import CHUNK_BYTES
from dhtos.protocol.calls import Call
from dhtos.protocol.rpc import Core
from dhtos.protocol.wire import encode_request, encode_response, encode_trailer, parse

PEER: Endpoint = ("192.0.2.1", 7400)
THERE = Coordinate((0.01, 0.02, 0.03, 0.0, 0.0), 0.001, 0.2)
MSG_ID = b"m" * 20


class Ears:
    """An owner of calls."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_reply(self, call: Call, value: Any, trailer: list[Any] | None, now: float) -> None:
        self.heard.append(value)

    def on_late(self, call: Call, now: float) -> None:
        pass

    def on_failure(self, call: Call, now: float) -> None:
        self.heard.append(None)


class Node:
    """A core with one RPC that tells where it is, `near`, and one that does not, `plain`."""

    def __init__(self, seed: int = 1, answer: Any = "fine") -> None:
        self.core = Core(random.Random(seed))
        self.ears = Ears()
        self.core.register("near", lambda *_: answer, verb="query", placed=True)
        self.core.register("plain", lambda *_: answer, verb="query")

    def learn(self) -> Coordinate:
        """Have a place of our own."""
        self.core.place.measured(PEER, THERE, 0.05, 0.0)
        return self.core.place.locator.coordinate

    def trailers(self, name: str, *, greet: bool = False) -> list[list[Any] | None]:
        """What the replies to a request end with."""
        greeting = encode_trailer([1]) if greet else b""
        self.core.receive(encode_request(MSG_ID, name, []) + greeting, PEER, 5.0)
        found = [parse(datagram).trailer for datagram, _ in self.core.sending]
        self.core.sending.clear()
        return found

    def call(self, *items: Any, took_s: float = 0.03, sent_at: float = 10.0) -> None:
        """Ask a peer, whose reply ends with such a trailer."""
        call = self.core.calls.send(PEER, "near", [], self.ears, sent_at)
        self.core.sending.clear()
        reply = encode_response(call.msg_id, "fine") + encode_trailer([1, *items])
        self.core.receive(reply, PEER, sent_at + took_s)


# --- what we tell ---------------------------------------------------------------------------------


def test_a_placed_reply_tells_where_we_are_in_16_bytes_of_msgpack() -> None:
    node = Node()
    own = node.learn()
    assert node.trailers("near") == [[1, own.to_bytes()]]
    assert len(encode_trailer([1, own.to_bytes()])) == 23 <= 32


def test_others_stay_as_they_were() -> None:
    node = Node()
    node.learn()
    assert node.trailers("plain") == [None]
    assert node.trailers("plain", greet=True) == [[1]]


def test_who_does_not_know_says_nothing() -> None:
    node = Node()
    assert node.trailers("near") == [None]
    assert node.trailers("near", greet=True) == [[1]]


def test_a_long_answer_tells_once() -> None:
    node = Node(answer=Parts(["a", "b", "c"]))
    own = node.learn()
    assert node.trailers("near") == [[1, own.to_bytes()], None, None]
    assert node.trailers("near", greet=True) == [[1, own.to_bytes()], [1], [1]]


def test_the_latest_place_is_told() -> None:
    node = Node()
    before = node.learn()
    node.core.place.measured(PEER, THERE, 0.5, 1.0)
    ((_, packed),) = node.trailers("near")
    assert packed != before.to_bytes()
    assert packed == node.core.place.locator.coordinate.to_bytes()


def test_a_full_datagram_stays_below_the_mtu() -> None:
    """The first part of an answer, with the widest fixed fields."""
    node = Node()
    own = node.learn()
    part = [63, 64, 2**32, 2**17, bytes(CHUNK_BYTES)]
    whole = encode_response(MSG_ID, part) + encode_trailer([1, own.to_bytes()])
    assert len(whole) <= REPLY_BYTES_MAX


def test_all_places_of_one_machine_are_one() -> None:
    core = Core(random.Random(1))
    assert core.twin().place is core.place


# --- what we are told -----------------------------------------------------------------------------


def test_a_timed_reply_is_a_sample() -> None:
    node = Node()
    node.call(THERE.to_bytes(), took_s=0.03)
    memory = node.core.place.locator.memory
    assert memory.rtt_s(PEER) == pytest.approx(0.03)
    assert memory.rows[:DIMENSIONS].tolist() == pytest.approx(THERE.position, abs=2e-5)
    assert node.ears.heard == ["fine"]


@pytest.mark.parametrize("items", [(), (None,)])
def test_a_reply_without_a_coordinate_is_none(items: tuple[Any, ...]) -> None:
    node = Node()
    node.call(*items)
    assert len(node.core.place.locator.memory) == 0
    assert node.ears.heard == ["fine"]
    assert node.core.counters["coordinates_malformed"] == 0


@pytest.mark.parametrize(
    "item",
    [
        0,
        "x" * 14,
        1.5,
        [0.0],
        {},
        b"",
        bytes(14),
        THERE.to_bytes()[:-1],
        bytes(200),
        True,
        math.nan,
    ],
    ids=repr,
)
def test_nonsense_is_counted_and_the_reply_is_heard(item: Any) -> None:
    node = Node()
    node.call(item)
    assert len(node.core.place.locator.memory) == 0
    assert node.core.counters["coordinates_malformed"] == 1
    assert node.ears.heard == ["fine"], "what is odd about a coordinate says nothing of the answer"


def test_other_dimensions_are_counted() -> None:
    node = Node()
    node.call(Coordinate((0.1, 0.1), 0.001, 0.2).to_bytes())
    assert node.core.counters["samples_refused_dimensions"] == 1
    assert node.ears.heard == ["fine"]


@pytest.mark.parametrize("took_s", [0.0, -3600.0], ids=["coarse clock", "clock set back"])
def test_a_clock_that_does_not_go_on_gives_no_sample(took_s: float) -> None:
    node = Node()
    node.call(THERE.to_bytes(), took_s=took_s)
    assert len(node.core.place.locator.memory) == 0
    assert node.core.counters["samples_refused_rtt"] == 1
    assert node.ears.heard == ["fine"]


def test_a_machine_that_slept_gives_no_sample() -> None:
    """The reply waited in the socket; no timer ran."""
    node = Node()
    node.call(THERE.to_bytes(), took_s=240.0)
    assert node.core.counters["samples_refused_rtt"] == 1


def test_a_reply_to_a_retransmission_gives_no_sample() -> None:
    node = Node()
    call = node.core.calls.send(PEER, "near", [], node.ears, 0.0)
    node.core.timers.run(0.2501)
    assert call.late
    reply = encode_response(call.msg_id, "fine") + encode_trailer([1, THERE.to_bytes()])
    node.core.receive(reply, PEER, 0.26)
    assert node.ears.heard == ["fine"]
    assert len(node.core.place.locator.memory) == 0


def test_samples_draw_nothing_from_the_engine() -> None:
    node = Node(seed=3)
    state = node.core.rng.getstate()
    for number in range(40):
        node.core.place.measured(("192.0.2.2", number), THERE, 0.02, float(number))
    assert node.core.rng.getstate() == state
