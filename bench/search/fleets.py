"""Fleets to search: what the machines say, and the same as numbers for brute force and rivals.

fleet      machines as data centres buy them: 13 shapes, ties everywhere, 16 regions by Zipf's
           law, most without an accelerator; what is free follows two humps
uniform    eight independent attributes, the worst case for any index
cloud      the instance types shipped with dhtos, with prices and load drawn
grid5000   the nodes of Grid'5000, where their table lies beside the checkout
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from dhtos.cli.demo_catalogue import load_catalogue, shipped_catalogue
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.scale import Linear
from dhtos.core.schema import Attribute, Schema, Value

GIB = 2**30
GRID5000 = Path(__file__).parents[3] / "shared" / "data" / "nodes_grid5000" / "nodes.csv"
FLEETS = ("fleet", "uniform", "cloud", "grid5000")

_CORES = (4, 8, 8, 16, 16, 16, 32, 32, 48, 64, 64, 96, 128)
_GIB_PER_CORE = (4, 2, 4, 2, 4, 8, 4, 8, 4, 4, 8, 4, 8)
_SHAPE_WEIGHTS = (8, 10, 14, 8, 14, 8, 10, 6, 5, 6, 4, 4, 3)
_DISKS_GIB = (100, 200, 480, 960, 1920, 3840, 7680, 15360)
_REGIONS = tuple(f"region-{n:02}" for n in range(16))

UNIFORM_SCHEMA = Schema(
    name="uniform",
    version=0,
    attributes=tuple(
        Attribute(f"a{n}", "number", "static", Linear(0, 1), "", 12) for n in range(8)
    ),
    key_order=tuple(f"a{n}" for n in range(8)),
)

Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Fleet:
    """Machines, and per attribute that can be asked for a column of numbers in their order.

    A text column holds the index of the text in `words[name]`, the most common text first.
    """

    name: str
    schema: Schema
    machines: list[dict[str, Value]]
    columns: Columns
    words: dict[str, tuple[str, ...]]

    def points(self) -> NDArray[np.float64]:
        """The columns as ranks in 0..1, equal for equal values: what rivals are given."""
        return np.column_stack([_ranks(column) for column in self.columns.values()])


def make(name: str, count: int, seed: int) -> Fleet:
    """A fleet of `count` machines; raises FileNotFoundError where its table is missing."""
    rng = Random(f"{name} {seed}")
    if name == "uniform":
        machines: list[dict[str, Value]] = [
            {f"a{n}": rng.random() for n in range(8)} for _ in range(count)
        ]
        return _with_columns(name, UNIFORM_SCHEMA, machines, tuple(f"a{n}" for n in range(8)))
    if name == "fleet":
        machines = [_bought(rng) for _ in range(count)]
    else:
        table = _catalogue(name)
        rows = [rng.choice(table) for _ in range(count)]
        machines = [_rented(dict(row), rng) for row in rows]
    asked = ("cores", "mem", "disk", "gpus", "price", "site", "cpu_free", "mem_free")
    return _with_columns(name, MACHINE_SCHEMA, machines, asked)


def _bought(rng: Random) -> dict[str, Value]:
    shape = rng.choices(range(13), _SHAPE_WEIGHTS)[0]
    cores, mem = _CORES[shape], _CORES[shape] * _GIB_PER_CORE[shape] * GIB
    gpus = 0 if rng.random() < 0.88 else rng.choice((1, 2, 4, 8))
    price = 0.01 * cores * (1 + gpus) * rng.lognormvariate(0, 0.3)
    region = min(15, int(rng.paretovariate(1.0)) - 1)
    return {
        "cores": cores,
        "mem": mem,
        "disk": rng.choice(_DISKS_GIB) * GIB,
        "gpus": gpus,
        "price": round(price, 4),
        "site": _REGIONS[region],
        "arch": "x86_64" if rng.random() < 0.9 else "arm64",
        "cpu_free": round(100 * _free(rng), 1),
        "mem_free": int(mem * _free(rng)),
    }


def _free(rng: Random) -> float:
    """Idle or busy, seldom between."""
    return rng.betavariate(8, 2) if rng.random() < 0.5 else rng.betavariate(2, 8)


def _catalogue(name: str) -> list[dict[str, Value]]:
    if name == "cloud":
        found = shipped_catalogue(MACHINE_SCHEMA)
    else:
        if not GRID5000.exists():
            raise FileNotFoundError(f"the table of Grid'5000 is not shipped, and not at {GRID5000}")
        found = load_catalogue(GRID5000, MACHINE_SCHEMA)
    return [dict(machine.attributes) for machine in found.machines]


def _rented(row: dict[str, Value], rng: Random) -> dict[str, Value]:
    cores, mem = row["cores"], row["mem"]
    assert isinstance(cores, int | float)
    assert isinstance(mem, int | float)
    return {
        "disk": 0,
        "gpus": 0,
        "site": _REGIONS[min(15, int(rng.paretovariate(1.0)) - 1)],
        **row,
        "price": round(0.003 + 0.02 * cores * rng.lognormvariate(0, 0.3), 4),
        "cpu_free": round(100 * _free(rng), 1),
        "mem_free": int(mem * _free(rng)),
    }


def _with_columns(
    name: str, schema: Schema, machines: list[dict[str, Value]], asked: tuple[str, ...]
) -> Fleet:
    columns, words = {}, {}
    for attribute in asked:
        values = [machine[attribute] for machine in machines]
        if schema.attributes[schema.index(attribute)].kind == "text":
            tally: dict[Value, int] = {}
            for value in values:
                tally[value] = tally.get(value, 0) + 1
            order = sorted(tally, key=lambda text: (-tally[text], str(text)))
            words[attribute] = tuple(str(text) for text in order)
            place = {text: n for n, text in enumerate(order)}
            values = [place[value] for value in values]
        columns[attribute] = np.array([float(value) for value in values])
    return Fleet(name, schema, machines, columns, words)


def _ranks(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value's place among the distinct values' mass, in 0..1; ties stay ties."""
    ordered = np.sort(column)
    below = np.searchsorted(ordered, column, "left")
    return below / max(len(column), 1)
