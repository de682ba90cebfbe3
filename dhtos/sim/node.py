"""A machine of the simulated world: one engine, its endpoint, its own clock, up or down.

The simulator drives whatever has the five verbs of `SimEngine`; it knows nothing of what a
datagram means. A node's clock reads virtual time plus an offset of its own, as the monotonic
clocks of two machines share no zero: a protocol that sends an absolute time fails here at once.
"""

import enum
from collections.abc import Sequence
from math import inf
from random import Random
from typing import Generic, Protocol, TypeVar

from dhtos.core.ids import Endpoint


class SimEngine(Protocol):
    """What the simulator drives: the five verbs of `dhtos.protocol.engine.Engine`, and `check`."""

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        """Take one datagram."""

    def tick(self, now: float) -> None:
        """Do what is due."""

    def next_deadline(self) -> float:
        """When to tick again; infinity for never."""

    def outbox(self) -> list[tuple[bytes, Endpoint]]:
        """Take the datagrams to send."""

    def events(self) -> Sequence[object]:
        """Take what happened."""

    def check(self) -> None:
        """Assert every invariant."""


class Joining(SimEngine, Protocol):
    """An engine that can join a network through seeds."""

    def bootstrap(self, seeds: list[Endpoint], now: float) -> "SimOperation[object]":
        """Start to join."""


E = TypeVar("E", bound=SimEngine)
T_co = TypeVar("T_co", covariant=True)


class SimOperation(Protocol[T_co]):
    """Something an engine was asked for and has not ended yet."""

    @property
    def done(self) -> bool:
        """Whether it ended."""

    def result(self) -> T_co:
        """The answer, or raise the error that ended it."""


class NodeState(enum.Enum):
    """UP runs; PAUSED keeps its state and its socket buffer; DOWN has lost both."""

    UP = "up"
    PAUSED = "paused"
    DOWN = "down"


class SimNode(Generic[E]):
    """One simulated machine; `index` is its number in the cluster and never changes.

    `engine` is the one that runs here, or the last one that did; there is none before `boot`.
    """

    __slots__ = (
        "endpoint", "engine", "id", "inbox", "incarnation", "index", "offset_s", "place", "rng",
        "spins", "state", "touched", "up", "wake_at",
    )  # fmt: skip

    engine: E

    def __init__(
        self,
        index: int,
        node_id: bytes,
        endpoint: Endpoint,
        *,
        rng: Random,
        offset_s: float = 0.0,
        place: int = 0,
    ) -> None:
        self.index = index
        self.id = node_id
        self.endpoint = endpoint
        self.rng = rng
        self.offset_s = offset_s
        self.place = place
        self.state = NodeState.DOWN
        self.up = False  # state is UP, as the one test of the delivery loop
        self.incarnation = 0
        self.inbox: list[tuple[bytes, SimNode[E]]] = []  # arrived while paused
        self.wake_at = inf
        self.spins = 0
        self.touched = False

    @property
    def previous(self) -> E | None:
        """The engine of the run before, for a factory that carries persisted state over."""
        return self.engine if self.incarnation else None

    def boot(self, engine: E) -> None:
        """Run this engine from now on."""
        assert self.state is NodeState.DOWN
        self.engine = engine
        self.incarnation += 1
        self._enter(NodeState.UP)

    def stop(self) -> None:
        """Lose power: what was received and not handled is lost."""
        assert self.state is not NodeState.DOWN
        self.inbox.clear()
        self._enter(NodeState.DOWN)

    def pause(self) -> None:
        """Stop running, but keep the state and let the socket buffer fill."""
        assert self.state is NodeState.UP
        self._enter(NodeState.PAUSED)

    def unpause(self) -> list[tuple[bytes, "SimNode[E]"]]:
        """Run again; returns what waits in the socket buffer."""
        assert self.state is NodeState.PAUSED
        self._enter(NodeState.UP)
        waiting, self.inbox = self.inbox, []
        return waiting

    def _enter(self, state: NodeState) -> None:
        self.state = state
        self.up = state is NodeState.UP
        self.wake_at = inf
        self.spins = 0

    def __repr__(self) -> str:
        return f"<node {self.index} {self.id.hex()[:8]} {self.state.value}>"

    def check(self) -> None:
        """Assert the invariants of the machine and of its engine."""
        assert self.up == (self.state is NodeState.UP)
        assert self.up or self.wake_at == inf
        assert not self.inbox or self.state is NodeState.PAUSED
        if self.up:
            self.engine.check()
