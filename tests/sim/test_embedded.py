"""Programs that embed `dhtos.Node`, tested in virtual time on a simulated network."""

import asyncio

import dhtos
from dhtos.sim import Cluster, EchoEngine, run, sockets


def _world(seed, **options):
    return Cluster(lambda node, now: EchoEngine(), seed=seed, **options)


def _node(cluster, number, *, seeds=(), **options):
    config = dhtos.Config(
        seeds=list(seeds), control=False, sample=False, advertise={"cores": number + 1}, **options
    )
    return dhtos.Node(
        config,
        rng=cluster.stream(f"program/{number}"),
        wall_clock=lambda: 1e9,
        open_socket=sockets(cluster),
    )


async def _fleet(cluster, count):
    nodes = [_node(cluster, 0)]
    await nodes[0].start()
    for number in range(1, count):
        nodes.append(_node(cluster, number, seeds=[nodes[0].endpoint]))
        await nodes[-1].start()
    for node in nodes:
        await node.joined()
    return nodes


async def _close(nodes):
    for node in nodes:
        await node.aclose()


def test_embedded_nodes_find_one_another_in_virtual_time(sim_seed, sim_replay):
    cluster = _world(sim_seed, delay=0.02, replay=sim_replay)

    async def program():
        nodes = await _fleet(cluster, 5)
        await asyncio.sleep(120.0)
        count = await nodes[3].count("cores >= 3")
        await _close(nodes)
        return count

    assert run(cluster, program()) == 3
    assert cluster.now >= 120.0
    assert cluster.trace.deliveries > 100
    assert cluster.up() == []


def test_an_embedded_node_that_is_cut_off_is_missed_and_comes_back(sim_seed, sim_replay):
    cluster = _world(sim_seed, delay=0.02, replay=sim_replay)

    async def program():
        nodes = await _fleet(cluster, 4)
        await asyncio.sleep(30.0)
        before = await nodes[0].count("cores >= 1")
        cluster.network.cut("cable", cluster.nodes[3:4])
        await asyncio.sleep(60.0)
        during = await nodes[0].count("cores >= 1")
        cluster.network.heal("cable")
        await asyncio.sleep(300.0)
        after = await nodes[0].count("cores >= 1")
        await _close(nodes)
        return before, during, after

    assert run(cluster, program()) == (4, 3, 4)


def test_an_embedded_query_is_answered_in_order(sim_seed, sim_replay):
    cluster = _world(sim_seed, replay=sim_replay)

    async def program():
        nodes = await _fleet(cluster, 4)
        await asyncio.sleep(15.0)
        result = await nodes[1].find_all("cores >= 2", order_by="cores")
        await _close(nodes)
        return [hit["cores"] for hit in result.hits], result.coverage.complete

    assert run(cluster, program()) == ([2, 3, 4], True)


def test_a_client_follows_a_fleet_of_which_nobody_is_left(sim_seed, sim_replay):
    """Its seeds and all that it knew at its start have gone; it asked now and then meanwhile."""
    cluster = _world(sim_seed, delay=0.02, replay=sim_replay)

    async def program():
        old = await _fleet(cluster, 4)
        client = _node(cluster, 9, seeds=[old[0].endpoint], client=True)
        await client.start()
        new = [_node(cluster, n, seeds=[old[0].endpoint]) for n in range(4, 8)]
        for node in new:
            await node.start()
            await node.joined()
        for _ in range(3):
            await client.count("cores >= 1")
            await asyncio.sleep(5.0)
        for node in old:
            node.driver.socket.close()  # without a word
        await asyncio.sleep(120.0)
        count = await client.count("cores >= 1")
        for node in [client, *new, *old]:
            await node.aclose()
        return count

    assert run(cluster, program()) == 4
