"""A socket on the simulated network."""

import asyncio
import inspect

import pytest

from dhtos.errors import UsageError
from dhtos.sim.cluster import Cluster, endpoint_of
from dhtos.sim.loop import run
from dhtos.sim.network import SOCKET_BUFFER_MAX
from dhtos.sim.socket import SimSocket, sockets
from dhtos.sim.testing import EchoEngine
from dhtos.transport.udp import UdpSocket


@pytest.fixture
def cluster():
    cluster = Cluster(lambda node, now: EchoEngine(), seed=4, delay=0.1)
    cluster.add(1)
    return cluster


@pytest.fixture
def echo(cluster):
    return cluster.nodes[0]


class Reader:
    """A program that notes what it reads, at most `limit` datagrams a wake-up."""

    def __init__(self, socket, limit=64):
        self.socket = socket
        self.limit = limit
        self.batches = []
        socket.attach(asyncio.get_running_loop(), self.read)

    def read(self):
        batch = []
        now = asyncio.get_running_loop().time()
        self.socket.receive_into(lambda *mail: batch.append(mail), now, self.limit)
        self.batches.append(batch)


def test_every_public_method_of_the_real_socket_is_replaced():
    for name, member in inspect.getmembers(UdpSocket):
        if not name.startswith("_") and (callable(member) or isinstance(member, property)):
            assert name in vars(SimSocket), name


def test_addresses_are_given_or_chosen(cluster):
    opened = sockets(cluster)
    assert opened("0.0.0.0", 0).endpoint == endpoint_of(1)
    assert opened("::", 9000).endpoint == (endpoint_of(2)[0], 9000)
    assert opened("192.0.2.7", 1234).endpoint == ("192.0.2.7", 1234)
    with pytest.raises(UsageError, match="taken"):
        opened("192.0.2.7", 1234)


def test_datagrams_go_and_come_over_the_network(cluster, echo):
    async def program():
        socket = SimSocket(cluster, "0.0.0.0", 0)
        reader = Reader(socket)
        socket.send_all([(b"hello", echo.endpoint), (b"help", echo.endpoint)])
        await asyncio.sleep(1.0)
        assert (socket.sent, socket.received, socket.queued) == (2, 2, 0)
        socket.close()
        return reader.batches

    mail = [(b"rhello", echo.endpoint, 0.2), (b"rhelp", echo.endpoint, 0.2)]
    assert run(cluster, program()) == [mail]
    assert cluster.trace.deliveries == 4


def test_what_was_not_read_is_announced_again(cluster, echo):
    async def program():
        socket = SimSocket(cluster, "0.0.0.0", 0)
        reader = Reader(socket, limit=2)
        socket.send_all([(b"h%d" % number, echo.endpoint) for number in range(5)])
        await asyncio.sleep(1.0)
        socket.close()
        return [len(batch) for batch in reader.batches]

    assert run(cluster, program()) == [2, 2, 1]


def test_mail_waits_for_a_reader_in_a_bounded_buffer(cluster, echo):
    async def program():
        socket = SimSocket(cluster, "0.0.0.0", 0)
        socket.send_all([(b"h", echo.endpoint)] * (SOCKET_BUFFER_MAX + 3))
        await asyncio.sleep(1.0)
        cluster.check()
        reader = Reader(socket, limit=1000)
        await asyncio.sleep(0.0)
        socket.close()
        return [len(batch) for batch in reader.batches], socket._mailbox.overflowed

    assert run(cluster, program()) == ([SOCKET_BUFFER_MAX], 3)


def test_a_closed_socket_is_silent_and_frees_its_address(cluster, echo):
    async def program():
        socket = SimSocket(cluster, "0.0.0.0", 0)
        reader = Reader(socket)
        socket.send_all([(b"hello", echo.endpoint)])
        socket.close()
        socket.close()
        socket.send_all([(b"hello", echo.endpoint)])
        assert socket.receive_into(lambda *mail: None, 0.0) == 0
        await asyncio.sleep(1.0)
        assert SimSocket(cluster, *socket.endpoint).endpoint == socket.endpoint
        return reader.batches, socket.sent

    assert run(cluster, program()) == ([], 1)
    cluster.check()


def test_mail_that_came_just_before_the_close_is_not_read(cluster, echo):
    async def program():
        socket = SimSocket(cluster, "0.0.0.0", 0)
        reader = Reader(socket)
        socket.send_all([(b"hello", echo.endpoint)])
        cluster.call_at(0.2, lambda: asyncio.get_running_loop().call_soon(socket.close))
        await asyncio.sleep(1.0)
        return reader.batches

    assert len(run(cluster, program())) <= 1


def test_a_guest_that_the_cluster_takes_down_sends_nothing(cluster, echo):
    async def program():
        socket = SimSocket(cluster, "0.0.0.0", 0)
        cluster.crash([socket._guest])
        socket.send_all([(b"hello", echo.endpoint)])
        await asyncio.sleep(1.0)
        socket.close()
        return socket.dropped

    assert run(cluster, program()) == 1
    assert echo.engine.received == 0


def test_only_numeric_addresses_are_reachable(cluster):
    socket = SimSocket(cluster, "0.0.0.0", 0)
    assert socket.reachable("10.0.0.1", 7400) == ("10.0.0.1", 7400)
    assert socket.reachable("example.org", 7400) is None
