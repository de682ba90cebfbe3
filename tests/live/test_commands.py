"""Commands under leases, from one program: streams, ends, refusals, strangers, and a crowd."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from subprocess import DEVNULL, PIPE

import pytest
from processes import alive, children, stale_groups, wait_gone

import dhtos
import dhtos.sync
from dhtos import MiB, Need
from dhtos.core.limits import COMMAND_STRANGERS_MAX, COMMAND_WINDOW_BYTES, COMMANDS_MAX
from dhtos.errors import (
    CannotStart,
    ClaimsRefused,
    ConfigError,
    LeaseLost,
    MalformedMessage,
    NoCandidates,
    Preempted,
    Refused,
    Unreachable,
    UsageError,
)
from dhtos.node import command_client, command_server
from dhtos.node import command_wire as wire
from dhtos.node.command import Exit, Usage
from dhtos.node.journal import FILE

NEED = Need(cores=1, where=dhtos.RUNS_COMMANDS)


def config(*seeds, **settings):
    settings = {"host": "127.0.0.1", "port": 0, "sample": False, "commands": True, **settings}
    return dhtos.Config(seeds=[node.endpoint for node in seeds], **settings)


@contextlib.asynccontextmanager
async def machine(executor=None, **settings):
    """A machine of four cores that runs commands, and nothing of them when it has gone."""
    settings.setdefault("advertise", {"cores": 4, "mem": 4096 * MiB})
    async with dhtos.Node(config(**settings), executor=executor) as node:
        await node.joined()
        yield node
    assert children(os.getpid()) == []


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what it waits for is another process
        await asyncio.sleep(0.005)


async def ready(process):
    """The process id that a command tells first."""
    return int(await process.stdout.readline())


def test_a_command_is_run_where_the_lease_is(run):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            done = await lease.run(
                "sh", "-c", "cat; echo $A >&2; exit 3", env={"A": "b"}, input=b"in"
            )
            assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"b\n")
            assert done.args[0] == b"sh"
            assert done.usage.wall_s > 0
            (row,) = node.usage()
            assert (row.command, row.returncode, row.owner) == ("sh", 3, node.endpoint)
            assert row.lease == f"{node.id}-{lease.fence}"
            assert row.wall_s == done.usage.wall_s
            assert node.labels["runs"] == "commands"
            assert (await lease.run("cat")).stdout == b""  # no input is an empty one

    run(main)


def test_a_long_silence_is_kept_alive_at_both_ends(run):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            process = await lease.start("sleep", "100")
            (session,) = node._commands._alive
            for writer in (process._writer, session._writer):
                sock = writer.get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            await process.aclose()

    run(main)


def test_ten_megabytes_pass_both_ways_as_they_are(run):
    async def main():
        data = os.urandom(10_000_000)
        async with machine() as node, node.place(NEED) as lease:
            script = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d)\n"
            script += "sys.stdout.flush(); sys.stderr.buffer.write(d[::-1])"
            done = await lease.run(sys.executable, "-c", script, input=data)
            assert done.returncode == 0
            assert done.stdout == data
            assert done.stderr == data[::-1]

    run(main)


def test_who_does_not_read_stops_the_command_and_nothing_piles_up(run):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            script = (
                "import os, sys\nn = 0\nos.set_blocking(1, False)\nlast = -1\n"
                "while n < 50_000_000:\n"
                "    try: n += os.write(1, bytes(65536))\n"
                "    except BlockingIOError:\n"
                "        if n != last: os.write(2, b'%d\\n' % n)\n"
                "        last = n\n"
            )
            process = await lease.start(sys.executable, "-c", script)
            told = [0]
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(1.0):  # of silence: it can write no more
                        told.append(int(await process.stderr.readline()))
            assert told[-1] <= 2 * COMMAND_WINDOW_BYTES  # a window, and what lies in the pipes
            process.send_signal(signal.SIGKILL)  # a signal passes what is waiting
            reading = asyncio.create_task(process.stdout.read())
            assert await process.wait() == -signal.SIGKILL
            assert len(await reading) >= told[-1]
            await process.aclose()

    run(main)


def test_input_that_is_not_read_is_not_taken(run):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            process = await lease.start("sh", "-c", "echo $$; kill -STOP $$; wc -c", stdin=PIPE)
            await ready(process)
            process.stdin.write(bytes(3 * COMMAND_WINDOW_BYTES))
            draining = asyncio.create_task(process.stdin.drain())
            await asyncio.sleep(0.2)
            assert not draining.done()
            process.send_signal(signal.SIGCONT)
            await draining
            process.stdin.close()
            await process.stdin.wait_closed()
            assert process.stdin.is_closing()
            with pytest.raises(UsageError, match="was closed"):
                process.stdin.write(b"more")
            assert int(await process.stdout.read()) == 3 * COMMAND_WINDOW_BYTES
            assert await process.wait() == 0
            quick = await lease.start("true", stdin=PIPE)
            assert await quick.wait() == 0
            quick.stdin.write(b"nobody reads this")
            await quick.stdin.drain()

    run(main)


def test_output_may_be_thrown_away(run):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            script = "head -c 3000000 /dev/zero; echo x >&2"
            async with await lease.start(
                "sh", "-c", script, stdout=DEVNULL, stderr=DEVNULL
            ) as process:
                assert process.stdout is process.stderr is process.stdin is None
                assert await process.wait() == 0
                assert await process.communicate() == (b"", b"")
                with pytest.raises(UsageError, match="no standard input"):
                    await process.communicate(b"data")

    run(main)


def test_what_is_no_command_and_what_cannot_be_started(run):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            for argv, match in (
                ((), "at least one word"),
                (("a\0",), "NUL"),
                (("x" * 300_000,), "at most"),
            ):
                with pytest.raises(UsageError, match=match):
                    await lease.start(*argv)
            with pytest.raises(UsageError, match="a variable has a name"):
                await lease.start("true", env={"": "x"})
            with pytest.raises(UsageError, match="stdin is PIPE or DEVNULL"):
                await lease.start("true", stdin=7)
            with pytest.raises(CannotStart, match=f"on {node.endpoint} 'nothing' cannot") as caught:
                await lease.start("nothing")
            assert caught.value.code == 127
            with pytest.raises(CannotStart, match="Argument list too long"):
                await lease.start("true", "x" * 200_000)
            process = await lease.start("sleep", "100")
            with pytest.raises(UsageError, match=r"a signal is 1\.\.64, got 0"):
                process.send_signal(0)
            with pytest.raises(Refused, match="a command runs under this lease already"):
                await lease.start("true")
            process.terminate()
            assert await process.wait() == -signal.SIGTERM
            process.kill()  # it is nobody any more
            assert (await lease.run("true")).returncode == 0
            assert node.stats()["commands_refused"] == 3

    run(main)


def test_only_the_lease_and_its_fence_open_the_door(run):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            wrong = "00" * 16
            for token, fence in ((wrong, lease.fence), (lease.token, lease.fence + 1), (wrong, 1)):
                with pytest.raises(LeaseLost, match="no lease of this start of the node has that"):
                    await command_client.start(node.endpoint, token, fence, ["true"])
            silent = dhtos.Node(config(commands=False))
            async with silent:
                with pytest.raises(
                    Unreachable, match=r"takes no commands .* start its node with --comm"
                ):
                    await command_client.start(silent.endpoint, lease.token, lease.fence, ["true"])

    run(main)


def test_a_command_ends_with_its_lease_however_that_ends(run):
    async def main():
        async with machine() as node:
            for deed, lost in ((release, False), (revoke, True), (drain, True)):
                lease = await node.place(NEED)
                process = await lease.start("sh", "-c", "echo $$; exec sleep 100")
                pid = await ready(process)
                await deed(node, lease)
                if lost:
                    with pytest.raises(LeaseLost):
                        await process.wait()
                    assert process.returncode is None
                else:
                    assert await process.wait() == -signal.SIGTERM
                await until(lambda pid=pid: not alive(pid))
                await node.undrain()
            assert stale_groups() == []

    async def release(_node, lease):
        await lease.release()

    async def revoke(node, lease):
        await node.revoke(lease.token)

    async def drain(node, _lease):
        await node.drain(revoke=True)

    run(main)


def test_a_command_that_will_not_go_is_killed_before_what_it_had_is_used(run, monkeypatch):
    """The ledger grants the cores again at once; who gets them waits for the dead."""
    monkeypatch.setattr(command_server, "COMMAND_GRACE_S", 0.5)

    async def main():
        async with machine(advertise={"cores": 1}) as node:
            lease = await node.place(NEED)
            process = await lease.start(
                "sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.02; done"
            )
            pid = await ready(process)
            await lease.release()
            other = await placed(node)
            script = f"test -d /proc/{pid} && echo alive; exit 0"
            assert (await other.run("sh", "-c", script)).stdout == b""
            assert await process.wait() == -signal.SIGKILL

    run(main)


async def placed(node, need=NEED, *, pause_s=0.01):
    """A lease, whenever there is one to be had."""
    while True:
        with contextlib.suppress(NoCandidates, ClaimsRefused):
            return await node.place(need)
        await asyncio.sleep(pause_s)


def test_a_lease_that_is_not_renewed_ends_its_command(run):
    """Its owner is there, and its connection too: it only says nothing more."""

    async def main():
        async with machine() as node, dhtos.Node(config(node, client=True)) as client:
            lease = await client.place(NEED, ttl_s=1)
            process = await command_client.start(
                lease.endpoint, lease.token, lease.fence, ["sh", "-c", "echo $$; exec sleep 100"]
            )
            pid = await ready(process)
            client._tenants.kept[bytes.fromhex(lease.token)]._timer.cancel()
            assert await process.wait() == -signal.SIGTERM
            assert not alive(pid)
            assert node.leases() == ()

    run(main)


def test_who_goes_away_takes_the_command_along(run):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            process = await lease.start("sh", "-c", "echo $$; exec sleep 100")
            pid = await ready(process)
            await process.aclose()
            await process.aclose()
            with pytest.raises(LeaseLost, match="given up"):
                await process.wait()
            done = await lease.run("sh", "-c", f"test -d /proc/{pid}")  # begins when that is over
            assert done.returncode == 1
            running = asyncio.create_task(lease.run("sleep", "100"))
            await until(lambda: node.stats()["commands_started"] == 3)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert (await lease.run("true")).returncode == 0

    run(main)


def test_a_machine_that_goes_away_is_a_lost_lease(run):
    async def main():
        async with dhtos.Node(config(commands=False)) as asker:
            node = dhtos.Node(config(asker, advertise={"cores": 1}))
            async with node:
                await node.joined()
                lease = await placed(asker)
                process = await lease.start("sleep", "100")
            assert await process.wait() == -signal.SIGTERM  # it said goodbye
            with pytest.raises((LeaseLost, Unreachable)):
                await lease.start("true")

    run(main)


def test_nothing_is_begun_under_a_lease_of_an_earlier_start(run, tmp_path):
    async def main():
        state = {"state_dir": tmp_path / "state"}
        async with dhtos.Node(config(commands=False)) as asker:
            told = {"advertise": {"cores": 4}, **state}
            async with dhtos.Node(config(asker, **told)) as node:
                await node.joined()
                lease = await placed(asker, Need(cores=1, where=dhtos.RUNS_COMMANDS))
                assert (await lease.run("true")).returncode == 0
                port = node.port
            async with dhtos.Node(config(asker, port=port, **told)) as node:
                await node.joined()
                assert [grant.fence for grant in node.leases()] == [lease.fence]  # it is owed
                with pytest.raises(LeaseLost, match="no lease of this start"):
                    await lease.start("true")
                assert [row.command for row in node.usage()] == ["true"]
                fresh = await placed(asker, Need(cores=1, where=dhtos.RUNS_COMMANDS))
                assert (await fresh.run("true")).returncode == 0
                assert len(node.usage()) == 2

    run(main)


@pytest.mark.slow
def test_never_more_run_than_were_granted(unblocked, tmp_path, monkeypatch):
    """200 placements race for 4 cores; the commands count themselves."""
    monkeypatch.setattr("dhtos.protocol.grants.OFFER_DELAY_S", 0.02)

    async def main():
        async with asyncio.timeout(300), machine() as node:
            async with dhtos.Node(config(node, client=True)) as client:
                await asyncio.gather(*(one(client) for _ in range(200)))
            assert node.stats()["commands_started"] == 200

    async def one(client):
        lease = await placed(client, pause_s=0.5)
        done = await lease.run("sh", "-c", script)
        assert done.returncode == 0, done.stderr
        seen.append(len(done.stdout.split()))
        await lease.release()

    script = f"mkdir {tmp_path}/$$ && ls {tmp_path} && rmdir {tmp_path}/$$"
    seen: list[int] = []
    asyncio.run(main())
    assert len(seen) == 200
    assert max(seen) <= 4


# --- an executor of one's own ---------------------------------------------------------------------


class Told:
    """Runs nothing: says what it was asked for, and ends when it is told to."""

    def __init__(self, command):
        self.stdin, self.signals, self.ended = self, [], asyncio.Event()
        self.stdout, self.stderr = asyncio.StreamReader(), asyncio.StreamReader()
        self.stdout.feed_data(b" ".join(command.argv) + b"\n")
        self.graces = []
        self.closed = False

    async def write(self, data):
        self.stderr.feed_data(data)

    def close(self):
        self.closed = True

    def send_signal(self, number):
        self.signals.append(number)
        self.finish()

    def end(self, grace_s):
        self.graces.append(grace_s)
        self.finish()

    def finish(self):
        self.stdout.feed_eof()
        self.stderr.feed_eof()
        self.ended.set()

    async def wait(self):
        await self.ended.wait()
        return Exit(5, Usage(1.0, 2.0, 3, 4.0))


class OwnExecutor:
    def __init__(self):
        self.commands, self.running = [], []

    async def start(self, command):
        if command.argv == (b"bad",):
            raise CannotStart("not here", code=126)
        self.commands.append(command)
        self.running.append(Told(command))
        return self.running[-1]


def test_an_executor_of_ones_own_runs_what_others_ask_for(run):
    async def main():
        executor = OwnExecutor()
        async with machine(executor) as node:
            lease = await node.place(Need(cores=2, mem=64 * MiB, where=dhtos.RUNS_COMMANDS))
            process = await lease.start("a", "b", env={"X": "y"}, stdin=PIPE)
            assert await process.stdout.readline() == b"a b\n"
            process.stdin.write(b"input")
            assert await process.stderr.readexactly(5) == b"input"
            process.send_signal(signal.SIGUSR2)
            assert await process.wait() == 5
            assert process.usage == Usage(1.0, 2.0, 3, 4.0)
            (command,) = executor.commands
            assert (command.argv, command.env, command.stdin) == ((b"a", b"b"), {b"X": b"y"}, True)
            assert command.resources == {"cores": 2.0, "mem": 64.0 * MiB}
            assert (command.token, command.fence) == (lease.token, lease.fence)
            assert executor.running[0].signals == [signal.SIGUSR2]
            with pytest.raises(CannotStart, match="not here"):
                await lease.start("bad")
            process = await lease.start("c")
            await process.stdout.readline()
            assert executor.running[1].closed  # there is no input
            await lease.release()
            assert await process.wait() == 5
            (grace, *_) = executor.running[1].graces
            assert grace == command_server.COMMAND_GRACE_S

    run(main)


def test_a_revoke_with_time_gives_that_time(run):
    """By when a command must be gone comes with the end of its lease."""

    async def main():
        executor = OwnExecutor()
        async with machine(executor) as node:
            lease = await node.place(NEED)
            process = await lease.start("a")
            grant = node.grants.ledger.known(bytes.fromhex(lease.token))
            node.grants.on_end(grant, node.driver.clock() + 30.0)
            await process.wait()
            assert executor.running[0].graces[0] == pytest.approx(30.0, abs=1.0)

    run(main)


def test_a_preempted_command_may_say_goodbye(run):
    """It is asked to end, has time for it, and what it writes meanwhile arrives."""

    async def main():
        async with machine(advertise={"cores": 1}) as node:
            lease = await node.place(NEED)
            script = "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.02; done"
            process = await lease.start("sh", "-c", script)
            assert await process.stdout.readline() == b"up\n"
            urgent = Need(cores=1, priority=9, preempt=True, where=dhtos.RUNS_COMMANDS)
            taking = asyncio.create_task(placed(node, urgent))
            with pytest.raises(Preempted):
                await process.wait()
            assert process.returncode == 0
            assert await process.stdout.read() == b"saved\n"
            await lease.release()
            other = await taking
            assert (await other.run("echo", "mine")).stdout == b"mine\n"

    run(main)


# --- strangers ------------------------------------------------------------------------------------


async def connect(node):
    host, port = node.endpoint.split(":")
    return await asyncio.open_connection(host, int(port))


async def closed(reader):
    """Whether the other side has closed, however hard."""
    with contextlib.suppress(ConnectionError):
        return await reader.read() == b""
    return True


def test_garbage_is_counted_and_dropped(run):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            start = wire.Start(
                wire.VERSION, bytes.fromhex(lease.token), lease.fence, [b"cat"], {}, True
            )
            nul = wire.Start(1, start.token, start.fence, [b"a\0"], {}, True)
            large = wire.Start(1, start.token, start.fence, [b"x" * (2**18)], {}, True)
            for count, data in enumerate(
                (
                    b"GET / HTTP/1.1\r\n\r\n",
                    os.urandom(1000),
                    bytes(1000),
                    wire.frame(wire.Signal(9)),
                    wire.frame(nul),
                    wire.frame(large),
                    wire.frame(start) + os.urandom(500),
                    wire.frame(start) + wire.frame(wire.Data(1, b"x")),
                    wire.frame(start) + wire.frame(wire.Taken(1, 5)),
                    wire.frame(start) + wire.frame(start),
                    wire.frame(start)
                    + wire.frame(wire.Data(0, b""))
                    + wire.frame(wire.Data(0, b"x")),
                ),
                1,
            ):
                reader, writer = await connect(node)
                writer.write(data)
                await closed(reader)
                writer.close()
                await until(lambda count=count: node.stats().get("commands_malformed") == count)
            assert (await lease.run("echo", "still here")).stdout == b"still here\n"

    run(main)


def test_who_sends_more_than_a_window_is_dropped(run):
    async def main():
        executor = OwnExecutor()
        executor.start = stuck(executor.start)
        async with machine(executor) as node, node.place(NEED) as lease:
            reader, writer = await connect(node)
            token = bytes.fromhex(lease.token)
            writer.write(wire.frame(wire.Start(wire.VERSION, token, lease.fence, [b"a"], {}, True)))
            chunk = wire.frame(wire.Data(0, bytes(65536)))
            for _ in range(COMMAND_WINDOW_BYTES // 65536 + 2):
                writer.write(chunk)
            await closed(reader)
            writer.close()
            await until(lambda: node.stats().get("commands_malformed") == 1)

    def stuck(start):
        async def begun(command):
            running = await start(command)
            running.write = lambda _data: running.ended.wait()
            return running

        return begun

    run(main)


def test_strangers_that_say_nothing_are_bounded_in_number_and_time(run, monkeypatch):
    async def main():
        async with machine() as node, node.place(NEED) as lease:
            crowd = [await connect(node) for _ in range(COMMAND_STRANGERS_MAX)]
            server = node._commands
            await until(lambda: len(server._strangers) == COMMAND_STRANGERS_MAX)
            assert (await lease.run("echo", "x")).stdout == b"x\n"  # the oldest gave way
            assert await closed(crowd[0][0])
            assert node.stats()["commands_strangers_dropped"] >= 1
            monkeypatch.setattr(command_server, "COMMAND_HELLO_S", 0.05)
            reader, writer = await connect(node)
            assert await closed(reader)  # its time is over
            for _, other in [*crowd, (reader, writer)]:
                other.close()
            await until(lambda: not server._strangers)

    run(main)


def test_commands_of_one_node_are_bounded(run, monkeypatch):
    monkeypatch.setattr(command_server, "COMMANDS_MAX", 2)
    assert COMMANDS_MAX > 2

    async def main():
        async with machine(OwnExecutor()) as node:
            leases = [await node.place(NEED) for _ in range(3)]
            begun = [await lease.start("a") for lease in leases[:2]]
            with pytest.raises(Refused, match="2 commands run here already"):
                await leases[2].start("a")
            await begun[0].aclose()
            await until(lambda: len(node._commands._alive) == 1)
            await (await leases[2].start("a")).aclose()
            await begun[1].aclose()

    run(main)


def test_a_node_that_answers_nonsense_is_not_believed(run):
    async def main():
        replies = [b"\0\0\0\1\xc1", wire.frame(wire.Ended(0, 0.0, 0.0, 0, 0.0)), b""]
        begun = wire.frame(wire.Started("x"))
        replies += [begun + wire.frame(wire.Refusal(1, "", 1)), begun + b"\xff" * 10]
        replies += [begun + wire.frame(wire.Data(1, bytes(65536))) * 30]

        async def answer(reader, writer):
            await wire.from_client(reader, wire.FIRST_BYTES_MAX)
            writer.write(replies.pop(0))
            writer.write_eof()
            await reader.read()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

            async def ask():
                return await command_client.start(endpoint, "00" * 16, 1, ["x"])

            for error in (MalformedMessage, MalformedMessage, Unreachable):
                with pytest.raises(error):
                    await ask()
            for _ in range(3):
                with pytest.raises(MalformedMessage):
                    await (await ask()).wait()

    run(main)


# --- the node -------------------------------------------------------------------------------------


def test_the_same_port_in_both_and_a_busy_one_is_said(run):
    async def main():
        async with machine() as node:
            with pytest.raises(
                ConfigError, match=r"TCP 127.0.0.1 port .* choose another with --port"
            ):
                async with dhtos.Node(config(port=node.port)):
                    pass
            reader, writer = await connect(node)
            writer.close()
            await reader.read()
        async with dhtos.Node(config(host="::1")) as six, six.place(Need()) as lease:
            assert (await lease.run("echo", "six")).stdout == b"six\n"

    run(main)


def test_a_start_that_fails_gives_both_ports_back(run, tmp_path):
    async def main():
        async with machine() as node:
            port = node.port
        (tmp_path / FILE).write_bytes(b"no database" * 100)
        with pytest.raises(ConfigError, match="restore it from a backup"):
            async with dhtos.Node(config(port=port, state_dir=tmp_path)):
                pass
        async with machine(port=port) as node, node.place(NEED) as lease:
            assert (await lease.run("true")).returncode == 0

    run(main)


def test_closing_a_node_ends_its_commands(run):
    async def main():
        node = dhtos.Node(config(advertise={"cores": 1}))
        async with node:
            lease = await node.place(NEED)
            process = await lease.start("sh", "-c", "echo $$; exec sleep 100")
            pid = await ready(process)
        assert not alive(pid)
        with contextlib.suppress(LeaseLost, dhtos.errors.Closed):
            assert await process.wait() == -signal.SIGTERM
        await process.aclose()
        assert children(os.getpid()) == []

    run(main)


def test_output_beyond_what_is_collected_is_refused(run, monkeypatch):
    monkeypatch.setattr(command_client, "COMMAND_OUTPUT_BYTES_MAX", 100_000)

    async def main():
        async with machine() as node, node.place(NEED) as lease:
            with pytest.raises(UsageError, match="more than 100000 bytes: use start"):
                await lease.run("yes")
            assert len((await lease.run("head", "-c", "100000", "/dev/zero")).stdout) == 100_000

    run(main)


def test_without_asyncio():
    with dhtos.sync.Node(config(advertise={"cores": 2})) as node, node.place(NEED) as lease:
        done = lease.run("sh", "-c", "cat; exit 4", input=b"in")
        assert (done.returncode, done.stdout) == (4, b"in")
        with lease.start("cat", stdin=PIPE) as process:
            process.stdin.write(b"one\ntwo\n")
            assert process.stdout.readline() == b"one\n"
            assert process.returncode is process.usage is None
            process.stdin.write(b"three\nfour")
            process.stdin.close()
            assert list(process.stdout) == [b"two\n", b"three\n", b"four"]
            assert process.wait() == process.returncode == 0
            assert process.usage.wall_s > 0
        with lease.start("sh", "-c", "echo $$; exec sleep 100") as process:
            pid = int(process.stdout.readline())
            process.terminate()
            assert process.wait() == -signal.SIGTERM
            assert process.stdout.read() == process.stderr.read() == b""
        process = lease.start("sleep", "100")
        process.kill()
        assert process.communicate() == (b"", b"")
        process.send_signal(signal.SIGTERM)
        process.close()
        assert [row.returncode for row in node.usage()] == [4, 0, -15, -9]
        wait_gone(pid)
