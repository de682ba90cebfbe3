"""Control groups: what their files mean in either version, in trees of our own making."""

import pytest

from dhtos.node.cgroup import Cgroups, CpuQuota, MemoryLimit

GIB = 2**30
UNLIMITED = 9223372036854771712  # what version 1 says where there is no limit


class Machine:
    """A `/proc/self` and hierarchies below a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.proc = folder / "proc"
        self.proc.mkdir()
        self.mounts = []
        self.groups = []

    def mount(self, name, *, kind="cgroup", controllers="", root="/", path="/"):
        """Mount one hierarchy, with our process in `path`; returns the mount point."""
        point = self.folder / name
        point.mkdir()
        number = 30 + len(self.mounts)
        escaped = str(point).replace(" ", "\\040")
        options = f"rw,{controllers}" if controllers else "rw"
        mounted = f"{number} 25 0:{number} {root} {escaped} rw,relatime shared:9"
        self.mounts.append(f"{mounted} - {kind} cgroup {options}")
        self.groups.append(f"{len(self.groups)}:{controllers}:{path}")
        self._write()
        return point

    def _write(self):
        other = "21 1 8:1 / / rw - ext4 /dev/sda1 rw"
        (self.proc / "mountinfo").write_text("\n".join([other, *self.mounts]) + "\n")
        (self.proc / "cgroup").write_text("\n".join(self.groups) + "\n")

    def cgroups(self):
        return Cgroups(self.proc)


def fill(folder, **files):
    """Write files; `__` in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# --- version 2 ------------------------------------------------------------------------------------


def test_version_2_of_our_own_group(machine):
    point = machine.mount("unified", kind="cgroup2", path="/app.slice/web")
    fill(
        point / "app.slice" / "web",
        cpu__max="150000 100000",
        cpu__stat="usage_usec 2500000\nuser_usec 2000000\nnr_periods 7",
        memory__max=4 * GIB,
        memory__current=3 * GIB,
        memory__stat=f"anon {GIB}\ninactive_file {GIB}\nactive_file 5",
    )
    group = str(point / "app.slice" / "web")
    assert machine.cgroups().cpu() == [CpuQuota(group, 1.5, 2.5)]
    assert machine.cgroups().memory() == [MemoryLimit(4 * GIB, 2 * GIB)]


def test_version_2_without_limits_limits_nothing(machine):
    point = machine.mount("unified", kind="cgroup2", path="/web")
    fill(point / "web", cpu__max="max 100000", memory__max="max", memory__current=5)
    assert machine.cgroups().cpu() == []
    assert machine.cgroups().memory() == []


def test_groups_above_limit_too(machine):
    point = machine.mount("unified", kind="cgroup2", path="/a/b/c")
    fill(point / "a" / "b" / "c", cpu__max="max 100000", memory__max="max", memory__current=1)
    fill(point / "a" / "b", cpu__max="50000 100000", memory__max="max", memory__current=1)
    fill(point / "a", cpu__max="200000 100000", memory__max=GIB, memory__current=GIB // 4)
    quotas = machine.cgroups().cpu()
    assert [(q.group[-3:], q.cores, q.used_s) for q in quotas] == [
        ("a/b", 0.5, None),
        ("d/a", 2.0, None),
    ]
    assert machine.cgroups().memory() == [MemoryLimit(GIB, GIB * 3 // 4)]


def test_a_container_that_sees_its_own_group_as_the_root(machine):
    point = machine.mount("unified", kind="cgroup2", root="/docker/4f1", path="/docker/4f1")
    fill(point, cpu__max="100000 100000", memory__max=GIB, memory__current=0)
    assert [quota.cores for quota in machine.cgroups().cpu()] == [1.0]
    assert machine.cgroups().memory() == [MemoryLimit(GIB, GIB)]


def test_a_path_outside_the_mount_is_the_mount(machine):
    """As in a group namespace that we were moved out of."""
    point = machine.mount("unified", kind="cgroup2", root="/", path="/../../other")
    fill(point, cpu__max="100000 100000")
    fill(machine.folder.parent / "other")
    assert [quota.group for quota in machine.cgroups().cpu()] == [str(point)]


def test_a_path_that_is_not_mounted_here_is_the_mount(machine):
    point = machine.mount("unified", kind="cgroup2", path="/docker/9c0")
    fill(point, cpu__max="25000 100000")
    assert [quota.cores for quota in machine.cgroups().cpu()] == [0.25]


def test_a_mount_point_with_a_blank(tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    machine = Machine(folder)
    point = machine.mount("unified", kind="cgroup2")
    fill(point, cpu__max="300000 100000")
    assert [quota.cores for quota in machine.cgroups().cpu()] == [3.0]


# --- version 1 ------------------------------------------------------------------------------------


def test_version_1(machine):
    cpu = machine.mount("cpu,cpuacct", controllers="cpu,cpuacct", path="/web")
    memory = machine.mount("memory", controllers="memory", path="/web")
    fill(
        cpu / "web",
        cpu__cfs_quota_us=250000,
        cpu__cfs_period_us=100000,
        cpuacct__usage=7_500_000_000,
    )
    fill(cpu, cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    fill(
        memory / "web",
        memory__limit_in_bytes=2 * GIB,
        memory__usage_in_bytes=2 * GIB,
        memory__stat=f"cache 5\ntotal_inactive_file {GIB // 2}",
    )
    fill(memory, memory__limit_in_bytes=UNLIMITED, memory__usage_in_bytes=9 * GIB)
    assert machine.cgroups().cpu() == [CpuQuota(str(cpu / "web"), 2.5, 7.5)]
    assert machine.cgroups().memory() == [
        MemoryLimit(2 * GIB, GIB // 2),
        MemoryLimit(UNLIMITED, UNLIMITED - 9 * GIB),
    ]


@pytest.mark.parametrize(
    ("accounted", "used"),
    [("/a/web", 3.0), ("/", None), ("/a", None), ("/a/other", None), ("/b/web", None)],
)
def test_version_1_accounts_in_a_hierarchy_of_its_own(machine, accounted, used):
    cpu = machine.mount("cpu", controllers="cpu", path="/a/web")
    usage = machine.mount("cpuacct", controllers="cpuacct", path=accounted)
    fill(cpu / "a" / "web", cpu__cfs_quota_us=100000, cpu__cfs_period_us=100000)
    fill(usage / accounted.strip("/"), cpuacct__usage=3_000_000_000)
    assert machine.cgroups().cpu() == [CpuQuota(str(cpu / "a" / "web"), 1.0, used)]


def test_both_versions_side_by_side(machine):
    memory = machine.mount("memory", controllers="memory", path="/web")
    machine.mount("unified", kind="cgroup2", path="/")
    fill(memory / "web", memory__limit_in_bytes=GIB, memory__usage_in_bytes=0)
    assert machine.cgroups().memory() == [MemoryLimit(GIB, GIB)]
    assert machine.cgroups().cpu() == []


# --- what may be odd ------------------------------------------------------------------------------


def test_a_system_without_groups(tmp_path):
    assert Cgroups(tmp_path / "nothing").cpu() == []
    assert Cgroups(tmp_path / "nothing").memory() == []


def test_a_group_over_its_limit_has_nothing_free(machine):
    point = machine.mount("unified", kind="cgroup2")
    fill(point, memory__max=GIB, memory__current=2 * GIB)
    assert machine.cgroups().memory() == [MemoryLimit(GIB, 0)]


def test_a_cache_larger_than_the_use_is_not_more_than_the_limit(machine):
    point = machine.mount("unified", kind="cgroup2")
    fill(point, memory__max=GIB, memory__current=5, memory__stat=f"inactive_file {GIB}")
    assert machine.cgroups().memory() == [MemoryLimit(GIB, GIB)]


@pytest.mark.parametrize("period", ["0", ""])
def test_a_period_of_nothing_is_no_quota(machine, period):
    cpu = machine.mount("cpu", controllers="cpu", path="/")
    fill(cpu, cpu__cfs_quota_us=100000)
    if period:
        fill(cpu, cpu__cfs_period_us=period)
    assert machine.cgroups().cpu() == []


def test_a_limit_that_is_no_number_is_a_failure_of_the_probe(machine):
    point = machine.mount("unified", kind="cgroup2")
    fill(point, memory__max="plenty", memory__current=5)
    with pytest.raises(ValueError, match="plenty"):
        machine.cgroups().memory()


def test_groups_that_may_have_one_of_our_own_below_them(machine):
    memory = machine.mount("memory", controllers="memory", path="/a/b")
    unified = machine.mount("unified", kind="cgroup2", path="/c/d")
    (memory / "a" / "b").mkdir(parents=True)
    fill(unified / "c" / "d", cgroup__subtree_control="")
    fill(unified / "c", cgroup__subtree_control="cpu memory")
    fill(unified, cgroup__subtree_control="cpu memory io")
    cgroups = machine.cgroups()
    assert cgroups.parents("memory") == [(1, memory / "a" / "b"), (2, unified / "c")]
    assert cgroups.parents("cpu") == [(2, unified / "c")]
    assert cgroups.parents("io") == []


def test_without_hierarchies_no_group_can_be_made(machine):
    assert machine.cgroups().parents("memory") == []
