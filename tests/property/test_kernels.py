"""Parity: every compiled kernel against its reference twin, and the laws both must obey."""

import math
from array import array
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl._sodium import ffi, lib

from dhtos._reference import aead, hilbert, morton, refit, vivaldi, xor

_aead = pytest.importorskip("dhtos._ext._aead", reason="built with DHTOS_PURE=1")
_hilbert = pytest.importorskip("dhtos._ext._hilbert", reason="built with DHTOS_PURE=1")
_morton = pytest.importorskip("dhtos._ext._morton", reason="built with DHTOS_PURE=1")
_refit = pytest.importorskip("dhtos._ext._refit", reason="built with DHTOS_PURE=1")
_vivaldi = pytest.importorskip("dhtos._ext._vivaldi", reason="built with DHTOS_PURE=1")
_xor = pytest.importorskip("dhtos._ext._xor", reason="built with DHTOS_PURE=1")

quick = settings(max_examples=120, deadline=None)


# Few distinct bytes make shared prefixes, ties and repeated ids common.
ids = st.one_of(
    st.binary(min_size=20, max_size=20),
    st.lists(st.sampled_from(b"\x00\x01\x80"), min_size=20, max_size=20).map(bytes),
    st.binary(min_size=1, max_size=1).map(lambda tail: bytes(19) + tail),
)


@quick
@given(st.lists(ids, max_size=150), ids, st.integers(-1, 160))
def test_k_closest(table: list[bytes], target: bytes, k: int) -> None:
    flat = b"".join(table)
    found = _xor.k_closest(flat, target, k)
    assert found == xor.k_closest(flat, target, k)
    distances = [xor_distance(one, target) for one in table]
    assert [distances[i] for i in found] == sorted(distances)[: max(k, 0)]


def xor_distance(a: bytes, b: bytes) -> int:
    return int.from_bytes(a) ^ int.from_bytes(b)


@quick
@given(st.integers(0, 40).flatmap(lambda n: st.tuples(*[st.binary(min_size=n, max_size=n)] * 2)))
def test_common_prefix_bits(pair: tuple[bytes, bytes]) -> None:
    a, b = pair
    shared = _xor.common_prefix_bits(a, b)
    assert shared == xor.common_prefix_bits(a, b)
    text_a, text_b = ("".join(f"{byte:08b}" for byte in one) for one in pair)
    assert text_a[:shared] == text_b[:shared]
    assert shared == len(text_a) or text_a[shared] != text_b[shared]


def address(name: str) -> int:
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, f"crypto_aead_chacha20poly1305_{name}")))


CIPHERS = [
    module.Aead(address("ietf_encrypt"), address("ietf_decrypt")) for module in (_aead, aead)
]
keys = st.binary(min_size=32, max_size=32)
counters = st.integers(0, 2**64 - 1)


@quick
@given(keys, counters, st.binary(max_size=300), st.binary(max_size=40), st.integers(0, 2000))
def test_sealing(key: bytes, counter: int, text: bytes, head: bytes, flip: int) -> None:
    one, two = CIPHERS
    sealed = one.seal(key, counter, text, head)
    assert sealed == two.seal(key, counter, text, head)
    whole = head + sealed
    assert one.seal_after(key, counter, text, head) == whole
    assert two.seal_after(key, counter, text, head) == whole
    at = flip % (8 * len(whole))
    broken = bytearray(whole)
    broken[at // 8] ^= 1 << at % 8
    for cipher in CIPHERS:
        assert cipher.unseal(key, counter, sealed, head) == text
        assert cipher.unseal_after(key, counter, whole, len(head)) == text
        assert cipher.unseal_after(key, counter, bytes(broken), len(head)) is None
        assert cipher.unseal(key, counter ^ 1, sealed, head) is None


@pytest.mark.parametrize("cipher", CIPHERS, ids=["compiled", "reference"])
def test_sealing_takes_what_it_is_for(cipher: aead.Aead) -> None:
    key = bytes(32)
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="a key has 32 bytes"):
            cipher.seal(wrong, 0, b"", b"")
        with pytest.raises(ValueError, match="a key has 32 bytes"):
            cipher.unseal_after(wrong, 0, bytes(40), 4)
    for counter in (-1, 2**64):
        with pytest.raises(OverflowError):
            cipher.seal_after(key, counter, b"", b"")
        with pytest.raises(OverflowError):
            cipher.unseal(key, counter, bytes(16), b"")
    with pytest.raises(TypeError):
        cipher.seal(key, 0, bytearray(3), b"")
    assert all(cipher.unseal_after(key, 0, bytes(20), head) is None for head in (-1, 5, 20, 21))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[int], bytes]:
    """Widths of 0..6 attributes and a schedule in any order."""
    bits = draw(st.lists(st.integers(0, 12), max_size=6))
    flat = [attribute for attribute, width in enumerate(bits) for _ in range(width)]
    return bits, bytes(draw(st.permutations(flat)))


@st.composite
def points(draw: st.DrawFn) -> tuple[list[int], list[int], bytes]:
    bits, schedule = draw(layouts())
    return [draw(st.integers(0, 2**width - 1)) for width in bits], bits, schedule


@quick
@given(points())
def test_morton_round_trip(point: tuple[list[int], list[int], bytes]) -> None:
    cells, bits, schedule = point
    key = _morton.morton_encode(cells, bits, schedule)
    assert key == morton.morton_encode(cells, bits, schedule)
    assert _morton.morton_decode(key, bits, schedule) == cells
    assert morton.morton_decode(key, bits, schedule) == cells


@quick
@given(layouts(), st.integers(-2, 90), st.integers(-1, 12), st.binary(max_size=12))
def test_prefix_box(layout: tuple[list[int], bytes], length: int, offset: int, key: bytes) -> None:
    bits, schedule = layout
    args = (key, length, bits, schedule, offset)
    known = max(0, min(length - offset, len(schedule)))
    if length < 0 or offset < 0 or (known and len(key) * 8 < offset + known):
        messages = set()
        for build in (morton, _morton):
            with pytest.raises(ValueError, match=r"at least 0|bits of the key") as caught:
                build.prefix_box(*args)
            messages.add(str(caught.value))
        assert len(messages) == 1
    else:
        box = morton.prefix_box(*args)
        assert _morton.prefix_box(*args) == box
        for (low, high), width in zip(box, bits, strict=True):
            assert 0 <= low <= high < 1 << width


@quick
@given(points(), st.data())
def test_a_prefix_holds_its_points_and_no_others(
    point: tuple[list[int], list[int], bytes], data: st.DataObject
) -> None:
    cells, bits, schedule = point
    key = morton.morton_encode(cells, bits, schedule)
    length = data.draw(st.integers(0, len(schedule)))
    other = [data.draw(st.integers(0, 2**width - 1)) for width in bits]
    box = morton.prefix_box(key, length, bits, schedule, 0)
    inside = all(low <= cell <= high for (low, high), cell in zip(box, other, strict=True))
    other_key = morton.morton_encode(other, bits, schedule)
    assert inside == (xor.common_prefix_bits(key, other_key) >= length)


@quick
@given(points(), st.data())
def test_box_intersects(point: tuple[list[int], list[int], bytes], data: st.DataObject) -> None:
    cells, bits, schedule = point
    key = morton.morton_encode(cells, bits, schedule)
    length = data.draw(st.integers(0, len(schedule) + 3))
    lows = [data.draw(st.integers(-2, 2**width)) for width in bits]
    highs = [data.draw(st.integers(-2, 2**width)) for width in bits]
    meets = morton.box_intersects(key, length, bits, schedule, 0, lows, highs)
    assert _morton.box_intersects(key, length, bits, schedule, 0, lows, highs) is meets
    if all(low <= cell <= high for low, cell, high in zip(lows, cells, highs, strict=True)):
        assert meets


@quick
@given(st.integers(1, 32), st.data())
def test_hilbert_round_trip(bits: int, data: st.DataObject) -> None:
    cells = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=10))
    index = _hilbert.hilbert_encode(cells, bits)
    assert index == hilbert.hilbert_encode(cells, bits)
    assert _hilbert.hilbert_decode(index, len(cells), bits) == cells
    assert hilbert.hilbert_decode(index, len(cells), bits) == cells


numbers = st.floats(-10.0, 10.0)
positive = st.floats(1e-6, 10.0)


@quick
@given(st.integers(1, 8), st.data())
def test_vivaldi_update(dimensions: int, data: st.DataObject) -> None:
    vectors = st.tuples(*[numbers] * dimensions)
    own = data.draw(vectors)
    remote = data.draw(st.one_of(vectors, st.just(own)))
    height, error = data.draw(st.floats(0.0, 10.0)), data.draw(positive)
    remote_height, remote_error = data.draw(st.floats(0.0, 10.0)), data.draw(positive)
    rtt, jitter = data.draw(positive), data.draw(vectors)
    args = (own, height, error, remote, remote_height, remote_error, rtt, 0.25, 0.25, jitter)
    position, new_height, new_error = vivaldi.vivaldi_update(*args)
    compiled = _vivaldi.vivaldi_update(*args)
    assert compiled[0] == pytest.approx(position, rel=1e-12, abs=1e-12)
    assert compiled[1:] == pytest.approx((new_height, new_error), rel=1e-12, abs=1e-12)
    if own != remote and math.dist(own, remote) > 1e-6:
        before = abs(math.dist(own, remote) + height + remote_height - rtt)
        after = abs(math.dist(position, remote) + max(new_height, 0.0) + remote_height - rtt)
        assert after <= before + 1e-9


@st.composite
def memories(draw: st.DrawFn) -> tuple[tuple[float, ...], "array[float]", int]:
    """A place, and measured peers: some honest, some at one point, some nonsense."""
    dimensions = draw(st.integers(1, 8))
    part = st.one_of(st.floats(-0.2, 0.2), st.sampled_from([0.0, 10.0, -10.0]))
    height = st.one_of(st.floats(0.0, 0.05), st.just(10.0))
    error = st.one_of(st.floats(0.01, 1.5), st.just(1e-9))
    rtt = st.one_of(st.floats(0.0001, 0.4), st.sampled_from([1e-9, 10.0]))
    row = st.tuples(*[part] * dimensions, height, error, rtt)
    rows = draw(st.lists(row, min_size=1, max_size=24))
    own = (*draw(st.tuples(*[part] * dimensions)), draw(height))
    return own, array("d", [number for one in rows for number in one]), len(rows)


@quick
@given(memories(), st.integers(0, 4))
def test_refit(memory: tuple[tuple[float, ...], "array[float]", int], steps: int) -> None:
    own, rows, count = memory
    args = (own, rows, count, steps, 1e-5, 0.05)
    place, cost, error = refit.refit(*args)
    compiled = _refit.refit(*args)
    assert compiled[0] == pytest.approx(place, rel=1e-7, abs=1e-9)
    assert compiled[1:] == pytest.approx((cost, error), rel=1e-7, abs=1e-9)
    assert all(map(math.isfinite, (*place, cost, error)))
    assert math.dist(own[:-1], compiled[0][:-1]) <= steps * 0.05 * (1 + 1e-9)
    assert not steps or compiled[0][-1] >= 1e-5


@quick
@given(memories(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_refit_knows_no_axes(
    memory: tuple[tuple[float, ...], "array[float]", int], axis: int, rng: Random
) -> None:
    """Mirroring and exchanging dimensions changes nothing but the place, in the same way."""
    own, rows, count = memory
    dimensions = len(own) - 1
    order = rng.sample(range(dimensions), dimensions)
    signs = [-1.0 if i == axis else 1.0 for i in range(dimensions)]

    def turned(numbers: "list[float] | tuple[float, ...] | array[float]") -> list[float]:
        first = [signs[i] * numbers[i] for i in order]
        return [*first, *numbers[dimensions:]]

    width = dimensions + 3
    others = [turned(rows[at : at + width]) for at in range(0, len(rows), width)]
    place, cost, error = _refit.refit(own, rows, count, 1, 1e-5, 0.05)
    mirrored = _refit.refit(
        turned(own), array("d", [n for one in others for n in one]), count, 1, 1e-5, 0.05
    )
    assert mirrored[0] == pytest.approx(turned(place), rel=1e-6, abs=1e-8)
    assert mirrored[1:] == pytest.approx((cost, error), rel=1e-6, abs=1e-8)


@quick
@given(st.integers(1, 6), st.integers(0, 12), st.data())
def test_batch_rtt(dimensions: int, count: int, data: st.DataObject) -> None:
    width = dimensions + 1
    own = data.draw(st.lists(numbers, min_size=width, max_size=width))
    size = count * width
    columns = array("f", data.draw(st.lists(numbers, min_size=size, max_size=size)))
    compiled = _refit.batch_rtt(own, columns)
    assert isinstance(compiled, array)
    assert compiled.typecode == "f"
    assert list(compiled) == pytest.approx(list(refit.batch_rtt(own, columns)), rel=1e-5, abs=1e-5)
