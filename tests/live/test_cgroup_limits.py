"""The sampler inside real control groups of version 1, made for the test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")
MIB = 2**20
CHILD = """
import json, os, sys, time
from dhtos.core.schema import default_schema
from dhtos.node.cgroup import Cgroups
from dhtos.node.sampler import Sampler

sys.stdin.readline()  # from here on we are in our groups
sampler = Sampler()
schema = default_schema()
first = sampler.sample(schema)
held = bytearray(os.urandom(1) * int(sys.argv[1]))
until = time.monotonic() + 1.0
while time.monotonic() < until:
    pass
second = sampler.sample(schema)
used = [quota.used_s for quota in Cgroups().cpu()]
sampler.close()
print(json.dumps({"first": first, "second": second, "used": used}))
"""


class Groups:
    """One group with one inside it, in each of some hierarchies."""

    def __init__(self, name):
        self.name = name
        self.folders = []

    def make(self, controller):
        outer = ROOT / controller / self.name
        for folder in (outer, outer / "inner"):
            folder.mkdir()
            self.folders.append(folder)
        return outer

    def enter(self, pid):
        for folder in self.folders[1::2]:
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self):
        for folder in reversed(self.folders):
            folder.rmdir()


@pytest.fixture
def groups():
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("control groups are made by root only")
    for file in ("cpu/cpu.cfs_quota_us", "cpuacct/cpuacct.usage", "memory/memory.limit_in_bytes"):
        if not (ROOT / Path(file).parent).is_dir():
            pytest.skip(f"this machine has no hierarchy of version 1 with {file}")
    made = Groups(f"dhtos-test-{os.getpid()}")
    try:
        try:
            cpu, memory = made.make("cpu"), made.make("memory")
            made.make("cpuacct")
            (cpu / "cpu.cfs_period_us").write_text("100000")
            (cpu / "cpu.cfs_quota_us").write_text("50000")
            (memory / "memory.limit_in_bytes").write_text(str(512 * MIB))
        except OSError as error:
            pytest.skip(f"control groups cannot be made here: {error}")
        yield made
    finally:
        made.remove()


def test_a_limited_process_knows_its_limits(groups):
    """Both limits stand on the group above its own."""
    held = 100 * MIB
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    groups.enter(process.pid)
    out, _ = process.communicate("go\n", timeout=60)
    assert process.returncode == 0
    told = json.loads(out)
    first, second = told["first"], told["second"]
    assert first["cores"] == second["cores"] == 0.5
    assert first["mem"] == second["mem"] == 512 * MIB
    assert held < first["mem_free"] < 512 * MIB
    assert second["mem_free"] < first["mem_free"] - held * 9 // 10
    # It spun for a second: the quota, or all that others left of the machine, is used up.
    assert second["cpu_free"] < 35
    assert told["used"][0] > 0.1
