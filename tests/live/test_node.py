"""Whole nodes on loopback: life, asking, telling, cancelling, state across runs."""

import asyncio
import contextlib
import gc
import subprocess
import sys
from random import Random

import pytest

import dhtos
from dhtos import F, GiB
from dhtos.core.ids import NodeId
from dhtos.core.schema import default_schema
from dhtos.errors import (
    Closed,
    ConfigError,
    Conflict,
    KeyNotFound,
    NoPeers,
    PredicateError,
    UsageError,
    ValueTooLarge,
)
from dhtos.node import node as module
from dhtos.node.address import learn, stun
from dhtos.node.sampler import Sampler
from dhtos.transport.udp import UdpSocket

RSS_KIB_MAX = 35 * 1024


def config(*seeds, **settings):
    settings = {"host": "127.0.0.1", "port": 0, "sample": False, **settings}
    return dhtos.Config(seeds=[node.endpoint for node in seeds], **settings)


@contextlib.asynccontextmanager
async def fleet(count, **settings):
    """Nodes that all know each other: node i has 2**i cores and costs i/10."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for index in range(count):
            advertised = {"cores": 2**index, "price": index / 10 + 0.1}
            told = config(*nodes[:1], advertise=advertised, name=f"n{index}", **settings)
            node = await stack.enter_async_context(dhtos.Node(told, rng=Random(index)))
            await node.joined()
            nodes.append(node)
        for node in nodes:
            await answers(node, "cores >= 1", count)
        yield nodes


async def answers(node, query, count):
    """Wait until the news of other nodes has reached this one."""
    while await node.count(query) != count:  # noqa: ASYNC110 - as below
        await asyncio.sleep(0.01)


async def eventually(check):
    """Wait for something that other nodes' timers bring about."""
    while not check():  # noqa: ASYNC110 - what is waited for lies on both sides of a socket
        await asyncio.sleep(0.01)


def test_the_example_of_the_design(run):
    async def main():
        async with (
            dhtos.Node(config(sample=True)) as first,
            dhtos.Node(config(first, sample=True)) as second,
        ):
            await second.joined()
            await first.advertise(price=0.08, site="edge-7")
            await second.advertise(price=0.05, site="edge-9")
            query = (F.cores >= 1) & (F.mem >= GiB / 4)
            hits = [hit async for hit in second.find(query, limit=20, order_by="price")]
            assert [hit["price"] for hit in hits] == [0.05, 0.08]
            assert [hit.id for hit in hits] == [second.id, first.id]
            assert hits[0].endpoint == second.endpoint
            assert 0 <= hits[0].age_s < 5
            await answers(first, "site == 'edge-9'", 1)
            result = await first.find_all("cores >= 1 and site == 'edge-9'")
            assert [hit["site"] for hit in result.hits] == ["edge-9"]
            assert result.coverage.complete
            first.engine.check()

    run(main)


def test_the_answers_of_a_small_fleet_are_exact(run):
    async def main():
        async with fleet(6) as nodes:
            result = await nodes[3].find_all("cores >= 4 and price < 0.55")
            assert {hit["cores"] for hit in result.hits} == {4, 8, 16}
            assert (result.matches, result.coverage.complete) == (3, True)
            assert {hit.labels["name"] for hit in result.hits} == {"n2", "n3", "n4"}
            top = await nodes[0].find_all(limit=2, order_by="cores", descending=True)
            assert [hit["cores"] for hit in top.hits] == [32, 16]
            rest = await nodes[0].find_all(
                limit=9, order_by="cores", descending=True, cursor=top.cursor
            )
            assert [hit["cores"] for hit in rest.hits] == [8, 4, 2, 1]
            assert await nodes[5].count() == 6
            count = await nodes[5].count("label('name') == 'n1'")
            assert count == 1
            assert count.coverage.complete
            assert len(nodes[2].members()) == 6

    run(main)


def test_a_fleet_larger_than_a_group_still_answers(run):
    async def main():
        async with fleet(12, group_size=8) as nodes:
            wanted = {2**n for n in range(12)}
            for asker in (nodes[0], nodes[11]):
                result = await asker.find_all("cores >= 1")
                assert {hit["cores"] for hit in result.hits} == wanted
                assert result.coverage.complete

    run(main)


def test_the_figures_of_a_small_fleet_are_exact(run):
    async def main():
        async with fleet(12, group_size=8) as nodes:
            client = dhtos.Node(config(nodes[0], client=True))
            async with client:
                for node in (nodes[0], nodes[11], client):
                    cores = await node.sum("cores", "cores >= 4")
                    assert (cores.sum, cores.count, cores.present) == (4092, 10, 10)
                    assert (cores.minimum, cores.maximum, cores.mean) == (4, 2048, 409.2)
                    assert cores.coverage.complete
                    price = await node.sum("price", verify=2)
                    assert price.sum == pytest.approx(7.8)
                    nobody = await node.sum("mem", "cores >= 4")
                    assert (nobody.count, nobody.present, nobody.sum) == (10, 0, 0)
                    assert (nobody.mean, nobody.minimum, nobody.maximum) == (None, None, None)
                    bins = await node.histogram("cores", edges=(4, 100), strict=True)
                    assert (bins.counts, bins.missing, bins.count) == ((2, 5, 5), 0, 12)
                    usual = await node.histogram("mem")
                    assert (len(usual.edges), len(usual.counts), usual.missing) == (15, 16, 12)

    run(main)


def test_a_sample_is_of_matches_and_each_comes_once(run):
    async def main():
        async with (
            fleet(12, group_size=8) as nodes,
            dhtos.Node(config(nodes[0], client=True)) as client,
        ):
            for node in (nodes[3], client):
                some = await node.sample(4, "cores >= 4")
                assert len({hit.id for hit in some.hits}) == len(some.hits) == 4
                assert all(hit["cores"] >= 4 for hit in some.hits)
                assert some.cursor is None
                everybody = await node.sample(100, F.cores >= 4, strict=True)
                assert len({hit.id for hit in everybody.hits}) == 10
                assert everybody.coverage.complete
                assert (await node.sample(3, "cores > 9999")).hits == ()

    run(main)


def test_the_bandwidth_to_a_hit_is_measured_once_and_then_known(run):
    async def main():
        async with dhtos.Node(config()) as first, dhtos.Node(config(first)) as second:
            await second.advertise(cores=4)
            (hit,) = (await second.find_all(F.cores >= 1)).hits
            measured = await first.bandwidth(hit)
            assert measured.bytes_per_s > 0
            sent = first.stats()["requests_out"]
            again = await first.bandwidth(hit)
            assert (again.bytes_per_s, again.trains) == (measured.bytes_per_s, measured.trains)
            assert first.stats()["requests_out"] - sent < measured.trains  # from memory
            with pytest.raises(UsageError, match="numeric address"):
                await first.bandwidth("nowhere:1")
            with pytest.raises(UsageError, match="max_age_s must be 0 or more"):
                await first.bandwidth(hit, max_age_s=-1)
            with pytest.raises(UsageError, match="no member"):
                await first.bandwidth(NodeId(b"x" * 20))

    run(main)


def test_the_closest_machines_answered_a_ping(run):
    async def main():
        async with fleet(6, group_size=8) as nodes:
            asker = nodes[0]
            near = await asker.closest(3)
            assert len(near) == 3
            assert asker.id not in {hit.id for hit in near}
            rtts = [hit.rtt_s for hit in near]
            assert rtts == sorted(rtts)
            assert min(rtts) > 0
            own = [hit for hit in (await asker.find_all()).hits if hit.id == asker.id]
            assert [hit.rtt_s for hit in own] == [0.0]
            few = await asker.closest(5, F.cores >= 4, probes=1)
            assert all(hit["cores"] >= 4 for hit in few)
            assert await asker.closest(2, "cores > 9999") == []
            for wrong in ({"k": 0}, {"k": True}, {"probes": 257}):
                with pytest.raises(UsageError, match=r"must be 1\.\.256"):
                    await asker.closest(**wrong)
            with pytest.raises(UsageError, match="cannot be descending"):
                await asker.find_all(order_by="rtt(self)", descending=True)
            with pytest.raises(UsageError, match="coordinate of that node is not known"):
                await asker.find_all(order_by=f"rtt('{'ab' * 20}')")

    run(main)


def test_what_has_no_figure_is_refused_before_anybody_is_asked(run):
    async def main():
        async with dhtos.Node(config()) as node:
            for name in ("arch", "site"):
                for ask in (node.sum, node.histogram):
                    with pytest.raises(UsageError, match=f"{name} is a text"):
                        await ask(name)
            with pytest.raises(UsageError, match="did you mean 'cores'"):
                await node.sum("coers")
            with pytest.raises(UsageError, match="edges of a histogram rise"):
                await node.histogram("cores", edges=[2, 1])
            with pytest.raises(UsageError, match="verify must be"):
                await node.sum("cores", verify=0)
            for k in (0, -1, 257, True, 1.5):
                with pytest.raises(UsageError, match=r"1\.\.256 machines"):
                    await node.sample(k)
            with pytest.raises(PredicateError):
                await node.sample(3, "coers >= 8")

    run(main)


def test_find_is_an_iterator_and_a_context_manager(run):
    async def main():
        async with fleet(3) as nodes:
            finding = nodes[0].find("cores >= 1")
            with pytest.raises(UsageError, match="has not ended"):
                _ = finding.result
            async with finding:
                seen = {hit["cores"] async for hit in finding}
            assert seen == {1, 2, 4}
            assert finding.result.coverage.complete
            async with nodes[0].find("cores >= 1") as left:
                await anext(left)
            with pytest.raises(StopAsyncIteration):
                await anext(left)
            async for _ in nodes[0].find("cores >= 1"):
                break
            gc.collect()

    run(main)


def test_a_mistake_in_a_query_is_raised_before_anybody_is_asked(run):
    async def main():
        async with dhtos.Node(config()) as node:
            with pytest.raises(PredicateError) as caught:
                node.find("coers >= 8")
            assert caught.value.column == 1
            assert caught.value.hint == "cores"
            with pytest.raises(UsageError, match="did you mean 'price'"):
                node.find(order_by="prize")
            with pytest.raises(UsageError, match="limit must be 0"):
                node.find(limit=-1)
            with pytest.raises(PredicateError):
                await node.count("cores >")
            for query in ("attested(gpu) or cores >= 1", F.attested("gpu") | (F.cores >= 1)):
                with pytest.raises(PredicateError, match="this node is in open mode"):
                    await node.count(query)
            assert node.stats().get("requests_out", 0) == 0

    run(main)


def test_advertising_is_all_or_nothing(run):
    async def main():
        async with dhtos.Node(config(advertise={"price": 0.1})) as node:
            with pytest.raises(UsageError, match="did you mean 'site'"):
                await node.advertise(price=0.5, sight="lab")
            with pytest.raises(UsageError, match="label"):
                await node.label({"": "x"})
            assert dict(node.attributes) == {"price": 0.1}
            await node.advertise({"site": "lab"}, price=None)
            await node.label({"team": "video"})
            assert dict(node.attributes) == {"site": "lab"}
            found = await node.find_all("label('team') == 'video' and site == 'lab'")
            assert found.hits[0].id == node.id
            await node.label({"team": None})
            assert await node.count("label('team') == 'video'") == 0
            node.engine.check()

    run(main)


def test_values_go_round(run):
    async def main():
        async with fleet(4) as nodes:
            for value in ("text", b"\x00bytes", 7, 0.5, True):
                put = await nodes[0].put(f"key-{value!r}", value, ttl_s=600)
                assert (put.stored_on, put.wanted) == (4, 20)
                got = await nodes[3].get(f"key-{value!r}")
                assert got.value == value
                assert type(got.value) is type(value)
                assert 590 < got.expires_s <= 600
            await nodes[1].put("name", "new")
            assert (await nodes[2].get("name")).value == "new"
            with pytest.raises(Conflict):
                await nodes[1].put("name", "older", seq=1)
            with pytest.raises(KeyNotFound):
                await nodes[0].get("nothing")
            with pytest.raises(ValueTooLarge):
                await nodes[0].put("big", bytes(9000))

    run(main)


def test_later_puts_of_one_node_win_whatever_the_wall_clock_does(run):
    async def main():
        async with dhtos.Node(config(), wall_clock=lambda: 1000.0) as node:
            for value in ("a", "b", "c"):
                await node.put("key", value)
            assert (await node.get("key")).value == "c"

    run(main)


def test_a_client_asks_without_serving(run):
    async def main():
        async with fleet(3) as nodes, dhtos.Node(config(nodes[1], client=True)) as client:
            await client.joined()
            result = await client.find_all("cores >= 2")
            assert {hit["cores"] for hit in result.hits} == {2, 4}
            assert await client.count() == 3
            await client.put("from", "outside")
            assert (await nodes[2].get("from")).value == "outside"
            with pytest.raises(UsageError, match="a client advertises nothing"):
                await client.advertise(price=1)
            assert await nodes[0].count() == 3

    run(main)


def test_a_client_must_know_somebody(run):
    async def main():
        node = dhtos.Node(config(client=True))
        with pytest.raises(ConfigError, match="give it a seed"):
            await node.start()
        with pytest.raises(Closed):
            node.find()

    run(main)


def test_a_silent_seed_is_named(run):
    async def main():
        silent = UdpSocket("127.0.0.1", 0)
        port = silent.endpoint[1]
        told = dhtos.Config(host="127.0.0.1", port=0, sample=False, seeds=[f"127.0.0.1:{port}"])
        with pytest.raises(NoPeers, match=f"127.0.0.1:{port}"):
            await dhtos.Node(told).start()
        silent.close()

    run(main)


def test_a_seed_without_an_address_is_named(run):
    async def main():
        unknown = dhtos.Config(host="127.0.0.1", port=0, seeds=["nowhere.invalid:1"], sample=False)
        with pytest.raises(NoPeers, match=r"no seed has an address: nowhere\.invalid:1"):
            await dhtos.Node(unknown).start()
        six = dhtos.Config(host="127.0.0.1", port=0, seeds=["[::1]:7400"], sample=False)
        with pytest.raises(NoPeers, match=r"not reachable from 127\.0\.0\.1"):
            await dhtos.Node(six).start()

    run(main)


def test_a_busy_port_leaves_nothing_behind(run, tmp_path):
    async def main():
        async with dhtos.Node(config()) as node:
            taken = config(state_dir=tmp_path, port=node.port)
            with pytest.raises(ConfigError, match=f"port {node.port} on 127.0.0.1 is in use"):
                await dhtos.Node(taken).start()
            async with dhtos.Node(config(state_dir=tmp_path)):
                pass

    run(main)


def test_names_of_seeds_are_looked_up(run):
    async def main():
        async with dhtos.Node(config()) as first:
            named = dhtos.Config(
                host="127.0.0.1", port=0, seeds=[f"localhost:{first.port}"], sample=False
            )
            async with dhtos.Node(named) as second:
                await second.joined()
                assert await second.count() == 2

    run(main)


def test_the_advertised_address(run):
    async def main():
        async with (
            dhtos.Node(config(host="0.0.0.0")) as alone,
            dhtos.Node(
                dhtos.Config(
                    host="0.0.0.0", port=0, seeds=[f"127.0.0.1:{alone.port}"], sample=False
                )
            ) as told_by_seed,
            dhtos.Node(config(advertise_host="192.0.2.9")) as configured,
        ):
            assert alone.endpoint == f"127.0.0.1:{alone.port}"
            assert told_by_seed.endpoint == f"127.0.0.1:{told_by_seed.port}"
            assert configured.endpoint == f"192.0.2.9:{configured.port}"
            silent = UdpSocket("127.0.0.1", 0)
            seeds = [silent.endpoint]
            learned = await learn(None, alone.driver, alone.engine.core, seeds)
            assert learned == ("127.0.0.1", alone.port)
            silent.close()

    run(main)


def test_closing_ends_what_waits(run):
    async def main():
        silent = UdpSocket("127.0.0.1", 0)
        async with dhtos.Node(config()) as node:
            node.engine.hub.settled = False
            tasks = [
                asyncio.ensure_future(node.joined()),
                asyncio.ensure_future(node.find_all()),
                asyncio.ensure_future(anext(node.find())),
                asyncio.ensure_future(node.count()),
                asyncio.ensure_future(
                    node.driver.wait(
                        node.engine.base.bootstrap([silent.endpoint], node.driver.clock())
                    )
                ),
            ]
            await asyncio.sleep(0)
            await node.aclose()
            await node.aclose()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(outcome, Closed)
            with pytest.raises(Closed):
                await node.get("key")
        silent.close()

    run(main)


@pytest.mark.parametrize(
    "call", ["find_all", "count", "put", "get", "joined", "anext", "advertise"]
)
def test_cancelling_any_call_leaves_nothing(run, call):
    async def main():
        async with dhtos.Node(config()) as node, dhtos.Node(config(node)) as other:
            await other.joined()
            await other.driver.aclose()  # It falls silent without a goodbye.
            if call in ("joined", "find_all", "count", "anext", "advertise"):
                node.engine.hub.settled = False
            calls = {
                "find_all": lambda: node.find_all("cores >= 1"),
                "count": lambda: node.count(),
                "put": lambda: node.put("k", "v"),
                "get": lambda: node.get("k"),
                "joined": lambda: node.joined(),
                "anext": lambda: anext(node.find()),
                "advertise": lambda: node.advertise(load1=0.5),
            }
            task = asyncio.ensure_future(calls[call]())
            await asyncio.sleep(0)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not node.driver._waiters
            assert not node.driver._conditions
            node.engine.check()
            node.engine.hub.settled = True

    run(main)


def test_a_close_that_is_cancelled_still_frees_everything(run, tmp_path):
    async def main():
        async with dhtos.Node(config()) as first:
            node = dhtos.Node(config(first, state_dir=tmp_path))
            await node.start()
            await node.joined()
            closing = asyncio.ensure_future(node.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert node._driver.socket.closed
            async with dhtos.Node(config(state_dir=tmp_path)):
                pass

    run(main)


def test_cancelling_the_start_leaves_nothing(run, tmp_path):
    async def main():
        silent = UdpSocket("127.0.0.1", 0)
        waiting = dhtos.Config(
            host="127.0.0.1",
            port=0,
            seeds=[f"127.0.0.1:{silent.endpoint[1]}"],
            sample=False,
            state_dir=tmp_path,
        )
        node = dhtos.Node(waiting)
        task = asyncio.ensure_future(node.start())
        await eventually(lambda: node._driver is not None and node._driver._waiters)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert node._driver.socket.closed
        async with dhtos.Node(config(state_dir=tmp_path)):
            silent.close()

    run(main)


def test_a_restarted_node_is_the_same_and_needs_no_seed(run, tmp_path):
    async def main():
        async with dhtos.Node(config()) as first:
            async with dhtos.Node(config(first, state_dir=tmp_path, name="back")) as node:
                await node.joined()
                known, seq = node.id, node.engine.hub.own.seq
            async with dhtos.Node(config(state_dir=tmp_path, name="back")) as node:
                await node.joined()
                assert node.id == known
                assert node.engine.hub.own.seq > seq
                assert node.warnings == ()
                await eventually(lambda: len(first.members()) == 2)
                assert await first.count("label('name') == 'back'") == 1

    run(main)


def test_corrupt_state_is_reported_and_survived(run, tmp_path):
    async def main():
        async with dhtos.Node(config(state_dir=tmp_path)) as node:
            known = node.id
        (tmp_path / "seq.json").write_bytes(b"{")
        (tmp_path / "contacts.json").write_bytes(b"{")
        async with dhtos.Node(config(state_dir=tmp_path)) as node:
            assert node.id == known
            assert len(node.warnings) == 2
            assert node.engine.hub.own.seq > 1_600_000_000
        (tmp_path / "identity.json").write_bytes(b"{")
        with pytest.raises(ConfigError, match=r"identity\.json is corrupt"):
            await dhtos.Node(config(state_dir=tmp_path)).start()
        assert (tmp_path / "identity.json").read_bytes() == b"{"

    run(main)


def test_a_goodbye_is_heard(run):
    async def main():
        async with fleet(3) as nodes:
            await nodes[2].aclose()
            await eventually(lambda: len(nodes[0].members()) == len(nodes[1].members()) == 2)

    run(main)


def test_samples_are_published_when_they_are_news(run):
    async def main():
        free = [90.0]

        class Counting(Sampler):
            taken = 0

            def sample(self, schema):
                found = {"cores": 4, "cpu_free": free[0]}
                self.taken += 1
                return found

        sampler = Counting()
        told = config(sample=True, sample_interval_s=0.1)
        async with dhtos.Node(told, sampler=sampler) as node:
            seq = node.engine.hub.own.seq
            free[0] = 91.0
            sampled = sampler.taken
            await eventually(lambda: sampler.taken > sampled + 1)
            assert node.attributes["cpu_free"] == 90
            assert node.engine.hub.own.seq == seq
            free[0] = 20.0
            await eventually(lambda: node.attributes["cpu_free"] == 20)
            assert node.engine.hub.own.seq > seq
            assert await node.count("cpu_free < 30") == 1

    run(main)


def test_a_background_fault_reaches_the_loop(run):
    async def main():
        faults = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))

        class Broken(Sampler):
            def sample(self, schema):
                if self.counters["sampled"]:
                    raise RuntimeError("a fault of ours")
                self.counters["sampled"] += 1
                return super().sample(schema)

        told = config(sample=True, sample_interval_s=0.1)
        async with dhtos.Node(told, sampler=Broken()):
            await eventually(lambda: faults)
        assert str(faults[0]["exception"]) == "a fault of ours"

    run(main)


def test_a_node_before_its_start_says_so():
    node = dhtos.Node(dhtos.Config(port=0))
    for name in ("id", "endpoint", "port", "engine", "driver", "labels"):
        with pytest.raises(Closed):
            getattr(node, name)
    assert node.warnings == ()
    assert node.schema is default_schema()


def test_two_nodes_share_a_process_and_nothing_else(run):
    async def main():
        async with dhtos.Node(config()) as one, dhtos.Node(config()) as other:
            assert one.id != other.id
            assert await one.count() == await other.count() == 1

    run(main)


DAEMON = """
import asyncio, gc, resource, sys
import dhtos

async def main():
    async with dhtos.Node(dhtos.Config(host="127.0.0.1", port=0)) as node:
        await node.joined()
        assert await node.count("cores >= 1") == 1
    lines = open("/proc/self/status").read().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmRSS")))
    print(" ".join(sorted(name for name in ("rich", "kademlia", "rpcudp") if name in sys.modules)))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_daemon_is_small():
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", DAEMON], capture_output=True, check=True, text=True
    )
    rss_kib, heavy = told.stdout.split("\n")[:2]
    assert heavy == ""
    assert int(rss_kib) <= RSS_KIB_MAX


def test_round_trips_may_be_asked_for(run):
    async def main():
        async with fleet(3) as nodes:
            near = await nodes[0].find_all("rtt(self) < 5s")
            assert near.coverage.complete
            assert near.matches >= 2
            to_other = await nodes[0].find_all(f"rtt('{nodes[1].id}') < 5s")
            assert to_other.coverage.complete
            with pytest.raises(PredicateError, match="coordinate of that node"):
                nodes[0].find("rtt('" + "0" * 40 + "') < 5s")

    run(main)


def test_an_isolated_node_looks_for_its_seeds_again(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "UPKEEP_INTERVAL_S", 0.05)

    async def main():
        async with dhtos.Node(config()) as first:
            kept = {"state_dir": tmp_path}
            async with dhtos.Node(config(first, **kept)) as node:
                await node.joined()
                await eventually(lambda: (tmp_path / "contacts.json").exists())
                for contact in node.engine.base.contacts():
                    for _ in range(9):
                        node.engine.base.routing.failed(contact.id, node.driver.clock())
                assert len(node.engine.base.routing) == 0
                await eventually(lambda: len(node.engine.base.routing) == 1)
                assert node.engine.hub.gateways == [first.driver.socket.endpoint]

    run(main)


@pytest.mark.parametrize(
    "answer", [None, [], ["127.0.0.1"], ["name", 1], ["0.0.0.0", 7400], ["10.0.0.1", 0]]
)
def test_a_useless_stun_answer_is_no_address(run, answer):
    async def main():
        async with dhtos.Node(config()) as node, dhtos.Node(config()) as liar:
            liar.engine.core._handlers["stun"] = lambda *_: answer
            asking = stun(node.engine.core, liar.driver.socket.endpoint, node.driver.clock())
            with pytest.raises(NoPeers, match="no usable address"):
                await node.driver.wait(asking)
            silent = UdpSocket("127.0.0.1", 0)
            asking = stun(node.engine.core, silent.endpoint, node.driver.clock())
            waiting = asyncio.ensure_future(node.driver.wait(asking))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert node.stats()["calls_open"] == 0
            silent.close()

    run(main)
