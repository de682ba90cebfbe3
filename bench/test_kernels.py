"""What the compiled kernels and the routing table gain; baselines: reference twins, stock tables.

Each group is one question; the `..._ratio` tests gate on ratios, never on wall time.
"""

import random
import timeit
from array import array
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from nacl._sodium import ffi, lib
from pytest_benchmark.fixture import BenchmarkFixture
from tables import CONTACTS, SEED, TARGETS, K, Tables

from dhtos._reference import aead, hilbert, morton, refit, vivaldi, xor
from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BYTES
from dhtos.core.routing import RoutingTable

_aead = pytest.importorskip("dhtos._ext._aead", reason="built with DHTOS_PURE=1")
_hilbert = pytest.importorskip("dhtos._ext._hilbert", reason="built with DHTOS_PURE=1")
_morton = pytest.importorskip("dhtos._ext._morton", reason="built with DHTOS_PURE=1")
_refit = pytest.importorskip("dhtos._ext._refit", reason="built with DHTOS_PURE=1")
_vivaldi = pytest.importorskip("dhtos._ext._vivaldi", reason="built with DHTOS_PURE=1")
_xor = pytest.importorskip("dhtos._ext._xor", reason="built with DHTOS_PURE=1")

GAIN_MIN = 2.0  # a kernel that gains less is deleted; so is a table slower than this to stock

BITS = (12,) * 8
SCHEDULE = bytes(range(8)) * 12
OFFSET = 2


def sample(seed: int = SEED) -> SimpleNamespace:
    """One fixed input for every kernel."""
    rng = random.Random(seed)
    cells = [rng.randrange(4096) for _ in BITS]
    return SimpleNamespace(
        table=rng.randbytes(CONTACTS * ID_BYTES),
        bucket=bytearray(rng.randbytes(K * ID_BYTES)),
        target=rng.randbytes(ID_BYTES),
        key=rng.randbytes(ID_BYTES),
        cells=cells,
        index=hilbert.hilbert_encode(cells, 12),
        lows=[0] * 8,
        highs=[4000] * 8,
        own=tuple(rng.uniform(-0.1, 0.1) for _ in range(4)),
        remote=tuple(rng.uniform(-0.1, 0.1) for _ in range(4)),
        places=array("f", [rng.uniform(0.0, 0.1) for _ in range(64 * 6)]),
        memory=array("d", [rng.uniform(0.01, 0.1) for _ in range(64 * 8)]),
    )


def address(name: str) -> int:
    """Of a function of libsodium."""
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, f"crypto_aead_chacha20poly1305_{name}")))


S = sample()
COMPILED, PLAIN = (
    module.Aead(address("ietf_encrypt"), address("ietf_decrypt")) for module in (_aead, aead)
)
HEAD, TEXT = bytes(13), bytes(60)
SEALED = (bytes(32), 1, COMPILED.seal_after(bytes(32), 1, TEXT, HEAD), len(HEAD))
UPDATE = (S.own, 0.01, 0.5, S.remote, 0.01, 0.5, 0.05, 0.25, 0.25, S.own)
PLACE = (*S.own, 0.0, 0.01)
PREFIX = (S.key, 40, BITS, SCHEDULE, OFFSET)
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = {
    "k closest of 1000 ids": (_xor.k_closest, xor.k_closest, (S.table, S.target, K)),
    "k closest of one bucket": (_xor.k_closest, xor.k_closest, (S.bucket, S.target, K)),
    "common prefix": (_xor.common_prefix_bits, xor.common_prefix_bits, (S.key, S.target)),
    "morton encode": (_morton.morton_encode, morton.morton_encode, (S.cells, BITS, SCHEDULE)),
    "morton decode": (_morton.morton_decode, morton.morton_decode, (S.key, BITS, SCHEDULE)),
    "prefix box": (_morton.prefix_box, morton.prefix_box, PREFIX),
    "box intersects": (_morton.box_intersects, morton.box_intersects, (*PREFIX, S.lows, S.highs)),
    "hilbert encode": (_hilbert.hilbert_encode, hilbert.hilbert_encode, (S.cells, 12)),
    "hilbert decode": (_hilbert.hilbert_decode, hilbert.hilbert_decode, (S.index, 8, 12)),
    "vivaldi update": (_vivaldi.vivaldi_update, vivaldi.vivaldi_update, UPDATE),
    "seal 60 bytes": (COMPILED.seal_after, PLAIN.seal_after, (bytes(32), 1, TEXT, HEAD)),
    "unseal 60 bytes": (COMPILED.unseal_after, PLAIN.unseal_after, SEALED),
    "re-fit to 64 peers": (_refit.refit, refit.refit, (PLACE, S.memory, 64, 1, 1e-5, 0.05)),
    "64 predicted round trips": (_refit.batch_rtt, refit.batch_rtt, (PLACE, S.places)),
}


@pytest.mark.parametrize("build", ["compiled", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_kernel(benchmark: BenchmarkFixture, name: str, build: str) -> None:
    """How long does one call of each kernel take, beside its reference twin?"""
    compiled, reference, args = CASES[name]
    benchmark.group = name
    result = benchmark(compiled if build == "compiled" else reference, *args)
    assert same(result, reference(*args))


@pytest.mark.parametrize("name", CASES)
def test_kernel_gain_ratio(name: str) -> None:
    """Does each kernel earn its place, at least twice as fast as its reference twin?"""
    compiled, reference, args = CASES[name]
    assert same(compiled(*args), reference(*args))
    ratio = seconds(lambda: reference(*args)) / seconds(lambda: compiled(*args))
    print(f"{name}: x{ratio:.1f}")
    assert ratio >= GAIN_MIN


def same(result: Any, expected: Any) -> bool:
    """Equal; the last bits of a float may differ between compilers."""
    if isinstance(result, array):
        return list(result) == pytest.approx(list(expected), rel=1e-5)
    return result == expected or str(result)[:12] == str(expected)[:12]


def seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """The fastest of a few runs of about 5 ms, per call."""
    count = max(1, int(0.005 / min(timeit.repeat(call, number=1, repeat=3))))
    return min(timeit.repeat(call, number=count, repeat=repeats)) / count


# --- the routing table against stock ------------------------------------------------------------


@pytest.fixture(scope="module", params=["held", "random"])
def tables(request: pytest.FixtureRequest) -> Tables:
    tables = Tables(request.param)
    held = sum(map(len, tables.stock.buckets))
    if request.param == "held":
        assert len(tables.ours) == held == CONTACTS
    tables.check()
    return tables


@pytest.mark.benchmark(group=f"closest {K} of {CONTACTS} contacts, {TARGETS} targets")
def test_closest_ours(benchmark: BenchmarkFixture, tables: Tables) -> None:
    """How long do 64 exact `closest` take, half of them for ids in the table?"""
    found = benchmark(tables.ask_ours)
    assert [[one.id for one in contacts] for contacts in found] == list(
        map(tables.truth, tables.targets)
    )


@pytest.mark.benchmark(group=f"closest {K} of {CONTACTS} contacts, {TARGETS} targets")
def test_closest_stock(benchmark: BenchmarkFixture, tables: Tables) -> None:
    """Baseline: the same 64 questions to stock `find_neighbors`, which may answer inexactly."""
    found = benchmark(tables.ask_stock)
    assert all(len(nodes) == K for nodes in found)


def test_closest_ratio(tables: Tables) -> None:
    """Is our exact answer at least twice as fast as stock's, and how often is stock's right?

    Seen: stock is right for the uniform targets, whose own bucket is full, and wrong for all
    targets that are held: it leaves them out and fills the place from any neighbouring bucket.
    """
    exact = sum(
        [node.id for node in nodes] == tables.stock_truth(target)
        for target, nodes in zip(tables.targets, tables.ask_stock(), strict=True)
    )
    ours, stock = seconds(tables.ask_ours), seconds(tables.ask_stock)
    print(
        f"ours {ours / TARGETS * 1e6:.2f} us of {len(tables.ours)},"
        f" stock {stock / TARGETS * 1e6:.2f} us of {sum(map(len, tables.stock.buckets))},"
        f" x{stock / ours:.1f}; stock exact in {exact} of {TARGETS}"
    )
    assert stock / ours >= GAIN_MIN


@pytest.mark.benchmark(group="fill a table with 1000 random contacts")
def test_fill_ours(benchmark: BenchmarkFixture) -> None:
    """How long does it take to offer 1000 random contacts (about 130 are kept, 70 wait)?"""
    rng = random.Random(SEED)
    offered = [Contact(rng.randbytes(ID_BYTES), ("10.0.0.1", 7400)) for _ in range(CONTACTS)]

    def fill() -> RoutingTable:
        table = RoutingTable(bytes(ID_BYTES), K)
        for contact in offered:
            table.add(contact, 0.0, verified=True)
        return table

    table = benchmark(fill)
    table.check()
    assert 100 <= len(table) <= 200
