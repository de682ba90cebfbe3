"""Who comes, how long it stays, and what is asked of those who are there: for `churn`.

Sessions are drawn from a distribution, or from those of Skype in 2005 (Guha, Daswani, Jain,
IPTPS 2006; Repository of Availability Traces).
"""

import lzma
from collections.abc import Iterator, Mapping
from functools import cache
from math import gamma, inf
from pathlib import Path
from random import Random
from typing import Any

from dhtos.cli.demo_catalogue import shipped_catalogue
from dhtos.core.machine_schema import MACHINE_SCHEMA as SCHEMA
from dhtos.core.predicate import Box, OneOf, Predicate, Range
from dhtos.core.record import Record, make_record

TRACE = Path(__file__).parents[2] / "shared" / "data" / "churn_skype2005" / "skype.avt.xz"
WEIBULL_SHAPE = 0.55
SELECTIVITIES = (0.1, 0.01, 0.001)
POOL = 4000  # machines that predicates are tuned on
PREDICATES = 60  # of each selectivity
_NUMBERS = ("cores", "mem", "price", "gpus", "mem_free", "disk")
_TEXTS = ("arch", "provider", "site", "family")


class Sessions:
    """How long machines stay."""

    def __init__(self, kind: str, mean_s: float, rng: Random, trace: Path = TRACE) -> None:
        self._rng = rng
        self._kind = kind
        self._mean_s = mean_s
        self._traced = trace_sessions(trace) if kind == "skype" else []

    def draw(self) -> float:
        """A whole session, in seconds."""
        match self._kind:
            case "weibull":
                scale_s = self._mean_s / gamma(1 + 1 / WEIBULL_SHAPE)
                return self._rng.weibullvariate(scale_s, WEIBULL_SHAPE)
            case "exponential":
                return self._rng.expovariate(1 / self._mean_s)
            case _:
                return self._rng.choice(self._traced)

    def rests(self, count: int) -> list[float]:
        """What is left of the sessions that are under way at a random moment."""
        whole = [self.draw() for _ in range(max(1000, 10 * count))]
        met = self._rng.choices(whole, weights=whole, k=count)
        return [length * self._rng.random() for length in met]


def trace_sessions(path: Path) -> list[float]:
    """The lengths of all sessions in an `.avt` file: `id count start end start end ...`."""
    if not path.exists():
        raise SystemExit(f"no trace at {path}: give one with --trace, or other --sessions")
    lengths = []
    with lzma.open(path, "rt", encoding="ascii") as lines:
        for line in lines:
            times = [float(word) for word in line.split()[2:]]
            lengths += [b - a for a, b in zip(times[::2], times[1::2], strict=True) if b > a]
    return lengths


def machines(rng: Random) -> Iterator[dict[str, Any]]:
    """Machines without end: real types, made-up prices and loads."""
    table = [machine.attributes for machine in shipped_catalogue(SCHEMA).machines]
    while True:
        row = rng.choice(table)
        cores = float(row["cores"])
        values = {
            **row,
            "price": round(0.003 + 0.02 * cores * rng.lognormvariate(0, 0.3), 4),
            "cpu_free": round(rng.uniform(0, 100), 1),
            "load1": round(rng.random() * cores, 2),
            "mem_free": int(float(row["mem"]) * rng.random()),
        }
        yield {name: SCHEMA.check(name, value) for name, value in values.items()}


@cache
def predicates() -> dict[float, list[Predicate]]:
    """Random questions by the share of machines that match, within a factor of two.

    They are the same in every setting.
    """
    rng = Random("questions")
    source = machines(rng)
    pool = [next(source) for _ in range(POOL)]
    records = [record(values, n.to_bytes(20), ("10.0.0.1", 1), 1) for n, values in enumerate(pool)]
    found: dict[float, list[Predicate]] = {share: [] for share in SELECTIVITIES}
    while min(map(len, found.values())) < PREDICATES:
        predicate = _predicate(rng, pool)
        matches = predicate.bind(SCHEMA).matches
        share = sum(map(matches, records)) / POOL
        for target in SELECTIVITIES:
            if target / 2 <= share <= target * 2 and len(found[target]) < PREDICATES:
                found[target].append(predicate)
    return found


def _predicate(rng: Random, pool: list[dict[str, Any]]) -> Predicate:
    terms: list[Any] = []
    for name in rng.sample(_NUMBERS + _TEXTS, rng.randint(1, 4)):
        value = rng.choice(pool).get(name)
        if value is None:
            continue
        index = SCHEMA.index(name)
        if name in _TEXTS:
            terms.append(OneOf(index, (value,)))
        else:
            terms.append(Range(index, *((value, inf) if rng.random() < 0.7 else (-inf, value))))
    return Predicate((Box(tuple(terms)),))


def record(
    values: Mapping[str, Any], node_id: bytes, endpoint: tuple[str, int], seq: int, rev: int = 1
) -> Record:
    """What the node of a machine advertises."""
    identity = node_id + bytes(12)
    return make_record(
        SCHEMA, values, {}, node_id=node_id, endpoint=endpoint, seq=seq, rev=rev, identity=identity
    )
