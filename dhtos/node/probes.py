"""The measurements of one machine, each for itself: one function, one question to the system.

A probe returns its value, or None where there is nothing to say; whatever it raises is its own
failure. All of them block.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from dhtos.core.schema import Value, is_printable
from dhtos.node.cgroup import Cgroups
from dhtos.node.rates import Counters

NVIDIA_DEADLINE_S = 5.0
GPU_IDLE_PERCENT = 5.0
CPUINFO = Path("/proc/cpuinfo")
LOADAVG = Path("/proc/loadavg")
PRESSURE = Path("/proc/pressure")
SYSTEM = Path("/sys")

_ARCHITECTURES = {
    "amd64": "x86_64", "x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64", "i386": "i386",
    "i486": "i386", "i586": "i386", "i686": "i386", "armv6l": "armv6", "armv7l": "armv7",
    "armv8l": "armv7", "ppc64le": "ppc64le", "ppc64": "ppc64", "riscv64": "riscv64",
    "s390x": "s390x", "loongarch64": "loongarch64", "mips64": "mips64",
}  # fmt: skip
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")


# --- processors -----------------------------------------------------------------------------------


def usable_cpus() -> list[int] | None:
    """The numbers of the CPUs that this process may run on; None where the system cannot say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def cores(cgroups: Cgroups) -> float | None:
    """The CPUs this process may use: those of its mask, or fewer by a quota, as 1.5."""
    usable = usable_cpus()
    count = os.cpu_count() if usable is None else len(usable)
    quotas = [quota.cores for quota in cgroups.cpu()]
    return None if count is None else round(min([count, *quotas]), 2)


def cpu_counters() -> dict[str, tuple[float, float]]:
    """Per usable CPU: seconds idle, and seconds in all."""
    import psutil

    usable = usable_cpus()
    counters = {}
    for number, times in enumerate(psutil.cpu_times(percpu=True)):
        if usable is None or number in usable:
            idle = times.idle + getattr(times, "iowait", 0.0)
            guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
            counters[str(number)] = (idle, sum(times) - guests)  # guests are in `user` already
    return counters


def runnable() -> float:
    """How many tasks run or wait for a CPU at this moment, without the one that asks.

    Raises OSError where the system is not Linux.
    """
    return max(int(LOADAVG.read_text().split()[3].partition("/")[0]) - 1, 0)


def arch() -> str:
    """The instruction set, under one name each."""
    return _ARCHITECTURES.get(platform.machine().lower(), "other")


def cpu_model() -> str | None:
    """The model of the CPU, as the maker calls it."""
    text = platform.processor()
    if sys.platform == "linux":
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                text = line.partition(":")[2]
                break
    text = " ".join(text.split())
    return text if text and is_printable(text, 128) else None


def clock() -> int | None:
    """The highest frequency of the CPU."""
    import psutil

    frequency = psutil.cpu_freq()
    if frequency is None:
        return None
    megahertz = frequency.max or frequency.current
    return int(megahertz * 1e6) if megahertz else None


# --- memory ---------------------------------------------------------------------------------------


def memory(cgroups: Cgroups) -> int:
    """The memory this process may use."""
    import psutil

    return min([int(psutil.virtual_memory().total), *(m.limit for m in cgroups.memory())])


def memory_free(cgroups: Cgroups) -> int:
    """The part of it that is free, or would be for the asking."""
    import psutil

    return min([int(psutil.virtual_memory().available), *(m.free for m in cgroups.memory())])


def pressure(kind: str) -> int | None:
    """Per cent of the last ten seconds in which some task stalled for want of it (Linux PSI).

    `kind` is cpu, memory or io.
    """
    try:
        text = (PRESSURE / kind).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None  # an older kernel, or another system
    figures = dict(word.split("=") for word in text.splitlines()[0].split()[1:])
    return round(float(figures["avg10"]))


# --- devices --------------------------------------------------------------------------------------


def network_counters() -> Counters:
    """Per network device: bytes in, bytes out."""
    import psutil

    devices = psutil.net_io_counters(pernic=True, nowrap=False)
    told = _physical(list(devices), SYSTEM / "class" / "net")
    return {name: (devices[name].bytes_recv, devices[name].bytes_sent) for name in told}


def disk_counters() -> Counters:
    """Per disk: bytes read, bytes written."""
    import psutil

    devices = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
    told = _physical(list(devices), SYSTEM / "block")
    return {name: (devices[name].read_bytes, devices[name].write_bytes) for name in told}


def _physical(names: list[str], folder: Path) -> list[str]:
    """The devices that are hardware; all but loopbacks where none is, as in a container.

    A bridge, a tunnel or a mapped disk counts again what the device below it counts.
    """
    hardware = [name for name in names if (folder / name / "device").exists()]
    return hardware or [name for name in names if not name.startswith(("lo", "ram", "zram"))]


def temperature() -> int | None:
    """Degrees Celsius of the hottest sensor of the CPU, or of all where none is the CPU's."""
    import psutil

    if not hasattr(psutil, "sensors_temperatures"):
        return None
    sensors = psutil.sensors_temperatures()
    chosen = [sensors[name] for name in _CPU_SENSORS if name in sensors] or [*sensors.values()]
    # A sensor that is not connected reads as zero or as absurdly cold.
    heats = [entry.current for entries in chosen for entry in entries if entry.current > 0]
    return round(max(heats)) if heats else None


def battery() -> dict[str, Value] | None:
    """How full the battery is, and whether the machine is plugged in."""
    import psutil

    found = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if found is None:
        return None
    told: dict[str, Value] = {"battery": round(min(max(found.percent, 0), 100))}
    if found.power_plugged is not None:
        told["plugged"] = bool(found.power_plugged)
    return told


# --- accelerators ---------------------------------------------------------------------------------


def gpus() -> dict[str, Value] | None:
    """Count, model and memory of the accelerators, where `nvidia-smi` can tell."""
    rows = nvidia("name", "memory.total")
    if not rows:
        return None
    name, mebibytes = rows[0]
    told: dict[str, Value] = {"gpus": len(rows), "gpu_model": name}
    total = _mebibytes(mebibytes)
    return told if total is None else told | {"gpu_mem": total}


def gpus_free() -> dict[str, Value] | None:
    """How many accelerators are idle, and the memory free on the one that has most."""
    rows = nvidia("utilization.gpu", "memory.free")
    told: dict[str, Value] = {}
    used = [float(row[0]) for row in rows if _is_number(row[0])]
    free = [bytes_ for row in rows if (bytes_ := _mebibytes(row[1])) is not None]
    if used:
        told["gpus_free"] = sum(percent < GPU_IDLE_PERCENT for percent in used)
    if free:
        told["gpu_mem_free"] = max(free)
    return told or None


def nvidia(*columns: str) -> list[list[str]]:
    """One row for each accelerator, as `nvidia-smi` prints it; none where it is not installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    answer = subprocess.run(
        [tool, f"--query-gpu={','.join(columns)}", "--format=csv,noheader,nounits"],
        capture_output=True, check=True, text=True, timeout=NVIDIA_DEADLINE_S,
    )  # fmt: skip
    return [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines()]


def _is_number(cell: str) -> bool:
    """A cell is `[N/A]` where the accelerator does not tell."""
    return cell.replace(".", "", 1).isdecimal()


def _mebibytes(cell: str) -> int | None:
    return int(float(cell)) * 2**20 if _is_number(cell) else None
