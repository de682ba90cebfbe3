"""Where machines are: distances, borders and centres of whole nodes on loopback."""

import asyncio
import contextlib
from dataclasses import replace
from random import Random

import pytest

import dhtos
from dhtos.core.coordinate import Coordinate
from dhtos.core.ids import NodeId
from dhtos.errors import Unreachable, UsageError
from dhtos.node.naming import named
from dhtos.protocol.place import Place


def config(*seeds, **settings):
    settings = {"host": "127.0.0.1", "port": 0, "sample": False, **settings}
    return dhtos.Config(seeds=[node.endpoint for node in seeds], **settings)


def place(x_ms, height_ms=1.0):
    return Coordinate((x_ms / 1000, 0.0, 0.0, 0.0, 0.0), height_ms / 1000, 0.1)


@contextlib.asynccontextmanager
async def fleet(*x_ms, **settings):
    """Nodes that stand on a line, or None: wherever; node i has 2**i cores. Some need `still`."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for index, x in enumerate(x_ms):
            told = config(*nodes[:1], advertise={"cores": 2**index}, name=f"n{index}", **settings)
            node = await stack.enter_async_context(dhtos.Node(told, rng=Random(index)))
            await node.joined()
            if x is not None:
                locator = node.engine.hub.locator
                locator.coordinate = locator.published = place(x)
                node._publish(node.advert, eager=True)
            nodes.append(node)
        wanted = {place(x).to_bytes() for x in x_ms if x is not None}
        for node in nodes:
            hits = ()
            while len(hits) != len(x_ms) or not wanted <= {hit.record.packed for hit in hits}:
                hits = (await node.find_all()).hits  # the news of others comes by itself
                await asyncio.sleep(0.01)
        yield nodes


@pytest.fixture
def still(monkeypatch):
    """Nobody learns from round trips: everybody stays where the test has put it, unmeasured."""

    def remembered(hub, endpoint, _now):
        return hub.locator.memory.rtt_s(endpoint)  # not how long replies took, here microseconds

    monkeypatch.setattr(Place, "measured", lambda *_: None)
    for module in ("dhtos.node.nearby", "dhtos.protocol.near"):
        monkeypatch.setattr(f"{module}.peer_rtt", remembered)


def numbers(hits):
    return [int(hit.labels["name"][1:]) for hit in hits]


async def hit_of(node, index):
    (hit,) = (await node.find_all(f"cores == {2**index}")).hits
    return hit


# --- two machines ---------------------------------------------------------------------------------


def test_a_distance_is_predicted_until_it_was_measured(run, still):
    async def main():
        async with fleet(0, 30, 100) as nodes:
            asker = nodes[0]
            hit = await hit_of(asker, 1)
            rtt = await asker.rtt(hit)
            assert isinstance(rtt, dhtos.Rtt)
            assert rtt == pytest.approx(0.032, rel=0.01)
            assert (rtt.measured, rtt.error) == (False, pytest.approx(0.1, rel=0.02))
            assert await asker.rtt("self", hit) == rtt
            for name in (nodes[1].id, bytes(nodes[1].id), str(nodes[1].id).upper()):
                assert await asker.rtt(name) == rtt
            between = await asker.rtt(nodes[1].id, nodes[2].id)
            assert between == pytest.approx(0.072, rel=0.01)
            assert not between.measured
            assert await asker.rtt(place(50), nodes[2].id) == pytest.approx(0.052, rel=0.01)
            for same in (("self",), (asker.id,), (hit, nodes[1].id)):
                itself = await asker.rtt(*same)
                assert (itself, itself.measured) == (0.0, True)

    run(main)


def test_a_ping_is_remembered_as_a_measurement(run):
    async def main():
        async with fleet(None, None) as nodes:
            (near,) = await nodes[0].closest(1)
            assert near.rtt_measured
            rtt = await nodes[0].rtt(near)
            assert rtt.measured
            assert rtt.error == 0.0
            assert 0 < rtt < 1
            (found,) = [h for h in (await nodes[0].find_all()).hits if h.id == nodes[1].id]
            assert found.rtt_measured

    run(main)


def test_a_stranger_is_looked_up_and_pinged(run):
    async def main():
        async with (
            fleet(None, None) as nodes,
            dhtos.Node(config(nodes[0], client=True)) as client,
        ):
            rtt = await client.rtt(nodes[1].id)
            assert rtt.measured
            assert 0 < rtt < 1
            with pytest.raises(UsageError, match="use a hit"):
                await client.rtt(nodes[0].id, nodes[1].id)
            with pytest.raises(Unreachable, match="is not found"):
                await client.rtt("ab" * 20)
            one, two = (await client.find_all(order_by="cores")).hits
            assert await client.rtt(one, two) > 0

    run(main)


def test_what_names_no_machine_is_refused(run, still):
    async def main():
        async with fleet(0, 30) as nodes:
            node = nodes[0]
            for wrong, words in (
                ("web-1", "a node id is 40 hexadecimal digits"),
                (7, "named by a hit"),
                (Coordinate((0.0, 0.0), 0.001, 0.1), "5 dimensions here, got 2"),
            ):
                with pytest.raises(UsageError, match=words):
                    await node.rtt(wrong)
            with pytest.raises(UsageError, match="is not known here"):
                await node.rtt(NodeId(b"x" * 20), nodes[1].id)
            hit = await hit_of(node, 1)
            hidden = replace(hit, record=_without_place(hit.record))
            with pytest.raises(UsageError, match="is not known here"):
                await node.rtt(hidden, place(1))
            assert (await node.rtt(hidden)).measured  # who tells no place can still be pinged

    run(main)


def _without_place(record):
    return record.updated(record.seq + 1, record.dynamic, None)


# --- within ---------------------------------------------------------------------------------------


def test_within_is_nearest_first_and_measures_the_border(run, still):
    async def main():
        async with fleet(0, 10, 38, 60, 400) as nodes:
            asker = nodes[0]
            near = await asker.within(0.045, probes=0)
            assert numbers(near) == [1, 2]
            assert [hit.rtt_measured for hit in near] == [False, False]
            assert [round(1000 * hit.rtt_s) for hit in near] == [12, 40]
            # 62 ms are within what predictions may be wrong: a ping says that it is near indeed.
            asked = await asker.within(0.045, probes=2)
            assert [hit.rtt_measured for hit in asked] == [True, True, False]
            assert numbers(asked)[2] == 1
            assert set(numbers(asked)[:2]) == {2, 3}
            rtts = [hit.rtt_s for hit in asked]
            assert rtts == sorted(rtts)
            assert asker.id not in {hit.id for hit in await asker.within(1)}
            assert len(await asker.within(1)) == 4
            assert numbers(await asker.within(1, limit=1, probes=0)) == [1]
            assert numbers(await asker.within(1, "cores >= 8", probes=0)) == [3, 4]
            assert await asker.within(1, "cores > 9999") == []

    run(main)


def test_who_does_not_answer_is_left_out(run, still):
    async def main():
        async with fleet(0, 10, 38) as nodes:
            nodes[2].driver.socket.close()
            assert numbers(await nodes[0].within(0.045)) == [1]
            assert numbers(await nodes[0].closest(2)) == [1]
            assert numbers(c.hit for c in await nodes[0].central(["self"], 2)) == [1]
            assert numbers(c.hit for c in await nodes[0].central(["self"], 2, probes=0)) == [1, 2]

    run(main)


def test_bad_borders_are_refused(run):
    async def main():
        async with fleet(None) as (node,):
            for wrong in (0, -1, 10.5, float("nan"), "20ms", None, True):
                with pytest.raises(UsageError, match="a round trip is above 0 s"):
                    await node.within(wrong)
            for options, words in (
                ({"limit": -1}, "limit must be"),
                ({"limit": True}, "limit must be"),
                ({"probes": 257}, r"probes must be 0\.\.256"),
                ({"probes": True}, r"probes must be 0\.\.256"),
            ):
                with pytest.raises(UsageError, match=words):
                    await node.within(0.1, **options)
            assert await node.within(0.1) == []

    run(main)


# --- central --------------------------------------------------------------------------------------


def test_the_central_machine_lies_between(run, still):
    async def main():
        async with fleet(0, 20, 50, 90, 100) as nodes:
            asker = nodes[1]
            found = await asker.central([nodes[0].id, nodes[4].id], 2)
            assert numbers(central.hit for central in found) == [2, 1]
            best = found[0]
            assert [round(1000 * rtt) for rtt in best.rtts_s] == [52, 52]
            assert best.worst_s == pytest.approx(0.052, rel=0.01)
            assert not any(rtt.measured for rtt in best.rtts_s)
            assert numbers(c.hit for c in await asker.central([place(95)], 2)) == [3, 4]
            rich = await asker.central([nodes[0].id, place(100)], 1, "cores >= 8")
            assert numbers(central.hit for central in rich) == [3]
            named_all = [node.id for node in nodes]
            assert await asker.central(named_all) == []

    run(main)


def test_a_leg_to_the_node_itself_is_measured(run, still):
    async def main():
        async with fleet(0, 20, 50) as nodes:
            (found,) = await nodes[0].central([nodes[2].id, "self"], 1)
            assert numbers([found.hit]) == [1]
            assert [rtt.measured for rtt in found.rtts_s] == [False, True]
            (unasked,) = await nodes[0].central([nodes[2].id, "self"], 1, probes=0)
            assert [rtt.measured for rtt in unasked.rtts_s] == [False, False]

    run(main)


def test_bad_others_are_refused(run):
    async def main():
        async with fleet(None) as (node,):
            for others, words in (
                ([], r"1\.\.64 others, got 0"),
                ([place(1)] * 65, r"1\.\.64 others, got 65"),
                (["web-1"], "a node id"),
                ([NodeId(b"x" * 20)], "is not known here"),
            ):
                with pytest.raises(UsageError, match=words):
                    await node.central(others)
            with pytest.raises(UsageError, match=r"k must be 1\.\.256"):
                await node.central(["self"], 0)
            with pytest.raises(UsageError, match=r"probes must be 0\.\.256"):
                await node.central(["self"], probes=-1)

    run(main)


# --- a light client -------------------------------------------------------------------------------


def test_a_client_places_itself_when_it_is_asked(run):
    async def main():
        async with (
            fleet(*[None] * 6) as nodes,
            dhtos.Node(config(nodes[0], client=True)) as client,
        ):
            with pytest.raises(dhtos.errors.PredicateError, match="this node is not known here"):
                await client.count("rtt(self) < 1s")
            near = await client.closest(3)
            assert len(near) == 3
            assert all(hit.rtt_measured for hit in near)
            assert await client.count("rtt(self) < 1s") == 6
            assert len(await client.within(1)) == 6
            assert await client.locate() == client.coordinate
            samples = client.stats()["requests_out"]
            await client.locate()  # it knows by now
            assert client.stats()["requests_out"] == samples
            (central,) = await client.central(["self"], 1)
            assert central.rtts_s[0].measured
            assert {int(await node.count()) for node in nodes} == {6}  # it has left no trace

    run(main)


def test_a_client_of_silent_machines_says_so(run):
    async def main():
        async with fleet(None) as (node,), dhtos.Node(config(node, client=True)) as client:
            node.engine.core.replace("ping", lambda *_: dhtos.protocol.rpc.NO_REPLY)
            with pytest.raises(Unreachable, match="no machine answered a ping"):
                await client.locate()

    run(main)


# --- names ----------------------------------------------------------------------------------------


def test_people_name_machines_by_digits_and_names(run, still):
    async def main():
        async with fleet(0, 10, 20) as nodes:
            node = nodes[0]
            assert await named(node, "self") == "self"
            digits = str(nodes[2].id)
            assert await named(node, digits) == nodes[2].id
            for text in (digits[:12], digits[:12].upper(), "n2"):
                assert (await named(node, text)).id == nodes[2].id
            for text in ("n9", "beef", "", "abc"):
                with pytest.raises(UsageError, match="no machine is named"):
                    await named(node, text)
            await nodes[1].label({"name": "n2"})
            while await node.count('label("name") == "n2"') != 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            with pytest.raises(UsageError, match="several machines are named 'n2'"):
                await named(node, "n2")
            async with dhtos.Node(config(node, client=True)) as client:
                assert (await named(client, digits[:8])).id == nodes[2].id

    run(main)
