"""Replicas: so many leases of one need, kept alive until they are closed.

    missing --fill--> granted --renewed--> lost --avoid that place for a while--> missing

Theory of operation. One task, the keeper, compares how many are alive with how many are wanted and
has the missing ones claimed; a watcher of each lease waits for its end. Renewals are the heartbeat:
a lease that ends without having been released is lost, whatever the cause, and never before its
owner has stopped believing in it, so there are never more alive than are wanted. Only a preempted
one is replaced while it still has some seconds to wind up; it is released with the rest.

A replica that stood for longer than `cool_down_s` is replaced at once, after a random moment that
keeps the owners apart whom one failure has hit together. All else is trouble: a claim that came to
nothing, a lease that is lost soon after it was granted. Each trouble doubles the pause before the
next attempt, up to about `cool_down_s`, and calm for twice that long forgets them.

Who watches is told the difference between what he was told and what is (`Changes`), so a slow
reader costs no memory and misses only what is over.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Literal, Self

from dhtos.core.limits import SAMPLE_MAX
from dhtos.errors import ClaimsRefused, Closed, DhtosError, LeaseLost, NoCandidates, UsageError
from dhtos.node.background import Background
from dhtos.node.lease import Lease

COOL_DOWN_S = 10.0
SETTLE_S = 30.0
_APART_S = 0.25  # owners hit by one failure ask again within so long, not at one moment
_PAUSE_S = 0.25  # the first pause after trouble
_TROUBLES_MAX = 16  # counted: the pause has reached its end long before


@dataclass(frozen=True, slots=True)
class Opening:
    """What a keeper asks for: how many, where the others stand, and where some were lost lately.

    `take` is given each lease when it is granted, and keeps it or gives it back.
    """

    missing: int
    standing: tuple[Lease, ...]
    shunned: tuple[Lease, ...]
    take: Callable[[Lease], Awaitable[None]]


Fill = Callable[[Opening], Awaitable[DhtosError | None]]
"""Claims what is missing, and says why if that was not all of it; raises Closed with the node."""


What = Literal["granted", "lost", "released", "waiting"]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the replicas: one was granted, lost or released, or some are waited for.

    `lease` is the one concerned, none while `waiting`; `reason` says why one was lost or is still
    missing. `alive` of `count` stood when it was told.
    """

    what: What
    lease: Lease | None
    reason: str
    alive: int
    count: int


class Replicas:
    """So many leases of one need: `async with node.replicas(need, 3) as replicas`.

    The block begins at once, with none granted yet: they come one by one, the missing ones are
    asked for again until the end of the block, and what stands in the way is in `waiting`. At the
    end all of them are released.
    """

    def __init__(
        self,
        fill: Fill,
        count: int,
        *,
        cool_down_s: float,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._fill = fill
        self._count = check_count(count)
        self._cool_down_s = cool_down_s
        self._clock = clock
        self._rng = rng
        self._members: dict[Lease, float] = {}  # since when; the oldest first
        self._shunned: dict[bytes, tuple[Lease, float]] = {}  # lost lately, by machine: until when
        self._leaving: list[Lease] = []  # preempted: theirs for some seconds yet
        self._waiting: DhtosError | None = None
        self._troubles = 0
        self._troubled_s = -math.inf
        self._paused_until_s = -math.inf
        self._prompt_s = math.inf  # when a loss out of calm is answered, whatever the pause
        self._news = asyncio.Event()  # set once, and replaced, whenever anything has changed
        self._background = Background()
        self._begun = False
        self._ended = False

    # --- what is ----------------------------------------------------------------------------------

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Those that are alive now, the oldest first."""
        return tuple([one for one in self._members if one.expires_s > 0 and not one.lost])

    @property
    def count(self) -> int:
        """How many are wanted."""
        return self._count

    @property
    def waiting(self) -> DhtosError | None:
        """Why the last attempt left some missing: NoCandidates, ClaimsRefused; None if all live."""
        return self._waiting

    @property
    def closed(self) -> bool:
        """Whether they are kept no more: they were closed, or their node was."""
        return self._ended

    def changes(self) -> "Changes":
        """What becomes of them from now on, beginning with those that are alive."""
        return Changes(self)

    async def settled(self, *, deadline_s: float = SETTLE_S) -> None:
        """Wait until as many are alive as are wanted.

        Raises NoCandidates or ClaimsRefused, as the last attempt to place one, where that does not
        come about in time; they are asked for all the same until the end.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while len(self.leases) < self._count:
                    if self._ended:
                        raise Closed("the replicas are closed")
                    await self.news()
        except TimeoutError:
            raise self.shortage() from None

    def shortage(self) -> DhtosError:
        """The error that says how many are alive, and why the others are not."""
        found, why = self._waiting, "nobody has answered yet"
        reasons: Mapping[str, int] = {}
        if isinstance(found, NoCandidates | ClaimsRefused):
            reasons = found.reasons
        if found is not None:
            why = str(found)
        text = f"{len(self.leases)} of {self._count} replicas are alive: {why}"
        if isinstance(found, NoCandidates):
            return NoCandidates(text, reasons, complete=found.complete)
        return ClaimsRefused(text, reasons)

    async def news(self) -> None:
        """Wait until anything has changed."""
        await self._news.wait()

    # --- what shall be ----------------------------------------------------------------------------

    async def resize(self, count: int) -> None:
        """Want another number of them: more are placed, or the youngest released at once.

        Raises UsageError unless it is 0..256.
        """
        self._count = check_count(count)
        self._prompt_s = self._clock()
        for lease in tuple(self._members)[count:]:
            del self._members[lease]
            await lease.release()
        self._tell()

    async def aclose(self) -> None:
        """Release all of them and ask for no more; may be called again."""
        self._ended = True
        # None of these waits: a caller who is cancelled here has released all the same.
        for lease in (*self._members, *self._leaving):
            await lease.release()
        self._members.clear()
        self._tell()
        await self._background.aclose()

    async def __aenter__(self) -> Self:
        if self._begun:
            raise UsageError("replicas are kept once: ask the node for new ones")
        self._begun = True
        self._background.spawn(self._keep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- the keeper -------------------------------------------------------------------------------

    async def _keep(self) -> None:
        try:
            while not self._ended:
                await self._turn()
        except Closed:
            return  # With its node: that has given everything back.
        finally:
            self._ended = True
            self._tell()

    async def _turn(self) -> None:
        """Fill what is missing once it is time, or wait for news."""
        news = self._news
        if len(self._members) >= self._count:
            self._prompt_s = math.inf
            self._settle()
            await news.wait()
            return
        due_s = self._paused_until_s if self._prompt_s == math.inf else self._prompt_s
        if (delay_s := due_s - self._clock()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await news.wait()
            return
        self._prompt_s = math.inf
        missing = self._count - len(self._members)
        why = await self._fill(Opening(missing, self.leases, self._avoided(), self._take))
        if why is not None and len(self._members) < self._count:
            self._waiting = why
            self._trouble()
            self._tell()

    def _settle(self) -> None:
        if self._waiting is not None:
            self._waiting = None
            self._tell()

    async def _take(self, lease: Lease) -> None:
        """One more, unless it is too late or too many."""
        if self._ended or len(self._members) >= self._count:
            await lease.release()
            return
        self._members[lease] = self._clock()
        self._background.spawn(self._watch(lease))
        self._tell()

    async def _watch(self, lease: Lease) -> None:
        """Until it ends: then it is missing, unless nobody wants it any more."""
        lost = False
        try:
            await lease.ended()
        except LeaseLost:
            lost = True
        except Closed:
            lost = False  # The keeper finds that its node is gone.
        since = self._members.pop(lease, None)
        if since is None:
            return
        now = self._clock()
        if lost:
            self._shunned[bytes(lease.node)] = (lease, now + self._cool_down_s)
            self._leaving = [one for one in (*self._leaving, lease) if one.expires_s > 0]
        if lost and now - since < self._cool_down_s:
            self._trouble()
        else:
            self._prompt_s = min(self._prompt_s, now + self._rng.uniform(0, _APART_S))
        self._tell()

    def _avoided(self) -> tuple[Lease, ...]:
        """The leases whose place is not asked again as long as there are others."""
        now = self._clock()
        self._shunned = {name: one for name, one in self._shunned.items() if one[1] > now}
        return tuple(lease for lease, _ in self._shunned.values())

    def _trouble(self) -> None:
        """Pause before the next attempt, twice as long as the last time."""
        now = self._clock()
        if now < self._paused_until_s:
            return  # Several lost together are one trouble.
        if now - self._troubled_s > 2 * self._cool_down_s:
            self._troubles = 0
        pause_s = min(_PAUSE_S * 2**self._troubles, self._cool_down_s)
        self._troubles = min(self._troubles + 1, _TROUBLES_MAX)
        self._troubled_s = now
        self._paused_until_s = now + pause_s * self._rng.uniform(0.5, 1.5)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def __repr__(self) -> str:
        return f"<Replicas {len(self.leases)} of {self._count}>"


class Changes:
    """What becomes of some replicas: an async iterator that ends when they are closed.

    It compares what was told with what is, so that it remembers no more than there are replicas.
    A lease that came and went between two looks is not told. Cancelling a call loses nothing.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._told: list[Lease] = []
        self._waiting: tuple[object, ...] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        """The next change, as soon as there is one."""
        while not self._replicas.closed:
            change = await self._next()
            if change is not None:
                return change
            await self._replicas.news()
        raise StopAsyncIteration

    async def _next(self) -> Change | None:
        """The first difference: those that ended, then those that came, then what is waited for."""
        replicas = self._replicas
        alive = replicas.leases
        for lease in self._told:
            if lease not in alive:
                what, reason = await _end_of(lease)
                self._told.remove(lease)
                self._waiting = None
                return self._change(what, lease, reason)
        for lease in alive:
            if lease not in self._told:
                self._told.append(lease)
                return self._change("granted", lease)
        waiting = _gist(replicas.waiting, len(alive))
        if waiting == self._waiting:
            return None
        self._waiting = waiting
        return None if waiting is None else self._change("waiting", None, str(replicas.waiting))

    def _change(
        self,
        what: What,
        lease: Lease | None,
        reason: str = "",
    ) -> Change:
        # Those not told yet are not counted: each line is true after those before it.
        return Change(what, lease, reason, len(self._told), self._replicas.count)


async def _end_of(lease: Lease) -> tuple[What, str]:
    """How a lease ended that is alive no more."""
    try:
        await lease.ended()
    except LeaseLost as error:
        return "lost", str(error)
    except Closed:
        return "released", ""  # by its node, which gives all back
    return "released", ""


def _gist(why: DhtosError | None, alive: int) -> tuple[object, ...] | None:
    """What makes a reason worth telling again: not that its numbers have changed."""
    if why is None:
        return None
    if isinstance(why, NoCandidates | ClaimsRefused):
        return type(why), alive, frozenset(why.reasons)
    return type(why), alive, str(why)


def check_count(count: object) -> int:
    """How many replicas there may be; raises UsageError."""
    if type(count) is not int or not 0 <= count <= SAMPLE_MAX:
        raise UsageError(f"count must be 0..{SAMPLE_MAX}, got {count!r}")
    return count
