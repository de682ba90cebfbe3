"""How each rival lays out its nodes: curves, tries, zones, rings and buckets."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.rivals import hilbert, ring
from bench.rivals.cells import Cells
from bench.rivals.central import Central
from bench.rivals.flood import Flood
from bench.rivals.mercury import Mercury
from bench.rivals.model import Build, Floats, cells, enough, extra_pages, find_value
from bench.rivals.murk import Murk, delegation_rounds
from bench.rivals.pht import COLD, HOLDERS_CACHED, PrefixHashTree
from bench.rivals.scrap import Scrap
from bench.rivals.zorder import Trie
from dhtos.kernels import hilbert_decode, hilbert_encode

COUNT = 300


def scattered(dimensions: int = 3, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).random((COUNT, dimensions))


def tied(dimensions: int = 3, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).integers(0, 3, (COUNT, dimensions)) / 2


NETWORKS = pytest.mark.parametrize(
    "points", [scattered(), tied(), np.zeros((COUNT, 3))], ids=["scattered", "tied", "equal"]
)


def whole(dimensions: int) -> tuple[Floats, Floats]:
    return np.zeros(dimensions), np.ones(dimensions)


# --- sums -----------------------------------------------------------------------------------------


def test_pages_beyond_the_first_cost() -> None:
    assert extra_pages(np.array([0, 1, 100])) == 0
    assert extra_pages(np.array([101, 200, 201])) == 1 + 1 + 2


def test_enough_is_the_first_that_reaches_the_limit() -> None:
    hits = np.array([0, 3, 0, 2, 5])
    assert [enough(hits, limit) for limit in (1, 3, 4, 5, 6, 99)] == [2, 2, 4, 4, 5, 5]
    assert enough(hits, 0) == 5
    assert enough(hits[:0], 7) == 0


def test_a_get_costs_what_was_measured_and_between() -> None:
    assert find_value(1_000) == (3.6, 1.2)
    assert find_value(10_000) == (5.2, 1.7)
    assert find_value(100_000) == (6.7, 2.2)
    assert find_value(10) == find_value(1_000)  # no figure below: the least known
    assert 3.6 < find_value(3_000)[0] < 5.2


@given(size=st.integers(1, 5000), origin=st.integers(0, 10_000), distance=st.integers(0, 10_000))
def test_routing_on_a_ring_arrives_in_as_many_hops_as_counted(
    size: int, origin: int, distance: int
) -> None:
    start, way = np.array([origin % size]), np.array([distance % size])
    passed = ring.relays(start, way, size)
    assert len(passed) == ring.hops(way)[0] <= size.bit_length()
    assert (passed[-1] if len(passed) else start[0]) == (start + way)[0] % size


# --- Hilbert curve and SCRAP ----------------------------------------------------------------------


@given(data=st.data(), dimensions=st.integers(1, 8), bits=st.integers(1, 7))
def test_many_positions_decode_as_one(data: st.DataObject, dimensions: int, bits: int) -> None:
    position = st.integers(0, (1 << dimensions * bits) - 1)
    index = data.draw(st.lists(position, min_size=1, max_size=5))
    found = hilbert.points(np.array(index), dimensions, bits)
    assert found.T.tolist() == [hilbert_decode(at, dimensions, bits) for at in index]


@pytest.mark.parametrize(("dimensions", "bits"), [(1, 5), (2, 3), (3, 2), (4, 2)])
def test_an_aligned_block_is_the_box_of_its_cells(dimensions: int, bits: int) -> None:
    cell = hilbert.points(np.arange(1 << dimensions * bits), dimensions, bits)
    for order in range(dimensions * bits + 1):
        first = np.arange(0, 1 << dimensions * bits, 1 << order)
        low, high = hilbert.block_boxes(np.full_like(first, order), first, dimensions, bits)
        inside = cell.reshape(dimensions, len(first), -1)
        assert (low == inside.min(axis=2)).all()
        assert (high == inside.max(axis=2)).all()
        assert ((high - low + 1).prod(axis=0) == 1 << order).all()


@given(ends=st.lists(st.integers(0, 256), min_size=2, max_size=6))
def test_aligned_blocks_make_up_their_intervals(ends: list[int]) -> None:
    ends = sorted(ends)
    order, which, first = hilbert.aligned_blocks(np.array(ends[:-1]), np.array(ends[1:]), 8)
    assert (first % (1 << order) == 0).all()
    for place, (begin, end) in enumerate(pairwise(ends)):
        mine = which == place
        runs = zip(first[mine], order[mine], strict=True)
        held = [at for start, size in runs for at in range(start, start + (1 << size))]
        assert sorted(held) == list(range(begin, end))


@NETWORKS
def test_scrap_asks_whoever_owns_a_part_of_the_box(points: Floats) -> None:
    """Compared position by position, drawn and occupied ones."""
    rival = Scrap(points[:, :2], Random(1))
    keys = sorted(hilbert_encode(row, 16) for row in cells(points[:, :2], 16).tolist())
    chance = np.random.default_rng(2)
    position = np.unique(np.append(chance.integers(0, 1 << 32, 4000), keys))
    place = hilbert.points(position, 2, 16)
    for _ in range(5):
        low, high = np.sort(chance.random((2, 2)), axis=0)
        bottom, top = cells(low, 16)[:, None], cells(high, 16)[:, None]
        inside = position[((place >= bottom) & (place <= top)).all(axis=0)]
        owners = (np.searchsorted(keys, inside, "right") - 1) % COUNT
        touched = rival.touched(low, high)
        assert touched[owners].all()


def test_scrap_walks_its_ring_when_nothing_is_excluded() -> None:
    cost = Scrap(scattered(), Random(1)).query(*whole(3), limit=COUNT, start=7)
    assert (cost.rpc, cost.rtt, cost.hits) == (COUNT - 1, COUNT - 1, COUNT)
    assert Scrap(scattered(), Random(1)).query(*whole(3), limit=1, start=7).rpc == 0


def test_scrap_follows_four_lines_at_once_for_all_matches() -> None:
    cost = Scrap(scattered(), Random(1)).query(*whole(3), limit=0, start=0)
    assert COUNT - 1 <= cost.rpc <= COUNT + 4 * COUNT.bit_length()
    assert COUNT / 4 <= cost.rtt <= COUNT / 4 + COUNT.bit_length()


# --- Z-order, PHT and cells -----------------------------------------------------------------------


@NETWORKS
def test_the_trie_holds_every_record_under_its_prefixes(points: Floats) -> None:
    trie = Trie(np.ascontiguousarray(points.T), Random(1))
    assert sorted(trie.order) == list(range(COUNT))
    inner = np.arange(COUNT - 1)
    assert (trie.first[trie.left] == trie.first[inner]).all()
    assert (trie.last[trie.left] == trie.first[trie.right]).all()
    assert (trie.last[trie.right] == trie.last[inner]).all()
    assert (trie.first[trie.root], trie.last[trie.root]) == (0, COUNT)
    below = inner[trie.parent[inner] >= 0]
    assert (trie.depth[below] > trie.depth[trie.parent[below]]).all()
    for record in range(0, COUNT, 17):  # a box of one record touches all the nodes above it
        rank = int(np.flatnonzero(trie.order == record)[0])
        above = (trie.first <= rank) & (rank < trie.last)
        assert trie.touched(points[record], points[record])[above].all()


def test_sibling_prefixes_are_apart_where_records_differ() -> None:
    trie = Trie(np.ascontiguousarray(scattered().T), Random(1))
    for record in range(0, COUNT, 17):
        touched = trie.touched(*[scattered()[record]] * 2)
        assert not (touched[trie.left] & touched[trie.right]).any()
        assert touched[COUNT - 1 :].sum() == 1


@NETWORKS
def test_leaves_of_the_hash_tree_are_whole_and_small(points: Floats) -> None:
    rival = PrefixHashTree(points, Random(1))
    trie, leaves = rival.trie, rival.leaves
    assert (rival.sizes <= 100).all()
    assert trie.first[leaves].tolist() == [0, *trie.last[leaves][:-1]]
    assert trie.last[leaves[-1]] == COUNT
    assert (trie.last - trie.first)[trie.parent[leaves]].min() > 100  # no leaf is split too far
    assert all(len(set(row)) == 20 for row in rival.holders.tolist())


def test_a_small_network_has_one_leaf_on_every_node() -> None:
    rival = PrefixHashTree(scattered()[:12], Random(1))
    assert rival.storage.tolist() == [12] * 12
    assert rival.query(*whole(3), limit=0, start=3).rpc == pytest.approx(find_value(12)[0])


def test_caches_of_the_hash_tree_only_change_the_price() -> None:
    points, box = scattered(), (np.full(3, 0.2), np.full(3, 0.9))
    builds: list[Build] = [HOLDERS_CACHED, PrefixHashTree, COLD]
    costs = [build(points, Random(1)).query(*box, 0, 5) for build in builds]
    assert len({cost.hits for cost in costs}) == 1
    rpc, rtt = find_value(COUNT)
    assert costs[1].rpc == pytest.approx(rpc * costs[0].rpc)
    assert (costs[0].rtt, costs[1].rtt) == (1, rtt)
    leaves = costs[0].rpc
    assert costs[2].rpc == pytest.approx(rpc * (2 * leaves - 1))  # all of it: the inner ones too


def test_cells_ask_every_node_once_when_nothing_is_excluded() -> None:
    for limit in (0, COUNT):
        cost = Cells(scattered(), Random(1)).query(*whole(3), limit=limit, start=4)
        assert (cost.rpc, cost.hits, len(cost.asked)) == (COUNT - 1, COUNT, COUNT - 1)
    assert cost.rtt == COUNT - 1
    assert Cells(scattered(), Random(1)).query(*whole(3), limit=0, start=4).rtt < 30


# --- MURK -----------------------------------------------------------------------------------------


@NETWORKS
def test_every_zone_has_one_node_and_its_record(points: Floats) -> None:
    rival = Murk(points, Random(1))
    inside = (rival.zone_low <= rival.records) & (rival.records <= rival.zone_high)
    assert inside.all()
    assert sorted(map(tuple, rival.records.T)) == sorted(map(tuple, points))


def test_zones_tile_the_space() -> None:
    rival = Murk(scattered(), Random(1))
    assert (rival.zone_high - rival.zone_low).prod(axis=0).sum() == pytest.approx(1)
    for point in np.random.default_rng(3).random((50, 3)):
        assert rival.touched(point, point).sum() == 1


@settings(max_examples=30, deadline=None)
@given(row=st.lists(st.sampled_from((0.0, 0.5, 0.75, 1.0)), min_size=3, max_size=3))
def test_tied_zones_leave_no_point_without_an_owner(row: list[float]) -> None:
    rival = Murk(tied(), Random(1))
    assert rival.touched(np.array(row), np.array(row)).any()


def test_handing_on_halves_takes_as_many_rounds_as_levels() -> None:
    assert [delegation_rounds(np.arange(1 << n)) for n in range(6)] == [0, 1, 2, 3, 4, 5]
    assert delegation_rounds(np.array([0, 1])) == delegation_rounds(np.array([0, 1 << 59])) == 1
    assert delegation_rounds(np.array([0b000, 0b001, 0b010, 0b100])) == 1  # three links at once
    assert delegation_rounds(np.arange(5)) == 2  # the fuller half stays with the sender


def test_flooding_asks_each_zone_of_the_box_once() -> None:
    rival = Murk(scattered(), Random(1))
    for limit in (0, COUNT):
        cost = rival.query(*whole(3), limit=limit, start=4)
        assert (cost.rpc, cost.hits, len(cost.asked)) == (COUNT - 1, COUNT, COUNT - 1)
    assert cost.rtt == -(-(COUNT - 1) // 4)
    assert rival.query(*whole(3), limit=0, start=4).rtt == pytest.approx(np.log2(COUNT), abs=1)


# --- Mercury --------------------------------------------------------------------------------------


def test_hubs_hold_every_record_in_equal_parts() -> None:
    rival = Mercury(tied(), Random(1))
    assert rival.storage.tolist() == [3] * COUNT  # three hubs of a hundred nodes
    assert all(sorted(order) == list(range(COUNT)) for order in rival.order)
    for axis, order in enumerate(rival.order):
        assert (np.diff(tied()[order, axis]) >= 0).all()


def test_a_narrow_range_is_walked_in_its_own_hub() -> None:
    points = scattered()
    low, high = whole(3)
    low[2], high[2] = 0.3, 0.4
    cost = Mercury(points, Random(1)).query(low, high, limit=0, start=250)  # of the third hub
    inside = int(((points[:, 2] >= 0.3) & (points[:, 2] <= 0.4)).sum())
    walked = inside / 3  # three records a node
    assert cost.rpc == cost.rtt
    assert walked - 1 <= cost.rpc <= walked + 1 + 7
    assert (cost.asked >= 200).all()


def test_a_walk_with_a_limit_begins_at_the_better_end() -> None:
    points = scattered(2)
    points[:, 1] = points[:, 0] > 0.9  # only the end of the first hub matches
    low, high = np.array([0.0, 0.5]), np.ones(2)
    short = Mercury(points, Random(1)).query(low, high, limit=5, start=0)
    low[1] = 0.0
    whole_hub = Mercury(points, Random(1)).query(low, high, limit=0, start=0)
    assert short.rpc < 15 < 140 < whole_hub.rpc


# --- flood and table ------------------------------------------------------------------------------


def test_buckets_are_everybody_else_once() -> None:
    rival = Flood(scattered(), Random(1))
    for place in range(0, COUNT, 29):
        begin, end = rival.buckets(place)
        held = np.concatenate([np.arange(b, e) for b, e in zip(begin, end, strict=True)])
        assert sorted(held) == [n for n in range(COUNT) if n != place]
        shared = [
            min(int(rival.ids[place] ^ rival.ids[n]).bit_length() for n in range(b, e))
            for b, e in zip(begin, end, strict=True)
        ]
        assert shared == sorted(set(shared))  # nearest first, a bucket a distance


def test_a_flood_stops_after_the_bucket_that_brings_enough() -> None:
    rival = Flood(scattered(), Random(1))
    begin, end = rival.buckets(place=int(np.flatnonzero(rival.order == 9)[0]))
    sizes = np.cumsum(end - begin).tolist()
    assert rival.query(*whole(3), limit=1, start=9).rpc == 0  # its own record
    assert rival.query(*whole(3), limit=2, start=9).rpc == sizes[0]
    assert rival.query(*whole(3), limit=2 + sizes[3], start=9).rpc == sizes[4]


def test_a_table_answers_in_pages() -> None:
    rival = Central(scattered(), Random(1))
    assert rival.storage.tolist() == [COUNT] + [0] * (COUNT - 1)
    costs = {limit: rival.query(*whole(3), limit, 5) for limit in (0, 20, 101)}
    assert {limit: (c.rpc, c.rtt, c.hits) for limit, c in costs.items()} == {
        0: (3, 2, COUNT),
        20: (1, 1, 20),
        101: (2, 2, 101),
    }
    assert all(cost.asked.tolist() == [0] for cost in costs.values())
