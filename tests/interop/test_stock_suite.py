"""One suite for stock `kademlia.network.Server` and for our drop-in: what a program relies on.

Every test runs against both classes, so a difference in behaviour cannot hide in a test that was
written for one of them. The tests of the second half pin the faults of the stock class that the
drop-in must not have; they run against the drop-in alone.
"""

import asyncio
import json
import logging
import pickle
import socket
import time

import kademlia.network
import pytest
from kademlia.protocol import KademliaProtocol
from kademlia.storage import ForgetfulStorage
from kademlia.utils import digest

import dhtos.adapters.kademlia as ours
from dhtos.core.limits import VALUE_BYTES_MAX
from dhtos.errors import Closed, ConfigError, UsageError, ValueTooLarge

HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def _quiet():
    """Stock logs an error for every silent peer."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        return sock.getsockname()[1]


async def listening(kind, **options):
    server = kind(**options)
    port = free_port()
    await server.listen(port, HOST)
    return server, (HOST, port)


async def swarm(kind, count: int, **options):
    """`count` servers, joined through the first one after another."""
    first, seed = await listening(kind, **options)
    servers = [first]
    for _ in range(count - 1):
        server, _ = await listening(kind, **options)
        await server.bootstrap([seed])
        servers.append(server)
    return servers


async def stop(servers) -> None:
    for server in servers:
        server.stop()
    await asyncio.sleep(0)


@pytest.fixture(params=[kademlia.network.Server, ours.Server], ids=["stock", "dhtos"])
def kind(request):
    return request.param


class TestBoth:
    def test_defaults(self, kind):
        server = kind()
        assert (server.ksize, server.alpha) == (20, 3)
        assert len(server.node.id) == 20
        assert server.transport is None
        assert server.protocol is None
        assert kind(node_id=b"i" * 20).node.id == b"i" * 20

    async def test_protocol_appears_with_listen(self, kind):
        server, _ = await listening(kind)
        assert isinstance(server.protocol, KademliaProtocol)
        assert server.protocol.source_node.id == server.node.id
        server.stop()

    async def test_two_nodes_share_a_value(self, kind):
        servers = await swarm(kind, 2)
        assert await servers[1].set("key", "value") is True
        assert await servers[0].get("key") == "value"
        assert await servers[1].get("key") == "value"
        await stop(servers)

    @pytest.mark.parametrize(
        "value", ["text", "", "é" * 50, b"\x00\xff", 0, -7, 2**63, 1.5, True, False, b"v" * 5000]
    )
    async def test_types_are_kept(self, kind, value):
        servers = await swarm(kind, 3)
        assert await servers[0].set("k", value)
        for server in servers:
            found = await server.get("k")
            assert found == value
            assert type(found) is type(value)
        await stop(servers)

    async def test_the_last_set_wins(self, kind):
        servers = await swarm(kind, 4)
        for number, server in enumerate(servers):
            assert await server.set("counter", number)
        assert await servers[0].get("counter") == 3
        await stop(servers)

    async def test_a_missing_key_is_none(self, kind):
        servers = await swarm(kind, 2)
        assert await servers[0].get("nothing") is None
        await stop(servers)

    async def test_alone_there_is_nothing(self, kind):
        server, _ = await listening(kind)
        assert await server.get("k") is None
        assert await server.set("k", 1) is False
        assert await server.bootstrap([]) == []
        assert server.bootstrappable_neighbors() == []
        server.stop()

    async def test_values_of_other_types_are_refused(self, kind):
        server, _ = await listening(kind)
        for value in (None, [1], {"a": 1}, object()):
            with pytest.raises(TypeError):
                await server.set("k", value)
        server.stop()

    async def test_bootstrap_returns_nodes(self, kind):
        first, seed = await listening(kind)
        second, address = await listening(kind)
        nodes = await second.bootstrap([seed])
        assert [(node.id, node.ip, node.port) for node in nodes] == [(first.node.id, *seed)]
        assert second.bootstrappable_neighbors() == [seed]
        node = await first.bootstrap_node(address)
        assert node.id == second.node.id
        await stop([first, second])

    async def test_keys_may_be_bytes_or_text(self, kind):
        servers = await swarm(kind, 2)
        assert await servers[0].set(b"k", 1)
        assert await servers[1].get("k") == 1
        assert await servers[0].set(17, 2)
        assert await servers[1].get("17") == 2
        await stop(servers)

    async def test_digest_keys_and_storage(self, kind):
        servers = await swarm(kind, 2)
        dkey = digest("k")
        assert await servers[0].set_digest(dkey, "v")
        assert servers[1].storage.get(dkey) == "v"
        assert servers[1].storage[dkey] == "v"
        assert (dkey, "v") in list(servers[1].storage)
        assert servers[1].storage.get(digest("other"), "none") == "none"
        with pytest.raises(KeyError):
            servers[1].storage[digest("other")]
        await stop(servers)

    async def test_own_storage_is_used(self, kind):
        storage = ForgetfulStorage()
        first, seed = await listening(kind, storage=storage)
        second, _ = await listening(kind)
        await second.bootstrap([seed])
        assert first.storage is storage
        assert await second.set("k", "v")
        assert storage[digest("k")] == "v"
        storage[digest("mine")] = "kept"
        assert await second.get("mine") == "kept"
        await stop([first, second])

    async def test_a_key_of_a_node_that_left_is_still_found(self, kind):
        servers = await swarm(kind, 6, ksize=4)
        for number in range(10):
            assert await servers[number % 6].set(f"k{number}", number)
        servers[5].stop()
        assert [await servers[0].get(f"k{n}") for n in range(3)] == [0, 1, 2]
        await stop(servers)

    async def test_state_is_saved_and_loaded(self, kind, tmp_path):
        servers = await swarm(kind, 3)
        assert await servers[0].set("k", "v")
        path = tmp_path / "state"
        servers[2].save_state(path)
        servers[2].stop()
        again = await kind.load_state(path, free_port(), HOST)
        assert again.node.id == servers[2].node.id
        assert (again.ksize, again.alpha) == (20, 3)
        assert await again.get("k") == "v"
        await stop([*servers[:2], again])

    async def test_state_without_neighbours_is_not_written(self, kind, tmp_path):
        server, _ = await listening(kind)
        server.save_state(tmp_path / "state")
        assert not (tmp_path / "state").exists()
        server.stop()

    async def test_state_is_saved_regularly_until_stop(self, kind, tmp_path):
        servers = await swarm(kind, 2)
        servers[0].save_state_regularly(tmp_path / "state", frequency=600)
        assert (tmp_path / "state").exists()
        assert servers[0].save_state_loop is not None
        await stop(servers)

    async def test_a_taken_port_is_an_os_error(self, kind):
        server, (_, port) = await listening(kind)
        with pytest.raises(OSError, match=r"in use"):
            await kind().listen(port, HOST)
        server.stop()

    async def test_stop_frees_the_port(self, kind):
        server, (_, port) = await listening(kind)
        server.stop()
        await asyncio.sleep(0)
        again = kind()
        await again.listen(port, HOST)
        again.stop()


class TestBetter:
    """Faults of the stock class that must not come back."""

    async def test_dead_neighbours_cost_little_and_set_says_no(self):
        servers = await swarm(ours.Server, 5)
        await stop(servers[1:])
        begun = time.monotonic()
        assert await servers[0].set("k", 1) is False
        assert await servers[0].get("gone") is None
        assert time.monotonic() - begun < 5.0
        servers[0].stop()

    async def test_too_large_a_value_is_stored_nowhere(self):
        servers = await swarm(ours.Server, 2)
        with pytest.raises(ValueTooLarge):
            await servers[0].set("big", b"v" * (VALUE_BYTES_MAX + 1))
        assert all(not list(server.storage) for server in servers)
        with pytest.raises(UsageError):
            await servers[0].set("big", 2**64)
        await stop(servers)

    async def test_a_cancelled_call_leaves_nothing(self):
        servers = await swarm(ours.Server, 3)
        dead = free_port()
        calls = servers[0]._overlay.core.calls
        for coroutine in (
            servers[0].bootstrap([(HOST, dead)]),
            servers[0].bootstrap_node((HOST, dead)),
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await coroutine
            assert len(calls) == 0
        await stop(servers)

    async def test_an_older_value_does_not_come_back(self):
        first, seed = await listening(ours.Server)
        second, _ = await listening(ours.Server)
        await second.bootstrap([seed])
        assert await second.set("k", "new")
        second._last_seq = 0
        overlay, driver = second._overlay, second._driver
        operation = overlay.put(digest("k"), "old", driver.clock(), seq=5)
        with pytest.raises(Exception, match="newer"):
            await driver.wait(operation)
        assert await first.get("k") == "new"
        await stop([first, second])

    async def test_a_clock_that_is_behind_still_sets(self):
        servers = await swarm(ours.Server, 3)
        driver, overlay = servers[0]._driver, servers[0]._overlay
        ahead = int(time.time() * 1000) + 3_600_000
        await driver.wait(overlay.put(digest("k"), "ahead", driver.clock(), seq=ahead))
        assert await servers[1].set("k", "last") is True
        assert await servers[2].get("k") == "last"
        await stop(servers)

    async def test_who_is_no_node_is_none(self):
        server, _ = await listening(ours.Server)
        other, address = await listening(ours.Server)
        assert server.bootstrappable_neighbors() == []
        assert ours.Server().bootstrappable_neighbors() == []
        other._overlay.core._handlers["ping"] = lambda *_: "hello"
        assert await server.bootstrap_node(address) is None
        other.stop()
        assert await server.bootstrap_node(address) is None
        assert await server.bootstrap([address]) == []
        server.stop()

    async def test_state_is_json_and_a_pickle_is_refused(self, tmp_path):
        servers = await swarm(ours.Server, 2)
        path = tmp_path / "state"
        servers[0].save_state(path)
        assert json.loads(path.read_text())["id"] == servers[0].node.id.hex()
        path.write_bytes(pickle.dumps({"id": b"i" * 20}))
        with pytest.raises(ConfigError, match="pickle"):
            await ours.Server.load_state(path, 0, HOST)
        for text in ("", "[]", '{"id": "xyz"}', '{"id": "00", "ksize": 1}'):
            path.write_text(text)
            with pytest.raises(ConfigError, match="state file"):
                await ours.Server.load_state(path, 0, HOST)
        await stop(servers)

    async def test_calls_before_listen_and_after_stop_are_clear(self):
        server = ours.Server()
        with pytest.raises(UsageError, match="listen"):
            await server.get("k")
        server.stop()
        await server.listen(free_port(), "localhost")
        server.stop()
        server.stop()
        with pytest.raises(Closed):
            await server.get("k")

    async def test_the_protocol_is_a_view(self):
        servers = await swarm(ours.Server, 4)
        router = servers[0].protocol.router
        found = router.find_neighbors(servers[1].node)
        assert servers[1].node.id not in [node.id for node in found]
        assert router.is_new_node(servers[0].node)
        assert not router.is_new_node(servers[1].node)
        assert len(router.find_neighbors(servers[0].node, 2, exclude=found[0])) == 2
        with pytest.raises(AttributeError, match="remote calls"):
            servers[0].protocol.anything(("127.0.0.1", 1))
        assert await servers[0]._refresh_table() is None
        servers[0].refresh_table()
        assert servers[0].storage.iter_older_than(0) == []
        await stop(servers)

    def test_a_custom_protocol_is_refused(self):
        class Custom(KademliaProtocol):
            pass

        class Mine(ours.Server):
            protocol_class = Custom

        with pytest.raises(UsageError, match="protocol_class"):
            Mine()
        with pytest.raises(UsageError, match="20 bytes"):
            ours.Server(node_id=b"short")

    async def test_own_storage_is_loaded_and_local_writes_count(self):
        storage = ForgetfulStorage()
        storage[digest("before")] = "x"
        server, _ = await listening(ours.Server, storage=storage)
        assert await server.get("before") == "x"
        server.stop()
        plain, _ = await listening(ours.Server)
        plain.storage[digest("k")] = 1
        assert await plain.get("k") == 1
        assert plain.storage.iter_older_than(0) == [(digest("k"), 1)]
        plain.stop()
