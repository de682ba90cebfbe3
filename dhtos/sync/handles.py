"""What the methods of a blocking node return while something still runs."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from dhtos.core.hit import Hit
from dhtos.core.ids import NodeId
from dhtos.node.find import Find as AsyncFind
from dhtos.node.lease import Gang as AsyncGang
from dhtos.node.lease import Lease as AsyncLease
from dhtos.protocol.frontier import FindResult

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
"""Does a piece of work in the loop of the node, and waits for it."""


class Find:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


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


class Gang(_Held):
    """Leases that are of use only together; a context manager that releases them."""

    def __init__(self, gang: AsyncGang, run: Run) -> None:
        super().__init__(gang, run)
        self.leases = tuple(Lease(lease, run) for lease in gang.leases)
