"""What the adapters of engines share: their names for machines, and claims until one is of use.

An engine (Ray, Dask, Slurm) has names of its own for the machines it runs work on. A node on such
a machine tells that name in a label: so a candidate or a lease can be said in the engine's words.
Labels come from the wire: a name that does not look like one of the engine's is passed over, since
an engine may read more into it (Slurm takes `ALL` for every node).
"""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from dhtos.core.hit import Hit
from dhtos.errors import EngineError, NoCandidates, UsageError
from dhtos.node.lease import Gang, Lease, Plan
from dhtos.node.node import Node
from dhtos.query import Expr, F, parse_text
from dhtos.sched import Need
from dhtos.sync.handles import Gang as SyncGang
from dhtos.sync.handles import Lease as SyncLease

CLAIMS_MAX = 8  # machines claimed one after the other before work is given up
ANSWER_S = 10.0  # how long an engine may take to say who works for it

T = TypeVar("T")
Placed = Plan | Lease | Gang | SyncLease | SyncGang
"""What can be said in an engine's words: ranked candidates, or machines that were claimed."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A kind of engine: its title, the label that holds its names, and what these look like."""

    title: str
    label: str
    form: str
    form_words: str

    def checked(self, name: str) -> str:
        """The name; raises UsageError where it is none of this engine's."""
        if re.fullmatch(self.form, name) is None:
            raise UsageError(f"{self.label} must be {self.form_words}, got {name!r}")
        return name

    def name_of(self, hit: Hit) -> str | None:
        """What the engine calls a machine; None where the machine does not say."""
        name = hit.labels.get(self.label)
        return None if name is None or re.fullmatch(self.form, name) is None else name

    def names(self, placed: Placed) -> list[str]:
        """What the engine calls these machines, in their order; raises EngineError for none.

        Candidates of a plan that do not say are left out. Each lease must be on one that does.
        """
        hits = hits_of(placed)
        if not hits:
            raise EngineError("the plan names no machine: its `reasons` say what is short")
        names = [name for hit in hits if (name := self.name_of(hit)) is not None]
        if not names or (len(names) < len(hits) and not isinstance(placed, Plan)):
            raise EngineError(
                f"{len(hits) - len(names)} of {len(hits)} machines do not say what {self.title} "
                f"calls them: ask with where='label(\"{self.label}\").exists()', and register each "
                f"of {self.title}'s machines"
            )
        return names

    async def register(self, node: Node, name: str) -> None:
        """Tell the fleet what this engine calls the machine of a node."""
        await node.label({self.label: self.checked(name)})


def leases_of(placed: Lease | SyncLease | Gang | SyncGang) -> Sequence[Lease | SyncLease]:
    """What was claimed, one or many."""
    return placed.leases if isinstance(placed, Gang | SyncGang) else (placed,)


def hits_of(placed: Placed) -> list[Hit]:
    """The machines of a plan, the best first, or those that were claimed."""
    if isinstance(placed, Plan):
        return [choice.hit for choice in placed.choices]
    if not isinstance(placed, Lease | SyncLease | Gang | SyncGang):
        raise UsageError(f"expected a plan, a lease or a gang, got {placed!r}")
    return [lease.hit for lease in leases_of(placed)]


class Claims:
    """Leases for one piece of work, one after the other, until the engine can use one.

    The node grants and the engine runs: a machine may be willing while its engine is gone. Such a
    machine is ruled out by the name that the engine has for it, and the next one is claimed.
    """

    def __init__(
        self, engine: Engine, node: Node, need: Need, *, ttl_s: float, deadline_s: float
    ) -> None:
        self.engine = engine
        self.ruled_out: dict[str, str] = {}
        self._node = node
        self._need = need
        self._ttl_s = ttl_s
        self._deadline_s = deadline_s

    @asynccontextmanager
    async def next(self) -> AsyncIterator[tuple[Lease, str]]:
        """A lease of a machine that is not ruled out, and its name; released at the end.

        Raises as `Node.place`, and EngineError once none is left.
        """
        while len(self.ruled_out) < CLAIMS_MAX:
            async with AsyncExitStack() as stack:
                placement = self._node.place(
                    self._narrowed(), ttl_s=self._ttl_s, deadline_s=self._deadline_s
                )
                try:
                    lease = await stack.enter_async_context(placement)
                except NoCandidates as error:
                    await self._explain(error)
                    raise
                name = self.engine.name_of(lease.hit)
                if name is not None:
                    yield lease, name
                    return
                self.rule_out(lease.hit.labels[self.engine.label], f"not {self.engine.form_words}")
        raise self._nobody_left()

    async def _explain(self, error: NoCandidates) -> None:
        """Raise what says more than that nobody can take it."""
        if self.ruled_out:
            raise self._nobody_left() from error
        if not await self._node.count(F.label(self.engine.label).exists()):
            raise EngineError(
                f"no machine says what {self.engine.title} calls it: register each of them"
            ) from error

    def rule_out(self, name: str, why: str) -> None:
        """Claim that machine no more."""
        self.ruled_out[name] = why

    def _nobody_left(self) -> EngineError:
        told = "; ".join(f"{name}: {why}" for name, why in self.ruled_out.items())
        return EngineError(f"{self.engine.title} has no machine left that can take it: {told}")

    def _narrowed(self) -> Need:
        """The need, of machines of this engine that are not ruled out."""
        need, label = self._need, F.label(self.engine.label)
        where: Expr = ~label.one_of(*self.ruled_out) if self.ruled_out else label.exists()
        if isinstance(need.where, str) and need.where.strip():
            where = parse_text(need.where) & where
        elif isinstance(need.where, Expr):
            where = need.where & where
        return need.where_is(where)


async def in_thread(work: Callable[[], T], seconds: float | None) -> T:
    """What a blocking call of an engine returns; raises TimeoutError, and leaves it behind.

    Not in the executor of the loop: that one waits at its end for calls that never return.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: list[T], error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result[0])

    def run() -> None:
        result: list[T] = []
        error: BaseException | None = None
        try:
            result.append(work())
        except Exception as caught:
            error = caught
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="dhtos-engine", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await future
