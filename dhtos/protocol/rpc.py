"""Requests and replies for every overlay: one table of names, one way in, one way out.

`Core` owns what all overlays share: the calls in flight, the timers, what is known of peers, the
counters, the outbox. An overlay registers its RPC names here and is otherwise on its own.

A reply may be one value, several datagrams (`Parts`), one that comes later (`Deferred`), or
silence. A long reply goes only to an address that has proved to receive what is sent to it: by a
cookie (a keyed hash of the address, so nothing is remembered for strangers) or by having
answered a call of ours.
"""

from collections import Counter
from collections.abc import Callable
from copy import copy
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from dhtos.core.ids import Endpoint
from dhtos.core.limits import PEERS_MAX
from dhtos.core.record import Record
from dhtos.errors import MalformedMessage
from dhtos.protocol.calls import OWN_CAPABILITIES, Calls
from dhtos.protocol.operation import Event, Operation
from dhtos.protocol.peers import Capability, Peers
from dhtos.protocol.place import Place
from dhtos.protocol.shares import COST_S, COSTS_S
from dhtos.protocol.timers import Timers
from dhtos.protocol.wire import Response, encode_response, encode_trailer, parse
from dhtos.trust.cert import Chain, Verb

if TYPE_CHECKING:
    from random import Random

    from dhtos.protocol.sessions import Sessions


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


VISITORS_ANSWER = frozenset({"dh_receipt"})
"""What those of other clusters are asked: of leases that they had here."""

Handler = Callable[[list[Any], Endpoint, list[Any] | None, float], Any]
"""`handler(args, source, trailer, now)` returns the reply's value, `Parts` of it, a `Deferred`,
or NO_REPLY."""


class Core:
    """What every overlay is built on: calls, timers, peers, counters, randomness, events."""

    def __init__(self, rng: "Random") -> None:
        self.rng = rng
        self.counters: Counter[str] = Counter()
        self.timers = Timers()
        self.peers = Peers()
        self.sending: list[tuple[bytes, Endpoint]] = []
        self.happened: list[Event] = []
        self.place = Place(rng, self.counters, OWN_CAPABILITIES)
        self.calls = Calls(
            self.sending, self.timers, self.peers, rng, self.counters, place=self.place
        )
        self.sessions: Sessions | None = None  # none in open mode
        self._handlers: dict[str, Handler] = {}
        self._terms: dict[str, tuple[Verb | None, float]] = {}  # who may ask, and what it costs
        self._placed: set[str] = set()
        self._greeting = encode_trailer([OWN_CAPABILITIES])
        self._cookie_key = rng.randbytes(16)
        self.cookies: dict[Endpoint, bytes] = {}  # what others gave us to prove our address

    def register(
        self, name: str, handler: Handler, *, verb: Verb | None, placed: bool = False
    ) -> None:
        """Answer the RPC `name` with `handler`; `placed` replies say where we are.

        In a cluster only those are answered who may `verb` here and have not used up their share;
        with None anybody may, also a guest.
        """
        assert name not in self._handlers, name
        self._handlers[name] = handler
        self._terms[name] = verb, COSTS_S.get(name, COST_S)
        if placed:
            self._placed.add(name)

    def handler(self, name: str) -> Handler:
        """Who answers the RPC `name`."""
        return self._handlers[name]

    def replace(self, name: str, handler: Handler) -> None:
        """Let another answer the RPC `name`."""
        assert name in self._handlers, name
        self._handlers[name] = handler

    def twin(self) -> "Core":
        """The same core with an empty table of names: for another place at this address."""
        twin = copy(self)
        vars(twin)["_handlers"] = {}  # all else is shared
        return twin

    def operation(self, on_cancel: Callable[[float], None]) -> Operation[Any]:
        """A new pending answer; `on_cancel(now)` must drop its calls and timers."""
        return Operation(self.happened, on_cancel)

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        """Take one datagram; a strange one is counted and dropped."""
        counters = self.counters
        counters["datagrams_in"] += 1
        try:
            message = parse(datagram)
            if isinstance(message, Response):
                if self.sessions is not None and not self._may_answer(message):
                    counters["replies_foreign"] += 1
                    return
                self.calls.resolve(message, source, now)
                return
            handler = self._handlers.get(message.name)
            if handler is None:
                counters["requests_unknown"] += 1
                return
            if self.sessions is not None:
                refusal = self.sessions.refusal(*self._terms[message.name], now)
                if refusal is not None:
                    counters[refusal] += 1
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
        greet = trailer is not None
        first = self.place.footer() if message.name in self._placed else b""
        self._reply(message.msg_id, source, value, greet=greet, first=first)

    def _may_answer(self, response: Response) -> bool:
        """Whether whoever answers is one to ask: of our fleet a visitor knows nothing.

        It could be at the address that a member had.
        """
        speaker = self.speaker
        if speaker is None or not speaker.home:
            return True
        return self.calls.name_of(response.msg_id) in VISITORS_ANSWER

    def answer(self, deferred: Deferred, value: Any) -> None:
        """Send the reply that a handler put off."""
        self._reply(deferred.msg_id, deferred.source, value, greet=deferred.greet)

    @property
    def speaker(self) -> Chain | None:
        """What the sender of the datagram at hand has shown; None in open mode, and of a guest."""
        return None if self.sessions is None else self.sessions.speaker

    def owns(self, node_id: bytes, endpoint: Endpoint) -> bool:
        """Whether the node at an endpoint may call itself so; in open mode everybody may."""
        return self.sessions is None or self.sessions.node_id(endpoint) == node_id

    def prove(self, record: Record) -> Record:
        """A record of ours as others believe it, in open mode as it is; raises ValueTooLarge."""
        return record if self.sessions is None else self.sessions.prove(record)

    def believes(self, record: Record) -> bool:
        """Whether its publisher has said so; in open mode everybody is believed."""
        return self.sessions is None or self.sessions.believes(record)

    def cookie(self, source: Endpoint) -> bytes:
        """Eight bytes that only somebody who receives at `source` can know."""
        text = f"{source[0]}|{source[1]}".encode()
        return blake2b(text, key=self._cookie_key, digest_size=8).digest()

    def proven(self, source: Endpoint, cookie: bytes) -> bool:
        """Whether somebody at `source` has shown to receive there."""
        if cookie == self.cookie(source):
            return True
        peer = self.peers.known(source)
        return peer is not None and peer.last_heard is not None

    def remember_cookie(self, endpoint: Endpoint, cookie: bytes) -> bool:
        """Keep the cookie of `endpoint`; True when it is a new one."""
        if self.cookies.get(endpoint) == cookie:
            return False
        if len(self.cookies) >= PEERS_MAX:
            del self.cookies[next(iter(self.cookies))]
        self.cookies[endpoint] = cookie
        return True

    def _reply(
        self, msg_id: bytes, source: Endpoint, value: Any, *, greet: bool, first: bytes = b""
    ) -> None:
        """Send a value; the first datagram may have a `first` trailer of its own."""
        if value is NO_REPLY:
            return
        if type(value) is Deferred:
            value.msg_id, value.source, value.greet = msg_id, source, greet
            return
        foot = self._greeting if greet else b""
        for part in value if type(value) is Parts else (value,):
            self.sending.append((encode_response(msg_id, part) + (first or foot), source))
            first = b""

    def check(self) -> None:
        """Assert the invariants of everything the overlays share."""
        self.timers.check()
        self.peers.check()
        self.calls.check()
        if self.sessions is not None:
            self.sessions.check()
