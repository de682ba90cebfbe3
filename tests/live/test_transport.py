"""Real UDP sockets on loopback: batches, both families, errors, full buffers, both loops."""

import asyncio
import errno
import socket
from itertools import pairwise
from random import Random

import pytest

from dhtos.core.limits import (
    DRAIN_DATAGRAMS_MAX,
    SEND_ADDRESSES_MAX,
    SEND_QUEUE_DATAGRAMS_MAX,
)
from dhtos.errors import ConfigError, KeyNotFound
from dhtos.protocol.engine import Engine
from dhtos.transport.driver import Driver, clock_of
from dhtos.transport.udp import UdpSocket, parse_host

IP_RECVERR = 11


@pytest.fixture
def pair():
    sockets = [UdpSocket("127.0.0.1", 0), UdpSocket("127.0.0.1", 0)]
    yield sockets
    for sock in sockets:
        sock.close()


def drained(sock, limit=DRAIN_DATAGRAMS_MAX):
    """What one drain hands over."""
    got = []
    count = sock.receive_into(lambda data, source, now: got.append((data, source)), 1.0, limit)
    assert count == len(got)
    return got


def has_ipv6():
    try:
        UdpSocket("::1", 0).close()
    except ConfigError:
        return False
    return True


def test_a_drain_is_bounded_and_in_order(pair):
    a, b = pair
    a.send_all([(b"%d" % n, b.endpoint) for n in range(100)])
    first = drained(b)
    assert [int(data) for data, _ in first] == list(range(DRAIN_DATAGRAMS_MAX))
    assert {source for _, source in first} == {a.endpoint}
    assert len(drained(b)) == 100 - DRAIN_DATAGRAMS_MAX
    assert drained(b) == []
    assert (a.sent, b.received) == (100, 100)


def test_the_largest_datagram_arrives_whole(pair):
    a, b = pair
    a.send_all([(bytes(65507), b.endpoint)])
    assert [len(data) for data, _ in drained(b)] == [65507]


def test_a_datagram_too_long_for_udp_is_counted(pair):
    a, b = pair
    a.send_all([(bytes(65508), b.endpoint), (b"next", b.endpoint)])
    assert a.errors == 1
    assert drained(b) == [(b"next", a.endpoint)]


def test_a_busy_port_says_what_to_do(pair):
    port = pair[0].endpoint[1]
    with pytest.raises(ConfigError) as caught:
        UdpSocket("127.0.0.1", port)
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is in use: choose another with --port, or 0 for any"
    )


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("localhost", 0, "numeric address"),
        ("192.0.2.77", 0, "not an address of this machine"),
        ("127.0.0.1", 70000, "0..65535"),
    ],
)
def test_an_unfit_address_is_refused(host, port, words):
    with pytest.raises(ConfigError, match=words):
        UdpSocket(host, port)


def test_a_name_is_not_a_numeric_host():
    assert parse_host("::").version == 6
    with pytest.raises(ConfigError, match="numeric address"):
        parse_host("example.org")


def test_a_name_is_never_looked_up(pair, monkeypatch):
    """`sendto` would ask the resolver, and block the loop for whoever told us the name."""
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args))
    a, _ = pair
    bad = ["localhost", "example.org", "", "127.1", "0.0.0.0", "224.0.0.1", "::1", "\0", "é"]
    a.send_all([(b"x", (host, 7400)) for host in bad])
    a.send_all([(b"x", ("127.0.0.1", port)) for port in (0, -1, 65536)])
    assert a.dropped == len(bad) + 3
    assert (a.sent, a.errors, asked) == (0, 0, [])


def test_remembered_destinations_are_bounded(pair):
    a, _ = pair
    a.send_all([(b"", (f"no-{n}", 1)) for n in range(SEND_ADDRESSES_MAX + 10)])
    assert len(a._addresses) == 10


def test_an_icmp_error_does_not_deafen_the_socket(pair):
    a, b = pair
    a._socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    gone = UdpSocket("127.0.0.1", 0)
    nowhere = gone.endpoint
    gone.close()
    a.send_all([(b"anybody?", nowhere)])
    b.send_all([(b"here", a.endpoint)])
    assert drained(a) == [(b"here", b.endpoint)]
    a.send_all([(b"anybody?", nowhere), (b"first", b.endpoint), (b"second", b.endpoint)])
    assert a.errors >= 1
    assert drained(b)[-1] == (b"second", a.endpoint)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_the_ipv6_wildcard_serves_both_families():
    with_both, four, six = UdpSocket("::", 0), UdpSocket("127.0.0.1", 0), UdpSocket("::1", 0)
    port = with_both.endpoint[1]
    four.send_all([(b"four", ("127.0.0.1", port))])
    six.send_all([(b"six", ("::1", port))])
    assert dict(drained(with_both)) == {b"four": four.endpoint, b"six": six.endpoint}
    with_both.send_all([(b"back", four.endpoint), (b"back", six.endpoint)])
    assert drained(four) == [(b"back", ("127.0.0.1", port))]
    assert drained(six) == [(b"back", ("::1", port))]
    four.send_all([(b"x", six.endpoint)])
    six.send_all([(b"x", four.endpoint)])
    assert (four.dropped, six.dropped) == (1, 1)
    for sock in (with_both, four, six):
        sock.close()


class Blocked:
    """A socket whose kernel buffer is full until `open`."""

    def __init__(self, real):
        self._real = real
        self.open = False

    def sendto(self, data, address):
        if not self.open:
            raise BlockingIOError(errno.EAGAIN, "full")
        return self._real.sendto(data, address)

    def __getattr__(self, name):
        return getattr(self._real, name)


def test_a_full_buffer_queues_and_keeps_the_order(run):
    async def main():
        a, b = UdpSocket("127.0.0.1", 0), UdpSocket("127.0.0.1", 0)
        a._socket = blocked = Blocked(a._socket)
        arrived = asyncio.Event()
        a.attach(asyncio.get_running_loop(), lambda: None)
        b.attach(asyncio.get_running_loop(), arrived.set)
        a.send_all([(b"1", b.endpoint), (b"2", b.endpoint)])
        a.send_all([(b"3", b.endpoint)])
        assert (a.queued, a.sent) == (3, 0)
        blocked.open = True
        got = []
        while len(got) < 3:
            await arrived.wait()
            arrived.clear()
            got += [data for data, _ in drained(b)]
        assert got == [b"1", b"2", b"3"]
        assert (a.queued, a.sent, a.dropped) == (0, 3, 0)
        a.send_all([(b"4", b.endpoint)])
        assert a.sent == 4
        a.close()
        b.close()

    run(main)


def test_the_send_queue_is_bounded(run):
    async def main():
        a = UdpSocket("127.0.0.1", 0)
        a._socket = Blocked(a._socket)
        a.attach(asyncio.get_running_loop(), lambda: None)
        a.send_all([(b"x", ("127.0.0.1", 9))] * (SEND_QUEUE_DATAGRAMS_MAX + 7))
        assert (a.queued, a.dropped) == (SEND_QUEUE_DATAGRAMS_MAX, 7)
        a.close()
        a.close()
        assert (a.queued, a.dropped) == (0, SEND_QUEUE_DATAGRAMS_MAX + 7)
        a.send_all([(b"x", ("127.0.0.1", 9))])
        assert drained(a) == []

    run(main)


def node(seed):
    """An engine with its driver on the running loop."""
    loop = asyncio.get_running_loop()
    rng = Random(seed)
    engine = Engine(rng.randbytes(20), rng=rng, now=clock_of(loop)())
    return Driver(engine, UdpSocket("127.0.0.1", 0), loop)


def test_the_clock_of_an_engine_moves_within_one_wake_up(run):
    """Round trips in a rack take 0.1 ms; uvloop's own clock stands still in a wake-up."""

    async def main():
        clock = clock_of(asyncio.get_running_loop())
        readings = sorted({clock() for _ in range(1000)})
        assert len(readings) > 10
        assert min(b - a for a, b in pairwise(readings)) < 1e-4

    run(main)


def test_real_engines_talk_on_every_loop(run):
    async def main():
        drivers = [node(seed) for seed in range(5)]
        first = drivers[0].socket.endpoint
        for driver in drivers[1:]:
            joining = driver.engine.base.bootstrap([first], driver.clock())
            assert await driver.wait(joining) >= 1
        put = drivers[1].engine.base.put(b"k" * 20, "value", drivers[1].clock(), seq=1)
        assert (await drivers[1].wait(put)).stored_on == 5
        get = drivers[4].engine.base.get(b"k" * 20, drivers[4].clock())
        assert (await drivers[4].wait(get)).value == "value"
        for driver in drivers:
            driver.engine.check()
            await driver.aclose()
            await driver.aclose()

    run(main)


def test_a_stalled_loop_does_not_declare_a_live_peer_late(run):
    """The reply waits in the kernel while the loop is busy past the deadline of the call."""

    async def main():
        a, b = node(1), node(2)
        joining = a.engine.base.bootstrap([b.socket.endpoint], a.clock())
        await a.wait(joining)
        failures = a.engine.counters["calls_failed"] + a.engine.counters["retransmits"]
        asking = a.engine.base.get(b"q" * 20, a.clock())
        a.flush()
        b.socket.receive_into(b.engine.receive, b.clock())
        b.flush()
        late = a.clock() + 0.5
        a.clock = lambda: late
        a._on_timer()
        assert isinstance(asking.error, KeyNotFound)
        assert a.engine.counters["calls_failed"] + a.engine.counters["retransmits"] == failures
        await a.aclose()
        await b.aclose()

    run(main)
