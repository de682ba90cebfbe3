"""What was found to place something on, and the lease that came of it."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from dhtos.core.coverage import Coverage
from dhtos.core.hit import Hit
from dhtos.core.ids import NodeId
from dhtos.errors import LeaseLost
from dhtos.node import command_client
from dhtos.node.command import Word
from dhtos.node.command_client import DEVNULL, PIPE, Completed, Process
from dhtos.node.config import format_endpoint
from dhtos.node.sealed_stream import Channels
from dhtos.protocol.claims import Tenancy
from dhtos.sched import Need, Refused, why
from dhtos.transport.driver import Driver


@dataclass(frozen=True, slots=True)
class Choice:
    """A machine that can take a need, and the weighted costs that make its score."""

    hit: Hit
    score: float
    terms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """Machines for a need, the best first; nothing is claimed."""

    need: Need
    choices: tuple[Choice, ...]
    refused: tuple[Refused, ...]
    coverage: Coverage

    @property
    def reasons(self) -> dict[str, int]:
        """How many of the candidates each reason ruled out."""
        return why(self.refused)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a need can be met or not: of so many machines, who is ruled out by what.

    `matching` satisfy `where`, `able` the whole need. `reasons` counts by resource the matching
    machines that do not have enough of it free; one may lack several. Exact where
    `coverage.complete`.
    """

    need: Need
    machines: int
    matching: int
    able: int
    reasons: Mapping[str, int]
    coverage: Coverage


class Lease:
    """A part of a machine that is ours until it is released or lost; it is renewed meanwhile.

    `token` names it to the node, `fence` is larger than that of every earlier lease of the node.
    """

    def __init__(
        self, driver: Driver, tenancy: Tenancy, hit: Hit, channels: Channels | None = None
    ) -> None:
        self._driver = driver
        self._tenancy = tenancy
        self._channels = channels  # none in open mode
        self.hit = hit

    @property
    def node(self) -> NodeId:
        """Who granted it."""
        return self.hit.id

    @property
    def endpoint(self) -> str:
        """Where that node listens: `host:port`."""
        return format_endpoint(self._tenancy.granted.endpoint)

    @property
    def token(self) -> str:
        """What only its owner and the node know, in hexadecimal."""
        return self._tenancy.granted.token.hex()

    @property
    def fence(self) -> int:
        """What a lease guards may refuse smaller ones than it has seen."""
        return self._tenancy.granted.fence

    @property
    def identity(self) -> bytes:
        """The public key of that node, to which commands are sealed; empty in open mode."""
        return b"" if self._channels is None else self.hit.record.identity

    @property
    def resources(self) -> Mapping[str, float]:
        """How much of what is ours."""
        return dict(self._tenancy.granted.resources)

    @property
    def expires_s(self) -> float:
        """In how many seconds it ends if no renewal is heard; 0 once it has ended.

        What is lost to something of a higher priority has so much time left to be given back.
        """
        return max(self._tenancy.expires - self._driver.clock(), 0.0)

    @property
    def lost(self) -> bool:
        """Whether the node took it back, or was not heard for a whole term."""
        return self._tenancy.operation.error is not None

    async def ended(self) -> None:
        """Wait for its end; raises LeaseLost where that was not a release."""
        await self._driver.ended(self._tenancy.operation)

    async def start(
        self,
        *argv: Word,
        env: Mapping[str, str] | None = None,
        stdin: int = DEVNULL,
        stdout: int = PIPE,
        stderr: int = PIPE,
    ) -> Process:
        """Run a command on the machine of this lease, with `PIPE` and `DEVNULL` of `subprocess`.

        One at a time. Raises UsageError for what cannot be a command, CannotStart where the machine
        cannot start it or does not let us, Refused, LeaseLost, and Unreachable where it runs no
        commands: ask for one that does by `where=dhtos.RUNS_COMMANDS`.
        """
        process = await command_client.start(
            self.endpoint,
            self.token,
            self.fence,
            argv,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            identity=self.identity,
            channels=self._channels,
        )
        process.lost_with(self.ended)
        return process

    async def run(
        self,
        *argv: Word,
        env: Mapping[str, str] | None = None,
        input: bytes | None = None,  # noqa: A002 - as `subprocess` calls it
    ) -> Completed:
        """Run a command to its end: `returncode`, `stdout`, `stderr` and `usage`.

        `input` goes to its standard input. Raises as `start`, LeaseLost when it is lost meanwhile,
        UsageError for more output than COMMAND_OUTPUT_BYTES_MAX.
        """
        stdin = DEVNULL if input is None else PIPE
        async with await self.start(*argv, env=env, stdin=stdin) as process:
            return await process.complete(input)

    async def release(self) -> None:
        """Give it back; may be called again."""
        if not self._driver.closed:
            self._tenancy.release(self._driver.clock())
            self._driver.flush()

    def __repr__(self) -> str:
        return f"<Lease {self.token[:8]} on {self.node}>"


class Gang:
    """Leases that are of use only together."""

    def __init__(self, leases: Sequence[Lease]) -> None:
        self.leases = tuple(leases)

    @property
    def lost(self) -> bool:
        """Whether any of them was lost."""
        return any(lease.lost for lease in self.leases)

    async def ended(self) -> None:
        """Wait until the first of them ends; raises LeaseLost where that was not a release."""
        waiting = [asyncio.ensure_future(lease.ended()) for lease in self.leases]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert done
        for outcome in outcomes:
            if isinstance(outcome, LeaseLost):
                raise outcome

    async def release(self) -> None:
        """Give all of them back; may be called again."""
        for lease in self.leases:
            await lease.release()

    def __repr__(self) -> str:
        return f"<Gang of {len(self.leases)}>"


T = TypeVar("T", bound=Lease | Gang)


class Placement(Generic[T]):
    """A placement under way: `await` it for a lease or a gang, `async with` it to release that too.

    The body of an `async with` is cancelled when a lease is lost, and LeaseLost comes out of it:
    `Preempted` where something of a higher priority takes its place, which waits for the body to
    end, as long as `lease.expires_s` says.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._lease: T | None = None
        self._watch: asyncio.Task[None] | None = None
        self._body: asyncio.Task[Any] | None = None
        self._interrupted = False

    def __await__(self) -> Generator[Any, None, T]:
        return self._work().__await__()

    async def __aenter__(self) -> T:
        self._lease = await self._work()
        self._body = asyncio.current_task()
        self._watch = asyncio.create_task(self._watching(self._lease))
        return self._lease

    async def _watching(self, lease: T) -> None:
        try:
            await lease.ended()
        except LeaseLost:
            self._interrupted = True
            assert self._body is not None
            self._body.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._lease is not None
        assert self._watch is not None
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._lease.release()
        if self._interrupted:
            assert self._body is not None
            self._body.uncancel()
            if kind is None or kind is asyncio.CancelledError:
                await self._lease.ended()
