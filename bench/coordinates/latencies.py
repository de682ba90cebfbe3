"""Round trips between real places, as square tables of seconds, and where they come from.

planetlab      490 hosts of PlanetLab, first slice of uofa-rzhu3/NetLatency-Data (MIT)
wondernetwork  241 cities, WonderNetwork's pings of 10 November 2018, the least of the day, as kept
               in ConsenSys/wittgenstein (Apache-2.0)
aws            the regions of one cloud, medians of a year from cloudping.co, as kept in
               commonwarexyz/monorepo (MIT or Apache-2.0)
planetlab-96   every fifth host of the first; it is shipped, so that tests can run anywhere

Parameters were chosen on `planetlab` alone; the others are checks. The large tables are not
shipped: they are looked for in `shared/data` beside the checkout.
"""

import csv
import json
import lzma
from pathlib import Path

import numpy as np

from bench.rivals.model import Floats

DATA = Path(__file__).parents[3] / "shared" / "data"
SHIPPED = Path(__file__).parent / "planetlab96.tsv"
NAMES = ("planetlab", "wondernetwork", "aws", "planetlab-96")


def load(name: str) -> Floats:
    """A symmetric table with zeros where nothing was measured; FileNotFoundError if absent."""
    match name:
        case "planetlab":
            with lzma.open(_found("lat_planetlab490", "slice01.tsv.xz"), "rt") as lines:
                return _symmetric(_numbers(lines.read()))
        case "planetlab-96":
            return _symmetric(_numbers(SHIPPED.read_text()))
        case "wondernetwork":
            return _symmetric(_pings(_found("lat_wondernetwork2018", "pings.csv.xz")))
        case "aws":
            table = json.loads(_found("lat_aws_cloudping2025", "p50.json").read_text())["data"]
            regions = sorted(table)
            return _symmetric(
                np.array([[table[a].get(b, 0.0) for b in regions] for a in regions], dtype=float)
            )
        case _:
            raise ValueError(f"a matrix is one of {', '.join(NAMES)}, got {name!r}")


def is_here(name: str) -> bool:
    """Whether `load` would find the table."""
    try:
        load(name)
    except FileNotFoundError:
        return False
    return True


def _found(folder: str, name: str) -> Path:
    path = DATA / folder / name
    if not path.exists():
        raise FileNotFoundError(f"this table is not shipped, and not at {path}")
    return path


def _numbers(text: str) -> Floats:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return np.array([[float(cell) for cell in line.split("\t") if cell.strip()] for line in lines])


def _pings(path: Path) -> Floats:
    with lzma.open(path, "rt") as lines:
        rows = list(csv.DictReader(lines))
    size = 1 + max(int(row[end]) for row in rows for end in ("src", "dst"))
    table = np.zeros((size, size))
    for row in rows:
        table[int(row["src"]), int(row["dst"])] = float(row["min_ms"])
    return table


def _symmetric(table_ms: Floats) -> Floats:
    """The mean of both ways, or the one that was measured."""
    known = np.isfinite(table_ms) & (table_ms > 0)
    total = np.where(known, table_ms, 0.0)
    total, count = total + total.T, known.astype(float) + known.T
    found = np.divide(total, count, out=np.zeros_like(total), where=count > 0) / 1000
    np.fill_diagonal(found, 0.0)
    return found
