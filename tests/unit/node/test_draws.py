"""Samples to place from: who draws, who shares, how large, and when anew."""

import asyncio

import pytest

from dhtos.core.coverage import Coverage
from dhtos.core.ids import Endpoint
from dhtos.core.limits import DRAWS_MAX, SAMPLE_MAX
from dhtos.errors import NoPeers
from dhtos.node.draws import DRAW_S, Draw, Draws
from dhtos.node.lease import Plan
from dhtos.protocol.claims import Bid, Declined, Granted, Outcome
from dhtos.sched import Candidate, Need, Offers

NEED = Need(cores=4)
ENDPOINT: Endpoint = ("192.0.2.1", 7400)
COMPLETE = Coverage(1.0, True, False, (), 0.0, 0, 0)


class Fleet:
    """Machines that are drawn from; the test holds the clock and may hold a draw."""

    def __init__(self, *names: str) -> None:
        self.names = names or ("a", "b")
        self.now = 100.0
        self.sizes: list[int] = []
        self.held: asyncio.Event | None = None
        self.error: Exception | None = None
        self.draws = Draws(self._draw)

    async def _draw(self, need: Need, size: int, spread: str | None) -> Draw:
        self.sizes.append(size)
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        machines = [
            Candidate(name.encode(), {"cores": 8}, {"cores": 8}) for name in self.names[:size]
        ]
        plan = Plan(need, (), (), COMPLETE)
        hits = {one.node_id: one.node_id for one in machines}

        def bid(hit):
            return Bid(hit, ENDPOINT, need.resources, 1)

        return Draw(plan, hits, Offers(need, machines), self.now, bid)

    async def of(self, need=NEED, size=16, **options):
        return await self.draws.of(need, size, lambda: self.now, **options)


async def test_a_sample_is_used_for_a_second():
    fleet = Fleet()
    first = await fleet.of()
    fleet.now += DRAW_S
    assert await fleet.of() is first
    assert first.used == 2
    fleet.now += 0.1
    assert await fleet.of() is not first
    assert fleet.sizes == [16, 16]


async def test_another_need_has_a_sample_of_its_own():
    fleet = Fleet()
    assert await fleet.of() is not await fleet.of(Need(cores=5))
    assert await fleet.of() is not await fleet.of(size=4)
    assert await fleet.of() is not await fleet.of(spread="site")
    assert fleet.sizes == [16, 16, 4, 16]
    assert await fleet.of() is await fleet.of(Need(cores=4))


async def test_one_draws_for_all_who_ask_meanwhile():
    fleet = Fleet()
    fleet.held = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(fleet.of()) for _ in range(5)]
        await asyncio.sleep(0)
        assert fleet.sizes == [16]
        fleet.held.set()
    assert len({id(task.result()) for task in asking}) == 1
    assert asking[0].result().used == 5


async def test_who_draws_may_go_and_another_draws():
    fleet = Fleet()
    fleet.held = asyncio.Event()
    first, second = (asyncio.ensure_future(fleet.of()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    fleet.held.set()
    assert len((await second).offers) == 2
    assert fleet.sizes == [16, 16]


async def test_an_error_is_told_to_everybody():
    fleet = Fleet()
    fleet.error = NoPeers("nobody")
    told = await asyncio.gather(*(fleet.of() for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in told] == [NoPeers] * 3
    fleet.error = None
    assert len((await fleet.of()).offers) == 2


async def test_nothing_found_is_told_to_all_who_asked_before_and_asked_anew_later():
    fleet = Fleet()
    fleet.names = ()
    fleet.held = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(fleet.of()) for _ in range(3)]
        await asyncio.sleep(0)
        fleet.held.set()
    assert [len(task.result().offers) for task in asking] == [0, 0, 0]
    assert fleet.sizes == [16]
    fleet.now += 0.01
    await fleet.of()
    assert len(fleet.sizes) == 2


async def test_what_was_tried_in_vain_is_not_tried_again():
    fleet = Fleet()
    first = await fleet.of()
    second = await fleet.of(after=first)
    assert second is not first
    assert await fleet.of(after=first) is second  # somebody has drawn already


async def test_a_sample_that_is_used_often_is_followed_by_a_larger_one():
    fleet = Fleet()
    for _ in range(40):
        drawn = await fleet.of()
    await fleet.of(after=drawn)
    for _ in range(1000):
        drawn = await fleet.of()
    await fleet.of(after=drawn)
    drawn = await fleet.of(size=200)
    for _ in range(1000):
        drawn = await fleet.of(size=200)
    await fleet.of(size=200, after=drawn)
    assert fleet.sizes == [16, 40, 64, 200, SAMPLE_MAX]


async def test_of_many_needs_the_last_are_kept():
    fleet = Fleet()
    for n in range(DRAWS_MAX + 1):
        await fleet.of(Need(cores=n + 1))
    await fleet.of(Need(cores=2))
    assert len(fleet.sizes) == DRAWS_MAX + 1
    await fleet.of(Need(cores=1))
    assert len(fleet.sizes) == DRAWS_MAX + 2


async def test_what_became_of_bids_is_learnt():
    drawn = await Fleet("a", "b", "c", "d").of()
    granted = Granted(b"a", ENDPOINT, NEED.resources, b"t", 1, 30.0, 130.0, {"cores": 5.0})
    declined = (
        Declined(b"b", "full: others were faster", {"cores": 2.0}),
        Declined(b"c", "price: above what may be paid", {"cores": 8.0}),
        Declined(b"d", "silent: no answer", {}),
    )
    drawn.learn(Outcome(granted, declined))
    assert len(drawn.offers) == 1
    drawn.offers.told(b"b", {"cores": 8.0})
    drawn.offers.told(b"c", {"cores": 8.0})
    assert len(drawn.offers) == 2  # what is ruled out by more than amounts stays so


async def test_a_bid_is_made_once():
    drawn = await Fleet().of()
    assert drawn.bid_of(b"a") is drawn.bid_of(b"a")
    with pytest.raises(KeyError):
        drawn.bid_of(b"nobody")
