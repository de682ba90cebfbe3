"""Answers in several datagrams: cut and put together, whatever comes back."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhtos.core.limits import ANSWER_BYTES_MAX, ANSWER_PARTS_MAX
from dhtos.errors import MalformedMessage
from dhtos.protocol.bundle import CHUNK_BYTES, Assembly, cut, pack, part_count

TEXT = b"region-07 x86_64 "


def parts_of(body):
    return cut(*pack(body))


def collect(parts):
    assembly = Assembly()
    return [assembly.add(part) for part in parts]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 60_000])
def test_what_is_cut_can_be_put_together(size):
    body = random.Random(size).randbytes(size)
    parts = parts_of(body)
    assert len(parts) == part_count(pack(body)[0])
    assert collect(parts) == [None] * (len(parts) - 1) + [body]


def test_short_answers_stay_as_they_are_and_long_ones_shrink():
    assert pack(TEXT) == (TEXT, 0)
    packed, size = pack(TEXT * 1000)
    assert size == len(TEXT) * 1000
    assert len(packed) < size / 20
    assert len(parts_of(TEXT * 1000)) == 1


@given(st.binary(max_size=4000), st.randoms(use_true_random=False))
def test_parts_come_in_any_order_and_twice(body, rng):
    parts = parts_of(body)
    shuffled = parts + rng.sample(parts, len(parts) // 2)
    rng.shuffle(shuffled)
    found = [answer for answer in collect(shuffled) if answer is not None]
    assert body in found
    assert set(found) == {body}


def test_two_answers_are_collected_side_by_side():
    one, two = (parts_of(random.Random(seed).randbytes(3 * CHUNK_BYTES)) for seed in (1, 2))
    mixed = [part for pair in zip(one, two, strict=True) for part in pair]
    answers = [answer for answer in collect(mixed) if answer is not None]
    assert [len(answer) for answer in answers] == [3 * CHUNK_BYTES] * 2


def test_no_more_than_two_answers_are_collected_at_a_time():
    size = 2 * CHUNK_BYTES - 64
    three = [parts_of(random.Random(seed).randbytes(size)) for seed in (1, 2, 3)]
    assembly = Assembly()
    for parts in three:
        assert assembly.add(parts[0]) is None
    assert assembly.add(three[0][1]) is None  # its first part made room
    assert assembly.add(three[2][1]) is not None


GOOD = parts_of(TEXT * 400)[0]


def with_field(place, value):
    part = list(GOOD)
    part[place] = value
    return part


@pytest.mark.parametrize(
    "value",
    [
        None, [], GOOD[:4], GOOD + [0] * 4, {},
        with_field(0, 1), with_field(0, -1), with_field(0, "0"),
        with_field(1, 0), with_field(1, ANSWER_PARTS_MAX + 1),
        with_field(2, GOOD[2] ^ 1), with_field(2, 2**32), with_field(2, None),
        with_field(3, GOOD[3] - 1), with_field(3, GOOD[3] + 1), with_field(3, ANSWER_BYTES_MAX + 1),
        with_field(4, GOOD[4][:-1]), with_field(4, "text"), with_field(4, bytes(CHUNK_BYTES + 1)),
    ],
)  # fmt: skip
def test_what_is_no_part_is_refused(value):
    with pytest.raises(MalformedMessage):
        Assembly().add(value)


def test_bytes_that_do_not_inflate_are_refused():
    for chunk in (b"not zlib", b"", zlib.compress(TEXT)[:-4]):
        with pytest.raises(MalformedMessage):
            Assembly().add([0, 1, zlib.crc32(chunk), len(TEXT), chunk])


def test_a_small_datagram_cannot_ask_for_much_memory():
    bomb = zlib.compress(bytes(1_000_000), 9)
    assert len(bomb) < CHUNK_BYTES
    for size in (100, ANSWER_BYTES_MAX):
        with pytest.raises(MalformedMessage):
            Assembly().add([0, 1, zlib.crc32(bomb), size, bomb])
