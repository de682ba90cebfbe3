"""The map: which plane, which colours, which files, and what is said without matplotlib."""

import re
from math import dist
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dhtos.cli import commands_map
from dhtos.cli.map_drawing import CATEGORIES, Colouring, Machine, draw, flatten, powers
from dhtos.core.schema import default_schema

SCHEMA = default_schema()
PNG = b"\x89PNG\r\n\x1a\n"


def machines(values: list[Any], own: int | None = 0) -> list[Machine]:
    rng = Random(1)
    return [
        Machine(
            tuple(rng.uniform(-0.1, 0.1) for _ in range(5)),
            rng.uniform(0, 0.03),
            value,
            index == own,
        )
        for index, value in enumerate(values)
    ]


def words(path: Path) -> str:
    """The texts of an SVG."""
    return " | ".join(re.findall(r">([^<>]+)</text>", path.read_text()))


# --- the plane ------------------------------------------------------------------------------------


def test_a_plane_in_space_keeps_its_distances() -> None:
    rng = Random(2)
    across = [(0.6, 0.0, 0.8, 0.0, 0.0), (0.0, 0.28, 0.0, 0.96, 0.0)]
    points = []
    for _ in range(40):
        x, y = rng.uniform(-1, 1), rng.uniform(-1, 1)
        points.append(tuple(x * a + y * b for a, b in zip(*across, strict=True)))
    flat, share = flatten(points)
    assert share == pytest.approx(1.0)
    for i in range(39):
        assert dist(flat[i], flat[i + 1]) == pytest.approx(dist(points[i], points[i + 1]))


def test_what_does_not_lie_in_the_plane_is_told() -> None:
    points = [(x, 0.0, 0.0) for x in (-3.0, 3.0)] + [(0.0, y, 0.0) for y in (-2.0, 2.0)]
    points += [(0.0, 0.0, z) for z in (-1.0, 1.0)]
    flat, share = flatten(points)
    assert share == pytest.approx((18 + 8) / (18 + 8 + 2))
    assert abs(flat[0, 0]) == pytest.approx(3.0)
    assert (flat == flatten(points)[0]).all()


@pytest.mark.parametrize("points", [[(0.1, 0.2, 0.3)], [(0.0, 0.0)] * 3, [(0.1,), (0.2,)]])
def test_few_machines_or_dimensions_are_a_map_too(points: Any) -> None:
    flat, share = flatten(points)
    assert flat.shape == (len(points), 2)
    assert share == pytest.approx(1.0)


def test_ticks_are_powers_of_two() -> None:
    assert powers(1, 8) == [1, 2, 4, 8]
    assert powers(2**30, 2**40) == [2.0**n for n in range(30, 41, 2)]
    assert powers(5, 7) == []


# --- the file -------------------------------------------------------------------------------------


def test_numbers_have_a_scale_in_their_units(tmp_path: Path) -> None:
    values = [2**33, 2**36, None, 2**38, 2**40]
    draw(machines(values), Colouring("mem", SCHEMA.attribute("mem")), tmp_path / "map.svg")
    text = words(tmp_path / "map.svg")
    for shown in ("5 machines by round trip", "8GiB", "1TiB", "mem", "not told", "this node"):
        assert shown in text
    assert "access delay (height)" in text


def test_texts_have_a_colour_each(tmp_path: Path) -> None:
    values = ["x86_64", "arm64", "x86_64", None]
    draw(machines(values), Colouring("arch", SCHEMA.attribute("arch")), tmp_path / "map.svg")
    text = words(tmp_path / "map.svg")
    for shown in ("x86_64  (2)", "arm64  (1)", "not told  (1)"):
        assert shown in text
    assert CATEGORIES[0] in (tmp_path / "map.svg").read_text()


def test_more_texts_than_colours_share_the_last(tmp_path: Path) -> None:
    values = [f"site-{n}" for n in range(12)] * 2
    draw(machines(values), Colouring("site", SCHEMA.attribute("site")), tmp_path / "map.svg")
    text = words(tmp_path / "map.svg")
    assert "site-6  (2)" in text
    assert "5 others  (10)" in text


@pytest.mark.parametrize("count", [3, 60])
def test_the_legend_lies_within_the_picture(tmp_path: Path, count: int) -> None:
    """What stands beside the axes counts for how large the picture is."""
    values = ["a-site-with-quite-a-long-name"] * count
    draw(machines(values), Colouring("site", SCHEMA.attribute("site")), tmp_path / "map.svg")
    text = (tmp_path / "map.svg").read_text()
    found = re.search(r'viewBox="0 0 ([0-9.]+) ', text)
    assert found is not None
    at = re.search(r"translate\(([0-9.]+) [^>]*>a-site-with-quite-a-long-name", text)
    if at is None:
        at = re.search(r'x="([0-9.]+)"[^>]*>a-site-with-quite-a-long-name', text)
    assert at is not None
    assert float(at[1]) + 130 < float(found[1])  # points; the name is about 150 wide


def test_the_same_fleet_is_the_same_file(tmp_path: Path) -> None:
    """And the own node is marked only where it is one of them."""
    for name in ("a.svg", "b.svg"):
        fleet = machines([0.0, 0.02, None], own=None)
        draw(fleet, Colouring("round trip from this node, ms"), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "this node |" not in words(tmp_path / "a.svg")


@pytest.mark.parametrize("count", [1, 2, 300])
def test_any_number_of_machines_can_be_drawn(tmp_path: Path, count: int) -> None:
    fleet = machines([0.01 * n for n in range(count)])
    share = draw(fleet, Colouring("round trip from this node, ms"), tmp_path / "map.png")
    assert 0 < share <= 1
    assert (tmp_path / "map.png").read_bytes().startswith(PNG)


def test_no_screen_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    draw(machines([0.1]), Colouring("rtt"), tmp_path / "map.png")
    assert (tmp_path / "map.png").exists()


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_a_map(shell: Any, fleet: Any, tmp_path: Path) -> None:
    fleet.machines[0]["id"] = "0" * 40  # whom the fake answers for
    path = tmp_path / "fleet.png"
    text = shell.run("map", "cores >= 8", "-o", str(path), "--color", "site")
    assert text == f"{path}: 2 machines, 100% of their spread\n"
    assert path.read_bytes().startswith(PNG)
    assert fleet.asked[0][1].query == "cores >= 8"
    told = shell.json("map", "--output", str(tmp_path / "b.svg"))
    assert told == {
        "output": str(tmp_path / "b.svg"), "machines": 2, "without_place": 0, "share": 1.0,
    }  # fmt: skip
    assert "this node" in words(tmp_path / "b.svg")


def test_who_tells_no_place_is_counted(shell: Any, fleet: Any, plain: Any, tmp_path: Path) -> None:
    fleet.machines += [plain.machine(3) | {"coordinate": None}]
    fleet.machines += [plain.machine(4) | {"coordinate": [0.1, 0.2, 0.001, 0.5]}]
    shell.run("map", "-o", str(tmp_path / "a.png"))
    assert "2 machines left out" in shell.err
    fleet.machines = fleet.machines[2:3]
    error, _ = shell.refused("map", "-o", str(tmp_path / "b.png"), code=3)
    assert error == "no machine that matches 'true' tells where it is"
    assert not (tmp_path / "b.png").exists()


def test_what_cannot_be_drawn_is_refused_before_anybody_is_asked(
    shell: Any, fleet: Any, tmp_path: Path
) -> None:
    error, hint = shell.refused("map", "-o", "fleet.gif")
    assert error == "a map is a .png or .svg file, got 'fleet.gif'"
    assert hint
    error, hint = shell.refused("map", "-o", "fleet.png", "--color", "coers")
    assert "coers" in error
    assert "cores" in hint
    assert shell.refused("map")[0] == "missing option '-o' / '--output'"
    assert fleet.asked == []
    error, _ = shell.refused("map", "-o", str(tmp_path / "no" / "map.png"))
    assert str(tmp_path / "no" / "map.png") in error


def test_without_matplotlib_it_says_what_to_install(
    shell: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(commands_map, "import_module", missing)
    error, hint = shell.refused("map", "-o", "fleet.png")
    assert error == "a map needs matplotlib, and matplotlib is missing"
    assert hint == 'use pip install "dhtos[plot]"'
    assert fleet.asked == []
