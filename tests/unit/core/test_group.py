"""One member's view of its group: whose copy wins, who is gone, where the prefix ends."""

import random

import msgspec
import pytest

from dhtos.core import group as module
from dhtos.core.group import (
    BIN_COUNT_MAX,
    Group,
    State,
    bin_count,
    differing_bins,
    version_hash,
)
from dhtos.core.ids import ID_BITS, Prefix
from dhtos.core.limits import GROUP_SIZE_MAX, NODE_TTL_S
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import Record, make_record, row_id

OWN = bytes(20)


def key(bits: str, tail: int = 1) -> bytes:
    """A key that begins with `bits`; `tail` tells two such keys apart."""
    value = int(bits or "0", 2) << (ID_BITS - len(bits)) | tail
    return value.to_bytes(20)


def record(seq: int = 1, *, rev: int | None = None, load: float = 0.5) -> Record:
    """A version of one machine."""
    return make_record(
        MACHINE_SCHEMA,
        {"cores": 4, "load1": load},
        {},
        node_id=bytes(20),
        endpoint=("10.0.0.1", 7400),
        seq=seq,
        rev=rev,
    )


def group_of(*keys: bytes, own: bytes = OWN, size: int = 8) -> Group:
    """A group at depth 0 that holds version 1 of each key, and of the own one."""
    group = Group(own, size)
    for one in (own, *keys):
        assert group.put(one, record(), 0.0, 0.0)
    group.check()
    return group


# --- versions -------------------------------------------------------------------------------------


def test_the_first_copy_is_news_and_the_same_again_is_not() -> None:
    group = Group(OWN, 8)
    assert group.put(OWN, record(), 0.0, 0.0)
    assert not group.put(OWN, record(), 5.0, 5.0)
    assert len(group) == 1
    assert group.members[OWN].born == 0.0
    group.check()


def test_a_higher_seq_wins_and_an_older_one_never_comes_back() -> None:
    group = group_of(key("1"))
    assert group.put(key("1"), record(3), 2.0, 2.0)
    assert not group.put(key("1"), record(2), 9.0, 9.0)
    member = group.members[key("1")]
    assert (member.record.seq, member.born) == (3, 2.0)
    group.check()


def test_at_equal_seq_all_members_keep_the_same_copy() -> None:
    one, other = record(2, load=1.0), record(2, load=2.0)
    kept = []
    for first, second in ((one, other), (other, one)):
        group = group_of(key("1"))
        news = [group.put(key("1"), copy, 0.0, 0.0) for copy in (first, second, first, second)]
        assert news[0]
        assert news[2:] == [False, False]
        kept.append(group.members[key("1")].record)
        group.check()
    assert kept[0] == kept[1]


def test_only_a_change_of_the_static_part_counts_as_a_new_version_of_the_group() -> None:
    group = group_of(key("1"))
    before = group.version
    group.put(key("1"), record(2, rev=1), 0.0, 0.0)
    assert group.version == before
    group.put(key("1"), record(3, rev=3), 0.0, 0.0)
    assert group.version == before + 1


def test_what_is_older_than_a_record_may_get_is_refused() -> None:
    group = group_of()
    now = 1000.0
    assert not group.put(key("1"), record(), now - NODE_TTL_S - 0.1, now)
    assert group.put(key("1"), record(), now - NODE_TTL_S, now)


def test_a_key_of_another_subtree_is_refused() -> None:
    group = group_of()
    group.narrow(3)
    assert not group.put(key("1"), record(), 0.0, 0.0)
    assert group.put(key("000"), record(), 0.0, 0.0)


def test_a_group_has_a_limit_even_before_it_splits() -> None:
    group = Group(OWN, 8)
    one = record()
    for n in range(2 * GROUP_SIZE_MAX + 1):
        assert group.put(n.to_bytes(20), one, 0.0, 0.0)
    assert not group.put(key("1"), one, 0.0, 0.0)
    assert group.put(OWN, record(2), 0.0, 0.0)  # those within go on
    assert len(group) == 2 * GROUP_SIZE_MAX + 1


def test_ages_are_relative_to_when_a_copy_came() -> None:
    """A copy that was 30 s old on arrival expires 30 s sooner than a fresh one."""
    group = group_of()
    group.put(OWN, record(2), 100.0, 100.0)
    group.put(key("1"), record(), 70.0, 100.0)
    group.put(key("01"), record(), 100.0, 100.0)
    gone = group.expire(70.0 + NODE_TTL_S + 1)
    assert [member.key for member in gone] == [key("1")]
    gone = group.expire(100.0 + NODE_TTL_S + 1)
    assert [member.key for member in gone] == [key("01")]
    assert list(group.members) == [OWN]  # the own record never expires
    group.check()


# --- tombstones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.DEAD, State.LEFT])
def test_a_tombstone_beats_the_version_it_buries(state: State) -> None:
    group = group_of(key("1"))
    assert group.bury(key("1"), 1, state, 1.0)
    assert key("1") not in group.members
    assert not group.put(key("1"), record(1), 1.0, 1.0)
    group.check()
    assert group.put(key("1"), record(2), 1.0, 1.0)
    assert key("1") not in group.tombstones
    group.check()


def test_a_tombstone_keeps_what_shows_it_to_others() -> None:
    group = group_of(key("1"), key("01"))
    group.bury(key("1"), 1, State.LEFT, 1.0, proof=b"by itself")
    group.bury(key("01"), 1, State.DEAD, 1.0)
    assert group.tombstones[key("1")].proof == b"by itself"
    assert group.tombstones[key("01")].proof == b""


def test_a_newer_version_than_the_buried_one_lives() -> None:
    group = group_of(key("1"))
    group.put(key("1"), record(5), 0.0, 0.0)
    assert not group.bury(key("1"), 4, State.DEAD, 1.0)
    assert group.bury(key("1"), 5, State.DEAD, 1.0)
    group.check()


def test_of_two_tombstones_the_higher_version_then_the_stronger_word_counts() -> None:
    group = group_of(key("1"))
    assert group.bury(key("1"), 3, State.DEAD, 1.0)
    assert not group.bury(key("1"), 2, State.LEFT, 2.0)
    assert not group.bury(key("1"), 3, State.DEAD, 2.0)
    assert group.bury(key("1"), 3, State.LEFT, 2.0)
    assert group.bury(key("1"), 4, State.DEAD, 3.0)
    tombstone = group.tombstones[key("1")]
    assert (tombstone.seq, tombstone.state, tombstone.since) == (4, State.DEAD, 3.0)


def test_the_unknown_can_be_buried_before_it_is_met_but_only_in_the_own_subtree() -> None:
    group = group_of()
    assert group.bury(key("01"), 7, State.LEFT, 0.0)
    assert not group.put(key("01"), record(7), 0.0, 0.0)
    group.narrow(2)
    assert not group.bury(key("11"), 7, State.LEFT, 0.0)
    assert group.tombstones == {}  # narrowing forgot what lies outside
    group.check()


def test_tombstones_outlive_every_copy_and_then_go() -> None:
    group = group_of(key("1"))
    group.bury(key("1"), 1, State.DEAD, 10.0)
    group.expire(10.0 + NODE_TTL_S)
    assert key("1") in group.tombstones
    group.expire(10.0 + NODE_TTL_S + 0.1)
    assert group.tombstones == {}


def test_tombstones_are_bounded_and_lose_the_oldest() -> None:
    group = group_of()
    for n in range(1, 4 * GROUP_SIZE_MAX + 3):
        group.bury(n.to_bytes(20), 1, State.DEAD, float(n))
    assert len(group.tombstones) == 4 * GROUP_SIZE_MAX
    assert (1).to_bytes(20) not in group.tombstones
    assert (3).to_bytes(20) in group.tombstones


def test_nobody_buries_itself_or_with_another_word() -> None:
    group = group_of(key("1"))
    with pytest.raises(AssertionError):
        group.bury(OWN, 9, State.DEAD, 0.0)
    with pytest.raises(AssertionError):
        group.bury(key("1"), 1, State.SUSPECT, 0.0)


# --- suspicion ------------------------------------------------------------------------------------


def test_suspicion_is_news_once_and_a_newer_version_ends_it() -> None:
    group = group_of(key("1"))
    assert group.suspect(key("1"), 1)
    assert not group.suspect(key("1"), 1)
    assert group.members[key("1")].state is State.SUSPECT
    group.check()
    assert group.put(key("1"), record(2), 1.0, 1.0)
    assert group.members[key("1")].state is State.ALIVE


def test_suspicion_of_an_older_version_or_of_a_stranger_is_nothing() -> None:
    group = group_of(key("1"))
    group.put(key("1"), record(5), 0.0, 0.0)
    assert not group.suspect(key("1"), 4)
    assert not group.suspect(key("01"), 9)
    assert group.suspect(key("1"), 6)  # whoever holds a newer copy could not reach it either


def test_the_same_version_again_does_not_clear_a_suspicion() -> None:
    group = group_of(key("1"))
    group.suspect(key("1"), 1)
    assert not group.put(key("1"), record(1), 3.0, 3.0)
    assert group.members[key("1")].state is State.SUSPECT


def test_a_suspect_can_be_buried() -> None:
    group = group_of(key("1"))
    group.suspect(key("1"), 1)
    assert group.bury(key("1"), 1, State.DEAD, 0.0)
    group.check()


def test_states_are_ordered_by_how_much_they_overrule() -> None:
    assert State.ALIVE < State.SUSPECT < State.DEAD < State.LEFT


# --- depth ----------------------------------------------------------------------------------------


def test_a_group_splits_until_it_is_small_enough_and_returns_who_fell_out() -> None:
    near = [key("00", n) for n in range(1, 4)]
    far = [key("1", n) for n in range(1, 4)] + [key("01", n) for n in range(1, 3)]
    group = group_of(*near, *far, size=8)
    before = group.version
    outside = group.narrow()
    assert {member.key for member in outside} == {k for k in far if k[0] >= 128}
    assert group.depth == 1
    assert group.version > before
    group.check()
    assert group.narrow() == []
    group.narrow(2)
    assert {*group.members} == {OWN, *near}
    group.check()


def test_a_split_goes_as_deep_as_it_must() -> None:
    group = group_of(*[key("0" * 40, n) for n in range(1, 9)], size=8)
    outside = group.narrow()
    assert group.depth == 157  # tails 0..7 share 157 bits, 8 differs one bit earlier
    assert [member.key for member in outside] == [key("", 8)]
    group.check()


def test_a_split_never_loses_the_own_record() -> None:
    rng = random.Random(5)
    keys = [rng.randbytes(20) for _ in range(200)]
    group = group_of(*keys[1:], own=keys[0], size=8)
    outside = group.narrow()
    assert keys[0] in group.members
    assert len(group) <= 8
    assert len(outside) + len(group) == 200
    assert all(not group.prefix.holds(member.key) for member in outside)
    group.check()


def test_widening_takes_in_the_sibling_subtree() -> None:
    group = group_of()
    group.narrow(5)
    before = group.version
    group.widen()
    assert group.prefix == Prefix.of(OWN, 4)
    assert group.version == before + 1
    assert group.put(key("00001"), record(), 0.0, 0.0)
    group.check()


# --- views ----------------------------------------------------------------------------------------


def test_under_gives_members_of_a_subtree_in_key_order() -> None:
    keys = [key("1", 2), key("11"), key("01"), key("1")]
    group = group_of(*keys)
    assert [m.key for m in group.under(Prefix(0, 0))] == sorted([OWN, *keys])
    assert [m.key for m in group.under(Prefix(1, 1))] == sorted(keys[:2] + keys[3:])
    assert [m.key for m in group.under(Prefix(0b10, 2))] == [key("1"), key("1", 2)]
    group.narrow(1)
    assert [m.key for m in group.under(Prefix(0, 0))] == [OWN, key("01")]  # as far as it goes
    assert list(group.under(Prefix(1, 1))) == []


def test_hash_and_bins_agree_between_members_that_hold_the_same() -> None:
    """Two members of different depth, filled in different orders, compare the narrower prefix."""
    rng = random.Random(11)
    keys = [key("1" if n % 3 else "0", rng.getrandbits(150)) for n in range(60)]
    one, other = Group(keys[0], 64), Group(keys[1], 64)
    versions = {k: record(rng.randrange(1, 9)) for k in keys}
    for k in keys:
        one.put(k, versions[k], 0.0, 0.0)
    for k in rng.sample(keys, len(keys)):
        other.put(k, record(1), 0.0, 0.0)
        other.put(k, versions[k], 3.0, 3.0)
    other.narrow(1)
    assert one.hash != other.hash
    shared = other.prefix
    assert one.view_hash(shared) == other.view_hash(shared) == other.hash
    assert one.bins(shared, 64) == other.bins(shared, 64)
    assert differing_bins(one.bins(shared, 64), other.bins(shared, 64)) == set()


def test_one_differing_version_shows_in_its_bin_alone() -> None:
    keys = [key("1", n) for n in range(1, 40)]
    one, other = group_of(*keys, size=64), group_of(*keys, size=64)
    other.put(keys[7], record(2), 0.0, 0.0)
    whole = Prefix(0, 0)
    assert one.hash != other.hash
    differing = differing_bins(one.bins(whole, 64), other.bins(whole, 64))
    assert differing == {8}
    assert [m.key for m in one.in_bins(whole, 64, differing)] == [keys[7]]
    other.bury(keys[7], 2, State.LEFT, 0.0)
    assert differing_bins(one.bins(whole, 64), other.bins(whole, 64)) == {8}


def test_a_view_hash_follows_every_change_and_comes_back() -> None:
    group = group_of(key("1"), key("11"))
    before = group.hash
    group.bury(key("11"), 1, State.DEAD, 0.0)
    assert group.hash != before
    assert group.view_hash(Prefix(0, 0)) == group.hash
    group.put(key("11"), record(2), 0.0, 0.0)
    assert group.hash != before  # another version of it
    assert version_hash(key("1"), 1) != version_hash(key("1"), 2)
    assert version_hash(key("1"), 1) != version_hash(key("1", 2), 1)


@pytest.mark.parametrize(
    ("members", "bins"),
    [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (256, 256), (257, 512), (10**6, 1024)],
)
def test_bins_are_a_power_of_two(members: int, bins: int) -> None:
    assert bin_count(members) == bins <= BIN_COUNT_MAX


def test_only_vectors_of_one_length_are_compared() -> None:
    with pytest.raises(AssertionError):
        differing_bins(bytes(4), bytes(8))


# --- the checker ----------------------------------------------------------------------------------


def test_check_sees_a_wrong_hash() -> None:
    group = group_of(key("1"))
    group.hash ^= 1
    with pytest.raises(AssertionError):
        group.check()


def test_check_sees_a_member_that_is_buried() -> None:
    group = group_of(key("1"))
    other = group_of(key("1"))
    other.bury(key("1"), 1, State.DEAD, 0.0)
    group.tombstones = other.tombstones
    with pytest.raises(AssertionError):
        group.check()


# --- foreign records ------------------------------------------------------------------------------


def row(name: str, *, gateway: int = 1, seq: int = 1) -> Record:
    """A machine without a node, of some gateway."""
    identity = bytes([gateway]) * 32
    return make_record(
        MACHINE_SCHEMA,
        {"cores": 4},
        {},
        node_id=row_id(identity, name),
        endpoint=(f"10.0.9.{gateway}", 7400),
        seq=seq,
        identity=identity,
        row=name,
    )


def crowded(nodes: int, rows: int, *, size: int = 32, beyond: int = 0, tail: int = 0) -> Group:
    """A group at depth 0; `beyond` of the nodes, and half of the rows, are in the other half."""
    group = Group(OWN, size)
    group.put(OWN, record(), 0.0, 0.0)
    for n in range(1, nodes):
        group.put(key("1" if n <= beyond else "0", n + 1), record(), 0.0, 0.0)
    for n in range(rows):
        group.put(key("1" if n % 2 else "0", 1000 + tail + n), row(f"vm-{n}"), 0.0, 0.0)
    group.check()
    return group


def test_foreign_records_are_members_that_do_not_serve() -> None:
    group = crowded(3, 4)
    assert (len(group), group.serving) == (7, 3)
    assert len(group.nodes()) == 2
    assert all(member.serves for member in group.nodes())
    assert group.hash == group.view_hash(Prefix(0, 0))


def test_a_group_crowded_by_rows_splits_while_both_halves_keep_enough_nodes() -> None:
    group = crowded(16, 30, beyond=8)
    outside = group.narrow()
    assert group.depth == 1
    assert group.serving == 8
    assert sum(member.serves for member in outside) == 8
    assert sum(not member.serves for member in outside) == 15
    group.check()


@pytest.mark.parametrize(
    ("nodes", "beyond"), [(15, 7), (16, 7), (16, 9), (16, 0), (3, 1), (31, 30)]
)
def test_rows_alone_never_split_a_group_into_one_without_nodes(nodes: int, beyond: int) -> None:
    group = crowded(nodes, 200, beyond=beyond)
    assert group.narrow() == []
    assert group.depth == 0
    group.check()


def test_above_its_size_in_nodes_a_group_splits_in_any_case() -> None:
    group = crowded(33, 10)
    outside = group.narrow()
    assert group.depth >= 1
    assert outside
    assert not any(member.serves for member in outside[:5])


def test_without_rows_the_size_alone_decides() -> None:
    assert not crowded(32, 0).is_crowded(32)
    assert crowded(33, 0).is_crowded(32)
    assert crowded(17, 0).is_crowded(16)


def test_nobody_suspects_a_machine_that_cannot_answer() -> None:
    group = crowded(2, 1)
    (foreign,) = [member for member in group.members.values() if not member.serves]
    assert not group.suspect(foreign.key, 99)
    group.check()


def test_a_gateway_has_a_bounded_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOREIGN_PER_GATEWAY_MAX", 3)
    monkeypatch.setattr(module, "FOREIGN_PER_GROUP_MAX", 5)
    group = Group(OWN, 8)
    taken = [group.put(key("1", n + 1), row(str(n)), 0.0, 0.0) for n in range(4)]
    assert taken == [True, True, True, False]
    taken = [group.put(key("0", n + 1), row(str(n), gateway=2), 0.0, 0.0) for n in range(3)]
    assert taken == [True, True, False]
    assert group.put(key("1", 1), row("0", seq=2), 1.0, 1.0), "what is held may be renewed"
    assert group.bury(key("1", 1), 9, State.LEFT, 1.0)
    assert group.put(key("1", 4), row("3"), 1.0, 1.0)
    group.check()


def test_a_row_becomes_a_seat_and_a_row_again() -> None:
    group = Group(OWN, 8)
    group.put(OWN, record(), 0.0, 0.0)
    plain = row("vm")
    seated = msgspec.structs.replace(plain, seq=2, rev=2, serves=True)
    again = msgspec.structs.replace(plain, seq=3, rev=3)
    serving = []
    for version in (plain, seated, again):
        assert group.put(key("1"), version, 0.0, 0.0)
        group.check()
        serving.append(group.serving)
    assert serving == [1, 2, 1]


def test_following_a_deeper_member_passes_over_halves_where_nobody_serves() -> None:
    group = Group(OWN, 8)
    group.put(OWN, record(), 0.0, 0.0)
    group.put(key("0001"), record(), 0.0, 0.0)
    assert group.next_fork(9) == 1, "without foreign records one bit at a time"
    group.put(key("01"), row("a"), 0.0, 0.0)
    assert group.next_fork(9) == 4
    assert group.next_fork(3) == 3
    outside = group.narrow(group.next_fork(9))
    assert [member.serves for member in outside] == [False, True]
    group.check()


def test_we_never_doubt_ourselves():
    group = Group(OWN, 8)
    group.put(OWN, record(), 0.0, 0.0)
    assert not group.suspect(OWN, 1)
    assert group.members[OWN].state is State.ALIVE


def test_a_group_never_gets_wider_than_it_may() -> None:
    group = Group(OWN, 8, 2)
    assert (group.prefix, group.depth) == (Prefix.of(OWN, 2), 2)
    group.put(OWN, record(), 0.0, 0.0)
    assert not group.put(key("01"), record(), 0.0, 0.0), "another version"
    assert group.put(key("001"), record(), 0.0, 0.0)
    group.narrow(3)
    group.widen()
    with pytest.raises(AssertionError):
        group.widen()
    group.check()
