"""The engine: a whole node without a socket, a clock or a thread.

Five verbs. `receive(datagram, source, now)` and `tick(now)` change state; `outbox()` and
`events()` drain what came of it; `next_deadline()` says when to tick again. A shell that owns a
socket and a clock (`dhtos.transport`), or the simulator (`dhtos.sim`), drives it; both see the
same code, so one seed replays one run.

The engine owns what all overlays share: the calls in flight, the timers, what is known of
peers, the counters. An overlay registers its RPC names and is otherwise on its own.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import ALPHA, GROUP_SIZE, GROUP_SIZE_MAX, GROUP_SIZE_MIN, K
from dhtos.errors import ConfigError, MalformedMessage
from dhtos.protocol.calls import OWN_CAPABILITIES, Calls
from dhtos.protocol.operation import Event, Operation
from dhtos.protocol.peers import Capability, Peers
from dhtos.protocol.timers import Timers
from dhtos.protocol.wire import Response, encode_response, encode_trailer, parse

if TYPE_CHECKING:
    from random import Random


class _NoReply:
    """The handler's word that silence is the answer."""


NO_REPLY: Final = _NoReply()


class Deferred:
    """A reply that comes later: the handler returns it and hands it to `Core.answer`."""

    __slots__ = ("greet", "msg_id", "source")

    def __init__(self) -> None:
        self.msg_id = b""
        self.source: Endpoint = ("", 0)
        self.greet = False


class Parts(list[Any]):
    """A reply of several datagrams, one for each item."""

    __slots__ = ()


Handler = Callable[[list[Any], Endpoint, list[Any] | None, float], Any]
"""`handler(args, source, trailer, now)` returns the reply's value, `Parts` of it, a `Deferred`,
or NO_REPLY."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What may differ between engines of one network."""

    k: int = K
    alpha: int = ALPHA
    group_size: int = GROUP_SIZE
    client: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 64:
            raise ConfigError(f"k must be 1..64, got {self.k}")
        if not 1 <= self.alpha <= self.k:
            raise ConfigError(f"alpha must be 1..k ({self.k}), got {self.alpha}")
        if not GROUP_SIZE_MIN <= self.group_size <= GROUP_SIZE_MAX:
            raise ConfigError(
                f"group_size must be {GROUP_SIZE_MIN}..{GROUP_SIZE_MAX}, got {self.group_size}"
            )


class Core:
    """What every overlay is built on: calls, timers, peers, counters, randomness, events."""

    def __init__(self, rng: "Random") -> None:
        self.rng = rng
        self.counters: Counter[str] = Counter()
        self.timers = Timers()
        self.peers = Peers()
        self.sending: list[tuple[bytes, Endpoint]] = []
        self.happened: list[Event] = []
        self.calls = Calls(self.sending, self.timers, self.peers, rng, self.counters)
        self._handlers: dict[str, Handler] = {}
        self._greeting = encode_trailer([OWN_CAPABILITIES])
        self._cookie_key = rng.randbytes(16)

    def register(self, name: str, handler: Handler) -> None:
        """Answer the RPC `name` with `handler`."""
        assert name not in self._handlers, name
        self._handlers[name] = handler

    def operation(self, on_cancel: Callable[[float], None]) -> Operation[Any]:
        """A new pending answer; `on_cancel(now)` must drop its calls and timers."""
        return Operation(self.happened, on_cancel)

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        """Take one datagram; a strange one is counted and dropped."""
        counters = self.counters
        counters["datagrams_in"] += 1
        try:
            message = parse(datagram)
            if type(message) is Response:
                self.calls.resolve(message, source, now)
                return
            handler = self._handlers.get(message.name)
            if handler is None:
                counters["requests_unknown"] += 1
                return
            trailer = message.trailer
            value = handler(message.args, source, trailer, now)
        except MalformedMessage:
            counters["malformed"] += 1
            return
        if trailer is not None:
            peer = self.peers.known(source)
            if peer is not None:
                peer.capability = Capability.DHTOS
        self._reply(message.msg_id, source, value, greet=trailer is not None)

    def answer(self, deferred: Deferred, value: Any) -> None:
        """Send the reply that a handler put off."""
        self._reply(deferred.msg_id, deferred.source, value, greet=deferred.greet)

    def cookie(self, source: Endpoint) -> bytes:
        """Eight bytes that only somebody who receives at `source` can know."""
        text = f"{source[0]}|{source[1]}".encode()
        return blake2b(text, key=self._cookie_key, digest_size=8).digest()

    def _reply(self, msg_id: bytes, source: Endpoint, value: Any, *, greet: bool) -> None:
        if value is NO_REPLY:
            return
        if type(value) is Deferred:
            value.msg_id, value.source, value.greet = msg_id, source, greet
            return
        for part in value if type(value) is Parts else (value,):
            reply = encode_response(msg_id, part)
            if greet:
                reply += self._greeting
            self.sending.append((reply, source))

    def check(self) -> None:
        """Assert the invariants of everything the overlays share."""
        self.timers.check()
        self.peers.check()
        self.calls.check()


class Engine:
    """One node: the base overlay, and the hub once a schema is given."""

    def __init__(
        self, node_id: bytes, *, rng: "Random", now: float, config: EngineConfig | None = None
    ) -> None:
        assert len(node_id) == ID_BYTES
        self.id = node_id
        self.config = config or EngineConfig()
        self.core = Core(rng)
        self.counters = self.core.counters

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        """Take one datagram from the network; never raises for what a peer sent."""
        self.core.receive(datagram, source, now)

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        self.core.timers.run(now)

    def next_deadline(self) -> float:
        """When `tick` must be called next; infinity when nothing is pending."""
        return self.core.timers.next_deadline()

    def outbox(self) -> list[tuple[bytes, Endpoint]]:
        """Take the datagrams to send."""
        sending = self.core.sending
        taken = sending[:]
        sending.clear()
        return taken

    def events(self) -> list[Event]:
        """Take what happened since the last call."""
        happened = self.core.happened
        taken = happened[:]
        happened.clear()
        return taken

    def check(self) -> None:
        """Assert every invariant of the engine and its overlays."""
        self.core.check()
