"""The node's side of commands: who may run one, its streams, and its end with its lease.

Listens for TCP where the node listens for UDP. A connection is for one command: it shows a token
and a fence that stand in the ledger, and no other command may run under them at the time. From then
on nothing waits for anything else: frames are read as they come, streams have windows, a signal
passes what is not read. See `dhtos.node.command_wire`.

In a cluster a connection is sealed, and begins with the certificates of both. Whoever runs
something must be allowed to `run` on this machine, and be who was granted the lease: a token and a
fence that were stolen are of no use to others. What is sealed is not taken in open mode, nor the
other way round, and who comes the wrong way is told.

The ledger frees a lease at its end, and its command may take `COMMAND_GRACE_S` longer to die. Who
is granted what it had begins after that, so that no more ever runs than was granted.

Strangers are bounded: so many connections that have not yet said what they want, each for so long,
and so many handshakes a second of each address.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dhtos.core.limits import (
    COMMAND_CHUNK_BYTES,
    COMMAND_GRACE_S,
    COMMAND_HELLO_S,
    COMMAND_LEAVING_S,
    COMMAND_STRANGERS_MAX,
    COMMANDS_MAX,
)
from dhtos.errors import CannotStart, ConfigError, MalformedMessage, UsageError
from dhtos.node import command_wire as wire
from dhtos.node.command import Command, Executor, Exit, Running, check_size, variables, words
from dhtos.node.command_wire import STDERR, STDIN, STDOUT, Reason, frame
from dhtos.node.config import Config, format_endpoint
from dhtos.node.sealed_stream import HELLO, Reader, Writer, framed, sealed, welcome
from dhtos.node.usage import UsageLog
from dhtos.protocol.ledger import Grant
from dhtos.protocol.rates import Rates
from dhtos.transport.udp import UdpSocket

if TYPE_CHECKING:
    from dhtos.node.node import Node
    from dhtos.trust.cert import Chain

_WRONG_WAY = {
    False: "this node is a member of a cluster: ask as one who has joined it",
    True: "this node is in open mode, and knows of no certificates",
}
_MAY_NOT = "this certificate does not give `run` on that machine"
_BACKLOG = 128
_PORTS = 16  # tried where any port will do


def open_sockets(
    config: Config, open_socket: Callable[[str, int], UdpSocket]
) -> tuple[UdpSocket, socket.socket | None]:
    """The UDP socket of a node, and the TCP one of that port where it runs commands.

    Raises ConfigError for a busy port. Where any will do, one is looked for that is free in both.
    """
    if not config.commands or config.client:
        return open_socket(config.host, config.port), None
    for attempt in range(_PORTS):
        listener = bind(config.host, config.port)
        try:
            return open_socket(config.host, listener.getsockname()[1]), listener
        except ConfigError:
            listener.close()
            if config.port or attempt == _PORTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


async def open_commands(
    node: "Node",
    listener: socket.socket,
    executor: Executor | None,
    *,
    wall_clock: Callable[[], float],
) -> "CommandServer":
    """Run commands for who comes to this socket; as processes of this machine where none is given.

    The socket is the server's from here on.
    """
    try:
        usage = UsageLog(node.config.state_dir, wall_clock)
        await asyncio.to_thread(usage.read)
        if executor is None:
            from dhtos.node.executor import SubprocessExecutor

            executor = SubprocessExecutor()
        server = CommandServer(node, executor, usage)
        await server.start(listener)
    except BaseException:
        listener.close()
        raise
    return server


def bind(host: str, port: int) -> socket.socket:
    """The TCP socket of a node that runs commands; raises ConfigError for a busy port."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen for commands on TCP {host} port {port} ({error.strerror}): "
            "choose another with --port"
        ) from error
    sock.setblocking(False)
    return sock


class CommandServer:
    """Runs what owners of leases ask for."""

    def __init__(self, node: "Node", executor: Executor, usage: UsageLog) -> None:
        self._node = node
        self._grants = node.grants
        self._executor = executor
        self.usage = usage
        self._count = node.engine.core.counters
        sessions = node.engine.core.sessions
        self._member = None if sessions is None else sessions.member
        self._rates = Rates()
        self._server: asyncio.Server | None = None
        self._strangers: dict[asyncio.StreamWriter, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: dict[bytes, _Session] = {}  # the last of each lease
        self._alive: set[_Session] = set()
        self._closing = False

    async def start(self, sock: socket.socket) -> None:
        """Serve who comes."""
        self._grants.on_end = self._on_end
        self._server = await asyncio.start_server(self._serve, sock=sock)

    async def aclose(self) -> None:
        """End every command and wait until none is left; may be called again."""
        if self._server is None:
            return
        self._closing = True
        server, self._server = self._server, None
        server.close()
        for writer in tuple(self._strangers):
            writer.transport.abort()
        for session in tuple(self._alive):
            session.lease_over(COMMAND_GRACE_S, free=True)
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
        await server.wait_closed()

    def _on_end(self, grant: Grant, gone_by: float) -> None:
        """A lease was released, taken back, or is over: so is what runs under it."""
        session = self._sessions.get(grant.token)
        if session is not None:
            left = gone_by - self._node.driver.clock()
            session.lease_over(max(left, COMMAND_GRACE_S), free=left <= 0)

    # --- one connection ---------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            caller = await self._hear(reader, writer)
            if caller is not None:
                await self._answer(caller)
        except MalformedMessage:
            self._count["commands_malformed"] += 1
            writer.transport.abort()
        finally:
            await _leave(writer)
            self._tasks.discard(task)

    async def _hear(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> "_Caller | None":
        """Who a stranger is and what it wants; None for one that does not say so in time."""
        if len(self._strangers) >= COMMAND_STRANGERS_MAX:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.transport.abort()
            self._count["commands_strangers_dropped"] += 1
        self._strangers[writer] = None
        try:
            async with asyncio.timeout(COMMAND_HELLO_S):
                return await self._meet(reader, writer)
        except TimeoutError:
            self._count["commands_strangers_dropped"] += 1
            writer.transport.abort()
            return None
        finally:
            self._strangers.pop(writer, None)

    async def _meet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> "_Caller | None":
        first = await wire.body_of(reader, wire.FIRST_BYTES_MAX)
        if first is None:
            return None
        comes_sealed = first.startswith(HELLO)
        if comes_sealed != (self._member is not None):
            self._refuse(writer, wire.Refusal(Reason.CHANNEL, _WRONG_WAY[comes_sealed], 126))
            return None
        if self._member is None:
            return _Caller(_start_of(wire.read_from_client(first)), None, reader, writer)
        if not self._rates.admit(writer.get_extra_info("peername")[0], self._node.driver.clock()):
            self._count["commands_strangers_dropped"] += 1
            writer.transport.abort()
            return None
        met = welcome(self._member, first)
        writer.write(framed(met.ready))
        if met.chain is None:
            self._count["commands_refused"] += 1
            return None
        own_reader, own_writer = sealed(reader, writer, met.keys)
        message = await wire.from_client(own_reader, wire.FIRST_BYTES_MAX)
        if message is None:
            return None
        return _Caller(_start_of(message), met.chain, own_reader, own_writer)

    async def _answer(self, caller: "_Caller") -> None:
        start, writer = caller.start, caller.writer
        await self._let_leave(start.token)
        refusal = self._refused(caller)
        if refusal is not None:
            self._refuse(writer, refusal)
            return
        command = self._command(start)
        session = _Session(caller.reader, writer, stdin=start.stdin)
        before = self._sessions.get(start.token)
        self._sessions[start.token] = session
        self._alive.add(session)
        try:
            if before is not None:
                await before.exited.wait()  # its owner has given it up
            running = await self._begin(command, session)
            if isinstance(running, wire.Refusal):
                self._refuse(writer, running)
                return
            wire.keep_alive(writer)
            writer.write(frame(wire.Started(command.lease)))
            self._count["commands_started"] += 1
            ended = await session.converse(running)
        finally:
            session.over.set()
            session.exited.set()
            session.noted.set()  # in the same step as its usage, below
            self._alive.discard(session)
            if self._sessions.get(start.token) is session:
                del self._sessions[start.token]
            self._count["commands_malformed"] += session.malformed
        await self.usage.add(command, ended)
        session.say_end(ended)

    async def gone(self, token: bytes) -> None:
        """Wait until nothing runs under a lease; what has run is in `usage` then."""
        session = self._sessions.get(token)
        if session is not None:
            await session.noted.wait()

    async def _let_leave(self, token: bytes) -> None:
        """Whoever has just hung up on a command of that lease may have come back already."""
        session = self._sessions.get(token)
        if session is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMAND_LEAVING_S):
                    await session.over.wait()

    def _refused(self, caller: "_Caller") -> wire.Refusal | None:
        """Why this may not run; None where it may."""
        start = caller.start
        if start.version != wire.VERSION:
            return wire.Refusal(Reason.VERSION, f"this node speaks version {wire.VERSION}", 126)
        if self._closing:
            return wire.Refusal(Reason.CLOSING, "this node is about to end", 126)
        if not self._may_run(caller.chain):
            return wire.Refusal(Reason.FORBIDDEN, _MAY_NOT, 126)
        grant = self._grants.runs(start.token, start.fence, self._node.driver.clock())
        self._node.driver.flush()
        if grant is None:
            text = "no lease of this start of the node has that token and fence"
            return wire.Refusal(Reason.LEASE, text, 126)
        if grant.subject != caller.subject:
            self._count["claims_of_others"] += 1
            return wire.Refusal(Reason.LEASE, "that lease was granted to somebody else", 126)
        session = self._sessions.get(start.token)
        if session is not None and not session.over.is_set():
            return wire.Refusal(Reason.BUSY, "a command runs under this lease already", 126)
        if len(self._alive) >= COMMANDS_MAX:
            return wire.Refusal(Reason.CROWDED, f"{COMMANDS_MAX} commands run here already", 126)
        return None

    def _may_run(self, chain: "Chain | None") -> bool:
        """Whether somebody may run commands on this machine; in open mode everybody may."""
        if self._member is None or chain is None:
            return self._member is None
        return chain.leaf.may("run", self._member.groups)

    def _command(self, start: wire.Start) -> Command:
        grant = self._grants.ledger.known(start.token)
        assert isinstance(grant, Grant), "it was looked up in the same step"
        try:
            argv, env = words(start.argv), variables(start.env)
            check_size(argv, env)
        except UsageError as error:
            raise MalformedMessage(str(error)) from error
        return Command(
            argv=argv,
            env=env,
            stdin=start.stdin,
            resources=dict(grant.resources),
            lease=f"{self._node.id}-{grant.fence}",
            token=grant.token.hex(),
            fence=grant.fence,
            owner=format_endpoint(grant.owner),
            user=grant.user,
        )

    async def _begin(self, command: Command, session: "_Session") -> Running | wire.Refusal:
        """Start it as soon as nothing runs any more that was granted before."""
        for other in tuple(self._alive):
            if other.free and other is not session:
                await other.exited.wait()
        if session.over.is_set():
            return wire.Refusal(Reason.LEASE, "the lease has ended", 126)
        try:
            return await self._executor.start(command)
        except CannotStart as error:
            text = str(error)[: wire.TEXT_BYTES_MAX]
            return wire.Refusal(Reason.CANNOT_START, text, error.code)

    def _refuse(self, writer: Writer, refusal: wire.Refusal) -> None:
        self._count["commands_refused"] += 1
        writer.write(frame(refusal))


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who has connected and what it wants; the chain that it showed, in a cluster."""

    start: wire.Start
    chain: "Chain | None"
    reader: Reader
    writer: Writer

    @property
    def subject(self) -> bytes:
        """The key in whose name it comes; empty in open mode."""
        return b"" if self.chain is None else self.chain.principal.subject


def _start_of(message: wire.FromClient) -> wire.Start:
    if isinstance(message, wire.Start):
        return message
    raise MalformedMessage("a connection begins with what to run")


class _Session:
    """One command and the connection of its owner."""

    def __init__(self, reader: Reader, writer: Writer, *, stdin: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._running: Running | None = None
        self._grace_s = COMMAND_GRACE_S
        self._out = {fd: wire.Outflow(fd, writer) for fd in (STDOUT, STDERR)}
        self._in = wire.Inflow(STDIN, writer)
        self._input = bytearray()  # a window of it at most
        self._input_ended = not stdin
        self._more = asyncio.Event()
        self.malformed = False
        self.over = asyncio.Event()  # its lease, or its connection
        self.exited = asyncio.Event()
        self.noted = asyncio.Event()  # what it has used
        self.free = False  # what it had may be granted to others

    def lease_over(self, grace_s: float, *, free: bool) -> None:
        """The lease has ended; what it had may be granted to others if `free`."""
        self.free = self.free or free
        self._end(grace_s)

    def _end(self, grace_s: float) -> None:
        self._grace_s = min(grace_s, self._grace_s) if self.over.is_set() else grace_s
        self.over.set()
        if self._running is not None:
            self._running.end(self._grace_s)

    async def converse(self, running: Running) -> Exit:
        """Carry what goes in and comes out until nobody of the command is left."""
        self._running = running
        if self.over.is_set():
            running.end(self._grace_s)
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._feed(running))]
        pumps = [
            asyncio.create_task(self._pump(running.stdout, self._out[STDOUT])),
            asyncio.create_task(self._pump(running.stderr, self._out[STDERR])),
        ]
        try:
            ended = await running.wait()
            self.exited.set()
            await self._flush(pumps)
            return ended
        finally:
            if not self.exited.is_set():
                running.end(0.0)
            for task in (*tasks, *pumps):
                task.cancel()
            await asyncio.gather(*tasks, *pumps, return_exceptions=True)
            running.close()

    async def _flush(self, pumps: "list[asyncio.Task[None]]") -> None:
        """Wait for a reader that is slow; not much longer than its lease."""
        over = asyncio.create_task(self.over.wait())
        flushed = asyncio.gather(*pumps)
        try:
            await asyncio.wait((over, flushed), return_when=asyncio.FIRST_COMPLETED)
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMAND_GRACE_S):
                    await flushed
        finally:
            over.cancel()

    async def _listen(self) -> None:
        """What the owner says; that it has gone is a word too."""
        try:
            while (message := await wire.from_client(self._reader)) is not None:
                self._hear(message)
        except MalformedMessage:
            self.malformed = True
        self._writer.transport.abort()
        for flow in self._out.values():
            flow.stop()
        self._end(COMMAND_GRACE_S)

    def _hear(self, message: wire.FromClient) -> None:
        match message:
            case wire.Data(stream=0, data=data) if not self._input_ended:
                self._in.come(len(data))
                self._input += data
                self._input_ended = not data
                self._more.set()
            case wire.Taken(stream=stream, count=count) if stream in self._out:
                self._out[stream].taken(count)
            case wire.Signal(number=number) if self._running is not None:
                self._running.send_signal(number)
            case _:
                raise MalformedMessage("not what is said of a command that runs")

    async def _feed(self, running: Running) -> None:
        while self._input or not self._input_ended:
            await self._more.wait()
            self._more.clear()
            while self._input:
                data = bytes(self._input[:COMMAND_CHUNK_BYTES])
                del self._input[:COMMAND_CHUNK_BYTES]
                await running.stdin.write(data)
                self._in.handed_on(len(data))
                await wire.drain(self._writer)
        running.stdin.close()

    async def _pump(self, source: asyncio.StreamReader, flow: wire.Outflow) -> None:
        while data := await source.read(COMMAND_CHUNK_BYTES):
            await flow.send(data)
        flow.end()

    def say_end(self, ended: Exit) -> None:
        """The last word."""
        used = ended.usage
        if not self._writer.is_closing():
            message = wire.Ended(
                ended.returncode, used.user_s, used.system_s, used.memory_bytes, used.wall_s
            )
            self._writer.write(frame(message))


async def _leave(writer: asyncio.StreamWriter) -> None:
    """Close a connection when all was sent; one that is not read is cut off."""
    writer.close()
    try:
        async with asyncio.timeout(COMMAND_GRACE_S):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        return  # the other side has left already
