"""The tally: what was covered, and how many matches several voices know of together."""

from dhtos.core.ids import Prefix
from dhtos.protocol.aggregate import Partial
from dhtos.protocol.tally import Tally

LOW, HIGH = Prefix(0, 1), Prefix(1, 1)


def key(first: int) -> bytes:
    return bytes([first]) + bytes(19)


def test_a_prefix_is_held_by_any_prefix_above_it() -> None:
    tally = Tally(2)
    tally.add(1, HIGH, 3)
    assert tally.holds(1, HIGH)
    assert tally.holds(1, HIGH.child(0).child(1))
    assert not tally.holds(1, LOW)
    assert not tally.holds(1, Prefix(0, 0))
    assert not tally.holds(2, HIGH)


def test_one_voice_is_believed_and_a_repeated_answer_counts_once() -> None:
    tally = Tally(1)
    tally.add(1, LOW, 3)
    tally.add(1, HIGH, 4)
    tally.add(1, HIGH, 2)
    assert tally.total([]) == 7
    assert tally.total([key(1)] * 9) == 7


def test_a_subtree_has_as_many_as_the_voice_that_knows_of_most() -> None:
    tally = Tally(3)
    for voice, matches in enumerate((5, 7, 6), 1):
        tally.add(voice, LOW, matches)
    tally.add(1, HIGH, 2)
    assert tally.total([]) == 9


def test_a_voice_that_covers_less_is_compared_part_by_part() -> None:
    tally = Tally(2)
    tally.add(1, HIGH, 5)
    tally.add(2, HIGH.child(0), 4)
    assert tally.total([]) == 5
    tally.add(2, HIGH.child(1), 3)
    assert tally.total([]) == 7


def test_what_came_from_all_voices_counts_where_each_missed_another() -> None:
    tally = Tally(2)
    for voice in (1, 2):
        tally.add(voice, LOW, 2)
        tally.add(voice, HIGH, 1)
    assert tally.total([key(1), key(2), key(3), key(200)]) == 4


# --- subtrees inside others -----------------------------------------------------------------------


def test_a_subtree_inside_another_is_not_counted_again() -> None:
    tally = Tally(1)
    tally.add(1, HIGH.child(0), 5)
    tally.add(1, HIGH, 8)
    tally.add(1, HIGH.child(1).child(1), 2)
    tally.add(1, LOW, 1)
    assert tally.total([]) == 9


def test_a_voice_below_another_that_overlaps_itself_counts_once() -> None:
    tally = Tally(2)
    tally.add(1, HIGH, 4)
    tally.add(2, HIGH.child(0), 3)
    tally.add(2, HIGH.child(0).child(0), 3)
    assert tally.total([]) == 4


# --- aggregates -----------------------------------------------------------------------------------


def partial(value: int) -> Partial:
    return Partial(value, value, value, (1,))


def test_partials_follow_the_counts() -> None:
    tally = Tally(1)
    tally.add(1, HIGH.child(0), 5, partial(1))
    tally.add(1, LOW, 1, partial(2))
    tally.add(1, LOW, 3, partial(3))
    tally.add(1, LOW, 2, partial(4))
    tally.add(1, HIGH, 8, partial(5))
    assert tally.partials() == [partial(3), partial(5)]


def test_of_two_voices_the_one_counts_that_knows_of_most() -> None:
    tally = Tally(2)
    tally.add(1, LOW, 5, partial(1))
    tally.add(2, LOW, 6, partial(2))
    tally.add(1, HIGH, 5, partial(3))
    tally.add(2, HIGH.child(0), 2, partial(4))
    tally.add(2, HIGH.child(1), 3, partial(5))
    assert tally.partials() == [partial(2), partial(3)]
    tally.add(2, HIGH.child(1), 4, partial(6))
    assert tally.partials() == [partial(2), partial(4), partial(6)]
