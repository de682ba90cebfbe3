"""Repair: version vectors find what differs, whole records and changes bring it over."""

from typing import Any

import pytest
from hub_world import GIB, SCHEMA, Lone, Mates, machine

from dhtos.core.contact import Contact
from dhtos.core.group import State, bin_count, differing_bins
from dhtos.core.ids import Prefix
from dhtos.core.limits import REPLY_BYTES_MAX
from dhtos.core.record import Record
from dhtos.protocol.hubwire import record_rumour
from dhtos.protocol.wire import encode_request

OWN = machine(1, cores=4, mem=GIB)
OTHERS = [machine(n, cores=4, mem=n * GIB) for n in range(2, 8)]
EXTRA = [machine(n, cores=4, mem=n * GIB) for n in range(100, 140)]
ROOT = Prefix(SCHEMA.version, 2)


def later(record: Record, seq: int = 9) -> Record:
    return record.updated(seq, record.dynamic, None)


def member() -> Lone:
    return Lone(OWN, size=64).settle(OTHERS)


def pair(**options: Any) -> tuple[Mates, Lone, Lone]:
    """Two members that agree on everything and say nothing of their own accord."""
    mates = Mates(2, **options)
    return mates, *mates.all


def give(one: Lone, record: Record) -> None:
    """Let it hold a version, as if it had heard of it long ago."""
    assert one.hub.group.put(record.key(SCHEMA), record, one.now, one.now)


def seq_of(one: Lone, record: Record) -> int:
    return one.hub.group.members[record.key(SCHEMA)].record.seq


# --- two members that differ ----------------------------------------------------------------------


def test_two_that_agree_compare_nothing() -> None:
    mates, *_ = pair()
    mates.wait(15.0)
    assert mates.sent("dh_gossip")
    assert {asked.name for _, asked in mates.carried} == {"dh_gossip"}


def repair(mates: Mates, one: Lone, two: Lone) -> None:
    """`one` learns how its view differs from that of `two`, and both put it right."""
    found = two.hub.gossip.repair.vector(one.hub.group.prefix, one.hub.group.hash)
    if found:
        one.hub.gossip.repair.compare(two.own.endpoint, *found, one.now)
    mates.carry()


def test_what_only_one_holds_goes_to_the_other_both_ways() -> None:
    mates, one, two = pair()
    give(one, EXTRA[0])
    give(two, EXTRA[1])
    repair(mates, one, two)
    assert one.hub.group.hash == two.hub.group.hash
    assert len(one.hub.group) == 4
    assert [asked.name for _, asked in mates.carried] == ["dh_sync", "dh_push"]


def test_where_nothing_is_wanted_nothing_is_pushed() -> None:
    mates, one, two = pair()
    give(two, EXTRA[0])
    repair(mates, one, two)
    assert [asked.name for _, asked in mates.carried] == ["dh_sync"]


def test_of_what_both_hold_only_the_change_is_sent() -> None:
    mates, one, two = pair()
    for record in EXTRA[:2]:
        give(one, record)
        give(two, record)
    give(one, later(EXTRA[0]))
    give(two, later(EXTRA[1]))
    give(one, EXTRA[2])  # and this one it lacks
    repair(mates, one, two)
    assert seq_of(one, EXTRA[1]) == seq_of(two, EXTRA[0]) == 9
    assert seq_of(two, EXTRA[2]) == 1
    (push,) = mates.sent("dh_push", one)
    told = {words[0]: words[2] for words in push.args[2]}
    assert told[0][0] == EXTRA[2].node_id, "in full what was unknown"
    assert told[1] == EXTRA[0].key(SCHEMA), "the change of what was not"


def test_an_end_that_the_other_missed_is_told() -> None:
    for turned in (False, True):
        mates, one, two = pair()
        key = EXTRA[0].key(SCHEMA)
        give(one, EXTRA[0])
        give(two, EXTRA[0])
        one.hub.group.bury(key, 1, State.LEFT, one.now)
        repair(mates, *((two, one) if turned else (one, two)))
        if turned:
            assert mates.states(key) == [State.LEFT, State.LEFT]
        else:  # they tell of it, hear that it is news from the grave, and the rumour goes back
            mates.wait(2.5)
            assert mates.states(key) == [State.LEFT, State.LEFT]


def test_what_does_not_fit_in_a_datagram_takes_several_repairs() -> None:
    mates, one, two = pair()
    for record in EXTRA:
        give(two, record)
    repair(mates, one, two)
    assert one.hub.gossip.repair.unfinished, "the next tick goes on at once"
    held = [len(one.hub.group)]
    while one.hub.gossip.repair.unfinished:
        repair(mates, one, two)
        held.append(len(one.hub.group))
        assert held[-1] > held[-2]
    assert one.hub.group.hash == two.hub.group.hash
    assert len(held) > 5


def test_members_of_different_depth_compare_what_both_hold() -> None:
    mates, one, two = pair()
    far = [machine(n, cores=512, mem=n * GIB) for n in range(200, 204)]
    for record in [*EXTRA[:4], *far]:
        give(one, record)
    two.hub.enter(3, [], two.now)  # two bits of schema version, then the most of cores
    shared = two.hub.group.prefix
    inside = {k for k in one.hub.group.members if shared.holds(k)}
    assert len(inside) == 6
    theirs = two.hub.gossip.repair.vector(one.hub.group.prefix, one.hub.group.hash)
    assert theirs[0] == shared.to_wire()
    repair(mates, one, two)
    assert set(two.hub.group.members) == inside
    before = len(mates.carried)
    repair(mates, two, one)
    assert len(mates.carried) == before, "over what both hold they agree"


# --- one side alone -------------------------------------------------------------------------------


def test_a_vector_is_sent_only_where_views_of_shared_space_differ() -> None:
    one = member()
    repair, group = one.hub.gossip.repair, one.hub.group
    assert repair.vector(ROOT, group.hash) == []
    assert repair.vector(ROOT, group.hash ^ 1) == [ROOT.to_wire(), group.bins(ROOT, 8)]
    one.hub.enter(6, [], one.now)
    elsewhere = Prefix.of(one.hub.key, 3).sibling()
    assert repair.vector(elsewhere, 1) == []


def test_a_sync_tells_what_is_newer_and_asks_for_the_rest() -> None:
    one = member()
    known, older, newer = OTHERS[0], OTHERS[1], OTHERS[2]
    give(one, later(older, 5))
    buried = OTHERS[3].key(SCHEMA)
    one.hub.group.bury(buried, 3, State.DEAD, one.now)
    theirs = [
        [OWN.key(SCHEMA), 1],
        [known.key(SCHEMA), 1],
        [older.key(SCHEMA), 4],
        [newer.key(SCHEMA), 7],
        [buried, 2],
        [EXTRA[0].key(SCHEMA), 1],
    ]
    bins = list(range(8))
    ((news, wants, more, whole),) = one.request("dh_sync", [0, ROOT.to_wire(), 8, bins, theirs])
    told = {words[0]: words for words in news}
    assert told[1][2:5] == [older.key(SCHEMA), 1, 5]  # they hold an older version: the change
    assert told[2][2:4] == [buried, 3]
    assert sorted(w[2][0] for w in news if w[0] == 0) == sorted(r.node_id for r in OTHERS[4:])
    assert wants == [EXTRA[0].key(SCHEMA), newer.key(SCHEMA)]
    assert (more, whole) == (0, 1)


def test_an_answer_stays_within_a_datagram() -> None:
    one = member()
    for record in EXTRA:
        give(one, record)
    one.engine.receive(
        _request("dh_sync", [0, ROOT.to_wire(), 1, [0], []]), OTHERS[0].endpoint, one.now
    )
    ((reply, size, _),) = one.replies()
    assert size <= REPLY_BYTES_MAX
    assert reply.value[2] == 1, "and says that there is more"


def test_whole_records_are_handed_out_on_request() -> None:
    one = member()
    wanted = [record.key(SCHEMA) for record in OTHERS[:2]] + [EXTRA[0].key(SCHEMA)]
    (told,) = one.request("dh_fetch", [0, wanted])
    assert [words[2][0] for words in told] == [record.node_id for record in OTHERS[:2]]


def test_who_should_be_a_member_is_asked_for_its_record() -> None:
    one = member()
    contact = Contact(EXTRA[0].key(SCHEMA), EXTRA[0].endpoint)
    one.hub.gossip.repair.introduce(contact, one.now)
    (fetch,) = one.sent()
    assert (fetch.name, fetch.endpoint, fetch.args) == (
        "dh_fetch",
        EXTRA[0].endpoint,
        [0, [contact.id]],
    )
    one.reply(fetch, [record_rumour(EXTRA[0], 1.0)])
    assert one.believes(contact.id) is State.ALIVE


@pytest.mark.parametrize(("state", "pushes"), [(State.DEAD, 1), (State.LEFT, 0)])
def test_the_dead_who_are_named_again_are_told_so(state: State, pushes: int) -> None:
    one = member()
    gone = Contact(OTHERS[0].key(SCHEMA), OTHERS[0].endpoint)
    one.hub.group.bury(gone.id, 1, state, one.now)
    one.hub.gossip.repair.introduce(gone, one.now)
    sent = one.sent()
    assert [asked.name for asked in sent] == ["dh_push"] * pushes
    if sent:
        assert sent[0].endpoint == gone.endpoint
        assert [words[0] for words in sent[0].args[2]] == [2, 0], "its end, and who says so"


def test_members_and_strangers_are_not_introduced() -> None:
    one = member()
    one.hub.enter(6, [], one.now)
    outside = (int.from_bytes(one.hub.key) ^ 1 << 159).to_bytes(20)
    one.hub.gossip.repair.introduce(Contact(outside, ("10.5.5.5", 5)), one.now)
    inside = next(k for k in one.hub.group.members if k != one.hub.key)
    one.hub.gossip.repair.introduce(Contact(inside, ("10.5.5.5", 5)), one.now)
    assert one.sent() == []


# --- refusals -------------------------------------------------------------------------------------

GOOD = [0, ROOT.to_wire(), 8, [0, 1], []]


def _request(name: str, args: list[Any]) -> bytes:
    return encode_request(b"m" * 20, name, args)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (1, 5),
        (1, [200, b""]),
        (2, 0),
        (2, 4096),
        (3, 7),
        (3, [8]),
        (3, [-1]),
        (4, [[b"short", 1]]),
        (4, [[bytes(20)]]),
        (4, [[bytes(20), -1]]),
        (4, [5]),
        (4, [[bytes(20), 1]] * 257),
    ],
)
def test_a_malformed_sync_is_counted(place: int, value: object) -> None:
    one = member()
    args = [*GOOD[:place], value, *GOOD[place + 1 :]]
    assert one.request("dh_sync", args) == []
    assert one.engine.counters["malformed"] == 1


def test_other_hubs_and_odd_counts_of_bins_are_not_answered() -> None:
    one = member()
    assert one.request("dh_sync", [1, *GOOD[1:]]) == []
    assert one.request("dh_sync", [0, ROOT.to_wire(), 6, [0], []]) == []
    assert one.request("dh_fetch", [1, []]) == []


def test_after_a_split_nothing_is_compared_beyond_the_own_prefix() -> None:
    one = member()
    one.hub.enter(6, [], one.now)
    assert one.request("dh_sync", GOOD) == [[[], [], 0, 0]]
    one.hub.gossip.repair.compare(OTHERS[0].endpoint, ROOT.to_wire(), bytes(16), one.now)
    assert one.sent() == []


@pytest.mark.parametrize(
    ("shared", "vector"),
    [(5, bytes(16)), (ROOT.to_wire(), 5), (ROOT.to_wire(), b""), (ROOT.to_wire(), bytes(6)),
     (ROOT.to_wire(), bytes(15)), (ROOT.to_wire(), bytes(4096))],
)  # fmt: skip
def test_a_malformed_vector_is_counted(shared: object, vector: object) -> None:
    one = member()
    (asked,) = one.until_sent("dh_gossip")
    sender = next(r for r in OTHERS if r.endpoint == asked.endpoint)
    one.reply(asked, [sender.key(SCHEMA), 0, 0, bytes(4), None, [], shared, vector])
    assert one.engine.counters["malformed"] == 1
    assert not any(a.name == "dh_sync" for a in one.sent())


@pytest.mark.parametrize(
    "value",
    [None, [], [[], [], 0], [[], [b"short"], 0, 0], [[5], [], 0, 0], [[], [], 0, -1],
     [[], [bytes(20)] * 65, 0, 0]],
)  # fmt: skip
def test_a_malformed_answer_to_a_sync_is_counted(value: object) -> None:
    one = member()
    count = bin_count(len(one.hub.group))
    vector = bytes(2 * count)
    assert differing_bins(one.hub.group.bins(ROOT, count), vector)
    one.hub.gossip.repair.compare(OTHERS[0].endpoint, ROOT.to_wire(), vector, one.now)
    (sync,) = one.sent("dh_sync")
    one.reply(sync, value)
    assert one.engine.counters["malformed"] == 1


def test_silence_ends_a_repair_and_the_next_tick_goes_on() -> None:
    one = member()
    one.hub.gossip.repair.compare(OTHERS[0].endpoint, ROOT.to_wire(), bytes(16), one.now)
    one.wait(3.0)
    assert one.until_sent("dh_gossip")
