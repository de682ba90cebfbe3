"""Replicas and gangs on loopback: real sockets, the control socket, and who goes away."""

import asyncio
import contextlib

import pytest

import dhtos
from dhtos import F, Need
from dhtos.errors import ClaimsRefused, Closed, LeaseLost, NoCandidates, PredicateError, UsageError
from dhtos.node.control import ControlClient


def config(*seeds, **settings):
    settings = {"host": "127.0.0.1", "port": 0, "sample": False, **settings}
    return dhtos.Config(seeds=[node.endpoint for node in seeds], **settings)


@contextlib.asynccontextmanager
async def fleet(count, **settings):
    """So many machines of two cores, each at a site of its own, and known to the first."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for number in range(count):
            told = config(*nodes[:1], advertise={"cores": 2, "site": f"s{number}"}, **settings)
            nodes.append(await stack.enter_async_context(dhtos.Node(told)))
            await nodes[-1].joined()
            settings = {}
        await known(nodes)
        yield nodes


async def known(nodes):
    """Wait until the first knows that all of them are free."""
    while await nodes[0].count("cores_free == 2") != len(nodes):  # noqa: ASYNC110 - it asks
        await asyncio.sleep(0.01)


async def free(nodes):
    while any(node.leases() for node in nodes):  # noqa: ASYNC110 - it waits for datagrams
        await asyncio.sleep(0.001)


def test_replicas_live_apart_and_come_back(run):
    async def main():
        async with fleet(4) as nodes:
            async with nodes[0].replicas(Need(cores=2, where=F.cores == 2), 3) as replicas:
                await replicas.settled()
                assert len({lease.node for lease in replicas.leases}) == 3
                gone = replicas.leases[1]
                there = next(node for node in nodes if node.id == gone.node)
                changes = replicas.changes()
                for _ in range(3):
                    assert (await anext(changes)).what == "granted"
                await there.drain(revoke=True)
                lost, new = await anext(changes), await anext(changes)
                assert (lost.what, lost.lease, lost.alive) == ("lost", gone, 2)
                assert (new.what, new.alive) == ("granted", 3)
                assert new.lease.node not in {lease.node for lease in replicas.leases[:2]}
                assert new.lease.node != gone.node
            await free(nodes)

    run(main)


def test_a_light_client_keeps_replicas_too(run):
    async def main():
        async with fleet(2) as nodes, dhtos.Node(config(nodes[0], client=True)) as client:
            async with client.replicas(Need(cores=1), 2) as replicas:
                await replicas.settled()
                assert {lease.node for lease in replicas.leases} == {node.id for node in nodes}
            await free(nodes)

    run(main)


def test_what_are_no_replicas(run):
    async def main():
        async with fleet(1) as (node,):
            for count in (-1, 257, 2.0, "2", True):
                with pytest.raises(UsageError, match=r"count must be 0\.\.256"):
                    node.replicas(Need(cores=1), count)
            for spread in (
                1,
                "",
                {},
                {"site": 0},
                {"site": 1, "arch": 1},
                {"site": True},
                ["site"],
            ):
                with pytest.raises(UsageError, match="spread is an attribute or label"):
                    node.replicas(Need(cores=1), 2, spread=spread)
            for wrong in ({"ttl_s": 0.5}, {"ttl_s": None}, {"cool_down_s": -1}):
                with pytest.raises(UsageError, match=r"must be [01]\.\.3600 s"):
                    node.replicas(Need(cores=1), 2, **wrong)
            with pytest.raises(UsageError, match="did you mean 'cores'"):
                node.replicas(Need(core=1), 2)
            with pytest.raises(PredicateError):
                node.replicas(Need(cores=1, where="coers > 1"), 2)
            with pytest.raises(UsageError, match="do not preempt"):
                node.replicas(Need(cores=1, priority=1, preempt=True), 2)
        with pytest.raises(Closed):
            node.replicas(Need(cores=1), 2)

    run(main)


def test_over_the_control_socket(run, tmp_path):
    async def main():
        path = tmp_path / "c.sock"
        need = {"resources": {"cores": 1}}
        async with fleet(3, control=True, control_path=path) as nodes:
            async with ControlClient(path) as client, ControlClient(path) as other:
                asked = client.ask("gang", need=need, size=3, spread={"site": 1})
                leases = [await anext(asked) for _ in range(3)]
                assert {lease["node"] for lease in leases} == {str(node.id) for node in nodes}
                await nodes[1].revoke(nodes[1].leases()[0].token.hex())
                with pytest.raises(LeaseLost, match="revoked"):
                    await anext(asked)
                await free(nodes)
                for args, match in (
                    ({"size": "3"}, "must be of type int"),
                    ({"size": 0}, r"size must be 1\.\.256"),
                    ({"size": 2, "spread": 7}, "spread is an attribute"),
                    ({}, "'size' is missing"),
                    ({"size": 2, "colour": 1}, "unknown arguments: 'colour'"),
                ):
                    with pytest.raises(UsageError, match=match):
                        await other.call("gang", need=need, **args)
                for args, match in (
                    ({"count": 2, "spread": 7}, "spread is an attribute"),
                    ({"count": -2}, r"count must be 0\.\.256"),
                    ({}, "'count' is missing"),
                    ({"count": 2, "deadline_s": "x"}, "must be of type float"),
                ):
                    with pytest.raises(UsageError, match=match):
                        await other.call("replicas", need=need, **args)
                with pytest.raises(NoCandidates, match="0 of 2 replicas are alive"):
                    await other.call(
                        "replicas", need={"resources": {"cores": 9}}, count=2, deadline_s=0.5
                    )
                with pytest.raises((NoCandidates, ClaimsRefused), match="6 of 7 replicas"):
                    await other.call("replicas", need=need, count=7, deadline_s=1.0)
                await free(nodes)
                await known(nodes)
            async with ControlClient(path) as client:
                asked = client.ask("replicas", need=need, count=2, spread="site", deadline_s=9.0)
                told = [await anext(asked) for _ in range(2)]
                assert [(one["what"], one["alive"], one["count"]) for one in told] == [
                    ("granted", 1, 2), ("granted", 2, 2),
                ]  # fmt: skip
                token = told[0]["lease"]["token"]
                there = next(n for n in nodes if str(n.id) == told[0]["lease"]["node"])
                await there.revoke(token)
                lost = await anext(asked)
                assert (lost["what"], lost["lease"]["token"]) == ("lost", token)
                assert (await anext(asked))["what"] == "granted"
            await free(nodes)  # who goes away gives back

    run(main)
