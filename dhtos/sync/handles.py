"""What the methods of a blocking node return while something still runs."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from dhtos.core.hit import Hit
from dhtos.core.ids import NodeId
from dhtos.errors import DhtosError
from dhtos.node.command import Usage, Word
from dhtos.node.command_client import DEVNULL, PIPE, Completed, Stdin
from dhtos.node.command_client import Process as AsyncProcess
from dhtos.node.find import Find as AsyncFind
from dhtos.node.lease import Gang as AsyncGang
from dhtos.node.lease import Lease as AsyncLease
from dhtos.node.replicas import SETTLE_S, What
from dhtos.node.replicas import Change as AsyncChange
from dhtos.node.replicas import Replicas as AsyncReplicas
from dhtos.protocol.frontier import FindResult

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
"""Does a piece of work in the loop of the node, and waits for it."""


class _Closing:
    """A context manager that is closed at its end."""

    def close(self) -> None:
        """Let go of it; may be called again."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Find(_Closing):
    """Hits as they come: an iterator that is a context manager; leaving it frees the query."""

    def __init__(self, find: AsyncFind, run: Run) -> None:
        self._find = find
        self._run = run

    @property
    def result(self) -> FindResult:
        """The end of the query: coverage, cursor, all hits; raises UsageError before it."""
        return self._find.result

    def close(self) -> None:
        """Free the query; may be called again."""
        self._run(self._find.aclose)

    def __iter__(self) -> Iterator[Hit]:
        return self

    def __next__(self) -> Hit:
        hit: Hit | None = self._run(self._step)
        if hit is None:
            raise StopIteration
        return hit

    async def _step(self) -> Hit | None:
        return await anext(self._find, None)


class _Held:
    """What is leased: a context manager that releases it.

    Where it was lost meanwhile, LeaseLost comes out at the end.
    """

    def __init__(self, held: AsyncLease | AsyncGang, run: Run) -> None:
        self._held = held
        self._run = run

    @property
    def lost(self) -> bool:
        """Whether a node took a lease back, or was not heard for a whole term."""
        return self._held.lost

    def ended(self) -> None:
        """Wait for its end, of a gang the first; raises LeaseLost where that was not a release."""
        self._run(self._held.ended)

    def release(self) -> None:
        """Give it back; may be called again."""
        self._run(self._held.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = self.lost
        self.release()
        if lost and kind is None:
            self.ended()


class Lease(_Held):
    """A part of a machine that is ours until it is released or lost; renewed in the background.

    A context manager that releases it; where it was lost meanwhile, LeaseLost comes out at the end.
    """

    def __init__(self, lease: AsyncLease, run: Run) -> None:
        super().__init__(lease, run)
        self._lease = lease

    @property
    def hit(self) -> Hit:
        """The machine as it was found."""
        return self._lease.hit

    @property
    def node(self) -> NodeId:
        """Who granted it."""
        return self._lease.node

    @property
    def endpoint(self) -> str:
        """Where that node listens: `host:port`."""
        return self._lease.endpoint

    @property
    def token(self) -> str:
        """What only its owner and the node know, in hexadecimal."""
        return self._lease.token

    @property
    def fence(self) -> int:
        """Larger than that of every earlier lease of the node."""
        return self._lease.fence

    @property
    def resources(self) -> Mapping[str, float]:
        """How much of what is ours."""
        return self._lease.resources

    @property
    def expires_s(self) -> float:
        """In how many seconds it ends if no renewal is heard; 0 once it has ended."""
        return self._lease.expires_s

    def start(
        self,
        *argv: Word,
        env: Mapping[str, str] | None = None,
        stdin: int = DEVNULL,
        stdout: int = PIPE,
        stderr: int = PIPE,
    ) -> "Process":
        """Run a command on the machine of this lease, one at a time."""
        return Process(
            self._run(
                lambda: self._lease.start(*argv, env=env, stdin=stdin, stdout=stdout, stderr=stderr)
            ),
            self._run,
        )

    def run(
        self,
        *argv: Word,
        env: Mapping[str, str] | None = None,
        input: bytes | None = None,  # noqa: A002 - as `subprocess` calls it
    ) -> Completed:
        """Run a command to its end: `returncode`, `stdout`, `stderr` and `usage`."""
        done: Completed = self._run(lambda: self._lease.run(*argv, env=env, input=input))
        return done


class Reader:
    """What a command writes; an iterator over its lines."""

    def __init__(self, reader: asyncio.StreamReader, run: Run) -> None:
        self._reader = reader
        self._run = run

    def read(self, size: int = -1) -> bytes:
        """So many bytes at most, or all until its end; nothing at the end."""
        data: bytes = self._run(lambda: self._reader.read(size))
        return data

    def readline(self) -> bytes:
        """The next line, with its end; nothing at the end."""
        line: bytes = self._run(self._reader.readline)
        return line

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")


class Writer:
    """The standard input of a command."""

    def __init__(self, stdin: Stdin, run: Run) -> None:
        self._stdin = stdin
        self._run = run

    def write(self, data: bytes) -> None:
        """Send this, and wait while it is not read."""

        async def send() -> None:
            self._stdin.write(data)
            await self._stdin.drain()

        self._run(send)

    def close(self) -> None:
        """No more will come; may be called again."""

        async def end() -> None:
            self._stdin.close()

        self._run(end)


class Process(_Closing):
    """A command on another machine: a context manager that ends it."""

    def __init__(self, process: AsyncProcess, run: Run) -> None:
        self._process = process
        self._run = run
        self.stdin = process.stdin and Writer(process.stdin, run)
        self.stdout = process.stdout and Reader(process.stdout, run)
        self.stderr = process.stderr and Reader(process.stderr, run)

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of its signal; None while it runs."""
        return self._process.returncode

    @property
    def usage(self) -> Usage | None:
        """What it has used; None while it runs."""
        return self._process.usage

    def wait(self) -> int:
        """Its exit code; raises LeaseLost where it was lost with its lease or its machine."""
        code: int = self._run(self._process.wait)
        return code

    def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:  # noqa: A002 - as `subprocess` calls it
        """Send all input, and collect all output until it has ended."""
        outputs: tuple[bytes, bytes] = self._run(lambda: self._process.communicate(input))
        return outputs

    def send_signal(self, number: int) -> None:
        """Send it and what it started a signal; nothing where it has ended."""

        async def send() -> None:
            self._process.send_signal(number)

        self._run(send)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End it if it still runs, and let go of it; may be called again."""
        self._run(self._process.aclose)


class Gang(_Held):
    """Leases that are of use only together; a context manager that releases them."""

    def __init__(self, gang: AsyncGang, run: Run) -> None:
        super().__init__(gang, run)
        self.leases = tuple(Lease(lease, run) for lease in gang.leases)


@dataclass(frozen=True, slots=True)
class Change:
    """What became of replicas, as `dhtos.Change`, with a lease that blocks."""

    what: What
    lease: Lease | None
    reason: str
    alive: int
    count: int


class Replicas(_Closing):
    """So many leases of one need, kept alive in the background until they are closed."""

    def __init__(self, replicas: AsyncReplicas, run: Run) -> None:
        self._replicas = replicas
        self._run = run

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Those that are alive now, the oldest first."""

        async def look() -> tuple[AsyncLease, ...]:
            return self._replicas.leases

        return tuple(Lease(lease, self._run) for lease in self._run(look))

    @property
    def count(self) -> int:
        """How many are wanted."""
        return self._replicas.count

    @property
    def waiting(self) -> DhtosError | None:
        """Why the last attempt left some missing; None if all are alive."""
        return self._replicas.waiting

    @property
    def closed(self) -> bool:
        """Whether they are kept no more."""
        return self._replicas.closed

    def settled(self, *, deadline_s: float = SETTLE_S) -> None:
        """Wait until as many are alive as are wanted; raises where that does not come about."""
        self._run(lambda: self._replicas.settled(deadline_s=deadline_s))

    def changes(self) -> Iterator[Change]:
        """What becomes of them, as it happens, beginning with those that are alive."""
        changes = self._replicas.changes()

        async def step() -> AsyncChange | None:
            return await anext(changes, None)

        while (change := self._run(step)) is not None:
            lease = None if change.lease is None else Lease(change.lease, self._run)
            yield Change(change.what, lease, change.reason, change.alive, change.count)

    def resize(self, count: int) -> None:
        """Want another number of them; the youngest are released where it is smaller."""
        self._run(lambda: self._replicas.resize(count))

    def close(self) -> None:
        """Release all of them and ask for no more; may be called again."""
        self._run(self._replicas.aclose)
