"""Real stock nodes and ours in one network: bytes on the wire, joins, values both ways."""

import asyncio
import hashlib
import logging
import os
import random
import socket

import kademlia.network
import pytest
import umsgpack
from kademlia.utils import digest as stock_digest
from rpcudp.protocol import RPCProtocol

import dhtos.adapters.kademlia as ours
from dhtos.core.ids import digest
from dhtos.errors import Conflict
from dhtos.protocol.peers import Capability
from dhtos.protocol.wire import Request, encode_request, encode_response, encode_trailer, parse

HOST = "127.0.0.1"
STOCK, OURS = kademlia.network.Server, ours.Server
KEY = bytes(range(20))
VALUES = {
    "text": "text é",
    "bytes": b"\x00\xffbytes",
    "int": 42,
    "negative": -(2**40),
    "large": 2**63,
    "float": 3.25,
    "true": True,
    "false": False,
    "5 kB": b"v" * 5000,
    "long text": "w" * 5000,
}


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


async def swarm(kinds, **options):
    servers, seed = [], None
    for kind in kinds:
        server = kind(**options)
        port = free_port()
        await server.listen(port, HOST)
        if seed is None:
            seed = (HOST, port)
        else:
            assert await server.bootstrap([seed])
        servers.append(server)
    return servers


async def stop(servers) -> None:
    for server in servers:
        server.stop()
    await asyncio.sleep(0.01)


class Wire:
    """What an rpcudp protocol puts on the wire, without a socket."""

    def __init__(self) -> None:
        self.protocol = RPCProtocol()
        self.protocol.transport = self
        self.sent: list[bytes] = []

    def sendto(self, datagram: bytes, _address) -> None:
        self.sent.append(datagram)


class TestBytes:
    @pytest.mark.parametrize(
        ("name", "args"),
        [
            ("ping", [KEY]),
            ("stun", []),
            ("find_node", [KEY, KEY]),
            ("find_value", [KEY, KEY]),
            *[("store", [KEY, KEY, value]) for value in VALUES.values()],
            *[("store", [KEY, KEY, n]) for n in (0, 127, 128, 255, 256, 65535, 65536, 2**32)],
            *[("store", [KEY, KEY, -n]) for n in (1, 32, 33, 128, 129, 32768, 32769, 2**31 + 1)],
            *[("store", [KEY, KEY, "x" * n]) for n in (0, 31, 32, 255, 256)],
            *[("store", [KEY, KEY, b"x" * n]) for n in (0, 255, 256)],
        ],
    )
    async def test_requests_are_those_of_rpcudp(self, name, args):
        wire = Wire()
        getattr(wire.protocol, name)((HOST, 1), *args)
        (datagram,) = wire.sent
        assert encode_request(datagram[1:21], name, args) == datagram
        assert parse(datagram) == Request(datagram[1:21], name, args, None)
        for _, timer in wire.protocol._outstanding.values():
            timer.cancel()

    @pytest.mark.parametrize(
        "value",
        [
            KEY,
            True,
            None,
            (HOST, 7400),
            [(KEY, HOST, 7400), (KEY, "192.168.100.200", 65535)],
            [(os.urandom(20), f"10.0.0.{n}", 8000 + n) for n in range(20)],
            *[{"value": value} for value in VALUES.values()],
        ],
    )
    def test_responses_are_those_of_rpcudp(self, value):
        assert encode_response(KEY, value) == b"\x01" + KEY + umsgpack.packb(value)

    def test_stock_reads_the_payload_and_ignores_the_trailer(self):
        datagram = encode_response(KEY, {"value": 1, "s": 5, "t": 60.0}) + encode_trailer([1, 2])
        assert umsgpack.unpackb(datagram[21:])["value"] == 1

    def test_keys_are_filed_alike(self):
        for key in ("", "key", "é", b"\xff"):
            assert (
                digest(key)
                == stock_digest(key)
                == hashlib.sha1(key if isinstance(key, bytes) else key.encode()).digest()
            )


class TestPairs:
    @pytest.mark.parametrize("kinds", [(STOCK, OURS), (OURS, STOCK)], ids=["ours", "stock"])
    @pytest.mark.parametrize("name", VALUES)
    async def test_one_sets_and_the_other_gets(self, kinds, name):
        """In both directions, whoever joined through whom."""
        servers = await swarm(kinds)
        for number, (setter, getter) in enumerate((servers, servers[::-1])):
            assert await setter.set(f"{name} {number}", VALUES[name])
            found = await getter.get(f"{name} {number}")
            assert found == VALUES[name]
            assert type(found) is type(VALUES[name])
        await stop(servers)

    async def test_each_knows_what_the_other_is(self):
        stock, one, two = servers = await swarm([STOCK, OURS, OURS])
        assert await one.set("k", 1)
        await asyncio.sleep(0.05)
        peers = one._overlay.core.peers
        kinds = {
            contact.endpoint[1]: peers.of(contact.endpoint).capability
            for contact in one._overlay.contacts()
        }
        assert kinds[stock.transport.get_extra_info("sockname")[1]] is Capability.STOCK
        assert kinds[two.transport.endpoint[1]] is Capability.DHTOS
        await stop(servers)

    async def test_a_stock_store_does_not_replace_our_number(self):
        stock, one, two = servers = await swarm([STOCK, OURS, OURS])
        assert await one.set("k", "ours")
        await stock.set("k", "stock")
        assert await two.get("k") == "ours"
        assert one.storage.get(stock_digest("k")) == "ours"
        driver, overlay = one._driver, one._overlay
        with pytest.raises(Conflict):
            await driver.wait(overlay.put(stock_digest("k"), "old", driver.clock(), seq=1))
        await stop(servers)

    async def test_a_stock_node_hands_over_to_us_and_we_to_it(self):
        one, stock = servers = await swarm([OURS, STOCK], ksize=4)
        for number in range(20):
            assert await one.set(f"k{number}", number)
        late = await swarm([OURS], ksize=4)
        await late[0].bootstrap([(HOST, one.transport.endpoint[1])])
        for _ in range(200):
            await asyncio.sleep(0.02)
            if len(late[0]._overlay.store) >= 5:
                break
        held = dict(late[0].storage)
        assert len(held) >= 5
        assert all(
            held[stock_digest(f"k{n}")] == n for n in range(20) if stock_digest(f"k{n}") in held
        )
        await stop([*servers, *late])
        assert stock.storage.get(stock_digest("k0")) == 0


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_mixed_swarm(seed):
    """Sixteen nodes of both kinds: whoever sets, everybody gets."""
    rng = random.Random(seed)
    kinds = [STOCK, OURS] * 8
    rng.shuffle(kinds)
    servers = await swarm(kinds, ksize=6)
    await asyncio.sleep(0.1)
    for number, (name, value) in enumerate(VALUES.items()):
        assert await servers[(number * 5) % 16].set(f"{seed} {name}", value), name
    for name, value in VALUES.items():
        found = await asyncio.gather(*(server.get(f"{seed} {name}") for server in servers))
        assert found == [value] * 16, (seed, name)
    assert await servers[0].get("missing") is None
    assert await servers[1].get("missing") is None
    for server in servers:
        if isinstance(server, OURS):
            server._driver.engine.check()
    await stop(servers)
