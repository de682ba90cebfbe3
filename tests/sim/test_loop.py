"""The event loop on virtual time."""

import asyncio
import os
import threading

import pytest

from dhtos.sim.cluster import Cluster
from dhtos.sim.failure import SimulationError
from dhtos.sim.loop import VirtualLoop, run
from dhtos.sim.testing import EchoEngine


@pytest.fixture
def cluster():
    return Cluster(lambda node, now: EchoEngine(10.0, now), seed=4)


def test_sleep_takes_virtual_time(cluster):
    async def program():
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(1000.0)
        return loop.time() - before

    assert run(cluster, program()) == pytest.approx(1000.0)
    assert cluster.now == pytest.approx(1000.0)


def test_the_cluster_lives_while_the_program_waits(cluster):
    cluster.add(2)
    run(cluster, asyncio.sleep(35.0))
    assert [node.engine.ticks for node in cluster.nodes] == [3, 3]


def test_timeouts_are_virtual(cluster):
    async def program():
        async with asyncio.timeout(5.0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run(cluster, program())
    assert cluster.now == pytest.approx(5.0)


def test_timers_of_the_program_and_of_the_cluster_interleave(cluster):
    seen = []

    async def program():
        for _ in range(3):
            await asyncio.sleep(1.0)
            seen.append(("program", round(cluster.now, 6)))

    for when in (0.5, 1.5, 2.5):
        cluster.call_at(when, lambda when=when: seen.append(("cluster", when)))
    run(cluster, program())
    assert seen == [("cluster", 0.5), ("program", 1.0), ("cluster", 1.5), ("program", 2.0),
                    ("cluster", 2.5), ("program", 3.0)]  # fmt: skip


def test_work_for_a_thread_is_done_here_at_once(cluster):
    async def program():
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(threading.get_ident)

    assert run(cluster, program()) == threading.get_ident()
    assert cluster.now == 0.0


def test_real_files_are_served(cluster):
    async def program():
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        came = asyncio.Event()
        loop.add_reader(reading, came.set)
        os.write(writing, b"x")
        await came.wait()
        loop.remove_reader(reading)
        os.close(reading)
        os.close(writing)
        return "came"

    assert run(cluster, program()) == "came"


def test_a_deadlock_is_a_failure_with_the_seed(cluster):
    async def program():
        await asyncio.Event().wait()

    with pytest.raises(SimulationError, match="wait for ever\n  seed=4"):
        run(cluster, program())


@pytest.mark.parametrize("idle", [True, False])
def test_a_program_that_never_ends_is_a_failure(cluster, idle):
    if not idle:
        cluster.add(1)  # which beats for ever

    async def program():
        for _ in range(100):
            await asyncio.sleep(7.0)

    with pytest.raises(SimulationError, match=r"still runs after 100\.0 virtual seconds"):
        run(cluster, program(), limit_s=100.0)
    assert cluster.now == 100.0


def test_a_program_that_waits_for_an_eternal_cluster_is_a_failure(cluster):
    cluster.add(1)

    async def program():
        await asyncio.Event().wait()

    with pytest.raises(SimulationError, match="still runs after 50"):
        run(cluster, program(), limit_s=50)


def test_an_exception_of_the_program_comes_out(cluster):
    async def program():
        await asyncio.sleep(1.0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(cluster, program())


def test_two_programs_may_follow_each_other(cluster):
    run(cluster, asyncio.sleep(1.0))
    run(cluster, asyncio.sleep(1.0))
    assert cluster.now == pytest.approx(2.0)


def test_the_loop_shows_the_clock_of_the_cluster(cluster):
    loop = VirtualLoop(cluster)
    cluster.run_for(3.0)
    assert loop.time() == 3.0
    loop.close()
