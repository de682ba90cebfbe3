"""What the control groups of this process leave of the machine: cores, CPU time, memory.

A container sees the whole machine in `/proc` and may use a part of it. The part stands in its
control group and in every group above that is visible; the tightest one counts, and its use is
that of all processes in it, siblings too. Both versions are read, also side by side (`cgroups(7)`):

    version 2   cpu.max, cpu.stat; memory.max, memory.current, memory.stat
    version 1   cpu.cfs_quota_us / cpu.cfs_period_us, cpuacct.usage;
                memory.limit_in_bytes, memory.usage_in_bytes, memory.stat

Where a group says nothing it limits nothing. Files are read at each call, for limits may change
while a process runs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ESCAPED = re.compile(r"\\([0-7]{3})")  # a blank in a mount point, as mountinfo writes it


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """One group's share of the CPUs; `used_s` is what its processes used ever, where known."""

    group: str
    cores: float
    used_s: float | None


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """One group's share of the memory; a file cache that can be dropped counts as free."""

    limit: int
    free: int


class Cgroups:
    """The groups of the process whose folder in `/proc` is given."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc

    def cpu(self) -> list[CpuQuota]:
        """Every group from ours upward that limits CPU time."""
        found = []
        for folder in self._folders("cpu", 1):
            quota = _number(folder / "cpu.cfs_quota_us")
            period = _number(folder / "cpu.cfs_period_us")
            if quota is not None and quota > 0 and period:
                used = self._used_version_1(folder)
                found.append(CpuQuota(str(folder), quota / period, used))
        for folder in self._folders("", 2):
            words = (_text(folder / "cpu.max") or "max").split()
            if len(words) == 2 and words[0] != "max" and int(words[1]):
                used_us = _fields(folder / "cpu.stat").get("usage_usec")
                used = None if used_us is None else used_us / 1e6
                found.append(CpuQuota(str(folder), int(words[0]) / int(words[1]), used))
        return found

    def memory(self) -> list[MemoryLimit]:
        """Every group from ours upward that limits memory."""
        found = []
        for version, controller, limit_name, used_name, cache in (
            (1, "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            (2, "", "memory.max", "memory.current", "inactive_file"),
        ):
            for folder in self._folders(controller, version):
                limit, used = _number(folder / limit_name), _number(folder / used_name)
                if limit is not None and used is not None:
                    used -= _fields(folder / "memory.stat").get(cache, 0)
                    found.append(MemoryLimit(limit, min(max(limit - used, 0), limit)))
        return found

    def parents(self, controller: str) -> list[tuple[int, Path]]:
        """Groups below which one of our own could limit that, the nearest first, by version.

        In version 2 processes are in leaves: it may have to stand beside ours.
        """
        found = [(1, folder) for folder in self._folders(controller, 1)][:1]
        for folder in [*self._folders("", 2)][:2]:
            if controller in (_text(folder / "cgroup.subtree_control") or "").split():
                found.append((2, folder))
        return found

    def _used_version_1(self, folder: Path) -> float | None:
        """CPU seconds of a group: told by the accounting hierarchy, if that has the same groups."""
        limited = [*self._folders("cpu", 1)]
        accounted = [*self._folders("cpuacct", 1)]
        # The last of each is a mount point, which may be called anything.
        if [group.name for group in limited[:-1]] != [group.name for group in accounted[:-1]]:
            return None
        used_ns = _number(accounted[limited.index(folder)] / "cpuacct.usage")
        return None if used_ns is None else used_ns / 1e9

    def _folders(self, controller: str, version: int) -> Iterator[Path]:
        """Our group in one hierarchy and the groups above it, as far as they are mounted here."""
        path = self._path(controller)
        mount = self._mount(controller, version)
        if path is None or mount is None:
            return
        root, point = mount
        own = point
        if path.is_relative_to(root) and ".." not in path.parts:
            own = point / path.relative_to(root)
        # A container often mounts its own group as if that were the root.
        own = own if own.is_dir() else point
        yield own
        while own != point:
            own = own.parent
            yield own

    def _path(self, controller: str) -> PurePosixPath | None:
        """Where in a hierarchy we are: lines of `number:controller,...:path`."""
        for line in (_text(self._proc / "cgroup") or "").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return PurePosixPath(path)
        return None

    def _mount(self, controller: str, version: int) -> tuple[PurePosixPath, Path] | None:
        """The root and the mount point of a hierarchy: `id parent dev root point ... - type ...`"""
        kind = "cgroup2" if version == 2 else "cgroup"
        for line in (_text(self._proc / "mountinfo") or "").splitlines():
            mounted, _, described = line.partition(" - ")
            kinds = described.split()
            if kinds and kinds[0] == kind and (version == 2 or controller in kinds[-1].split(",")):
                root, point = mounted.split()[3:5]
                return PurePosixPath(_plain(root)), Path(_plain(point))
        return None


def _plain(path: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), path)


def _text(path: Path) -> str | None:
    """What a file says; None where there is no such file, or it is not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return None if text in (None, "max") else int(text)


def _fields(path: Path) -> dict[str, int]:
    """The `name value` lines of a file of figures."""
    rows = (line.split() for line in (_text(path) or "").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}
