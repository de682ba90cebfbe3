"""Each probe alone: what it makes of what the system says, and where it says nothing."""

import os
import platform
import shutil
import subprocess
from typing import NamedTuple

import psutil
import pytest

from dhtos.node import probes
from dhtos.node.cgroup import CpuQuota, MemoryLimit

GIB = 2**30


class Sensor(NamedTuple):
    label: str
    current: float
    high: float
    critical: float


class Battery(NamedTuple):
    percent: float
    secsleft: int
    power_plugged: bool | None


class Memory(NamedTuple):
    total: int
    available: int


class Network(NamedTuple):
    bytes_sent: int
    bytes_recv: int


class Disk(NamedTuple):
    read_bytes: int
    write_bytes: int


class Times(NamedTuple):
    user: float
    idle: float
    iowait: float
    guest: float
    guest_nice: float


class Frequency(NamedTuple):
    current: float
    min: float
    max: float


class Groups:
    """Control groups that say what they are told to."""

    def __init__(self, cpu=(), memory=()):
        self._cpu, self._memory = list(cpu), list(memory)

    def cpu(self):
        return self._cpu

    def memory(self):
        return self._memory


def fake_nvidia(monkeypatch, answers):
    """Pretend that `nvidia-smi` is there and prints this per query."""
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")

    def run(command, **options):
        assert options["timeout"] > 0
        columns = command[1].removeprefix("--query-gpu=")
        if columns not in answers:
            raise subprocess.CalledProcessError(9, command)
        return subprocess.CompletedProcess(command, 0, stdout=answers[columns])

    monkeypatch.setattr(subprocess, "run", run)


# --- processors -----------------------------------------------------------------------------------


def test_cores_are_those_of_our_mask(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    cores = probes.cores(Groups())
    assert cores == 3
    assert type(cores) is int


def test_without_masks_cores_are_all(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert probes.cores(Groups()) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert probes.cores(Groups()) is None


@pytest.mark.parametrize(
    ("quotas", "cores"), [((1.5,), 1.5), ((8.0,), 3), ((2.0, 0.25), 0.25), ((1 / 3,), 0.33)]
)
def test_a_quota_makes_cores_fewer(monkeypatch, quotas, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    assert probes.cores(Groups(CpuQuota("g", q, None) for q in quotas)) == cores


def test_only_cpus_of_our_mask_are_counted(monkeypatch):
    told = [Times(10, 30, 2, 4, 1), Times(1, 1, 0, 0, 0), Times(5, 5, 5, 0, 0)]
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: told)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)
    assert probes.cpu_counters() == {"0": (32, 42), "2": (10, 15)}


@pytest.mark.parametrize(("text", "count"), [("0.1 0.2 0.3 7/312 9\n", 6), ("0 0 0 0/1 1", 0)])
def test_who_asks_is_not_counted(monkeypatch, tmp_path, text, count):
    path = tmp_path / "loadavg"
    path.write_text(text)
    monkeypatch.setattr(probes, "LOADAVG", path)
    assert probes.runnable() == count


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64"),
     ("armv7l", "armv7"), ("i686", "i386"), ("riscv64", "riscv64"), ("sparc", "other")],
)  # fmt: skip
def test_architectures_have_one_name(monkeypatch, machine, arch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert probes.arch() == arch


def test_the_cpu_model_is_one_clean_line(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Intel(R)  Xeon(R)\tCPU\n")
    monkeypatch.setattr(probes, "CPUINFO", info)
    monkeypatch.setattr(probes.sys, "platform", "linux")
    assert probes.cpu_model() == "Intel(R) Xeon(R) CPU"


@pytest.mark.parametrize(
    ("frequency", "hertz"), [((1000, 800, 3500), 35 * 10**8), ((2400.5, 0, 0), 2_400_500_000)]
)
def test_the_clock_is_the_highest_known(monkeypatch, frequency, hertz):
    monkeypatch.setattr(psutil, "cpu_freq", lambda: Frequency(*frequency))
    assert probes.clock() == hertz


# --- memory ---------------------------------------------------------------------------------------


def test_memory_is_what_the_tightest_limit_leaves(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(16 * GIB, 9 * GIB))
    assert probes.memory(Groups()) == 16 * GIB
    assert probes.memory_free(Groups()) == 9 * GIB
    groups = Groups(memory=[MemoryLimit(4 * GIB, 3 * GIB), MemoryLimit(64 * GIB, 2 * GIB)])
    assert probes.memory(groups) == 4 * GIB
    assert probes.memory_free(groups) == 2 * GIB


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("some avg10=0.00 avg60=1.00 avg300=2.00 total=5\nfull avg10=9.0 avg60=0 total=1\n", 0),
        ("some avg10=52.89 avg60=37.82 avg300=20.63 total=5874924225\n", 53),
        ("some avg10=100.00 avg60=0 avg300=0 total=1\n", 100),
    ],
)
def test_pressure_is_that_of_the_last_ten_seconds(monkeypatch, tmp_path, text, percent):
    (tmp_path / "io").write_text(text)
    monkeypatch.setattr(probes, "PRESSURE", tmp_path)
    assert probes.pressure("io") == percent


def test_without_pressure_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(probes, "PRESSURE", tmp_path / "none")
    assert probes.pressure("memory") is None


# --- devices --------------------------------------------------------------------------------------


def test_only_hardware_counts_traffic(monkeypatch, tmp_path):
    devices = {name: Network(n, 10 * n) for n, name in enumerate(("lo", "eth0", "br0", "wg0"))}
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic, nowrap: devices)
    monkeypatch.setattr(probes, "SYSTEM", tmp_path)
    assert set(probes.network_counters()) == {"eth0", "br0", "wg0"}
    (tmp_path / "class" / "net" / "eth0" / "device").mkdir(parents=True)
    assert probes.network_counters() == {"eth0": (10, 1)}


def test_only_hardware_counts_reading_and_writing(monkeypatch, tmp_path):
    devices = {name: Disk(5, 7) for name in ("sda", "sda1", "dm-0", "loop0", "zram0")}
    monkeypatch.setattr(psutil, "disk_io_counters", lambda perdisk, nowrap: devices)
    monkeypatch.setattr(probes, "SYSTEM", tmp_path)
    (tmp_path / "block" / "sda" / "device").mkdir(parents=True)
    assert probes.disk_counters() == {"sda": (5, 7)}
    monkeypatch.setattr(psutil, "disk_io_counters", lambda perdisk, nowrap: None)
    assert probes.disk_counters() == {}


@pytest.mark.parametrize(
    ("sensors", "degrees"),
    [
        ({}, None),
        ({"nvme": [Sensor("", 38.5, 80, 90)]}, 38),
        ({"nvme": [Sensor("", 70, 80, 90)], "coretemp": [Sensor("", 45, 0, 0)]}, 45),
        ({"k10temp": [Sensor("a", 51.6, 0, 0), Sensor("b", 44, 0, 0)]}, 52),
        ({"acpitz": [Sensor("", 0.0, 0, 0), Sensor("", -263.2, 0, 0)]}, None),
    ],
)
def test_the_temperature_is_that_of_the_cpu(monkeypatch, sensors, degrees):
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert probes.temperature() == degrees


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, None),
        (Battery(86.7, 3600, False), {"battery": 87, "plugged": False}),
        (Battery(100.4, -2, True), {"battery": 100, "plugged": True}),
        (Battery(50, -1, None), {"battery": 50}),
    ],
)
def test_the_battery(monkeypatch, found, told):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: found, raising=False)
    assert probes.battery() == told


@pytest.mark.parametrize(
    ("name", "probe"),
    [("sensors_temperatures", probes.temperature), ("sensors_battery", probes.battery)],
)
def test_systems_without_sensors_say_nothing(monkeypatch, name, probe):
    monkeypatch.delattr(psutil, name, raising=False)
    assert probe() is None


# --- accelerators ---------------------------------------------------------------------------------


def test_accelerators_come_from_nvidia_smi(monkeypatch):
    answers = {
        "name,memory.total": "NVIDIA A100, 81920\nNVIDIA A100, 81920\n",
        "utilization.gpu,memory.free": "97, 1024\n0, 70000\n",
    }
    fake_nvidia(monkeypatch, answers)
    assert probes.gpus() == {"gpus": 2, "gpu_model": "NVIDIA A100", "gpu_mem": 80 * GIB}
    assert probes.gpus_free() == {"gpus_free": 1, "gpu_mem_free": 70000 * 2**20}


def test_what_an_accelerator_does_not_tell_is_left_out(monkeypatch):
    answers = {
        "name,memory.total": "Orin, [N/A]\n",
        "utilization.gpu,memory.free": "[N/A], 512\n[Not Supported], [N/A]\n",
    }
    fake_nvidia(monkeypatch, answers)
    assert probes.gpus() == {"gpus": 1, "gpu_model": "Orin"}
    assert probes.gpus_free() == {"gpu_mem_free": 512 * 2**20}


def test_without_the_tool_there_are_no_accelerators(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert probes.gpus() is None
    assert probes.gpus_free() is None
