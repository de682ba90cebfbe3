"""A drop-in for `kademlia.network.Server`: change one import, keep the program.

    from dhtos.adapters.kademlia import Server

Constructor, coroutines and attributes are those of kademlia 2.x; inside runs the dhtos engine on
the same wire, so stock nodes and this one share a network. What differs, on purpose:

* a dead peer costs a lookup tens of milliseconds, not five seconds;
* `set` is sequenced by the wall clock in milliseconds (and past whatever is stored already): an
  older value, republished or set by a stock node, does not come back over it; `set` is True only
  if another node acknowledged it;
* a value over the limit raises `ValueTooLarge` before anything is stored anywhere;
* `save_state` writes JSON, and `load_state` refuses a pickle, which could run any code;
* refresh and republication are the engine's own business: `refresh_table` does nothing;
* a custom `protocol_class` is refused: the stock protocol class does not run here.

This is the only module of dhtos beside the interop tests that imports `kademlia`.
"""

import asyncio
import ipaddress
import json
import logging
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kademlia.network
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol
from kademlia.storage import IStorage
from kademlia.utils import digest

from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import VALUE_TTL_S
from dhtos.errors import (
    Closed,
    ConfigError,
    Conflict,
    KeyNotFound,
    Refused,
    Unreachable,
    UsageError,
)
from dhtos.protocol.base import BaseOverlay
from dhtos.protocol.calls import Call
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.operation import Operation
from dhtos.protocol.store import Held, Store, Value, Verdict
from dhtos.transport.driver import Driver
from dhtos.transport.udp import UdpSocket

log = logging.getLogger(__name__)

_PICKLE_START = b"\x80"
_STATE_BYTES_MAX = 2**20
_SET_ATTEMPTS = 3


class Server(kademlia.network.Server):  # type: ignore[misc] # kademlia ships no types
    """A node with the interface of `kademlia.network.Server` and the engine of dhtos."""

    def __init__(
        self,
        ksize: int = 20,
        alpha: int = 3,
        node_id: bytes | None = None,
        storage: IStorage | None = None,
    ) -> None:
        if self.protocol_class is not KademliaProtocol:
            raise UsageError(
                "protocol_class has no effect on dhtos.adapters.kademlia.Server: "
                "use kademlia.network.Server for a custom protocol"
            )
        super().__init__(ksize, alpha, node_id, storage)
        if len(self.node.id) != ID_BYTES:
            raise UsageError(f"node_id must have {ID_BYTES} bytes, got {len(self.node.id)}")
        self._config = EngineConfig(k=ksize, alpha=min(alpha, ksize))
        self._last_seq = 0
        if storage is None:
            self._store = Store()
            self.storage = StoreView(self, self._store)
        else:
            self._store = MirroredStore(storage, time.monotonic())
        self._driver: Driver | None = None
        self._overlay: BaseOverlay | None = None

    # --- life -----------------------------------------------------------------------------------

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:
        """Bind the port and start answering; raises OSError if it is taken."""
        loop = asyncio.get_running_loop()
        host = await _numeric(loop, interface)
        try:
            sock = UdpSocket(host, port)
        except ConfigError as error:
            raise OSError(str(error)) from error
        engine = Engine(
            self.node.id,
            rng=random.SystemRandom(),
            now=time.monotonic(),
            config=self._config,
        )
        engine.base.store = self._store
        self._overlay = engine.base
        self._driver = Driver(engine, sock, loop, time.monotonic)
        self.transport = sock
        self.protocol = EngineProtocol(self)

    def stop(self) -> None:
        """Close the socket and drop what is pending; may be called again."""
        if self._driver is not None:
            _finish_now(self._driver.aclose())
        if self.save_state_loop:
            self.save_state_loop.cancel()

    def refresh_table(self, interval: int = 3600) -> None:
        """Nothing to do: the engine refreshes and republishes by itself."""

    async def _refresh_table(self) -> None:
        """As `refresh_table`."""

    # --- joining --------------------------------------------------------------------------------

    async def bootstrap(self, addrs: list[Endpoint]) -> list[Node]:
        """Join through `addrs`; returns the closest nodes found, none if nobody answered."""
        driver, overlay = self._running()
        seeds = [(host, port) for host, port in addrs]
        try:
            await driver.wait(overlay.bootstrap(seeds, driver.clock()))
        except Unreachable as error:
            log.warning("bootstrap: %s", error)
            return []
        return self._closest(self.node.id)

    async def bootstrap_node(self, addr: Endpoint) -> Node | None:
        """The node at `addr`, or None if it does not answer."""
        driver, overlay = self._running()
        ping = _Ping(overlay, (addr[0], addr[1]), driver.clock())
        try:
            node_id = await driver.wait(ping.operation)
        except Unreachable:
            return None
        return Node(node_id, addr[0], addr[1])

    def bootstrappable_neighbors(self) -> list[Endpoint]:
        """Addresses to join through next time: the contacts closest to us."""
        return [(node.ip, node.port) for node in self._closest(self.node.id)]

    # --- values ---------------------------------------------------------------------------------

    async def get(self, key: object) -> Value | None:
        """The value filed under `key`, or None."""
        return await self.get_digest(digest(key))

    async def get_digest(self, dkey: bytes) -> Value | None:
        """The value under a 20-byte key, or None."""
        driver, overlay = self._running()
        try:
            return (await driver.wait(overlay.get(dkey, driver.clock()))).value
        except (KeyNotFound, Unreachable) as error:
            log.warning("get %s: %s", dkey.hex(), error)
            return None

    async def set(self, key: object, value: Value) -> bool:
        """File `value` under `key`; True if another node acknowledged it."""
        if not kademlia.network.check_dht_value_type(value):
            raise TypeError("Value must be of type int, float, bool, str, or bytes")
        return await self.set_digest(digest(key), value)

    async def set_digest(self, dkey: bytes, value: Value) -> bool:
        """As `set`, under a 20-byte key."""
        driver, overlay = self._running()
        if not len(overlay.routing):
            log.warning("There are no known neighbors to set key %s", dkey.hex())
            return False
        for _ in range(_SET_ATTEMPTS):
            operation = overlay.put(dkey, value, driver.clock(), seq=self.next_seq())
            try:
                result = await driver.wait(operation)
            except Conflict:
                await self._catch_up(dkey)
            except (Refused, Unreachable) as error:
                log.warning("set %s: %s", dkey.hex(), error)
                return False
            else:
                return result.stored_on > result.here
        log.warning("set %s: newer values kept coming", dkey.hex())
        return False

    async def _catch_up(self, dkey: bytes) -> None:
        """Another node set this key in our millisecond, or by a clock before ours: go past it."""
        driver, overlay = self._running()
        try:
            stored = await driver.wait(overlay.get(dkey, driver.clock()))
        except (KeyNotFound, Unreachable):
            return
        self._last_seq = max(self._last_seq, stored.seq)

    def next_seq(self) -> int:
        """A number for the next value: wall-clock milliseconds, and always a new one."""
        self._last_seq = max(int(time.time() * 1000), self._last_seq + 1)
        return self._last_seq

    # --- state ----------------------------------------------------------------------------------

    def save_state(self, fname: str | os.PathLike[str]) -> None:
        """Write what `load_state` needs as JSON, whole or not at all."""
        neighbors = self.bootstrappable_neighbors()
        if not neighbors:
            log.warning("No known neighbors, so not writing to cache.")
            return
        state = {
            "ksize": self.ksize,
            "alpha": self.alpha,
            "id": self.node.id.hex(),
            "neighbors": neighbors,
        }
        path = Path(fname)
        draft = path.with_name(path.name + ".new")
        draft.write_text(json.dumps(state), encoding="utf-8")
        draft.replace(path)

    @classmethod
    async def load_state(
        cls, fname: str | os.PathLike[str], port: int, interface: str = "0.0.0.0"
    ) -> "Server":
        """A server with the saved id, listening and joined through the saved neighbours.

        Raises ConfigError for a file that is not what `save_state` wrote.
        """
        ksize, alpha, node_id, neighbors = await asyncio.to_thread(_read_state, Path(fname))
        server = cls(ksize, alpha, node_id)
        await server.listen(port, interface)
        if neighbors:
            await server.bootstrap(neighbors)
        return server

    # --- inside ---------------------------------------------------------------------------------

    def _running(self) -> tuple[Driver, BaseOverlay]:
        if self._driver is None or self._overlay is None:
            raise UsageError("call `await server.listen(port)` first")
        if self._driver.closed:
            raise Closed("the server was stopped")
        return self._driver, self._overlay

    def _closest(self, target: bytes, exclude: Endpoint | None = None) -> list[Node]:
        if self._overlay is None:
            return []
        found = self._overlay.routing.closest(target, self.ksize, exclude=exclude)
        return [Node(contact.id, *contact.endpoint) for contact in found]


class EngineProtocol(KademliaProtocol):  # type: ignore[misc] # kademlia ships no types
    """What programs find as `server.protocol`: a view; the engine answers the network."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.node, server.storage, server.ksize)
        self.router = RouterView(server)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - never returns
        raise AttributeError(f"{type(self).__name__} has no {name!r}: it makes no remote calls")


class RouterView:
    """The engine's routing table under the names of the stock one, exact."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def find_neighbors(
        self, node: Node, k: int | None = None, exclude: Node | None = None
    ) -> list[Node]:
        """The closest contacts to `node`, itself and `exclude` left out."""
        away = None if exclude is None else (exclude.ip, exclude.port)
        found = self._server._closest(node.id, away)  # noqa: SLF001 - one module, one owner
        return [other for other in found if other.id != node.id][:k]

    def is_new_node(self, node: Node) -> bool:
        """Whether the table does not hold `node`."""
        overlay = self._server._overlay  # noqa: SLF001 - one module, one owner
        return overlay is None or node.id not in overlay.routing


class StoreView(IStorage):  # type: ignore[misc] # kademlia ships no types
    """The engine's store under the stock storage interface."""

    def __init__(self, server: Server, store: Store) -> None:
        self._server = server
        self._store = store

    def __setitem__(self, key: bytes, value: Value) -> None:
        self._store.put(key, value, time.monotonic(), seq=self._server.next_seq())

    def __getitem__(self, key: bytes) -> Value:
        held = self._store.get(key, time.monotonic())
        if held is None:
            raise KeyError(key)
        return held.value

    def get(self, key: bytes, default: Value | None = None) -> Value | None:
        """The live value under `key`, or `default`."""
        held = self._store.get(key, time.monotonic())
        return default if held is None else held.value

    def iter_older_than(self, seconds_old: float) -> list[tuple[bytes, Value]]:
        """What nobody has stored again for `seconds_old`."""
        now = time.monotonic()
        return [(key, self[key]) for key in self._store.due(now, seconds_old)]

    def __iter__(self) -> Iterator[tuple[bytes, Value]]:
        now = time.monotonic()
        return ((key, stored.value) for key, stored in self._store.items(now))


class MirroredStore(Store):
    """A store that writes through to a program's own `IStorage` and starts from what it holds."""

    __slots__ = ("_storage",)

    def __init__(self, storage: IStorage, now: float) -> None:
        super().__init__()
        self._storage = storage
        for key, value in storage:
            super().put(key, value, now)

    def put(
        self,
        key: bytes,
        value: Value,
        now: float,
        *,
        seq: int = 0,
        ttl_s: float = VALUE_TTL_S,
        source: Endpoint | None = None,
    ) -> Verdict:
        """As `Store.put`; what is kept is also kept by the program's storage."""
        verdict = super().put(key, value, now, seq=seq, ttl_s=ttl_s, source=source)
        if verdict is Verdict.HELD:
            self._storage[key] = value
        return verdict

    def get(self, key: bytes, now: float) -> Held | None:
        """As `Store.get`; a value the program put into its storage itself is found too."""
        held = super().get(key, now)
        if held is None:
            value = self._storage.get(key)
            if value is not None:
                held = Held(value, 0, now + VALUE_TTL_S)
        return held


class _Ping:
    """One ping; `operation` ends with the id of who answered."""

    def __init__(self, overlay: BaseOverlay, endpoint: Endpoint, now: float) -> None:
        calls = overlay.core.calls
        self.operation: Operation[bytes] = overlay.core.operation(lambda _: calls.cancel(call))
        call = calls.send(endpoint, "ping", [overlay.id], self, now)

    def on_reply(self, call: Call, value: object, _trailer: list[Any] | None, _now: float) -> None:
        """It answered."""
        if type(value) is bytes and len(value) == ID_BYTES:
            self.operation.finish(value)
        else:
            self.operation.fail(Unreachable(f"{call.endpoint} does not speak Kademlia"))

    def on_late(self, call: Call, now: float) -> None:
        """Wait on."""

    def on_failure(self, call: Call, _now: float) -> None:
        """It did not answer."""
        self.operation.fail(Unreachable(f"{call.endpoint} does not answer"))


def _read_state(path: Path) -> tuple[int, int, bytes, list[Endpoint]]:
    data = path.read_bytes()[:_STATE_BYTES_MAX]
    if data.startswith(_PICKLE_START):
        raise ConfigError(
            f"{path} is a pickle, as stock kademlia writes it, and may run any code when read: "
            "bootstrap once and save_state anew"
        )
    try:
        state = json.loads(data)
        node_id = bytes.fromhex(state["id"])
        neighbors = [(str(host), int(port)) for host, port in state["neighbors"]]
        return int(state["ksize"]), int(state["alpha"]), node_id, neighbors
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a state file of save_state: {error}") from error


async def _numeric(loop: asyncio.AbstractEventLoop, interface: str) -> str:
    """The address of `interface`; a name is resolved, as stock does."""
    try:
        ipaddress.ip_address(interface)
    except ValueError:
        found = await loop.getaddrinfo(interface, 0, type=socket.SOCK_DGRAM)
        return str(found[0][4][0])
    return interface


def _finish_now(closing: Any) -> None:  # noqa: ANN401 - a coroutine
    """Run a coroutine that never waits: `stop` is not async in stock, `aclose` is here."""
    try:
        closing.send(None)
    except StopIteration:
        return
    raise AssertionError("closing a driver waits for nothing")
