"""Replicas in virtual time: machines die, drain, revoke and are cut off; the count is kept.

Each story runs under `Counting`, after every moment: never more is believed in than is wanted.
`--sim-runs=100` looks for a story that breaks it.
"""

import asyncio

import pytest
from replicas_world import NEED, SITES, World

from dhtos import Need
from dhtos.errors import ClaimsRefused, Closed, LeaseLost, NoCandidates, UsageError
from dhtos.node import replicas as replicas_module
from dhtos.node.lease import Lease
from dhtos.node.replicas import COOL_DOWN_S
from dhtos.sim import SimulationError

TTL_S = 5.0


@pytest.fixture
def world(sim_seed, sim_replay, monkeypatch):
    return World(sim_seed, monkeypatch, replay=sim_replay)


def machines(replicas):
    return {lease.node for lease in replicas.leases}


def test_they_come_up_apart_and_are_given_back(world):
    async def program(world):
        world.most = 6
        async with world.owner.replicas(NEED, 6, spread="site", ttl_s=TTL_S) as replicas:
            assert replicas.leases == ()
            began = world.cluster.now
            assert await world.full(replicas) - began < 1.0
            held = machines(replicas)
            assert len(held) == 6
            sites = sorted(lease.hit["site"] for lease in replicas.leases)
            assert sorted(sites.count(f"s{n}") for n in range(SITES)) == [1, 1, 2, 2]
            await asyncio.sleep(60.0)
            assert machines(replicas) == held
            assert world.counting.highest == 6
        assert replicas.leases == ()
        await world.free()

    world.run(program)


@pytest.mark.parametrize("ttl_s", [2.0, TTL_S, 30.0])
def test_one_that_dies_is_replaced_within_a_term_and_a_second(world, ttl_s):
    async def program(world):
        world.most = 3
        async with world.owner.replicas(NEED, 3, ttl_s=ttl_s) as replicas:
            await world.full(replicas)
            for _ in range(4):
                await asyncio.sleep(world.rng.uniform(ttl_s, 2 * ttl_s) + 10.0)
                dead = world.rng.choice(replicas.leases)
                await world.kill(world.on(dead))
                died = world.cluster.now
                while dead in replicas.leases:
                    await replicas.news()
                assert dead.node not in machines(replicas)
                took = await world.full(replicas) - died
                assert took <= ttl_s + 1.0, f"after {took:.2f} s"
        await world.free()

    world.run(program)


def test_one_that_is_revoked_is_replaced_elsewhere_within_a_second(world):
    async def program(world):
        world.most = 3
        need = Need(cores=1, where="cores >= 1")
        async with world.owner.replicas(need, 3, spread="site", ttl_s=TTL_S) as replicas:
            for _ in range(4):
                await world.full(replicas)
                await asyncio.sleep(30.0)
                gone = world.rng.choice(replicas.leases)
                await world.on(gone).revoke(gone.token)
                revoked = world.cluster.now
                while gone in replicas.leases:
                    await replicas.news()
                assert await world.full(replicas) - revoked < 1.0
                new = replicas.leases[-1]
                assert new.node != gone.node
                assert new.hit["site"] != gone.hit["site"]

    world.run(program)


def test_fewer_than_asked_come_up_one_by_one_with_a_reason(world):
    """Eight machines of two places each: twenty are too many, until others come."""

    async def program(world):
        world.most, log = 20, []
        async with world.owner.replicas(NEED, 20, ttl_s=TTL_S) as replicas:
            told = asyncio.create_task(listen(replicas, log))
            with pytest.raises(NoCandidates, match=r"16 of 20 .* ruled out by cores \(8\)"):
                await replicas.settled(deadline_s=60.0)
            assert isinstance(replicas.waiting, NoCandidates)
            await world.start(world.on(replicas.leases[0]))
            await world.start(world.on(replicas.leases[0]))
            await world.full(replicas)
            await asyncio.sleep(30.0)
            assert replicas.waiting is None
        await told
        kinds = [what for _, what, _, _ in log]
        assert kinds.count("granted") == 20
        assert 1 <= kinds.count("waiting") <= 6  # not one for each attempt
        await world.free()

    world.run(program)


def test_what_matters_more_takes_a_place_and_the_replica_another(sim_seed, sim_replay, monkeypatch):
    world = World(sim_seed, monkeypatch, machines=4, replay=sim_replay)

    async def program(world):
        world.most, log = 3, []
        async with world.owner.replicas(NEED, 3, ttl_s=30.0) as replicas:
            told = asyncio.create_task(listen(replicas, log))
            await world.full(replicas)
            victim = replicas.leases[0]
            urgent = Need(
                cores=4, where=f"site == '{victim.hit['site']}'", priority=5, preempt=True
            )
            began = world.cluster.now
            placing = asyncio.create_task(placed(world.owner, urgent))
            while victim in replicas.leases:
                await replicas.news()
            assert await world.full(replicas) - began < 2.0
            assert victim.expires_s > 8.0  # some time to stop, beside the one that replaces it
            world.most += 1
            lease = await placing
            assert lease.node == victim.node
            assert 8.0 < world.cluster.now - began < 15.0
        assert world.owner._tenants.kept.keys() == {bytes.fromhex(lease.token)}
        await lease.release()
        await told
        (reason,) = [reason for _, what, _, reason in log if what == "lost"]
        assert "preempted" in reason
        await world.free()
        with pytest.raises(UsageError, match="replicas do not preempt"):
            world.owner.replicas(urgent, 1)

    async def placed(node, need):
        return await node.place(need)

    world.run(program)


def test_a_limit_of_a_domain_is_kept(world):
    async def program(world):
        world.most = 6
        need = Need(cores=1, where="cores >= 1")
        async with world.owner.replicas(need, 6, spread={"site": 1}, ttl_s=TTL_S) as replicas:
            with pytest.raises(ClaimsRefused, match=r"4 of 6 .*: room \(2\)") as caught:
                await replicas.settled(deadline_s=60.0)
            assert caught.value.reasons == {"room": 2}
            assert sorted(lease.hit["site"] for lease in replicas.leases) == [
                "s0",
                "s1",
                "s2",
                "s3",
            ]
            gone = replicas.leases[1]
            await world.on(gone).revoke(gone.token)
            await asyncio.sleep(60.0)
            assert sorted(lease.hit["site"] for lease in replicas.leases) == [
                "s0",
                "s1",
                "s2",
                "s3",
            ]

    world.run(program)


def test_a_fleet_that_takes_all_back_sees_no_storm(world):
    async def program(world):
        world.most = 5
        async with world.owner.replicas(NEED, 5, ttl_s=TTL_S, cool_down_s=5.0) as replicas:
            await world.full(replicas)
            for node in list(world.machines.values()):
                await node.drain(revoke=True)
            asked, fill = [], replicas._fill
            replicas._fill = lambda opening: asked.append(opening.missing) or fill(opening)
            await asyncio.sleep(100.0)
            assert replicas.leases == ()
            assert isinstance(replicas.waiting, ClaimsRefused)
            assert set(replicas.waiting.reasons) == {"draining"}
            assert 100.0 / 7.5 <= len(asked) <= 100.0 / 2.5 + 5
            assert set(asked[3:]) == {5}
            for node in world.machines.values():
                await node.undrain()
            back = world.cluster.now
            assert await world.full(replicas) - back < 1.5 * 5.0 + 1.0
        await world.free()

    world.run(program)


def test_an_owner_that_was_cut_off_has_lost_all_and_gets_all_again(world):
    async def program(world):
        world.most = 5
        async with world.owner.replicas(NEED, 5, ttl_s=TTL_S) as replicas:
            await world.full(replicas)
            first = set(replicas.leases)
            world.cluster.network.cut("cable", [world.guest(world.owner)])
            await asyncio.sleep(TTL_S)
            assert replicas.leases == ()  # before the machines give them to others
            await asyncio.sleep(30.0)
            assert all(node.leases() == () for node in world.machines.values())
            world.cluster.network.heal("cable")
            healed = world.cluster.now
            assert await world.full(replicas) - healed < 60.0
            assert not first & set(replicas.leases)
        await world.free()

    world.run(program)


def test_they_end_with_their_node_and_with_a_cancelled_block(world):
    async def program(world):
        world.most = 10
        for delay_s in (0.0, 0.03, 0.06, 0.09, 0.12, 0.2, 5.0):
            work = asyncio.create_task(hold(world.owner))
            await asyncio.sleep(delay_s)
            work.cancel()
            assert isinstance(
                (await asyncio.gather(work, return_exceptions=True))[0], BaseException
            )
            await asyncio.sleep(1.0)
            assert world.owner._tenants.kept == {}
            await world.free()
        async with world.owner.replicas(NEED, 5, ttl_s=TTL_S) as replicas:
            await world.full(replicas)
            await world.owner.aclose()
            with pytest.raises(Closed):
                await replicas.settled()
            assert await listen(replicas, None) == 0
        await world.free()

    async def hold(owner):
        async with owner.replicas(NEED, 10, ttl_s=TTL_S):
            await asyncio.Event().wait()

    world.run(program)


def test_any_story_ends_with_the_count_and_then_with_nothing(world):
    story(world)
    assert world.counting.highest == 5


def story(world, *, log=None):
    """Two minutes of everything at once, and then quiet."""

    async def program(world):
        world.most = 5
        async with world.owner.replicas(NEED, 5, spread="site", ttl_s=TTL_S) as replicas:
            told = asyncio.create_task(listen(replicas, log))
            await world.meddle(120.0, every_s=2.0)
            await world.seen(len(world.machines))  # who was cut off finds back within minutes
            await asyncio.sleep(1.5 * COOL_DOWN_S + 1.0)
            assert len(replicas.leases) == 5
            assert all(lease.expires_s > 0 for lease in replicas.leases)
        await asyncio.sleep(2 * TTL_S)
        await world.free()
        assert world.owner._tenants.kept == {}
        return await told

    return world.run(program)


async def listen(replicas, log):
    """What was told adds up to what is."""
    alive = []
    async for change in replicas.changes():
        if log is not None:
            log.append((round(replicas._clock(), 6), change.what, change.alive, change.reason))
        if change.what == "granted":
            alive.append(change.lease)
        elif change.what != "waiting":
            alive.remove(change.lease)
        assert (change.what == "waiting") == (change.lease is None)
        assert change.alive == len(alive) <= change.count
    return len(alive)


def test_one_seed_replays_one_story(monkeypatch):
    stories = []
    for _ in range(2):
        log, world = [], World(7, monkeypatch)
        story(world, log=log)
        stories.append((log, world.cluster.trace.digest))
    assert stories[0] == stories[1]
    assert len(stories[0][0]) > 10


# --- the checker has teeth ------------------------------------------------------------------------


def _one_more(monkeypatch):
    wanted = replicas_module.Opening
    monkeypatch.setattr(
        replicas_module, "Opening", lambda missing, *others: wanted(missing + 1, *others)
    )
    monkeypatch.setattr(replicas_module.Replicas, "_take", _taken)


async def _taken(self, lease):
    self._members[lease] = self._clock()


def _hasty(monkeypatch):
    """Replace a lease whose term still runs."""

    async def ended(self):
        await asyncio.sleep(20.0)
        raise LeaseLost("not heard of for a while")

    monkeypatch.setattr(Lease, "ended", ended)


@pytest.mark.parametrize("fault", [_one_more, _hasty])
def test_a_keeper_that_is_wrong_is_found_out(monkeypatch, fault):
    fault(monkeypatch)
    with pytest.raises(SimulationError, match="leases where 5 are wanted"):
        _stories(6, monkeypatch)


def _stories(count, monkeypatch):
    for seed in range(count):
        story(World(seed, monkeypatch))
