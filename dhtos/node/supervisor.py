"""The parent of one command: gives it its limits, and outlives the node to end it.

A program of its own that knows nothing but the standard library: `python -I -S supervisor.py FD`.
The command gets standard input, output and error as this program got them. FD is a socket to the
node, with a JSON object a line; bytes are written as Latin-1.

    <- {"argv", "env", "folder", "memory", "cores", "cpus", "cgroups", "orphan_grace_s"}
    -> {"pid"}                              it runs; or {"errno", "text"}, and that is the end
    <- {"signal"}                           to its process group
    <- {"end"}                              SIGTERM now, SIGKILL after so many seconds
    -> {"returncode", "user_s", "system_s", "memory", "wall_s"}     when nobody of it is left

Theory of operation. Whoever of the command loses its parent becomes a child of this process
(`PR_SET_CHILD_SUBREAPER`, prctl(2)), so nobody can leave: when the command itself has ended,
children are killed and waited for until there are none. A socket that closes means that the node
has died, and is an `end`. Should this process be killed, the kernel kills the command with it
(`PR_SET_PDEATHSIG`), and the node its process group.

What is limited: data of each process (`RLIMIT_DATA`; an address space may be reserved far beyond
what is used), no core files, memory and CPU time of all together where control groups can be made
here, else as many CPUs as were claimed. Commands are a little nice: a node must answer.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time

TYPE_CHECKING = False  # as that of `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NICE = 5
_PERIOD_US = 100_000  # the kernel's own default
_QUOTA_US_MIN = 1000
_REMOVAL_S = 2.0  # a group that is empty may be busy for a moment
_PREFIX = "dhtos-"


def prctl(option: int, value: int) -> None:
    """Ask the kernel; where that cannot be done a command is only less sure to end."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Groups:
    """Control groups made for one command, where that is permitted; version 1 or 2 of each."""

    def __init__(
        self, offered: "list[tuple[str, int, str]]", memory: int | None, cores: float | None
    ) -> None:
        self.folders: list[str] = []
        self.controllers: set[str] = set()
        self._memory: str | None = None
        wanted = {"memory": memory, "cpu": cores}
        for name, version, parent in offered:
            amount = wanted.get(name)
            if name in self.controllers or amount is None:
                continue
            folder = os.path.join(parent, f"{_PREFIX}{os.getpid()}")
            try:
                self._make(folder)
                _limit(folder, name, amount, unified=version == 2)
            except OSError:
                self._drop(folder)
                continue
            self.controllers.add(name)
            if name == "memory":
                self._memory = folder

    def _make(self, folder: str) -> None:
        if folder in self.folders:
            return  # version 2 has one for all
        _sweep(os.path.dirname(folder))
        os.mkdir(folder)
        self.folders.append(folder)

    def _drop(self, folder: str) -> None:
        if folder in self.folders and not self.controllers:
            self.folders.remove(folder)
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def join(self) -> None:
        """Put the calling process into them."""
        for folder in self.folders:
            _write(folder, "cgroup.procs", str(os.getpid()))

    def peak(self) -> int | None:
        """The most memory that all processes had together; None where nobody knows."""
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            path = os.path.join(self._memory or "", name)
            if os.path.exists(path):
                with open(path) as file:
                    return int(file.read())
        return None

    def kill(self) -> None:
        """Kill all of them at once, where the kernel can do that: nobody forks in between."""
        for folder in self.folders:
            if os.path.exists(os.path.join(folder, "cgroup.kill")):
                with contextlib.suppress(OSError):
                    _write(folder, "cgroup.kill", "1")

    def remove(self) -> None:
        """Take them away; empty they are by now."""
        until = time.monotonic() + _REMOVAL_S
        for folder in self.folders:
            while True:
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > until:
                        break
                    select.select([], [], [], 0.01)
                else:
                    break


def _limit(folder: str, controller: str, amount: float, *, unified: bool) -> None:
    """Bytes of memory, or a share of CPU time in cores."""
    if controller == "memory":
        _write(folder, "memory.max" if unified else "memory.limit_in_bytes", str(int(amount)))
        # Memory alone in version 2, memory and swap together in version 1.
        swap, most = ("memory.swap.max", 0) if unified else ("memory.memsw.limit_in_bytes", amount)
        if os.path.exists(os.path.join(folder, swap)):
            _write(folder, swap, str(int(most)))
        return
    quota = max(round(amount * _PERIOD_US), _QUOTA_US_MIN)
    if unified:
        _write(folder, "cpu.max", f"{quota} {_PERIOD_US}")
    else:
        _write(folder, "cpu.cfs_period_us", str(_PERIOD_US))
        _write(folder, "cpu.cfs_quota_us", str(quota))


def _sweep(parent: str) -> None:
    """Remove the groups of supervisors that were killed."""
    for name in os.listdir(parent):
        pid = name.removeprefix(_PREFIX)
        if pid != name and pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(parent, name))


def _write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w") as file:
        file.write(text)


class Line:
    """The socket to the node, read without waiting."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False
        self._rest = b""

    def first(self) -> "dict[str, Any] | None":
        """Wait for the first message; None where the node died before it came."""
        while not self.closed:
            came = self.read()
            if came:
                return came[0]  # nothing is said before the answer
        return None

    def read(self) -> "list[dict[str, Any]]":
        """What has come."""
        try:
            data = os.read(self.fd, 1 << 16)
        except ConnectionError:
            data = b""
        self.closed = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def write(self, message: "dict[str, Any]") -> None:
        """Tell the node, if it lives."""
        data = json.dumps(message).encode() + b"\n"
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self.fd, data) :]


class Supervisor:
    """One command from its start to the end of its last process."""

    def __init__(self, line: Line, order: "dict[str, Any]", wake: int) -> None:
        self._line = line
        self._order = order
        self._wake = wake
        self._pid = 0
        self._deadline: float | None = None

    def run(self) -> None:
        """Start it, watch it, clear up after it, report."""
        order = self._order
        groups = Groups(order["cgroups"], order["memory"], order["cores"])
        folder = order["folder"]
        begun = time.monotonic()
        try:
            os.mkdir(folder, 0o700)
            self._pid = start(order, groups)
            _leave_streams()
            self._line.write({"pid": self._pid})
            status = self._watch(groups)
        except OSError as error:
            self._line.write({"errno": error.errno, "text": error.strerror or str(error)})
            return
        finally:
            _end_all(groups)
            peak = groups.peak()
            groups.remove()
            _remove_folder(folder)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._line.write(
            {
                "returncode": os.waitstatus_to_exitcode(status),
                "user_s": used.ru_utime,
                "system_s": used.ru_stime,
                "memory": used.ru_maxrss * 1024 if peak is None else peak,
                "wall_s": time.monotonic() - begun,
            }
        )

    def _watch(self, groups: Groups) -> int:
        """Until the command has ended; its status."""
        while True:
            status = self._reap()
            if status is not None:
                return status
            left = None if self._deadline is None else self._deadline - time.monotonic()
            if left is not None and left <= 0:
                groups.kill()
                self._signal(signal.SIGKILL)
                left = None
            sources = [self._wake] if self._line.closed else [self._wake, self._line.fd]
            ready, _, _ = select.select(sources, [], [], left)
            if self._wake in ready:
                os.read(self._wake, 4096)
            if self._line.fd in ready:
                self._hear()

    def _hear(self) -> None:
        for message in self._line.read():
            if "signal" in message:
                self._signal(int(message["signal"]))
            if "end" in message:
                self._end(float(message["end"]))
        if self._line.closed:
            self._end(float(self._order["orphan_grace_s"]))

    def _end(self, grace_s: float) -> None:
        """Ask it to end; a later word can only shorten the time it is given."""
        deadline = time.monotonic() + grace_s
        if self._deadline is None:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # what is stopped would not hear the other
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._pid, number)

    def _reap(self) -> int | None:
        """Bury whoever has ended; the status of the command once it has.

        The group is killed before its leader is buried: until then its number is nobody else's.
        """
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            if found.si_pid == self._pid:
                self._signal(signal.SIGKILL)
            _, status = os.waitpid(found.si_pid, 0)
            if found.si_pid == self._pid:
                return status


def start(order: "dict[str, Any]", groups: Groups) -> int:
    """Begin the command; its process id. Raises OSError for what cannot be."""
    argv = [word.encode("latin-1") for word in order["argv"]]
    env = {name.encode("latin-1"): text.encode("latin-1") for name, text in order["env"].items()}
    paths = _paths(argv[0], env)
    reading, writing = os.pipe()  # both close on exec
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writing)
        with open(reading, "rb") as file:
            failed = file.read()
        if failed:
            os.waitpid(pid, 0)
            raise OSError(int(failed), os.strerror(int(failed)))
        return pid
    code = 0
    try:
        os.setsid()
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        _settle(order, groups)
        code = _execute(paths, argv, env)
    except OSError as error:
        code = error.errno or 1
    finally:
        os.write(writing, str(code or 1).encode())
        os._exit(1)
    raise AssertionError("a child does not come back")


def _settle(order: "dict[str, Any]", groups: Groups) -> None:
    """What the child is told before it becomes the command; the memory last, for we need some."""
    groups.join()
    if "cpu" not in groups.controllers and order["cpus"]:
        with contextlib.suppress(OSError):  # they may have been taken away meanwhile
            os.sched_setaffinity(0, order["cpus"])
    os.nice(_NICE)
    os.chdir(order["folder"])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = order["memory"]
    if memory is not None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory if most == resource.RLIM_INFINITY else min(memory, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _paths(name: bytes, env: dict[bytes, bytes]) -> list[bytes]:
    """Where a command may be, in order."""
    if b"/" in name:
        return [name]
    return [os.path.join(place, name) for place in env.get(b"PATH", b"").split(b":") if place]


def _execute(paths: list[bytes], argv: list[bytes], env: dict[bytes, bytes]) -> int:
    """Become the command; why not, as execvp(3): what is forbidden over what is not there."""
    code = 2
    for path in paths:
        try:
            os.execve(path, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            code = error.errno or 1
    return code


def _leave_streams() -> None:
    """The ends of the command's streams are its own: they close when it ends."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    os.close(nowhere)


def _end_all(groups: Groups) -> None:
    """Kill children until there are none: those of the killed become ours."""
    groups.kill()
    while True:
        for pid in _children():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:  # a kernel without that file
        return [pid for pid in _all_pids() if _parent(pid) == own]


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parent(pid: int) -> int | None:
    """The parent of a process; the name before it may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return None


def _remove_folder(folder: str) -> None:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return
    except OSError:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Serve one node for one command."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)  # only the node ends us
    line = Line(int(sys.argv[1]))
    os.set_inheritable(line.fd, False)
    order = line.first()
    if order is not None:
        Supervisor(line, order, reading).run()


if __name__ == "__main__":
    main()
