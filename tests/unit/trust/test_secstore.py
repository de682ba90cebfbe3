"""Where files are kept under a passphrase, and what opens them: that passphrase alone."""

from dataclasses import replace
from random import Random

import pytest

from dhtos.core.limits import VALUE_SIGNED_BYTES_MAX
from dhtos.errors import MalformedMessage, UsageError
from dhtos.protocol.wire import encode_value
from dhtos.trust.passphrase import make_passphrase
from dhtos.trust.secstore import (
    FILES_BYTES_MAX,
    FILES_MAX,
    NAME_BYTES_MAX,
    PASSPHRASE_MIN,
    Place,
    check_passphrase,
    find_place,
    lock_files,
    unlock_files,
)

ROOT, PASSPHRASE = bytes(range(20)), "lusab-babad-gutih-tugad-nodiv"
FILES = {"id_ed25519": b"secret", "notes": bytes(range(256))}


@pytest.fixture(scope="module")
def place() -> Place:
    return find_place(PASSPHRASE, ROOT, "keys")


def test_the_same_words_find_the_same_place(place: Place) -> None:
    assert find_place(f" {PASSPHRASE}\n", ROOT, "keys") == place
    assert place.name == f"secret:{place.address.hex()}"
    others = [
        find_place(PASSPHRASE.replace("lusab", "lusad"), ROOT, "keys"),
        find_place(PASSPHRASE, bytes(20), "keys"),
        find_place(PASSPHRASE, ROOT, "Keys"),
    ]
    found = [place, *others]
    assert len({one.address for one in found}) == len({one.key for one in found}) == 4
    assert place.key.hex() not in repr(place)
    assert not any(word.encode() in place.address + place.key for word in ("keys", "lusab"))


def test_the_place_is_where_it_was_in_earlier_versions(place: Place) -> None:
    """What was put with one version is to be found with the next."""
    assert place.address.hex() == "c003371d85df05a8f903934a038dd2e33dc7b46e"
    assert place.key.hex() == "c609c9711a376190bb2cdd8c9b99a5a1a90376f7b4dc1b006167611b5285653c"


def test_files_come_out_as_they_went_in(place: Place) -> None:
    entropy = Random(1).randbytes
    value = lock_files(place, FILES, entropy)
    assert unlock_files(place, value) == FILES
    again = lock_files(place, FILES, entropy)
    assert again[:24] != value[:24]  # the same key under another nonce
    assert again[24:] != value[24:]
    assert b"secret" not in value
    assert b"id_ed25519" not in value


def test_what_was_changed_or_is_of_another_key_does_not_open(place: Place) -> None:
    value = lock_files(place, FILES, Random(2).randbytes)
    for at in (0, 23, 24, 600, len(value) - 1):
        changed = bytearray(value)
        changed[at] ^= 1
        with pytest.raises(MalformedMessage):
            unlock_files(place, bytes(changed))
    for size in (0, 1, 24, 25, 40, len(value) - 1):
        with pytest.raises(MalformedMessage):
            unlock_files(place, value[:size])
    for strange in ("text", 7, None, 1.5):
        with pytest.raises(MalformedMessage, match="another has put it there"):
            unlock_files(place, strange)
    with pytest.raises(MalformedMessage):
        unlock_files(replace(place, key=bytes(32)), value)


def test_sizes_tell_little_and_fit_into_a_value(place: Place) -> None:
    entropy = Random(3).randbytes
    sizes = {len(lock_files(place, {"f": bytes(n)}, entropy)) for n in range(0, 900, 50)}
    assert sizes == {1024 + 24}
    largest = lock_files(place, {"f": bytes(FILES_BYTES_MAX - 1)}, entropy)
    assert len(encode_value(largest)) <= VALUE_SIGNED_BYTES_MAX
    many = {f"{n:063}": bytes(FILES_BYTES_MAX // FILES_MAX - 63) for n in range(FILES_MAX)}
    assert len(encode_value(lock_files(place, many, entropy))) <= VALUE_SIGNED_BYTES_MAX


def test_what_has_no_room_is_refused(place: Place) -> None:
    entropy = Random(4).randbytes
    too_many = {str(n): b"" for n in range(FILES_MAX + 1)}
    for files in ({}, {"f": bytes(FILES_BYTES_MAX)}, too_many):
        with pytest.raises(UsageError, match=r"at most 6000 bytes .* keep other files elsewhere"):
            lock_files(place, files, entropy)


def test_short_passphrases_and_strange_names_are_refused_before_any_work() -> None:
    for short in ("", "hunter2", " " * 20, "a" * (PASSPHRASE_MIN - 1) + " "):
        with pytest.raises(UsageError, match="a passphrase has at least 12 characters"):
            find_place(short, ROOT, "keys")
    check_passphrase("a" * PASSPHRASE_MIN)
    check_passphrase(make_passphrase(Random(5).randbytes))
    for name in ("", "a" * (NAME_BYTES_MAX + 1), "a\nb"):
        with pytest.raises(UsageError, match=r"a name has 1\.\.63 printable bytes"):
            find_place(PASSPHRASE, ROOT, name)
