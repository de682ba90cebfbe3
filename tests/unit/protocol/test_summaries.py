"""What nodes tell each other about subtrees they are not in, and what they do with it."""

from typing import Any

import pytest
from hub_world import GIB, SCHEMA, Lone, contact_of, machine

from dhtos.core.contact import Contact
from dhtos.core.group import State
from dhtos.core.ids import Prefix, common_prefix_bits
from dhtos.core.limits import HUB_BUCKET_CONTACTS_MAX, VOUCHED_S
from dhtos.core.record import Record
from dhtos.core.summary import Summary
from dhtos.errors import MalformedMessage
from dhtos.protocol.wire import encode_request

OWN = machine(1, cores=4, mem=GIB)
KEY = OWN.key(SCHEMA)
NEAR = [machine(n, cores=4, mem=n * GIB) for n in range(2, 8)]
FAR = [machine(n, cores=512, mem=n * GIB) for n in range(20, 26)]
FORK = common_prefix_bits(KEY, FAR[0].key(SCHEMA))
YOUNG_S = 61.0  # from then on it asks one subtree or another at that pace
LEARNING_S = 601.0  # and from then on each at the pace of the old


def settled(others: int = 3, *, size: int = 32) -> Lone:
    """A node whose group ends below the fork with the far machines, some of which it has met."""
    one = Lone(OWN, size=size)
    one.hub.enter(FORK + 1, [], one.now)
    return one.settle(NEAR, FAR[:others])


def of(*records: Record) -> Summary:
    return Summary.of(SCHEMA, records)


def describe(one: Lone, *records: Record, index: int = FORK, age: float = 0.0) -> None:
    """Let it believe that just these live in a subtree."""
    one.hub.buckets.summarise(index, of(*records), one.now - age, SCHEMA)


def told_by(
    sender: Record,
    entries: list[Any],
    *,
    inhabited: bytes = bytes(4),
    neighbours: list[Any] | None = None,
) -> list[Any]:
    """A whole answer to dh_summary."""
    return [0, 1, sender.key(SCHEMA), FORK + 1, inhabited, entries, neighbours or []]


def take(one: Lone, sender: Record, entries: list[Any]) -> None:
    """Somebody answers it, asked or not."""
    one.hub.summaries.take(told_by(sender, entries), sender.endpoint, one.now)


def entry(index: int, *records: Record, age: float = 0.0) -> list[Any]:
    contacts = [[*contact_of(record).to_wire(), age] for record in records]
    return [index, of(*records).to_bytes(SCHEMA), age, contacts]


def ask(
    one: Lone,
    asker: Record,
    wanted: list[int] | None = None,
    held: list[list[int]] | None = None,
    *,
    proven: bool = True,
) -> list[Any]:
    """All parts of its answer."""
    cookie = one.core.cookie(asker.endpoint) if proven else b""
    args = [0, cookie, asker.key(SCHEMA), wanted or [], held or []]
    return one.request("dh_summary", args, asker.endpoint)


def exchange(one: Lone, sender: Record, inhabited: bytes) -> list[Any]:
    """A member of the group gossips: what we ask it."""
    one.engine.outbox()
    args = [0, sender.key(SCHEMA), one.hub.group.depth, 0, inhabited, None, [], 0]
    one.core.receive(_request("dh_gossip", args), sender.endpoint, one.now)
    return one.sent("dh_summary")


def _request(name: str, args: list[Any]) -> bytes:
    return encode_request(b"m" * 20, name, args)


# --- answering ------------------------------------------------------------------------------------


def test_it_tells_of_its_own_side_of_the_fork() -> None:
    one = settled()
    ((part, parts, key, depth, _, entries, _),) = ask(one, FAR[0])
    assert (part, parts, key, depth) == (0, 1, KEY, FORK + 1)
    ((index, packed, age, contacts),) = entries
    assert (index, age) == (FORK, 0.0)
    assert Summary.from_bytes(packed, SCHEMA).count == 1 + len(NEAR)
    known = {r.key(SCHEMA) for r in [OWN, *NEAR]}
    assert {c[0] for c in contacts} <= known
    assert 0 < len(contacts) <= HUB_BUCKET_CONTACTS_MAX


def test_members_are_vouched_for_whatever_the_age_of_their_version() -> None:
    one = settled()
    one.now += 100.0  # nobody was probed: no time has passed for the engine
    contacts = ask(one, FAR[0])[0][5][0][3]
    assert max(contact[3] for contact in contacts) <= VOUCHED_S


def test_whom_it_doubts_it_does_not_name() -> None:
    one = settled()
    for record in NEAR:
        one.hub.group.suspect(record.key(SCHEMA), 1)
    contacts = ask(one, FAR[0])[0][5][0][3]
    assert [contact[0] for contact in contacts] == [KEY]


def test_its_side_is_described_only_if_all_that_is_deeper_is() -> None:
    one = Lone(OWN, size=8)
    deep = machine(40, cores=4, mem=512 * GIB)
    one.hub.enter(common_prefix_bits(KEY, deep.key(SCHEMA)) + 1, [], one.now)
    one.settle([], [deep, FAR[0]])
    ((_, packed, _, contacts),) = ask(one, FAR[1])[0][5]
    assert packed is None, "of what lives there nothing is known yet"
    assert deep.key(SCHEMA) in {contact[0] for contact in contacts}
    describe(one, deep, index=one.hub.buckets.index_of(deep.key(SCHEMA)))
    ((_, packed, _, _),) = ask(one, FAR[1])[0][5]
    assert Summary.from_bytes(packed, SCHEMA).count == 2


def test_a_stranger_gets_one_entry_until_it_shows_the_cookie() -> None:
    one = settled()
    describe(one, *FAR[:3])
    asker = machine(60, cores=4, mem=GIB)  # of the own side: it wants to join
    assert len(ask(one, asker, [-1])) == 1
    other = machine(61, cores=4, mem=GIB)
    assert len(ask(one, other, [-1], proven=False)) == 1


def test_of_shared_subtrees_it_tells_those_that_are_asked_about() -> None:
    one = settled()
    describe(one, *FAR[:3])
    (answer,) = ask(one, NEAR[0], [FORK])
    ((index, packed, _, contacts),) = answer[5]
    assert (index, len(contacts)) == (FORK, 3)
    assert Summary.from_bytes(packed, SCHEMA).count == 3
    assert ask(one, NEAR[0], [FORK + 5])[0][5] == []


def test_it_tells_only_what_is_described_otherwise() -> None:
    one = settled()
    describe(one, *FAR[:3])
    stamp = one.hub.buckets.get(FORK).stamp
    assert ask(one, NEAR[0], [-2], [[FORK, stamp]])[0][5] == []
    assert [e[0] for e in ask(one, NEAR[0], [-2], [[FORK, stamp ^ 1]])[0][5]] == [FORK]
    assert [e[0] for e in ask(one, NEAR[0], [-2], [])[0][5]] == [FORK]


def test_two_newcomers_on_one_side_hear_of_each_other() -> None:
    one = settled(2)
    ((*_, neighbours),) = ask(one, FAR[0])
    assert [contact[0] for contact in neighbours] == [FAR[1].key(SCHEMA)]


def test_a_member_that_asks_and_is_not_known_is_asked_for_its_record() -> None:
    one = settled()
    newcomer = machine(50, cores=4, mem=3 * GIB)
    args = [0, b"", newcomer.key(SCHEMA), [], []]
    one.engine.outbox()
    one.core.receive(_request("dh_summary", args), newcomer.endpoint, one.now)
    (fetch,) = one.sent("dh_fetch")
    assert (fetch.endpoint, fetch.args[1]) == (newcomer.endpoint, [newcomer.key(SCHEMA)])


def test_it_answers_for_its_own_hub_and_once_it_has_a_place() -> None:
    one = settled()
    args = [0, b"", FAR[0].key(SCHEMA), [], []]
    assert one.request("dh_summary", [1, *args[1:]]) == []
    assert one.request("dh_summary", [*args[:2], KEY, *args[3:]]) == []
    assert Lone(OWN).request("dh_summary", args) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [(1, bytes(9)), (2, b"short"), (3, [0] * 9), (3, [-3]), (3, [161]), (3, 5), (4, [5]),
     (4, [[1]]), (4, [[161, 0]]), (4, [[0, 2**32]]), (4, [[0, 0]] * 65)],
)  # fmt: skip
def test_a_malformed_question_is_counted(place: int, value: object) -> None:
    one = settled()
    args: list[Any] = [0, b"", FAR[0].key(SCHEMA), [], []]
    args[place] = value
    assert one.request("dh_summary", args) == []
    assert one.engine.counters["malformed"] == 1


# --- asking ---------------------------------------------------------------------------------------


def test_a_subtree_is_asked_about_often_while_all_is_new_and_then_twice_a_minute() -> None:
    """The only one there is keeps the pace of the first minute until coordinates are learnt."""
    one = Lone(OWN, size=8)
    one.hub.enter(FORK + 1, [], one.now)
    one.settle([], FAR)  # too many for one group with it
    counts = []
    for seconds in (YOUNG_S, 60.0, LEARNING_S - YOUNG_S - 60.0, 60.0):
        asked = 0
        end = one.now + seconds
        while one.now < end:
            one.wait(0.5)
            for question in one.sent("dh_summary"):
                asked += 1
                sender = next(r for r in FAR if r.endpoint == question.endpoint)
                one.reply(question, told_by(sender, [entry(FORK, *FAR)]))
        counts.append(asked)
    young, learning, _, old = counts
    assert 8 <= young <= 16
    assert 8 <= learning <= 13
    assert 2 <= old <= 3


def test_where_there_are_many_subtrees_none_is_asked_about_more_often() -> None:
    one = settled()
    one.hub.settled_at = one.now - YOUNG_S
    many = [(index, one.hub.buckets.get(FORK)) for index in range(6)]
    one.hub.buckets.get(FORK).pulled = one.now - 6.0
    for buckets, asked in ((many, 0), (many[:1], 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(one.hub.buckets), "inhabited", lambda _, found=buckets: found)
            patch.setattr(type(one.hub.buckets), "choose", lambda *_: [contact_of(FAR[0])])
            one.hub.summaries.pull(one.now)
        assert len(one.sent("dh_summary")) == asked


def test_what_a_member_holds_for_inhabited_is_asked_about_once_in_a_while() -> None:
    one = settled(0)
    assert one.hub.buckets.inhabited() == []
    inhabited = bytes(4) + (1 << FORK).to_bytes(1 + FORK // 8)
    (question,) = exchange(one, NEAR[0], inhabited)
    assert (question.endpoint, question.args[3]) == (NEAR[0].endpoint, [FORK])
    assert exchange(one, NEAR[1], inhabited) == []
    one.reply(question, told_by(NEAR[0], [entry(FORK, *FAR[:2])]))
    assert one.hub.buckets.get(FORK).summary == Summary.from_bytes(
        of(*FAR[:2]).to_bytes(SCHEMA), SCHEMA
    )
    assert {c.id for c in one.hub.buckets.choose(FORK, one.core.rng, 9)} == {
        r.key(SCHEMA) for r in FAR[:2]
    }


def test_who_describes_a_subtree_otherwise_is_asked_with_what_is_held() -> None:
    one = settled()
    describe(one, *FAR[:3])
    stamp = one.hub.buckets.get(FORK).stamp
    same = one.hub.summaries.inhabited(one.hub.group.depth)
    assert exchange(one, NEAR[0], same) == []
    other = bytes([same[0] ^ 1]) + same[1:]
    (question,) = exchange(one, NEAR[0], other)
    assert question.args[3:] == [[-2], [[FORK, stamp]]]
    assert exchange(one, NEAR[1], other) == [], "not again within seconds"
    one.wait(3.5)
    assert [q.args[3] for q in exchange(one, NEAR[2], other)].count([-2]) == 1


def test_a_younger_description_wins_and_an_older_is_not_taken() -> None:
    one = settled()
    describe(one, *FAR[:3])
    count = one.hub.buckets.get(FORK).summary.count
    one.hub.summaries.take(
        told_by(NEAR[0], [entry(FORK, *FAR, age=5.0)]), NEAR[0].endpoint, one.now
    )
    assert one.hub.buckets.get(FORK).summary.count == count
    one.now += 1.0
    one.hub.summaries.take(
        told_by(NEAR[0], [entry(FORK, *FAR, age=0.5)]), NEAR[0].endpoint, one.now
    )
    assert one.hub.buckets.get(FORK).summary.count == len(FAR)


def test_a_first_machine_of_its_kind_is_not_lost_to_a_younger_summary_without_it() -> None:
    one = settled()
    describe(one, *FAR[:2])
    first = machine(70, cores=512, mem=2 * GIB, os="plan9")
    one.hub.summaries.met(first.key(SCHEMA), first, one.now)
    assert one.hub.buckets.get(FORK).summary.count == 2, "the count is not touched"
    held = one.hub.buckets.get(FORK).summary
    assert held.widened(of(first)) == held, "nothing about it is ruled out"
    describe(one, *FAR[:2], age=-1.0)
    held = one.hub.buckets.get(FORK).summary
    assert held.widened(of(first)).occupancy(SCHEMA) == held.occupancy(SCHEMA)


def test_the_side_of_the_teller_may_be_undescribed_and_that_is_believed() -> None:
    one = settled()
    describe(one, *FAR[:3])
    contact = contact_of(FAR[4])
    answer = told_by(FAR[4], [[FORK, None, 0.0, [[*contact.to_wire(), 0.0]]]])
    one.hub.summaries.take(answer, FAR[4].endpoint, one.now)
    bucket = one.hub.buckets.get(FORK)
    assert bucket.summary is None
    assert contact.id in bucket.contacts


def test_of_others_only_contacts_of_the_subtree_are_taken() -> None:
    one = settled(0)
    wrong = [[*contact_of(NEAR[0]).to_wire(), 0.0], [*contact_of(FAR[0]).to_wire(), 0.0]]
    answer = told_by(NEAR[1], [[FORK, None, 0.0, wrong]])
    one.hub.summaries.take(answer, NEAR[1].endpoint, one.now)
    assert set(one.hub.buckets.get(FORK).contacts) == {FAR[0].key(SCHEMA)}


def test_neighbours_that_should_be_members_are_asked_for_their_records() -> None:
    one = settled()
    lost = machine(80, cores=4, mem=2 * GIB)
    answer = told_by(FAR[0], [], neighbours=[contact_of(lost).to_wire()])
    one.hub.summaries.take(answer, FAR[0].endpoint, one.now)
    (fetch,) = one.sent("dh_fetch")
    assert fetch.endpoint == lost.endpoint


def test_a_silent_contact_is_forgotten_but_the_last_one() -> None:
    for others in (3, 1):
        one = settled(others)
        for _ in range(3):
            one.hub.buckets.get(FORK).pulled = -1e9
            one.hub.summaries.pull(one.now)
            assert one.sent("dh_summary")
            one.wait(2.5)
            one.engine.outbox()
        assert len(one.hub.buckets.get(FORK).contacts) == 1


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        told_by(FAR[0], [])[:6],
        [1, *told_by(FAR[0], [])[1:]],
        told_by(OWN, []),
        told_by(FAR[0], [], inhabited=b"123"),
        told_by(FAR[0], [], inhabited=bytes(25)),
        told_by(FAR[0], [[FORK]]),
        told_by(FAR[0], [[FORK + 1, None, 0.0, []]]),
        told_by(FAR[0], [[FORK, b"short", 0.0, []]]),
        told_by(FAR[0], [[FORK, None, float("nan"), []]]),
        told_by(FAR[0], [[FORK, None, 0.0, [[bytes(20)]]]]),
        told_by(FAR[0], [[FORK, None, 0.0, [[bytes(20), "h", 1, 0.0]] * 17]]),
        told_by(FAR[0], [], neighbours=[[bytes(20), "h", 70000]]),
    ],
)
def test_a_malformed_answer_is_counted(answer: Any) -> None:
    one = settled()
    one.hub.buckets.get(FORK).pulled = -1e9
    one.hub.summaries.pull(one.now)
    (question,) = one.sent("dh_summary")
    one.reply(question, answer)
    assert one.engine.counters["malformed"] == 1


def test_its_own_group_is_described_anew_when_it_changes() -> None:
    one = settled()
    before = Summary.from_bytes(ask(one, FAR[0])[0][5][0][1], SCHEMA)
    gone = NEAR[0].key(SCHEMA)
    one.hub.group.bury(gone, 1, State.DEAD, one.now)
    after = Summary.from_bytes(ask(one, FAR[0])[0][5][0][1], SCHEMA)
    assert after.count == before.count - 1


def test_which_subtrees_are_inhabited_is_said_in_bits() -> None:
    one = settled()
    said = one.hub.summaries.inhabited(one.hub.group.depth)
    assert int.from_bytes(said[4:]) == 1 << FORK
    assert one.hub.summaries.inhabited(FORK)[4:] == b""
    assert Prefix.of(KEY, FORK + 1).sibling().holds(FAR[0].key(SCHEMA))


# --- of other schema versions ---------------------------------------------------------------------

STRANGER = (1 << 158 | 5).to_bytes(20)
THERE = ("10.66.0.1", 7400)


def test_whoever_asks_from_another_version_is_met_and_told_a_count() -> None:
    one = settled()
    describe(one, *FAR)
    parts = one.request("dh_summary", [0, one.core.cookie(THERE), STRANGER, [-1], []], THERE)
    (entries,) = [part[5] for part in parts]
    index, summary, age, hearsay = entries[0]
    assert (index, summary, age) == (1, (1 + len(NEAR) + len(FAR)).to_bytes(4), 0.0)
    assert KEY in {told[0] for told in hearsay} | {r.key(SCHEMA) for r in [OWN]}
    bucket = one.hub.buckets.get(1)
    assert bucket is not None
    assert bucket.contacts[STRANGER].contact.endpoint == THERE


def test_of_another_version_the_count_is_taken_whatever_else_is_told() -> None:
    one = settled()
    for summary, count in (((9).to_bytes(4), 9), ((3).to_bytes(4) + b"of another schema", 3)):
        told = [0, 1, STRANGER, 2, bytes(4), [[1, summary, 0.0, [[STRANGER, *THERE, 0.0]]]], []]
        one.hub.summaries.take(told, THERE, one.now)
        bucket = one.hub.buckets.get(1)
        assert bucket is not None
        assert (bucket.summary, bucket.count, bucket.stamp) == (Summary.of_count(count), count, 0)
    assert (
        one.hub.summaries.inhabited(one.hub.group.depth)[:4]
        == (settled().hub.summaries.inhabited(FORK + 1)[:4])
    ), "it is no part of what members compare"


def test_a_count_that_is_cut_off_is_strange() -> None:
    one = settled()
    told = [0, 1, STRANGER, 2, bytes(4), [[1, b"\0", 0.0, []]], []]
    one.hub.buckets.heard(Contact(STRANGER, THERE), one.now, one.now)
    with pytest.raises(MalformedMessage):
        one.hub.summaries.take(told, THERE, one.now)


def test_members_pass_on_who_lives_in_another_version() -> None:
    one = settled()
    one.hub.met(Contact(STRANGER, THERE), one.now, one.now)
    one.hub.buckets.summarise(1, Summary.of_count(4), one.now, SCHEMA)
    entries = [e for part in ask(one, NEAR[0], [1]) for e in part[5]]
    assert entries == [[1, (4).to_bytes(4), 0.0, [[STRANGER, *THERE, 0.0]]]]


def test_nodes_of_another_version_are_greeted_by_a_question() -> None:
    one = settled()
    one.engine.outbox()
    one.hub.summaries.greet([THERE], one.now)
    (asked,) = one.sent("dh_summary")
    assert (asked.endpoint, asked.args[2:]) == (THERE, [KEY, [], []])
