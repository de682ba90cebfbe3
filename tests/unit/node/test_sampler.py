"""The sampler: what this machine says, how a failing probe is left out, what counts as news."""

import math
import os
import platform
import shutil
import subprocess

import psutil
import pytest

from dhtos.core.schema import Attribute, Hashed, Linear, Schema, default_schema
from dhtos.node import sampler as module
from dhtos.node.sampler import Sampler, is_news

SCHEMA = default_schema()
GIB = 2**30


def test_a_sample_of_this_machine():
    sample = Sampler().sample(SCHEMA)
    assert sample["cores"] >= 1
    assert sample["mem"] == psutil.virtual_memory().total
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


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64"),
     ("armv7l", "armv7"), ("i686", "i386"), ("riscv64", "riscv64"), ("sparc", "other")],
)  # fmt: skip
def test_architectures_have_one_name(monkeypatch, machine, arch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert Sampler().sample(SCHEMA)["arch"] == arch


def test_cpu_free_is_the_share_since_the_last_sample(monkeypatch):
    times = type(psutil.cpu_times())
    blank = dict.fromkeys(times._fields, 0.0)

    def at(**values):
        return times(**{**blank, **values})

    moments = iter([at(user=10.0, idle=30.0), at(user=20.0, idle=40.0), at(user=20.0, idle=40.0)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(moments))
    sampler = Sampler()
    assert sampler.sample(SCHEMA)["cpu_free"] == 75
    assert sampler.sample(SCHEMA)["cpu_free"] == 50
    assert "cpu_free" not in sampler.sample(SCHEMA)


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


def test_gpus_come_from_nvidia_smi(monkeypatch):
    answers = {
        "name,memory.total": "NVIDIA A100, 81920\nNVIDIA A100, 81920\n",
        "utilization.gpu": "97\n0\n",
    }
    fake_nvidia(monkeypatch, answers)
    sample = Sampler().sample(SCHEMA)
    assert (sample["gpus"], sample["gpu_model"]) == (2, "NVIDIA A100")
    assert sample["gpu_mem"] == 80 * GIB
    assert sample["gpus_free"] == 1


def test_a_broken_nvidia_smi_costs_only_its_own_values(monkeypatch):
    fake_nvidia(monkeypatch, {})
    sampler = Sampler()
    sample = sampler.sample(SCHEMA)
    assert not {"gpus", "gpus_free"} & sample.keys()
    assert sampler.counters["gpus"] == 1
    assert "cores" in sample


def test_without_nvidia_smi_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    sampler = Sampler()
    assert "gpus" not in sampler.sample(SCHEMA)
    assert sampler.counters["gpus"] == 0


def test_cores_are_those_we_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert Sampler().sample(SCHEMA)["cores"] == 3


def test_the_cpu_model_is_one_clean_line(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Intel(R)  Xeon(R)\tCPU\n")
    monkeypatch.setattr(module, "_CPUINFO", info)
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert Sampler().sample(SCHEMA)["cpu_model"] == "Intel(R) Xeon(R) CPU"


# --- what is news ---------------------------------------------------------------------------------

BEFORE = {"cores": 16, "mem": 64 * GIB, "mem_free": 40 * GIB, "cpu_free": 50, "load1": 2.0}


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
