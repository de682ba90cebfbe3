"""Real commands below real supervisors: limits, signals, orphans, and every way to die."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import alive, children, exists, stale_groups, state, wait_gone, with_argument

from dhtos.errors import CannotStart
from dhtos.node.command import Command
from dhtos.node.executor import SubprocessExecutor

MIB = 1 << 20


class NoGroups:
    """A machine where nobody may make a control group."""

    def parents(self, _controller):
        return []


def command(*argv, env=(), **resources):
    return Command(
        argv=tuple(os.fsencode(word) for word in argv),
        env=dict(env),
        stdin=True,
        resources=resources,
        lease="node-7",
        token=os.urandom(16).hex(),  # what is left of a command is found by it, in all tests
        fence=7,
        owner="127.0.0.1:1",
    )


def shell(script, **resources):
    return command("sh", "-c", script, **resources)


async def finish(running):
    """All output and the end of a command that gets no input."""
    running.stdin.close()
    out, errors = await asyncio.gather(running.stdout.read(), running.stderr.read())
    ended = await running.wait()
    running.close()
    return ended, out, errors


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what it waits for is another process
        await asyncio.sleep(0.005)


async def outcome(executor, ordered):
    return await finish(await executor.start(ordered))


def python(script, **resources):
    return command(sys.executable, "-I", "-S", "-c", script, **resources)


def test_streams_codes_and_surroundings(run):
    async def main():
        executor = SubprocessExecutor(NoGroups())
        running = await executor.start(
            command("sh", "-c", "cat; pwd; echo $X $DHTOS_LEASE >&2; exit 7", env={b"X": b"y"})
        )
        await running.stdin.write(b"hello\n")
        ended, out, errors = await finish(running)
        greeting, folder = out.decode().splitlines()
        assert (ended.returncode, greeting, errors) == (7, "hello", b"y node-7\n")
        assert Path(folder).name.startswith("dhtos-")
        assert not exists(folder)
        used = ended.usage
        assert used.user_s + used.system_s < used.wall_s + 1
        assert used.memory_bytes > 0

    run(main)


def test_a_folder_goes_with_what_was_left_in_it(run):
    async def main():
        _, out, _ = await outcome(
            SubprocessExecutor(), shell("pwd; mkdir -p a/b; echo x > a/b/c; chmod 0 a/b/c")
        )
        assert not exists(out.decode().strip())

    run(main)


def test_what_cannot_be_started(run, tmp_path):
    async def main():
        executor = SubprocessExecutor()
        (tmp_path / "data").write_text("no program")
        (tmp_path / "strange").write_bytes(b"\x7fELF, or so it says")
        (tmp_path / "strange").chmod(0o755)
        for word, code, said in (
            ("no-such-program", 127, errno.ENOENT),
            ("/no/such/program", 127, errno.ENOENT),
            (str(tmp_path / "data"), 126, errno.EACCES),
            (str(tmp_path), 126, errno.EACCES),
            (str(tmp_path / "strange"), 126, errno.ENOEXEC),
        ):
            with pytest.raises(CannotStart) as caught:
                await executor.start(command(word))
            assert caught.value.code == code
            assert str(caught.value) == f"{word!r} cannot be started: {os.strerror(said)}"
        with pytest.raises(CannotStart, match="Argument list too long"):
            await executor.start(command("true", "x" * 200_000))
        assert children(os.getpid()) == []

    run(main)


def test_a_machine_that_has_no_more_processes_says_so(run, monkeypatch):
    async def main():
        executor = SubprocessExecutor()
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", refuse)
            with pytest.raises(CannotStart, match="'true' cannot be started: Resource temporarily"):
                await executor.start(command("true", cores=1))
        assert set(executor._cpus._used.values()) <= {0}
        assert (await outcome(executor, command("true")))[0].returncode == 0

    def refuse(*_args, **_named):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    run(main)


def test_signals_reach_the_command_and_what_it_started(run):
    async def main():
        executor = SubprocessExecutor()
        script = "(trap 'echo child; exit' USR1; echo up; while :; do sleep 0.01; done) & "
        script += "trap 'wait; echo parent; exit 9' USR1; echo up; while :; do sleep 0.01; done"
        running = await executor.start(shell(script))
        assert await running.stdout.readline() == await running.stdout.readline() == b"up\n"
        running.send_signal(signal.SIGUSR1)
        ended, out, _ = await finish(running)
        assert (ended.returncode, out.split()) == (9, [b"child", b"parent"])
        running.send_signal(signal.SIGUSR1)  # nobody is there
        running.end(0.0)

    run(main)


def test_an_end_is_asked_for_and_then_made(run):
    async def main():
        executor = SubprocessExecutor()
        polite = await executor.start(
            shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done")
        )
        await polite.stdout.readline()
        polite.end(60.0)
        assert (await finish(polite))[0].returncode == 3
        stubborn = await executor.start(
            shell("trap '' TERM; echo up; while :; do sleep 0.01; done")
        )
        await stubborn.stdout.readline()
        stubborn.end(60.0)
        stubborn.end(0.1)  # a later word can shorten it
        stubborn.end(60.0)  # and never lengthen
        assert (await finish(stubborn))[0].returncode == -signal.SIGKILL
        stopped = await executor.start(shell("echo $$; kill -STOP $$"))
        pid = int(await stopped.stdout.readline())
        await until(lambda: state(pid) == "T")
        stopped.end(60.0)
        assert (await finish(stopped))[0].returncode == -signal.SIGTERM

    run(main)


def test_whoever_is_left_behind_dies_with_the_command(run):
    async def main():
        script = "setsid sh -c 'trap \"\" TERM HUP; echo $$; exec sleep 4242' & "
        script += "sh -c '(sleep 4243 & echo $!)'; read line"
        running = await SubprocessExecutor().start(shell(script))
        pids = [int(await running.stdout.readline()) for _ in range(2)]
        assert all(map(alive, pids))
        ended, _, _ = await finish(running)
        assert ended.returncode == 1
        assert not any(map(alive, pids))
        assert children(os.getpid()) == []

    run(main)


def test_a_command_dies_with_its_supervisor_and_all_it_started(run):
    async def main():
        running = await SubprocessExecutor().start(
            shell("pwd; (trap '' TERM; setsid sleep 4244) & echo $!; exec sleep 4245")
        )
        folder = (await running.stdout.readline()).decode().strip()
        pid = int(await running.stdout.readline())
        await until(lambda: with_argument("4244"))
        (supervisor,) = children(os.getpid())
        (leader,) = children(supervisor)
        os.kill(supervisor, signal.SIGKILL)
        ended, _, _ = await finish(running)
        assert ended.returncode == -signal.SIGKILL
        await asyncio.to_thread(wait_gone, supervisor, leader, pid)
        assert with_argument("4244") == []
        assert not exists(folder)

    run(main)


NODE = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from test_supervisor import SubprocessExecutor, shell

async def main():
    running = await SubprocessExecutor().start(shell({script!r}))
    sys.stdout.buffer.write(await running.stdout.readline())
    sys.stdout.flush()
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_command_dies_with_its_node(number):
    """The supervisor outlives it, as does nothing else, and only for as long as that takes."""
    script = "(trap '' TERM; setsid sleep 4246) & trap '' TERM; echo $$ $!; "
    script += "while :; do sleep 0.02; done"
    source = NODE.format(tests=str(Path(__file__).parent), script=script)
    node = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert node.stdout is not None
    with node.stdout:
        pids = [int(word) for word in node.stdout.readline().split()]
    assert len(pids) == 2
    (supervisor,) = children(node.pid)
    assert all(map(alive, [*pids, supervisor]))
    node.send_signal(number)
    node.wait()
    wait_gone(*pids, supervisor)
    assert with_argument("4246") == []


def test_a_start_that_is_given_up_leaves_nothing(run):
    async def main():
        executor = SubprocessExecutor(NoGroups())
        for turns in range(0, 60, 3):
            starting = asyncio.create_task(executor.start(command("sleep", "4247", cores=1)))
            for _ in range(turns):
                await asyncio.sleep(0.001)
            starting.cancel()
            try:
                running = await starting
            except asyncio.CancelledError:
                continue
            running.end(0.0)  # it was faster
            await finish(running)
        assert set(executor._cpus._used.values()) <= {0}
        assert children(os.getpid()) == []
        assert with_argument("4247") == []

    run(main)


# --- limits ---------------------------------------------------------------------------------------

GREEDY = "x = bytearray(300 * 2**20); print('got it')"


def test_memory_is_limited_in_each_process_everywhere(run):
    async def main():
        executor = SubprocessExecutor(NoGroups())
        ended, out, errors = await outcome(executor, python(GREEDY, mem=200.0 * MIB))
        assert (ended.returncode, out) == (1, b"")
        assert b"MemoryError" in errors
        for resources in ({"mem": 800.0 * MIB}, {}):
            ended, out, _ = await outcome(executor, python(GREEDY, **resources))
            assert (ended.returncode, out) == (0, b"got it\n")
            assert ended.usage.memory_bytes > 300 * MIB

    run(main)


def test_a_memory_too_small_to_begin_with_is_an_end_and_not_a_hang(run):
    async def main():
        ended, _, _ = await outcome(SubprocessExecutor(NoGroups()), python(GREEDY, mem=1.0))
        assert ended.returncode != 0

    run(main)


def test_no_core_files_little_nice_and_as_many_cpus_as_were_claimed(run):
    async def main():
        script = (
            "import os, resource; print(resource.getrlimit(resource.RLIMIT_CORE), os.nice(0),"
            "len(os.sched_getaffinity(0)), os.getpgrp() == os.getpid() == os.getsid(0))"
        )
        executor = SubprocessExecutor(NoGroups())
        _, out, _ = await outcome(executor, python(script, cores=0.5))
        assert out == f"(0, 0) {min(os.nice(0) + 5, 19)} 1 True\n".encode()
        every = len(os.sched_getaffinity(0))
        _, out, _ = await outcome(executor, python(script))
        assert out.split()[3] == str(every).encode()

    run(main)


def test_ignored_signals_of_python_are_not_inherited(run):
    async def main():
        executor = SubprocessExecutor()
        _, out, _ = await outcome(
            executor, command("grep", "-E", "Sig(Ign|Blk)", "/proc/self/status")
        )
        assert [line.split()[1] for line in out.splitlines()] == [b"0" * 16, b"0" * 16]

    run(main)


async def groups_of(executor, **resources):
    """The own control groups of a command, by controller; none where they cannot be made."""
    _, out, _ = await outcome(executor, command("cat", "/proc/self/cgroup", **resources))
    lines = [line.split(":", 2) for line in out.decode().splitlines()]
    return {controllers: path for _, controllers, path in lines if "/dhtos-" in path}


def test_groups_limit_all_processes_together_and_go_with_them(run):
    async def main():
        executor = SubprocessExecutor()
        groups = await groups_of(executor, mem=100.0 * MIB, cores=0.5)
        if not any("memory" in name for name in groups):
            pytest.skip(f"no memory control group can be made here (made: {groups})")
        script = (  # the child has its part, and keeps it, before the parent takes the other
            "import os\n"
            "has, told = os.pipe(); done, end = os.pipe(); pid = os.fork()\n"
            "if not pid:\n"
            "    os.close(end); x = bytearray(60 * 2**20); os.write(told, b'x'); os.read(done, 1)\n"
            "    os._exit(0)\n"
            "os.close(told); os.close(done); os.read(has, 1); x = bytearray(60 * 2**20)\n"
            "os.close(end); print(os.waitpid(pid, 0)[1])"
        )
        ended, out, _ = await outcome(executor, python(script, mem=300.0 * MIB))
        assert (ended.returncode, out) == (0, b"0\n")
        ended, out, _ = await outcome(executor, python(script, mem=100.0 * MIB))
        assert (ended.returncode, out) in ((-9, b""), (0, b"9\n")), "two do not fit into 100 MiB"
        assert 60 * MIB < ended.usage.memory_bytes <= 100 * MIB
        assert stale_groups() == []

    run(main)


def test_a_share_of_cpu_time_is_not_exceeded(run):
    """Counted in CPU seconds of the command over its own wall seconds: no clock of ours."""

    async def main():
        executor = SubprocessExecutor()
        if not any("cpu" in name.split(",") for name in await groups_of(executor, cores=0.2)):
            pytest.skip("no cpu control group can be made here")
        script = "import time\nwhile time.process_time() < 0.4: pass"
        ended, _, _ = await outcome(executor, python(script, cores=0.2))
        used = ended.usage
        assert used.user_s + used.system_s < 0.2 * used.wall_s + 0.1

    run(main)
