"""What this machine is and what it has free, as attributes of the machine schema.

Each probe fails alone: where psutil or a tool cannot say (containers hide much), the attribute
is missing from the sample and the failure is counted. Static values are measured once. All of
this blocks, so it runs in a thread; nothing here knows of loops or records.
"""

import math
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path

from dhtos.core.scale import Linear
from dhtos.core.schema import Schema, Value, is_number, is_printable, scale_ends
from dhtos.errors import UsageError

Probe = Callable[[], "Value | Mapping[str, Value] | None"]
"""One measurement: a value, several by name, or None where there is nothing to say."""

NVIDIA_DEADLINE_S = 5.0
GPU_IDLE_PERCENT = 5.0
STEP_SHARE = 0.05  # of full scale: a smaller move is not news
_CPUINFO = Path("/proc/cpuinfo")

_ARCHITECTURES = {
    "amd64": "x86_64", "x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64", "i386": "i386",
    "i486": "i386", "i586": "i386", "i686": "i386", "armv6l": "armv6", "armv7l": "armv7",
    "armv8l": "armv7", "ppc64le": "ppc64le", "ppc64": "ppc64", "riscv64": "riscv64",
    "s390x": "s390x", "loongarch64": "loongarch64", "mips64": "mips64",
}  # fmt: skip


class Sampler:
    """The probes of one machine; `counters` says how often which one failed.

    `probes` replaces the measurement of a name, or adds one: a program under test tells what the
    machine is.
    """

    def __init__(
        self, disk_path: Path | None = None, probes: Mapping[str, Probe] | None = None
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._disk_path = str(disk_path or ".")
        self._cpu_times: tuple[float, float] | None = None
        self._static: dict[str, Value] | None = None
        self._static_probes: dict[str, Probe] = {
            "cores": _cores,
            "mem": partial(_memory, "total"),
            "disk": lambda: shutil.disk_usage(self._disk_path).total,
            "arch": _arch,
            "os": lambda: platform.system().lower(),
            "python": lambda: ".".join(platform.python_version_tuple()[:2]),
            "cpu_model": _cpu_model,
            "clock": _clock,
            "gpus": _gpus,
            "host": lambda: blake2b(socket.gethostname().encode(), digest_size=8).hexdigest(),
        }
        self._dynamic_probes: dict[str, Probe] = {
            "cpu_free": self._cpu_free,
            "load1": lambda: round(os.getloadavg()[0], 2),
            "mem_free": partial(_memory, "available"),
            "disk_free": lambda: shutil.disk_usage(self._disk_path).free,
            "gpus_free": self._gpus_free,
        }
        for name, probe in (probes or {}).items():
            kind = self._static_probes if name in self._static_probes else self._dynamic_probes
            kind[name] = probe

    def sample(self, schema: Schema) -> dict[str, Value]:
        """What the schema has a name for and the machine can say. Blocks up to some seconds."""
        if self._static is None:
            self._static = dict(self._run(self._static_probes))
        measured = self._static | dict(self._run(self._dynamic_probes))
        return {name: value for name, value in measured.items() if self._fits(schema, name, value)}

    def _run(self, probes: Mapping[str, Probe]) -> Iterator[tuple[str, Value]]:
        for name, probe in probes.items():
            try:
                value = probe()
            except Exception:  # a probe is foreign code: it fails alone, and is counted
                self.counters[name] += 1
                continue
            if isinstance(value, Mapping):
                yield from value.items()
            elif value is not None:
                yield name, value

    def _fits(self, schema: Schema, name: str, value: Value) -> bool:
        """A fleet's own schema may lack an attribute, or mean something else by its name."""
        if name not in schema:
            return False
        try:
            schema.check(name, value)
        except UsageError:
            self.counters[name] += 1
            return False
        return True

    def _cpu_free(self) -> float | None:
        """The idle share since the last sample; since boot for the first one."""
        import psutil

        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        before_idle, before_total = self._cpu_times or (0.0, 0.0)
        if total <= before_total:
            return None
        self._cpu_times = (idle, total)
        share = 100.0 * (idle - before_idle) / (total - before_total)
        return round(min(max(share, 0.0), 100.0), 1)

    def _gpus_free(self) -> int | None:
        if self._static is None or "gpus" not in self._static:
            return None
        used = [float(row[0]) for row in _nvidia("utilization.gpu")]
        return sum(percent < GPU_IDLE_PERCENT for percent in used)


def is_news(schema: Schema, known: Mapping[str, Value], sample: Mapping[str, Value]) -> bool:
    """Whether a sample says something that is worth a message to the group."""
    for name in known.keys() | sample.keys():
        before, after = known.get(name), sample.get(name)
        if before == after:
            continue
        if schema.attribute(name).role == "static" or not (is_number(before) and is_number(after)):
            return True
        if _moved(before, after, _full_scale(schema, name, sample)):
            return True
    return False


def _moved(before: float, after: float, full: float) -> bool:
    """Past 5 % of full scale; or, for what is nearly used up, past a power of two.

    A power of two counts only with a move of 5 % of the value, so that a value that swings
    around the boundary is not news at every swing.
    """
    step = abs(after - before)
    if step >= STEP_SHARE * full:
        return True
    if before <= 0 or after <= 0:
        return before != after and min(before, after) <= 0 < max(before, after)
    return math.frexp(before)[1] != math.frexp(after)[1] and step >= STEP_SHARE * max(before, after)


def _full_scale(schema: Schema, name: str, sample: Mapping[str, Value]) -> float:
    """What 100 % of a dynamic attribute is: the total it is a part of, or the declared range."""
    total = "cores" if name == "load1" else name.removesuffix("_free")
    whole = sample.get(total) if total != name else None
    if is_number(whole) and whole > 0:
        return whole
    ends = scale_ends(schema.attribute(name).scale)
    if isinstance(schema.attribute(name).scale, Linear):
        return ends[1] - ends[0]
    return math.inf


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory(kind: str) -> int:
    import psutil

    return int(getattr(psutil.virtual_memory(), kind))


def _arch() -> str:
    return _ARCHITECTURES.get(platform.machine().lower(), "other")


def _cpu_model() -> str | None:
    text = platform.processor()
    if sys.platform == "linux":
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                text = line.partition(":")[2]
                break
    text = " ".join(text.split())
    return text if text and is_printable(text, 128) else None


def _clock() -> int | None:
    import psutil

    frequency = psutil.cpu_freq()
    if frequency is None:
        return None
    megahertz = frequency.max or frequency.current
    return int(megahertz * 1e6) if megahertz else None


def _gpus() -> Mapping[str, Value] | None:
    """Count, model and memory of the accelerators, where `nvidia-smi` can tell."""
    rows = _nvidia("name", "memory.total")
    if not rows:
        return None
    name, mebibytes = rows[0]
    return {"gpus": len(rows), "gpu_model": name, "gpu_mem": int(float(mebibytes)) * 2**20}


def _nvidia(*columns: str) -> list[list[str]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    answer = subprocess.run(
        [tool, f"--query-gpu={','.join(columns)}", "--format=csv,noheader,nounits"],
        capture_output=True, check=True, text=True, timeout=NVIDIA_DEADLINE_S,
    )  # fmt: skip
    return [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines()]
