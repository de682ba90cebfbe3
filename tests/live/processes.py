"""What `/proc` says of processes: who lives, who is whose child, and who waits to be buried."""

import os
import select
import time
from pathlib import Path

GONE_S = 30.0


def alive(pid: int) -> bool:
    """Whether there is such a process, be it dead and not yet buried."""
    return Path(f"/proc/{pid}").exists()


def wait_gone(*pids: int, within_s: float = GONE_S) -> None:
    """Wait for the end of processes, and for their burial."""
    deadline = time.monotonic() + within_s
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        select.select([handle], [], [], within_s)
        os.close(handle)
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, f"still there: {[p for p in pids if alive(p)]}"


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in path.read_text().split()]
    return found


def family(pid: int) -> list[int]:
    """All that descend from a process."""
    found = children(pid)
    return [*found, *(one for child in found for one in family(child))]


def with_argument(word: str) -> list[int]:
    """The processes that were given this argument, also those that nobody is the parent of."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def state(pid: int) -> str:
    """What a process is doing, in one letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return Path(path).exists()


def stale_groups() -> list[Path]:
    """Control groups of commands whose supervisor has ended."""
    found = Path("/sys/fs/cgroup").glob("**/dhtos-*")
    return [path for path in found if not alive(int(path.name.removeprefix("dhtos-")))]
