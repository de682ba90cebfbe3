"""Passphrases: what is sealed under one opens under that one only, and what is made is random."""

import re
from random import Random

import pytest

from dhtos.errors import MalformedMessage
from dhtos.trust.passphrase import lock, make_passphrase, open_with, seal_with, stretch, unlock

KEY, OTHER = bytes(range(32)), bytes(32)


def test_made_passphrases_are_five_words_and_different():
    entropy = Random(1).randbytes
    made = {make_passphrase(entropy) for _ in range(1000)}
    assert len(made) == 1000
    word = "[bdfghj-np-tvz][aiou][bdfghj-np-tvz][aiou][bdfghj-np-tvz]"
    assert all(re.fullmatch(f"({word}-){{4}}{word}", one) for one in made)


def test_a_passphrase_says_all_its_bits():
    """The published pairs of the encoding: 127.0.0.1 is lusab-babad, 63.84.220.193 gutih-tugad."""
    data = bytes([127, 0, 0, 1, 63, 84, 220, 193, 255, 255])
    assert make_passphrase(lambda size: data[:size]) == "lusab-babad-gutih-tugad-zuzuz"


def test_only_the_same_passphrase_opens():
    sealed = seal_with("lusab-babad", b"secret", Random(2).randbytes)
    assert open_with(" lusab-babad\n", sealed) == b"secret"
    with pytest.raises(MalformedMessage, match="another passphrase"):
        open_with("lusab-babaf", sealed)
    assert b"secret" not in sealed


def test_the_same_under_the_same_looks_different():
    entropy = Random(3).randbytes
    assert seal_with("p", b"x", entropy) != seal_with("p", b"x", entropy)


def test_a_key_follows_from_the_passphrase_and_the_salt():
    """A vector of this very function: whoever changes it loses what was sealed."""
    one = stretch("lusab", b"s" * 16, 40)
    assert len(one) == 40
    assert one != stretch("lusab", b"t" * 16, 40)
    assert one.hex()[:16] == "fe8eedcf2fa70bda"


@pytest.mark.parametrize("size", [0, 1, 1003, 1004, 1005, 5000])
def test_sizes_are_rounded_up(size):
    locked = lock(bytes(size), KEY)
    assert len(locked) % 1024 == 0
    assert len(locked) - size <= 1024 + 20
    assert unlock(locked, KEY) == bytes(size)


def test_what_was_changed_or_cut_does_not_open():
    locked = lock(b"plain", KEY)
    for wrong in (locked[:-1], locked[:10], b"", bytes([locked[0] ^ 1]) + locked[1:]):
        with pytest.raises(MalformedMessage):
            unlock(wrong, KEY)
    with pytest.raises(MalformedMessage):
        unlock(locked, OTHER)
    with pytest.raises(MalformedMessage, match="cut off"):
        open_with("p", b"short")
