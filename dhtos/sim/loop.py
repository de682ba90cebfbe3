"""An asyncio event loop on a cluster's virtual time, to test programs that embed `dhtos.Node`.

Theory of operation. asyncio asks its selector to wait for input or for the next timer. This
selector never waits: it lets the cluster live through its next moment, or lets the time pass to
the timer, whichever comes first. `loop.time()` is the cluster's clock, so `asyncio.sleep`,
`asyncio.timeout` and every deadline of a node pass in virtual time.

Work for a thread (`asyncio.to_thread`, name resolution) is done at once in the loop's own thread:
threads have no place in a run that one seed must replay.

A program whose every task waits while nothing is planned would wait for ever: that is a
`SimulationError`, as is a program that still runs after `limit_s`.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from dhtos.sim.cluster import Cluster
from dhtos.sim.node import E

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

P = ParamSpec("P")
T = TypeVar("T")

RUN_LIMIT_S = 86_400.0


class _VirtualSelector(selectors.BaseSelector, Generic[E]):
    """Real files are asked without waiting; waiting is the cluster living on."""

    def __init__(self, cluster: Cluster[E], limit_s: float) -> None:
        self._cluster = cluster
        self._ends_s = cluster.now + limit_s
        self._limit_s = limit_s
        self._files = selectors.DefaultSelector()

    def register(
        self, fileobj: "FileDescriptorLike", events: int, data: object = None
    ) -> selectors.SelectorKey:
        """Watch a real file."""
        return self._files.register(fileobj, events, data)

    def unregister(self, fileobj: "FileDescriptorLike") -> selectors.SelectorKey:
        """Watch a real file no more."""
        return self._files.unregister(fileobj)

    def get_map(self) -> "Mapping[FileDescriptorLike, selectors.SelectorKey]":
        """The real files."""
        return self._files.get_map()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, or live through one moment not later than `timeout`."""
        ready = self._files.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        cluster = self._cluster
        until = inf if timeout is None else cluster.now + timeout
        if not cluster.step(min(until, self._ends_s)):
            if until > self._ends_s:
                cluster.clock.advance(self._ends_s)
                raise cluster.failure(self._why(until))
            cluster.clock.advance(until)
        return []

    def _why(self, until: float) -> str:
        if until == inf and not self._cluster.clock.heap:
            return "every task waits and nothing is planned: the program would wait for ever"
        return f"the program still runs after {self._limit_s} virtual seconds"

    def close(self) -> None:
        """Forget the real files."""
        self._files.close()


class VirtualLoop(asyncio.SelectorEventLoop, Generic[E]):
    """An event loop that drives, and is driven by, one cluster."""

    def __init__(self, cluster: Cluster[E], *, limit_s: float = RUN_LIMIT_S) -> None:
        self._cluster = cluster
        super().__init__(_VirtualSelector(cluster, limit_s))

    def time(self) -> float:
        """The virtual time."""
        return self._cluster.now

    def run_in_executor(
        self, executor: object, func: Callable[..., T], *args: object
    ) -> "asyncio.Future[T]":
        """Do the work now, here."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run(cluster: Cluster[E], main: Coroutine[Any, Any, T], *, limit_s: float = RUN_LIMIT_S) -> T:
    """Run a program to its end in the virtual time of `cluster`, as `asyncio.run` would.

    >>> from dhtos.sim.testing import EchoEngine
    >>> cluster = Cluster(lambda node, now: EchoEngine(), seed=1)
    >>> run(cluster, asyncio.sleep(3600.0, "an hour later"))
    'an hour later'
    >>> cluster.now
    3600.0
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(cluster, limit_s=limit_s)) as runner:
        return runner.run(main)
