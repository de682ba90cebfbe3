"""One end of the RPC benchmark: a peer that answers `ping`, and can ask another one.

    rpc.py LOOP CONTENDER     LOOP: asyncio, uvloop; CONTENDER: stock, dhtos, secured

The first two speak the same bytes, the third is dhtos in a secured cluster. `ask` keeps `flight`
tasks busy, each of which awaits one reply after the other, as stock lookups do. `call` keeps as
many calls of the dhtos engine busy through its own callbacks, as dhtos lookups do: no future and
no task for a reply. `paced` makes one call at a time, with a pause before each. `greed` is a member
of its own, which asks at a rate and waits for nothing.
"""

import asyncio
import random
import time
from typing import Any

from _serve import Command, serve
from credentials import member
from rpcudp.protocol import RPCProtocol

from dhtos.core.ids import ID_BYTES
from dhtos.protocol.calls import Call
from dhtos.protocol.engine import Engine
from dhtos.transport.driver import Driver, clock_of
from dhtos.transport.udp import UdpSocket
from dhtos.trust.member import Member

HOST = "127.0.0.1"
IDS = random.Random(2)
CLIENT_ID = IDS.randbytes(ID_BYTES)
SERVER_ID = IDS.randbytes(ID_BYTES)


class StockPeer(RPCProtocol):
    """What `kademlia` adds to rpcudp for a ping, without its routing table."""

    def __init__(self) -> None:
        super().__init__()
        self.own = b""

    def rpc_ping(self, _sender: tuple[str, int], _nodeid: bytes) -> bytes:
        """Answer with our id."""
        return self.own

    async def ask(self, target: tuple[str, int]) -> bytes:
        """One ping."""
        answered, reply = await self.ping(target, self.own)
        assert answered
        return reply


class EnginePeer:
    """A whole dhtos engine on its socket; a call is awaited through a future."""

    def __init__(self, members: tuple[Member, Member] | None) -> None:
        self.members = members
        self.own = b""
        self.partner = b""
        self.member: Member | None = None

    def be(self, server: bool) -> None:
        """Take one of the two parts."""
        ids = [SERVER_ID, CLIENT_ID]
        if self.members is not None:
            self.member = self.members[not server]
            ids = [one.chain.node_id() for one in self.members if one.chain is not None]
        self.own, self.partner = ids if server else ids[::-1]

    def be_greedy(self) -> None:
        """Be a third member."""
        self.member = member(3)
        assert self.member.chain is not None
        self.own = self.member.chain.node_id()

    async def listen(self) -> int:
        """Bind and start; the port."""
        loop = asyncio.get_running_loop()
        socket = UdpSocket(HOST, 0)
        rng = random.Random(1 if self.member is None else self.own)
        self.engine = Engine(self.own, rng=rng, now=clock_of(loop)(), member=self.member)
        self.driver = Driver(self.engine, socket, loop)
        self.loop = loop
        return socket.endpoint[1]

    async def ask(self, target: tuple[str, int]) -> bytes:
        """One ping."""
        future = self.loop.create_future()
        self.engine.core.calls.send(
            target, "ping", [self.own], self, self.driver.clock(), tag=future
        )
        self.driver.flush()
        return await future

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, _now: float) -> None:
        """The peer answered."""
        call.tag.set_result(value)

    def on_late(self, _call: Call, _now: float) -> None:
        """Sent once more by the engine: nothing to do."""

    def on_failure(self, call: Call, _now: float) -> None:
        """No answer before the deadline."""
        call.tag.set_exception(TimeoutError("a ping on loopback was lost"))


class Chain:
    """One call after the other until `until`: an owner of calls, like a lookup."""

    def __init__(self, peer: EnginePeer, target: tuple[str, int], until: float) -> None:
        self.peer = peer
        self.target = target
        self.until = until
        self.count = 0
        self.done: asyncio.Future[int] = peer.loop.create_future()

    def send(self, now: float) -> None:
        """The next call."""
        peer = self.peer
        peer.engine.core.calls.send(self.target, "ping", [peer.own], self, now)

    def on_reply(self, _call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """Go on, or end."""
        assert value == self.peer.partner
        self.count += 1
        if time.perf_counter() < self.until:
            self.send(now)
        else:
            self.done.set_result(self.count)

    def on_late(self, _call: Call, _now: float) -> None:
        """Sent once more by the engine: nothing to do."""

    def on_failure(self, _call: Call, _now: float) -> None:
        """No answer before the deadline."""
        self.done.set_exception(TimeoutError("a ping on loopback was lost"))


async def flood(peer: EnginePeer, target: tuple[str, int], rate: int, seconds: float) -> float:
    """Ask so much a second and wait for nothing; how much it was."""
    peer.be_greedy()
    await peer.listen()
    await peer.ask(target)
    began, sent = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(min(int(passed * rate) - sent, 256)):
            args = [peer.own, IDS.randbytes(ID_BYTES)]
            peer.engine.core.calls.notify(target, "find_node", args)
            sent += 1
        peer.driver.flush()
        await asyncio.sleep(0.001)
    return sent / (time.perf_counter() - began)


async def start(contender: str) -> dict[str, Command]:
    """Listen; the commands are `listen`, and `ask` for a run of pings."""
    members = (member(1), member(2)) if contender == "secured" else None
    peer = StockPeer() if contender == "stock" else EnginePeer(members)

    async def listen(server: bool) -> int:
        if isinstance(peer, EnginePeer):
            peer.be(server)
            return await peer.listen()
        peer.own = SERVER_ID if server else CLIENT_ID
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: peer, local_addr=(HOST, 0))
        return transport.get_extra_info("sockname")[1]

    async def ask(port: int, flight: int, seconds: float) -> float:
        target = (HOST, port)
        began = clock()

        async def one() -> int:
            count = 0
            while clock() < began + seconds:
                reply = await peer.ask(target)
                assert reply == (peer.partner if isinstance(peer, EnginePeer) else SERVER_ID)
                count += 1
            return count

        counts = await asyncio.gather(*(one() for _ in range(flight)))
        return sum(counts) / (clock() - began)

    async def call(port: int, flight: int, seconds: float) -> float:
        assert isinstance(peer, EnginePeer)
        began = clock()
        chains = [Chain(peer, (HOST, port), began + seconds) for _ in range(flight)]
        for chain in chains:
            chain.send(peer.driver.clock())
        peer.driver.flush()
        counts = await asyncio.gather(*(chain.done for chain in chains))
        return sum(counts) / (clock() - began)

    async def paced(port: int, count: int, pause_s: float) -> list[float]:
        took = []
        for _ in range(count):
            await asyncio.sleep(pause_s)
            began = clock()
            try:
                await peer.ask((HOST, port))
            except TimeoutError:
                continue
            took.append(clock() - began)
        return took

    async def greed(port: int, rate: int, seconds: float) -> float:
        assert isinstance(peer, EnginePeer)
        return await flood(peer, (HOST, port), rate, seconds)

    clock = time.perf_counter
    return {"listen": listen, "ask": ask, "call": call, "paced": paced, "greed": greed}


if __name__ == "__main__":
    serve(start)
