"""The sampler: what this machine says, how a failing probe is left out, what counts as news."""

import math
import os
import platform
import subprocess
from typing import NamedTuple

import psutil
import pytest

from dhtos.core.forecast import Forecast
from dhtos.core.schema import Attribute, Hashed, Linear, Schema, default_schema
from dhtos.node import probes
from dhtos.node.cgroup import CpuQuota
from dhtos.node.load import LoadWatch
from dhtos.node.sampler import Sampler, is_news

SCHEMA = default_schema()
GIB = 2**30


def test_a_sample_of_this_machine():
    sample = Sampler().sample(SCHEMA)
    assert sample["cores"] > 0
    assert 0 < sample["mem"] <= psutil.virtual_memory().total
    assert 0 <= sample["mem_free"] <= sample["mem"]
    assert 0 <= sample["disk_free"] <= sample["disk"]
    assert 0 <= sample["cpu_free"] <= 100
    assert sample["load1"] >= 0
    assert sample["os"] == platform.system().lower()
    assert sample["python"] == platform.python_version().rpartition(".")[0]
    assert len(sample["host"]) == 16
    for name, value in sample.items():
        SCHEMA.check(name, value)


def test_a_failing_probe_is_missing_and_counted(monkeypatch):
    def broken(*args):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "virtual_memory", broken)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    sampler = Sampler()
    sample = sampler.sample(SCHEMA)
    assert not {"mem", "mem_free", "clock"} & sample.keys()
    assert sampler.counters == {"mem": 1, "mem_free": 1}
    assert "cores" in sample


def test_static_values_are_measured_once():
    calls = []
    sampler = Sampler(probes={"cores": lambda: calls.append(1) or 8})
    assert sampler.sample(SCHEMA)["cores"] == sampler.sample(SCHEMA)["cores"] == 8
    assert len(calls) == 1


def test_probes_replace_and_add():
    sampler = Sampler(probes={"mem_free": lambda: 5 * GIB, "price_spot": lambda: 0.02})
    sample = sampler.sample(SCHEMA)
    assert sample["mem_free"] == 5 * GIB
    assert sample["price_spot"] == 0.02


def test_a_value_the_schema_refuses_is_left_out():
    sampler = Sampler(probes={"load1": lambda: math.nan, "mem_free": lambda: "lots"})
    sample = sampler.sample(SCHEMA)
    assert not {"load1", "mem_free"} & sample.keys()
    assert sampler.counters["load1"] == sampler.counters["mem_free"] == 1


def test_a_fleet_with_its_own_schema_gets_what_it_names():
    schema = Schema("tiny", 0, (Attribute("os", "text", "static", Hashed()),))
    assert set(Sampler().sample(schema)) == {"os"}


# --- the CPUs -------------------------------------------------------------------------------------


class Groups:
    """Control groups that say what they are told to."""

    def __init__(self):
        self.quotas = []

    def cpu(self):
        return self.quotas

    def memory(self):
        return []


class Times(NamedTuple):
    user: float
    idle: float


class Cpus:
    """CPUs whose seconds are spent by hand, seen through some control groups."""

    def __init__(self, monkeypatch, count):
        self.seconds = [[0.0, 0.0] for _ in range(count)]  # busy, idle
        self.groups = Groups()
        self.now = 100.0
        monkeypatch.setattr(
            psutil, "cpu_times", lambda percpu: [Times(*seconds) for seconds in self.seconds]
        )
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)), raising=False)
        self.sampler = Sampler(
            cgroups=self.groups, load=LoadWatch(lambda: 0.0), clock=self.clock, wall=self.clock
        )

    def clock(self):
        return self.now

    def spend(self, *busy, elapsed=10.0):
        """Let time pass, each CPU busy for its part of it."""
        self.now += elapsed
        for seconds, part in zip(self.seconds, busy, strict=True):
            seconds[0] += part * elapsed
            seconds[1] += (1 - part) * elapsed

    def sample(self):
        return self.sampler.sample(OWN)


OWN = Schema(
    "own",
    0,
    tuple(
        Attribute(name, "number", "dynamic", Linear(0, 100))
        for name in ("cpu_free", "core_busy", "cpu_pressure", "disk_read", "disk_write")
    ),
)


def test_cpu_free_is_the_share_since_the_last_sample(monkeypatch):
    cpus = Cpus(monkeypatch, 2)
    cpus.spend(0.5, 0.0)
    assert cpus.sample()["cpu_free"] == 75
    cpus.spend(1.0, 0.0)
    sample = cpus.sample()
    assert (sample["cpu_free"], sample["core_busy"]) == (50, 100)
    assert "cpu_free" not in cpus.sample()


def test_a_counter_of_one_cpu_that_stands_still_leaves_the_others(monkeypatch):
    cpus = Cpus(monkeypatch, 2)
    cpus.spend(0.5, 0.5)
    cpus.sample()
    cpus.seconds[0][0] += 10.0
    cpus.now += 10
    assert cpus.sample()["cpu_free"] == 0


def test_under_a_quota_cpu_free_is_a_share_of_the_quota(monkeypatch):
    cpus = Cpus(monkeypatch, 8)
    cpus.groups.quotas = [CpuQuota("web", 2.0, 100.0)]
    cpus.spend(*[0.1] * 8)
    assert cpus.sample()["cpu_free"] == 100  # what the group used before is not known yet
    cpus.groups.quotas = [CpuQuota("web", 2.0, 115.0)]  # 1.5 of 2 CPUs for 10 s
    cpus.spend(*[0.2] * 8)
    assert cpus.sample()["cpu_free"] == 25


def test_a_quota_on_a_busy_machine_is_not_free(monkeypatch):
    cpus = Cpus(monkeypatch, 2)
    cpus.groups.quotas = [CpuQuota("web", 1.0, 0.0)]
    cpus.spend(0.0, 0.0)
    cpus.sample()
    cpus.spend(0.9, 0.9)
    assert cpus.sample()["cpu_free"] == 20


def test_the_tightest_of_several_groups_counts(monkeypatch):
    cpus = Cpus(monkeypatch, 4)
    cpus.groups.quotas = [CpuQuota("pod", 2.0, 0.0), CpuQuota("slice", 3.0, 0.0)]
    cpus.spend(0.0, 0.0, 0.0, 0.0)
    cpus.sample()
    cpus.groups.quotas = [CpuQuota("pod", 2.0, 5.0), CpuQuota("slice", 3.0, 28.0)]
    cpus.spend(0.0, 0.0, 0.0, 0.0)
    assert cpus.sample()["cpu_free"] == pytest.approx(10)  # the slice has 0.2 of 3 CPUs left


def test_a_group_over_its_quota_has_nothing_free(monkeypatch):
    cpus = Cpus(monkeypatch, 4)
    cpus.groups.quotas = [CpuQuota("web", 1.0, 0.0)]
    cpus.spend(0.0, 0.0, 0.0, 0.0)
    cpus.sample()
    cpus.groups.quotas = [CpuQuota("web", 1.0, 40.0)]
    cpus.spend(1.0, 1.0, 1.0, 1.0)
    assert cpus.sample()["cpu_free"] == 0


# --- devices --------------------------------------------------------------------------------------


def test_rates_need_two_samples(monkeypatch):
    now = [100.0]
    network = iter([{"eth0": (0, 0)}, {"eth0": (123_456_789, 50)}, {"eth0": (0, 0)}])
    monkeypatch.setattr(probes, "network_counters", lambda: next(network))
    sampler = Sampler(clock=lambda: now[0], wall=lambda: now[0], load=LoadWatch(lambda: 0.0))
    assert not {"net_in", "net_out"} & sampler.sample(SCHEMA).keys()
    now[0] += 10
    sample = sampler.sample(SCHEMA)
    assert (sample["net_in"], sample["net_out"]) == (12_000_000, 5)
    now[0] += 10
    assert not {"net_in", "net_out"} & sampler.sample(SCHEMA).keys()
    assert sampler.counters["net"] == 0
    sampler.close()


def test_a_schema_may_ask_for_what_the_default_one_leaves_out(monkeypatch):
    now = [100.0]
    disks = iter([{"sda": (0, 0)}, {"sda": (400, 900)}])
    monkeypatch.setattr(probes, "disk_counters", lambda: next(disks))
    monkeypatch.setattr(probes, "pressure", lambda kind: 7 if kind == "cpu" else None)
    sampler = Sampler(clock=lambda: now[0], wall=lambda: now[0])
    sampler.sample(OWN)
    now[0] += 10
    sample = sampler.sample(OWN)
    assert (sample["disk_read"], sample["disk_write"], sample["cpu_pressure"]) == (40, 90, 7)
    assert not {"core_busy", "cpu_pressure", "disk_read"} & {a.name for a in SCHEMA.attributes}


# --- forecasts ------------------------------------------------------------------------------------


class Foretold(LoadWatch):
    """A watch that says what it is told, and never looks."""

    def __init__(self, forecasts):
        super().__init__()
        self.forecasts = forecasts
        self.started = self.closed = 0

    def start(self):
        self.started += 1

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(
    ("forecasts", "told"),
    [
        ({}, {}),
        (
            {5: Forecast(1.234, 0.3), 15: Forecast(2.0, 0.456)},
            {"load_5s": 1.23, "load_15s": 2.0, "load_error": 0.46},
        ),
        ({5: Forecast(1.0, 0.3)}, {"load_5s": 1.0, "load_error": 0.3}),
        ({15: Forecast(0.0, 0.7)}, {"load_15s": 0.0, "load_error": 0.7}),
    ],
)
def test_forecasts_are_said_with_the_error_of_the_farthest(forecasts, told):
    watch = Foretold(forecasts)
    sampler = Sampler(load=watch)
    sample = sampler.sample(SCHEMA)
    assert {name: v for name, v in sample.items() if name.startswith("load_")} == told
    assert watch.started == 1
    sampler.close()
    assert watch.closed == 1


def test_a_watch_that_fails_is_counted():
    watch = Foretold({})
    watch.failures = 5
    sampler = Sampler(load=watch)
    sampler.sample(SCHEMA)
    assert sampler.counters["load_forecast"] == 5


def test_a_schema_without_forecasts_starts_no_thread():
    watch = Foretold({})
    Sampler(load=watch).sample(OWN)
    assert watch.started == 0


# --- accelerators ---------------------------------------------------------------------------------


def test_idle_accelerators_are_looked_for_where_there_are_any(monkeypatch):
    asked = []
    monkeypatch.setattr(probes, "gpus", lambda: {"gpus": 2, "gpu_model": "NVIDIA A100"})
    monkeypatch.setattr(
        probes, "gpus_free", lambda: asked.append(1) or {"gpus_free": 1, "gpu_mem_free": 5 * GIB}
    )
    sample = Sampler().sample(SCHEMA)
    assert (sample["gpus"], sample["gpus_free"], sample["gpu_mem_free"]) == (2, 1, 5 * GIB)
    assert asked
    asked.clear()
    monkeypatch.setattr(probes, "gpus", lambda: None)
    assert "gpus_free" not in Sampler().sample(SCHEMA)
    assert not asked


def test_a_broken_nvidia_smi_costs_only_its_own_values(monkeypatch):
    def broken(*columns):
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(probes, "nvidia", broken)
    sampler = Sampler()
    sample = sampler.sample(SCHEMA)
    assert not {"gpus", "gpus_free"} & sample.keys()
    assert sampler.counters["gpus"] == 1
    assert "cores" in sample


# --- what is news ---------------------------------------------------------------------------------

BEFORE = {
    "cores": 16, "mem": 64 * GIB, "mem_free": 40 * GIB, "cpu_free": 50, "load1": 2.0,
    "load_5s": 2.0, "load_15s": 2.0, "load_error": 0.5, "mem_pressure": 0, "net_in": 1_000_000,
    "net_out": 0, "temperature": 60, "battery": 90, "plugged": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({}, False),
        ({"cpu_free": 54}, False),
        ({"cpu_free": 56}, True),
        ({"mem_free": 38 * GIB}, False),
        ({"mem_free": 36 * GIB}, True),
        ({"load1": 2.7}, False),
        ({"load1": 3.0}, True),
        ({"cores": 8}, True),
        ({"cpu_free": None}, True),
        ({"gpus_free": 1}, True),
        ({"os": "linux"}, True),
        ({"load_5s": 5.9, "load_15s": 0.0}, False),
        ({"load_5s": 6.0}, True),
        ({"load_15s": None}, True),
        ({"load_error": 9.0}, False),
        ({"mem_pressure": 4}, False),
        ({"mem_pressure": 5}, True),
        ({"net_in": 3_900_000}, False),
        ({"net_in": 4_000_000}, True),
        ({"net_in": 260_000}, False),
        ({"net_in": 250_000}, True),
        ({"net_out": 200_000}, False),
        ({"net_out": 300_000}, True),
        ({"temperature": 68}, False),
        ({"temperature": 70}, True),
        ({"battery": 86}, False),
        ({"plugged": False}, True),
    ],
)
def test_small_moves_are_not_news(change, news):
    after = {name: value for name, value in {**BEFORE, **change}.items() if value is not None}
    assert is_news(SCHEMA, BEFORE, after) is news


def test_what_is_nearly_used_up_is_news_at_a_power_of_two():
    before = {"mem": 64 * GIB, "mem_free": int(1.1 * GIB)}
    assert is_news(SCHEMA, before, {**before, "mem_free": int(0.9 * GIB)})
    assert not is_news(SCHEMA, before, {**before, "mem_free": int(1.2 * GIB)})


def test_a_value_that_swings_around_a_power_of_two_is_not_news():
    before = {"mem": 64 * GIB, "mem_free": GIB + 1000}
    assert not is_news(SCHEMA, before, {**before, "mem_free": GIB - 1000})


def test_the_last_one_taken_is_news():
    before = {"gpus": 64, "gpus_free": 1}
    assert is_news(SCHEMA, before, {**before, "gpus_free": 0})
    assert is_news(SCHEMA, {**before, "gpus_free": 0}, before)


def test_without_a_total_the_declared_range_is_full_scale():
    schema = Schema("t", 0, (Attribute("heat", "number", "dynamic", Linear(-100, 100)),))
    assert not is_news(schema, {"heat": 50}, {"heat": 59})
    assert is_news(schema, {"heat": 50}, {"heat": 61})
    assert is_news(schema, {"heat": -1}, {"heat": 1})
