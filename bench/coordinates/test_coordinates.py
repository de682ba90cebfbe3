"""A small, seeded run of the coordinates benchmark on the table that is shipped.

The large tables are read where they lie beside the checkout; there the targets are asserted.
"""

import numpy as np
import pytest

from bench.coordinates import closest, latencies, measure, nearby, page
from bench.coordinates.lies import LIES
from bench.coordinates.world import World, relative_errors, summary
from bench.rivals.meridian import Meridian
from bench.rivals.vivaldi import Serf, Vivaldi
from dhtos.core.locator import Locator
from dhtos.node.nearby import CANDIDATES_PER_PROBE, REACH

ROUNDS = 128


@pytest.fixture(scope="module")
def rtt_s():
    return latencies.load("planetlab-96")


@pytest.fixture(scope="module")
def settled(rtt_s):
    world = World(rtt_s, 1)
    world.run(ROUNDS)
    for node in world.nodes:
        node.memory.check()
    return world


@pytest.fixture(scope="module")
def table(rtt_s):
    return measure.of_table(rtt_s, (1,), ROUNDS)


def square(side=6, spacing_s=0.02):
    """A grid of nodes, which a plane can hold without error."""
    places = np.array([(x, y) for x in range(side) for y in range(side)]) * spacing_s
    return np.sqrt(((places[:, None] - places[None]) ** 2).sum(axis=2))


# --- tables ---------------------------------------------------------------------------------------


def test_the_shipped_table(rtt_s):
    assert rtt_s.shape == (96, 96)
    assert (rtt_s == rtt_s.T).all()
    assert (np.diag(rtt_s) == 0).all()
    assert (rtt_s[~np.eye(96, dtype=bool)] > 0).all()
    assert 0.12 < np.median(rtt_s[rtt_s > 0]) < 0.15


@pytest.mark.parametrize(("name", "size"), [("planetlab", 490), ("wondernetwork", 241)])
def test_the_large_tables(name, size, rtt_s):
    if not latencies.is_here(name):
        pytest.skip(f"{name} is not beside the checkout")
    found = latencies.load(name)
    assert found.shape == (size, size)
    assert (found == found.T).all()
    if name == "planetlab":
        assert found[:480:5, :480:5] == pytest.approx(rtt_s, rel=1e-3)


def test_a_table_that_is_not_here_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(latencies, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        latencies.load("aws")
    assert not latencies.is_here("planetlab")
    with pytest.raises(ValueError, match="planetlab, wondernetwork, aws, planetlab-96, got 'king'"):
        latencies.load("king")


# --- the rivals: they must do what their papers say, or the comparison is unfair ------------------


@pytest.mark.parametrize("kind", [Vivaldi, Serf])
def test_rivals_hold_what_fits_into_their_space(kind):
    rtt_s = square()
    network = kind(rtt_s, 1)
    for _ in range(600):
        network.round()
    middle, high = summary(relative_errors(network.estimates(), rtt_s))
    print(f"{kind.name}, seed 1: {middle:.3f} {high:.3f}")
    assert middle < 0.03


def test_rivals_reach_their_usual_figures():
    """On PlanetLab; the medians of all 18 slices are smoother and give 0.080 and 0.073."""
    if not latencies.is_here("planetlab"):
        pytest.skip("planetlab is not beside the checkout")
    rtt_s = latencies.load("planetlab")
    found = {name: pair for name, (pair, _) in measure.rivals(rtt_s, (1, 2), 512).items()}
    print(found)
    assert 0.075 < found[Vivaldi.name][0] < 0.095
    assert 0.070 < found[Serf.name][0] < 0.095


def test_one_seed_repeats_a_rival(rtt_s):
    one, same, other = (Vivaldi(rtt_s, seed) for seed in (3, 3, 4))
    for network in (one, same, other):
        for _ in range(20):
            network.round()
    assert (one.estimates() == same.estimates()).all()
    assert (one.estimates() != other.estimates()).any()


def test_meridian_finds_the_closest_of_a_line():
    places = np.arange(200) * 0.001
    rtt_s = np.abs(places[:, None] - places[None])
    rings = Meridian(rtt_s, 16, 0.5, 1)
    results = [closest.by_rings(rtt_s, rings, target) for target in range(200)]
    assert np.percentile([one.penalty for one in results], 90) <= 2.0
    assert 10 < np.mean([one.probes for one in results]) < 80


def test_more_rings_find_nearer_nodes_with_more_probes(rtt_s):
    small, large = Meridian(rtt_s, 4, 0.5, 1), Meridian(rtt_s, 32, 0.5, 1)
    few = measure.searches(lambda target: closest.by_rings(rtt_s, small, target), 96)
    many = measure.searches(lambda target: closest.by_rings(rtt_s, large, target), 96)
    assert few["probes"] < many["probes"]
    assert few["p90"] > many["p90"]


# --- the world ------------------------------------------------------------------------------------


def test_one_seed_repeats(rtt_s, settled):
    again, other = World(rtt_s, 1), World(rtt_s, 2)
    again.run(ROUNDS)
    other.run(ROUNDS)
    assert (again.estimates() == settled.estimates()).all()
    assert (other.estimates() != settled.estimates()).any()


def test_what_fits_is_fitted():
    """A plane has no error; only the compact form and the last steps leave some."""
    rtt_s = square()
    world = World(rtt_s, 1)
    world.run(256)
    middle, high = summary(relative_errors(world.estimates(), rtt_s))
    print(f"seed 1: {middle:.4f} {high:.4f}")
    assert middle < 0.004
    assert high < 0.02


def test_liars_learn_nothing_and_are_asked_nothing(settled):
    world = World(settled.rtt_s, 1)
    world.liars = {0: LIES["disorder"]}
    world.run(8)
    assert len(world.nodes[0].memory) == 0
    coordinate, rtt_s = world.measure(1, 0)
    assert coordinate.error == 0.01
    assert rtt_s == settled.rtt_s[1, 0]


@pytest.mark.parametrize("name", LIES)
def test_no_liar_is_nearer_than_it_is(settled, name):
    for j in range(1, 20):
        _, rtt_s = LIES[name](settled, 0, j)
        assert rtt_s >= settled.rtt_s[0, j]


# --- the figures ----------------------------------------------------------------------------------


def test_errors_beat_all_rivals(table):
    """Bands around 0.059 / 0.224 (seed 1); Vivaldi gets 0.128 / 0.69, Serf 0.099 / 0.49."""
    print(table["errors"])
    ours = table["errors"].pop(measure.OURS)
    assert ours[0] < 0.07
    assert ours[1] < 0.27
    for name, theirs in table["errors"].items():
        assert ours[0] < 0.8 * theirs[0], name
        assert ours[1] < 0.8 * theirs[1], name


def test_newcomers_are_placed_soon(table):
    print(table["joining"])
    assert table["joining"][8] < 0.11
    assert table["joining"][32] < table["joining"][4]


def test_a_settled_net_stands(table):
    """After 128 samples a node still settles; after 512 it is a quarter of this."""
    print(table["drift_ms"])
    assert table["drift_ms"] < 1.0


@pytest.mark.parametrize("lie", LIES)
def test_three_liars_in_ten_change_little(table, lie):
    pairs = table["liars"][lie]
    print(pairs)
    assert pairs["after"][0] < page.LIED[lie] * pairs["before"][0]
    assert pairs["after"][1] < 0.3


@pytest.mark.parametrize("lie", LIES)
def test_a_network_starts_among_liars(rtt_s, lie):
    """A fifth lies from the first sample on, when only liars are sure; a fit that trusted claims
    left three in four honest nodes lost (0.35)."""
    world = World(rtt_s, 1)
    liars = world.rng.sample(range(world.size), world.size // 5)
    world.liars = dict.fromkeys(liars, LIES[lie])
    honest = np.ones(world.size, dtype=bool)
    honest[liars] = False
    world.run(256)
    middle, high = summary(relative_errors(world.estimates(), rtt_s, honest))
    print(f"seed 1: {middle:.3f} {high:.3f}")
    assert middle < 0.08
    assert all(node.is_placed for i, node in enumerate(world.nodes) if honest[i])


def test_the_closest_node_is_found(table):
    found = table["closest"]
    ours = found[f"{measure.OURS}, {measure.ASKED} asked, {measure.PROBES} probes"]
    print(ours)
    assert ours["median"] == 1.0
    assert ours["p90"] < 2.0  # 1.10 is for 512 samples: not everybody knows its nearest by now
    assert ours["probes"] == measure.PROBES
    assert ours["p90"] < found[f"{Vivaldi.name}, {measure.PROBES} probes"]["p90"]


def test_more_candidates_miss_fewer_of_the_nearest(table):
    """Of 96 machines ten for each ping are nearly all: the figure of all is that of the memory."""
    found = table["nearby"]["closest"]
    print(found)
    for k in map(str, nearby.WANTED):
        assert found["1000"][k] <= found["10"][k] <= found["2"][k] <= found["1"][k]
    assert found[str(CANDIDATES_PER_PROBE)]["1"] < 2.0


def test_a_wider_reach_finds_more_of_those_within_a_border(table):
    found = table["nearby"]["within"]
    print(found)
    for seconds in nearby.BORDERS_S:
        rows = [found[f"{reach:g} {1000 * seconds:g}"] for reach in nearby.REACHES]
        assert [row["looked"] for row in rows] == sorted(row["looked"] for row in rows)
        assert rows[0]["recall"] < found[f"{REACH:g} {1000 * seconds:g}"]["recall"] + 0.01
    assert found[f"{REACH:g} 50"]["recall"] > 0.9
    assert found[f"{REACH:g} 50"]["precision"] > 0.85


def test_the_most_central_machine_is_nearly_always_among_the_candidates(table):
    found = table["nearby"]["central"]
    print(found)
    for row in found.values():
        assert row["exact"] > 0.9
        assert row["median"] < 1.3


def test_on_a_plane_the_centre_is_the_best():
    """A grid is embedded without error, so what is predicted is true."""
    world = World(square(), 1)
    world.run(200)
    found = nearby.between([world], 2, seed=1)
    print(found)
    assert found["exact"] == 1.0
    assert found["p90"] < 1.1


def test_a_million_estimates_equal_those_of_numpy():
    """`kernels` asserts it; times are for the page."""
    assert all(figure > 0 for figure in measure.kernels(places=10_000).values())


# --- the page -------------------------------------------------------------------------------------


def test_the_page_says_what_was_measured(table):
    results = {
        "words": "Here.",
        "seeds": [1],
        "seconds": 1,
        "tables": {"planetlab": {**table, "joining": {"4": 0.1, "8": 0.2}}},
        "kernels": dict.fromkeys(
            ("refit_us", "update_us", "batch_ms", "numpy_ms", "batch_gb_s", "copy_gb_s"), 2.0
        ),
    }
    table["errors"].setdefault(measure.OURS, (0.05, 0.3))
    text = page.text(results)
    assert "| planetlab: newcomer after 8 samples, median | 0.09 | 0.200 | no, +122% |" in text
    assert "| a million estimates, float32, one core, ms | 5 | 2.00 | yes |" in text
    assert Vivaldi.name in text
    assert "| candidates | planetlab, k=1 | planetlab, k=5 |\n|---|---|---|\n| 1 | " in text
    assert "\n| all | " in text
    assert "| reach | planetlab, 20 ms | planetlab, 50 ms | planetlab, 100 ms |" in text
    assert "| others | planetlab |" in text


def test_the_page_keeps_its_words(monkeypatch, tmp_path, table):
    at = tmp_path / "coordinates.md"
    at.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    monkeypatch.setattr(page, "PAGE", at)
    monkeypatch.setattr(page, "RESULTS", tmp_path / "coordinates.json")
    monkeypatch.setattr(page, "text", lambda _: "new")
    page.save({})
    assert at.read_text() == f"before\n{page.BEGIN}\nnew\n{page.END}\nafter\n"


def test_a_locator_is_what_runs(settled):
    assert all(type(node) is Locator for node in settled.nodes)
