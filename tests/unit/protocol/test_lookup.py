"""One lookup driven by hand: whom it asks, when it hedges, when it ends."""

import random

import pytest

from dhtos.core.contact import Contact
from dhtos.core.limits import (
    CALL_DEADLINE_S,
    CONTACTS_PER_REPLY_MAX,
    LOOKUP_PEERS_MAX,
    OPERATION_DEADLINE_S,
    RTO_FLOOR_S,
    RTO_SAMPLES_MIN,
    RTO_UNKNOWN_S,
    VALUE_PATIENCE_S,
    VALUE_TTL_S,
)
from dhtos.protocol.lookup import Lookup, State
from dhtos.protocol.peers import Capability
from dhtos.protocol.rpc import Core
from dhtos.protocol.store import Held
from dhtos.protocol.wire import Request, encode_response, parse

OWN = b"\xff" * 20
TARGET = bytes(20)


def contact(number: int) -> Contact:
    """The contact at XOR distance `number` of the target."""
    return Contact(number.to_bytes(20), (f"10.0.{number >> 8}.{number & 255}", 7400))


def wire(*numbers: int) -> list[list[object]]:
    return [[contact(n).id, *contact(n).endpoint] for n in numbers]


class Bench:
    """A lookup on a real Core, its network played by the test."""

    def __init__(self, *, k: int = 4, alpha: int = 2, value: bool = False) -> None:
        self.core = Core(random.Random(1))
        self.now = 0.0
        self.heard: list[Contact] = []
        self.lost: list[Contact] = []
        self.more: list[Contact] = []
        self.refills = 0
        self.finished: list[float] = []
        self.lookup = Lookup(
            self.core, OWN, TARGET, self._finish, self, k=k, alpha=alpha, value=value
        )
        self.asked: dict[int, bytes] = {}

    def _finish(self, lookup: Lookup, now: float) -> None:
        assert lookup is self.lookup
        self.finished.append(now)

    def answered(self, contact: Contact, now: float) -> None:
        self.heard.append(contact)

    def failed(self, contact: Contact, now: float) -> None:
        self.lost.append(contact)

    def spares(self, target: bytes) -> list[Contact]:
        assert target == TARGET
        self.refills += 1
        return self.more

    def start(self, *numbers: int, local: Held | None = None) -> list[int]:
        self.lookup.start([contact(n) for n in numbers], self.now, local)
        return self.sent()

    def sent(self) -> list[int]:
        """Whom the lookup has asked since the last call."""
        numbers = []
        for datagram, endpoint in self.core.sending:
            message = parse(datagram)
            assert isinstance(message, Request)
            assert message.args == [OWN, TARGET]
            _, _, high, low = endpoint[0].split(".")
            numbers.append(int(high) << 8 | int(low))
            self.asked[numbers[-1]] = message.msg_id
        self.core.sending.clear()
        self.lookup.check()
        self.core.check()
        return numbers

    def reply(self, number: int, value: object) -> list[int]:
        datagram = encode_response(self.asked[number], value)
        self.core.receive(datagram, contact(number).endpoint, self.now)
        return self.sent()

    def wait(self, seconds: float) -> list[int]:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while (due := self.core.timers.next_deadline()) <= end:
            self.now = max(self.now, due)
            self.core.timers.run(self.now)
        self.now = end
        return self.sent()

    def meet(self, *numbers: int) -> None:
        """Make peers known as quick, so that their time-out is the floor."""
        for number in numbers:
            self.core.peers.of(contact(number).endpoint).sample(0.001)

    def known(self) -> list[Contact]:
        return self.lookup.closest()


class TestWalk:
    def test_asks_alpha_closest_and_rolls(self):
        bench = Bench()
        assert bench.start(8, 2, 4, 6) == [2, 4]
        assert bench.reply(4, wire(1, 3, 9)) == [1]
        assert bench.reply(2, wire(1, 3)) == [3]
        assert bench.reply(1, wire(2, 3)) == []
        assert bench.finished == []
        bench.reply(3, [])
        assert bench.finished == [0.0]
        assert bench.known() == [contact(n) for n in (1, 2, 3, 4)]
        assert bench.heard == [contact(n) for n in (4, 2, 1, 3)]

    def test_without_news_the_whole_front_is_asked(self):
        bench = Bench(k=6)
        assert bench.start(*range(1, 9)) == [1, 2]
        assert bench.reply(1, wire(20)) == [3]
        assert bench.reply(2, []) == [4, 5, 6]

    def test_few_contacts_are_enough(self):
        bench = Bench()
        bench.start(1, 2)
        bench.reply(1, [])
        bench.reply(2, [])
        assert bench.finished
        assert bench.known() == [contact(1), contact(2)]

    def test_without_contacts_it_ends_at_once(self):
        bench = Bench()
        assert bench.start() == []
        assert bench.finished == [0.0]
        assert bench.known() == []

    def test_itself_and_known_endpoints_are_not_asked(self):
        bench = Bench()
        bench.start(5)
        mine = [OWN, "10.9.9.9", 7400]
        twice = [contact(1).id, *contact(5).endpoint]
        bench.reply(5, [mine, twice])
        assert bench.finished

    def test_one_id_at_two_endpoints_is_asked_once(self):
        bench = Bench()
        elsewhere = Contact(contact(1).id, ("10.9.9.9", 7400))
        bench.lookup.start([contact(1), elsewhere, contact(1)], 0.0)
        assert bench.sent() == [1]

    def test_one_endpoint_under_many_ids_is_asked_once(self):
        bench = Bench(alpha=4)
        bench.start(200)
        many = [[n.to_bytes(20), "10.7.7.7", 7400] for n in range(1, 60)]
        bench.reply(200, many)
        assert bench.core.counters["requests_out"] == 2

    def test_a_known_id_elsewhere_is_not_asked(self):
        bench = Bench()
        bench.start(5, 6)
        bench.reply(5, [[contact(6).id, "10.9.9.9", 7400]])
        bench.reply(6, [])
        assert bench.finished

    def test_contacts_are_bounded(self):
        bench = Bench(k=64)
        bench.start(1000)
        bench.reply(1000, wire(*range(900, 960)))
        number = 0
        while not bench.finished:
            number += 60
            pending = [c.contact for c in bench.lookup._candidates if c.state is State.ASKED]
            asked = int.from_bytes(pending[0].id)
            bench.reply(asked, wire(*range(2000 + number, 2060 + number)))
        assert len(bench.lookup._candidates) == LOOKUP_PEERS_MAX


class TestSilence:
    def test_a_late_peer_makes_room_and_is_left_behind(self):
        bench = Bench()
        bench.meet(1, 2, 3, 4, 5)
        assert bench.start(1, 2, 3, 4, 5) == [1, 2]
        bench.reply(2, [])
        bench.reply(3, [])
        bench.reply(4, [])
        assert bench.wait(RTO_FLOOR_S) == [1, 5]  # sent once more, and the hedge
        bench.reply(5, [])
        assert bench.finished == []
        bench.wait(RTO_FLOOR_S)
        assert len(bench.finished) == 1
        assert bench.known() == [contact(n) for n in (2, 3, 4, 5)]

    def test_its_late_answer_counts_while_the_lookup_lasts(self):
        bench = Bench(k=2)
        bench.meet(1, 2, 3)
        bench.start(1, 2, 3)
        bench.reply(2, [])
        bench.wait(RTO_FLOOR_S)
        bench.reply(1, [])
        assert bench.finished
        assert bench.known() == [contact(1), contact(2)]

    def test_calls_still_open_at_the_end_teach_the_table(self):
        bench = Bench(k=1)
        bench.meet(1, 2)
        bench.start(1, 2)
        bench.wait(2 * RTO_FLOOR_S)
        bench.reply(2, [])
        assert bench.finished
        assert bench.lost == []
        bench.wait(CALL_DEADLINE_S)
        assert bench.lost == [contact(1)]
        assert bench.lookup.open == 0
        assert len(bench.finished) == 1

    def test_never_ends_without_an_answer_while_a_call_is_open(self):
        bench = Bench()
        bench.meet(1, 2)
        bench.start(1, 2)
        bench.wait(3 * RTO_FLOOR_S)
        assert bench.finished == []
        bench.reply(2, wire(3))
        assert bench.finished == []
        bench.reply(3, [])
        assert bench.finished
        assert bench.known() == [contact(2), contact(3)]

    def test_all_silent_ends_with_nobody(self):
        bench = Bench()
        bench.start(1, 2, 3)
        bench.wait(OPERATION_DEADLINE_S)
        assert len(bench.finished) == 1
        assert RTO_UNKNOWN_S < bench.finished[0] <= 2 * CALL_DEADLINE_S
        assert bench.known() == []
        assert bench.lost == [contact(n) for n in (1, 2, 3)]

    def test_a_stranger_is_waited_for_twice_the_first_guess(self):
        bench = Bench(k=1, alpha=1)
        bench.meet(2)
        bench.start(1, 2)
        assert bench.wait(RTO_UNKNOWN_S) == [1, 2]
        bench.reply(2, [])
        bench.wait(RTO_UNKNOWN_S - 0.001)
        assert bench.finished == []
        bench.wait(0.002)
        assert bench.finished

    def test_quick_answers_of_a_few_say_nothing_about_a_stranger(self):
        """A live peer 150 ms away, all others next door: it is waited for."""
        bench = Bench(k=2, alpha=2)
        bench.meet(2, 3)
        bench.start(1, 2, 3)
        bench.wait(0.002)
        bench.reply(2, [])
        assert bench.wait(0.148) == []
        bench.reply(1, [])
        assert bench.finished == [0.15]
        assert bench.known() == [contact(1), contact(2)]

    def test_where_everybody_is_near_a_stranger_is_expected_to_be(self):
        bench = Bench(k=2, alpha=2)
        bench.meet(*range(2, RTO_SAMPLES_MIN + 2))
        bench.start(1, 2, 3)
        bench.reply(2, [])
        assert bench.wait(2 * RTO_FLOOR_S) == [1, 3]  # sent once more, and the hedge
        bench.reply(3, [])
        bench.wait(2 * RTO_FLOOR_S - 0.001)
        assert bench.finished == []
        bench.wait(0.002)
        assert bench.finished
        assert bench.known() == [contact(2), contact(3)]
        bench.wait(3 * RTO_UNKNOWN_S - 0.01)
        assert bench.lost == []  # left behind, but not held to be dead so soon
        bench.wait(RTO_UNKNOWN_S)
        assert bench.lost == [contact(1)]

    def test_a_stranger_that_was_sent_the_call_twice_is_measured_all_the_same(self):
        bench = Bench(k=1, alpha=1)
        bench.start(1)
        bench.wait(0.3)
        bench.reply(1, [])
        assert bench.core.peers.of(contact(1).endpoint).srtt == pytest.approx(0.3)

    def test_whoever_was_measured_gives_no_doubtful_sample(self):
        bench = Bench(k=1, alpha=1)
        bench.meet(1)
        bench.start(1)
        bench.wait(1.5 * RTO_FLOOR_S)
        bench.reply(1, [])
        assert bench.core.peers.of(contact(1).endpoint).srtt == 0.001

    def test_a_deadline_before_the_end_brings_them_in_as_well(self):
        bench = Bench(k=1, alpha=1)
        bench.meet(1, 2)
        bench.more = [contact(2)]
        bench.start(1)
        bench.lookup._candidates[0].call.deadline = RTO_FLOOR_S
        assert bench.wait(1.5 * RTO_FLOOR_S) == [2]
        assert bench.lost == [contact(1)]
        bench.reply(2, [])
        assert bench.known() == [contact(2)]

    def test_silence_after_the_end_asks_nobody(self):
        bench = Bench(k=1, alpha=1, value=True)
        bench.meet(1, 2)
        bench.start(1, 2)
        assert bench.wait(RTO_FLOOR_S) == [1, 2]
        bench.reply(2, {"value": 7})
        assert bench.finished
        bench.wait(CALL_DEADLINE_S)
        assert bench.refills == 0

    def test_silence_brings_in_more_contacts_once(self):
        bench = Bench(k=2, alpha=2)
        bench.meet(1, 2, 3, 4)
        bench.more = [contact(3), contact(2), contact(4)]
        bench.start(1, 2)
        assert bench.wait(RTO_FLOOR_S) == [1, 2]
        assert bench.refills == 0
        assert bench.wait(RTO_FLOOR_S) == [3, 4]
        bench.reply(3, [])
        bench.reply(4, [])
        assert bench.finished
        assert bench.known() == [contact(3), contact(4)]
        bench.wait(CALL_DEADLINE_S)
        assert bench.refills == 1

    def test_who_failed_before_is_waited_for_a_moment(self):
        bench = Bench(k=2)
        bench.core.peers.of(contact(1).endpoint).failures = 1
        assert bench.start(1, 2, 3) == [1, 2, 3]
        bench.reply(2, [])
        bench.reply(3, [])
        assert bench.finished == []
        bench.wait(RTO_FLOOR_S)
        assert bench.finished == [RTO_FLOOR_S]
        assert bench.known() == [contact(2), contact(3)]

    def test_who_failed_before_has_a_time_out_of_its_own(self):
        bench = Bench(k=1)
        far = bench.core.peers.of(contact(1).endpoint)
        far.sample(0.15)
        far.failures = 1
        assert bench.start(1, 2) == [1, 2]
        bench.reply(2, [])
        bench.wait(0.15)
        assert bench.finished == []
        bench.reply(1, [])
        assert bench.known() == [contact(1)]

    def test_only_suspects_are_still_waited_for(self):
        bench = Bench()
        bench.core.peers.of(contact(1).endpoint).failures = 1
        bench.start(1)
        bench.wait(2 * RTO_FLOOR_S)
        assert bench.finished == []
        bench.reply(1, [])
        assert bench.known() == [contact(1)]
        assert bench.finished

    def test_its_own_deadline_ends_it(self):
        bench = Bench(k=1, alpha=1)
        bench.start(1)
        number = 1
        while not bench.finished and number < 250:
            bench.wait(0.2)
            number += 1
            if not bench.finished:
                bench.lookup._learn([contact(1000 - number)])
        assert bench.finished[0] <= OPERATION_DEADLINE_S

    def test_cancel_leaves_nothing(self):
        bench = Bench()
        bench.meet(1)
        bench.start(1, 2, 3, 4)
        bench.wait(RTO_FLOOR_S)
        bench.lookup.cancel()
        assert len(bench.core.calls) == 0
        assert len(bench.core.timers) == 0
        assert bench.lookup.open == 0
        bench.wait(OPERATION_DEADLINE_S)
        assert bench.finished == []
        assert bench.lost == []


MALFORMED = [
    None,
    7,
    "text",
    {"value": 1},
    [None],
    [[contact(1).id, "10.0.0.1"]],
    [[contact(1).id, "10.0.0.1", 7400, 1]],
    [[b"short", "10.0.0.1", 7400]],
    [["text" * 5, "10.0.0.1", 7400]],
    [[contact(1).id, "example.org", 7400]],
    [[contact(1).id, "", 7400]],
    [[contact(1).id, b"10.0.0.1", 7400]],
    [[contact(1).id, "10.0.0.1", 0]],
    [[contact(1).id, "10.0.0.1", 65536]],
    [[contact(1).id, "10.0.0.1", True]],
    wire(*range(1, CONTACTS_PER_REPLY_MAX + 2)),
]


class TestMalformed:
    @pytest.mark.parametrize("value", MALFORMED, ids=range(len(MALFORMED)))
    def test_one_malformed_peer_is_a_failed_candidate(self, value):
        bench = Bench()
        bench.start(1, 2)
        bench.reply(1, value)
        assert bench.core.counters["replies_malformed"] == 1
        bench.reply(2, wire(3))
        bench.reply(3, [])
        assert bench.finished
        assert bench.known() == [contact(2), contact(3)]

    @pytest.mark.parametrize(
        "value",
        [
            {},
            {"value": None},
            {"value": [1]},
            {"value": {"a": 1}},
            {"value": 1, "s": -1},
            {"value": 1, "s": 2**63},
            {"value": 1, "s": "1"},
            {"value": 1, "t": 0},
            {"value": 1, "t": VALUE_TTL_S + 1},
            {"value": 1, "t": float("nan")},
            {"value": 1, "t": "1"},
        ],
    )
    def test_malformed_values(self, value):
        bench = Bench(value=True)
        bench.start(1, 2)
        bench.reply(1, value)
        assert bench.core.counters["replies_malformed"] == 1
        assert bench.lookup.best is None
        bench.reply(2, {"value": "good", "more": 1})
        assert bench.lookup.best.value == "good"
        assert bench.finished

    def test_ipv6_contacts_are_read(self):
        bench = Bench()
        bench.start(2)
        reply = encode_response(bench.asked[2], [[contact(1).id, "2001:db8::1", 7400]])
        bench.core.receive(reply, contact(2).endpoint, 0.0)
        assert bench.core.sending[0][1] == ("2001:db8::1", 7400)


class TestValues:
    def test_a_question_for_a_value_shows_what_we_understand(self):
        """Also to peers known as dhtos: they may have forgotten us and would hide the number."""
        for value in (True, False):
            bench = Bench(value=value)
            bench.core.peers.of(contact(1).endpoint).capability = Capability.DHTOS
            bench.lookup.start([contact(1)], 0.0)
            request = parse(bench.core.sending[0][0])
            assert (request.trailer is not None) == value
            bench = Bench(value=value)
            bench.core.peers.of(contact(1).endpoint).capability = Capability.STOCK
            bench.lookup.start([contact(1)], 0.0)
            assert parse(bench.core.sending[0][0]).trailer is None

    def test_a_majority_of_alpha_is_asked_and_ends_it(self):
        bench = Bench(alpha=3, value=True)
        assert bench.start(1, 2, 3, 4) == [1, 2]
        assert bench.reply(2, {"value": "v", "s": 4, "t": 60.0}) == []
        assert bench.finished == []
        bench.reply(1, {"value": "v", "s": 4, "t": 50.0})
        assert bench.finished
        best = bench.lookup.best
        assert (best.value, best.seq) == ("v", 4)
        assert bench.lookup.answers()[0].held is not None

    def test_without_a_value_it_goes_on_with_alpha(self):
        bench = Bench(alpha=3, value=True, k=8)
        assert bench.start(5, 6, 7, 8, 9) == [5, 6]
        assert bench.reply(5, wire(1)) == [1, 7]
        bench = Bench(alpha=3, value=True, k=8)
        bench.meet(5, 6)
        assert bench.start(5, 6, 7, 8, 9) == [5, 6]
        assert bench.wait(RTO_FLOOR_S) == [5, 7, 8, 6, 9]

    def test_the_highest_number_of_one_round_wins(self):
        bench = Bench(alpha=5, value=True)
        assert bench.start(1, 2, 3, 4) == [1, 2, 3]
        bench.reply(1, {"value": "old", "s": 4})
        bench.reply(2, {"value": "new", "s": 5})
        assert bench.finished == []
        bench.reply(3, wire(4))
        assert bench.finished
        assert bench.lookup.best.value == "new"
        assert bench.sent() == []

    def test_without_numbers_the_most_told_wins(self):
        bench = Bench(alpha=7, value=True)
        bench.start(1, 2, 3, 4)
        for number, value in ((1, "a"), (2, "b"), (3, "c")):
            bench.reply(number, {"value": value})
        bench.reply(4, {"value": "c"})
        assert bench.lookup.best.value == "c"
        assert bench.finished

    def test_a_number_beats_any_count_of_stock_copies(self):
        bench = Bench(alpha=5, value=True)
        bench.start(1, 2, 3, 4, 5)
        bench.reply(1, {"value": "stock"})
        bench.reply(2, {"value": "stock"})
        bench.reply(3, {"value": "mine", "s": 1})
        bench.wait(1.0)
        assert bench.lookup.best.value == "mine"

    def test_one_value_under_two_numbers_is_one_voice(self):
        bench = Bench(alpha=3, value=True)
        bench.start(1, 2)
        bench.reply(1, {"value": "v", "s": 4})
        bench.reply(2, {"value": "v", "s": 6})
        assert bench.finished
        assert bench.lookup.best.seq == 6

    def test_patience_is_short(self):
        bench = Bench(alpha=3, value=True)
        bench.start(1, 2, 3)
        bench.wait(0.02)
        bench.reply(1, {"value": 7})
        assert bench.finished == []
        bench.wait(0.019)
        assert bench.finished == []
        bench.wait(0.002)
        assert len(bench.finished) == 1
        assert bench.lookup.best.value == 7

    def test_patience_has_a_floor(self):
        bench = Bench(alpha=3, value=True)
        bench.start(1, 2)
        bench.reply(1, {"value": 7})
        bench.wait(VALUE_PATIENCE_S / 2)
        assert bench.finished == []
        bench.wait(VALUE_PATIENCE_S)
        assert len(bench.finished) == 1

    def test_a_late_peer_is_not_waited_for_once_there_is_a_value(self):
        bench = Bench(value=True)
        bench.meet(1, 2, 3)
        bench.start(1, 2)
        bench.wait(RTO_FLOOR_S)
        bench.reply(2, {"value": 7})
        assert bench.finished == [bench.now]

    def test_our_own_copy_is_one_voice(self):
        local = Held("old", 3, 100.0)
        bench = Bench(value=True, alpha=3)
        assert bench.start(1, 2, 3, local=local) == [1, 2]
        assert bench.finished == []
        bench.reply(1, {"value": "old", "s": 3})
        assert bench.finished
        bench = Bench(value=True, alpha=3)
        bench.start(1, 2, 3, local=local)
        bench.reply(1, {"value": "new", "s": 4})
        bench.reply(2, {"value": "new", "s": 4})
        assert bench.lookup.best.value == "new"

    def test_our_own_copy_is_enough_alone(self):
        bench = Bench(value=True)
        bench.start(local=Held("v", 0, 100.0))
        assert bench.finished == [0.0]
        bench = Bench(value=True)
        bench.start(1, 2, local=Held("v", 0, 100.0))
        bench.wait(2 * RTO_UNKNOWN_S)
        assert len(bench.finished) == 1
        assert bench.lookup.best.value == "v"

    def test_nobody_has_it(self):
        bench = Bench(value=True)
        bench.start(1, 2)
        bench.reply(1, [])
        bench.reply(2, [])
        assert bench.finished
        assert bench.lookup.best is None
        assert len(bench.lookup.answers()) == 2

    def test_replies_after_the_end_change_nothing(self):
        bench = Bench(value=True, alpha=3)
        bench.start(1, 2, 3)
        bench.reply(1, {"value": 1, "s": 1})
        bench.wait(2 * VALUE_PATIENCE_S)
        assert bench.finished
        bench.reply(2, {"value": 2, "s": 9})
        assert bench.lookup.best.value == 1
        assert len(bench.heard) == 2
        assert bench.lookup.open == 0


@pytest.mark.parametrize("seed", range(8))
def test_exact_among_random_knowledge(seed):
    """With every peer answering from the truth, the k closest are found, whatever the start."""
    rng = random.Random(seed)
    everyone = sorted(rng.sample(range(1, 60_000), 120))
    bench = Bench(k=8, alpha=3)
    to_answer = bench.start(*rng.sample(everyone, 3))
    while to_answer:
        number = to_answer.pop(rng.randrange(len(to_answer)))
        knows = rng.sample(everyone, 40)
        knows += everyone[:8] if number < everyone[20] else []
        nearest = sorted(set(knows), key=lambda n: n)[:8]
        to_answer += bench.reply(number, wire(*nearest))
    assert bench.finished, seed
    assert bench.known() == [contact(n) for n in everyone[:8]], seed
