"""What being a secured cluster costs, beside open mode in one run; and what junk does to it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random
from typing import Any

from credentials import member
from report import Row
from test_trust import pass_ours, pass_wrapped, shake_ours, shake_theirs
from worker import Worker

from dhtos.core.limits import COMMAND_CHUNK_BYTES
from dhtos.node.command_wire import Data, frame, from_node
from dhtos.node.sealed_stream import Keys, Reader, Writer, sealed
from dhtos.protocol.calls import Call
from dhtos.protocol.engine import Engine
from dhtos.trust.member import Member

ONE, TWO = ("10.0.0.1", 1), ("10.0.0.2", 1)
RATIO_MIN = 0.6
STREAM_RATIO_MIN = 0.2


class Pair:
    """Two engines in this process, and pings from one to the other without a network."""

    def __init__(self, one: Member | None, two: Member | None) -> None:
        self.now = 0.0
        self.count = 0
        self.one, self.two = self._engine(one, 1), self._engine(two, 2)

    def _engine(self, member: Member | None, seed: int) -> Engine:
        rng = Random(seed)
        chain = None if member is None else member.chain
        node_id = rng.randbytes(20) if chain is None else chain.node_id()
        return Engine(node_id, rng=rng, now=0.0, member=member)

    def ping(self) -> None:
        """Send one, and carry datagrams until nobody has more to say."""
        self.now += 1e-4
        self.one.core.calls.send(TWO, "ping", [self.one.id], self, self.now)
        while self._carry(self.one, self.two, ONE) + self._carry(self.two, self.one, TWO):
            pass

    def _carry(self, one: Engine, other: Engine, source: tuple[str, int]) -> int:
        datagrams = one.outbox()
        for datagram, _ in datagrams:
            other.receive(datagram, source, self.now)
        if one.next_deadline() <= self.now:
            one.tick(self.now)
            return 1
        return len(datagrams)

    def rate(self, seconds: float) -> float:
        """Pings a second."""
        count = self.count
        began = time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            for _ in range(50):
                self.ping()
        assert self.count - count >= 50
        return (self.count - count) / took

    def on_reply(self, _call: Call, value: Any, _trailer: list[Any] | None, _now: float) -> None:
        """It answered."""
        assert value == self.two.id
        self.count += 1

    def on_late(self, call: Call, now: float) -> None:
        """Nothing is lost here."""
        raise AssertionError(f"{call.name} was late")

    on_failure = on_late


def engines(rounds: int, seconds: float) -> Row:
    """How many pings a second between two engines in one process?"""
    pairs = Pair(member(1), member(2)), Pair(None, None)
    for pair in pairs:
        pair.rate(seconds / 3)  # the handshake, and the peers meet
    rates = [[pair.rate(seconds) for pair in pairs] for _ in range(rounds)]
    ours, theirs = zip(*rates, strict=True)
    question = "secured ping between two engines, one process, no sockets (baseline: open mode)"
    return Row(question, "RPC/s", ours, theirs, target=RATIO_MIN, relative=True, at_least=True)


def sockets(rounds: int, seconds: float, flight: int = 64) -> Row:
    """And over loopback between two processes?"""
    rates: dict[str, list[float]] = {"secured": [], "dhtos": []}
    with ExitStack() as stack:
        pairs = {}
        for contender in rates:
            server, client = (
                stack.enter_context(Worker("rpc.py", "asyncio", contender)) for _ in range(2)
            )
            port = server.ask("listen", server=True)
            client.ask("listen", server=False)
            client.ask("call", port=port, flight=8, seconds=seconds / 3)
            pairs[contender] = (client, port)
        for _ in range(rounds):
            for contender, (client, port) in pairs.items():
                rate = client.ask("call", port=port, flight=flight, seconds=seconds)
                rates[contender].append(rate)
    question = f"secured ping between two processes, {flight} in flight, asyncio (baseline: open)"
    ours, theirs = tuple(rates["secured"]), tuple(rates["dhtos"])
    return Row(question, "RPC/s", ours, theirs, target=RATIO_MIN, relative=True, at_least=True)


def handshakes(rounds: int) -> list[Row]:
    """How long do both ends work on a handshake, and until a first call has been answered?"""
    ours, theirs, calls = [], [], []
    for n in range(rounds):
        ours.append(timed(shake_ours) * 1e3)
        theirs.append(timed(shake_theirs) * 1e3)
        pair = Pair(member(2 * n + 1), member(2 * n + 2))
        calls.append(timed(pair.ping) * 1e3)
        assert pair.count == 1
        assert pair.one.counters["sessions_out"] == 1
    noise = "Noise handshake, both ends, payloads of 200 bytes (baseline: noiseprotocol)"
    call = "first call to a stranger, both ends: cookie, handshake, two chains verified, ping"
    return [
        Row(noise, "ms", tuple(ours), tuple(theirs), target=1.0),
        Row(call, "ms", tuple(calls)),
    ]


def sealing(rounds: int, count: int = 2000) -> Row:
    """How long do both ends need for the sealing of a datagram of 300 bytes?"""
    both = [
        tuple(timed(call, count) * 1e6 for call in (pass_ours, pass_wrapped)) for _ in range(rounds)
    ]
    mine, base = zip(*both, strict=True)
    question = "seal and unseal 300 bytes (baseline: the wrappers of PyNaCl)"
    return Row(question, "us", mine, base, target=8.0)


def timed(call: Callable[[], object], count: int = 1) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count


def commands(rounds: int, size: int = 32 * 2**20) -> Row:
    """How fast is the output of a command over loopback, both ends in one process?"""
    rates = [[asyncio.run(streamed(size, one)) for one in (True, False)] for _ in range(rounds)]
    ours, theirs = zip(*rates, strict=True)
    question = "output of a command through a sealed connection, both ends (baseline: open mode)"
    return Row(
        question, "MiB/s", ours, theirs, target=STREAM_RATIO_MIN, relative=True, at_least=True
    )


async def streamed(size: int, secret: bool) -> float:
    """MiB a second of chunks as a node sends them."""
    chunk, keys = bytes(COMMAND_CHUNK_BYTES), Keys(bytes(32), bytes(32))
    sent = frame(Data(1, chunk))

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        out: Writer = sealed(reader, writer, keys)[1] if secret else writer
        for _ in range(size // len(chunk)):
            out.write(sent)
            await out.drain()
        writer.close()

    async with await asyncio.start_server(send, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=len(chunk))
        began = time.perf_counter()
        source: Reader = sealed(reader, writer, keys)[0] if secret else reader
        came = 0
        while (message := await from_node(source)) is not None:
            assert isinstance(message, Data)
            came += len(message.data)
        took = time.perf_counter() - began
        writer.close()
    assert came == size
    return size / 2**20 / took


def flood(calls: int, rate: int) -> list[Row]:
    """What do honest calls notice of junk that a third process sends to a secured node?

    Calls are made one after the other, each 5 ms after the last was answered, first without junk.
    """
    with ExitStack() as stack:
        server, client = (
            stack.enter_context(Worker("rpc.py", "asyncio", "secured")) for _ in range(2)
        )
        sender = stack.enter_context(Worker("flood.py", "asyncio"))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        port = server.ask("listen", server=True)
        client.ask("listen", server=False)
        client.ask("call", port=port, flight=8, seconds=0.1)
        quiet = client.ask("paced", port=port, count=calls, pause_s=0.005)
        flooding = pool.submit(sender.ask, "flood", port=port, rate=rate, seconds=calls * 0.008)
        loud = client.ask("paced", port=port, count=calls, pause_s=0.005)
        reached = flooding.result()
    note = (
        f"{reached:,.0f} datagrams a second came from the sender (wanted: {rate:,}); without them "
        f"{len(quiet)} of {calls} calls were answered."
    )
    what = f"junk from another process, {rate // 1000} kpps: honest calls that are answered"
    share = 100 * len(loud) / calls
    late = "the same: 99 of 100 honest calls are faster than (baseline: no junk)"
    return [
        Row(what, "%", (share,), target=99.5, at_least=True, note=note),
        Row(late, "ms", (_p99(loud),), (_p99(quiet),), target=20.0),
    ]


def greed(calls: int, rate: int) -> list[Row]:
    """What do honest calls notice of a member that asks as fast as it can?

    It has a valid session, and asks `find_node`, which costs more than the calls do.
    """
    with ExitStack() as stack:
        server, client, greedy = (
            stack.enter_context(Worker("rpc.py", "asyncio", "secured")) for _ in range(3)
        )
        pool = stack.enter_context(ThreadPoolExecutor(1))
        port = server.ask("listen", server=True)
        client.ask("listen", server=False)
        client.ask("call", port=port, flight=8, seconds=0.1)
        quiet = client.ask("paced", port=port, count=calls, pause_s=0.005)
        seconds = calls * 0.008
        asking = pool.submit(greedy.ask, "greed", port=port, rate=rate, seconds=seconds)
        loud = client.ask("paced", port=port, count=calls, pause_s=0.005)
        reached = asking.result()
    note = (
        f"{reached:,.0f} requests a second came from the greedy member (wanted: {rate:,}); without "
        f"them {len(quiet)} of {calls} calls were answered."
    )
    what = "find_node by one member as fast as it can: calls of another that are answered"
    share = 100 * len(loud) / calls
    late = "the same: 99 of 100 calls of the other are faster than (baseline: nobody else asks)"
    return [
        Row(what, "%", (share,), target=99.0, at_least=True, note=note),
        Row(late, "ms", (_p99(loud),), (_p99(quiet),)),
    ]


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)] * 1e3


def secured(
    rounds: int = 11, seconds: float = 0.3, calls: int = 1000, rate: int = 50_000
) -> list[Row]:
    """What does being a secured cluster cost, and what does junk do to it?"""
    return [
        engines(rounds, seconds),
        sockets(rounds, seconds),
        *handshakes(5 * rounds),
        sealing(rounds),
        commands(rounds),
        *flood(calls, rate),
        *greed(calls, rate),
    ]
