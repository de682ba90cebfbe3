"""The parallel arrays of a bucket."""

import pytest

from dhtos.core.contact import Contact
from dhtos.core.shelf import VERIFIED, Shelf, Sighting


def sighting(tail: bytes, *, seen: float = 0.0, verified: bool = True) -> Sighting:
    return Sighting(Contact(tail.rjust(20, b"\0"), ("127.0.0.1", 1)), seen, verified, None)


@pytest.fixture
def shelf() -> Shelf:
    shelf = Shelf()
    for number in range(4):
        shelf.append(sighting(bytes([number + 1]), seen=9.0 - number, verified=number != 2))
    shelf.check()
    return shelf


def test_find(shelf: Shelf) -> None:
    assert [shelf.find(contact.id) for contact in shelf.contacts] == [0, 1, 2, 3]
    assert shelf.find(b"\xff" * 20) == -1
    assert Shelf().find(bytes(20)) == -1


def test_find_is_not_fooled_by_the_bytes_of_two_neighbours() -> None:
    shelf = Shelf()
    one, two = bytes(range(20)), bytes(range(20, 40))
    shelf.append(sighting(one))
    shelf.append(sighting(two))
    astride = (one + two)[7:27]
    assert shelf.find(astride) == -1
    shelf.append(sighting(astride))
    assert shelf.find(astride) == 2
    assert shelf.find(two) == 1


def test_find_at_the_start_of_the_buffer() -> None:
    shelf = Shelf()
    shelf.append(sighting(b""))
    shelf.append(sighting(b"\x01"))
    assert shelf.find(bytes(20)) == 0


def test_pop_keeps_the_arrays_together(shelf: Shelf) -> None:
    gone = shelf.contacts[1]
    assert shelf.pop(1) is gone
    shelf.check()
    assert shelf.find(gone.id) == -1
    assert [shelf.seen[at] for at in range(3)] == [9.0, 7.0, 6.0]
    assert list(shelf.marks) == [VERIFIED, 0, VERIFIED]


def test_oldest(shelf: Shelf) -> None:
    assert shelf.oldest() == 3
    assert shelf.oldest({0, 1, 2}) == 2
    assert shelf.oldest([]) == -1
    assert Shelf().oldest() == -1


def test_an_answer_verifies(shelf: Shelf) -> None:
    assert [shelf.is_verified(at) for at in range(4)] == [True, True, False, True]
    shelf.refresh(2, 0.0)
    assert shelf.is_verified(2)
    shelf.marks[2] += 1
    assert shelf.is_verified(2)


def test_refresh_never_goes_back_and_forgives(shelf: Shelf) -> None:
    shelf.marks[0] += 1
    shelf.refresh(0, 1.0)
    assert shelf.seen[0] == 9.0
    assert shelf.marks[0] == VERIFIED
    shelf.refresh(0, 99.0)
    assert shelf.seen[0] == 99.0


def test_sighting_carries_what_append_needs(shelf: Shelf) -> None:
    other = Shelf()
    for at in range(4):
        other.append(shelf.sighting(at))
    assert other.ids == shelf.ids
    assert other.seen == shelf.seen
    assert other.marks == shelf.marks


def test_check_finds_a_mistake(shelf: Shelf) -> None:
    shelf.ids[0] ^= 1
    with pytest.raises(AssertionError):
        shelf.check()
