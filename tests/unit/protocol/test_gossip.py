"""Gossip: whom a member talks to, what it tells, what it takes, and what it refuses."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from hub_world import GIB, SCHEMA, Lone, Mates, endpoint_of, machine

from dhtos.core.coordinate import DIMENSIONS
from dhtos.core.group import State
from dhtos.core.limits import RUMOURS_PER_MESSAGE_MAX, SEQ_LEAD_MAX
from dhtos.core.record import SEQ_MAX, Record
from dhtos.protocol.gossip import EAGER_FANOUT
from dhtos.protocol.hubwire import delta_rumour, record_rumour, state_rumour
from dhtos.protocol.operation import MemberGone
from dhtos.protocol.wire import encode_request

OWN = machine(1, cores=4, mem=GIB)
KEY = OWN.key(SCHEMA)
OTHERS = [machine(n, cores=4, mem=n * GIB) for n in range(2, 8)]
NOBODY = ("10.77.0.1", 7)


def later(record: Record, seq: int = 9, load: float = 7.5) -> Record:
    """Another version with other dynamic values."""
    values = list(record.dynamic)
    values[SCHEMA.slots[SCHEMA.index("load1")]] = load
    return record.updated(seq, tuple(values), None)


def delta(record: Record, age: float = 0.5) -> list[Any]:
    return delta_rumour(record.key(SCHEMA), record, age)


def member(count: int = 6, **options: Any) -> Lone:
    """A settled member among `count` others that say nothing by themselves."""
    return Lone(OWN, size=32, **options).settle(OTHERS[:count])


def exchange(
    sender: Record, rumours: list[Any], *, view: int = 0, depth: int = 0, repair: int = 0
) -> list[Any]:
    """The arguments of a dh_gossip from another member."""
    return [0, sender.key(SCHEMA), depth, view, bytes(4), None, rumours, repair]


def ask(one: Lone, sender: Record, rumours: list[Any], **options: Any) -> list[Any]:
    """Its answer to an exchange."""
    (reply,) = one.request("dh_gossip", exchange(sender, rumours, **options), sender.endpoint)
    assert isinstance(reply, list)
    return reply


def told(message: list[Any]) -> list[bytes]:
    """The keys a message tells of."""
    return [w[2] if w[0] else machine_key(w[2]) for w in message]


def machine_key(wire: list[Any]) -> bytes:
    return next(r.key(SCHEMA) for r in [OWN, *OTHERS, NEWCOMER] if r.node_id == wire[0])


NEWCOMER = machine(20, cores=4, mem=20 * GIB)


# --- whom it talks to -----------------------------------------------------------------------------


def test_a_round_asks_everybody_once() -> None:
    mates = Mates(7)
    mates.wait(6.6)
    for one in mates.all:
        asked = Counter(a.endpoint for a in mates.sent("dh_gossip", one)[:6])
        assert len(asked) == 6, "each of the others once"
        assert one.own.endpoint not in asked


def test_rounds_differ_between_members_and_from_round_to_round() -> None:
    mates = Mates(8)
    mates.wait(15.5)
    orders = set()
    for one in mates.all:
        asked = [a.endpoint for a in mates.sent("dh_gossip", one)[:14]]
        orders |= {tuple(asked[:7]), tuple(asked[7:])}
    assert len(orders) == 16


@pytest.mark.parametrize("seed", range(5))
def test_a_newcomer_is_probed_in_the_running_round(seed: int) -> None:
    one = member(6, seed=seed)
    one.until_sent("dh_gossip")
    one.request("dh_push", [0, 0, [record_rumour(NEWCOMER, 0.1)]], NEWCOMER.endpoint)
    one.wait(6.6)
    assert NEWCOMER.endpoint in {asked.endpoint for asked in one.sent("dh_gossip")}


def test_alone_it_asks_nobody() -> None:
    one = Lone(OWN).settle()
    one.wait(10.0)
    assert one.sent() == []


def test_who_has_left_is_silent() -> None:
    one = member()
    one.hub.leave(one.now)
    assert {a.name for a in one.sent()} == {"dh_push"}
    one.wait(10.0)
    assert one.sent() == []
    assert one.request("dh_gossip", exchange(OTHERS[0], []), OTHERS[0].endpoint) == []


# --- what it tells --------------------------------------------------------------------------------


def test_an_exchange_says_who_how_deep_and_which_view() -> None:
    one = member()
    (asked,) = one.until_sent("dh_gossip")
    number, key, depth, view, inhabited, coordinate, rumours, repair = asked.args
    assert (number, key, depth, view) == (0, KEY, 2, one.hub.group.hash)
    assert inhabited == bytes(4)
    assert coordinate is None, "whoever asks takes the time"
    assert (type(rumours), repair) == (list, 0)


def test_an_answer_says_from_where_on_the_map_it_comes() -> None:
    reply = ask(member(), OTHERS[0], [])
    assert reply[0] == KEY
    assert len(reply[4]) == 2 * DIMENSIONS + 4


def test_what_a_member_told_is_not_told_back_but_passed_on() -> None:
    one = member()
    news = later(OTHERS[1])
    reply = ask(one, OTHERS[0], [delta(news)])
    assert news.key(SCHEMA) not in told(reply[5])
    assert news.key(SCHEMA) in told(ask(one, OTHERS[2], [])[5])


def test_an_older_version_is_answered_with_the_newer() -> None:
    one = member()
    news = later(OTHERS[1], seq=9)
    ask(one, OTHERS[0], [delta(news)])
    reply = ask(one, OTHERS[2], [delta(later(OTHERS[1], seq=5))])
    assert [w[4] for w in reply[5] if w[:1] == [1] and w[2] == news.key(SCHEMA)] == [9]


def test_news_of_the_dead_are_answered_with_their_end() -> None:
    one = member()
    gone = OTHERS[3]
    one.hub.group.bury(gone.key(SCHEMA), 4, State.DEAD, one.now)
    reply = ask(one, OTHERS[0], [record_rumour(later(gone, seq=3), 0.5)])
    assert [w[2:] for w in reply[5] if w[0] == 2] == [[gone.key(SCHEMA), 4, int(State.DEAD)]]
    assert one.believes(gone.key(SCHEMA)) is State.DEAD


@pytest.mark.parametrize(("count", "tells"), [(20, 4), (48, 2)])
def test_a_change_of_values_is_told_often_in_a_small_group_only(count: int, tells: int) -> None:
    mates = Mates(count)
    mates.all[3].hub.renew(mates.now)
    key = mates.all[3].hub.key
    mates.wait(9.0)
    by_source: Counter[Any] = Counter()
    for source, asked in mates.carried:
        if asked.name == "dh_gossip":
            by_source[source] += any(w[0] == 1 and w[2] == key for w in asked.args[6])
    assert max(by_source.values()) <= tells
    knowing = [one.hub.group.members[key].record.seq == 2 for one in mates.all]
    assert sum(knowing) >= (0.99 if tells == 4 else 0.75) * count


def test_an_urgent_change_is_told_at_once_to_four_who_pass_it_on() -> None:
    mates = Mates(30)
    mates.all[0].hub.renew(mates.now, eager=True)
    key = mates.all[0].hub.key
    mates.carry()
    pushed = mates.sent("dh_push", mates.all[0])
    assert len({a.endpoint for a in pushed}) == EAGER_FANOUT
    hops = {a.args[1] for a in mates.sent("dh_push")}
    assert hops == {0, 1, 2}
    knowing = [one.hub.group.members[key].record.seq == 2 for one in mates.all]
    assert sum(knowing) >= 25
    mates.wait(6.0)
    assert all(one.hub.group.members[key].record.seq == 2 for one in mates.all)


# --- what it takes --------------------------------------------------------------------------------


def test_a_push_is_passed_on_once_with_one_hop_less() -> None:
    one = member()
    push = [0, 2, [record_rumour(NEWCOMER, 0.1)]]
    assert one.request("dh_push", push, NEWCOMER.endpoint) == []
    one.request("dh_push", push, OTHERS[0].endpoint)
    # The requests left with the replies: what was sent shows in the group and in the counters.
    assert one.believes(NEWCOMER.key(SCHEMA)) is State.ALIVE
    assert one.engine.counters["notices_out"] == 2 * EAGER_FANOUT  # one for its own arrival


def test_a_push_without_hops_is_kept_for_the_tick() -> None:
    one = member()
    before = one.engine.counters["notices_out"]
    one.request("dh_push", [0, 0, [record_rumour(NEWCOMER, 0.1)]], NEWCOMER.endpoint)
    assert one.engine.counters["notices_out"] == before
    assert NEWCOMER.key(SCHEMA) in told(one.until_sent("dh_gossip")[0].args[6])


def test_a_change_of_somebody_unknown_is_asked_for_in_full() -> None:
    one = member()
    datagram = [0, 0, [delta(later(NEWCOMER))]]
    one.engine.outbox()
    one.core.receive(_request("dh_push", datagram), OTHERS[0].endpoint, one.now)
    (fetch,) = one.sent("dh_fetch")
    assert fetch.endpoint == OTHERS[0].endpoint
    assert fetch.args == [0, [NEWCOMER.key(SCHEMA)]]
    one.reply(fetch, [record_rumour(later(NEWCOMER), 0.5)])
    assert one.hub.group.members[NEWCOMER.key(SCHEMA)].record.seq == 9


def _request(name: str, args: list[Any]) -> bytes:
    return encode_request(b"m" * 20, name, args)


def test_a_goodbye_is_an_event_and_final() -> None:
    one = member()
    key = OTHERS[2].key(SCHEMA)
    one.engine.events()
    one.request("dh_push", [0, 0, [state_rumour(key, 2, State.LEFT, 0.0)]])
    assert one.engine.events() == [MemberGone(key)]
    one.request("dh_push", [0, 0, [state_rumour(key, 2, State.DEAD, 0.0)]])
    one.request("dh_push", [0, 0, [record_rumour(later(OTHERS[2], seq=2), 0.0)]])
    assert one.believes(key) is State.LEFT


@pytest.mark.parametrize("state", [State.SUSPECT, State.DEAD, State.LEFT])
def test_rumours_of_its_own_end_are_outbid(state: State) -> None:
    one = member()
    rumour = [0, 0, [state_rumour(KEY, 5, state, 0.0)]]
    one.core.receive(_request("dh_push", rumour), OTHERS[0].endpoint, one.now)
    pushed = one.sent("dh_push")
    assert one.own.seq == 6
    assert one.engine.counters["refutations"] == 1
    assert OTHERS[0].endpoint in {a.endpoint for a in pushed}, "whoever said so is told"
    assert all(w[2][8] == 6 for a in pushed for w in a.args[2])


@pytest.mark.parametrize("seq", [SEQ_LEAD_MAX + 100, SEQ_MAX])
def test_a_version_that_nobody_can_have_come_to_is_no_news(seq: int) -> None:
    """Else its publisher had no number left to refute it."""
    one = member()
    other = OTHERS[2].key(SCHEMA)
    forged = msgspec.structs.replace(OTHERS[3], seq=seq)
    rumours = [state_rumour(key, seq, State.DEAD, 0.0) for key in (KEY, other, b"u" * 20)]
    before = one.own.seq
    one.request("dh_push", [0, 0, [*rumours, record_rumour(forged, 0.0)]])
    assert one.engine.counters["rumours_ahead"] == 4
    assert one.own.seq == before
    assert one.believes(other) is State.ALIVE
    assert one.engine.hub.group.members[forged.key(SCHEMA)].record == OTHERS[3]
    one.request("dh_push", [0, 0, [state_rumour(other, SEQ_LEAD_MAX, State.DEAD, 0.0)]])
    assert one.believes(other) is State.DEAD  # so far it may be
    one.request("dh_push", [0, 0, [state_rumour(other, SEQ_LEAD_MAX + 5, State.LEFT, 0.0)]])
    assert one.believes(other) is State.LEFT  # from there on again
    assert one.engine.counters["rumours_ahead"] == 4


def test_a_stranger_with_the_address_of_a_member_puts_the_member_in_doubt() -> None:
    one = member()
    (asked,) = one.until_sent("dh_gossip")
    expected = next(r for r in OTHERS if r.endpoint == asked.endpoint)
    one.reply(asked, [NEWCOMER.key(SCHEMA), 0, 0, bytes(4), None, []])
    assert one.believes(expected.key(SCHEMA)) is State.SUSPECT


# --- what it refuses ------------------------------------------------------------------------------

GOOD = exchange(OTHERS[0], [])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (1, b"short"),
        (1, None),
        (2, 161),
        (2, -1),
        (3, -1),
        (3, 1.0),
        (4, b"123"),
        (4, bytes(25)),
        (5, [0.1] * 5),
        (5, b"12"),
        (5, b"123"),
        (5, bytes(66)),
        (6, None),
        (6, [[1, 0.0, KEY]] * (4 * RUMOURS_PER_MESSAGE_MAX + 1)),
        (6, [5]),
        (6, [[7, 0.0, KEY, 1, 1]]),
        (6, [[2, 0.0, KEY, 1, 0]]),
        (6, [[2, -1.0, KEY, 1, 1]]),
        (6, [[1, 0.0, KEY, 1]]),
        (6, [[0, 0.0, ["not", "a", "record"]]]),
    ],
)
def test_a_malformed_exchange_is_counted_and_changes_nothing(place: int, value: object) -> None:
    one = member()
    before = one.hub.group.hash
    args = [*GOOD[:place], value, *GOOD[place + 1 :]]
    assert one.request("dh_gossip", args, OTHERS[0].endpoint) == []
    assert one.engine.counters["malformed"] == 1
    assert one.hub.group.hash == before


def test_one_bad_rumour_spoils_the_message_before_any_is_taken() -> None:
    one = member()
    key = OTHERS[1].key(SCHEMA)
    rumours = [state_rumour(key, 9, State.DEAD, 0.0), [9, 0.0, key]]
    assert one.request("dh_gossip", exchange(OTHERS[0], rumours), OTHERS[0].endpoint) == []
    assert one.believes(key) is State.ALIVE


def test_too_few_fields_and_other_hubs_are_not_answered() -> None:
    one = member()
    assert one.request("dh_gossip", GOOD[:7]) == []
    assert one.engine.counters["malformed"] == 1
    assert one.request("dh_gossip", [3, *GOOD[1:]]) == []
    assert one.request("dh_push", [3, 0, []]) == []
    assert one.request("dh_push", [0, 99, []]) == []
    assert one.engine.counters["malformed"] == 2


def test_a_later_version_may_say_more() -> None:
    (reply,) = member().request("dh_gossip", [*GOOD, "more", 1], OTHERS[0].endpoint)
    assert reply[0] == KEY


def test_a_reply_that_makes_no_sense_is_counted() -> None:
    one = member()
    (asked,) = one.until_sent("dh_gossip")
    one.reply(asked, [asked.args[1], 0])
    assert one.engine.counters["malformed"] == 1


def test_partners_are_others_and_distinct() -> None:
    one = member(6)
    chosen = one.hub.gossip.partners(4)
    assert len(set(chosen)) == 4
    assert sorted(one.hub.gossip.partners(50)) == sorted(r.endpoint for r in OTHERS)
    assert endpoint_of(1) not in one.hub.gossip.partners(50)


# --- nodes of another schema ----------------------------------------------------------------------


ELSEWHERE = (1 << 158 | 5).to_bytes(20)
THERE = ("10.66.0.1", 7400)


def test_who_takes_us_for_who_was_here_before_learns_who_is_here_now() -> None:
    one = member()
    one.engine.outbox()
    unreadable = [0, 1.0, ["of another schema"]]
    args = [0, ELSEWHERE, 5, 77, bytes(4), None, [unreadable], 1]
    (reply,) = one.request("dh_gossip", args, THERE)
    key, depth, view, _, coordinate, rumours = reply
    assert (key, depth, view, coordinate, rumours) == (one.hub.key, 2, 0, None, [])
    assert one.core.counters["malformed"] == 0
    bucket = one.hub.buckets.get(1)
    assert bucket is not None
    assert bucket.contacts[ELSEWHERE].contact.endpoint == THERE
    assert len(one.hub.gossip.rumours) == len(member().hub.gossip.rumours), "none were used up"


def test_a_member_that_came_back_elsewhere_is_doubted() -> None:
    one = member()
    (probe,) = one.until_sent("dh_gossip")
    one.reply(probe, [ELSEWHERE, 2, 0, bytes(4), None, []])
    probed = next(r for r in OTHERS if r.endpoint == probe.endpoint)
    assert one.believes(probed.key(SCHEMA)) is State.SUSPECT


def test_pushed_news_of_another_schema_are_passed_over() -> None:
    one = member()
    other = record_rumour(OTHERS[0], 0.0)[2]
    fields = list(other.__struct_fields__)
    told = [getattr(other, name) for name in fields]
    told[fields.index("schema_tag")] ^= 1
    mine = state_rumour(OTHERS[1].key(SCHEMA), 1, State.LEFT, 0.0)
    assert one.request("dh_push", [0, 0, [[0, 0.0, told], mine]], THERE) == []
    assert one.core.counters["rumours_elsewhere"] == 1
    assert one.core.counters["malformed"] == 0
    assert one.believes(OTHERS[1].key(SCHEMA)) is State.LEFT, "the rest is taken"
