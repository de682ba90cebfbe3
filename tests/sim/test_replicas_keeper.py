"""The keeper of replicas in virtual time: when it asks, what it keeps and tells, what is left."""

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from dhtos.errors import (
    ClaimsRefused,
    Closed,
    LeaseLost,
    LookupExpired,
    NoCandidates,
    Preempted,
    UsageError,
)
from dhtos.node.replicas import COOL_DOWN_S, Change, Replicas
from dhtos.sim import Cluster, EchoEngine, run


class FakeLease:
    """Ends when it is told to."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.node = bytes([number])
        self.error: Exception | None = None
        self.over = asyncio.Event()
        self.releases = 0
        self.expires_s = 9.0

    @property
    def lost(self) -> bool:
        return self.error is not None

    async def ended(self) -> None:
        await self.over.wait()
        if self.error is not None:
            raise self.error

    async def release(self) -> None:
        self.releases += 1
        self.expires_s = 0.0
        self.over.set()

    def end(self, error: Exception, *, grace_s: float = 0.0) -> None:
        self.error = error
        self.expires_s = grace_s
        self.over.set()

    def __repr__(self) -> str:
        return f"lease {self.number}"


class Market:
    """Grants so many at a time, after so long, and remembers when it was asked for how many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.room = 100
        self.delay_s = 0.01
        self.error: Exception | None = None
        self.asked: list[tuple[float, int]] = []
        self.shunned: list[list[int]] = []
        self.leases: list[FakeLease] = []

    async def fill(self, opening):
        self.asked.append((self.clock(), opening.missing))
        self.shunned.append([lease.number for lease in opening.shunned])
        assert all(not lease.over.is_set() for lease in opening.standing)
        if self.error is not None:
            raise self.error
        for _ in range(opening.missing):
            if not self.room:
                return ClaimsRefused("all are full", {"full": len(self.leases)})
            self.room -= 1
            await asyncio.sleep(self.delay_s)
            self.leases.append(FakeLease(len(self.leases)))
            await opening.take(self.leases[-1])
        return None


def story(program, count=3, **options):
    """Run `program(market, replicas)` in virtual time; nothing may be left behind."""
    cluster = Cluster(lambda node, now: EchoEngine(), seed=1)

    async def main():
        market = Market(lambda: cluster.now)
        replicas = Replicas(
            market.fill,
            count,
            clock=lambda: cluster.now,
            rng=Random(1),
            **{"cool_down_s": COOL_DOWN_S, **options},
        )
        result = await program(market, replicas)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(lease.over.is_set() for lease in market.leases)
        return result

    return run(cluster, main())


def numbers(replicas):
    return [lease.number for lease in replicas.leases]


async def listen(replicas, heard):
    async for change in replicas.changes():
        lease = change.lease and change.lease.number
        heard.append((change.what, lease, change.reason, change.alive, change.count))


def test_all_are_granted_kept_and_given_back():
    async def program(market, replicas):
        async with replicas:
            assert repr(replicas) == "<Replicas 0 of 3>"
            assert (replicas.leases, replicas.count, replicas.waiting) == ((), 3, None)
            await replicas.settled()
            assert numbers(replicas) == [0, 1, 2]
            await asyncio.sleep(3600.0)
            assert len(market.asked) == 1
            assert repr(replicas) == "<Replicas 3 of 3>"
            assert not replicas.closed
        assert replicas.closed
        assert replicas.leases == ()
        assert [lease.releases for lease in market.leases] == [1, 1, 1]
        await replicas.aclose()
        with pytest.raises(Closed):
            await replicas.settled()
        with pytest.raises(UsageError, match="kept once"):
            await replicas.__aenter__()

    story(program)


def test_a_lost_one_is_replaced_at_once_and_its_place_avoided_for_a_while():
    async def program(market, replicas):
        async with replicas:
            await replicas.settled()
            await asyncio.sleep(60.0)
            for number, expected in ((1, [0, 2, 3]), (3, [0, 2, 4])):
                began = market.clock()
                market.leases[number].end(LeaseLost("gone"))
                await asyncio.sleep(0.001)
                assert number not in numbers(replicas)
                await replicas.settled()
                assert market.clock() - began < 0.3
                assert numbers(replicas) == expected
                assert market.shunned[-1] == [number]
                await asyncio.sleep(COOL_DOWN_S + 1.0)
            market.leases[0].end(LeaseLost("gone"))
            market.leases[2].end(LeaseLost("gone"))
            await asyncio.sleep(1.0)
            assert sorted(market.shunned[-1]) == [0, 2]
            assert market.asked[-1][1] == 2  # both with one question

    story(program)


def test_owners_hit_by_one_failure_do_not_ask_at_one_moment():
    def moment(seed):
        async def program(market, replicas):
            replicas._rng = Random(seed)
            async with replicas:
                await replicas.settled()
                await asyncio.sleep(60.0)
                market.leases[0].end(LeaseLost("gone"))
                await asyncio.sleep(1.0)
                return round(market.asked[-1][0], 3)

        return story(program)

    assert len({moment(seed) for seed in range(20)}) > 15


def test_attempts_that_fail_come_ever_more_slowly_until_there_is_room():
    async def program(market, replicas):
        market.room = 1
        async with replicas:
            with pytest.raises(ClaimsRefused, match="1 of 3 replicas are alive: all are full") as e:
                await replicas.settled(deadline_s=2.0)
            assert e.value.reasons == {"full": 1}
            assert str(replicas.waiting) == "all are full"
            await asyncio.sleep(600.0)
            gaps = [b - a for (a, _), (b, _) in zip(market.asked, market.asked[1:], strict=False)]
            assert gaps[0] < 0.5
            assert all(COOL_DOWN_S * 0.5 <= gap <= COOL_DOWN_S * 1.5 + 0.1 for gap in gaps[7:])
            assert {missing for _, missing in market.asked[1:]} == {2}
            market.room = 5
            await replicas.settled()
            await asyncio.sleep(1.0)
            assert replicas.waiting is None
            market.leases[0].end(LeaseLost("gone"))
            market.room = 0
            asked = len(market.asked)
            await asyncio.sleep(1.0)
            assert len(market.asked) > asked  # the old pause does not hold up a new loss

    story(program)


def test_pauses_start_anew_after_calm():
    async def program(market, replicas):
        async with replicas:
            for calm_s, longest in ((0.0, 9.0), (3 * COOL_DOWN_S, 0.5)):
                await replicas.settled(deadline_s=60.0)
                await asyncio.sleep(calm_s)
                market.room, asked = 0, len(market.asked)
                replicas.leases[-1].end(LeaseLost("gone"))
                await asyncio.sleep(0.4)
                first = market.asked[asked:]
                assert first, "asked again within the first pause"
                assert first[0][0] - market.clock() < longest
                await asyncio.sleep(30.0)
                market.room = 100

    story(program)


def test_leases_that_never_last_make_no_storm():
    """Who takes and takes back is asked as often as the pauses allow."""

    async def program(market, replicas):
        market.room = 10_000
        async with replicas:
            ends = market.clock() + 600.0
            while market.clock() < ends:
                await replicas.settled(deadline_s=60.0)
                for lease in replicas.leases:
                    lease.end(LeaseLost("revoked"))
                await asyncio.sleep(0.01)
            assert 40 < len(market.asked) < 150

    story(program)


def test_a_preempted_one_winds_up_beside_its_replacement_and_is_given_back():
    async def program(market, replicas):
        heard = []
        async with replicas, asyncio.TaskGroup() as group:
            group.create_task(listen(replicas, heard))
            await replicas.settled()
            await asyncio.sleep(60.0)
            preempted = market.leases[1]
            preempted.end(Preempted("something else", 9.0), grace_s=9.0)
            assert numbers(replicas) == [0, 2]
            await asyncio.sleep(1.0)
            assert numbers(replicas) == [0, 2, 3]
            assert preempted.releases == 0
            market.leases[0].end(LeaseLost("gone"))
            await asyncio.sleep(1.0)
            await replicas.aclose()
            assert (preempted.releases, market.leases[0].releases) == (1, 0)
        assert heard[3:5] == [("lost", 1, "something else", 2, 3), ("granted", 3, "", 3, 3)]

    story(program)


def test_a_program_may_release_one_itself():
    async def program(market, replicas):
        async with replicas:
            await replicas.settled()
            await market.leases[1].release()
            await asyncio.sleep(1.0)
            assert numbers(replicas) == [0, 2, 3]
            assert market.shunned[-1] == []

    story(program)


def test_another_count():
    async def program(market, replicas):
        async with replicas:
            await replicas.settled()
            await replicas.resize(5)
            await replicas.settled(deadline_s=0.2)
            assert numbers(replicas) == [0, 1, 2, 3, 4]
            await replicas.resize(2)
            assert numbers(replicas) == [0, 1]  # the youngest go, at once
            assert [lease.releases for lease in market.leases] == [0, 0, 1, 1, 1]
            await asyncio.sleep(60.0)
            assert numbers(replicas) == [0, 1]
            await replicas.resize(0)
            await replicas.settled()
            assert replicas.leases == ()
            for bad in (-1, 257, 1.5, True, None):
                with pytest.raises(UsageError, match=r"count must be 0\.\.256, got"):
                    await replicas.resize(bad)
            assert replicas.count == 0

    story(program)


def test_what_is_granted_after_nobody_wants_it_is_given_back():
    async def program(market, replicas):
        market.delay_s = 1.0
        async with replicas:
            await asyncio.sleep(1.5)
            await replicas.resize(1)
            await asyncio.sleep(10.0)
            assert numbers(replicas) == [0]
            assert [lease.releases for lease in market.leases] == [0, 1, 1]

    story(program)


def test_what_is_told():
    async def program(market, replicas):
        heard, late = [], []
        async with replicas, asyncio.TaskGroup() as group:
            group.create_task(listen(replicas, heard))
            await replicas.settled()
            await asyncio.sleep(60.0)
            market.room = 0
            market.leases[1].end(LeaseLost("its node is gone"))
            await asyncio.sleep(5.0)
            group.create_task(listen(replicas, late))
            await asyncio.sleep(30.0)
            market.room = 100
            await replicas.settled()
            await replicas.resize(2)
            await asyncio.sleep(1.0)
            await replicas.aclose()
        assert heard == [
            ("granted", 0, "", 1, 3),
            ("granted", 1, "", 2, 3),
            ("granted", 2, "", 3, 3),
            ("lost", 1, "its node is gone", 2, 3),
            ("waiting", None, "all are full", 2, 3),
            ("granted", 3, "", 3, 3),
            ("released", 3, "", 2, 2),
        ]
        assert late == [
            ("granted", 0, "", 1, 3),
            ("granted", 2, "", 2, 3),
            ("waiting", None, "all are full", 2, 3),
            *heard[5:],
        ]

    story(program)


def test_a_slow_reader_is_told_what_is_and_not_what_was():
    async def program(market, replicas):
        async with replicas:
            changes = replicas.changes()
            await replicas.settled()
            assert (await anext(changes)).lease.number == 0
            for _ in range(5):
                await asyncio.sleep(60.0)
                for lease in replicas.leases:
                    lease.end(LeaseLost("gone"))
            await asyncio.sleep(60.0)
            told = [await anext(changes) for _ in range(4)]
            assert [(one.what, one.lease.number) for one in told] == [
                ("lost", 0), ("granted", 15), ("granted", 16), ("granted", 17),
            ]  # fmt: skip
            assert [one.alive for one in told] == [0, 1, 2, 3]
            assert isinstance(told[0], Change)
            waiting = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(1.0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            replicas.leases[0].end(LeaseLost("gone"))
            assert (await anext(changes)).what == "lost"  # a cancelled call lost nothing
        with pytest.raises(StopAsyncIteration):
            await anext(changes)

    story(program)


def test_numbers_that_change_are_no_news():
    async def program(market, replicas):
        answers = [NoCandidates(f"{n} of 9", {"cores": n}, complete=False) for n in range(4)]
        answers += [NoCandidates("0 of 0")] * 2 + [LookupExpired("nobody answers")] * 50

        async def fill(_opening):
            return answers.pop(0)

        heard = []
        replicas._fill = fill
        async with replicas, asyncio.TaskGroup() as group:
            group.create_task(listen(replicas, heard))
            with pytest.raises(NoCandidates, match=r"0 of 3 replicas are alive: \d of 9") as caught:
                await replicas.settled(deadline_s=0.6)
            assert not caught.value.complete
            with pytest.raises(ClaimsRefused, match="alive: nobody answers"):
                await replicas.settled(deadline_s=100.0)
            await replicas.aclose()
        assert [reason for _, _, reason, *_ in heard] == ["0 of 9", "0 of 0", "nobody answers"]

    story(program)


def test_nobody_has_answered_yet():
    async def program(market, replicas):
        market.delay_s = 100.0
        async with replicas:
            with pytest.raises(ClaimsRefused, match="0 of 3 replicas are alive: nobody has ans"):
                await replicas.settled(deadline_s=1.0)

    story(program)


@pytest.mark.parametrize("at_s", [0.0, 0.005, 0.015, 0.025, 5.0])
def test_leaving_at_any_moment_leaves_nothing(at_s):
    async def program(market, replicas):
        async def hold():
            async with replicas:
                await asyncio.Event().wait()

        work = asyncio.ensure_future(hold())
        await asyncio.sleep(at_s)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert replicas.closed
        return len(market.leases)

    assert story(program) == min(3, int(at_s * 100))


def test_being_cancelled_while_leaving_has_released_all_the_same():
    async def program(market, replicas):
        async def hold():
            async with replicas:
                await replicas.settled()
                asyncio.get_running_loop().call_soon(work.cancel)

        work = asyncio.ensure_future(hold())
        await asyncio.gather(work, return_exceptions=True)
        assert work.cancelled()
        assert [lease.releases for lease in market.leases] == [1, 1, 1]

    story(program)


def test_they_end_with_their_node():
    async def program(market, replicas):
        heard = []
        async with replicas:
            await replicas.settled()
            changes = replicas.changes()
            assert (await anext(changes)).lease is market.leases[0]
            market.error = Closed("the node is closed")
            market.leases[0].end(Closed("the node is closed"))
            assert (await anext(changes)).what == "released"
            await listen(replicas, heard)
            assert replicas.closed
            with pytest.raises(Closed):
                await replicas.settled()
        assert [what for what, *_ in heard] == ["granted", "granted"]

    story(program)


def test_a_fault_of_the_keeper_is_heard_of_and_holds_nobody_up():
    async def program(market, replicas):
        faults = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))
        market.error = ZeroDivisionError("a fault")
        async with replicas:
            with pytest.raises(Closed):
                await replicas.settled()
        assert [type(fault["exception"]) for fault in faults] == [ZeroDivisionError]

    story(program)
