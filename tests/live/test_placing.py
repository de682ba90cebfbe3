"""Placements on loopback: what is planned, claimed, kept, lost, taken back, and told to others."""

import asyncio
import contextlib

import pytest

import dhtos
from dhtos import F, GiB, Need
from dhtos.errors import (
    ClaimsRefused,
    ConfigError,
    LeaseLost,
    NoCandidates,
    PredicateError,
    Preempted,
    UsageError,
)
from dhtos.node import placing
from dhtos.node.control import ControlClient
from dhtos.node.journal import FILE


def config(*seeds, **settings):
    settings = {"host": "127.0.0.1", "port": 0, "sample": False, **settings}
    return dhtos.Config(seeds=[node.endpoint for node in seeds], **settings)


async def seen(node, query, count):
    """Wait until this node knows of so many machines that match."""
    while await node.count(query) != count:  # noqa: ASYNC110 - what it waits for is an answer
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def pair(**settings):
    """Two machines: one of 4 cores, and one of 8 that is dearer."""
    first = dhtos.Node(config(advertise={"cores": 4, "mem": 8 * GiB, "price": 0.1}, **settings))
    async with first:
        told = config(first, advertise={"cores": 8, "mem": 16 * GiB, "price": 0.2})
        async with dhtos.Node(told) as second:
            await second.joined()
            for node in (first, second):
                await seen(node, "cores_free >= 1", 2)
            yield first, second


def test_a_lease_is_a_part_of_a_machine_until_it_is_released(run):
    async def main():
        async with pair() as (first, second):
            async with second.place(Need(cores=3, mem=GiB, where="cores < 8")) as lease:
                assert lease.node == first.id
                assert lease.endpoint == first.endpoint
                assert lease.resources == {"cores": 3, "mem": GiB}
                assert 0 < lease.expires_s <= 30
                assert len(bytes.fromhex(lease.token)) == 16
                (grant,) = first.leases()
                assert (grant.token.hex(), grant.fence) == (lease.token, lease.fence)
                assert repr(lease) == f"<Lease {lease.token[:8]} on {first.id}>"
                await seen(second, "cores_free == 1 and mem_free == 7GiB", 1)
            assert first.leases() == () or await released(first)
            assert lease.expires_s == 0
            assert not lease.lost
            await lease.release()
            await seen(second, "cores_free == 4 and mem_free == 8GiB", 1)
            assert (await second.place(Need(cores=4, where=F.cores == 4))).fence > lease.fence

    run(main)


async def released(node):
    """Wait for the datagram that gives everything back."""
    while node.leases():  # noqa: ASYNC110 - it waits for a datagram
        await asyncio.sleep(0.001)
    return True


def test_what_matters_more_takes_the_place_of_what_matters_less(run):
    """The body of the lesser is cancelled, has time to end, and what it had goes to the other."""

    async def main():
        async with pair() as (first, second):
            ended = []

            async def lesser(need):
                try:
                    async with first.place(need) as lease:
                        try:
                            await asyncio.Event().wait()
                        finally:
                            assert lease.lost
                            assert lease.expires_s > 0
                            ended.append(lease.resources["cores"])
                except Preempted as error:
                    return error.grace_s

            kept = await first.place(Need(cores=8, priority=5))
            task = asyncio.ensure_future(lesser(Need(cores=3)))
            await seen(second, "cores_free == 1", 1)
            with pytest.raises(NoCandidates, match="cores"):
                await second.place(Need(cores=4, priority=5))
            async with second.place(Need(cores=4, priority=5, preempt=True)) as lease:
                assert lease.node == first.id
                assert 0 < await task <= 10
                assert ended == [3]
                with pytest.raises(ClaimsRefused, match="full"):
                    await first.place(Need(cores=8, priority=5, preempt=True))
                assert not kept.lost
            with pytest.raises(UsageError, match="does not preempt"):
                await first.place_gang(Need(cores=1, preempt=True), 2)

    run(main)


def test_a_machine_takes_only_the_work_that_its_owner_accepts(run):
    async def main():
        async with pair(accept="priority >= 5") as (first, second):
            small = Need(cores=4, where="cores == 4")
            with pytest.raises(ClaimsRefused, match="policy"):
                await second.place(small)
            async with second.place(Need(cores=4, where="cores == 4", priority=5)) as lease:
                assert lease.node == first.id

    run(main)


def test_a_program_may_bring_a_scorer_of_its_own(run):
    """Here of two machines the one with more memory, whatever else speaks for the other."""

    class Roomy:
        def terms(self, need, candidate, context):
            return {"small": GiB / candidate.capacity["mem"]}

    async def main():
        async with pair() as (first, second):
            told = config(first, client=True)
            async with dhtos.Node(told) as usual, dhtos.Node(told, scorer=Roomy()) as client:
                need = Need(cores=1, prefer="cheap")
                assert (await usual.plan(need)).choices[0].hit.id == first.id
                choices = (await client.plan(need)).choices
                assert [choice.hit.id for choice in choices] == [second.id, first.id]
                assert list(choices[0].terms) == ["small"]
                async with client.place(need) as lease:
                    assert lease.node == second.id
                async with client.place_gang(need, 2) as gang:
                    assert [lease.node for lease in gang.leases] == [second.id] * 2

    run(main)


def test_what_was_just_given_back_can_be_had_again(run):
    """Records tell of it half a second later; who places meanwhile asks once more."""

    async def main():
        async with pair() as (first, _second):
            for _ in range(3):
                async with first.place(Need(cores=8)) as lease:
                    await seen(first, "cores_free == 0", 1)
                    assert lease.resources == {"cores": 8}

    run(main)


def test_a_plan_claims_nothing_and_says_who_cannot(run):
    async def main():
        async with pair() as (first, second):
            plan = await first.plan(Need(cores=2, prefer="cheap"))
            assert [choice.hit.id for choice in plan.choices] == [first.id, second.id]
            assert plan.choices[0].score < plan.choices[1].score
            assert plan.coverage.complete
            assert first.leases() == second.leases() == ()
            dear = await first.plan(Need(cores=2, max_price=0.1))
            assert [choice.hit.id for choice in dear.choices] == [first.id]
            assert dear.reasons == {"price": 1}
            one = await first.plan(Need(where="cores >= 1"), candidates=1)
            assert len(one.choices) == 1

    run(main)


def test_what_is_granted_is_not_granted_again(run):
    async def main():
        async with pair() as (first, second):
            many = [second.place(Need(cores=1), deadline_s=15) for _ in range(14)]
            outcomes = await asyncio.gather(*(one for one in map(lease_of, many)))
            leases = [one for one in outcomes if isinstance(one, dhtos.Lease)]
            refused = [one for one in outcomes if not isinstance(one, dhtos.Lease)]
            assert len(leases) == 12
            assert all(isinstance(one, NoCandidates | ClaimsRefused) for one in refused)
            for node, cores in ((first, 4), (second, 8)):
                assert sum(grant.resources["cores"] for grant in node.leases()) == cores
            for lease in leases:
                await lease.release()
            assert await released(first)
            assert await released(second)

    async def lease_of(placement):
        try:
            return await placement
        except (NoCandidates, ClaimsRefused) as error:
            return error

    run(main)


def test_a_need_that_nobody_can_meet_is_explained(run):
    async def main():
        async with pair() as (first, _):
            need = Need(cores=6, mem=32 * GiB)
            found = await first.explain(need)
            assert (found.machines, found.matching, found.able) == (2, 2, 0)
            assert found.reasons == {"cores": 1, "mem": 2}
            with pytest.raises(NoCandidates, match="2 of 2 are what is asked for") as caught:
                await first.place(need)
            assert caught.value.reasons == {"cores": 1, "mem": 2}
            assert caught.value.complete
            with pytest.raises(NoCandidates, match="0 of 2 are what is asked for"):
                await first.place(Need(cores=1, where="site == 'moon'"))
            with pytest.raises(NoCandidates, match=r"price \(2\)"):
                await first.place(Need(cores=1, max_price=0.01))

    run(main)


def test_what_makes_no_sense_is_refused_at_once(run):
    async def main():
        async with pair() as (first, _):
            for bad in ({"ttl_s": 0}, {"ttl_s": 1e9}, {"ttl_s": "3"}, {"deadline_s": 0}):
                with pytest.raises(UsageError, match=next(iter(bad))):
                    first.place(Need(cores=1), **bad)
            with pytest.raises(UsageError, match="did you mean 'cores'"):
                await first.plan(Need(core=1))
            with pytest.raises(UsageError, match="candidates must be"):
                await first.plan(Need(cores=1), candidates=0)
            with pytest.raises(PredicateError, match="coers"):
                await first.place(Need(cores=1, where="coers > 1"))
            with pytest.raises(UsageError, match="where is a text"):
                await first.plan(Need(cores=1, where=7))
            with pytest.raises(UsageError, match="no lease has the token"):
                await first.revoke("abc")

    run(main)


def test_the_machine_decides_when_its_record_is_old(run, monkeypatch):
    """The record promises 8 cores, the ledger has none left: the next machine is asked at once."""

    async def main():
        async with pair() as (first, second):
            hidden = await first.place(Need(cores=8))
            lease = await first.place(Need(cores=4, prefer="near"))
            assert (hidden.node, lease.node) == (second.id, first.id)
            with pytest.raises((ClaimsRefused, NoCandidates)):
                await first.place(Need(cores=1))

    monkeypatch.setattr("dhtos.protocol.grants.TAKEN_DELAY_S", 5.0)
    run(main)


def test_a_lost_lease_ends_what_it_covered(run):
    async def main():
        async with pair() as (first, second):
            need = Need(cores=1, where="cores == 4")
            with pytest.raises(LeaseLost, match="revoked"):
                await covered(second.place(need), lambda lease: first.revoke(lease.token))
            with pytest.raises(LeaseLost, match="draining"):
                await covered(second.place(need), lambda _: first.drain(revoke=True))
            with pytest.raises(ClaimsRefused, match="draining"):
                await second.place(Need(cores=1, where="cores == 4"), deadline_s=1)
            await first.undrain()
            await seen(second, "cores_free == 4", 1)
            async with second.place(Need(cores=1, where="cores == 4")):
                with pytest.raises(KeyError):  # what the body raises comes out as it is
                    await covered(second.place(Need(cores=1)), fail)

    async def covered(placement, deed):
        async with placement as lease:
            await deed(lease)
            await asyncio.Event().wait()

    async def fail(_):
        raise KeyError

    run(main)


def test_a_lease_is_renewed_while_it_is_held_and_ends_with_its_owner(run):
    async def main():
        async with pair() as (first, second):
            need = Need(cores=2, where="cores == 4")
            lease = await second.place(need, ttl_s=1)
            begun, clock = lease.expires_s, asyncio.get_running_loop().time
            start = clock()
            while clock() - start < 1.5:
                await asyncio.sleep(0.05)
                assert lease.expires_s > 0
            assert begun <= 1
            assert not lease.lost
            client = dhtos.Node(config(first, client=True))
            async with client:
                theirs = await client.place(need, ttl_s=1)
                assert len(first.leases()) == 2
                with pytest.raises(UsageError, match="a client grants nothing"):
                    client.leases()
            assert theirs.expires_s == 0
            await asyncio.wait_for(only(first, lease), 5)

    async def only(node, lease):
        while [grant.token.hex() for grant in node.leases()] != [lease.token]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    run(main)


def test_leases_outlive_a_restart_of_the_machine(run, tmp_path):
    async def main():
        state = {"state_dir": tmp_path / "state"}
        async with dhtos.Node(config(advertise={"cores": 1})) as asker:
            told = config(asker, advertise={"cores": 4}, **state)
            async with dhtos.Node(told) as node:
                await node.joined()
                await seen(asker, "cores == 4", 1)
                port = node.port
                lease = await asker.place(Need(cores=3, where="cores == 4"), ttl_s=20)
                assert (tmp_path / "state" / FILE).stat().st_mode & 0o777 == 0o600
            again = config(asker, advertise={"cores": 4}, **{**state, "port": port})
            async with dhtos.Node(again) as node:
                await node.joined()
                (grant,) = node.leases()
                assert (grant.token.hex(), grant.fence) == (lease.token, lease.fence)
                assert node.attributes["cores_free"] == 1
                later = await node.place(Need(cores=1, where="cores == 4"))
                assert later.fence > lease.fence
                await lease.release()
                await later.release()
                assert await released(node)
        (tmp_path / "state" / FILE).write_bytes(b"no database" * 100)
        with pytest.raises(ConfigError, match="restore it from a backup"):
            async with dhtos.Node(config(**state)):
                pass

    run(main)


def test_placing_over_the_control_socket(run, tmp_path):
    async def main():
        path = tmp_path / "c.sock"
        async with pair(control=True, control_path=path) as (first, _):
            need = {"resources": {"cores": 4}, "where": "cores == 4"}
            async with ControlClient(path) as client, ControlClient(path) as other:
                choices = [choice async for choice in client.ask("plan", need=need)]
                assert [choice["id"] for choice in choices] == [str(first.id)]
                assert set(choices[0]["terms"]) >= {"fit"}
                placing_ = client.ask("place", need=need)
                lease = await anext(placing_)
                assert lease["node"] == str(first.id)
                listed = [grant async for grant in other.ask("leases")]
                assert [(one["token"], one["state"]) for one in listed] == [
                    (lease["token"], "bound")
                ]
                assert (await other.call("explain", need=need))["matching"] == 1
                drained = await other.call("drain")
                assert drained == {"draining": True, "leases": 1}
                assert (await other.call("undrain"))["draining"] is False
                assert (await other.call("revoke", token=lease["token"])) == {"leases": 0}
                with pytest.raises(LeaseLost, match="revoked"):
                    await anext(placing_)
                for bad, match in (
                    ({"resources": {"cores": "x"}}, "cores must be a number"),
                    ({"resources": {"where": 1}}, "no resource"),
                    ({"resources": 4}, "must be of type dict"),
                    ({"max_price": "x"}, "max_price must be a number"),
                    ({"colour": 1}, "unknown arguments"),
                    ({"prefer": "blue"}, "prefer"),
                ):
                    with pytest.raises(UsageError, match=match):
                        await other.call("plan", need=bad)
                with pytest.raises(NoCandidates) as caught:
                    await other.call("place", need={"resources": {"cores": 99}})
                assert caught.value.reasons == {"cores": 2}
            async with ControlClient(path) as client:
                await anext(client.ask("place", need=need))
                assert len(first.leases()) == 1
            assert await released(first)  # who goes away gives back

    run(main)


def test_refusals_are_remembered_for_so_many_machines(run, monkeypatch):
    async def main():
        async with pair() as (first, second):
            await second.drain()
            await first.place(Need(cores=5 - 1))
            for _ in range(2):
                with pytest.raises(ClaimsRefused):
                    await first.place(Need(cores=5), deadline_s=2)
            assert list(first._refusals) == [bytes(second.id)]
            assert first._refused(bytes(second.id)) > 1
            monkeypatch.setattr(placing, "REFUSAL_S", 0.0)
            assert first._refused(bytes(second.id)) == 0

    monkeypatch.setattr(placing, "REFUSALS_MAX", 1)
    run(main)


@contextlib.asynccontextmanager
async def sites(count, each):
    """So many machines of 4 cores, on a third as many sites."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for index in range(count):
            told = config(*nodes[:1], advertise={"cores": 4, "site": f"s{index % each}"})
            nodes.append(await stack.enter_async_context(dhtos.Node(told)))
            await nodes[-1].joined()
        await seen(nodes[0], "cores_free == 4", count)
        yield nodes


def test_a_gang_is_all_or_nothing(run):
    async def main():
        async with sites(4, 2) as nodes:
            async with nodes[0].place_gang(Need(cores=2), 8) as gang:
                assert repr(gang) == "<Gang of 8>"
                assert {lease.node for lease in gang.leases} == {node.id for node in nodes}
                assert sum(len(node.leases()) for node in nodes) == 8
            for node in nodes:
                await released(node)
            await seen(nodes[0], "cores_free == 4", 4)
            with pytest.raises(ClaimsRefused, match="only 4 of 5 were granted in time"):
                await nodes[0].place_gang(Need(cores=3), 5, deadline_s=1)
            for node in nodes:
                await released(node)
            with pytest.raises(NoCandidates):
                await nodes[0].place_gang(Need(cores=5), 2)

    run(main)


def test_a_gang_is_spread_and_ends_with_its_first_member(run):
    async def main():
        async with sites(6, 3) as nodes:
            spread = nodes[0].place_gang(Need(cores=1), 6, spread={"site": 2})
            with pytest.raises(LeaseLost, match="revoked"):
                await ends_early(spread, nodes)
            for node in nodes:
                await released(node)
            for bad in ({"size": 0}, {"size": 2, "spread": {"site": 0}},
                        {"size": 2, "spread": {"site": 1, "arch": 1}}, {"size": 2, "spread": 7},
                        {"size": 2, "spread": ""}):  # fmt: skip
                with pytest.raises(UsageError):
                    nodes[0].place_gang(Need(cores=1), **bad)

    async def ends_early(spread, nodes):
        async with spread as gang:
            held = [lease.hit["site"] for lease in gang.leases]
            assert sorted(held) == ["s0", "s0", "s1", "s1", "s2", "s2"]
            first = gang.leases[0]
            await next(n for n in nodes if n.id == first.node).revoke(first.token)
            await asyncio.Event().wait()

    run(main)


def test_a_gang_that_nobody_waits_for_leaves_nothing(run):
    async def main():
        async with sites(4, 2) as nodes:
            for steps in range(12):
                work = asyncio.ensure_future(placed(nodes[0]))
                for _ in range(steps):
                    await asyncio.sleep(0)
                work.cancel()
                (outcome,) = await asyncio.gather(work, return_exceptions=True)
                if isinstance(outcome, dhtos.Gang):
                    await outcome.release()
            for node in nodes:
                await released(node)

    async def placed(node):
        return await node.place_gang(Need(cores=1), 9)

    run(main)
