"""The parts of the supervisor that need no process: groups, paths, its line; the rest is live."""

import json
import os
import threading
from pathlib import Path

import pytest

from dhtos.node import supervisor
from dhtos.node.supervisor import Groups, Line

MIB = 1 << 20


def text(folder, name):
    return (folder / name).read_text()


@pytest.fixture
def parent(tmp_path):
    """A folder that stands for a control group: files appear in it when they are written."""
    (tmp_path / "group").mkdir()
    return tmp_path / "group"


def own(parent):
    return parent / f"dhtos-{os.getpid()}"


def test_version_1_limits_memory_and_cpu_in_groups_of_their_own(tmp_path):
    memory, cpu = tmp_path / "memory", tmp_path / "cpu"
    for one in (memory, cpu):
        one.mkdir()
    offered = [("memory", 1, str(memory)), ("cpu", 1, str(cpu))]
    groups = Groups(offered, 100 * MIB, 1.5)
    assert groups.controllers == {"memory", "cpu"}
    assert text(own(memory), "memory.limit_in_bytes") == str(100 * MIB)
    assert text(own(cpu), "cpu.cfs_period_us") == "100000"
    assert text(own(cpu), "cpu.cfs_quota_us") == "150000"
    groups.join()
    assert {text(own(one), "cgroup.procs") for one in (memory, cpu)} == {str(os.getpid())}


def test_version_2_limits_both_in_one_group(parent):
    offered = [("memory", 2, str(parent)), ("cpu", 2, str(parent))]
    groups = Groups(offered, 100 * MIB, 0.25)
    assert groups.folders == [str(own(parent))]
    assert text(own(parent), "memory.max") == str(100 * MIB)
    assert text(own(parent), "cpu.max") == "25000 100000"


def test_swap_is_limited_where_there_is_any(parent, monkeypatch):
    make = os.mkdir

    def with_swap(path, *mode):
        make(path, *mode)
        for name in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
            (Path(path) / name).write_text("")

    monkeypatch.setattr(os, "mkdir", with_swap)
    Groups([("memory", 2, str(parent))], 7 * MIB, None)
    assert text(own(parent), "memory.swap.max") == "0"
    other = parent / "other"
    make(other)
    Groups([("memory", 1, str(other))], 7 * MIB, None)
    assert text(own(other), "memory.memsw.limit_in_bytes") == str(7 * MIB)


def test_what_was_not_claimed_is_not_limited(parent):
    groups = Groups([("memory", 2, str(parent)), ("cpu", 2, str(parent))], None, None)
    assert (groups.folders, groups.controllers) == ([], set())
    assert groups.peak() is None
    groups.join()
    groups.remove()


def test_a_share_too_small_for_the_kernel_is_the_smallest_it_takes(parent):
    Groups([("cpu", 2, str(parent))], None, 0.001)
    assert text(own(parent), "cpu.max") == "1000 100000"


def test_where_no_group_can_be_made_the_next_place_is_tried(parent, tmp_path):
    offered = [("memory", 1, str(tmp_path / "missing")), ("memory", 2, str(parent))]
    groups = Groups(offered, MIB, 1.0)
    assert groups.controllers == {"memory"}
    assert groups.folders == [str(own(parent))]
    assert Groups(offered[:1], MIB, 1.0).controllers == set()


def test_a_group_that_cannot_be_limited_is_given_up(parent, monkeypatch):
    def refuse(_folder, _name, _text):
        raise PermissionError(13, "not for you")

    monkeypatch.setattr(supervisor, "_write", refuse)
    groups = Groups([("memory", 2, str(parent)), ("cpu", 2, str(parent))], MIB, 1.0)
    assert (groups.folders, groups.controllers) == ([], set())
    assert list(parent.iterdir()) == []


@pytest.mark.parametrize("name", ["memory.peak", "memory.max_usage_in_bytes"])
def test_the_peak_of_all_is_read_where_the_kernel_tells_it(parent, name):
    groups = Groups([("memory", 1, str(parent))], MIB, None)
    assert groups.peak() is None
    (own(parent) / name).write_text("123\n")
    assert groups.peak() == 123


def test_all_are_killed_at_once_where_the_kernel_can(parent):
    groups = Groups([("memory", 2, str(parent))], MIB, None)
    groups.kill()
    assert not (own(parent) / "cgroup.kill").exists()
    (own(parent) / "cgroup.kill").write_text("")
    groups.kill()
    assert text(own(parent), "cgroup.kill") == "1"


def test_groups_are_removed_and_those_of_the_dead_too(parent, monkeypatch):
    (parent / "dhtos-999999999").mkdir()  # no process has that number
    (parent / "dhtos-1").mkdir()
    (parent / "dhtos-x").mkdir()
    (parent / "other").mkdir()
    monkeypatch.setattr(supervisor, "_limit", lambda *_args, **_named: None)
    groups = Groups([("memory", 2, str(parent))], MIB, None)
    left = {"dhtos-1", "dhtos-x", "other"}
    assert {one.name for one in parent.iterdir()} == left | {own(parent).name}
    groups.remove()
    groups.remove()
    assert {one.name for one in parent.iterdir()} == left


def test_a_group_that_stays_busy_is_left_after_a_while(parent, monkeypatch):
    groups = Groups([("memory", 2, str(parent))], MIB, None)
    clock = iter(range(100))
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(supervisor.select, "select", lambda *_: ([], [], []))
    groups.remove()  # it holds a file here, as no true group would
    assert own(parent).is_dir()


# --- words and lines ------------------------------------------------------------------------------


def test_a_program_is_looked_for_along_the_path():
    env = {b"PATH": b"/a::/b"}
    assert supervisor._paths(b"sh", env) == [b"/a/sh", b"/b/sh"]
    assert supervisor._paths(b"./sh", env) == [b"./sh"]
    assert supervisor._paths(b"sh", {}) == []


def test_why_a_program_cannot_be_run(tmp_path):
    """What is there and forbidden says more than what is not there, wherever it stands."""
    (tmp_path / "data").write_text("no program")
    forbidden, missing = os.fsencode(tmp_path / "data"), os.fsencode(tmp_path / "none")
    below = os.fsencode(tmp_path / "data" / "none")
    assert supervisor._execute([missing], [b"x"], {}) == 2
    assert supervisor._execute([missing, forbidden, missing], [b"x"], {}) == 13
    assert supervisor._execute([below], [b"x"], {}) == 2
    assert supervisor._execute([], [b"x"], {}) == 2


def pair():
    reading, writing = os.pipe()
    return Line(reading), writing


def test_lines_come_in_pieces():
    line, writing = pair()
    os.write(writing, b'{"signal": 1}\n{"sig')
    assert line.read() == [{"signal": 1}]
    os.write(writing, b'nal": 2}\n')
    assert line.read() == [{"signal": 2}]
    os.close(writing)
    assert line.read() == []
    assert line.closed
    os.close(line.fd)


def test_an_order_larger_than_a_pipe_is_waited_for():
    line, writing = pair()
    order = {"argv": ["x" * 300_000]}

    def write():
        data = json.dumps(order).encode() + b"\n"
        while data:
            data = data[os.write(writing, data) :]

    thread = threading.Thread(target=write)
    thread.start()
    assert line.first() == order
    thread.join()
    os.close(writing)
    assert line.first() is None  # the node has died
    os.close(line.fd)


def test_nobody_is_told_who_has_gone():
    line, writing = pair()
    os.close(line.fd)
    Line(writing).write({"pid": 1})  # a broken pipe is no fault here
    os.close(writing)


def test_the_parent_of_a_process_whatever_it_is_called():
    assert supervisor._parent(os.getpid()) == os.getppid()
    assert supervisor._parent(1 << 30) is None
    assert os.getpid() in supervisor._all_pids()


def test_folders_go_with_all_that_is_in_them(tmp_path):
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "c").write_text("")
    supervisor._remove_folder(str(folder))
    supervisor._remove_folder(str(folder))
    assert not folder.exists()
