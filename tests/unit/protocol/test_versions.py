"""What a member answers when it is asked in the words of another schema."""

from dataclasses import replace
from typing import Any

import pytest
from hub_world import ALL, GIB, SCHEMA, Lone, bundled, machine, unbundled

from dhtos.core.contact import Contact
from dhtos.core.curve import version_of, version_prefix
from dhtos.core.ids import Prefix
from dhtos.core.limits import CONFLICTS_MAX, NODE_TTL_S
from dhtos.core.scale import Linear
from dhtos.core.schema import Attribute, Schema
from dhtos.core.summary import Summary
from dhtos.errors import MalformedMessage, SchemaConflict
from dhtos.protocol.versions import conflict_text, read_conflict

OWN = machine(1, cores=4, mem=GIB)
MATES = [machine(n, cores=4, mem=n * GIB) for n in range(2, 6)]
WHOLE = Prefix(0, 0)
NEXT = Schema(
    "machine", 1, (Attribute("wide", "number", "static", Linear(0, 9), "", 4),), ("wide",)
)
CHANGED = replace(NEXT, version=0)
ASKER = ("10.9.9.9", 9)


def key_at(version: int, tail: int = 1) -> bytes:
    """A key of that version."""
    return (version << 158 | tail).to_bytes(20)


def stranger(version: int, number: int = 1) -> Contact:
    return Contact(key_at(version, number), (f"10.2.{version}.{number}", 7400))


def member(*strangers: Contact) -> Lone:
    """A settled node of version 0 that has met some nodes of other versions."""
    one = Lone(OWN, size=16).settle(MATES)
    for contact in strangers:
        one.hub.met(contact, one.now, one.now)
    return one


def ask(one: Lone, prefix: Prefix, padding: bytes, predicate: bytes = b"\x91\x90") -> Any:
    """Its answer to a range question: header, items, hits, or what it says instead."""
    args = [0, b"", prefix.to_wire(), predicate, 0, None, 0, None, padding]
    parts = one.request("dh_range", args, ASKER)
    return unbundled(parts) if parts else None


def items_of(answer: Any) -> dict[Prefix, list[bytes]]:
    """Which subtrees an answer names, with the keys of their contacts."""
    return {Prefix.from_wire(item[0]): [c[0] for c in item[4]] for item in answer[1]}


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [b"", bytes(1000), SCHEMA.mark, SCHEMA.mark + bytes(1000)])
def test_a_question_in_our_words_is_answered(padding: bytes) -> None:
    header, _, hits = ask(member(), WHOLE, padding)
    assert header[3] == [version_prefix(0).to_wire()]
    assert len(hits) == 5


def test_a_subtree_of_another_version_is_named_to_who_asks_for_everything() -> None:
    there = [stranger(1), stranger(2), stranger(3)]
    one = member(*there)
    answer = ask(one, WHOLE, SCHEMA.mark)
    assert items_of(answer) == {Prefix(0b01, 2): [there[0].id], Prefix(1, 1): [
        there[1].id, there[2].id,
    ]}  # fmt: skip
    counts = {Prefix.from_wire(item[0]): item[1:4] for item in answer[1]}
    assert counts[Prefix(1, 1)] == [2, 2.0, None]
    assert ask(one, version_prefix(0), SCHEMA.mark)[1] == [], "but not beside its own version"


def test_of_another_version_only_contacts_are_told() -> None:
    one = member(stranger(1), stranger(1, 2))
    for prefix in (WHOLE, version_prefix(1), Prefix.of(key_at(1, 2), 160)):
        header, _, hits = answer = ask(one, prefix, NEXT.mark, predicate=b"not for us")
        assert (header[0], header[3], hits) == (one.hub.key, [], [])
        (told,) = items_of(answer).values()
        assert set(told) <= {key_at(1), key_at(1, 2)}
        assert told
    assert items_of(answer)[prefix] == [key_at(1, 2)], "inside the asked prefix"
    assert one.core.counters["malformed"] == 0


def test_whoever_is_nearest_is_named_where_nobody_is_known() -> None:
    answer = ask(member(stranger(3)), version_prefix(2), replace(NEXT, version=2).mark)
    assert answer[0][3] == []
    assert items_of(answer) == {version_prefix(2): [key_at(3)]}


def test_an_empty_version_is_vouched_for_and_the_others_are_named() -> None:
    one = member(stranger(2), stranger(3))
    header, items, hits = answer = ask(one, WHOLE, NEXT.mark)
    assert (header[3], header[4], hits) == ([version_prefix(1).to_wire()], 0, [])
    told = items_of(answer)
    assert set(told) == {version_prefix(0), Prefix(1, 1)}
    assert told[version_prefix(0)][0] == one.hub.key
    assert set(told[version_prefix(0)]) <= {r.key(SCHEMA) for r in [OWN, *MATES]}
    assert len(told[version_prefix(0)]) == 4
    assert items[0][1] == 5, "so many are we"


def test_a_part_of_an_empty_version_is_not_vouched_for() -> None:
    for prefix in (version_prefix(1), Prefix.of(key_at(1), 160)):
        header, items, hits = ask(member(), prefix, NEXT.mark)
        assert (header[3], items, hits) == ([], [], [])


def test_the_count_of_our_version_takes_in_the_other_groups() -> None:
    one = member()
    far = machine(50, cores=512, mem=GIB)
    one.hub.enter(8, [], one.now)
    one.hub.met(Contact(far.key(SCHEMA), far.endpoint), one.now, one.now)
    index = one.hub.buckets.index_of(far.key(SCHEMA))
    one.hub.buckets.summarise(index, Summary.of(SCHEMA, [far] * 7), one.now, SCHEMA)
    items = ask(one, WHOLE, NEXT.mark)[1]
    assert items[0][1] == len(one.hub.group) + 7


def test_words_of_one_version_about_another_are_strange() -> None:
    one = member()
    assert ask(one, version_prefix(0), NEXT.mark) is None
    assert ask(one, WHOLE, b"\x04" + NEXT.mark[1:]) is None
    assert ask(one, WHOLE, [1]) is None  # type: ignore[arg-type]  # what a peer may send
    assert one.core.counters["malformed"] == 3


# --- conflicts ------------------------------------------------------------------------------------


def test_other_words_under_our_version_are_a_conflict() -> None:
    one = member()
    for prefix in (WHOLE, version_prefix(0), Prefix.of(OWN.key(SCHEMA), 160)):
        assert ask(one, prefix, CHANGED.mark, predicate=b"?") == [None, [], [], SCHEMA.tag]
    assert one.core.counters["schema_conflicts"] == 3
    assert one.core.counters["malformed"] == 0
    assert one.hub.versions.warnings == [conflict_text(SCHEMA, ASKER, CHANGED.tag)]


def test_a_conflict_says_who_what_and_what_to_do() -> None:
    assert conflict_text(SCHEMA, ("fd00::1", 7400), 0xBEEF) == (
        "schema conflict: peer [fd00::1]:7400 runs another schema as version 0 (tag 0000beef), "
        f"ours is 'machine' version 0 (tag {SCHEMA.tag:08x}): "
        "give the changed schema the next version"
    )


def test_a_conflict_is_news_once_and_is_forgotten() -> None:
    one = member()
    versions = one.hub.versions
    assert (versions.conflict, versions.news(), versions.warnings) == (None, [], [])
    versions.note(("10.0.0.1", 1), 7, one.now)
    (line,) = versions.news()
    assert "10.0.0.1:1" in line
    assert versions.news() == []
    versions.note(("10.0.0.2", 2), 8, one.now)
    assert str(versions.conflict) == versions.warnings[1] == versions.news()[0]
    assert isinstance(versions.conflict, SchemaConflict)
    versions.note(("10.0.0.1", 1), 7, one.now + 1)
    assert "10.0.0.1:1" in str(versions.conflict), "the latest"
    one.wait(NODE_TTL_S - 10)
    assert len(versions.warnings) == 2
    one.wait(30.0)
    assert (versions.conflict, versions.warnings) == (None, [])


def test_only_so_many_conflicts_are_remembered() -> None:
    one = member()
    for number in range(CONFLICTS_MAX + 3):
        one.hub.versions.note(("10.0.0.1", 1 + number), number, one.now)
    assert len(one.hub.versions.warnings) == CONFLICTS_MAX
    assert one.core.counters["schema_conflicts"] == CONFLICTS_MAX + 3


def test_a_conflict_is_read_from_an_answer_and_nothing_else_is() -> None:
    assert read_conflict([None, [], [], 5]) == 5
    assert read_conflict([None, [], []]) is None
    assert read_conflict([[b"", 0], [], [], 5]) is None
    for wrong in ([None, [], [], "5"], [None, [], [], 2**32], 5):
        with pytest.raises(MalformedMessage):
            read_conflict(wrong)


def test_a_conflict_that_a_peer_answers_with_is_noted() -> None:
    one = member()
    peer = ("10.0.0.1", 1)
    assert one.hub.versions.hear(peer, [None, [], []], one.now) is None
    conflict = one.hub.versions.hear(peer, [None, [], [], 5], one.now)
    assert isinstance(conflict, SchemaConflict)
    assert one.hub.versions.warnings == [str(conflict)]


def test_a_conflict_in_many_datagrams_is_one_answer() -> None:
    (part,) = bundled([None, [], [], SCHEMA.tag])
    assert unbundled([part])[3] == SCHEMA.tag


# --- who has a place ------------------------------------------------------------------------------


def test_a_node_in_conflict_serves_nobody_until_it_has_a_place() -> None:
    one = Lone(OWN)
    one.hub.conflict = SchemaConflict("no")
    assert not one.hub.serves(0)
    with pytest.raises(SchemaConflict, match="no"):
        one.hub.check_conflict()
    one.hub.settle(one.now)
    assert one.hub.serves(0)
    one.hub.check_conflict()


def test_everything_is_asked_of_no_version_alone() -> None:
    """The question that a join asks is in our words, and every key of ours is of our version."""
    one = Lone(OWN)
    assert one.hub.match_all().bound.schema is SCHEMA
    assert version_of(one.hub.key) == SCHEMA.version
    assert ALL.bind(SCHEMA).speaks_of(one.hub.group.prefix)
