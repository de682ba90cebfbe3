"""What is placed where: machines with GPUs, and the pods that ask for them.

openb   the 1213 machines with GPUs (6212 of them) and 8152 pods of a production cluster, from
        Alibaba's cluster trace of 2023 (research use only, so it is not shipped: looked for in
        `shared/data` beside the checkout), published with FGD (Weng et al., USENIX ATC 2023)
made    machines and pods drawn with the proportions of that trace, rounded: shipped, any size
"""

import csv
import lzma
from dataclasses import dataclass
from pathlib import Path
from random import Random

DATA = Path(__file__).parents[3] / "shared" / "data" / "nodes_openb2023"
NAMES = ("openb", "made")
MILLI = 1000
"""A whole GPU, and a whole CPU."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What is asked for: a share of one GPU (`piece` of 1000) or `gpus` whole ones."""

    cpu: int  # milli
    mem: int  # MiB
    gpus: int = 0
    piece: int = MILLI

    @property
    def gpu_milli(self) -> int:
        """All that it takes of GPUs."""
        return self.gpus * self.piece


@dataclass(frozen=True, slots=True)
class Shape:
    """A machine while it is empty."""

    cpu: int  # milli
    mem: int  # MiB
    gpus: int


@dataclass(frozen=True, slots=True)
class Trace:
    """A cluster and the pods it saw."""

    name: str
    shapes: tuple[Shape, ...]
    pods: tuple[Pod, ...]

    @property
    def gpu_milli(self) -> int:
        """The GPUs of all machines."""
        return MILLI * sum(shape.gpus for shape in self.shapes)

    def arrivals(self, rng: Random, demand: float) -> list[Pod]:
        """All pods, some of them twice, until `demand` of the GPUs is asked for; shuffled."""
        pods = list(self.pods)
        rng.shuffle(pods)
        asked, wanted = sum(pod.gpu_milli for pod in pods), demand * self.gpu_milli
        while asked > wanted:
            asked -= pods.pop().gpu_milli
        while asked < wanted:
            pods.append(rng.choice(self.pods))
            asked += pods[-1].gpu_milli
        rng.shuffle(pods)
        return pods


def load(name: str) -> Trace:
    """A trace by name; FileNotFoundError where it is not here."""
    match name:
        case "openb":
            return _openb()
        case "made":
            return made(120, 1)
        case _:
            raise ValueError(f"a trace is one of {', '.join(NAMES)}, got {name!r}")


def is_here(name: str) -> bool:
    """Whether `load` would find it."""
    try:
        load(name)
    except FileNotFoundError:
        return False
    return True


def published() -> dict[str, dict[str, float]]:
    """GPU allocation as published with the trace, by policy and demand; FileNotFoundError."""
    with _found("published_summary.csv").open() as lines:
        rows = [r for r in csv.DictReader(lines) if r["workload"] == "openb_pod_list_default"]
    return {
        row["policy"].partition("-")[2]: {d: float(row[f"allo_at_{d}"]) for d in ("100", "130")}
        for row in rows
    }


def _found(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        raise FileNotFoundError(f"this trace is not shipped, and not at {path}")
    return path


def _openb() -> Trace:
    with _found("openb_node_list_all_node.csv").open() as lines:
        rows = [
            Shape(int(row["cpu_milli"]), int(row["memory_mib"]), int(row["gpu"]))
            for row in csv.DictReader(lines)
        ]
    shapes = tuple(shape for shape in rows if shape.gpus)  # as published: without CPU-only ones
    with lzma.open(_found("openb_pod_list_default.csv.xz"), "rt") as lines:
        pods = tuple(
            Pod(
                int(row["cpu_milli"]),
                int(row["memory_mib"]),
                int(row["num_gpu"]),
                int(row["gpu_milli"]) if row["gpu_milli"] != "0" else MILLI,
            )
            for row in csv.DictReader(lines)
        )
    return Trace("openb", shapes, pods)


# --- one that can be shipped ----------------------------------------------------------------------

_SHAPES = (  # per cent, CPUs, GiB, GPUs
    (48, 96, 384, 8), (32, 104, 512, 2), (10, 16, 120, 2), (3, 128, 768, 8), (5, 32, 128, 4),
    (2, 8, 32, 1),
)  # fmt: skip
_PODS = (  # per cent, CPUs, GiB, GPUs, of each
    (19, 3, 6, 1, 0.8), (25, 11, 48, 1, 1.0), (13, 8, 32, 1, 1.0), (10, 10, 44, 1, 0.5),
    (10, 16, 64, 1, 1.0), (9, 4, 24, 1, 0.3), (8, 12, 56, 0, 1.0), (4, 32, 48, 0, 1.0),
    (1.4, 88, 320, 8, 1.0), (0.6, 24, 96, 2, 1.0),
)  # fmt: skip


def made(machines: int, seed: int) -> Trace:
    """A cluster of that size, and pods for about all of its GPUs, each somewhat unlike others."""
    rng = Random(f"made {seed}")
    rows = rng.choices(_SHAPES, [row[0] for row in _SHAPES], k=machines)
    shapes = tuple(Shape(cpus * MILLI, gib * 1024, gpus) for _, cpus, gib, gpus in rows)
    total, asked, pods = MILLI * sum(shape.gpus for shape in shapes), 0, []
    while asked < total:
        _, cpus, gib, gpus, share = rng.choices(_PODS, [row[0] for row in _PODS])[0]
        cpu = round(cpus * rng.choice((0.75, 1.0, 1.0, 1.0, 1.25)) * MILLI)
        piece = round(MILLI * share * (rng.choice((0.75, 1.0, 1.0, 1.2)) if share < 1 else 1))
        pods.append(Pod(cpu, round(gib * rng.choice((0.75, 1.0, 1.0)) * 1024), gpus, piece))
        asked += pods[-1].gpu_milli
    return Trace("made", shapes, tuple(pods))
