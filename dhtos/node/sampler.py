"""What this machine is and what it has free, as attributes of a schema.

Each probe fails alone: where psutil or a tool cannot say (containers hide much), the attribute
is missing from the sample and the failure is counted. Static values are measured once. A schema
takes what it has a name for; the machine schema leaves out `core_busy`, `cpu_pressure`,
`disk_read` and `disk_write`, which another may declare. All of this blocks, so it runs in a
thread; nothing here knows of loops or records.
"""

import math
import os
import platform
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path

from dhtos.core.scale import Linear
from dhtos.core.schema import Schema, Value, is_number, scale_ends
from dhtos.errors import UsageError
from dhtos.node import probes as measure
from dhtos.node.cgroup import Cgroups, CpuQuota
from dhtos.node.load import LoadWatch
from dhtos.node.rates import Rates

Probe = Callable[[], "Value | Mapping[str, Value] | None"]
"""One measurement: a value, several by name, or None where there is nothing to say."""

STEP_SHARE = 0.05  # of full scale: a smaller move is not news
FORECAST_SHARE = 0.25  # of the cores: a forecast is about seconds, so only a great change is told
RATE_FACTOR = 4.0  # traffic swings all the time
FORECASTS: Mapping[str, int] = {"load_5s": 5, "load_15s": 15}
FORECAST_ERROR = "load_error"
RATES = frozenset({"net_in", "net_out", "disk_read", "disk_write"})
BURDENS = frozenset({"core_busy", "cpu_pressure", "mem_pressure", "io_pressure", "temperature"})
"""Of these there can be too much, never too little: near zero they are no news."""


class Sampler:
    """The probes of one machine; `counters` says how often which one failed.

    `probes` replaces the measurement of a name, or adds one: a program under test tells what the
    machine is. `close` ends the thread that watches the load.
    """

    def __init__(
        self,
        disk_path: Path | None = None,
        probes: Mapping[str, Probe] | None = None,
        *,
        cgroups: Cgroups | None = None,
        load: LoadWatch | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._disk_path = str(disk_path or ".")
        self._cgroups = cgroups or Cgroups()
        self._load = load or LoadWatch()
        self._cpu = _Cpu(self._cgroups, clock, wall)
        self._network = Rates(clock, wall)
        self._disks = Rates(clock, wall)
        self._static: dict[str, Value] | None = None
        self._static_probes: dict[str, Probe] = {
            "cores": partial(measure.cores, self._cgroups),
            "mem": partial(measure.memory, self._cgroups),
            "disk": lambda: shutil.disk_usage(self._disk_path).total,
            "arch": measure.arch,
            "os": lambda: platform.system().lower(),
            "python": lambda: ".".join(platform.python_version_tuple()[:2]),
            "cpu_model": measure.cpu_model,
            "clock": measure.clock,
            "gpus": measure.gpus,
            "host": lambda: blake2b(socket.gethostname().encode(), digest_size=8).hexdigest(),
        }
        self._dynamic_probes: dict[str, Probe] = {
            "cpu_free": self._cpu.sample,
            "load1": lambda: round(os.getloadavg()[0], 2),
            "mem_free": partial(measure.memory_free, self._cgroups),
            "disk_free": lambda: shutil.disk_usage(self._disk_path).free,
            "gpus_free": self._gpus_free,
            "cpu_pressure": partial(measure.pressure, "cpu"),
            "mem_pressure": partial(measure.pressure, "memory"),
            "io_pressure": partial(measure.pressure, "io"),
            "net": lambda: _named(
                ("net_in", "net_out"), self._network.total(measure.network_counters())
            ),
            "disks": lambda: _named(
                ("disk_read", "disk_write"), self._disks.total(measure.disk_counters())
            ),
            "temperature": measure.temperature,
            "battery": measure.battery,
            "load_forecast": self._forecast,
        }
        for name, probe in (probes or {}).items():
            kind = self._static_probes if name in self._static_probes else self._dynamic_probes
            kind.pop(name, None)
            kind[name] = probe  # the last one: it stands over a probe that tells several names

    def sample(self, schema: Schema) -> dict[str, Value]:
        """What the schema has a name for and the machine can say. Blocks up to some seconds."""
        if self._static is None:
            self._static = dict(self._run(self._static_probes))
        if any(name in schema for name in FORECASTS):
            self._load.start()
        measured = self._static | dict(self._run(self._dynamic_probes))
        if self._load.failures:
            self.counters["load_forecast"] = self._load.failures
        return {name: value for name, value in measured.items() if self._fits(schema, name, value)}

    def close(self) -> None:
        """End the thread that watches the load; may be called again."""
        self._load.close()

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

    def _gpus_free(self) -> Mapping[str, Value] | None:
        if self._static is None or "gpus" not in self._static:
            return None
        return measure.gpus_free()

    def _forecast(self) -> Mapping[str, Value]:
        """Forecasts that beat the last value, and the error of the farthest of them."""
        made = self._load.forecasts
        told: dict[str, Value] = {}
        for name, ahead_s in FORECASTS.items():
            if ahead_s in made:
                told[name] = round(made[ahead_s].value, 2)
                told[FORECAST_ERROR] = round(made[ahead_s].error, 2)
        return told


class _Cpu:
    """Idle shares of the CPUs this process may use, since the last sample."""

    def __init__(
        self, cgroups: Cgroups, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._cgroups = cgroups
        self._groups = Rates(clock, wall)
        self._before: Mapping[str, tuple[float, float]] = {}

    def sample(self) -> Mapping[str, Value] | None:
        """Of all together, and how busy the busiest one is; since boot for the first sample."""
        counters = measure.cpu_counters()
        shares = []
        for name, (idle, total) in counters.items():
            idle_before, total_before = self._before.get(name, (0.0, 0.0))
            if total > total_before:
                share = (idle - idle_before) / (total - total_before)
                shares.append(min(max(share, 0.0), 1.0))
        quotas = self._cgroups.cpu()
        used = self._used(quotas)
        if not shares:
            return None
        self._before = counters
        usable = min([len(shares), *(quota.cores for quota in quotas)])
        left = [max(q.cores - used[q.group], 0.0) for q in quotas if q.group in used]
        free = min([sum(shares), usable, *left])
        return {
            "cpu_free": round(100 * free / usable, 1),
            "core_busy": round(100 * (1 - min(shares))),
        }

    def _used(self, quotas: list[CpuQuota]) -> Mapping[str, float]:
        """CPUs that each group has kept busy since the last sample, where it is known."""
        used_s = {q.group: (q.used_s,) for q in quotas if q.used_s is not None}
        rates = self._groups.each(used_s)
        return {} if rates is None else {group: busy for group, (busy,) in rates.items()}


def _named(names: tuple[str, ...], rates: tuple[float, ...] | None) -> Mapping[str, Value] | None:
    """Whole bytes a second, two digits of them: more are noise, and cost room in a record."""
    if rates is None:
        return None
    return {name: int(float(f"{rate:.2g}")) for name, rate in zip(names, rates, strict=True)}


def is_news(schema: Schema, known: Mapping[str, Value], sample: Mapping[str, Value]) -> bool:
    """Whether a sample says something that is worth a message to the group."""
    for name in known.keys() | sample.keys():
        before, after = known.get(name), sample.get(name)
        if before == after:
            continue
        if schema.attribute(name).role == "static" or not (is_number(before) and is_number(after)):
            return True
        if _moved(schema, name, (before, after), sample):
            return True
    return False


def _moved(
    schema: Schema, name: str, values: tuple[float, float], sample: Mapping[str, Value]
) -> bool:
    """Past 5 % of full scale; or, for what is nearly used up, past a power of two.

    A power of two counts only with a move of 5 % of the value, so that a value that swings
    around the boundary is not news at every swing. What swings by itself has larger steps.
    """
    small, large = sorted(values)
    step = large - small
    if name == FORECAST_ERROR:
        return False
    if name in FORECASTS:
        return step >= FORECAST_SHARE * _full_scale(schema, name, sample)
    if name in RATES:
        floor = max(scale_ends(schema.attribute(name).scale)[0], 1.0)
        return large >= RATE_FACTOR * max(small, floor)
    if step >= STEP_SHARE * _full_scale(schema, name, sample):
        return True
    if name in BURDENS:
        return False
    if small <= 0:
        return small <= 0 < large
    return math.frexp(small)[1] != math.frexp(large)[1] and step >= STEP_SHARE * large


def _full_scale(schema: Schema, name: str, sample: Mapping[str, Value]) -> float:
    """What 100 % of a dynamic attribute is: the total it is a part of, or the declared range."""
    total = "cores" if name.startswith("load") else name.removesuffix("_free")
    whole = sample.get(total) if total != name else None
    if is_number(whole) and whole > 0:
        return whole
    ends = scale_ends(schema.attribute(name).scale)
    if isinstance(schema.attribute(name).scale, Linear):
        return ends[1] - ends[0]
    return math.inf
